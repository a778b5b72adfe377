# SPDX-License-Identifier: MIT
"""How a COCO file tells untouched results from what a person drew (docs/identity.md).

A result has two more keys: `score`, with the object's mark, and `content_hash`. COCO has no source,
so the hash says whether anybody changed the annotation since it was written.
"""

import hashlib
import json
from typing import Any

from cvat_action.formats.document import LabelSpec
from cvat_action.identity import mark_of
from cvat_action.job import Wire

MOST_DECIMALS = 9
"""of a box's far corner: what was a sum is again the number that it was, so its digits are kept"""
HASH_DIGITS = 16


def box_to_points(left: float, top: float, width: float, height: float) -> list[float]:
    right, bottom = (round(p, MOST_DECIMALS) for p in (left + width, top + height))
    return [left, top, right, bottom]


def result_to_keys(shape: Wire, label: LabelSpec, category: int) -> Wire:
    """What the annotation of a result has besides; nothing for other shapes.

    category: the id of the label in the file.
    """
    if mark_of(shape.get("score"), shape["frame"]) is None:
        return {}
    keys = {"score": shape["score"]}
    if shape["source"] == "auto":
        keys["content_hash"] = _content_hash(shape, label, category)
    return keys


def keys_to_result(annotation: Wire, shape: Wire, label: LabelSpec) -> Wire:
    """The shape as it was read, with the source and the score of a result if it is one."""
    score = annotation.get("score")
    if mark_of(score, shape["frame"]) is None:
        return shape
    content_hash = _content_hash(shape, label, annotation["category_id"])
    untouched = annotation.get("content_hash") == content_hash
    return {**shape, "source": "auto" if untouched else "semi-auto", "score": score}


def _content_hash(shape: Wire, label: LabelSpec, category: int) -> str:
    """Of all that a person can change in the annotation, as it is read from the file.

    The category counts by its id: its name may be changed for the whole file.
    """
    points: list[Any] = [float(p) for p in shape["points"]]
    if shape["type"] == "rectangle":
        left, top, right, bottom = points
        points = box_to_points(left, top, right - left, bottom - top)
    content = [
        category,
        shape["type"],
        shape["frame"],
        bool(shape.get("occluded")),
        float(shape.get("rotation") or 0),
        sorted([label.attribute(a["spec_id"]).name, a["value"]] for a in shape["attributes"]),
        points,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:HASH_DIGITS]
