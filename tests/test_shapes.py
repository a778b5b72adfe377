# SPDX-License-Identifier: MIT
"""Geometry, on bitmaps drawn as ASCII art and on those that hypothesis generates."""

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from cvat_sdk.masks import decode_mask, encode_mask
from hypothesis import assume, example, given
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
    """So neighbours share no pixel and leave none out. The second one has its corners on them."""
    for corner, picture in (
        (0.0, "..#... .###.. #####. #####. .###.. ..#..."),
        (0.5, "...... ..##.. .####. ###### .####. ..##.."),
    ):
        turned = [number + corner for number in (3, 0, 6, 3, 3, 6, 0, 3)]
        assert drawn(fill(turned, 6, 6)) == drawn(art(picture))


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


@pytest.mark.parametrize("far", [100, 1e9, 1e300, 1.7e308])
def test_huge_polygons_are_clipped_to_the_image(far: float) -> None:
    assert fill([-far, -far, far, -far, far, far, -far, far]).all()


def test_a_huge_triangle_is_clipped_exactly() -> None:
    # Its slanted side runs through the image along y = x - 0.25.
    bitmap = fill([-1e6 + 0.25, -1e6, 1e6 + 0.25, 1e6, -1e6, 1e6], 4, 4)
    assert drawn(bitmap) == drawn(np.tri(4, dtype=np.bool_))


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


@given(bitmaps)
@example(art("#.#\n.#.\n#.#"))
@example(art(".#.\n#.#\n.#."))
def test_a_polygon_is_the_largest_part_with_its_holes_filled(bitmap: Bitmap) -> None:
    expected = without_holes(largest_part(bitmap))
    points = bitmap_to_polygon(bitmap)
    assert ring_area(points) == expected.sum()  # runs along pixel edges, clockwise
    assert {type(p) for p in points} == {int}
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
    wanted = without_holes(largest_part(bitmap))
    assert iou(fill(points, width, height), wanted) >= 1 - tolerance - 1e-9


def test_a_moved_object_keeps_its_ring() -> None:
    """Start point and direction do not depend on where the object is."""
    small = fill_ring(20 + ellipse_ring(14, 9, 40), 40, 40)
    at_origin, moved = (
        np.reshape(bitmap_to_polygon(each, tolerance=DEFAULT_TOLERANCE), (-1, 2))
        for each in (small, np.pad(small, ((30, 0), (50, 0))))
    )
    assert (moved == at_origin + (50, 30)).all()


def _star(points: int, inner: float, outer: float = 60.0) -> Bitmap:
    radius, middle = np.where(np.arange(2 * points) % 2, inner, outer), outer + 4
    ring = middle + radius[:, None] * ellipse_ring(1, 1, 2 * points)
    return fill_ring(ring, int(2 * middle), int(2 * middle))


def _clouds(seed: int, side: int, scale: float, cut: float) -> Bitmap:
    """cut: what counts, in standard deviations."""
    field = np.random.default_rng(seed).normal(size=(side, side))
    field = cv2.GaussianBlur(field, (0, 0), scale)
    return np.asarray(field >= min(cut * field.std(), field.max()))


DISC = fill_ring(184 + ellipse_ring(180, 180, 500), 368, 368)
OBJECTS = {
    "disc": DISC,
    "needle": fill_ring(64 + ellipse_ring(60, 2, 200), 128, 128),
    "star": _star(7, 60, 190),
    "hair star": _star(12, 8),
    "sun": _star(120, 170, 190),
    "noise": np.random.default_rng(1).random((96, 96)) < 0.7,
    "checkerboard": np.indices((60, 60)).sum(axis=0) % 2 == 0,
    "comb": (np.indices((60, 60))[1] % 2 == 0) | (np.indices((60, 60))[0] < 2),
    "staircase": np.indices((90, 90))[0] > np.indices((90, 90))[1] // 3 * 2,
}


def stays_true(bitmap: Bitmap, tolerance: float = DEFAULT_TOLERANCE) -> None:
    bitmap = cycle(bitmap)  # one part without holes: what a polygon can hold
    points = bitmap_to_polygon(bitmap, tolerance=tolerance)
    assert len(points) <= len(bitmap_to_polygon(bitmap))
    assert iou(cycle(bitmap, tolerance), bitmap) >= 1 - tolerance
    assert ring_area(points) == pytest.approx(bitmap.sum(), rel=tolerance)  # beyond the image too
    assert all(value * 4 == int(value * 4) for value in points)


@pytest.mark.parametrize("bitmap", OBJECTS.values(), ids=OBJECTS)
def test_simplified_polygons_stay_true(bitmap: Bitmap) -> None:
    stays_true(bitmap)


@given(st.integers(0, 10**6), st.floats(0.6, 8), st.floats(-1, 1))
def test_simplified_polygons_of_any_clouds_stay_true(seed: int, scale: float, cut: float) -> None:
    stays_true(_clouds(seed, 200, scale, cut))


@given(st.integers(0, 10**6), st.integers(4, 40), st.floats(0.5, 4))
def test_coarse_polygons_of_small_objects_stay_true(seed: int, side: int, scale: float) -> None:
    stays_true(_clouds(seed, side, scale, 0), 0.3)


