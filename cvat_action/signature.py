# SPDX-License-Identifier: MIT
"""Which keyframes of a track a person made: those that do not carry our signature.

CVAT keeps no source for a keyframe, so each automatic keyframe carries a checksum in the
digits of its coordinates below a pixel:

    number = quarter / 4 + digit / 100

Every number of the points lies on a grid of a quarter pixel. The first ones, the carriers, have a
digit besides, of 2 bits (0 to 3 hundredths; 12 carriers) or, in rectangles and polygons of fewer
than 6 points, of 4 bits (0 to 15 hundredths; at most 8 carriers). The digits are the low bits of

    fnv1a32("TYPE:FRAME:OUTSIDE:OCCLUDED:Z:QUARTER,QUARTER,...")    flags as 0 or 1

the lowest in the first carrier. So it holds for exactly this position on exactly this frame with
these flags. Every edit of the keyframe breaks it, except that of edits that put every number on the
grid again, one in 2^24 is missed (rectangles: one in 2^16). A keyframe that CVAT made by
interpolation does not carry it.

Hundredths survive all that CVAT does: its server keeps numbers as they are, its XML rounds to
hundredths. They move no outline by more than 0.03 px (0.15 px), so no bitmap changes
where the outline runs along pixel edges. Nothing is stored outside of CVAT: the signature is there
after a backup, an export and import, and for whoever opens the job on another machine.
`tests/action_cases/signatures.json` holds cases for the plugin and the command line.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cvat_action.identity import fnv1a32

QUARTERS = 4
HUNDREDTHS = 25
"""hundredths of a pixel in a step of the grid"""


def sign(
    shape_type: str,
    points: Sequence[float],
    frame: int,
    *,
    width: int,
    height: int,
    outside: bool = False,
    occluded: bool = False,
    z_order: int = 0,
) -> list[float]:
    """The points of an automatic keyframe as they are written, signed and inside the image.

    shape_type: `polygon` or `rectangle`; points: CVAT's flat list, in pixels; width, height: the
    image's.
    No number moves by more than 0.4 px, and only those of carriers at the right and lower edge by
    more than 0.28 px. Rectangles stay at least a pixel wide and high.
    """
    carriers, bits = _carriers(len(points))
    largest_digit = (2**bits - 1) / 100
    quarters = []
    for index, value in enumerate(points):
        most = math.floor(((width, height)[index % 2] - largest_digit) * QUARTERS)
        if index >= carriers:
            most = (width, height)[index % 2] * QUARTERS
        quarters.append(min(max(_round(value * QUARTERS), 0), most))
    if shape_type == "rectangle":
        _widen(quarters)
    checksum = _checksum(shape_type, quarters, frame, outside, occluded, z_order)
    hundredths = [quarter * HUNDREDTHS for quarter in quarters]
    for index in range(carriers):
        hundredths[index] += checksum >> (bits * index) & (2**bits - 1)
    return [value / 100 for value in hundredths]


def is_signed(keyframe: Mapping[str, Any]) -> bool:
    """Whether a keyframe in CVAT's wire form is automatic and untouched.

    A person's keyframe, and one that anything was changed in, is not.
    """
    points = keyframe["points"]
    if keyframe.get("rotation") or len(points) < 4:
        return False
    hundredths = []
    for value in points:
        if not abs(value) < 1e9:  # also where it is not a number
            return False
        hundredths.append(_round(value * 100))
        if hundredths[-1] / 100 != value:
            return False
    carriers, bits = _carriers(len(points))
    quarters = [value // HUNDREDTHS for value in hundredths]
    digits = [value % HUNDREDTHS for value in hundredths]
    checksum = _checksum(
        str(keyframe["type"]),
        quarters,
        int(keyframe["frame"]),
        bool(keyframe.get("outside")),
        bool(keyframe.get("occluded")),
        int(keyframe.get("z_order") or 0),
    )
    expected = [checksum >> (bits * index) & (2**bits - 1) for index in range(carriers)]
    return digits == expected + [0] * (len(points) - carriers)


def _carriers(count: int) -> tuple[int, int]:
    """How many numbers of `count` carry a digit, and the bits of each digit."""
    return (12, 2) if count >= 12 else (min(count, 8), 4)


def _round(value: float) -> int:
    """To the nearest whole number, halves up, as the plugin does."""
    return math.floor(value + 0.5)


def _widen(quarters: list[int]) -> None:
    """Makes a rectangle wide and high enough to have a pixel with any digits, in place."""
    least = QUARTERS + 1
    for low, high in ((0, 2), (1, 3)):
        if quarters[high] - quarters[low] < least:
            quarters[low] = max(quarters[high] - least, 0)
            quarters[high] = max(quarters[high], quarters[low] + least)


def _checksum(
    shape_type: str,
    quarters: Sequence[int],
    frame: int,
    outside: bool,
    occluded: bool,
    z_order: int,
) -> int:
    flags = f"{outside:d}:{occluded:d}:{z_order}"
    return fnv1a32(f"{shape_type}:{frame}:{flags}:{','.join(map(str, quarters))}")
