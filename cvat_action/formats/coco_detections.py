# SPDX-License-Identifier: MIT
"""What a detector found, as COCO results or as COCO instances with scores."""

import json
import math
from dataclasses import dataclass
from typing import Any

from cvat_action.errors import ActionError
from cvat_action.formats.coco_geometry import annotation_to_points
from cvat_action.formats.coco_ids import frame_finder, frames_of_images, id_of, named, why
from cvat_action.formats.document import Document
from cvat_action.job import Wire
from cvat_action.media import Media, size_of


@dataclass(frozen=True)
class Result:
    """One entry of a detector's results; its points are not checked yet."""

    frame: int
    label: str
    type: str
    points: list[float]
    score: float | None


def read_results(data: bytes, name: str, document: Document, media: Media) -> list[Result]:
    """COCO results (a list with `image_id`, `category_id`, `score`, and a box or a segmentation),
    or COCO instances, whose annotations may have a `score`.

    Images and categories of a list are those of the annotation file, as COCO writes it. Raises
    ActionError, naming the entry that is wrong.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise ActionError(f"{name} is not JSON that can be read.") from None
    entries, frame_of, label_of = content, _frames_of(document, media), _names_of(document)
    if isinstance(content, dict):
        entries = content.get("annotations")
        try:
            frame_of = frames_of_images(content["images"], name, media)
            label_of = {id_of(c): str(c["name"]) for c in content["categories"]}
        except (KeyError, TypeError, AttributeError):
            entries = None
    if not isinstance(entries, list):
        raise ActionError(f"{name} holds neither COCO results (a list) nor COCO instances.")
    results = []
    for number, entry in enumerate(entries):
        try:
            if entry["image_id"] in frame_of:  # a file may hold more than this clip
                frame = frame_of[entry["image_id"]]
                label = named(entry, "category_id", label_of, "categories")
                results.append(_result(entry, frame, label, media))
        except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ActionError(f"{name}: entry {number} cannot be read ({why(error)}).") from None
    if entries and not results:
        raise ActionError(
            f"{name}: none of its images is a frame of {media.name}. A list of results has the "
            "image ids of the annotation file; COCO instances have file names of their own."
        )
    return results


def _result(entry: Wire, frame: int, label: str, media: Media) -> Result:
    size = size_of(media, frame)
    shape_type, points = annotation_to_points(entry, *size)
    if not points:
        raise ValueError("it has neither a box nor a segmentation")
    score = entry.get("score")
    if score is not None and not math.isfinite(score):
        raise ValueError(f"its score is {score}")
    return Result(
        frame, label, shape_type, points, None if score is None else min(max(score, 0.0), 1.0)
    )


def _frames_of(document: Document, media: Media) -> dict[Any, int]:
    """Image id to frame: of the images that the document lists, and of all where these are
    numbered as `write` does it."""
    known: dict[Any, int] = {}
    if document.format == "coco":
        find = frame_finder(media)
        listed = json.loads(json.loads(document.header).get("images", "[]"))
        known = {i["id"]: f for i in listed if (f := find(i["file_name"])) is not None}
    if all(number == frame + 1 for number, frame in known.items()):
        return {frame + 1: frame for frame in range(len(media.frame_names))}
    return known


def _names_of(document: Document) -> dict[Any, str]:
    """Category id to name, as `write` numbers them."""
    first = 0 if document.format == "coco" else 1
    return {label.id + first: label.name for label in document.labels}
