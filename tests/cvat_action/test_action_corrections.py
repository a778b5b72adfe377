# SPDX-License-Identifier: MIT
"""A correction joins what is known of the object, where the function can do that."""

from collections.abc import Sequence
from typing import Any

import pytest

from cvat_action.job import Job, Label
from cvat_action.selection import Correction, Seed
from cvat_action.tracking import Answer, Corrected, TrackedObject, shape_to_start_from, track

MASK = [0, 100, 10, 10, 19, 19]
DRAWN = [0, 100, 20, 10, 29, 19]


class Recorder:
    """A tracker that answers the seed's shape and notes every call."""

    def __init__(self, *, joins: bool = True, refuses: str | None = None) -> None:
        self.joins = joins
        self._refuses = refuses
        self.calls: list[tuple[Any, ...]] = []

    def start(self, frame: int, shapes: list[dict[str, Any]]) -> Answer:
        self.calls.append(("start", frame, [shape["points"] for shape in shapes]))
        return self._answer(f"started {frame}", shapes)

    def step(self, frame: int, states: list[Any]) -> Answer:
        self.calls.append(("step", frame, list(states)))
        return self._answer(f"stepped {frame}", [{"type": "mask", "points": MASK}] * len(states))

    def correct(self, frame: int, shapes: list[dict[str, Any]], states: list[Any]) -> Answer:
        self.calls.append(("correct", frame, [shape["points"] for shape in shapes], list(states)))
        if self._refuses:
            fault = {"code": self._refuses, "message": "Too many."}
            return Answer([None], [None], [None], [fault])
        return self._answer(f"corrected {frame}", shapes)

    def _answer(self, state: str, shapes: Sequence[Any]) -> Answer:
        count = len(shapes)
        return Answer(list(shapes), [state] * count, [0.9] * count, [None] * count)


def run(
    tracker: Recorder, *, sure: bool = True, drawn_on: int | None = 3, **options: Any
) -> list[tuple[Any, ...]]:
    """The calls for frames 0 to 5 of one object that a person drew again on one of them."""
    drawn = () if drawn_on is None else (Correction(drawn_on, tuple(DRAWN), None, sure),)
    seed = Seed("1", "mask", 0, tuple(MASK), {"label_id": 1}, False, 0, corrections=drawn)
    job = Job(1, 1, 0, 9, (Label(1, "thing"),), ((64, 48),))
    done = track(tracker, job, [TrackedObject(seed)], range(1, 6), **options)
    assert done.broken is None
    return tracker.calls


def test_a_track_s_keyframe_joins_from_the_state_of_the_frame_before() -> None:
    assert run(Recorder()) == [
        ("start", 0, [MASK]),
        ("step", 1, ["started 0"]),
        ("step", 2, ["stepped 1"]),
        ("correct", 3, [DRAWN], ["stepped 2"]),
        ("step", 4, ["corrected 3"]),
        ("step", 5, ["stepped 4"]),
    ]


def test_a_shape_in_the_same_place_joins_from_the_state_of_the_frame_before() -> None:
    near = [0, 100, 12, 10, 21, 19]
    drawn = (Correction(3, tuple(near), None, False),)
    seed = Seed("1", "mask", 0, tuple(MASK), {"label_id": 1}, False, 0, corrections=drawn)
    job = Job(1, 1, 0, 9, (Label(1, "thing"),), ((64, 48),))
    tracker = Recorder()
    track(tracker, job, [TrackedObject(seed)], range(1, 5))
    assert tracker.calls[3:] == [
        ("step", 3, ["stepped 2"]),
        ("correct", 3, [near], ["stepped 2"]),
        ("step", 4, ["corrected 3"]),
    ]


def test_what_is_corrected_while_stepping_joins() -> None:
    def on_frame(frame: int, objects: Sequence[TrackedObject]) -> list[Corrected]:
        return [Corrected(0, DRAWN)] if frame == 2 else []

    calls = run(Recorder(), drawn_on=None, on_frame=on_frame)
    assert calls[2:5] == [
        ("step", 2, ["stepped 1"]),
        ("correct", 2, [DRAWN], ["stepped 1"]),
        ("step", 3, ["corrected 2"]),
    ]


def test_another_function_starts_anew_from_a_correction() -> None:
    """It would track on from the state and never look at the shape."""
    calls = run(Recorder(joins=False))
    assert ("start", 3, [DRAWN]) in calls
    assert not [call for call in calls if call[0] == "correct"]


def test_a_correction_that_cannot_join_starts_anew_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = run(Recorder(refuses="too_many_keyframes"))
    assert calls[3:6] == [
        ("correct", 3, [DRAWN], ["stepped 2"]),
        ("start", 3, [DRAWN]),
        ("step", 4, ["started 3"]),
    ]
    assert "its correction starts it anew. Too many." in caplog.text


def test_the_memory_policy_is_asked_for_where_an_object_starts() -> None:
    shape = shape_to_start_from(
        TrackedObject(Seed("1", "mask", 0, MASK, {"label_id": 1}, False, 0), memory="anchors")
    )
    assert shape == {"type": "mask", "points": MASK, "memory": "anchors"}
