# SPDX-License-Identifier: MIT
"""Geometry, on bitmaps drawn as ASCII art and on those that hypothesis generates."""

import math
from typing import Any

import cv2
import numpy as np
import pytest
from cvat_sdk.masks import decode_mask, encode_mask
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from sam2_tracker import shapes
from sam2_tracker.errors import BadShape, EmptyShape
from sam2_tracker.shapes import (
    Bitmap,
    Box,
    bitmap_to_mask,
    bitmap_to_polygon,
    bitmap_to_rectangle,
    mask_to_bitmap,
    polygon_to_bitmap,
    rectangle_to_box,
    widen_box,
)

DEFAULT_TOLERANCE = 0.02


def art(text: str) -> Bitmap:
    """`#` is the object; everything else is not."""
    return np.array([[c == "#" for c in line] for line in text.split()], dtype=np.bool_)


def drawn(bitmap: Bitmap) -> str:
    return "\n".join("".join("#" if pixel else "." for pixel in row) for row in bitmap)


def fill(points: list[float], width: int = 10, height: int = 8) -> Bitmap:
    return polygon_to_bitmap(points, width=width, height=height)


def fill_ring(ring: NDArray[np.float64], width: int, height: int) -> Bitmap:
    return fill(ring.ravel().tolist(), width, height)


def ellipse_ring(width: float, height: float, count: int) -> NDArray[np.float64]:
    """Points around (0, 0)."""
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack((width * np.cos(turn), height * np.sin(turn)), axis=1)


def cycle(bitmap: Bitmap, tolerance: float = 0.0) -> Bitmap:
    height, width = bitmap.shape
    return fill(bitmap_to_polygon(bitmap, tolerance=tolerance), width, height)


def iou(a: Bitmap, b: Bitmap) -> float:
    return float((a & b).sum() / (a | b).sum())


def without_holes(bitmap: Bitmap) -> Bitmap:
    """Background that is 4-connected to the outside stays background."""
    outside = np.pad(~bitmap, 1, constant_values=True).astype(np.uint8)
    _, labels = cv2.connectedComponents(outside, connectivity=4)
    return np.asarray(labels != labels[0, 0])[1:-1, 1:-1]


def largest_part(bitmap: Bitmap) -> Bitmap:
    """By flood fill, not as the code under test does it; the first in scan order of equal ones."""
    rest, best = bitmap.copy(), np.zeros_like(bitmap)
    while rest.any():
        part = np.zeros_like(bitmap)
        stack = [tuple(np.argwhere(rest)[0])]
        while stack:
            y, x = stack.pop()
            inside = 0 <= y < rest.shape[0] and 0 <= x < rest.shape[1]
            if inside and rest[y, x]:
                rest[y, x], part[y, x] = False, True
                stack += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        if part.sum() > best.sum():
            best = part
    return best


def ring_area(points: list[float]) -> float:
    """Shoelace; positive if clockwise as seen on the screen."""
    x, y = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def is_inside(x: float, y: float, ring: NDArray[np.float64]) -> bool:
    """Even-odd by a ray to the right of a point that lies on no edge."""
    inside = False
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            inside = not inside
    return inside


bitmaps = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)).filter(np.any)

# Single components, with all sorts of outlines, by their names.
OUTLINES = {
    "pixel": "...\n.#.\n...",
    "row": "......\n.####.\n......",
    "column": "...\n.#.\n.#.\n.#.\n...",
    "falling diagonal": "#...\n.#..\n..#.\n...#",
    "rising diagonal": "...#\n..#.\n.#..\n#...",
    "zigzag": "#.#.#\n.#.#.",
    "cross of corners": "#.#\n.#.\n#.#",
    "pinched": "##..\n##..\n..##\n..##",
    "hook": "#####\n#...#\n#.#.#\n#.###\n#....",
    "comb": "#.#.#.#\n#.#.#.#\n#######",
    "plus": ".#.\n###\n.#.",
    "everything": "####\n####",
    "corner": "##\n#.",
}


