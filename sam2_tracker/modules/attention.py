# SPDX-License-Identifier: MIT
"""softmax(Q K^T / sqrt(channels)) V, in the way that is fastest on this device."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Most attention scores per chunk: 14 MiB in bfloat16, which fits the last-level cache of a server
# processor.
SCORES_AT_ONCE = 7 << 20
# Most values per chunk of the widest intermediate in other layers: 4 MiB in bfloat16. They fit the
# cache, and the allocator uses the same memory again: page faults cost as much as the arithmetic.
VALUES_AT_ONCE = 2 << 20


def attend(queries: Tensor, keys: Tensor, values: Tensor, biases: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(channels) + biases) V, in the dtype of the queries.

    queries: (batch, heads, n, channels). keys: (batch, heads, tokens, channels). values: (batch,
    heads, tokens, c), with c <= channels. biases: (tokens,), in the dtype of the keys. Returns
    (batch, heads, n, c).
    """
    if queries.dtype != torch.bfloat16 or queries.is_cuda or torch.cpu._is_amx_tile_supported():
        return attend_fused(queries, keys, values, biases)
    # Without AMX torch's fused attention takes bfloat16 no faster than float32, while its matrix
    # product does where the processor has avx512_bf16 (4 times, on a Zen 5).
    batch, heads, tokens, channels = queries.shape
    queries = (queries * (1 / math.sqrt(channels))).reshape(-1, tokens, channels)
    keys = keys.reshape(-1, *keys.shape[2:]).transpose(1, 2)
    values = values.reshape(-1, *values.shape[2:])
    out = queries.new_empty(*queries.shape[:2], values.shape[2])
    rows = min(tokens, max(1, SCORES_AT_ONCE // keys.shape[2]))
    together = max(1, SCORES_AT_ONCE // (rows * keys.shape[2]))
    for first in range(0, len(queries), together):
        part = slice(first, first + together)
        for start in range(0, tokens, rows):
            scores = _scores(queries[part, start : start + rows], keys[part], biases)
            out[part, start : start + rows] = torch.bmm(scores.softmax(dim=-1), values[part])
    return out.reshape(batch, heads, tokens, -1)


def _scores(queries: Tensor, keys: Tensor, biases: Tensor | None) -> Tensor:
    if biases is None:
        return torch.bmm(queries, keys)
    return torch.baddbmm(biases, queries, keys)


def attend_fused(
    queries: Tensor, keys: Tensor, values: Tensor, biases: Tensor | None = None
) -> Tensor:
    """The same by torch's fused kernels, which want values as wide as keys."""
    channels = values.shape[-1]
    if channels < queries.shape[-1]:
        values = F.pad(values, (0, queries.shape[-1] - channels))
    mask = None if biases is None else biases.expand(queries.shape[2], -1)
    attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return attended[..., :channels]
