# SPDX-License-Identifier: MIT
"""`--both-ways`: gaps between drawn frames are tracked from both ends."""

import io
import json
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import recorded
from look import frames_of, places
from processes import WAIT
from standin_cvat import Fault, StandinFunction
from tqdm import tqdm
from wire import MASK, POLYGON, RECTANGLE, keyframe, mask_at, shape, shifted, track

from cvat_action.both_ways import kept_of, track_both_ways
from cvat_action.calls import Answer, CallFailed, Cure, Pace
from cvat_action.job import Job, Label
from cvat_action.run import Progress
from cvat_action.seeds import Correction, Seed
from cvat_action.server import OUR_DESCRIPTION
from cvat_action.tracked import TrackedObject

JOB = Job(1, 1, 0, 30, (Label(1, "thing"),), ((640, 48),))
REFUSED = {"code": "empty_shape", "message": "The shape covers no pixel."}


def mask(x: int) -> list[int]:
    return [0, 100, x, 10, x + 9, 19]


@pytest.mark.parametrize("gap", recorded("both_ways")["gaps"], ids=lambda gap: gap["why"])
def test_how_far_a_gap_keeps_its_forward_results(gap):
    ahead, back = ([-1.0 if s is None else s for s in gap[way]] for way in ("forward", "backward"))
    assert kept_of(ahead, back) == gap["kept"]


class Mover:
    """Moves an object by one pixel per step, away from where it was drawn; sure of it nearby."""

    joins = True

    def __init__(self) -> None:
        self.adopted: list[tuple[int, dict[int, int]]] = []
        """The frame of a state, and the frames of the others with their distances."""
        self.corrected: list[int] = []
        """Frames on which a drawing joined."""
        self.fails_on: int | None = None
        self.stepped: list[int] = []

    def start(self, frame: int, shapes: list[dict[str, Any]]) -> Answer:
        states = [(frame, shape["points"][-4], 0) for shape in shapes]
        return Answer(list(shapes), states, [1.0] * len(states), [None] * len(states))

    def step(self, frame: int, states: list[Any]) -> Answer:
        self.stepped.append(frame)
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
    relabelled: Sequence[int] = (),
    **options: Any,
) -> tuple[Any, TrackedObject, list[int]]:
    """drawn: x of the mask by frame; None: marked as outside. The first is the seed."""
    (first, x), *later = drawn.items()
    corrections = tuple(
        Correction(frame, None if at is None else tuple(mask(at)), sure=frame not in unsure)
        for frame, at in later
    )
    how: dict[str, Any] = {"corrections": corrections, "relabelled": frozenset(relabelled)}
    object_ = TrackedObject(
        Seed("1", "mask", first, mask(x or 0), {"label_id": 1}, False, 0, **how)
    )
    kept: list[int] = []
    done = track_both_ways(tracker, JOB, [object_], frames, keep=kept.append, **options)
    return done, object_, kept


def lefts(object_: TrackedObject) -> dict[int, int | None]:
    return {f: t.points and t.points[-4] for f, t in sorted(object_.frames.items())}


def by_hand(object_: TrackedObject) -> list[int]:
    return sorted(f for f, t in object_.frames.items() if t.by_hand)


FIVE_DRAWN = {0: 100, 6: 200, 12: 300, 18: 400, 24: 500}
HALVES = {1: 101, 2: 102, 3: 303, 4: 302, 5: 301, 6: 300, 7: 301, 8: 302}


@pytest.mark.parametrize(
    ("drawn", "frames", "parallel", "found", "state"),
    [
        ({0: 100, 6: 300}, range(1, 9), 1, HALVES, (6, 302, 2)),
        ({0: 100, 6: 300}, range(1, 9), 3, HALVES, (6, 302, 2)),
        (
            *({9: 100, 5: 300}, range(8, 2, -1), 1),
            *({3: 302, 4: 301, 5: 300, 6: 301, 7: 302, 8: 101}, (5, 302, 2)),
        ),
        (
            *({0: 100, 2: None, 5: 300}, range(1, 7), 1),
            *({1: 101, 2: None, 5: 300, 6: 301}, (5, 301, 1)),
        ),
        ({0: 100}, range(1, 4), 1, {1: 101, 2: 102, 3: 103}, (0, 103, 3)),
    ],
    ids=["forwards", "three gaps at once", "backwards", "marked as outside", "one drawing"],
)
def test_each_half_of_a_gap_comes_from_its_nearer_end(drawn, frames, parallel, found, state):
    """After a mark as outside there is nothing up to the next drawing."""
    done, object_, kept = run(Mover(), drawn, frames, parallel=parallel)
    assert done.broken is None
    assert lefts(object_) == found
    assert by_hand(object_) == sorted([*drawn][1:])
    assert kept == list(frames)
    assert object_.state == state


