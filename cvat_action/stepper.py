# SPDX-License-Identifier: MIT
"""`local --step`: every frame is shown, and a person says what to do."""

import sys
from collections.abc import Sequence
from pathlib import Path

from cvat_sdk.masks import encode_mask

from cvat_action import preview, report
from cvat_action.errors import ActionError
from cvat_action.geometry import bounding_box, points_fault, points_in_image, size_fault
from cvat_action.job import Job
from cvat_action.media import Media
from cvat_action.overlay import write_picture
from cvat_action.seeds import Seed
from cvat_action.tracked import Tracked, TrackedObject
from cvat_action.tracking import StepCorrection, StopTracking
from sam2_tracker.errors import BadShape, EmptyShape
from sam2_tracker.shapes import polygon_to_bitmap


def step_picture(out: Path) -> Path:
    """Where each frame is shown."""
    return out.with_suffix(".step.png")


class Stepper:
    """`--step`: shows every frame and asks what to do."""

    HELP = (
        "Enter: go on.  s: stop here.  r: go on to the end without asking.\n"
        "c OBJECT x,y x,y x,y ...: correct an object with a polygon; two points: with a box.\n"
        "c OBJECT outside: it is not visible, from here until it is corrected again."
    )

    def __init__(self, job: Job, media: Media, out: Path) -> None:
        self._job = job
        self._media = media
        self._picture = step_picture(out)
        self._asking = True
        _say(self.HELP)

    def ask(self, frame: int, objects: Sequence[TrackedObject]) -> list[StepCorrection]:
        """Raises StopTracking where the person wants no more."""
        corrections: dict[int, StepCorrection] = {}
        if not self._asking:
            return []
        self._show(frame, objects)
        while True:
            sys.stderr.write(f"frame {frame}> ")
            sys.stderr.flush()
            line = sys.stdin.readline()
            words = line.split()
            if not line or words == ["s"]:
                raise StopTracking(list(corrections.values()))
            if not words:
                return list(corrections.values())
            if words == ["r"]:
                self._asking = False
                return list(corrections.values())
            if words[0] != "c" or len(words) < 3:
                _say(self.HELP)
                continue
            try:
                index = _index_of(words[1], objects)
                points = self._points(words[2:], objects[index].seed, frame)
            except ActionError as error:
                _say(str(error))
                continue
            corrections[index] = StepCorrection(index, points)
            _say(f"Object {objects[index].seed.ref} is corrected; Enter goes on.")

    def _show(self, frame: int, objects: Sequence[TrackedObject]) -> None:
        rows = [("object", "label", "visible", "confidence")]
        for o in objects:
            t = o.frames.get(frame)
            name = self._job.label(o.seed.label_id).name
            if t is None:
                rows.append((o.seed.ref, name, o.stopped or "-", ""))
            else:
                score = "-" if t.score is None else f"{t.score:.2f}"
                rows.append((o.seed.ref, name, "no" if t.points is None else "yes", score))
        here: list[Tracked | None] = [o.frames.get(frame) for o in objects]
        seeds = [o.seed for o in objects]
        picture = preview.draw(self._media.picture(frame), frame, seeds, here)
        _say(report.table(rows))
        try:
            with preview.written(self._picture):
                write_picture(self._picture, picture)
        except ActionError as error:
            _say(f"There is no picture of this frame: {error}")
        else:
            _say(f"Drawn in {self._picture}")

    def _points(self, words: Sequence[str], seed: Seed, frame: int) -> tuple[float, ...] | None:
        if list(words) == ["outside"]:
            return None
        try:
            flat = [float(v) for word in words for v in word.split(",", 1)]
        except ValueError:
            raise ActionError("Points are written as x,y x,y x,y.") from None
        width, height = self._job.size(frame)
        shape_type = "rectangle" if len(words) == 2 else "polygon"
        _check(points_fault(shape_type, flat, width, height))
        flat = points_in_image(shape_type, flat, width, height)
        _check(size_fault(shape_type, flat))
        left, top, right, bottom = box = bounding_box(shape_type, flat)
        ring = (
            flat
            if shape_type == "polygon"
            else [left, top, right, top, right, bottom, left, bottom]
        )
        try:
            bitmap = polygon_to_bitmap(ring, width=width, height=height)
        except (BadShape, EmptyShape) as error:
            raise ActionError(error.message) from None
        if seed.type == "mask":
            return tuple(encode_mask(bitmap))
        if seed.type == "rectangle":
            _check(size_fault("rectangle", box))
            return box
        return tuple(ring)


def _check(fault: str | None) -> None:
    """Raises ActionError that says what is wrong with the points."""
    if fault:
        raise ActionError(f"That is {fault}.")


def _index_of(name: str, objects: Sequence[TrackedObject]) -> int:
    for index, o in enumerate(objects):
        if o.seed.ref == name:
            return index
    raise ActionError(f"There is no object {name}; there are "
                      f"{', '.join(o.seed.ref for o in objects)}.")  # fmt: skip


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
