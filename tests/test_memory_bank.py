# SPDX-License-Identifier: MIT
"""What a memory bank keeps, and in which order."""

import dataclasses

import pytest
import torch
from torch import Tensor

from sam2_tracker.memory_bank import MemoryBank, MemoryLayout, advance_bank, start_bank

LAYOUT = MemoryLayout(channels=2, height=3, width=4, recent=6, pointer_channels=5, pointers=15)


def features(number: int) -> Tensor:
    return torch.full((2, 3, 4), number, dtype=torch.bfloat16)


def pointer(number: int) -> Tensor:
    return torch.full((5,), float(number))


def bank_after(steps: int) -> MemoryBank:
    bank = start_bank(features(0), pointer(0))
    for number in range(1, steps + 1):
        bank = advance_bank(bank, features(number), pointer(number), LAYOUT)
    return bank


def frames(bank: MemoryBank) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in bank.recent]


def pointers(bank: MemoryBank) -> list[int]:
    return [int(row[0]) for row in bank.pointers]


@pytest.mark.parametrize(
    ("steps", "recent", "kept"),
    [
        (0, [], [0]),
        (1, [1], [0, 1]),
        (3, [1, 2, 3], [0, 3, 2, 1]),
        (6, [1, 2, 3, 4, 5, 6], [0, 6, 5, 4, 3, 2, 1]),
        (7, [2, 3, 4, 5, 6, 7], [0, 7, 6, 5, 4, 3, 2, 1]),
        (15, [10, 11, 12, 13, 14, 15], [0, *range(15, 0, -1)]),
        (16, [11, 12, 13, 14, 15, 16], [0, *range(16, 1, -1)]),
        (40, [35, 36, 37, 38, 39, 40], [0, *range(40, 25, -1)]),
    ],
)
def test_6_frames_and_15_pointers_beside_the_conditioning_frame(
    steps: int, recent: list[int], kept: list[int]
) -> None:
    bank = bank_after(steps)
    assert bank.step == steps
    assert int(bank.conditioning[0, 0, 0]) == 0
    assert frames(bank) == recent
    assert pointers(bank) == kept
    assert int(bank.newest[0, 0, 0]) == steps


def test_a_step_makes_a_new_bank_and_leaves_the_old_one() -> None:
    old = bank_after(20)
    before = (old.step, frames(old), pointers(old))
    new = advance_bank(old, features(100), pointer(100), LAYOUT)
    other = advance_bank(old, features(200), pointer(200), LAYOUT)
    assert (old.step, frames(old), pointers(old)) == before
    assert frames(new)[-1] == 100
    assert frames(other)[-1] == 200
    assert new.recent[0] is old.recent[1]  # shared, not copied
    with pytest.raises(dataclasses.FrozenInstanceError):
        old.step = 3  # type: ignore[misc]
