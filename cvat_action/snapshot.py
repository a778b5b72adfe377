# SPDX-License-Identifier: MIT
"""What a job holds at one moment, small enough to be kept for jobs of a million shapes.

Of most shapes only what is needed to recognise them is kept. CVAT gives ids in rising order, so a
shape whose id is higher than the highest of an earlier snapshot appeared after it.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from cvat_action.geometry import TRACKABLE, Box, box_of
from cvat_action.identity import Mark, mark_of, number_of_outline
from cvat_action.job import Annotations, Wire
from cvat_action.kinds import Kind, compared_kind, kind_of

Whole = Callable[[Wire], bool]
"""says of which shapes everything is kept"""


@dataclass(frozen=True, slots=True)
class Known:
    """What is kept of every shape."""

    id: int
    frame: int
    kind: Kind
    auto: bool
    """its source is `auto`: no person touched it, as far as CVAT knows"""
    mark: Mark | None
    box: Box
    """(left, top, right, bottom); all 0 for types that are not tracked"""
    content: int
    """a hash of all that a person can change but the attributes"""
    attributes: int
    """a hash of the attributes, which CVAT fills up with default values"""

    @property
    def compared_kind(self) -> Kind:
        return compared_kind(self.kind, auto=self.auto)

    def same(self, other: "Known | None") -> bool:
        return other is not None and (self.content, self.attributes) == (
            other.content,
            other.attributes,
        )


@dataclass
class Snapshot:
    shapes: dict[int, Known] = field(default_factory=dict)
    tracks: dict[int, Wire] = field(default_factory=dict)
    """keyframes' points as arrays of doubles"""
    whole: dict[int, Wire] = field(default_factory=dict)
    """the shapes of which everything was asked for"""
    begun: frozenset[int] = frozenset()
    """numbers that the first result of an object gives: it was clicked on, or found"""

    @property
    def newest(self) -> tuple[int, int]:
        """The highest ids of shapes and of tracks; 0 if there are no shapes, or no tracks."""
        return max(self.shapes, default=0), max(self.tracks, default=0)

    def holds(self, shape: Wire) -> bool:
        """Whether a shape is there and nobody changed it."""
        known = self.shapes.get(shape["id"])
        return known is not None and known.same(known_from_wire(shape))

    @property
    def annotations(self) -> Annotations:
        return Annotations(tuple(self.whole.values()), tuple(self.tracks.values()))


def take_snapshot(objects: Iterable[tuple[str, Wire]], whole: Whole) -> Snapshot:
    """From ("shapes" or "tracks", object) in the wire form."""
    snapshot = Snapshot()
    kinds: dict[Kind, Kind] = {}
    first = _FirstResults()
    for where, o in objects:
        if where == "tracks":
            for k in o["shapes"]:
                k["points"] = array("d", k["points"])
            snapshot.tracks[o["id"]] = o
            continue
        known = known_from_wire(o, kinds)
        snapshot.shapes[known.id] = known
        first.add(known, o)
        if whole(o):
            snapshot.whole[known.id] = o
    snapshot.begun = first.numbers
    return snapshot


def annotations_to_snapshot(annotations: Annotations) -> Snapshot:
    """Of annotations that are held whole anyway (a file's)."""
    shapes = {s["id"]: known_from_wire(s) for s in annotations.shapes}
    first = _FirstResults()
    for s in annotations.shapes:
        first.add(shapes[s["id"]], s)
    return Snapshot(
        shapes,
        {t["id"]: t for t in annotations.tracks},
        {s["id"]: s for s in annotations.shapes},
        first.numbers,
    )


