# SPDX-License-Identifier: MIT
"""SAM 2's memory attention, with a memory frame's keys projected and rotated only once.

The same function of the same weights as `sam2.modeling.memory_attention.MemoryAttention`, arranged
for repeated use. In the official module every step projects all memory frames anew and rotates them
(RoPE, arXiv 2104.09864) as complex numbers. Here:

- projection and rotation are linear, so a frame's keys are computed once, without its time
  encoding; what that adds is a constant map for every age, which is added when the frame is used;
- the projection of the values is linear too, and attention's weights sum to 1: so it attends to the
  memories themselves, which have a quarter of the channels, and the projection follows, as one
  matrix with the projection of the output;
- the channels of a head are ordered so that a rotated pair lies half a head apart, not side by
  side: then a rotation is a few real multiplications, and the products of queries and keys stay;
- until the first cross-attention all objects of a frame are alike and are computed as one.

EfficientTAM's models that pool memory frames (pooled_attention.py) are served too: pooling is one
more linear step, so it is the pooled keys and memories that are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sam2.modeling.memory_attention import MemoryAttention as OfficialMemoryAttention
from sam2.modeling.memory_attention import MemoryAttentionLayer
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor, nn

from sam2_tracker.errors import ConfigurationError
from sam2_tracker.memory_bank import MemoryFrame
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.modules.attention import VALUES_AT_ONCE, attend
from sam2_tracker.modules.pooled_attention import UNPOOLED, PooledRoPEAttention, Pooling


@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryTokens:
    """Of one memory frame, what is needed again in every step while it is remembered."""

    keys: Tensor
    """(layers, heads, tokens, channels of a head), without time."""
    values: Tensor
    """(1, tokens, memory channels): of all layers and heads."""

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


class MemoryAttention(nn.Module):
    """Takes the place of the official module in a loaded model."""

    def __init__(
        self,
        module: OfficialMemoryAttention,
        *,
        height: int,
        width: int,
        memory_positions: Tensor,
        time_encodings: Tensor,
        dtype: torch.dtype,
        cache: MemoryCache,
    ) -> None:
        """memory_positions: (pixels, memory channels); time_encodings: (ages, memory channels).

        cache: keeps the keys of memory frames for the next steps.

        Raises ConfigurationError if the module's layers attend in another way than SAM 2's.
        """
        super().__init__()
        for layer in module.layers:
            for attention in (layer.self_attn, layer.cross_attn_image):
                if not isinstance(attention, RoPEAttention):
                    raise ConfigurationError(
                        f"The memory attention uses {type(attention).__name__}, not RoPEAttention."
                    )
        self._position_scale = 0.1 if module.pos_enc_at_input else 0.0
        self._norm = module.norm
        self._layers = [_Layer(layer, height, width, dtype) for layer in module.layers]
        self._dtype = dtype
        self._size = (height, width)
        self._memory_positions = memory_positions
        self._time_encodings = time_encodings
        self._pooling = _pooling(module)
        # (ages, layers, heads, tokens, channels)
        self._time_keys = torch.stack(
            [
                torch.stack([layer.time_keys(encoding, self._pooling) for layer in self._layers])
                for encoding in time_encodings
            ]
        )
        self._cache = cache

    def forward(
        self,
        pixels: Tensor,
        pixel_positions: Tensor,
        memories: Sequence[Sequence[MemoryFrame]],
        ages: Sequence[Sequence[int]],
        pointers: Tensor,
        pointer_positions: Tensor,
    ) -> Tensor:
        """Conditions one frame's features on the memories of several objects.

        pixels, pixel_positions: (pixels, channels), of the frame. memories: for each object its
        memory frames, equally many for all objects; ages: for each of these frames an index into
        the time encodings. pointers, pointer_positions: (objects, tokens, memory channels).
        Returns float32 (objects, pixels, channels).
        """
        # As in PooledRoPEAttention.
        pooling = self._pooling if len(memories[0]) > 1 else UNPOOLED
        frames = [[self._tokens_of(frame, pooling) for frame in object_] for object_ in memories]
        x = (pixels + self._position_scale * pixel_positions).float()[None]
        x = self._layers[0].attend_to_itself(x, pixel_positions)
        together = self._objects_at_once(len(frames), pixels)
        parts = [slice(first, first + together) for first in range(0, len(frames), together)]
        return torch.cat(
            [
                self._attend(
                    *(x, pixel_positions, frames[part], ages[part]),
                    *(pointers[part], pointer_positions[part], pooling),
                )
                for part in parts
            ]
        )

    def _objects_at_once(self, objects: int, pixels: Tensor) -> int:
        if pixels.is_cuda:
            return objects
        return max(1, VALUES_AT_ONCE // (len(pixels) * self._layers[0].widest))

    def _attend(
        self,
        x: Tensor,
        positions: Tensor,
        frames: Sequence[Sequence[MemoryTokens]],
        ages: Sequence[Sequence[int]],
        pointers: Tensor,
        pointer_positions: Tensor,
        pooling: Pooling,
    ) -> Tensor:
        """Some objects, after the first layer's self-attention x: (1, pixels, channels)."""
        values = _gather_values(frames, pointers.to(self._dtype))
        for index, layer in enumerate(self._layers):
            if index > 0:
                x = layer.attend_to_itself(x, positions)
            pointer_keys = layer.pointer_keys(pointers, pointer_positions)
            keys = self._gather_keys(frames, ages, pointer_keys, index, pooling)
            biases = _score_biases(keys, keys.shape[2] - pointers.shape[1], pooling)
            x = layer.attend_to_memory(x, positions, keys, values, biases)
            x = layer.feed_forward(x)
        return _norm(x, self._norm)

    def _gather_keys(
        self,
        frames: Sequence[Sequence[MemoryTokens]],
        ages: Sequence[Sequence[int]],
        pointer_keys: Tensor,
        layer: int,
        pooling: Pooling,
    ) -> Tensor:
        """Keys of each object's frames with what their ages add, then those of its pointers.

        pointer_keys: (objects, heads, tokens, channels of a head); so are the keys.
        """
        objects, heads, _, channels = pointer_keys.shape
        tokens = frames[0][0].keys.shape[2]
        framed = len(frames[0]) * tokens
        keys = pointer_keys.new_empty(objects, heads, framed + pointer_keys.shape[2], channels)
        keys[:, :, framed:] = pointer_keys
        for own, own_frames, own_ages in zip(keys, frames, ages, strict=True):
            places = own[:, :framed].split(tokens, dim=1)
            for place, frame, age in zip(places, own_frames, own_ages, strict=True):
                torch.add(frame.keys[layer], self._time_keys_of(age, layer, pooling), out=place)
        return keys

    def _time_keys_of(self, age: int, layer: int, pooling: Pooling) -> Tensor:
        if pooling == self._pooling:
            return self._time_keys[age, layer]
        return self._layers[layer].time_keys(self._time_encodings[age], pooling)

    def _tokens_of(self, frame: MemoryFrame, pooling: Pooling) -> MemoryTokens:
        if pooling == self._pooling:
            return self._cache.derived(frame, lambda: self._derive_tokens(frame.features, pooling))
        # Not kept: only one step of a track attends to a frame that is not pooled.
        return self._derive_tokens(frame.features, pooling)

    def _derive_tokens(self, features: Tensor, pooling: Pooling) -> MemoryTokens:
        tokens = features.T.float()
        keys = [layer.frame_keys(tokens, self._memory_positions, pooling) for layer in self._layers]
        values = pooling.average(tokens, *self._size)
        return MemoryTokens(
            keys=torch.stack(keys), values=values.to(self._dtype).contiguous()[None]
        )


