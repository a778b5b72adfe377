# SPDX-License-Identifier: MIT
"""All objects of an image: a grid of clicks, and which of the masks that they give are kept.

The truth is `sam2.automatic_mask_generator.SAM2AutomaticMaskGenerator` with its default of no crops
and no refinement: its names, its defaults, its rules.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from sam2_tracker.errors import BadRequest
from sam2_tracker.shapes import Bitmap, bitmap_to_rectangle

MOST_POINTS_PER_SIDE = 64
POINTS_PER_BATCH = 64
SCORES = ("pred_iou_thresh", "stability_score_thresh", "box_nms_thresh")
USAGE = (
    "This function takes clicks and boxes, and as words only 'everything', with "
    f"points_per_side=1 to {MOST_POINTS_PER_SIDE}, {', '.join(SCORES)}=0 to 1 behind it if wanted."
)


@dataclass(frozen=True, kw_only=True)
class Everything:
    """What is looked for on a whole image."""

    points_per_side: int = 32
    """Of the grid of clicks."""
    pred_iou_thresh: float = 0.8
    """The IoU that the model predicts of a mask is above this."""
    stability_score_thresh: float = 0.95
    """The mask's stability is at least this (`stability` in mask_logits.py)."""
    box_nms_thresh: float = 0.7
    """Of two masks whose boxes have a larger IoU than this, the one with the lower predicted IoU
    goes."""

    def points(self, width: int, height: int) -> list[tuple[float, float]]:
        """The clicks (x, y) on an image, row by row: the middles of equal cells."""
        side = self.points_per_side
        middles = np.linspace(1 / (2 * side), 1 - 1 / (2 * side), side)
        return [(float(x * width), float(y * height)) for y in middles for x in middles]

    @property
    def fewer(self) -> str:
        """What to do where it takes too long."""
        return f"ask for fewer clicks, with points_per_side={max(1, self.points_per_side // 2)}"

    def nearness(self, scores: tuple[float, float]) -> tuple[bool, float]:
        """A sort key of rejected masks: the largest came closest to being kept.

        Masks above pred_iou_thresh come closest, by stability; then the others, by predicted IoU.
        scores: predicted IoU and stability of one mask.
        """
        iou, stability = scores
        sure = iou > self.pred_iou_thresh
        return sure, stability if sure else iou

    def why_nothing(self, nearest: tuple[float, float] | None) -> str:
        """A sentence for the person who asked.

        nearest: predicted IoU and stability of the nearest mask; None: no mask has a pixel.
        """
        if nearest is None:
            return (
                "No click of the grid gave a mask. Click on the objects, or draw boxes around them."
            )
        iou, stability = nearest
        lower = {
            "pred_iou_thresh": min(self.pred_iou_thresh, _step_below(iou)),
            "stability_score_thresh": min(self.stability_score_thresh, _step_below(stability)),
        }
        words = " ".join(f"{key}={value:g}" for key, value in lower.items())
        return (
            f"No mask is as sure and stable as asked. The nearest has a predicted IoU of {iou:.2f} "
            f"(above {self.pred_iou_thresh:g} is asked) and a stability of {stability:.2f} (at "
            f"least {self.stability_score_thresh:g}). '{words}' would find it; lower numbers find "
            "more."
        )


def _step_below(score: float) -> float:
    """The next multiple of 0.05 below a score."""
    return max(0.0, (math.ceil(score * 20) - 1) / 20)


def words_to_everything(words: object) -> Everything:
    """Reads `["everything points_per_side=16 pred_iou_thresh=0.9"]`. Raises BadRequest."""
    text = words[0] if isinstance(words, list) and len(words) == 1 else None
    parts = text.split() if isinstance(text, str) else []
    if parts[:1] != ["everything"]:
        raise BadRequest(USAGE)
    values: dict[str, int | float] = {}
    for option in parts[1:]:
        key, _, value = option.partition("=")
        if key == "points_per_side" and re.fullmatch(r"\d{1,3}", value):
            values[key] = int(value)
        elif key in SCORES and re.fullmatch(r"\d(\.\d{1,9})?|\.\d{1,9}", value):
            values[key] = float(value)
        else:
            raise BadRequest(f"{option[:40]!r} is not understood. {USAGE}")
    found = Everything(**values)  # type: ignore[arg-type]  # each value is of its key's type
    scores = [getattr(found, key) for key in SCORES]
    if not 1 <= found.points_per_side <= MOST_POINTS_PER_SIDE or max(scores) > 1:
        raise BadRequest(USAGE)
    return found


def inclusive_box(bitmap: Bitmap) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a bitmap with at least one pixel; right and bottom are in it.

    As the official generator measures the overlap of boxes.
    """
    left, top, right, bottom = bitmap_to_rectangle(bitmap)
    return left, top, right - 1, bottom - 1


def box_nms(
    boxes: Sequence[tuple[int, int, int, int]], ious: Sequence[float], most: float
) -> list[int]:
    """Indexes of the boxes that stay, the highest predicted IoU (above 0) first.

    Non-maximum suppression: a box goes if its IoU with one that stays is above `most`.
    """
    if not boxes:
        return []
    # A box that is a line has no area. OpenCV takes any two of these for the same, so each gets a
    # little area, too little to overlap with anything else.
    rectangles = [(x0, y0, max(x1 - x0, 1e-3), max(y1 - y0, 1e-3)) for x0, y0, x1, y1 in boxes]
    return [int(i) for i in cv2.dnn.NMSBoxes(rectangles, list(ious), 0.0, most)]
