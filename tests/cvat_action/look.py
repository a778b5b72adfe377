# SPDX-License-Identifier: MIT
"""What a test looks at in a job, and what a person changes there."""

from collections.abc import Iterable, Sequence
from typing import Any

from standin_cvat import StandinJob
from wire import POLYGON, shifted

from cvat_action.positions import position_among


def frames_of(shapes: Iterable[dict[str, Any]]) -> list[int]:
    return sorted(s["frame"] for s in shapes)


def frames_of_group(job: StandinJob, group: int) -> list[int]:
    return frames_of(s for s in job.shapes if s["group"] == group)


def places(shapes: Iterable[dict[str, Any]]) -> list[tuple[int, float]]:
    """(frame, x of the mask's box or of the first point) of each shape, in order."""
    return sorted((s["frame"], s["points"][-4 if s["type"] == "mask" else 0]) for s in shapes)


def ways(shapes: Iterable[dict[str, Any]]) -> dict[tuple[str, float, float], list[int]]:
    """(type, left edge less the frame, top) of what moves a pixel per frame, to its frames."""
    found: dict[tuple[str, float, float], list[int]] = {}
    for s in shapes:
        left, top = s["points"][-4:-2] if s["type"] == "mask" else s["points"][:2]
        found.setdefault((s["type"], left - s["frame"], top), []).append(s["frame"])
    return {way: sorted(frames) for way, frames in found.items()}


def on_frame(job: StandinJob, frame: int) -> dict[str, Any]:
    """The first shape on a frame."""
    return next(s for s in job.shapes if s["frame"] == frame)


def correct(job: StandinJob, frame: int, points: list[float], **more: Any) -> dict[str, Any]:
    """A person changes the first shape on a frame, as CVAT's page saves it."""
    changed = on_frame(job, frame)
    changed.update(points=points, source="semi-auto", **more)
    return changed


def by_frame(track: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {k["frame"]: k for k in track["shapes"]}


def position(track: dict[str, Any], frame: int) -> Any:
    """What CVAT shows on a frame."""
    return position_among([k for _, k in sorted(by_frame(track).items())], frame)


def course(track: dict[str, Any], drawn: Sequence[float] = POLYGON) -> str:
    """Each keyframe as `frame:pixels to the right of what was drawn`, in brackets where it is
    outside."""
    told = []
    for k in track["shapes"]:
        points = [float(round(p)) for p in k["points"]]  # without the digits of signatures
        by = points[0] - drawn[0]
        assert points == shifted(list(drawn), by)
        told.append(f"({k['frame']}:{by:g})" if k["outside"] else f"{k['frame']}:{by:g}")
    return " ".join(told)


def hidden(track: dict[str, Any], frames: Iterable[int]) -> list[int]:
    return [frame for frame in frames if position(track, frame)["outside"]]
