# SPDX-License-Identifier: MIT
"""Made-up observations, each unlike any other, and memory banks of them."""

from collections.abc import Iterable
from typing import Any

import torch

from sam2_tracker.memory_bank import MemoryBank, MemoryLayout, Observation, name_memory, start_bank
from sam2_tracker.memory_policy import remember

SMALL = MemoryLayout(tokens=16, channels=4, recent=6, pointer_channels=8, pointers=15)


def observation(
    number: int,
    layout: MemoryLayout = SMALL,
    *,
    seen: bool = True,
    area: int = 100,
    iou: float = 0.9,
    distractor: bool = False,
) -> Observation:
    """The features and the pointer are random numbers that `number` seeds."""
    generator = torch.Generator().manual_seed(number)
    shape = (layout.channels, layout.tokens)
    features = torch.randn(shape, generator=generator).to(torch.bfloat16)
    return Observation(
        memory=name_memory(features),
        pointer=torch.randn(layout.pointer_channels, generator=generator),
        object_score=5.0 if seen else -5.0,
        predicted_iou=iou,
        area=area if seen else 0,
        distractor=distractor,
    )


def started(number: int, policy: str = "official") -> MemoryBank:
    return start_bank(policy, observation(number))


def seen_on(
    bank: MemoryBank, numbers: Iterable[int], layout: MemoryLayout = SMALL, **seen: Any
) -> MemoryBank:
    """The bank after a step with each of the observations."""
    for number in numbers:
        bank = remember(bank, observation(number, layout, **seen), layout)
    return bank
