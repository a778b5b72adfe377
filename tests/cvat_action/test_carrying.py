# SPDX-License-Identifier: MIT
"""Drawings that are carried by optical flow to the frames beside them."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from cvat_sdk.masks import encode_mask

from cvat_action import carrying
from cvat_action.both_ways import MOST_UNREADABLE, track_both_ways
from cvat_action.calls import Answer
from cvat_action.carrying import Drawing, Estimate, Flow, carry
from cvat_action.errors import ActionError
from cvat_action.geometry import points_to_bitmap
from cvat_action.job import Job, Label
from cvat_action.seeds import Correction, Seed
from cvat_action.tracked import Tracked, TrackedObject
from sam2_tracker.shapes import Bitmap, bitmap_to_polygon, bitmap_to_rectangle
from training.clips import Clip, draw_clip
from training.metrics import jaccard

WIDTH, HEIGHT, COUNT = 320, 240, 13
LAST = COUNT - 1
THING = 1


@pytest.fixture(scope="module")
def clip() -> Clip:
    return draw_clip(21, frames=COUNT, width=WIDTH, height=HEIGHT, objects=3, motion=0.3)


def truth(clip: Clip, frame: int) -> Bitmap:
    return np.asarray(clip.masks[frame, THING])


def coarse(mask: Bitmap) -> Bitmap:
    """As a tracker finds it whose masks are too large on all sides."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)


def flow_of(clip: Clip) -> Flow:
    return Flow(lambda frame: clip.frames[frame, :, :, ::-1], (WIDTH, HEIGHT))


def tracked(clip: Clip, score: float = 0.7) -> Callable[[int], Estimate | None]:
    return lambda frame: Estimate(coarse(truth(clip, frame)), score)


def drawing(clip: Clip, frame: int) -> Drawing:
    return Drawing(frame, truth(clip, frame))


@pytest.mark.parametrize(
    ("left", "right"), [(0, LAST), (0, None), (LAST, 0), (LAST, None)],
    ids=["between two", "behind the last", "backwards between two", "backwards behind the last"],
)  # fmt: skip
def test_a_carried_outline_is_finer(clip: Clip, left: int, right: int | None) -> None:
    frames = range(1, LAST) if left == 0 else range(LAST - 1, 0, -1)
    end = None if right is None else drawing(clip, right)
    found = dict(carry(flow_of(clip), drawing(clip, left), end, frames, tracked(clip)))
    assert sorted(found) == sorted(frames)
    assert jaccard(truth(clip, 0), truth(clip, LAST)) < 0.6  # it moves
    for frame, estimate in found.items():
        least = max(0.8, jaccard(coarse(truth(clip, frame)), truth(clip, frame)))
        assert jaccard(estimate.mask, truth(clip, frame)) > least
        assert 0.7 < estimate.score <= 1


def test_carried_outlines_near_a_drawing_follow_that_drawing(clip: Clip) -> None:
    """So a gap is right at both of its ends."""
    flow, frames = flow_of(clip), range(1, LAST)
    both = dict(carry(flow, drawing(clip, 0), drawing(clip, LAST), frames, tracked(clip)))
    for frame in (1, 2, LAST - 2, LAST - 1):
        assert jaccard(both[frame].mask, truth(clip, frame)) > 0.93
    one = dict(carry(flow, drawing(clip, 0), None, frames, tracked(clip)))
    assert jaccard(one[LAST - 1].mask, truth(clip, LAST - 1)) < 0.9


def test_carried_outlines_do_not_replace_results_of_which_the_tracker_is_sure(clip: Clip) -> None:
    sure = tracked(clip, score=1.2)  # more than any check can reach
    for right in (drawing(clip, LAST), None):
        assert not [*carry(flow_of(clip), drawing(clip, 0), right, range(1, LAST), sure)]


