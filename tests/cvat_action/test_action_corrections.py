# SPDX-License-Identifier: MIT
"""What a person drew again: an object starts from it, and joins it where the function can."""

from collections.abc import Sequence
from typing import Any

import pytest
from look import by_frame, correct, frames_of, on_frame
from wire import MASK, keyframe, shape, track

from cvat_action.calls import Answer
from cvat_action.job import Job, Label
from cvat_action.seeds import Correction, Seed, Tuning
from cvat_action.tracked import TrackedObject, shape_to_start_from
from cvat_action.tracking import StepCorrection
from cvat_action.tracking import track as track_frames

SEED = [0, 100, 10, 10, 19, 19]
NEAR = [0, 100, 12, 10, 21, 19]
DRAWN = [0, 100, 20, 10, 29, 19]
JOB = Job(1, 1, 0, 9, (Label(7, "thing"),), ((64, 48),))


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
        return self._answer(f"stepped {frame}", [{"type": "mask", "points": SEED}] * len(states))

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
    tracker: Recorder, drawn: list[int] | None = DRAWN, *, sure: bool = True, **options: Any
) -> list[tuple[Any, ...]]:
    """The calls for frames 0 to 5 of one object, of which a person drew `drawn` on frame 3."""
    corrections = () if drawn is None else (Correction(3, tuple(drawn), None, sure),)
    seed = Seed("1", "mask", 0, tuple(SEED), {"label_id": 1}, False, 0, corrections=corrections)
    done = track_frames(tracker, JOB, [TrackedObject(seed)], range(1, 6), **options)
    assert done.broken is None
    return tracker.calls


BEFORE = [("start", 0, [SEED]), ("step", 1, ["started 0"]), ("step", 2, ["stepped 1"])]
AFTER = [("step", 4, ["corrected 3"]), ("step", 5, ["stepped 4"])]


@pytest.mark.parametrize(
    ("drawn", "sure", "calls"),
    [
        (DRAWN, True, [("correct", 3, [DRAWN], ["stepped 2"])]),
        (NEAR, False, [("step", 3, ["stepped 2"]), ("correct", 3, [NEAR], ["stepped 2"])]),
    ],
    ids=["a track's keyframe", "a shape in the same place"],
)
def test_a_drawing_joins_from_the_state_of_the_frame_before(drawn, sure, calls) -> None:
    assert run(Recorder(), drawn, sure=sure) == [*BEFORE, *calls, *AFTER]


def test_what_is_corrected_while_stepping_joins() -> None:
    def on_frame(frame: int, objects: Sequence[TrackedObject]) -> list[StepCorrection]:
        return [StepCorrection(0, DRAWN)] if frame == 2 else []

    assert run(Recorder(), None, on_frame=on_frame)[2:5] == [
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


def test_how_an_object_is_tracked_is_said_where_it_starts() -> None:
    seed = Seed("1", "mask", 0, MASK, {"label_id": 1}, False, 0)
    tuning = Tuning(memory="anchors", tolerance=0.1, search_region=0)
    asked = shape_to_start_from(TrackedObject(seed, tuning=tuning))  # a mask has no tolerance
    assert asked == {"type": "mask", "points": MASK, "memory": "anchors", "search_region": 0}


def test_what_was_hidden_while_stepping_starts_anew_where_it_is_drawn_again():
    said = {2: None, 4: DRAWN}

    def on_frame(frame, objects):
        return [StepCorrection(0, said[frame])] if frame in said else []

    calls = run(Recorder(), None, on_frame=on_frame)
    assert calls[3:] == [("start", 4, [DRAWN]), ("step", 5, ["started 4"])]


# --- through a server ----------------------------------------------------------------------------


def test_all_seeds_take_an_object_and_what_it_was_drawn_as_for_one(job, track_to):
    """It was drawn on frame 12, and tracked from there to 14 and back to 10."""
    job.shapes = [shape("mask", MASK, id=900, frame=12)]
    for target in (14, 10):
        track_to(target, start=12)
    track_to(14, "--replace", "--all-seeds")
    assert frames_of(job.shapes) == [10, 11, 12, 13, 14]


def prompts(function):
    return [s["points"] for body in function.bodies for s in body["shapes"] if s]


def test_from_a_box_that_was_turned_the_object_goes_on_in_the_box_around_it(
    job, track_to, function
):
    job.shapes = [shape("rectangle", [10.0, 10.0, 40.0, 16.0], id=900)]
    track_to(13)
    turned = correct(job, 12, on_frame(job, 12)["points"], rotation=90.0)
    as_turned = dict(turned)
    function.bodies.clear()
    track_to(13, "--replace")
    assert pytest.approx([24.0, -2.0, 30.0, 28.0]) in prompts(function)  # it had moved by 2
    assert as_turned in job.shapes


def test_the_box_of_a_keyframe_that_was_turned_is_upright_too(job, track_to, function):
    box = [10.0, 10.0, 40.0, 16.0]
    job.tracks = [track(keyframe(10, box), keyframe(12, box, rotation=90.0), id=5)]
    track_to(13)
    assert pytest.approx([22.0, -2.0, 28.0, 28.0]) in prompts(function)
    kept = by_frame(job.tracks[0])[12]
    assert (kept["points"], kept["rotation"]) == (box, 90.0)
