# SPDX-License-Identifier: MIT
"""Sparse keyframes: every frame inside the limit by CVAT's rule, and as few as that allows."""

from bisect import bisect_right
from collections.abc import Callable

import numpy as np
import pytest
from conftest import recorded

from cvat_action.interpolation import points_to_ring, polygon_between, rectangle_between
from cvat_action.keyframes import Result, fewest_keyframes, limit_for, sparse_keyframes
from cvat_action.limits import Limit, PolygonTruth, RectangleTruth
from cvat_action.signature import is_signed
from sam2_tracker.shapes import bitmap_to_polygon, bitmap_to_rectangle, polygon_to_bitmap

WIDTH, HEIGHT, FRAMES = 640, 480, 41
CAR = np.array(
    [[-70, 20], [-60, -6], [-34, -10], [-20, -34], [24, -34], [44, -10], [70, -6], [72, 20]], float
)


def turned(ring: np.ndarray, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return ring @ np.array([[c, s], [-s, c]])


MOVES: dict[str, Callable[[int], np.ndarray]] = {
    "translation": lambda n: CAR + (90 + 9.3 * n, 90 + 1.9 * n),
    "slow rotation": lambda n: turned(CAR, n * np.pi / 180) + (320, 240),
    "growth": lambda n: CAR * (1 + 0.02 * n) + (320, 240),
    "waves": lambda n: CAR + (320 + 40 * np.sin(n), 240 + 30 * np.cos(n * 1.7)),
}


def tracked(kind: str, move: Callable[[int], np.ndarray], frames: range) -> dict[int, Result]:
    to_points = bitmap_to_polygon if kind == "polygon" else bitmap_to_rectangle
    return {
        n: Result(
            tuple(
                float(value)
                for value in to_points(
                    polygon_to_bitmap(move(n).ravel().tolist(), width=WIDTH, height=HEIGHT)
                )
            )
        )
        for n in frames
    }


def sparse(kind: str, results: dict[int, Result], **more) -> dict[int, tuple[float, ...]]:
    return sparse_keyframes(kind, results, iou=0.97, width=WIDTH, height=HEIGHT, **more)


def outside_of_the_limit(
    kind: str, results: dict[int, Result], keyframes: dict[int, tuple[float, ...]]
) -> list[int]:
    """The frames on which what CVAT shows is not the tracker's result, nor near it."""
    limit = limit_for(kind, 0.97, WIDTH, HEIGHT)
    frames = sorted(keyframes)
    found = []
    for frame, result in results.items():
        left = frames[bisect_right(frames, frame) - 1]
        shown = list(keyframes[left])
        if left != frame:
            right = frames[bisect_right(frames, frame)]
            between = polygon_between if kind == "polygon" else rectangle_between
            shown = between(shown, keyframes[right], (frame - left) / (right - left))
        truth = PolygonTruth if kind == "polygon" else RectangleTruth
        if not truth(points_to_ring(result.points)).within(points_to_ring(shown), limit):
            found.append(frame)
    return found


@pytest.mark.parametrize("kind", ["polygon", "rectangle"])
@pytest.mark.parametrize("move", MOVES)
def test_every_frame_is_inside_the_limit(kind, move):
    results = tracked(kind, MOVES[move], range(FRAMES))
    keyframes = sparse(kind, results)
    assert outside_of_the_limit(kind, results, keyframes) == []
    assert {0, FRAMES - 1} <= set(keyframes) <= set(results)
    for frame, points in keyframes.items():
        assert is_signed({"type": kind, "points": list(points), "frame": frame})
    assert len(keyframes) >= FRAMES * 0.7 if move == "waves" else len(keyframes) <= FRAMES / 4
    if move == "translation":
        assert len(keyframes) == 2


CASES = recorded("keyframes")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["why"])
def test_sparse_keyframes_are_the_recorded_ones(case):
    """The plugin chooses the same keyframes, to the last digit."""
    results = {
        one["frame"]: Result(tuple(one["points"]), one["fixed"], one["occluded"], one["z_order"])
        for one in case["positions"]
    }
    more = {name: case[name] for name in ("iou", "width", "height", "forced")}
    chosen = sparse_keyframes(case["type"], results, **more)
    assert chosen == {one["frame"]: tuple(one["points"]) for one in case["keyframes"]}


def test_a_keyframe_has_few_points():
    results = tracked("polygon", MOVES["slow rotation"], range(FRAMES))
    keyframes = sparse("polygon", results)
    assert np.mean([len(r.points) for r in results.values()]) > 200
    assert max(len(points) // 2 for points in keyframes.values()) <= 20


def test_a_persons_keyframe_stays_and_its_start_and_direction_are_taken_over():
    results = tracked("polygon", MOVES["translation"], range(FRAMES))
    drawn = tuple((CAR[::-1] + (90 + 9.3 * 20, 90 + 1.9 * 20)).ravel().tolist())
    results[20] = Result(drawn, fixed=True)
    keyframes = sparse("polygon", results)
    assert keyframes[20] == drawn
    assert sorted(keyframes) == [0, 20, 40]
    for frame in (0, 40):
        first = np.array(keyframes[frame][:2]) - MOVES["translation"](frame)[-1]
        assert np.abs(first).max() < 3
    assert outside_of_the_limit("polygon", results, keyframes) == []


def test_one_frame_two_frames_and_what_covers_no_pixel():
    results = tracked("polygon", MOVES["growth"], range(2))
    assert list(sparse("polygon", {3: results[0]})) == [3]
    assert sorted(sparse("polygon", {3: results[0], 9: results[1]})) == [3, 9]
    sliver = Result((10.0, 10.1, 30.0, 10.1, 30.0, 10.2))
    keyframes = sparse("polygon", {0: results[0], 1: sliver, 2: results[1]})
    assert sorted(keyframes) == [0, 1, 2]
    assert np.abs(np.subtract(keyframes[1], sliver.points)).max() < 0.4


def test_the_bar_moves_once_per_frame():
    calls: list[int] = []
    results = tracked("polygon", MOVES["growth"], range(FRAMES))
    sparse("polygon", results, on_frame=lambda: calls.append(1))
    assert len(calls) == FRAMES


def test_the_fewest_allowed_keyframes_are_chosen():
    allowed = {(0, 5), (0, 2), (5, 7), (2, 9), (7, 9)}
    assert fewest_keyframes(range(10), (), lambda a, b: (a, b) in allowed) == [0, 2, 9]
    assert fewest_keyframes(range(10), {5}, lambda a, b: (a, b) in allowed) == [0, 5, 7, 9]
    assert fewest_keyframes(range(3), (), lambda a, b: False) == [0, 1, 2]


@pytest.mark.parametrize(("moved", "inside"), [(0.5, True), (1.6, False)])
def test_a_polygon_is_inside_by_its_mean_distance(moved, inside):
    square = np.array([[100, 100], [110, 100], [110, 110], [100, 110]], float)
    near = PolygonTruth(square)
    assert near.within(square, Limit(1.0))
    assert near.within(square + (2 * moved, 0), Limit(0.97, 1.0)) == inside


def test_a_limb_that_is_missing_is_outside_though_its_area_is_small():
    body = [[50, 50], [150, 50], [150, 120], [50, 120]]
    tail = [[50, 50], [150, 50], [150, 80], [210, 80], [210, 82], [150, 82], [150, 120], [50, 120]]
    truth = PolygonTruth(np.array(tail, float))
    assert truth.within(np.array(body, float), Limit(0.97))
    assert not truth.within(np.array(body, float), Limit(0.99, 1.0))