# ---- masks ----


@given(bitmaps)
def test_masks_agree_with_cvat(bitmap: Bitmap) -> None:
    height, width = bitmap.shape
    points = bitmap_to_mask(bitmap)
    assert points == encode_mask(bitmap)
    assert {type(p) for p in points} == {int}
    assert (decode_mask(points, image_width=width, image_height=height) == bitmap).all()
    for numbers in (points, [float(p) for p in points]):
        assert (mask_to_bitmap(numbers, width=width, height=height) == bitmap).all()


@given(bitmaps, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_a_mask_box_need_not_be_tight(
    bitmap: Bitmap, left: int, top: int, right: int, bottom: int
) -> None:
    padded = np.pad(bitmap, ((top, bottom), (left, right)))
    height, width = padded.shape
    points = encode_mask(padded, [0, 0, width, height])
    assert (mask_to_bitmap(points, width=width, height=height) == padded).all()


@pytest.mark.parametrize(
    "points",
    [
        # no run, or a sum of runs that does not fit the box; a box of three numbers
        *([], [0, 0, 0, 0], [0, 3, 0, 0, 1, 1], [0, 5, 0, 0, 1, 1], [4, 0, 0, 1]),
        # a box that sticks out on the left, on the right, at the bottom; whose ends are exchanged
        *([0, 4, -1, 0, 0, 1], [0, 4, 7, 0, 8, 1], [0, 4, 0, 7, 1, 8]),
        *([0, 4, 1, 0, 0, 1], [0, 4, 0, 1, 1, 0]),
        # negative runs and fractions that the sum hides
        *([-1, 5, 0, 0, 1, 1], [5, -1, 0, 0, 1, 1], [0.5, 3.5, 0, 0, 1, 1], [0, 4, 0.5, 0, 1.5, 1]),
        *([wrong, 4, 0, 0, 1, 1] for wrong in ("0", None, True, [0], math.nan, math.inf)),
        [0, 4, 0, 0, 1, math.nan],
        # would take a gigabyte and more; sums that overflow an int64
        *([0, 10**power, 0, 0, 1, 1] for power in (9, 10, 30, 400)),
        *([10**18] * 3 + [0, 0, 1, 1], [2**63, 2**63, 4, 0, 0, 1, 1], [0, 1, 0, 0, 10**12, 10**12]),
    ],
)
def test_a_malformed_mask_is_rejected(points: list[object]) -> None:
    with pytest.raises(BadShape, match=r"\w+"):
        mask_to_bitmap(points, width=8, height=8)


@pytest.mark.parametrize("points", [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [6, 0, 1, 1, 3, 2]])
def test_an_empty_mask_is_rejected(points: list[int]) -> None:
    with pytest.raises(EmptyShape):
        mask_to_bitmap(points, width=8, height=8)


@given(st.lists(st.integers(-3, 20) | st.floats() | st.just("1") | st.none(), max_size=12))
@example([0, 2, 0, 1, 1, 0, 0, 3, 0])  # runs of no pixel
def test_any_list_is_decoded_as_a_mask_or_rejected(points: list[object]) -> None:
    try:
        bitmap = mask_to_bitmap(points, width=9, height=7)
    except (BadShape, EmptyShape):
        return
    assert bitmap.shape == (7, 9)
    assert (decode_mask(points, image_width=9, image_height=7) == bitmap).all()


# ---- polygons to bitmaps ----


def test_a_polygon_runs_along_pixel_edges() -> None:
    """The example of CVAT's own format: pixels x 3..6, y 2..4."""
    square = np.zeros((8, 10), dtype=np.bool_)
    square[2:5, 3:7] = True
    assert drawn(fill([3, 2, 3, 5, 7, 5, 7, 2])) == drawn(square)
    for tolerance in (0.0, DEFAULT_TOLERANCE):
        assert bitmap_to_polygon(square, tolerance=tolerance) == [3, 2, 7, 2, 7, 5, 3, 5]


def test_of_the_centres_on_an_edge_those_on_a_left_or_upper_one_belong_to_the_polygon() -> None:
    turned = [3.0, 0, 6, 3, 3, 6, 0, 3]
    assert drawn(fill(turned, 6, 6)) == drawn(art("..#... .###.. #####. #####. .###.. ..#..."))


# Sixteenths, of which products are exact. No corner is a pixel centre.
coordinates = st.integers(-64, 160).map(lambda n: n / 8 + 1 / 16)


@given(st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=12))
def test_polygons_agree_with_brute_force(corners: list[tuple[float, float]]) -> None:
    ring = np.array(corners)
    # Of a centre on a sloping edge rounding decides, here and in the brute force.
    (x0, y0), (x1, y1) = ring.T, np.roll(ring, -1, axis=0).T
    y, x = np.mgrid[0:9, 0:12][..., None] + 0.5
    on_an_edge = (x1 - x0) * (y - y0) == (y1 - y0) * (x - x0)
    assume(not (on_an_edge & ((y0 > y) != (y1 > y))).any())
    expected = np.array(
        [[is_inside(x + 0.5, y + 0.5, ring) for x in range(12)] for y in range(9)], dtype=np.bool_
    )
    try:
        bitmap = fill(ring.ravel().tolist(), 12, 9)
    except EmptyShape:
        bitmap = np.zeros_like(expected)
    assert drawn(bitmap) == drawn(expected)