@pytest.mark.parametrize(
    ("frames", "relabelled", "adopted", "joined"),
    [
        pytest.param(
            [1, 2, 5, 6, 7, 8, 9],  # 3 and 4 are deleted: a distance counts tracked frames
            *([], [(0, {2: 2, 8: 6}), (8, {2: 4, 0: 6})], [2, 8, 2]),
            id="at their true distances",
        ),
        pytest.param(
            *(range(1, 10), [2]),
            [(0, {8: 8}), (2, {0: 2, 8: -6}), (2, {0: -2, 8: 6}), (8, {0: 8}), (8, {0: -8})],
            [],
            id="but not on a result with another label",
        ),
    ],
)
def test_tracking_starts_with_all_drawings_known_and_each_one_on_the_way_joins(
    frames, relabelled, adopted, joined
):
    """Forwards from the first drawing, and backwards from the last."""
    tracker = Mover()
    run(tracker, {0: 0, 2: 20, 8: 80}, frames, relabelled=relabelled)
    assert tracker.adopted == adopted
    assert tracker.corrected == joined


@pytest.mark.parametrize(
    ("parallel", "ends"),
    [(2, [0, 24]), (3, [0, 18, 18, 24]), (4, [0, 18, 18, 24]), (8, [0, 12, 12, 24, 24])],
)
def test_more_calls_at_once_cut_the_range_at_drawings(parallel, ends):
    tracker = Mover()
    _, object_, _ = run(tracker, FIVE_DRAWN, range(1, 30), parallel=parallel)
    assert [frame for frame, _ in tracker.adopted] == ends
    assert len(object_.frames) == 29


def test_a_drawing_without_a_mark_counts_where_tracking_leads_to_it() -> None:
    tracker = Mover()
    _, object_, _ = run(tracker, {0: 100, 4: 108, 6: 300}, range(1, 8), unsure=[4, 6])
    assert lefts(object_) == {1: 101, 2: 110, 3: 109, 4: 108, 5: 109, 6: 110, 7: 111}
    assert by_hand(object_) == [4]
    assert tracker.corrected == [4, 4]  # while it is searched for, and then for good


def test_at_most_8_drawings_count_at_once() -> None:
    tracker = Mover()
    run(tracker, {2 * n: n for n in range(12)}, range(1, 24))
    assert {len(others) for _, others in tracker.adopted} == {7}
    # A ninth drawing would push out another one of the same section.
    assert [frame for frame, _ in tracker.adopted] == [0, 14, 14, 22]


def test_after_a_fault_in_one_gap_nothing_is_kept_and_the_function_is_asked_for_no_other():
    tracker = Mover()
    tracker.fails_on = 8
    done, _, kept = run(tracker, FIVE_DRAWN, range(1, 30))
    assert (done.broken, done.done, kept) == ("It broke.", (), [])
    assert tracker.stepped == [1, 2, 3, 4, 5, 7, 8]  # on frame 6 a drawing joins


