# SPDX-License-Identifier: MIT
"""Polygons of a track begin at the same place and run in the same direction."""

import numpy as np
import pytest
from conftest import recorded
from hypothesis import given
from hypothesis import strategies as st

from cvat_action.interpolation import PolygonPair, points_to_ring
from cvat_action.polygons import aligned_points, aligned_ring
from sam2_tracker.shapes import polygon_to_bitmap

turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
# Without symmetry, so that there is one right start.
BLOB = np.stack((100 + (40 + 12 * np.sin(turns)) * np.cos(turns), 90 + 25 * np.sin(turns)), axis=1)


@given(st.integers(0, 23), st.floats(-90, 90), st.floats(0.5, 2), st.booleans())
def test_a_blob_moved_and_grown_begins_where_it_began(start, way, growth, backwards):
    later = BLOB * growth + way
    other = np.roll(later, start, axis=0)
    found = aligned_ring(other[::-1] if backwards else other, BLOB)
    assert np.array_equal(found, later)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=3, max_size=20))
def test_only_the_order_of_the_points_changes(points):
    flat = [float(value) for point in points for value in point]
    found = aligned_points(flat, BLOB.ravel().tolist())
    ring = points_to_ring(flat).tolist()
    rolled = [ring[at:] + ring[:at] for at in range(len(ring))]
    assert points_to_ring(found).tolist() in rolled + [r[::-1] for r in rolled]


def test_the_recorded_starts():
    """The plugin gives the same."""
    for case in recorded("polygons"):
        assert aligned_points(case["points"], case["reference"]) == case["aligned"]


def test_a_polygon_without_length_is_no_error():
    assert aligned_points([3.0, 4.0] * 3, BLOB.ravel().tolist()) == [3.0, 4.0] * 3
    assert len(aligned_points(BLOB.ravel().tolist(), [3.0, 4.0] * 3)) == 48


@pytest.mark.parametrize("angle", [0.1, 0.3])
def test_with_starts_aligned_the_frames_between_fit(angle):
    """Keyframes that begin at the topmost corner, as the function gives them, do not."""

    def turned(by: float) -> np.ndarray:
        matrix = np.array([[np.cos(by), -np.sin(by)], [np.sin(by), np.cos(by)]])
        ring = (BLOB - (100, 90)) @ matrix.T + (100, 90)
        top = np.lexsort((ring[:, 0], ring[:, 1]))[0]
        return np.roll(ring, -top, axis=0)

    def fit(left: np.ndarray, right: np.ndarray) -> float:
        drawn, wanted = (
            polygon_to_bitmap(ring.ravel().tolist(), width=200, height=200)
            for ring in (PolygonPair(left, right).at(0.5), turned(angle / 2))
        )
        return float((drawn & wanted).sum() / (drawn | wanted).sum())

    left, right = turned(0), turned(angle)
    assert fit(left, aligned_ring(right, left)) > 0.98
    assert fit(left, aligned_ring(right, left)) >= fit(left, right)
