# SPDX-License-Identifier: MIT
"""What an annotation file holds, in CVAT's wire form, whatever the file's format."""

from dataclasses import dataclass, replace

from cvat_action.job import Annotations, Job, Label, Wire
from cvat_action.media import Media
from cvat_action.results import Changes


@dataclass(frozen=True)
class AttributeSpec:
    id: int
    name: str
    mutable: bool


@dataclass(frozen=True)
class LabelSpec:
    id: int
    name: str
    attributes: tuple[AttributeSpec, ...] = ()

    def label(self) -> Label:
        return Label(self.id, self.name, frozenset(a.id for a in self.attributes if a.mutable))

    def attribute_name(self, spec_id: int) -> str:
        return next(a.name for a in self.attributes if a.id == spec_id)


@dataclass(frozen=True)
class Document:
    labels: tuple[LabelSpec, ...]
    annotations: Annotations
    format: str
    """`coco` or `cvat`"""
    untouched: tuple[str, ...] = ()
    """what cannot be tracked (skeletons, say), as text of the same format, to be written again"""
    header: str = ""
    """the file's own header (labels and task in CVAT, categories in COCO), as text"""

    def label(self, label_id: int) -> LabelSpec:
        return next(label for label in self.labels if label.id == label_id)


def local_job(document: Document, media: Media) -> Job:
    """Media and document as a server would show them."""
    return Job(
        id=0,
        task_id=0,
        start_frame=0,
        stop_frame=len(media.frame_names) - 1,
        labels=tuple(label.label() for label in document.labels),
        sizes=media.sizes,
        name=media.name,
    )


def changed(document: Document, changes: Changes) -> Document:
    """The document after `changes`, as a server would hold it afterwards."""
    shapes, tracks = document.annotations.shapes, document.annotations.tracks
    gone = {s["id"] for s in changes.delete_shapes}
    edited = {t["id"]: t for t in changes.update_tracks}
    highest = max((o["id"] for o in (*shapes, *tracks)), default=0)
    new = [*changes.create_shapes, *changes.create_tracks]
    numbered: list[Wire] = [{**o, "id": highest + 1 + i} for i, o in enumerate(new)]
    kept = (s for s in shapes if s["id"] not in gone)
    new_shapes = numbered[: len(changes.create_shapes)]
    new_tracks = numbered[len(changes.create_shapes) :]
    annotations = Annotations(
        shapes=(*kept, *new_shapes),
        tracks=(*(edited.get(t["id"], t) for t in tracks), *new_tracks),
    )
    return replace(document, annotations=annotations)
