# SPDX-License-Identifier: MIT
"""Whose a shape is: the mark in the digits of its score (docs/identity.md).

`number` is the number of an object everywhere in this package; what CVAT numbers has an id.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NUMBERS = 10**7
"""object numbers are 1 to NUMBERS - 1"""
RUNS = 100
_CHECKS = 100
_MARKS = NUMBERS * RUNS * _CHECKS
_SCALE = 10**15
"""a double holds any number of 15 decimal digits"""
_MOST_CONFIDENT = _SCALE // _MARKS - 1


@dataclass(frozen=True)
class Mark:
    """What the score of one of our shapes says besides the confidence."""

    number: int
    """the object, 1 to 9999999"""
    run: int
    """the run that wrote the shape, 0 to 99"""


def marked_score(confidence: float | None, mark: Mark, frame: int) -> float:
    """The score to write: confidence (0 to 1; None: unknown, counts as 1) and mark."""
    share = 1.0 if confidence is None else min(max(confidence, 0.0), 1.0)
    first = min(math.floor(share * (_MOST_CONFIDENT + 1)), _MOST_CONFIDENT)
    digits = (mark.number * RUNS + mark.run) * _CHECKS + _check(mark, frame)
    return (first * _MARKS + digits) / _SCALE


def mark_of(score: Any, frame: int) -> Mark | None:
    """The mark in a score, or None if the score has no mark of this frame."""
    if type(score) is not float or not 0 <= score < 1:
        return None
    value = round(score * _SCALE)
    if value >= _SCALE or value / _SCALE != score:
        return None
    rest, check = divmod(value % _MARKS, _CHECKS)
    number, run = divmod(rest, RUNS)
    mark = Mark(number, run)
    return mark if number and check == _check(mark, frame) else None


def number_of_drawing(shape_type: str, frame: int, points: Sequence[float]) -> int:
    """The number of an object that a person drew, from the drawing itself."""
    numbers = ",".join(str(math.floor(64 * p + 0.5)) for p in points)
    return 1 + fnv1a32(f"{shape_type}:{frame}:{numbers}") % (NUMBERS - 1)


def number_of(shape: Mapping[str, Any], receipts: Mapping[int, int]) -> int:
    """The number of a shape's object: what its mark says, or a receipt, or the drawing itself.

    receipts: number of an object by the id of its seed.
    """
    if mark := mark_of(shape.get("score"), shape["frame"]):
        return mark.number
    return receipts.get(shape["id"]) or number_of_outline(shape)


def number_of_outline(shape: Mapping[str, Any]) -> int:
    """`number_of_drawing` of a shape in the wire form."""
    return number_of_drawing(shape["type"], shape["frame"], shape.get("points") or ())


@dataclass(frozen=True)
class KnownNumbers:
    """What is known of the numbers of a job's objects."""

    of_shapes: Mapping[int, int]
    """by the id of a shape"""
    receipts: Mapping[int, int]
    """those of them that earlier runs have written down"""
    of_tracks: Mapping[int, int]
    """by the id of the track that an object became"""
    labels: Mapping[int, Collection[int]]
    """of the marked shapes, by their number"""

    def is_of_drawing(self, shape: Mapping[str, Any]) -> bool:
        """Whether the number of a shape's object is that of the drawing alone.

        The frame is a part of it: drawings of two frames have the same one only by chance.
        """
        if mark_of(shape.get("score"), shape["frame"]):
            return False
        number = self.receipts.get(shape["id"])
        return not number or number == number_of_outline(shape)

    def is_own(self, drawing: Mapping[str, Any], number: int, *, of_drawing: bool) -> bool:
        """Whether a drawing with the number of a seed is the seed's own.

        It is where a marked shape of the number has its label, or a receipt names it. Where the
        seed's number is that of a drawing, too (of_drawing), the two are equal only by chance.
        """
        if not self.is_of_drawing(drawing):
            return True
        its_label = drawing["label_id"] in self.labels.get(number, ())
        return not of_drawing and (its_label or drawing["id"] in self.receipts)


def numbers_of(shapes: Iterable[Mapping[str, Any]], receipts: Mapping[int, int]) -> dict[int, int]:
    """Numbers of the objects of shapes, by the ids of the shapes.

    Each is what `number_of` says. But equal outlines on one frame, of two labels say, are two
    objects: of those with neither a mark nor a receipt the one with the higher id counts up.
    """
    numbers: dict[int, int] = {}
    taken: dict[int, set[int]] = {}
    """frame to the numbers of its objects"""
    only_drawn = []
    for s in shapes:
        if s["id"] in receipts or mark_of(s.get("score"), s["frame"]):
            numbers[s["id"]] = number_of(s, receipts)
            taken.setdefault(s["frame"], set()).add(numbers[s["id"]])
        else:
            only_drawn.append(s)
    for s in sorted(only_drawn, key=lambda s: s["id"]):
        on_frame = taken.setdefault(s["frame"], set())
        numbers[s["id"]] = free_number(number_of(s, receipts), on_frame)
        on_frame.add(numbers[s["id"]])
    return numbers


def free_number(number: int, taken: Iterable[int]) -> int:
    """`number`, or the next one that is not taken."""
    others = set(taken)
    while number in others:
        number = number % (NUMBERS - 1) + 1
    return number


def fnv1a32(text: str) -> int:
    """FNV-1a with 32 bits over ASCII text."""
    value = 2166136261
    for byte in text.encode("ascii"):
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


def _check(mark: Mark, frame: int) -> int:
    return fnv1a32(f"{mark.number}:{mark.run}:{frame}") % _CHECKS