@pytest.mark.parametrize("right", [LAST, None], ids=["between two", "behind the last"])
def test_nothing_is_carried_over_a_cut(clip: Clip, right: int | None) -> None:
    """Another scene begins on frame 6."""
    other = draw_clip(22, frames=COUNT, width=WIDTH, height=HEIGHT, objects=3)
    frames = np.concatenate([clip.frames[:6], other.frames[6:]])
    cut = flow_of(replace(clip, frames=frames))
    end = drawing(clip, right) if right else None
    found = dict(carry(cut, drawing(clip, 0), end, range(1, LAST), tracked(clip)))
    assert not found.keys() & set(range(6, LAST))


@pytest.mark.parametrize("right", [LAST, None], ids=["between two", "behind the last"])
def test_nothing_is_carried_to_where_the_tracker_sees_no_object(
    clip: Clip, right: int | None
) -> None:
    """It may know that something else lies over the drawing's place."""

    def found(frame: int) -> Estimate:
        mask = coarse(truth(clip, frame))
        return Estimate(np.roll(mask, 100, axis=1) if frame > 4 else mask, 0.3)

    end = drawing(clip, right) if right else None
    carried = dict(carry(flow_of(clip), drawing(clip, 0), end, range(1, LAST), found))
    assert sorted(carried) == [1, 2, 3, 4]


def still(clip: Clip) -> Flow:
    """A film of one frame, on which all that is carried is right."""
    return Flow(lambda frame: clip.frames[0, :, :, ::-1], (WIDTH, HEIGHT))


@pytest.mark.parametrize("right", [31, None], ids=["between two", "behind the last"])
def test_nothing_is_carried_over_frames_on_which_the_tracker_sees_nothing(
    clip: Clip, right: int | None
) -> None:
    """However many there are behind them."""

    def found(frame: int) -> Estimate | None:
        return None if frame in (5, 6) else Estimate(coarse(truth(clip, 0)), 0.5)

    end = Drawing(right, truth(clip, 0)) if right else None
    carried = dict(carry(still(clip), drawing(clip, 0), end, range(1, 31), found))
    assert sorted(carried) == [1, 2, 3, 4, *(range(7, 31) if right else ())]


def test_the_tracker_keeps_the_one_row_of_frames_where_carrying_gains_least(clip: Clip) -> None:
    """The tracker is very sure near both drawings, and less so between."""

    def found(frame: int) -> Estimate:
        return Estimate(coarse(truth(clip, 0)), 0.9 if 5 < frame < 16 else 1.4)

    end = Drawing(21, truth(clip, 0))
    carried = dict(carry(still(clip), drawing(clip, 0), end, range(1, 21), found))
    assert sorted(carried) == [*range(6, 21)]
    assert all(estimate.score >= found(frame).score for frame, estimate in carried.items())


