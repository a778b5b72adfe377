# SPDX-License-Identifier: MIT
"""One object as it is handed to the tracker, with what a person drew of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cvat_action.job import Wire


@dataclass(frozen=True)
class Correction:
    """What a person drew on a later frame of the range."""

    frame: int
    points: Sequence[float] | None
    """None: marked as outside"""
    shape: Wire | None = None
    """the shape that it is, where it is not a track's keyframe"""
    sure: bool = True
    """False: it counts only where the tracked result is in the same place"""


@dataclass(frozen=True)
class Seed:
    """One object as it is handed to the tracker."""

    ref: str
    """what `--object` calls it: `17` for a shape, `track:5` for a track"""
    type: str
    frame: int
    points: Sequence[float]
    wire: Wire
    """the shape, or the track without its keyframes, as CVAT held it"""
    occluded: bool
    z_order: int
    corrections: tuple[Correction, ...] = ()
    asleep: bool = False
    """not tracked before its next drawing: a person marked it as outside, or drew it later"""
    number: int = 0
    """the object's number in the marks of its shapes (docs/identity.md); 0: a track that no
    receipt names"""
    keyframes: Mapping[int, int] = field(default_factory=dict)
    """of a track: frame to a hash of the keyframe as it was, on the frames of the run"""
    removed: frozenset[int] = frozenset()
    """of a track: frames whose keyframe a person deleted; they are left to CVAT's interpolation"""
    relabelled: frozenset[int] = frozenset()
    """frames on which a person gave its result another label: it stays, and is no drawing that the
    object stands on"""
    found: bool = False
    """found by a detector: it does not lie in the job yet, and its wire has no id"""
    score: float | None = None
    """0 to 1: how sure the detector is of it"""

    @property
    def is_track(self) -> bool:
        return self.ref.startswith("track:")

    @property
    def label_id(self) -> int:
        return int(self.wire["label_id"])


@dataclass(frozen=True)
class Tuning:
    """What the function is told beside a shape that starts (docs/request.md).

    None: the function's own setting.
    """

    memory: str | None = None
    """memory policy"""
    tolerance: float | None = None
    """of polygons, how much their IoU with the mask may be short of 1"""
    search_region: float | None = None
    """side of the window in which the object is searched, in sizes of the object; 0: no window"""


@dataclass(frozen=True)
class Refusal:
    ref: str
    label_id: int
    reason: str


def becomes_track(seed: Seed, *, convert: bool) -> bool:
    return seed.is_track or (convert and seed.type == "polygon")
