# SPDX-License-Identifier: MIT
"""A memory bank never changes; corrections and keyframes of other banks join it."""

import dataclasses

import pytest
from observations import SMALL, observation, seen_on, started

from sam2_tracker.errors import TooManyKeyframes
from sam2_tracker.memory_bank import MAX_CONDITIONING, MemoryBank, adopt_keyframes, correct_bank
from sam2_tracker.memory_policy import remember


def bank_after(steps: int) -> MemoryBank:
    return seen_on(started(0), range(1, steps + 1))


def drawn_steps(bank: MemoryBank) -> list[int]:
    return [frame.step for frame in bank.conditioning]


def tracked_steps(bank: MemoryBank) -> list[int]:
    return [frame.step for frame in bank.tracked]


def test_a_start_is_one_conditioning_frame() -> None:
    bank = started(0)
    assert (bank.step, drawn_steps(bank), bank.tracked) == (0, [0], ())
    assert bank.memories == (bank.conditioning[0].memory,)


def test_a_step_makes_a_new_bank_and_leaves_the_old_one() -> None:
    old = bank_after(20)
    before = (old.step, tracked_steps(old), old.memories)
    new, other = (remember(old, observation(number), SMALL) for number in (100, 200))
    assert (old.step, tracked_steps(old), old.memories) == before
    assert new.step == other.step == 21
    assert new.tracked[-1].memory is not other.tracked[-1].memory
    assert new.memories[1] is old.memories[2]  # shared, not copied
    with pytest.raises(dataclasses.FrozenInstanceError):
        old.step = 3  # type: ignore[misc]


def test_a_correction_takes_the_place_of_the_last_frame_or_counts_as_the_next_step() -> None:
    for steps, distance in ((22, 0), (21, 1)):
        bank = bank_after(steps)
        joined = correct_bank(bank, started(500), distance=distance)
        assert (joined.step, drawn_steps(joined)) == (22, [0, 22])
        assert tracked_steps(joined) == [n for n in tracked_steps(bank) if n != 22]


def test_a_corrected_seed_frame_keeps_its_place_in_the_order() -> None:
    bank = correct_bank(bank_after(5), started(500), distance=1)
    again = adopt_keyframes(bank, [(started(600), -6)])
    assert drawn_steps(again) == [0, 6]
    assert again.conditioning[0].memory is not bank.conditioning[0].memory


def test_keyframes_are_adopted_from_before_and_after() -> None:
    other = correct_bank(bank_after(3), started(500), distance=1)  # drawn on 0 and 4, stands on 4
    bank = adopt_keyframes(started(0), [(started(1), 30), (started(2), -10), (other, 44)])
    assert drawn_steps(bank) == [0, 30, -10, 40, 44]
    assert bank.step == 0


def test_a_ninth_correction_takes_the_place_of_the_farthest() -> None:
    bank = started(0)
    for number in range(1, 51):
        bank = correct_bank(bank, started(number), distance=1)
    assert drawn_steps(bank) == list(range(43, 51))
    again = correct_bank(bank, started(99), distance=0)  # drawn once more: nobody gives way
    assert drawn_steps(again) == list(range(43, 51))


def test_more_than_8_adopted_frames_are_refused() -> None:
    others = [(started(n), n) for n in range(1, MAX_CONDITIONING)]
    bank = adopt_keyframes(started(0), others)
    assert len(bank.conditioning) == MAX_CONDITIONING
    with pytest.raises(TooManyKeyframes, match="9 drawn frames; at most 8"):
        adopt_keyframes(bank, [(started(100), 100)])
    # One that is drawn again takes no place.
    assert len(adopt_keyframes(bank, [(started(100), 3)]).conditioning) == MAX_CONDITIONING
