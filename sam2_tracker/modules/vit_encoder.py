# SPDX-License-Identifier: MIT
"""The image encoder of EfficientTAM: a plain ViT and the neck behind it.

EfficientTAM (Xiong et al., arXiv 2411.18933, section 3.2) puts a plain, non-hierarchical ViT with
window attention (Li et al., arXiv 2203.16527) in the place of SAM 2's Hiera, and gives the mask
decoder one level of features instead of three. Everything else is SAM 2's own. Written from the
paper and from the published configurations (yformer/EfficientTAM, Apache-2.0); the parameters have
the names of the published checkpoints. A block of Hiera that neither pools nor widens is a block of
a plain ViT, so the blocks are sam2's.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import MultiScaleBlock
from sam2.modeling.backbones.utils import PatchEmbed
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import Tensor, nn

PATCH_SIZE = 16
PRETRAINING_IMAGE_SIZE = 224
"""The learned positions are those of ImageNet pretraining: 14 x 14 patches and a class token."""


class PlainViT(nn.Module):
    """A ViT in which some blocks attend within windows and the others to the whole image.

    The parts that `image_encoder.prepare_image_encoder` replaces have the names that they have in
    sam2's Hiera.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        depth: int = 12,
        window_size: int = 14,
        window_block_indexes: Sequence[int] = (0, 1, 3, 4, 6, 7, 9, 10),
    ) -> None:
        """window_size: side of a window in patches; an image is padded to whole windows."""
        super().__init__()
        patch = (PATCH_SIZE, PATCH_SIZE)
        self.patch_embed = PatchEmbed(
            kernel_size=patch, stride=patch, padding=(0, 0), embed_dim=embed_dim
        )
        positions = (PRETRAINING_IMAGE_SIZE // PATCH_SIZE) ** 2
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + positions, embed_dim))
        self.blocks = nn.ModuleList(
            MultiScaleBlock(
                embed_dim,
                embed_dim,
                num_heads,
                window_size=window_size if index in window_block_indexes else 0,
            )
            for index in range(depth)
        )
        self.channel_list = [embed_dim]

    def forward(self, images: Tensor) -> list[Tensor]:
        """images: (batch, 3, size, size). Returns [(batch, embed_dim, size / 16, size / 16)]."""
        x = self.patch_embed(images)
        x = x + self._get_pos_embed(x.shape[1:3])
        for block in self.blocks:
            x = block(x)
        return [x.permute(0, 3, 1, 2)]

    def _get_pos_embed(self, size: tuple[int, int]) -> Tensor:
        """The learned positions scaled to (height, width) patches: (1, height, width, channels)."""
        learned = self.pos_embed[:, 1:]  # the class token has no place in the image
        side = math.isqrt(learned.shape[1])
        grid = learned.reshape(1, side, side, -1)
        if tuple(size) == (side, side):
            return grid
        scaled = F.interpolate(
            grid.permute(0, 3, 1, 2), size=tuple(size), mode="bicubic", align_corners=False
        )
        return scaled.permute(0, 2, 3, 1)


class PlainNeck(nn.Module):
    """Projects the ViT's features to the model's width: 1x1 and 3x3 convolution, each normalised.

    After the "simple feature pyramid" of arXiv 2203.16527, of which only the ViT's own level is
    left. sam2's ImageEncoder calls it as it calls the FpnNeck of SAM 2.
    """

    def __init__(
        self, *, position_encoding: nn.Module, d_model: int, backbone_channel_list: Sequence[int]
    ) -> None:
        super().__init__()
        self.backbone_channel_list = list(backbone_channel_list)
        self.d_model = d_model
        self.position_encoding = position_encoding
        self.convs = nn.ModuleList(nn.Sequential() for _ in self.backbone_channel_list)
        for level, channels in zip(self.convs, self.backbone_channel_list, strict=True):
            level.add_module("conv_1x1", nn.Conv2d(channels, d_model, 1, bias=False))
            level.add_module("norm_0", LayerNorm2d(d_model))
            level.add_module("conv_3x3", nn.Conv2d(d_model, d_model, 3, padding=1, bias=False))
            level.add_module("norm_1", LayerNorm2d(d_model))

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """levels: the ViT's features, each (batch, embed_dim, height, width).

        Returns features (batch, d_model, height, width) and their positional encodings.
        """
        features = [conv(x) for conv, x in zip(self.convs, levels, strict=True)]
        return features, [self.position_encoding(x).to(x.dtype) for x in features]
