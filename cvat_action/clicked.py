# SPDX-License-Identifier: MIT
"""`--points`: objects that begin with clicks; SAM 2 finds their first mask."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cvat_action.errors import ActionError
from cvat_action.job import Annotations, Job, Wire
from cvat_action.tracking import Answer, CallFailed

Point = tuple[float, float]


@dataclass(frozen=True)
class Clicked:
    """What was clicked of one object."""

    label: str
    positive: tuple[Point, ...]
    negative: tuple[Point, ...] = ()
    """Clicks that are not on the object."""

    def shape(self, kind: str) -> dict[str, Any]:
        """As the tracker takes it (docs/request.md). kind: the type in which it is answered."""
        return {
            "type": "points",
            "points": [coordinate for point in self.positive for coordinate in point],
            "neg_points": [list(point) for point in self.negative],
            "answer": kind,
        }


def text_to_clicked(text: str) -> Clicked:
    """Reads `LABEL x,y x,y -x,y`; a minus says that the click is not on the object.

    Raises ActionError.
    """
    wrong = ActionError(
        f"--points is 'LABEL x,y x,y -x,y', with a minus before what is not on the object, not "
        f"'{text}'."
    )
    words = text.split()
    first = next((n for n, word in enumerate(words) if "," in word), len(words))
    label, points = " ".join(words[:first]), words[first:]
    try:
        positive, negative = (
            tuple(_point(word) for word in points if word.startswith("-") == minus)
            for minus in (False, True)
        )
    except ValueError:
        raise wrong from None
    if not label or not positive:
        raise wrong
    return Clicked(label=label, positive=positive, negative=negative)


def _point(word: str) -> Point:
    x, y = map(float, word.removeprefix("-").split(","))
    return x, y


def draw(
    start: Callable[[int, list[dict[str, Any]]], Answer],
    annotations: Annotations,
    job: Job,
    frame: int,
    clicked: Sequence[Clicked],
    kind: str,
) -> tuple[Wire, ...]:
    """What was clicked on, as shapes on the frame.

    start: the tracker's. kind: mask or polygon. Raises ActionError.
    """
    labels = {label.name: label.id for label in job.labels}
    for each in clicked:
        if each.label not in labels:
            there = ", ".join(labels) or "none"
            raise ActionError(f"There is no label '{each.label}'. Labels there: {there}.")
    try:
        answer = start(frame, [each.shape(kind) for each in clicked])
    except CallFailed as failure:
        raise ActionError(f"--points: {failure}") from failure
    first = max((o["id"] for o in (*annotations.shapes, *annotations.tracks)), default=0) + 1
    drawn: list[Wire] = []
    for own, each in enumerate(clicked):
        shape, fault = answer.shapes[own], answer.errors[own]
        if fault or shape is None:
            reason = fault["message"] if fault else "the model sees no object there."
            raise ActionError(f"--points, object {own + 1} ({each.label}): {reason}")
        drawn.append(
            {
                "id": first + own,
                "type": kind,
                "frame": frame,
                "points": shape["points"],
                "label_id": labels[each.label],
                "group": 0,
                "source": "semi-auto",
                "outside": False,
                "occluded": False,
                "z_order": 0,
                "rotation": 0.0,
                "attributes": [],
                "elements": [],
            }
        )
    return tuple(drawn)