def test_after_ctrl_c_the_function_is_asked_for_no_other_gap(monkeypatch):
    reached, halted = threading.Event(), threading.Event()

    class Pool(ThreadPoolExecutor):
        """Ctrl+C is pressed while the gaps are waited for."""

        def submit(self, *arguments: Any) -> Any:
            future: Any = super().submit(*arguments)
            future.result = self.interrupted
            return future

        def interrupted(self) -> None:
            assert reached.wait(WAIT)
            raise KeyboardInterrupt

    class Waiting(Mover):
        def step(self, frame: int, states: list[Any]) -> Answer:
            if frame == 3:
                reached.set()
                assert halted.wait(WAIT)
            return super().step(frame, states)

    monkeypatch.setattr("cvat_action.both_ways.ThreadPoolExecutor", Pool)
    monkeypatch.setattr(
        "cvat_action.both_ways.threading",
        SimpleNamespace(Event=lambda: halted, Lock=threading.Lock),
    )
    tracker = Waiting()
    done, _, kept = run(tracker, FIVE_DRAWN, range(1, 30))
    assert (done.broken, done.interrupted, kept) == ("Stopped by Ctrl+C.", True, [])
    assert tracker.stepped == [1, 2, 3]


# --- how far it is -------------------------------------------------------------------------------


def test_ctrl_c_ends_a_run_at_once_while_it_waits_for_an_absent_function() -> None:
    """Forwards it is away for an hour; backwards a person presses Ctrl+C meanwhile."""
    waiting = threading.Event()

    class Away(Mover):
        def step(self, frame: int, states: list[Any]) -> Answer:
            if frame == 1:
                waiting.set()
                raise CallFailed(Cure.REPEAT, "It is away.")
            waiting.wait(60)
            raise KeyboardInterrupt

    pace = Pace(wait=3600, first_wait=3600)
    done, _, kept = run(Away(), {0: 100, 6: 300}, range(1, 8), pace=pace, parallel=2)
    assert done.broken
    assert kept == []


@pytest.mark.parametrize("parallel", [1, 2])
def test_progress_is_reported_frame_by_frame_while_gaps_are_tracked(parallel):
    """Eight frames forwards, and five backwards from the second drawing."""
    tracker = Mover()
    told: list[tuple[str, int, int, int]] = []

    def tell(what: str, done: int, total: int) -> None:
        told.append((what, done, total, len(tracker.stepped)))

    run(tracker, {0: 100, 6: 300}, range(1, 9), parallel=parallel, tell=tell)
    assert {what for what, *_ in told} == {"tracked between drawings, in both directions"}
    assert [(done, total) for _, done, total, _ in told] == [(n, 13) for n in range(1, 14)]
    assert told[0][3] <= parallel


def test_progress_is_reported_while_unsure_drawings_are_checked():
    told: list[tuple[str, int, int]] = []
    tell = lambda *each: told.append(each)  # noqa: E731
    run(Mover(), {0: 100, 4: 104}, range(1, 6), unsure=[4], tell=tell)
    assert told[:5] == [
        *(("tracked forwards to check drawings", n, 4) for n in range(1, 5)),
        ("tracked between drawings, in both directions", 1, 8),
    ]


def test_the_bar_of_a_terminal_counts_the_frames_of_the_gaps():
    terminal = io.StringIO()
    bar = tqdm(total=10, file=terminal)
    progress = Progress(10, bar, clock=lambda: 0.0)
    progress.beforehand("in the gaps", 5, 10)
    assert "25%" in terminal.getvalue()
    assert "5 of 10 frames in the gaps" in terminal.getvalue()
    progress.beforehand("in the gaps", 10, 10)
    for frame in range(10):
        progress.tell(frame, frame + 1, [])
    assert "20/20" in terminal.getvalue()
    bar.close()


# --- through a server ----------------------------------------------------------------------------


def test_without_a_terminal_a_line_tells_how_far_the_gaps_are(job, track_to, monkeypatch):
    monkeypatch.setattr("cvat_action.run.LOG_SECONDS", 0.0)
    job.shapes = [shape("mask", MASK, id=900 + f, frame=f, group=1) for f in (10, 14)]
    log = track_to(16, "--both-ways", "--object", 910).log
    assert "9 of 9 frames tracked between drawings, in both directions." in log
    assert log.index(" 9 of 9 frames ") < log.index("Frame 11: 1 of 6 frames, 1 object.")