@pytest.mark.slow
def test_a_drawing_is_carried_over_a_limited_number_of_frames(
    clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 20
    monkeypatch.setattr(carrying, "MOST_FRAMES", most)

    def found(frame: int) -> Estimate | None:
        return tracked(clip)(0)

    long = range(1, 3 * most)
    one = dict(carry(still(clip), drawing(clip, 0), None, long, found))
    assert sorted(one) == [*range(1, most + 1)]
    end = Drawing(3 * most, truth(clip, 0))
    both = [frame for frame, _ in carry(still(clip), drawing(clip, 0), end, long, found)]
    assert both == [*one, *range(2 * most, 3 * most)]


def test_an_object_too_small_for_the_flow_is_left_to_the_tracker() -> None:
    """Flow is computed on a picture of 640 pixels: it is too coarse for 12 of 2560."""
    picture = np.zeros((1920, 2560, 3), np.uint8)
    mask = cv2.circle(picture[..., 0].copy(), (900, 700), 6, 1, -1).astype(bool)
    flow = Flow(lambda frame: picture, (2560, 1920))
    assert not [*carry(flow, Drawing(0, mask), None, [1, 2], lambda frame: Estimate(mask, 0.8))]


def test_pictures_that_are_too_small_for_flow_are_left_to_the_tracker() -> None:
    picture = np.zeros((8, 40, 3), np.uint8)
    mask = np.ones((8, 40), dtype=bool)
    flow = Flow(lambda frame: picture, (40, 8))
    assert not [*carry(flow, Drawing(0, mask), None, [1, 2], lambda frame: Estimate(mask, 0.1))]


# --- in a run with --both-ways --------------------------------------------------------------------


class Coarse:
    """A tracker that knows where the object is, and not its outline."""

    joins = True

    def __init__(self, clip: Clip, kind: str) -> None:
        self._clip, self._kind = clip, kind

    def start(self, frame: int, shapes: list[dict[str, Any]]) -> Answer:
        return Answer(list(shapes), [frame] * len(shapes), [1.0] * len(shapes), [None])

    def step(self, frame: int, states: list[Any]) -> Answer:
        found = shape_of(coarse(truth(self._clip, frame)), self._kind)
        return Answer([{"type": self._kind, "points": found}], [frame], [0.7], [None])

    def correct(self, frame: int, shapes: list[dict[str, Any]], states: list[Any]) -> Answer:
        return self.start(frame, shapes)

    def adopt(self, frame: int, kind: str, state: Any, others: list[tuple[Any, int]]) -> Answer:
        return Answer([None], [state], [None], [None])


def shape_of(mask: Bitmap, kind: str) -> list[float]:
    if kind == "mask":
        return [float(n) for n in encode_mask(mask)]
    if kind == "polygon":
        return bitmap_to_polygon(mask, tolerance=0.0)
    return [float(n) for n in bitmap_to_rectangle(mask)]


def run(
    clip: Clip, kind: str, picture: Callable[[int], Any] | None, relabelled: tuple[int, ...] = ()
) -> dict[int, Tracked]:
    """What is found between drawings on frames 0, 6 and the last but one, and on the last."""
    job = Job(1, 1, 0, LAST, (Label(1, "thing"),), ((WIDTH, HEIGHT),))
    drawn = {frame: tuple(shape_of(truth(clip, frame), kind)) for frame in (0, 6, LAST - 1)}
    corrections = tuple(Correction(frame, points) for frame, points in drawn.items() if frame)
    how: dict[str, Any] = {"corrections": corrections, "relabelled": frozenset(relabelled)}
    object_ = TrackedObject(Seed("1", kind, 0, drawn[0], {"label_id": 1}, False, 0, **how))
    done = track_both_ways(Coarse(clip, kind), job, [object_], range(1, COUNT), picture=picture)
    assert done.broken is None
    assert [f for f, t in object_.frames.items() if t.by_hand] == [6, LAST - 1]
    assert sorted(object_.frames) == [*range(1, COUNT)]
    return object_.frames


def overlaps(clip: Clip, kind: str, found: dict[int, Tracked]) -> dict[int, float]:
    return {
        frame: jaccard(points_to_bitmap(kind, t.points or (), WIDTH, HEIGHT), truth(clip, frame))
        for frame, t in found.items()
        if not t.by_hand
    }


@pytest.mark.parametrize("kind", ["mask", "polygon"])
def test_a_run_takes_the_carried_outlines(clip: Clip, kind: str) -> None:
    before = overlaps(clip, kind, run(clip, kind, None))
    after = overlaps(clip, kind, run(clip, kind, lambda frame: clip.frames[frame, :, :, ::-1]))
    assert all(after[frame] > max(before[frame], 0.85) for frame in before)


def test_rectangles_are_not_carried(clip: Clip) -> None:
    def picture(frame: int) -> Any:
        raise AssertionError("No picture is needed.")

    assert run(clip, "rectangle", picture) == run(clip, "rectangle", None)


def test_a_result_with_another_label_is_not_carried(clip: Clip) -> None:
    before = run(clip, "mask", None, relabelled=(6,))
    after = run(clip, "mask", lambda frame: clip.frames[frame, :, :, ::-1], relabelled=(6,))
    changed = [frame for frame in before if before[frame] != after[frame]]
    assert changed == [1, 2, 3, 4, 5, LAST]


@pytest.mark.parametrize(
    ("stopped", "told"),
    [
        (ActionError("Frame 3 cannot be read: it is gone."), "may be coarser"),
        (cv2.error("no memory"), "may be coarser"),
        (KeyboardInterrupt(), "what is tracked is written"),
    ],
)
def test_results_stay_as_tracked_when_carrying_is_stopped(
    clip: Clip, caplog: pytest.LogCaptureFixture, stopped: BaseException, told: str
) -> None:
    def picture(frame: int) -> Any:
        raise stopped

    with caplog.at_level(logging.WARNING):
        assert run(clip, "mask", picture) == run(clip, "mask", None)
    assert told in caplog.text
    assert str(stopped) in caplog.text


def test_a_picture_that_cannot_be_read_leaves_only_its_own_gap_as_tracked(
    clip: Clip, caplog: pytest.LogCaptureFixture
) -> None:
    def picture(frame: int) -> Any:
        if frame == 3:
            raise ActionError("Frame 3 cannot be read: it is gone.")
        return clip.frames[frame, :, :, ::-1]

    before = run(clip, "mask", None)
    after = run(clip, "mask", picture)
    assert [f for f in before if before[f] != after[f]] == [7, 8, 9, 10, LAST]
    assert caplog.text.count("Frame 3 cannot be read: it is gone.") == 1


def test_carrying_ends_where_several_pictures_cannot_be_read(
    clip: Clip, caplog: pytest.LogCaptureFixture
) -> None:
    """Each may be waited for. None is asked for twice, and it is told once."""
    asked: list[int] = []

    def picture(frame: int) -> Any:
        asked.append(frame)
        raise ActionError(f"Frame {frame} cannot be read: CVAT is away.")

    points = tuple(shape_of(truth(clip, 0), "mask"))
    drawn = tuple(Correction(frame, points) for frame in range(2, LAST, 2))
    job = Job(1, 1, 0, LAST, (Label(1, "thing"),), ((WIDTH, HEIGHT),))
    objects = [
        TrackedObject(Seed(str(n), "mask", 0, points, {"label_id": 1}, False, 0, drawn))
        for n in range(2)
    ]
    track_both_ways(Still(clip, "mask"), job, objects, range(1, COUNT), picture=picture)
    assert asked == sorted(set(asked))
    assert len(asked) == MOST_UNREADABLE
    assert caplog.text.count("CVAT is away") == 1


@pytest.mark.slow
def test_objects_that_are_drawn_on_the_same_frames_share_the_pictures(
    clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVAT is asked for each of them. Only 30 are kept here, so a few are asked for again."""
    monkeypatch.setattr(carrying, "CACHE_BYTES", 4 * 30 * WIDTH * HEIGHT)
    job = Job(1, 1, 0, 80, (Label(1, "thing"),), ((WIDTH, HEIGHT),))
    asked: list[int] = []

    def picture(frame: int) -> Any:
        asked.append(frame)
        return clip.frames[frame % COUNT, :, :, ::-1]

    points = tuple(shape_of(truth(clip, 0), "mask"))
    drawn = tuple(Correction(frame, points) for frame in (20, 40, 60, 80))
    objects = [
        TrackedObject(Seed(str(n), "mask", 0, points, {"label_id": 1}, False, 0, drawn))
        for n in range(2)
    ]
    track_both_ways(Still(clip, "mask"), job, objects, range(1, 81), picture=picture)
    assert set(asked) == {*range(81)}
    assert len(asked) < 90


class Still(Coarse):
    """Finds each object where it is on the first frame."""

    def start(self, frame: int, shapes: list[dict[str, Any]]) -> Answer:
        count = len(shapes)
        return Answer(list(shapes), [0] * count, [1.0] * count, [None] * count)

    def step(self, frame: int, states: list[Any]) -> Answer:
        shape = {"type": "mask", "points": shape_of(coarse(truth(self._clip, 0)), "mask")}
        count = len(states)
        return Answer([shape] * count, [0] * count, [0.7] * count, [None] * count)