def test_neighbours_share_no_pixel_and_leave_none_out() -> None:
    """A fan of triangles covers its square exactly once, centres on the edges included."""
    corners = [(0, 0), (4, 0), (8, 0), (8, 4), (8, 8), (4, 8), (0, 8), (0, 4)]
    covered = np.zeros((8, 8), dtype=np.int64)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        covered += fill([4.0, 4.0, x0, y0, x1, y1], 8, 8)
    assert (covered == 1).all()


@pytest.mark.parametrize("far", [100, 1e9, 1e300, 1.7e308])
def test_huge_polygons_are_clipped_to_the_image(far: float) -> None:
    assert fill([-far, -far, far, -far, far, far, -far, far]).all()


def test_a_huge_triangle_is_clipped_exactly() -> None:
    # Its slanted side runs through the image along y = x - 0.25.
    bitmap = fill([-1e6 + 0.25, -1e6, 1e6 + 0.25, 1e6, -1e6, 1e6], 4, 4)
    assert drawn(bitmap) == drawn(np.tri(4, dtype=np.bool_))


@pytest.mark.parametrize(
    "points",
    [
        # outside of the image on each side
        *([20, 0, 30, 0, 30, 8], [-30, 0, -20, 0, -20, 8], [0, -30, 9, -30, 9, -20]),
        *([0, 20, 9, 20, 9, 30], [-2, -2, -1, -2, -1, 50, -2, 50]),
        # a point; lines
        *([2, 2, 2, 2, 2, 2], [1, 1, 5, 5, 9, 9], [1, 2, 5, 2, 9, 2], [2, 1, 2, 5, 2, 9]),
        [1, 1, 5, 1, 1, 1, 5, 1],
        [2.6, 2.6, 3.4, 2.6, 3.4, 3.4],  # between the centres
    ],
)
def test_a_polygon_that_covers_no_pixel_is_rejected(points: list[float]) -> None:
    with pytest.raises(EmptyShape):
        fill(points)


@pytest.mark.parametrize(
    "points",
    [
        *([], [1, 1], [1, 1, 5, 5], [1, 1, 5, 5, 3], [1, 1, 5, 5, 3, 3, 2]),
        *([1, 1, 5, 1, 3, wrong] for wrong in (math.nan, math.inf, 10**400, True, None, {}, "3")),
        *([1, 1, 5, 1, -math.inf, 3], [[1, 1], [5, 1], [3, 3]]),
    ],
)
def test_a_malformed_polygon_is_rejected(points: list[object]) -> None:
    with pytest.raises(BadShape):
        polygon_to_bitmap(points, width=10, height=8)