class _Layer:
    """One layer's weights, rearranged once. Sums stay float32, products are taken in `dtype`."""

    def __init__(
        self, layer: MemoryAttentionLayer, height: int, width: int, dtype: torch.dtype
    ) -> None:
        own, cross = layer.self_attn, layer.cross_attn_image
        self._norms = (layer.norm1, layer.norm2, layer.norm3)
        self._position_at_self = bool(layer.pos_enc_at_attn)
        self._position_at_queries = bool(layer.pos_enc_at_cross_attn_queries)
        self._position_at_keys = bool(layer.pos_enc_at_cross_attn_keys)
        self._dtype = dtype
        self._size = (height, width)
        self._heads = (own.num_heads, cross.num_heads)
        self._rotations = (_rotation(own, height, width), _rotation(cross, height, width))
        self._own_queries = _projection(own.q_proj, own.num_heads, dtype)
        self._own_keys = _projection(own.k_proj, own.num_heads, dtype)
        self._own_values = _projection(own.v_proj, 0, dtype)
        self._own_out = _projection(own.out_proj, 0, dtype)
        self._queries = _projection(cross.q_proj, cross.num_heads, dtype)
        # Of a memory frame only once: in full precision.
        self._keys = _projection(cross.k_proj, cross.num_heads, torch.float32)
        self._out = _values_to_output(cross, dtype)
        self._wide = _projection(layer.linear1, 0, dtype)
        self._narrow = _projection(layer.linear2, 0, dtype)
        self._activation = layer.activation
        self.widest: int = layer.linear1.out_features
        """Channels of its widest values."""

    def time_keys(self, encoding: Tensor, pooling: Pooling) -> Tensor:
        """What a time encoding (memory channels,) adds to a frame's keys.

        Returns (heads, tokens, channels of a head) in the layer's dtype.
        """
        if not self._position_at_keys:
            encoding = torch.zeros_like(encoding)
        keys = F.linear(encoding, self._keys[0])  # no bias: the frame's own keys have it
        pixels = self._rotations[1][0].shape[0]
        heads = _split(keys.expand(1, pixels, -1), self._heads[1])
        rotated = _rotate(heads, self._rotations[1])[0]
        return pooling.average(rotated, *self._size).to(self._dtype)

    def frame_keys(self, tokens: Tensor, positions: Tensor, pooling: Pooling) -> Tensor:
        """tokens, positions: float32 (pixels, memory channels).

        Returns (heads, tokens, channels of a head) in the layer's dtype.
        """
        placed = tokens + positions if self._position_at_keys else tokens
        keys = _split(F.linear(placed, *self._keys)[None], self._heads[1])
        rotated = _rotate(keys, self._rotations[1])[0]
        return (pooling.average(rotated, *self._size) + pooling.key_bias).to(self._dtype)

    def pointer_keys(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens, positions: (objects, tokens, memory channels).

        Returns (objects, heads, tokens, channels of a head) in the layer's dtype.
        """
        placed = tokens + positions if self._position_at_keys else tokens
        return _split(F.linear(placed, *self._keys), self._heads[1]).to(self._dtype)

    def attend_to_itself(self, x: Tensor, positions: Tensor) -> Tensor:
        normed = _norm(x, self._norms[0])
        placed = normed + positions if self._position_at_self else normed
        placed, normed = placed.to(self._dtype), normed.to(self._dtype)
        heads, rotation = self._heads[0], self._rotations[0]
        queries = _rotate(_split(F.linear(placed, *self._own_queries), heads), rotation)
        keys = _rotate(_split(F.linear(placed, *self._own_keys), heads), rotation)
        values = _split(F.linear(normed, *self._own_values), heads)
        attended = attend(queries.to(self._dtype), keys.to(self._dtype), values)
        return x + F.linear(_merge(attended), *self._own_out).float()

    def attend_to_memory(
        self, x: Tensor, positions: Tensor, keys: Tensor, values: Tensor, biases: Tensor | None
    ) -> Tensor:
        """biases: (tokens,), added to the scores of the keys."""
        normed = _norm(x, self._norms[1])
        placed = normed + positions if self._position_at_queries else normed
        queries = _split(F.linear(placed.to(self._dtype), *self._queries), self._heads[1])
        queries = _rotate(queries, self._rotations[1]).to(self._dtype)
        values = values.expand(-1, self._heads[1], -1, -1)
        attended = attend(queries.expand(len(keys), -1, -1, -1), keys, values, biases)
        return x + F.linear(_merge(attended), *self._out).float()

    def feed_forward(self, x: Tensor) -> Tensor:
        wide = F.linear(_norm(x, self._norms[2]).to(self._dtype), *self._wide)
        wide = wide.relu_() if self._activation is F.relu else self._activation(wide)
        return x + F.linear(wide, *self._narrow).float()


def _pooling(module: OfficialMemoryAttention) -> Pooling:
    cross = module.layers[0].cross_attn_image
    return cross.pooling if isinstance(cross, PooledRoPEAttention) else UNPOOLED


def _score_biases(keys: Tensor, framed: int, pooling: Pooling) -> Tensor | None:
    """What is added to the scores of the keys, of which the first `framed` are memory frames'."""
    if not pooling.score_bias:
        return None
    biases = keys.new_zeros(keys.shape[2])
    biases[:framed] = pooling.score_bias
    return biases


def _projection(linear: nn.Linear, rotated_heads: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight and bias; the channels of each rotated head with their pairs' first halves first."""
    weight, bias = linear.weight.detach(), linear.bias.detach()
    if rotated_heads:
        order = torch.arange(len(bias)).view(rotated_heads, -1, 2).transpose(1, 2).flatten()
        weight, bias = weight[order], bias[order]
    return weight.to(dtype), bias.to(dtype)


def _values_to_output(attention: RoPEAttention, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight and bias from what each head attended to, before any projection, to the output."""
    values, out = attention.v_proj, attention.out_proj
    heads = values.weight.detach().unflatten(0, (attention.num_heads, -1))
    mixes = out.weight.detach().unflatten(1, (attention.num_heads, -1))
    weight = torch.einsum("ohc,hcm->ohm", mixes, heads).flatten(1)
    bias = F.linear(values.bias.detach(), out.weight.detach(), out.bias.detach())
    return weight.to(dtype), bias.to(dtype)


def _rotation(attention: RoPEAttention, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32 (pixels, half of a head's channels)."""
    turns = attention.compute_cis(end_x=width, end_y=height).to(attention.q_proj.weight.device)
    return turns.real.contiguous(), turns.imag.contiguous()


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """float32 (..., pixels, channels of a head)."""
    cosine, sine = rotation
    x = x.float()
    rotated = torch.empty_like(x)
    (first, second), (turned, ahead) = x.chunk(2, dim=-1), rotated.chunk(2, dim=-1)
    torch.mul(first, cosine, out=turned).addcmul_(second, sine, value=-1)
    torch.mul(first, sine, out=ahead).addcmul_(second, cosine)
    return rotated


def _split(x: Tensor, heads: int) -> Tensor:
    """(batch, tokens, channels) to (batch, heads, tokens, channels of a head)."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)


def _merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _gather_values(frames: Sequence[Sequence[MemoryTokens]], pointers: Tensor) -> Tensor:
    """Memories of each object's frames and its pointers, (objects, 1, tokens, memory channels)."""
    return torch.stack(
        [
            torch.cat((*(frame.values for frame in own_frames), own[None]), dim=1)
            for own_frames, own in zip(frames, pointers, strict=True)
        ]
    )
