# SPDX-License-Identifier: MIT
"""Makes sam2's image encoder faster without changing what it computes."""

import torch
from sam2.modeling.backbones.hieradet import MultiScaleAttention
from sam2.modeling.backbones.image_encoder import ImageEncoder
from torch import Tensor, nn

from attention import attend


def speed_up(encoder: ImageEncoder, *, image_size: int, dtype: torch.dtype) -> None:
    """Rearranges a loaded encoder in place, for images of one size and one number type.

    Positions are constants of one size, attention takes the fastest way of the device, and in
    bfloat16 the weights are held so, which spares casting them for every frame.
    """
    trunk = encoder.trunk
    with torch.inference_mode():
        blank = torch.zeros(1, 3, image_size, image_size, device=trunk.pos_embed.device)
        height, width = trunk.patch_embed(blank).shape[1:3]
        positions = trunk._get_pos_embed((height, width)).to(dtype)
    trunk._get_pos_embed = lambda size: positions
    encoder.neck.position_encoding = _Positions(encoder.neck.position_encoding)
    for block in trunk.blocks:
        block.attn = _Attention(block.attn)
    encoder.to(dtype)


class _Positions(nn.Module):
    """A positional encoding that is computed once for each size, and never copied."""

    def __init__(self, official: nn.Module) -> None:
        super().__init__()
        self.official = official
        self.known: dict[tuple[torch.Size, torch.dtype], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """x: (1, channels, height, width), of which only the size counts."""
        key = (x.shape[-2:], x.dtype)
        if key not in self.known:
            self.known[key] = self.official(x[:1]).to(x.dtype)
        return self.known[key]


class _Attention(nn.Module):
    """`sam2.modeling.backbones.hieradet.MultiScaleAttention` with another product inside."""

    def __init__(self, official: MultiScaleAttention) -> None:
        super().__init__()
        self.num_heads = official.num_heads
        self.q_pool = official.q_pool
        self.qkv = official.qkv
        self.proj = official.proj

    def forward(self, x: Tensor) -> Tensor:
        """x: (windows, height, width, channels)."""
        windows, height, width, _ = x.shape
        qkv = self.qkv(x).reshape(windows, height * width, 3, self.num_heads, -1)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.q_pool is not None:
            # (windows, heads, tokens, channels) as pictures of a head each
            maps = queries.transpose(2, 3).reshape(windows, -1, height, width)
            maps = self.q_pool(maps)
            height, width = maps.shape[2:]
            queries = maps.reshape(windows, self.num_heads, -1, height * width).transpose(2, 3)
        attended = attend(queries, keys, values)
        out: Tensor = self.proj(attended.transpose(1, 2).reshape(windows, height, width, -1))
        return out
