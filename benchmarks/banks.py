# SPDX-License-Identifier: MIT
"""Memory banks that are full without any tracking.

Attention takes as long for copies and for noise as for real memories.
"""

from collections.abc import Container
from dataclasses import replace

import torch

from model_handler import ModelHandler
from sam2_tracker.memory_bank import (
    MemoryBank,
    MemoryFrame,
    MemoryLayout,
    Observation,
    correct_bank,
    name_memory,
    start_bank,
)
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.memory_policy import remember

# Frames after which every memory bank is full: 7 memory frames and 16 object pointers.
FILLED = 17
AREA = 100


def full_bank(
    seen: Observation,
    policy: str,
    layout: MemoryLayout,
    cache: MemoryCache,
    *,
    hidden: Container[int] = (),
    corrected: Container[int] = (),
    look_alike: bool = False,
) -> MemoryBank:
    """An object after FILLED steps: copies of one observation, known to the cache.

    hidden: the steps on which it was not seen. corrected: the steps on which it was drawn again.
    look_alike: one is there on every step, so that "anchors" takes as many anchors as it may.
    """
    bank = start_bank(policy, _copy(seen, cache, visible=True, look_alike=False))
    for step in range(1, FILLED + 1):
        now = _copy(seen, cache, visible=step not in hidden, look_alike=look_alike)
        bank = remember(bank, now, layout)
        if step in corrected:
            drawn = _copy(seen, cache, visible=True, look_alike=False)
            bank = correct_bank(bank, start_bank(policy, drawn), distance=0)
    return bank


def seen_again(
    bank: MemoryBank, layout: MemoryLayout, cache: MemoryCache | None = None
) -> MemoryBank:
    """The bank one step later: the object was seen, and its newest memory frame came again."""
    newest = bank.tracked[-1] if bank.tracked else bank.conditioning[-1]
    seen = _observation(bank.memories[-1].features, newest.pointer)
    return remember(bank, _copy(seen, cache, visible=True, look_alike=False), layout)


def noise(model: ModelHandler) -> Observation:
    """An object that no image shows."""
    layout = model.layout
    shape = (layout.channels, layout.tokens)
    return _observation(
        torch.randn(shape, device=model.device).bfloat16(),
        torch.randn(layout.pointer_channels, device=model.device),
    )


def noise_memory(model: ModelHandler, cache: MemoryCache) -> MemoryFrame:
    memory = noise(model).memory
    cache.put(memory)
    return memory


def _observation(features: torch.Tensor, pointer: torch.Tensor) -> Observation:
    return Observation(
        memory=name_memory(features),
        pointer=pointer,
        object_score=10.0,
        predicted_iou=0.9,
        area=AREA,
    )


def _copy(
    seen: Observation, cache: MemoryCache | None, *, visible: bool, look_alike: bool
) -> Observation:
    memory = name_memory(seen.memory.features.clone())
    if cache is not None:
        cache.put(memory)
    return replace(
        seen,
        memory=memory,
        pointer=seen.pointer.clone(),
        object_score=10.0 if visible else -10.0,
        predicted_iou=0.9,
        area=AREA if visible else 0,
        distractor=look_alike,
    )
