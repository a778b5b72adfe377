# SPDX-License-Identifier: MIT
"""What is known of a job: its frames, their sizes, its labels.

A frame number is always the one that CVAT's page shows: relative to the task, after start frame and
frame step. The data meta's own `start_frame` and `stop_frame` are numbers of the source video
and are not used here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cvat_action.errors import ActionError

Wire = dict[str, Any]
"""A JSON object as CVAT's REST API gives and takes it."""


@dataclass(frozen=True)
class Label:
    id: int
    name: str
    mutable_attributes: frozenset[int] = frozenset()
    """spec ids of the attributes that may change from keyframe to keyframe"""
    defaults: Mapping[int, str] = field(default_factory=dict)
    """values by spec id that CVAT fills in where an object has none"""


@dataclass(frozen=True)
class Job:
    id: int
    task_id: int
    start_frame: int
    stop_frame: int
    labels: tuple[Label, ...]
    sizes: tuple[tuple[int, int], ...]
    """(width, height) of each frame from start_frame on; one entry where all are equal"""
    deleted_frames: frozenset[int] = frozenset()
    name: str = ""
    """what messages call it"""

    def size(self, frame: int) -> tuple[int, int]:
        return self.sizes[0 if len(self.sizes) == 1 else frame - self.start_frame]

    def label(self, label_id: int) -> Label:
        for label in self.labels:
            if label.id == label_id:
                return label
        return Label(label_id, f"label {label_id}")

    def label_named(self, name: str) -> Label:
        """Raises ActionError where no label has the name, or several have it."""
        found = [label for label in self.labels if label.name == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise ActionError(
                f"{len(found)} labels of {self.name} are called {name!r}. Rename all but one."
            )
        there = ", ".join(label.name for label in self.labels) or "none"
        raise ActionError(f"There is no label {name!r} in {self.name}. Its labels: {there}.")

    def frames_between(self, frame: int, target: int) -> list[int]:
        """The frames to track in the order of tracking, without `frame` itself and deleted ones."""
        step = 1 if target >= frame else -1
        return [f for f in range(frame + step, target + step, step) if f not in self.deleted_frames]

    def frame_before(self, frame: int, following: int) -> int | None:
        """The neighbour of `frame` that lies away from `following`; None at the end of the job."""
        other_end = self.start_frame if following > frame else self.stop_frame
        return next(iter(self.frames_between(frame, other_end)), None)

    def next_frame(self, frame: int) -> int | None:
        """The first frame after `frame` that is not deleted, or None at the end of the job."""
        return next(
            (f for f in range(frame + 1, self.stop_frame + 1) if f not in self.deleted_frames),
            None,
        )


@dataclass(frozen=True)
class Annotations:
    """Shapes and tracks as CVAT gives them: tracks hold keyframes only."""

    shapes: tuple[Wire, ...]
    tracks: tuple[Wire, ...]


def job_from_wire(job: Wire, meta: Wire, labels: Iterable[Wire]) -> Job:
    """From `GET /api/jobs/<id>`, `GET /api/jobs/<id>/data/meta` and `GET /api/labels?job_id=`.

    Raises ActionError for jobs whose objects cannot be tracked: 3D, audio, ground truth.
    """
    number = job["id"]
    if job.get("dimension", "2d") != "2d":
        raise ActionError(f"Job {number} is a 3D job; only objects on 2D frames can be tracked.")
    if job.get("media_type") == "audio":
        raise ActionError(f"Job {number} is an audio job; only objects on frames can be tracked.")
    if job.get("type") == "ground_truth":
        raise ActionError(
            f"Job {number} is a ground truth job. Its objects are what others are measured "
            "against, so they are left alone; track in an annotation job of the same task."
        )
    frame_count = job["stop_frame"] - job["start_frame"] + 1
    sizes = tuple((int(f["width"]), int(f["height"])) for f in meta["frames"])
    if len(sizes) not in (1, frame_count):
        raise ActionError(
            f"CVAT names {len(sizes)} frames for job {number}, which has {frame_count}; "
            "reload the job and try again."
        )
    return Job(
        id=number,
        task_id=job["task_id"],
        start_frame=job["start_frame"],
        stop_frame=job["stop_frame"],
        labels=tuple(label_from_wire(label) for label in labels),
        sizes=sizes,
        deleted_frames=frozenset(meta.get("deleted_frames") or ()),
        name=f"job {number}",
    )


def label_from_wire(label: Wire) -> Label:
    return Label(
        id=label["id"],
        name=label["name"],
        mutable_attributes=frozenset(
            a["id"] for a in label.get("attributes") or () if a.get("mutable")
        ),
        defaults={
            a["id"]: a["default_value"]
            for a in label.get("attributes") or ()
            if "default_value" in a
        },
    )


def check_range(job: Job, frame: int, target: int, *, backward: bool) -> None:
    """Raises ActionError, naming the job's range, for a frame that cannot be tracked from or to."""
    held = f"{job.name} holds frames {job.start_frame} to {job.stop_frame}"
    for name, number in (("Frame", frame), ("Target frame", target)):
        if not job.start_frame <= number <= job.stop_frame:
            raise ActionError(f"{name} {number} is out of range: {held}.")
    if frame in job.deleted_frames:
        raise ActionError(f"Frame {frame} is deleted; start from a frame that is shown.")
    if target < frame and not backward:
        raise ActionError(
            f"Target frame {target} lies before frame {frame}; add --backward to track backwards."
        )
    if target > frame and backward:
        raise ActionError(
            f"--backward needs a target frame before frame {frame}, not {target}; {held}."
        )
