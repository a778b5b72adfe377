# SPDX-License-Identifier: MIT
"""CVAT's positions between keyframes, against recorded answers of CVAT 2.73's server and page."""

import numpy as np
import pytest
from conftest import recorded
from hypothesis import given, settings
from hypothesis import strategies as st

from cvat_action import interpolation
from cvat_action.interpolation import (
    PolygonPair,
    points_to_ring,
    polygon_between,
    rectangle_between,
    rotation_between,
)

RECORDED = recorded("interpolation")

coordinates = st.integers(-400, 2000).map(lambda quarter: quarter / 4)
polygons = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=30).map(
    lambda points: [value for point in points for value in point]
)
shares = st.integers(1, 39).map(lambda frame: frame / 40)


def test_polygons_are_the_recorded_ones_to_the_last_bit():
    cases = [c for c in RECORDED if c["type"] == "polygon"]
    assert len(cases) > 100
    for case in cases:
        between = polygon_between(case["left"], case["right"], case["share"])
        assert between == case["points"]


def test_rectangles_are_the_recorded_ones_to_the_last_bit():
    cases = [c for c in RECORDED if c["type"] == "rectangle"]
    assert len(cases) > 10
    for case in cases:
        share = case["share"]
        assert rectangle_between(case["left"], case["right"], share) == case["points"]
        turned = rotation_between(case["left_rotation"], case["right_rotation"], share)
        assert turned == case["rotation"]


def test_matching_in_chunks_changes_nothing(monkeypatch):
    case = max((c for c in RECORDED if c["type"] == "polygon"), key=lambda c: len(c["left"]))
    monkeypatch.setattr(interpolation, "DISTANCES_AT_ONCE", 100)
    assert polygon_between(case["left"], case["right"], case["share"]) == case["points"]


def test_a_polygon_without_length_is_no_error():
    point = [3.0, 4.0] * 3
    square = [0.0, 0.0, 8.0, 0.0, 8.0, 8.0, 0.0, 8.0]
    for left, right in ((point, square), (square, point), (point, point)):
        assert np.isfinite(polygon_between(left, right, 0.5)).all()


@pytest.mark.parametrize(
    ("left", "right", "middle"), [(0, 90, 45), (350, 10, 0), (10, 350, 0), (90, 270, 180)]
)
def test_rotation_takes_the_shorter_way(left, right, middle):
    assert rotation_between(left, right, 0.5) == middle


@given(polygons, polygons, shares)
@settings(max_examples=2 * settings.default.max_examples)
def test_a_polygon_between_two_lies_in_the_box_of_both(left, right, share):
    between = np.array(polygon_between(left, right, share)).reshape(-1, 2)
    both = np.array([*left, *right]).reshape(-1, 2)
    assert (between >= both.min(axis=0) - 1e-9).all()
    assert (between <= both.max(axis=0) + 1e-9).all()
    assert len(between) <= (len(left) + len(right)) // 2 + 2


@given(polygons, shares)
def test_between_two_equal_polygons_nothing_moves(points, share):
    ring = points_to_ring(points)
    ring = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]  # no point twice in a row
    if len(ring) >= 3:
        assert (PolygonPair(ring, ring).at(share) == ring).all()