def test_a_disc_takes_as_few_points_as_a_person_would_draw() -> None:
    assert len(bitmap_to_polygon(DISC, tolerance=DEFAULT_TOLERANCE)) // 2 <= 16


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


# ---- what is refused ----

Read = Callable[..., Any]


def each(read: Read, *lists: list[Any]) -> list[tuple[Read, list[Any]]]:
    return [(read, points) for points in lists]


@pytest.mark.parametrize(
    ("read", "points"),
    [
        *each(mask_to_bitmap, [0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [6, 0, 1, 1, 3, 2]),
        # outside of the image on each side
        *each(polygon_to_bitmap, [20, 0, 30, 0, 30, 8], [-30, 0, -20, 0, -20, 8]),
        *each(polygon_to_bitmap, [0, -30, 9, -30, 9, -20], [0, 20, 9, 20, 9, 30]),
        *each(polygon_to_bitmap, [-2, -2, -1, -2, -1, 50, -2, 50]),
        *each(rectangle_to_box, [10, 0, 12, 8], [-3, 0, 0, 8], [0, 8, 10, 9]),
        # a point; lines; between the centres
        *each(polygon_to_bitmap, [2, 2, 2, 2, 2, 2], [1, 1, 5, 5, 9, 9], [1, 2, 5, 2, 9, 2]),
        *each(polygon_to_bitmap, [2, 1, 2, 5, 2, 9], [1, 1, 5, 1, 1, 1, 5, 1]),
        *each(polygon_to_bitmap, [2.6, 2.6, 3.4, 2.6, 3.4, 3.4]),
        *each(rectangle_to_box, [0, 0, 0, 0], [2, 2, 2, 6], [2.6, 2, 3.4, 6]),
    ],
)
def test_a_shape_that_covers_no_pixel_is_rejected(read: Read, points: list[float]) -> None:
    with pytest.raises(EmptyShape):
        read(points, width=10, height=8)


NO_NUMBERS = ("0", None, True, [0], {}, math.nan, math.inf, -math.inf, 10**400)


@pytest.mark.parametrize(
    ("read", "points"),
    [
        # no run, or a sum of runs that does not fit the box; a box of three numbers
        *each(mask_to_bitmap, [], [0, 0, 0, 0], [0, 3, 0, 0, 1, 1], [0, 5, 0, 0, 1, 1]),
        *each(mask_to_bitmap, [4, 0, 0, 1]),
        # a box that sticks out on the left, on the right, at the bottom; whose ends are exchanged
        *each(mask_to_bitmap, [0, 4, -1, 0, 0, 1], [0, 4, 9, 0, 10, 1], [0, 4, 0, 7, 1, 8]),
        *each(mask_to_bitmap, [0, 4, 1, 0, 0, 1], [0, 4, 0, 1, 1, 0]),
        # negative runs and fractions that the sum hides
        *each(mask_to_bitmap, [-1, 5, 0, 0, 1, 1], [5, -1, 0, 0, 1, 1]),
        *each(mask_to_bitmap, [0.5, 3.5, 0, 0, 1, 1], [0, 4, 0.5, 0, 1.5, 1]),
        # would take a gigabyte and more; sums that overflow an int64
        *each(mask_to_bitmap, *([0, 10**power, 0, 0, 1, 1] for power in (9, 10, 30))),
        *each(mask_to_bitmap, [10**18] * 3 + [0, 0, 1, 1], [2**63, 2**63, 4, 0, 0, 1, 1]),
        *each(mask_to_bitmap, [0, 1, 0, 0, 10**12, 10**12]),
        *each(polygon_to_bitmap, [], [1, 1], [1, 1, 5, 5], [1, 1, 5, 5, 3], [1, 1, 5, 5, 3, 3, 2]),
        *each(polygon_to_bitmap, [[1, 1], [5, 1], [3, 3]]),
        *each(rectangle_to_box, [], [1, 1, 5], [1, 1, 5, 5, 0], [5, 1, 1, 5], [1, 5, 5, 1]),
        *each(mask_to_bitmap, *([wrong, 4, 0, 0, 1, 1] for wrong in NO_NUMBERS)),
        *each(polygon_to_bitmap, *([1, 1, 5, 1, 3, wrong] for wrong in NO_NUMBERS)),
        *each(rectangle_to_box, *([1, 1, 5, wrong] for wrong in NO_NUMBERS)),
    ],
)
def test_a_malformed_shape_is_rejected(read: Read, points: list[Any]) -> None:
    with pytest.raises(BadShape, match=r"\w+"):
        read(points, width=10, height=8)


@pytest.mark.parametrize(
    ("read", "points", "said"),
    [
        (polygon_to_bitmap, [1, 1, 5, 5, 3, 3, 2], r"pairs of numbers; here are 7\."),
        (polygon_to_bitmap, [1, 1, 5, 5], r"at least 3 points; here are 2\."),
        (mask_to_bitmap, [0, 3, 0, 0, 1, 1], r"box of 2 x 2 pixels"),
        (mask_to_bitmap, [0, 4, 7, 0, 8, 1], r"\(7, 0, 8, 1\).*8 x 8"),
    ],
)
def test_error_messages_name_what_is_wrong(read: Read, points: list[int], said: str) -> None:
    with pytest.raises(BadShape, match=said):
        read(points, width=8, height=8)