def test_ctrl_c_while_drawings_are_carried_ends_the_command_with_all_that_is_tracked(
    job, track_to, monkeypatch
):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("cvat_action.both_ways.carry", stopped)
    job.shapes = [shape("mask", MASK, id=900 + f, frame=f, group=1) for f in (10, 14)]
    log = track_to(16, "--both-ways", "--object", 910, code=130).log
    assert "Stopped by Ctrl+C; what is tracked is written." in log
    assert sorted({s["frame"] for s in job.shapes}) == [*range(10, 17)]


def test_both_ways_goes_on_behind_drawings_on_neighbouring_frames(job, track_to):
    drawn_on = (10, 11, 14)
    job.shapes = [shape("mask", mask_at(f), id=900 + f, frame=f, group=1) for f in drawn_on]
    track_to(16, "--both-ways", "--object", 910)
    assert sorted(frames_of(job.shapes)) == list(range(10, 17))


def test_both_ways_is_not_recommended_where_it_cannot_be_used(job, track_to):
    told = "--both-ways frames between drawings are tracked from both ends"
    job.shapes = [shape("mask", MASK, id=900 + f, frame=f, group=1) for f in (10, 14)]
    assert told in track_to(16, "--keyframes", "--object", 910).out
    assert told not in track_to(16, "--all-seeds", "--replace").out
    hidden = keyframe(14, POLYGON, outside=True)
    job.shapes, job.tracks = [], [track(keyframe(10, POLYGON), hidden, id=50)]
    assert told not in track_to(16).out


def test_one_object_that_cannot_be_tracked_leaves_the_others_alone(job, track_to, function):
    job.shapes = [
        *(shape("mask", MASK, id=900 + n, frame=f, group=1) for n, f in enumerate((10, 14))),
        shape("mask", mask_at(4, 5), id=910, group=2),
        shape("mask", mask_at(8, 5), id=911, frame=16, group=2),
    ]
    function.errors[20, 12] = [{"code": "state_gone", "message": "It is not known."}] * 9
    done = track_to(18, "--both-ways", code=3)
    assert "lost its state twice on frame 12" in done.out
    assert frames_of(s for s in job.shapes if s["points"][-3] == 5) == list(range(10, 19))


def test_an_object_that_stops_in_one_gap_goes_on_in_the_others(job, track_to, function):
    job.shapes = [shape("mask", MASK, id=900 + f, frame=f, group=1) for f in (10, 14, 18)]
    function.errors[20, 12] = [{"code": "state_gone", "message": "It is not known."}] * 2
    track_to(24, "--both-ways", "--object", 910)
    assert frames_of(job.shapes) == list(range(10, 25))


def test_a_drawing_that_is_refused_leaves_the_rest_and_is_told(job, track_to, function):
    job.shapes = [shape("mask", MASK, id=900 + f, frame=f, group=1) for f in (10, 14, 18)]
    function.errors[20, 14] = [REFUSED]
    done = track_to(24, "--both-ways", "--object", 910, code=3)
    assert "not started on frame 14: The function refused it: " in done.out
    assert "every object was refused" not in done.log
    assert {11, 12, 13, 19, 24} <= set(frames_of(job.shapes))


BOTH_WAYS = ("--object", 900, "--both-ways")


@pytest.mark.slow
def test_a_resume_goes_on_from_what_was_drawn_on_frames_that_are_done(
    cvat, long_job, track_to, resume, function
):
    def draw():
        first, second = mask_at(300), mask_at(10)
        long_job.shapes = [
            shape("mask", first, id=900, frame=0, group=3),
            shape("mask", second, id=1050, frame=150, group=3),
        ]

    draw()
    track_to(240, *BOTH_WAYS, start=0)
    whole = places(long_job.shapes)
    draw()
    cvat.faults = [Fault("PATCH", ".*", 503, "away", times=1)]  # the first 200 are not written
    ended = track_to(240, *BOTH_WAYS, "--wait", 0, start=0, code=4)
    assert "200 of 240 frames are tracked, and not all of it is written." in ended.log
    function.refuse = lambda frame, count: 503
    resume(ended, "--wait", 0, code=4)
    assert ended.journal.is_file()
    function.refuse = lambda frame, count: None
    resume(ended)
    assert places(long_job.shapes) == whole


