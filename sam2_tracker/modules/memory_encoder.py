# SPDX-License-Identifier: MIT
"""SAM 2's memory encoder with the channels of a pixel side by side.

The same function of the same weights as `sam2.modeling.memory_encoder.MemoryEncoder`. The official
module normalises and convolves maps whose channels lie apart, and turns them for its linear layers;
torch then multiplies row by row, and copies the layer's weights for every row. Here the channels of
a pixel lie side by side from beginning to end. Sums are taken in another order, so this is for
bfloat16; float32 keeps the official module.
"""

import torch
import torch.nn.functional as F
from sam2.modeling.memory_encoder import CXBlock
from sam2.modeling.memory_encoder import MemoryEncoder as OfficialMemoryEncoder
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import Tensor, nn

from sam2_tracker.modules.positions import Positions


class MemoryEncoder(nn.Module):
    """Takes the place of the official module in a loaded model."""

    def __init__(self, official: OfficialMemoryEncoder) -> None:
        super().__init__()
        steps = official.mask_downsampler.encoder
        self.mask_downsampler = nn.Sequential(
            *(_Norm(step) if isinstance(step, LayerNorm2d) else step for step in steps)
        )
        self.pix_feat_proj = official.pix_feat_proj
        self.fuser_proj = official.fuser.proj
        self.blocks = nn.ModuleList(map(_Block, official.fuser.layers))
        self.out_proj = official.out_proj
        self.position_encoding = Positions(official.position_encoding)
        self.to(torch.bfloat16)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, pix_feat: Tensor, masks: Tensor, skip_mask_sigmoid: bool = False
    ) -> dict[str, Tensor | list[Tensor]]:
        """pix_feat: (objects, channels, height, width). masks: float32 (objects, 1, side, side).

        Returns "vision_features", bfloat16 (objects, memory channels, height, width), and
        "vision_pos_enc", their positional encodings in a list.
        """
        masks = masks if skip_mask_sigmoid else masks.sigmoid()
        with torch.autocast(masks.device.type, enabled=False):
            x = self.pix_feat_proj(_channels_last(pix_feat))
            x = self.fuser_proj(x + self.mask_downsampler(_channels_last(masks)))
            for block in self.blocks:
                x = block(x)
            x = self.out_proj(x)
        return {"vision_features": x, "vision_pos_enc": [self.position_encoding(x)]}


class _Block(nn.Module):
    """`sam2.modeling.memory_encoder.CXBlock`: a block of ConvNeXt (arXiv 2201.03545)."""

    def __init__(self, official: CXBlock) -> None:
        super().__init__()
        self.dwconv = official.dwconv
        self.norm = _Norm(official.norm)
        self.pwconv1, self.act, self.pwconv2 = official.pwconv1, official.act, official.pwconv2
        self.gamma = official.gamma

    def forward(self, x: Tensor) -> Tensor:
        pixels: Tensor = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        pixels = self.pwconv2(self.act(self.pwconv1(pixels)))
        if self.gamma is not None:
            pixels = self.gamma * pixels
        return x + pixels.permute(0, 3, 1, 2)


class _Norm(nn.Module):
    """`sam2.modeling.sam2_utils.LayerNorm2d`: every pixel's channels are normalised."""

    def __init__(self, official: LayerNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = official.weight, official.bias, official.eps

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)
        normed = F.layer_norm(pixels, pixels.shape[3:], self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)


def _channels_last(x: Tensor) -> Tensor:
    return x.to(dtype=torch.bfloat16, memory_format=torch.channels_last)
