# SPDX-License-Identifier: MIT
"""EfficientTAM's efficient memory cross-attention: keys and values of memory frames, pooled 2x2.

Neighbouring pixels of a memory frame are much alike, so EfficientTAM's /1 and /2 models average
them two by two and attend to a quarter of the tokens (Xiong et al., arXiv 2411.18933, section 3.3).
A pooled token stands for four, which asks for log 4 on its score. The /1 models add it there; the
/2 models add it to every channel of the pooled key instead, and were trained so. Object pointers
are never pooled, and neither is the only memory frame of a track's first step.

Written from the paper and from what the public code computes (yformer/EfficientTAM, Apache-2.0).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from sam2.modeling.position_encoding import apply_rotary_enc
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor

SIDE = 2
"""Pixels of a side that are pooled into one."""
LOG_POOLED = 2 * math.log(SIDE)


class PooledRoPEAttention(RoPEAttention):  # type: ignore[misc]
    """Attention of one frame's pixels to memory frames of the same size and to object pointers.

    Parameters are those of sam2's RoPEAttention.
    """

    def __init__(self, *arguments: Any, log_added_to: str, **options: Any) -> None:
        """log_added_to: "scores" in the /1 models, "keys" in the /2 models."""
        super().__init__(*arguments, **options)
        if log_added_to not in ("scores", "keys"):
            raise ValueError(f'log_added_to is {log_added_to!r}; it must be "scores" or "keys".')
        self.score_bias = LOG_POOLED if log_added_to == "scores" else 0.0
        self.key_bias = LOG_POOLED if log_added_to == "keys" else 0.0

    def forward(self, q: Tensor, k: Tensor, v: Tensor, num_k_exclude_rope: int = 0) -> Tensor:
        """q: (objects, pixels, channels); k, v: (objects, frames x pixels + pointers, channels).

        num_k_exclude_rope: how many of the last tokens are pointers. Returns the shape of q.
        """
        pixels, framed = q.shape[1], k.shape[1] - num_k_exclude_rope
        if framed <= pixels:
            unpooled: Tensor = super().forward(q, k, v, num_k_exclude_rope)
            return unpooled
        queries = self._separate_heads(self.q_proj(q), self.num_heads)
        keys = self._separate_heads(self.k_proj(k), self.num_heads)
        values = self._separate_heads(self.v_proj(v), self.num_heads)
        side = math.isqrt(pixels)
        turns: Tensor = self.freqs_cis
        if len(turns) != pixels:
            turns = self.compute_cis(end_x=side, end_y=side)
        queries, rotated = apply_rotary_enc(
            queries,
            keys[:, :, :framed],
            freqs_cis=turns.to(q.device),
            repeat_freqs_k=self.rope_k_repeat,
        )
        pooled = pool(rotated, side, side) + self.key_bias
        keys = torch.cat((pooled, keys[:, :, framed:]), dim=2)
        values = torch.cat((pool(values[:, :, :framed], side, side), values[:, :, framed:]), dim=2)
        if self.score_bias:
            scores = queries @ keys.transpose(-2, -1) * (1 / math.sqrt(queries.shape[-1]))
            scores[..., : pooled.shape[2]] += self.score_bias
            attended = scores.softmax(dim=-1) @ values
        else:
            attended = F.scaled_dot_product_attention(queries, keys, values)
        mixed: Tensor = self.out_proj(self._recombine_heads(attended))
        return mixed


def pool(tokens: Tensor, height: int, width: int) -> Tensor:
    """Averages 2 x 2 pixels. tokens: (..., frames x height x width, channels); a quarter comes."""
    channels = tokens.shape[-1]
    maps = tokens.reshape(-1, height, width, channels).permute(0, 3, 1, 2)
    averages = F.avg_pool2d(maps, SIDE).flatten(2).transpose(1, 2)
    return averages.reshape(*tokens.shape[:-2], -1, channels)