@pytest.mark.parametrize("away_on", ["forwards", "backwards"])
def test_a_resume_goes_on_with_what_was_tracked_in_one_direction(
    job, track_to, resume, function, away_on
):
    def draw():
        job.shapes = [
            *(shape("mask", mask_at(9 + f), id=900 + f, frame=f, group=1) for f in (10, 20)),
            *(shape("mask", mask_at(40 - f, 5), id=950 + f, frame=f, group=2) for f in (10, 14)),
        ]

    def calls():
        """But for those on drawn frames, which start again."""
        return Counter(frame for _, frame, _ in function.calls if frame not in (10, 14, 20))

    draw()
    track_to(24, "--both-ways", "--object", 910, "--object", 960)
    whole, in_one_go = places(job.shapes), calls()
    draw()
    function.calls.clear()
    answers = iter([503] if away_on == "forwards" else [None, 503])
    function.refuse = lambda frame, count: next(answers) if frame == 15 else None
    ended = track_to(24, "--both-ways", "--object", 910, "--object", 960, "--wait", 0, code=4)
    assert "0 of 14 frames are tracked, and " in ended.log
    assert " in one direction. Go on with: " in ended.log
    function.refuse = lambda frame, count: None
    resume(ended)
    assert places(job.shapes) == whole
    assert calls() == in_one_go, "no frame is tracked twice"


@pytest.mark.parametrize("damage", [{"results": []}, {"states": None}, {"at": "x"}, {"way": "[]"}])
def test_a_resume_from_a_damaged_direction_says_that_the_journal_is_damaged(
    job, cut_off, resume, damage
):
    job.shapes = [shape("mask", mask_at(f), id=900 + f, frame=f, group=1) for f in (10, 16)]
    ended = cut_off(14, 20, "--both-ways", "--object", 910)
    lines = Path(ended.journal).read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if '"way"' in line)
    lines[at] = json.dumps(json.loads(lines[at]) | damage)
    Path(ended.journal).write_text("\n".join(lines) + "\n")
    assert "is damaged" in resume(ended, code=1).log


@pytest.mark.slow
def test_an_object_that_stopped_in_one_gap_goes_on_in_the_next_after_a_resume(
    cvat, long_job, track_to, resume, function
):
    drawn_on = (0, 150, 220)
    long_job.shapes = [shape("mask", mask_at(9), id=900 + f, frame=f, group=3) for f in drawn_on]
    function.errors[20, 150] = [REFUSED] * 2
    cvat.faults = [Fault("PATCH", ".*", 503, "away", times=1)]
    ended = track_to(240, *BOTH_WAYS, "--wait", 0, start=0, code=4)
    resume(ended, code=3)
    assert set(frames_of(long_job.shapes)) == {*range(151), *range(220, 241)}


# --- functions that are not known ----------------------------------------------------------------


@pytest.fixture
def second(cvat, job, function):
    """Another tracker of the same CVAT; an object is drawn on two frames."""
    cvat.functions["sam2-large"] = StandinFunction(function.url, "sam2-large")
    job.shapes = [
        shape("rectangle", RECTANGLE, id=900, group=3),
        shape("rectangle", shifted(RECTANGLE, 9), id=901, frame=20, group=3),
    ]
    return cvat.functions["sam2-large"]


def test_calls_at_once_are_refused_where_nothing_is_tracked_both_ways(track_to, one_mask):
    assert "--parallel is for --both-ways." in track_to(14, "--parallel", 2, code=2).log


def test_both_ways_refuses_a_function_that_is_not_known_as_our_tracker(job, track_to, second):
    refused = track_to(24, "--both-ways", "--function", "sam2-large", code=1)
    assert "sam2-large is not known as this project's tracker" in refused.log
    assert len(job.shapes) == 2


def test_our_tracker_is_known_by_its_description_under_any_id(track_to, second, function):
    second.description = OUR_DESCRIPTION
    track_to(24, *BOTH_WAYS, "--function", "sam2-large")
    assert "adopt" in str(function.bodies)


def test_a_function_that_starts_anew_from_corrections_is_told(track_to, second):
    done = track_to(29, "--keyframes", "--object", 900, "--function", "sam2-large")
    assert "starts anew from every correction" in done.log