class _FirstResults:
    """Finds the objects whose number their first result gives.

    It is the one with the lowest id, or, where an undo brought it back under another id, the first
    or the last in the video. To look at all would take as long as reading the job.
    """

    def __init__(self) -> None:
        self._candidates: dict[int, list[Wire]] = {}
        """by number: the shapes with the lowest id, on the first and on the last frame"""

    def add(self, known: Known, shape: Wire) -> None:
        if not known.mark:
            return
        ends = self._candidates.setdefault(known.mark.number, [shape] * 3)
        if known.id < ends[0]["id"]:
            ends[0] = shape
        if known.frame < ends[1]["frame"]:
            ends[1] = shape
        elif known.frame > ends[2]["frame"]:
            ends[2] = shape

    @property
    def numbers(self) -> frozenset[int]:
        return frozenset(
            number
            for number, ends in self._candidates.items()
            if any(number_of_outline(shape) == number for shape in ends)
        )


def known_from_wire(shape: Wire, kinds: dict[Kind, Kind] | None = None) -> Known:
    """`kinds`: shared by the shapes of one snapshot, so that equal kinds are kept once."""
    kind = kind_of(shape)
    if kinds is not None:
        kind = kinds.setdefault(kind, kind)
    drawn = kind[1] in TRACKABLE and len(shape.get("points") or ()) >= 4
    return Known(
        id=shape["id"],
        frame=shape["frame"],
        kind=kind,
        auto=shape.get("source") == "auto",
        mark=mark_of(shape.get("score"), shape["frame"]),
        box=box_of(shape) if drawn else (0.0, 0.0, 0.0, 0.0),
        content=content_of(shape),
        attributes=attributes_hash(values_by_spec(shape)),
    )


def content_of(shape: Wire) -> int:
    """A hash of what a person can change in a shape but the attributes.

    Equal for a shape as it is sent and as CVAT gives it back.
    """
    elements = [content_of({**shape, "elements": [], **e}) for e in shape.get("elements") or ()]
    own = (*_drawn(shape), kind_of(shape), shape.get("source"), elements)
    return _hash(own, shape.get("points") or ())


def attributes_hash(values: Mapping[int, Any]) -> int:
    """values: by spec id."""
    return _hash(sorted((spec, str(value)) for spec, value in values.items()))


def keyframe_content(keyframe: Wire) -> int:
    """The same of a track's keyframe."""
    return _hash(_drawn(keyframe), keyframe["points"])


def track_content(track: Wire) -> int:
    """The same of a whole track."""
    keyframes = sorted((k["frame"], keyframe_content(k)) for k in track["shapes"])
    return _hash((track["label_id"], track.get("group") or 0, track.get("source"), keyframes))


def track_attributes(track: Wire, defaults: Mapping[int, Any] = MappingProxyType({})) -> int:
    """A hash of the attributes that hold on each keyframe of a track.

    defaults: values by spec id that CVAT fills up in a track that is sent. With these the hash is
    that of the track as CVAT gives it back.
    """
    held = {**defaults, **values_by_spec(track)}
    on = []
    for k in sorted(track["shapes"], key=itemgetter("frame")):
        held |= values_by_spec(k)
        on.append((k["frame"], attributes_hash(held)))
    return _hash(on)


def values_by_spec(o: Wire) -> dict[int, Any]:
    """The values of a shape's, track's or keyframe's attributes, by spec id."""
    return {a["spec_id"]: a["value"] for a in o.get("attributes") or ()}


def plain_track(track: Wire) -> Wire:
    """The track with the points of its keyframes as lists, ready for JSON."""
    keyframes = [{**k, "points": list(k["points"])} for k in track["shapes"]]
    return {**track, "shapes": keyframes}


def _drawn(shape: Wire) -> tuple[Any, ...]:
    return (
        shape["frame"],
        shape["type"],
        bool(shape.get("outside")),
        bool(shape.get("occluded")),
        int(shape.get("z_order") or 0),
        float(shape.get("rotation") or 0),
    )


def _hash(values: Any, points: Iterable[float] = ()) -> int:
    digest = hashlib.blake2b(repr(values).encode(), digest_size=8)
    digest.update(array("d", points).tobytes())
    return int.from_bytes(digest.digest(), "big")
