# SPDX-License-Identifier: MIT
"""Between the wire's shapes and what the model works on, by the type of the shape."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from sam2_tracker.clicks import Clicks, read_clicks
from sam2_tracker.errors import BadShape
from sam2_tracker.predictions import Prompt
from sam2_tracker.protocol import Seed, Shape
from sam2_tracker.record_format import Track
from sam2_tracker.search_region import (
    SearchRegion,
    Window,
    follow,
    start_region,
    whole_region,
)
from sam2_tracker.shapes import (
    Bitmap,
    Box,
    bitmap_to_mask,
    bitmap_to_polygon,
    bitmap_to_rectangle,
    mask_to_bitmap,
    polygon_to_bitmap,
    rectangle_to_box,
)


def seed_to_prompt(seed: Seed, *, width: int, height: int) -> Prompt:
    """A drawn shape as a bitmap, bool (height, width), a box (x0, y0, x1, y1) in pixels, or clicks.

    width, height: of the image. Raises BadShape, EmptyShape.
    """
    if seed.type == "points":
        if len(seed.points) % 2:
            raise BadShape(f"Points are pairs of numbers; here are {len(seed.points)} numbers.")
        own = [list(p) for p in zip(seed.points[::2], seed.points[1::2], strict=True)]
        positive = [*own, *seed.positive]
        return read_clicks(positive, seed.negative, None, width=width, height=height)
    if seed.positive or seed.negative:
        return read_clicks(seed.positive, seed.negative, seed.points, width=width, height=height)
    if seed.type == "rectangle":
        return rectangle_to_box(seed.points, width=width, height=height)
    to_bitmap = mask_to_bitmap if seed.type == "mask" else polygon_to_bitmap
    return to_bitmap(seed.points, width=width, height=height)


def cut_prompt(prompt: Prompt, region: SearchRegion) -> Prompt:
    """What was drawn on an image, as it lies in the window of a region that holds it.

    Negative clicks outside the window are left out: the model does not see that place.
    """
    left, top, right, bottom = region.window
    if isinstance(prompt, Clicks):
        seen = [region.holds(point) for point in prompt.points]
        points = ((x - left, y - top) for x, y in prompt.points)
        return Clicks(
            points=tuple(itertools.compress(points, seen)),
            positive=tuple(itertools.compress(prompt.positive, seen)),
            box=prompt.box and _shift(prompt.box, -left, -top),
        )
    if isinstance(prompt, tuple):
        return _shift(prompt, -left, -top)
    return prompt[top:bottom, left:right].copy()  # a view would keep the whole bitmap


def place_bitmap(bitmap: Bitmap, window: Window, *, width: int, height: int) -> Bitmap:
    """The bitmap of a window as one of the whole image: bool (height, width)."""
    if bitmap.shape == (height, width):
        return bitmap
    left, top, right, bottom = window
    placed = np.zeros((height, width), dtype=np.bool_)
    placed[top:bottom, left:right] = bitmap
    return placed


def follow_bitmap(region: SearchRegion, bitmap: Bitmap) -> SearchRegion:
    """The search region after an image on which the object was found as this bitmap."""
    height, width = bitmap.shape
    if not bitmap.any():
        return follow(region, None, width=width, height=height)
    left, top, right, bottom = bitmap_to_rectangle(bitmap)
    return follow(region, (left, top, right, bottom), width=width, height=height)


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """What a person drew on an image, as the model is asked about it."""

    prompt: Prompt
    """As it lies in the window of the region, or on the image."""
    box: Box
    """Around it, in pixels of the image; of clicks only the positive ones count."""
    region: SearchRegion | None
    """Where the object is looked for; None: on the whole image."""


def read_drawing(
    seed: Seed,
    *,
    width: int,
    height: int,
    size: float = 0,
    tracked_in: SearchRegion | None = None,
) -> Drawing:
    """A drawn shape as a prompt, in a search region if it has a size.

    width, height: of the image. size: `SearchRegion.size`; 0: no region. tracked_in: where the
    model looks for the object on this image before it sees the prompt. It stays the region if the
    object was seen there and the drawing lies in it. Raises BadShape, EmptyShape.
    """
    prompt = seed_to_prompt(seed, width=width, height=height)
    box = _box_of(seed, prompt, width, height)
    if not size:
        return Drawing(prompt=prompt, box=box, region=None)
    clicks = prompt if isinstance(prompt, Clicks) else Clicks()
    reach = _box_around([box[:2], box[2:], *_positive(clicks)])
    if tracked_in and tracked_in.seen and all(map(tracked_in.holds, (reach[:2], reach[2:]))):
        region = tracked_in
    elif clicks.points and clicks.box is None:  # clicks say no size
        region = whole_region(size, width=width, height=height)
    else:
        region = start_region(size, reach, width=width, height=height)
    return Drawing(prompt=cut_prompt(prompt, region), box=box, region=region)


def bitmap_to_shape(
    bitmap: Bitmap, track: Track, *, tolerance: float
) -> tuple[Shape | None, Track]:
    """The shape in the track's type, None if the object is not visible, and the track with its box.

    bitmap: bool (height, width). tolerance: of polygons, as in `bitmap_to_polygon`, where the track
    has none of its own.
    """
    visible = bool(bitmap.any())
    if track.shape_type == "rectangle":
        if not visible:
            return Shape(type="rectangle", points=list(track.box), outside=True), track
        left, top, right, bottom = bitmap_to_rectangle(bitmap)
        box = (float(left), float(top), float(right), float(bottom))
        return Shape(type="rectangle", points=list(box)), replace(track, box=box)
    if not visible:
        return None, track
    if track.shape_type == "mask":
        return Shape(type="mask", points=bitmap_to_mask(bitmap)), track
    own = tolerance if track.tolerance is None else track.tolerance
    return Shape(type="polygon", points=bitmap_to_polygon(bitmap, tolerance=own)), track


def _box_of(seed: Seed, prompt: Prompt, width: int, height: int) -> Box:
    if isinstance(prompt, Clicks):
        return prompt.box or _box_around(_positive(prompt))
    if isinstance(prompt, tuple):
        return prompt
    if seed.type == "mask":
        left, top, right, bottom = seed.points[-4:]
        return left, top, right + 1, bottom + 1
    xs = [min(max(x, 0.0), width) for x in seed.points[::2]]
    ys = [min(max(y, 0.0), height) for y in seed.points[1::2]]
    return _box_around(zip(xs, ys, strict=True))


def _positive(clicks: Clicks) -> Iterator[tuple[float, float]]:
    return itertools.compress(clicks.points, clicks.positive)


def _box_around(points: Iterable[tuple[float, float]]) -> Box:
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _shift(box: Box, x: float, y: float) -> Box:
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y
