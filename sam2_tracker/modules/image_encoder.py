# SPDX-License-Identifier: MIT
"""Makes sam2's image encoder faster without changing what it computes."""

import torch
from sam2.modeling.backbones.hieradet import MultiScaleAttention, do_pool
from sam2.modeling.sam2_utils import MLP
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor, nn

from sam2_tracker.modules.attention import VALUES_AT_ONCE, attend
from sam2_tracker.modules.positions import Positions


def prepare_image_encoder(model: SAM2VideoPredictor, *, dtype: torch.dtype) -> None:
    """Rearranges the image encoder of a loaded model in place, for the model's image size.

    Positions are constants, and attention takes the fastest way of the device. In bfloat16 weights
    are held so, which spares casting them for every frame, a block goes through windows and pixels
    part by part, and convolutions that follow one another are merged; in float32 every sum is the
    official one.
    """
    encoder, size = model.image_encoder, model.image_size
    trunk = encoder.trunk
    with torch.inference_mode():
        blank = torch.zeros(1, 3, size, size, device=trunk.pos_embed.device)
        height, width = trunk.patch_embed(blank).shape[1:3]
        positions = trunk._get_pos_embed((height, width)).to(dtype)
    trunk._get_pos_embed = lambda size: positions
    for block in trunk.blocks:
        block.attn, block.mlp = _Attention(block.attn), _Mlp(block.mlp)
    encoder.neck.position_encoding = Positions(encoder.neck.position_encoding)
    if dtype == torch.bfloat16:
        if _fine_levels_are_merely_projected(model):
            _merge_fine_levels(model)
        trunk.patch_embed = _PatchEmbed(trunk.patch_embed)
        # Autocast would widen every normalised value for the next layer to narrow it again.
        trunk.forward = torch.autocast(positions.device.type, enabled=False)(trunk.forward)
    encoder.to(dtype)


class _PatchEmbed(nn.Module):
    """Patches with their channels side by side, which then hold through all blocks."""

    def __init__(self, official: nn.Module) -> None:
        super().__init__()
        self.official = official

    def forward(self, images: Tensor) -> Tensor:
        """images: (batch, 3, side, side). Returns (batch, height, width, channels)."""
        patches: Tensor = self.official(images)
        return patches.contiguous()


class _Attention(nn.Module):
    """`sam2.modeling.backbones.hieradet.MultiScaleAttention`, some windows at a time."""

    def __init__(self, official: MultiScaleAttention) -> None:
        super().__init__()
        self.num_heads = official.num_heads
        self.q_pool = official.q_pool
        self.qkv = official.qkv
        self.proj = official.proj

    def forward(self, x: Tensor) -> Tensor:
        """x: (windows, height, width, channels)."""
        widest = x.shape[1] * x.shape[2] * self.qkv.out_features
        return torch.cat([self._attend(windows) for windows in _parts(x, widest)])

    def _attend(self, x: Tensor) -> Tensor:
        windows, height, width, _ = x.shape
        qkv = self.qkv(x).reshape(windows, height * width, 3, self.num_heads, -1)
        queries, keys, values = qkv.unbind(2)
        if self.q_pool is not None:
            queries = do_pool(queries.reshape(windows, height, width, -1), self.q_pool)
            height, width = queries.shape[1:3]
            queries = queries.reshape(windows, height * width, self.num_heads, -1)
        attended = attend(queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2))
        out: Tensor = self.proj(attended.transpose(1, 2).reshape(windows, height, width, -1))
        return out


class _Mlp(nn.Module):
    """A block's `sam2.modeling.sam2_utils.MLP` of two layers, some pixels at a time."""

    def __init__(self, official: MLP) -> None:
        super().__init__()
        self.wide, self.narrow = official.layers
        self.activation = official.act

    def forward(self, x: Tensor) -> Tensor:
        """x: (1, height, width, channels)."""
        parts = _parts(x.flatten(0, 2), self.wide.out_features)
        return torch.cat(
            [self.narrow(self.activation(self.wide(pixels))) for pixels in parts]
        ).view_as(x)


def _parts(x: Tensor, widest: int) -> tuple[Tensor, ...]:
    """Cuts x along its first dimension, each entry of which makes `widest` values on its way."""
    if x.is_cuda or x.dtype == torch.float32:  # float32 products round by how many rows they have
        return (x,)
    return torch.split(x, max(1, VALUES_AT_ONCE // widest))


def _merge_fine_levels(model: SAM2VideoPredictor) -> None:
    """On the fine levels a 1x1 convolution of the neck meets one of the mask decoder, with nothing
    between them: two matrices, which are multiplied here before they meet the picture."""
    neck, decoder = model.image_encoder.neck, model.sam_mask_decoder
    for level, name in enumerate(("conv_s0", "conv_s1")):
        first, last = neck.convs[-1 - level].conv, getattr(decoder, name)
        matrix = last.weight.detach().flatten(1)
        weight = matrix @ first.weight.detach().flatten(1)
        merged = nn.Conv2d(first.in_channels, last.out_channels, 1)
        merged.weight = nn.Parameter(weight[:, :, None, None])
        merged.bias = nn.Parameter(matrix @ first.bias.detach() + last.bias.detach())
        neck.convs[-1 - level].conv = merged
        setattr(decoder, name, nn.Identity())


def _fine_levels_are_merely_projected(model: SAM2VideoPredictor) -> bool:
    """As in all of Meta's configurations."""
    neck = model.image_encoder.neck
    return (
        model.use_high_res_features_in_sam
        and not {0, 1} & set(neck.fpn_top_down_levels)
        and all(convolution.conv.kernel_size == (1, 1) for convolution in neck.convs)
    )