def test_a_smooth_ring_of_many_points_is_accepted() -> None:
    bitmap = fill_ring(500 + ellipse_ring(400, 400, 50_000), 1000, 1000)
    assert bitmap.sum() == pytest.approx(math.pi * 400**2, rel=1e-3)


def test_a_polygon_of_too_many_crossings_is_rejected() -> None:
    points = np.random.default_rng(0).uniform(0, 6000, 400_000).tolist()
    with pytest.raises(BadShape, match="too intricate"):
        fill(points, 6000, 6000)


def test_many_long_edges_take_little_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(1).uniform(0, 50, 400).tolist()
    at_once = fill(points, 50, 50)
    monkeypatch.setattr(shapes, "CROSSINGS_AT_ONCE", 100)
    assert (fill(points, 50, 50) == at_once).all()


# ---- bitmaps to polygons ----


@pytest.mark.parametrize("picture", OUTLINES.values(), ids=OUTLINES)
def test_a_polygon_holds_its_bitmap_exactly_and_nearly_when_simplified(picture: str) -> None:
    bitmap = art(picture)
    points = bitmap_to_polygon(bitmap)
    assert drawn(cycle(bitmap)) == drawn(bitmap)
    assert ring_area(points) == bitmap.sum()  # runs along pixel edges, clockwise
    assert len(points) >= 6
    assert {type(p) for p in points} == {int}
    assert iou(cycle(bitmap, DEFAULT_TOLERANCE), bitmap) >= 0.95


@given(bitmaps)
@example(art("#.#\n.#.\n#.#"))
@example(art(".#.\n#.#\n.#."))
def test_a_polygon_is_the_largest_part_with_its_holes_filled(bitmap: Bitmap) -> None:
    expected = without_holes(largest_part(bitmap))
    assert drawn(cycle(bitmap)) == drawn(expected)
    again = bitmap
    for _ in range(50):
        again = cycle(again)
    assert drawn(again) == drawn(expected)


@given(bitmaps, st.floats(0, 0.1))
def test_a_polygon_is_always_valid(bitmap: Bitmap, tolerance: float) -> None:
    height, width = bitmap.shape
    points = bitmap_to_polygon(bitmap, tolerance=tolerance)
    x, y = points[0::2], points[1::2]
    assert len(x) == len(y) >= 3
    assert {type(p) for p in points} <= {int, float}
    assert 0 <= min(x) < max(x) <= width
    assert 0 <= min(y) < max(y) <= height
    assert max(max(x) - min(x), max(y) - min(y)) >= 1  # what CVAT's canvas wants
    assert (y[0], x[0]) == min(zip(y, x, strict=True))
    assert ring_area(points) > 0
    assert fill(points, width, height).any()


def test_a_moved_object_keeps_its_ring() -> None:
    """Start point and direction do not depend on where the object is."""
    small = fill_ring(20 + ellipse_ring(14, 9, 40), 40, 40)
    big = np.zeros((100, 120), dtype=np.bool_)
    big[30:70, 50:90] = small
    at_origin, moved = (
        np.reshape(bitmap_to_polygon(each, tolerance=DEFAULT_TOLERANCE), (-1, 2))
        for each in (small, big)
    )
    assert (moved == at_origin + (50, 30)).all()


def _ellipse(width: float, height: float, angle: float) -> Bitmap:
    c, s = math.cos(angle), math.sin(angle)
    ring = ellipse_ring(width, height, 200) @ np.array([[c, s], [-s, c]])
    return fill_ring(64 + ring, 128, 128)


def _strip(thickness: float, angle: float) -> Bitmap:
    y, x = np.mgrid[:400, :400] - 200.0
    c, s = math.cos(angle), math.sin(angle)
    return np.asarray((abs(y * c - x * s) <= thickness / 2) & (abs(x * c + y * s) < 190))


