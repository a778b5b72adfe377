# SPDX-License-Identifier: MIT
"""Memory banks that are full without any tracking.

Attention takes as long for noise and for copies as for real memories.
"""

import torch
from PIL import Image

from model_handler import ModelHandler
from sam2_tracker.memory_bank import (
    MemoryBank,
    MemoryFrame,
    MemoryLayout,
    Observation,
    name_memory,
    start_bank,
)
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.memory_policy import remember

# Frames after which every memory bank is full: 7 memory frames and 16 object pointers.
FILLED = 17
VISIBLE, HIDDEN = 10.0, -10.0


def seen_again(bank: MemoryBank, layout: MemoryLayout) -> MemoryBank:
    """The bank one step later: the object was seen, and its newest memory frame came again."""
    newest = bank.tracked[-1] if bank.tracked else bank.conditioning[-1]
    features, pointer = bank.memories[-1].features.clone(), newest.pointer.clone()
    return remember(bank, _observation(name_memory(features), pointer), layout)


def full_bank(
    model: ModelHandler,
    policy: str,
    cache: MemoryCache,
    *,
    steps: int = FILLED,
    hidden: range = range(0),
    looks_alike: bool = False,
) -> MemoryBank:
    """An object after `steps` steps, of noise, its memory frames known to the cache.

    hidden: the steps on which it was not seen. looks_alike: something like it is there on every
    step, so that the policy "anchors" takes as many anchors as it may.
    """
    layout = model.layout
    bank = start_bank(policy, _observation(noise_memory(model, cache), _noise_pointer(model)))
    for step in range(1, steps + 1):
        seen = _observation(
            noise_memory(model, cache),
            _noise_pointer(model),
            visible=step not in hidden,
            distractor=looks_alike,
        )
        bank = remember(bank, seen, layout)
    return bank


def noise_memory(model: ModelHandler, cache: MemoryCache) -> MemoryFrame:
    layout = model.layout
    shape = (layout.channels, layout.height, layout.width)
    memory = name_memory(torch.randn(shape, device=model.device).bfloat16())
    cache.put(memory)
    return memory


def blank_image(model: ModelHandler) -> Image.Image:
    """Of the size of the model's input: nothing has to be resized."""
    return Image.new("RGB", (model.network.image_size,) * 2)


def _noise_pointer(model: ModelHandler) -> torch.Tensor:
    return torch.randn(model.layout.pointer_channels, device=model.device)


def _observation(
    memory: MemoryFrame, pointer: torch.Tensor, *, visible: bool = True, distractor: bool = False
) -> Observation:
    return Observation(
        memory=memory,
        pointer=pointer,
        object_score=VISIBLE if visible else HIDDEN,
        predicted_iou=0.9,
        area=100 if visible else 0,
        distractor=distractor,
    )
