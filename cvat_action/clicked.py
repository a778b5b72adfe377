# SPDX-License-Identifier: MIT
"""`--points`: objects that begin with clicks; SAM 2 finds their first outline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cvat_action.detections import SAME, Detection, Outline
from cvat_action.errors import ActionError
from cvat_action.job import Job
from cvat_action.plan import Options
from cvat_action.tracked import Tracked
from sam2_tracker.clicks import read_clicks
from sam2_tracker.errors import ObjectError

Point = tuple[float, float]
USAGE = "Write 'LABEL x,y x,y -x,y', with a minus before what is not on the object."

Ask = Callable[[str, Sequence[dict[str, Any]]], list[tuple[Tracked | None, str]]]
"""gives the outline of each prompt as a shape of a type, or None and why"""


@dataclass(frozen=True)
class Clicked:
    """What was clicked of one object."""

    label: str
    positive: tuple[Point, ...]
    negative: tuple[Point, ...] = ()
    """Clicks that are not on the object."""

    def prompt(self, tolerance: float | None) -> dict[str, Any]:
        """As the tracker takes it (docs/request.md). tolerance: of a polygon."""
        shape: dict[str, Any] = {
            "type": "points",
            "points": [coordinate for point in self.positive for coordinate in point],
            "neg_points": [list(point) for point in self.negative],
        }
        return shape if tolerance is None else {**shape, "tolerance": tolerance}


def text_to_clicked(text: str) -> Clicked:
    """Reads `LABEL x,y x,y -x,y`; a minus says that the click is not on the object.

    Raises ActionError.
    """
    words = text.split()
    clicks: list[tuple[bool, Point]] = []
    while words and (point := _point(words[-1])):
        clicks.insert(0, (words.pop().startswith("-"), point))
    label = " ".join(words)
    positive, negative = (
        tuple(point for off, point in clicks if off == minus) for minus in (False, True)
    )
    wrong = None
    if not clicks:
        wrong = "it ends with no click"
    elif not label:
        wrong = "it begins with no label"
    elif not positive:
        wrong = "all clicks have a minus; at least one is on the object"
    if wrong:
        raise ActionError(f"--points {text[:100]!r}: {wrong}. {USAGE}")
    return Clicked(label=label, positive=positive, negative=negative)


def _point(word: str) -> Point | None:
    try:
        x, y = map(float, word.removeprefix("-").split(","))
    except ValueError:
        return None
    return x, y


def find_clicked(options: Options, job: Job, there: Sequence[Outline], ask: Ask) -> list[Detection]:
    """What was clicked on the frame, one after the other.

    there: what lies on the frame. Raises ActionError, also where one of the objects is there
    already: nothing that is drawn may be doubled.
    """
    clicked = [text_to_clicked(text) for text in options.points]
    names = [f"--points, object {n} ({each.label})" for n, each in enumerate(clicked, 1)]
    labels = [job.label_named(each.label) for each in clicked]
    width, height = job.size(options.frame)
    for name, each in zip(names, clicked, strict=True):
        on, off = ([list(point) for point in part] for part in (each.positive, each.negative))
        try:
            read_clicks(on, off, None, width=width, height=height)
        except ObjectError as error:
            raise ActionError(f"{name}: {error.message}") from None
    found = []
    taken = list(there)
    outlines = ask(options.points_as, [each.prompt(options.tolerance) for each in clicked])
    for name, label, (outline, why) in zip(names, labels, outlines, strict=True):
        if outline is None or outline.points is None:
            raise ActionError(f"{name}: {why}. Click on more of it, or draw it in CVAT.")
        place = Outline(options.points_as, outline.points, name)
        same = next((other.name for other in taken if place.iou(other) >= SAME), None)
        if same:
            raise ActionError(
                f"{name} is already there on frame {options.frame}: {same}. Leave out one of the "
                "two, or click on another object."
            )
        taken.append(place)
        found.append(Detection(label.id, options.points_as, outline.points, outline.score))
    return found