def _star(points: int, inner: float, outer: float = 60.0) -> Bitmap:
    radius, middle = np.where(np.arange(2 * points) % 2, inner, outer), outer + 4
    ring = middle + radius[:, None] * ellipse_ring(1, 1, 2 * points)
    return fill_ring(ring, int(2 * middle), int(2 * middle))


def _ragged(seed: int, noise: float, radius: float = 40.0) -> Bitmap:
    side = int(2 * radius + 48)
    y, x = np.mgrid[:side, :side] - side / 2
    edge = np.random.default_rng(seed).normal(0, noise, (side, side))
    return np.asarray(np.hypot(x, y) + edge < radius)


def _noise(seed: int, share: float, side: int = 96) -> Bitmap:
    return np.asarray(np.random.default_rng(seed).random((side, side)) < share)


def _clouds(seed: int, scale: float, side: int = 128, cut: float = 0.0) -> Bitmap:
    """cut: what counts, in standard deviations."""
    field = np.random.default_rng(seed).normal(size=(side, side))
    field = cv2.GaussianBlur(field, (0, 0), scale)
    return np.asarray(field >= min(cut * field.std(), field.max()))


def _scribble(seed: int, corners: int, thickness: int) -> Bitmap:
    picture = np.zeros((200, 200), np.uint8)
    points = np.random.default_rng(seed).integers(0, 200, (corners, 1, 2)).astype(np.int32)
    return np.asarray(cv2.polylines(picture, [points], True, 1, thickness) > 0)


OBJECTS = {
    "disc": _ellipse(40, 40, 0),
    "small disc": _ellipse(10, 10, 0),
    "ellipse": _ellipse(55, 9, 0.4),
    "needle": _ellipse(60, 2, 1.1),
    "star": _star(5, 20),
    "sun": _star(40, 50),
    "hair star": _star(12, 8),
    "line": _strip(1, 0.3),
    "thin line": _strip(1.5, 0.7853),
    "flat line": _strip(1, 0.02),
    "strip": _strip(3, 0.1),
    "ragged": _ragged(0, 1),
    "very ragged": _ragged(1, 4),
    "small and ragged": _ragged(2, 1.5, 12),
    "noise": _noise(0, 0.5),
    "dense noise": _noise(1, 0.7),
    "sparse noise": _noise(2, 0.42),
    "scribble": _scribble(0, 30, 1),
    "fat scribble": _scribble(1, 12, 3),
    "large disc": _ragged(3, 0, 180),
    "large and ragged": _ragged(4, 2, 180),
    "large star": _star(7, 60, 190),
    "large sun": _star(120, 170, 190),
    "large clouds": _clouds(2, 5, 400),
    "large noise": _noise(3, 0.6, 300),
    "checkerboard": np.asarray(np.indices((60, 60)).sum(axis=0) % 2 == 0),
    "large checkerboard": np.asarray(np.indices((300, 300)).sum(axis=0) % 2 == 0),
    "comb": np.asarray((np.indices((60, 60))[1] % 2 == 0) | (np.indices((60, 60))[0] < 2)),
    "staircase": np.asarray(np.indices((90, 90))[0] > np.indices((90, 90))[1] // 3 * 2),
}


@pytest.mark.parametrize("bitmap", OBJECTS.values(), ids=OBJECTS)
def test_simplified_polygons_stay_true(bitmap: Bitmap) -> None:
    bitmap = cycle(bitmap)  # one part without holes: what a polygon can hold
    assert bitmap.sum() >= 300
    points = bitmap_to_polygon(bitmap, tolerance=DEFAULT_TOLERANCE)
    assert len(points) <= len(bitmap_to_polygon(bitmap))
    assert iou(cycle(bitmap, DEFAULT_TOLERANCE), bitmap) >= 0.98
    assert ring_area(points) == pytest.approx(bitmap.sum(), rel=0.02)
    assert all(value * 4 == int(value * 4) for value in points)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.floats(0.6, 8), st.floats(-1, 1))
