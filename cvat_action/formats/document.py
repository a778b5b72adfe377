# SPDX-License-Identifier: MIT
"""What an annotation file holds, in CVAT's wire form. It is the same for all file formats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cvat_action.job import Annotations, Job, Label, Wire
from cvat_action.media import Media, size_of
from cvat_action.signature import sign


@dataclass(frozen=True)
class AttributeSpec:
    id: int
    name: str
    mutable: bool
    text: bool = False
    """its values are text, also where they look like numbers (COCO)"""


@dataclass(frozen=True)
class Original:
    """An object of the file on one frame, as it was read."""

    place: int
    """in the file's order"""
    text: str
    shape: Wire
    between: bool = False
    """no keyframe of its track: interpolation gives it too"""


@dataclass(frozen=True)
class LabelSpec:
    id: int
    name: str
    attributes: tuple[AttributeSpec, ...] = ()

    def label(self) -> Label:
        return Label(self.id, self.name, frozenset(a.id for a in self.attributes if a.mutable))

    def attribute(self, spec_id: int) -> AttributeSpec:
        return next(a for a in self.attributes if a.id == spec_id)


@dataclass(frozen=True)
class Document:
    labels: tuple[LabelSpec, ...]
    annotations: Annotations
    format: str
    """`coco` or `cvat`"""
    untouched: Mapping[int, str] = field(default_factory=dict)
    """what cannot be tracked (skeletons, say), as text of the same format, to be written again, by
    its place in the file"""
    header: str = ""
    """the file's own header (labels and task in CVAT, all but the annotations in COCO), as text"""
    originals: Mapping[tuple[int, int], Original] = field(default_factory=dict)
    """by id of the shape or track, and frame: what is written again as it was, if it still is so"""

    def label(self, label_id: int) -> LabelSpec:
        return next(label for label in self.labels if label.id == label_id)


def not_by_hand(end: Wire, media: Media) -> Wire:
    """An `outside` keyframe that a format puts after the last position, signed: no person made it.

    So tracking goes on over it. `as_read` are the points that are written if it stays.
    """
    if end["frame"] >= len(media.frame_names) or end.get("rotation"):
        return end
    width, height = size_of(media, end["frame"])
    flags = {name: end[name] for name in ("outside", "occluded", "z_order")}
    points = sign(end["type"], end["points"], end["frame"], width=width, height=height, **flags)
    return {**end, "points": points, "as_read": end["points"]}


def local_job(document: Document, media: Media) -> Job:
    """Media and document as a server would show them."""
    return Job(
        id=0,
        task_id=0,
        start_frame=0,
        stop_frame=len(media.frame_names) - 1,
        labels=tuple(label.label() for label in document.labels),
        sizes=media.sizes,
        deleted_frames=media.missing,
        name=media.name,
    )


@dataclass(frozen=True)
class Edit:
    """Changes in the wire form; everything new has its id."""

    shapes: Sequence[Wire] = ()
    tracks: Sequence[Wire] = ()
    updated: Mapping[int, Wire] = field(default_factory=dict)
    """tracks by id"""
    gone: frozenset[int] = frozenset()
    """ids of shapes"""


def edited(document: Document, edit: Edit) -> Document:
    """The document after an edit."""
    held = document.annotations
    annotations = Annotations(
        shapes=(*(s for s in held.shapes if s["id"] not in edit.gone), *edit.shapes),
        tracks=(*(edit.updated.get(t["id"], t) for t in held.tracks), *edit.tracks),
    )
    return replace(document, annotations=annotations)
