# SPDX-License-Identifier: MIT
"""Clicks on an object: where it is, where it is not, and the box around it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sam2_tracker.errors import BadShape
from sam2_tracker.shapes import Box, numbers_of, rectangle_to_box

MAX_CLICKS = 64
"""Of one object. A person makes fewer than ten, and each costs the interactor a decode."""


@dataclass(frozen=True, kw_only=True)
class Clicks:
    """A prompt of SAM 2: points, a box, or both. Coordinates are pixels of the image."""

    points: tuple[tuple[float, float], ...] = ()
    """x and y of each click."""
    positive: tuple[bool, ...] = ()
    """Of each click: whether it lies on the object."""
    box: Box | None = None

    @property
    def count(self) -> int:
        """Points that the model sees: SAM 2 takes a box as two points."""
        return len(self.points) + 2 * (self.box is not None)


def check_click_count(clicks: int) -> None:
    """Raises BadShape for more than MAX_CLICKS clicks on one object."""
    if clicks > MAX_CLICKS:
        raise BadShape(f"{clicks} clicks on one object; the limit is {MAX_CLICKS}.")


def read_clicks(
    positive: Sequence[Any],
    negative: Sequence[Any],
    box: Sequence[Any] | None,
    *,
    width: int,
    height: int,
) -> Clicks:
    """Checks what was clicked on an image; the positive clicks come first.

    positive, negative: [x, y] of each click. box: [left, top, right, bottom], which is cut to the
    image; None: no box. Raises BadShape, EmptyShape.
    """
    check_click_count(len(positive) + len(negative))
    if not positive and box is None:
        raise BadShape("Click on the object at least once, or draw a box around it.")
    points = tuple(_point(each, width, height) for each in (*positive, *negative))
    return Clicks(
        points=points,
        positive=(True,) * len(positive) + (False,) * len(negative),
        box=None if box is None else rectangle_to_box(box, width=width, height=height),
    )


def _point(point: Any, width: int, height: int) -> tuple[float, float]:
    if not isinstance(point, list) or len(point) != 2:
        raise BadShape("A click has two numbers: x and y.")
    x, y = numbers_of(point).tolist()
    if not (0 <= x <= width and 0 <= y <= height):
        raise BadShape(
            f"The click ({x:g}, {y:g}) does not lie on the image of {width} x {height} pixels."
        )
    return x, y
