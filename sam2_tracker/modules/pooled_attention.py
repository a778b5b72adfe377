# SPDX-License-Identifier: MIT
"""EfficientTAM's efficient memory cross-attention: memory frames are pooled 2 x 2.

Neighbouring pixels of a memory frame are much alike. So EfficientTAM's /1 and /2 models average
their keys and values, 2 x 2 pixels at a time, and attend to a quarter of the tokens (Xiong et al.,
arXiv 2411.18933, section 3.3). A pooled token stands for four tokens, so log 4 belongs on its
score. The /1 models add it there. The /2 models add it to every channel of the pooled key instead,
and were trained like that. Object pointers are not pooled. Neither is a memory frame that is the
only one, as on the first step of a track.

Written from the paper and from what the public code computes (yformer/EfficientTAM, Apache-2.0).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from sam2.modeling.position_encoding import apply_rotary_enc
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor

LOG_4 = math.log(4)


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """How the tokens of a memory frame are averaged before they are attended to."""

    side: int = 1
    """side x side pixels become one token."""
    key_bias: float = 0.0
    """Added to every channel of a pooled key."""
    score_bias: float = 0.0
    """Added to the score of every pooled key."""

    def average(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """tokens: (..., frames x height x width, channels); returns 1 / side^2 of them."""
        if self.side == 1:
            return tokens
        channels = tokens.shape[-1]
        maps = tokens.reshape(-1, height, width, channels).permute(0, 3, 1, 2)
        averages = F.avg_pool2d(maps, self.side).flatten(2).transpose(1, 2)
        return averages.reshape(*tokens.shape[:-2], -1, channels)


UNPOOLED = Pooling()
POOLINGS = {
    "scores": Pooling(side=2, score_bias=LOG_4),
    "keys": Pooling(side=2, key_bias=LOG_4),
}


class PooledRoPEAttention(RoPEAttention):  # type: ignore[misc]
    """Attention of one frame's pixels to memory frames of the same size and to object pointers.

    Its parameters are those of sam2's RoPEAttention.
    """

    def __init__(self, *arguments: Any, log_4_on: str, **options: Any) -> None:
        """log_4_on: "scores" in the /1 models, "keys" in the /2 models."""
        super().__init__(*arguments, **options)
        if log_4_on not in POOLINGS:
            raise ValueError(f"log_4_on is {log_4_on!r}; it must be one of {', '.join(POOLINGS)}.")
        self.pooling = POOLINGS[log_4_on]

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
        pooled_keys = self.pooling.average(rotated, side, side) + self.pooling.key_bias
        pooled_values = self.pooling.average(values[:, :, :framed], side, side)
        keys = torch.cat((pooled_keys, keys[:, :, framed:]), dim=2)
        values = torch.cat((pooled_values, values[:, :, framed:]), dim=2)
        if self.pooling.score_bias:
            # Not by torch's attention with a mask: so it rounds as the authors' code does.
            scores = queries @ keys.transpose(-2, -1) * (1 / math.sqrt(queries.shape[-1]))
            scores[..., : pooled_keys.shape[2]] += self.pooling.score_bias
            attended = scores.softmax(dim=-1) @ values
        else:
            attended = F.scaled_dot_product_attention(queries, keys, values)
        mixed: Tensor = self.out_proj(self._recombine_heads(attended))
        return mixed