def test_simplified_polygons_of_any_clouds_stay_true(seed: int, scale: float, cut: float) -> None:
    bitmap = cycle(_clouds(seed, scale, 200, cut))
    if bitmap.sum() >= 300:
        assert iou(cycle(bitmap, DEFAULT_TOLERANCE), bitmap) >= 0.98


def test_simplification_leaves_a_twentieth_of_the_points() -> None:
    bitmap = OBJECTS["large disc"]
    full, simple = bitmap_to_polygon(bitmap), bitmap_to_polygon(bitmap, tolerance=DEFAULT_TOLERANCE)
    assert len(simple) < len(full) / 20


# ---- rectangles ----


@given(bitmaps)
@example(art("#"))
def test_a_rectangle_holds_all_parts_and_touches_them(bitmap: Bitmap) -> None:
    points = bitmap_to_rectangle(bitmap)
    left, top, right, bottom = points
    assert {type(p) for p in points} == {int}
    inside = bitmap[top:bottom, left:right]
    assert inside.sum() == bitmap.sum()
    assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


@pytest.mark.parametrize(
    ("points", "box"),
    [
        ([1.5, 2.25, 6.0, 7.0], (1.5, 2.25, 6.0, 7.0)),
        ([-5, -5, 50, 50], (0.0, 0.0, 10.0, 8.0)),
        ([-1e300, 3, 1e300, 4], (0.0, 3.0, 10.0, 4.0)),
        ([9, 7, 10, 8], (9.0, 7.0, 10.0, 8.0)),
    ],
)
def test_rectangles_are_clipped_to_the_image(points: list[float], box: Box) -> None:
    assert rectangle_to_box(points, width=10, height=8) == box


@pytest.mark.parametrize(
    ("box", "widened"),
    [
        ((1.5, 2.25, 6.0, 7.0), (1.5, 2.25, 6.0, 7.0)),
        ((4.25, 2.0, 4.75, 7.0), (4.0, 2.0, 5.0, 7.0)),
        ((0.25, 7.25, 0.75, 8.0), (0.0, 7.0, 1.0, 8.0)),
        ((9.5, 0.0, 10.0, 0.6), (9.0, 0.0, 10.0, 1.0)),
    ],
)
def test_boxes_are_widened_to_a_pixel_inside_the_image(box: Box, widened: Box) -> None:
    assert widen_box(box, width=10, height=8) == widened


@pytest.mark.parametrize(
    "points",
    [[10, 0, 12, 8], [-3, 0, 0, 8], [0, 8, 10, 9], [2, 2, 2, 6], [2.6, 2, 3.4, 6], [0, 0, 0, 0]],
)
def test_a_rectangle_that_covers_no_pixel_is_rejected(points: list[float]) -> None:
    with pytest.raises(EmptyShape):
        rectangle_to_box(points, width=10, height=8)


@pytest.mark.parametrize(
    "points",
    [
        *([], [1, 1, 5], [1, 1, 5, 5, 0], [5, 1, 1, 5], [1, 5, 5, 1], [1, 1, math.inf, 5]),
        *([1, 1, 5, wrong] for wrong in (math.nan, "5", True, 10**400)),
    ],
)
def test_a_malformed_rectangle_is_rejected(points: list[object]) -> None:
    with pytest.raises(BadShape):
        rectangle_to_box(points, width=10, height=8)


@pytest.mark.parametrize(
    ("read", "points", "said"),
    [
        (polygon_to_bitmap, [1, 1, 5, 5, 3, 3, 2], r"pairs of numbers; here are 7\."),
        (polygon_to_bitmap, [1, 1, 5, 5], r"at least 3 points; here are 2\."),
        (mask_to_bitmap, [0, 3, 0, 0, 1, 1], r"box of 2 x 2 pixels"),
        (mask_to_bitmap, [0, 4, 7, 0, 8, 1], r"\(7, 0, 8, 1\).*8 x 8"),
    ],
)
def test_error_messages_name_what_is_wrong(read: Any, points: list[int], said: str) -> None:
    with pytest.raises(BadShape, match=said):
        read(points, width=8, height=8)
