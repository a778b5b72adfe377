# SPDX-License-Identifier: MIT
"""What each policy attends to and keeps, frame by frame. test_fidelity.py has the model's side."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from observations import SMALL, observation, seen_on, started

from sam2_tracker.memory_bank import MemoryBank, adopt_keyframes, correct_bank, start_bank
from sam2_tracker.memory_policy import POLICIES, recall, remember

CONDITIONING_AGE = SMALL.recent


def bank_of(policy: str, visible: Sequence[bool]) -> MemoryBank:
    """Drawn on frame 0; visible[i]: whether it is seen on frame i + 1."""
    bank = started(0, policy)
    for number, seen in enumerate(visible, 1):
        bank = remember(bank, observation(number, seen=seen), SMALL)
    return bank


def attended(bank: MemoryBank, *, conditioning_frames: int = 0) -> list[tuple[int, int]]:
    """(step, age) of each memory that the next step attends to, in order."""
    steps = {
        frame.memory.id: frame.step for frame in (*bank.conditioning, *bank.tracked) if frame.memory
    }
    found = recall(bank, SMALL, conditioning_frames=conditioning_frames)
    return [(steps[m.id], age) for m, age in zip(found.memories, found.ages, strict=True)]


def pointer_distances(bank: MemoryBank) -> tuple[int, ...]:
    return recall(bank, SMALL).distances


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("steps", [0, 1, 3, 6, 7, 15, 16, 40])
def test_the_last_6_frames_and_15_pointers_of_a_visible_object_are_remembered(
    policy: str, steps: int
) -> None:
    bank = bank_of(policy, [True] * steps)
    recent = range(max(1, steps - 5), steps + 1)
    assert attended(bank) == [(0, CONDITIONING_AGE), *((step, steps - step) for step in recent)]
    assert pointer_distances(bank) == (steps + 1, *range(1, min(15, steps) + 1))
    assert len(bank.memories) == 1 + len(recent)  # nothing else is kept
    assert len(bank.tracked) == min(15, steps)


def test_official_remembers_frames_on_which_the_object_hides() -> None:
    bank = bank_of("official", [True] * 10 + [False] * 10)
    assert attended(bank)[1:] == [(step, 20 - step) for step in range(15, 21)]


def test_quality_keeps_the_last_frames_on_which_the_object_was_seen() -> None:
    bank = bank_of("quality", [True] * 10 + [False] * 10)
    assert attended(bank) == [(0, 6), (6, 5), (7, 4), (8, 3), (9, 2), (10, 1), (20, 0)]
    assert pointer_distances(bank) == (21, *range(1, 16))
    found = remember(bank, observation(21), SMALL)
    assert attended(found) == [(0, 6), (6, 5), (7, 4), (8, 3), (9, 2), (10, 1), (21, 0)]


def test_a_frame_without_the_object_is_attended_to_once() -> None:
    hidden = bank_of("quality", [True, True, False])
    assert attended(hidden) == [(0, 6), (1, 2), (2, 1), (3, 0)]
    assert attended(remember(hidden, observation(4), SMALL)) == [(0, 6), (1, 2), (2, 1), (4, 0)]


@given(st.lists(st.booleans(), max_size=60))
def test_quality_stays_bounded_and_newest_first(visible: list[bool]) -> None:
    bank = bank_of("quality", visible)
    seen = [step for step, one in enumerate(visible, 1) if one]
    steps = [step for step, _ in attended(bank)[1:]]
    wanted = seen[-6:] if not visible or visible[-1] else [*seen[-5:], len(visible)]
    assert steps == wanted
    assert len(bank.memories) <= 7
    assert len(bank.tracked) <= 15 + 6


@pytest.mark.parametrize("policy", ["official", "quality"])
def test_a_correction_leaves_a_gap_among_the_recent_frames(policy: str) -> None:
    """With two drawn frames: 2 + 5 frames up to six steps later, then 2 + 6."""
    bank = correct_bank(bank_of(policy, [True] * 21), started(500, policy), distance=1)
    assert attended(bank) == [(0, 6), (22, 6), *((step, 22 - step) for step in range(17, 22))]
    assert pointer_distances(bank) == (23, 1, *range(2, 16))
    bank = remember(bank, observation(23), SMALL)
    assert attended(bank)[2:] == [(18, 5), (19, 4), (20, 3), (21, 2), (23, 0)]
    assert pointer_distances(bank) == (24, 2, 1, *range(3, 16))
    bank = seen_on(bank, range(24, 30))
    assert attended(bank)[2:] == [(step, 29 - step) for step in range(24, 30)]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_keyframe_ahead_is_seen_but_gives_no_pointer(policy: str) -> None:
    bank = correct_bank(started(0, policy), started(1, policy), distance=0)
    bank = adopt_keyframes(bank, [(started(40, policy), 40)])
    assert attended(bank) == [(0, 6), (40, 6)]
    assert pointer_distances(bank) == (1,)


def test_a_step_onto_a_drawn_frame_leaves_it_as_it_was_drawn() -> None:
    bank = adopt_keyframes(bank_of("official", [True]), [(started(50), 1)])
    after = remember(bank, observation(2), SMALL)
    assert (after.step, after.conditioning, after.tracked) == (2, bank.conditioning, bank.tracked)
    assert attended(after) == [(0, 6), (2, 6), (1, 1)]


def test_only_the_nearest_drawn_frames_are_attended_to() -> None:
    bank = adopt_keyframes(started(0), [(started(n), n) for n in (3, 10, 12)])
    bank = seen_on(bank, (1, 2))
    # The nearest before is 0, the nearest at or after is 3.
    assert attended(bank, conditioning_frames=2) == [(0, 6), (3, 6), (1, 1), (2, 0)]
    bank = seen_on(correct_bank(bank, started(3), distance=1), range(4, 7))
    # Now 3 and 10; the seed is left out. It is too old to count as a recent frame.
    assert attended(bank, conditioning_frames=2)[:2] == [(3, 6), (10, 6)]


@pytest.mark.parametrize(("policy", "first"), [("official", 21), ("quality", 0), ("anchors", 0)])
def test_drawn_frames_beside_each_other_do_not_push_out_another(policy: str, first: int) -> None:
    """Two frames that show nearly the same say less of the object than two different ones."""
    others = [(started(1000 + n, policy), n) for n in (21, 23)]
    bank = seen_on(adopt_keyframes(started(0, policy), others), range(1, 27))
    assert sorted(attended(bank, conditioning_frames=2)[:2]) == [(first, 6), (23, 6)]
    between = seen_on(adopt_keyframes(started(0, policy), others), range(1, 22))
    assert sorted(attended(between, conditioning_frames=2)[:2]) == [(21, 6), (23, 6)]


@pytest.mark.parametrize("policy", ["official", "quality"])
def test_a_drawn_frame_that_is_left_out_counts_as_a_recent_one(policy: str) -> None:
    bank = started(0, policy)
    for step in (1, 2):
        bank = correct_bank(bank, started(step, policy), distance=1)
    found = recall(bank, SMALL, conditioning_frames=2)
    # 2 is the nearest before; nothing lies after; 1 is the nearest of the rest.
    assert attended(bank, conditioning_frames=2) == [(2, 6), (1, 6), (0, 2)]
    assert found.distances == (1, 2, 3)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "drawn",
    [(10, 20, 30, 40, 50, 60, 70), (40, 90), (3, 9), (-50, -40, -30), (-3, 40), (-6, -3, 2, 40)],
)
def test_whatever_else_is_drawn_an_object_in_sight_is_followed_from_its_last_frames(
    policy: str, drawn: tuple[int, ...]
) -> None:
    """Drawn frames that are not among the nearest take no place, ahead or long past."""

    def bank_after(name: str, steps: int) -> MemoryBank:
        others = [(started(1000 + n, name), n) for n in drawn]
        return seen_on(adopt_keyframes(started(0, name), others), range(1, steps + 1))

    for steps in range(16):
        found = attended(bank_after(policy, steps), conditioning_frames=2)
        assert found == attended(bank_after("official", steps), conditioning_frames=2)
        assert len(found) <= 2 + 6


def test_an_anchor_stands_beside_the_drawn_frame_from_the_step_after_the_next() -> None:
    bank = seen_on(bank_of("anchors", [True] * 8), [9], distractor=True)
    assert attended(bank)[:1] == [(0, 6)]
    assert (9, 0) in attended(bank)  # a recent frame as yet
    bank = remember(bank, observation(10), SMALL)
    assert attended(bank) == [(0, 6), (9, 6), (5, 4), (6, 3), (7, 2), (8, 1), (10, 0)]
    assert pointer_distances(bank) == (11, 2, 1, *range(3, 11))
    bank = seen_on(bank, range(11, 60))
    assert attended(bank)[:2] == [(0, 6), (9, 6)]  # however old it is
    assert len(attended(bank)) == 7


@pytest.mark.parametrize(
    "change",
    [{"distractor": False}, {"iou": 0.8}, {"area": 79}, {"area": 121}, {"seen": False}],
)
def test_what_is_no_anchor(change: dict[str, object]) -> None:
    bank = seen_on(bank_of("anchors", [True] * 8), [9], **{"distractor": True, **change})
    assert not any(frame.anchor for frame in bank.tracked)


def test_the_area_of_a_correction_becomes_the_usual_area_for_anchors() -> None:
    drawn = start_bank("anchors", observation(500, area=300))
    bank = correct_bank(bank_of("anchors", [True] * 12), drawn, distance=1)
    bank = seen_on(bank, [14], area=300, distractor=True)
    assert [frame.step for frame in bank.tracked if frame.anchor] == [14]


def test_at_most_3_anchors_at_least_6_steps_apart_the_newest_stay() -> None:
    bank = started(0, "anchors")
    most = 0
    for number in range(1, 60):
        bank = remember(bank, observation(number, distractor=True), SMALL)
        most = max(most, len(bank.memories))
        assert len(attended(bank)) <= 7
    steps = [step for step, age in attended(bank)[1:] if age == CONDITIONING_AGE]
    assert steps == [43, 49, 55]
    assert most <= 8


@pytest.mark.parametrize(("recent", "anchors"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3)])
def test_anchors_leave_half_of_the_places_to_recent_frames(recent: int, anchors: int) -> None:
    """SAM2_MEMORY_FRAMES makes the places fewer."""
    layout = replace(SMALL, recent=recent)
    bank = seen_on(started(0, "anchors"), range(1, 60), layout, distractor=True)
    steps = {frame.memory.id: frame.step for frame in bank.tracked if frame.memory}
    memories = [steps[memory.id] for memory in recall(bank, layout).memories[1:]]
    assert memories == [*range(55 - 6 * (anchors - 1), 56, 6), *range(60 - recent + anchors, 60)]


def test_other_policies_have_no_anchors() -> None:
    for policy in ("official", "quality"):
        bank = seen_on(started(0, policy), range(1, 20), distractor=True)
        assert [age for _, age in attended(bank)].count(CONDITIONING_AGE) == 1
