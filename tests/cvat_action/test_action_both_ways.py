# SPDX-License-Identifier: MIT
"""`--both-ways`: gaps between drawn frames are tracked from both ends."""

from collections.abc import Sequence
from typing import Any

import pytest

from cvat_action.both_ways import track_both_ways
from cvat_action.job import Job, Label
from cvat_action.selection import Correction, Seed
from cvat_action.tracking import Answer, CallFailed, Cure, TrackedObject

JOB = Job(1, 1, 0, 30, (Label(1, "thing"),), ((640, 48),))


def mask(x: int) -> list[int]:
    return [0, 100, x, 10, x + 9, 19]


class Mover:
    """Moves an object by one pixel per step, away from where it was drawn; sure of it nearby."""

    joins = True

    def __init__(self) -> None:
        self.adopted: list[tuple[int, dict[int, int]]] = []
        """The frame of a state, and the frames of the others with their distances."""
        self.corrected: list[int] = []
        """Frames of corrections: only to find out whether an unsure drawing is the object's."""
        self.fails_on: int | None = None

    def start(self, frame: int, shapes: list[dict[str, Any]]) -> Answer:
        states = [(frame, shape["points"][-4], 0) for shape in shapes]
        return Answer(list(shapes), states, [1.0] * len(states), [None] * len(states))

    def step(self, frame: int, states: list[Any]) -> Answer:
        if frame == self.fails_on:
            raise CallFailed(Cure.NONE, "It broke.")
        new = [(start, x + 1, steps + 1) for start, x, steps in states]
        shapes = [{"type": "mask", "points": mask(x)} for _, x, _ in new]
        return Answer(shapes, new, [1 / (1 + steps) for _, _, steps in new], [None] * len(new))

    def correct(self, frame: int, shapes: list[dict[str, Any]], states: list[Any]) -> Answer:
        self.corrected.append(frame)
        return self.start(frame, shapes)

    def adopt(self, frame: int, kind: str, state: Any, others: list[tuple[Any, int]]) -> Answer:
        self.adopted.append((frame, {other[0]: distance for other, distance in others}))
        return Answer([None], [state], [None], [None])


def run(
    tracker: Mover,
    drawn: dict[int, int | None],
    frames: Sequence[int],
    unsure: Sequence[int] = (),
    relabelled: frozenset[int] = frozenset(),
    **options: Any,
) -> tuple[Any, TrackedObject, list[int]]:
    """drawn: x of the mask by frame; None: marked as outside. The first is the seed."""
    (first, x), *later = drawn.items()
    corrections = tuple(
        Correction(frame, None if at is None else tuple(mask(at)), sure=frame not in unsure)
        for frame, at in later
    )
    seed = Seed(
        *("1", "mask", first, mask(x or 0), {"label_id": 1}, False, 0, corrections),
        relabelled=relabelled,
    )
    object_ = TrackedObject(seed)
    kept: list[int] = []
    done = track_both_ways(tracker, JOB, [object_], frames, keep=kept.append, **options)
    return done, object_, kept


def places(object_: TrackedObject) -> dict[int, int | None]:
    return {f: t.points and t.points[-4] for f, t in sorted(object_.frames.items())}


@pytest.mark.parametrize("parallel", [1, 3])
def test_each_half_of_a_gap_comes_from_its_nearer_end(parallel: int) -> None:
    done, object_, kept = run(Mover(), {0: 100, 6: 300}, range(1, 9), parallel=parallel)
    assert done.broken is None
    assert places(object_) == {1: 101, 2: 102, 3: 303, 4: 302, 5: 301, 6: 300, 7: 301, 8: 302}
    assert object_.frames[6].by_hand
    assert kept == list(range(1, 9))


def test_every_drawing_stands_on_the_others_at_their_true_distances() -> None:
    tracker = Mover()
    # Frames 3 and 4 are deleted: a distance counts tracked frames.
    run(tracker, {0: 0, 2: 20, 8: 80}, [1, 2, 5, 6, 7, 8, 9])
    assert tracker.adopted == [
        (0, {2: 2, 8: 6}),
        (2, {0: 2, 8: -4}),  # backwards
        (2, {0: -2, 8: 4}),
        (8, {2: 4, 0: 6}),  # backwards
        (8, {2: -4, 0: -6}),
    ]


def test_a_drawing_without_a_mark_counts_where_tracking_leads_to_it() -> None:
    tracker = Mover()
    _, object_, _ = run(tracker, {0: 100, 4: 108, 6: 300}, range(1, 8), unsure=[4, 6])
    assert places(object_) == {1: 101, 2: 110, 3: 109, 4: 108, 5: 109, 6: 110, 7: 111}
    assert [f for f, t in object_.frames.items() if t.by_hand] == [4]
    assert tracker.corrected == [4]
    tracker = Mover()
    run(tracker, {0: 100, 6: 300}, range(1, 8))
    assert tracker.corrected == []


def test_backwards_runs_have_their_gaps_too() -> None:
    done, object_, _ = run(Mover(), {9: 100, 5: 300}, range(8, 2, -1))
    assert done.broken is None
    assert places(object_) == {3: 302, 4: 301, 5: 300, 6: 301, 7: 302, 8: 101}


def test_after_a_mark_as_outside_there_is_nothing_up_to_the_next_drawing() -> None:
    _, object_, _ = run(Mover(), {0: 100, 2: None, 5: 300}, range(1, 7))
    assert places(object_) == {1: 101, 2: None, 5: 300, 6: 301}


def test_one_drawing_is_tracked_as_ever() -> None:
    done, object_, _ = run(Mover(), {0: 100}, range(1, 4))
    assert done.broken is None
    assert places(object_) == {1: 101, 2: 102, 3: 103}
    assert object_.state == (0, 103, 3)


def test_at_most_8_drawings_count_at_once() -> None:
    tracker = Mover()
    run(tracker, {2 * n: n for n in range(12)}, range(1, 24))
    assert {len(others) for _, others in tracker.adopted} == {7}


def test_of_a_run_that_breaks_nothing_is_kept() -> None:
    tracker = Mover()
    tracker.fails_on = 4
    done, object_, kept = run(tracker, {0: 100, 6: 300}, range(1, 9))
    assert done.broken == "It broke."
    assert kept == []
    assert done.done == ()
