# SPDX-License-Identifier: MIT
"""Between the geometry of COCO annotations and the points of shapes.

Polygons are polygons, RLE is a mask, a bare `bbox` is a rectangle; several polygons of one
annotation are one object in parts and so become a mask.
"""

import warnings
from typing import Any

import numpy as np
from cvat_sdk.masks import decode_mask, encode_mask
from pycocotools import mask as rle_tools

from cvat_action.formats.coco_results import box_to_points
from cvat_action.geometry import points_fault
from cvat_action.job import Wire


def annotation_to_points(annotation: Wire, width: int, height: int) -> tuple[str, list[float]]:
    """The type of a shape and its points in pixels; no points where there is nothing to see.

    width, height: of the image. Raises ValueError, and what reading a damaged entry raises.
    """
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(
                f"its RLE is of size {segmentation['size']}, the frame {height, width}"
            )
        counts = segmentation["counts"]
        runs = counts if isinstance(counts, list) else _runs(counts)
        if sum(runs) != width * height or min(runs) < 0:
            raise ValueError("the RLE's counts do not fill its image")
        compressed = (
            rle_tools.frPyObjects(segmentation, height, width)
            if isinstance(counts, list)
            else segmentation
        )
        return "mask", _rle_to_points(compressed)
    parts = segmentation or []
    # Converters leave slivers of one or two points beside the rest.
    whole = [part for part in parts if not isinstance(part, list) or len(part) >= 6]
    if whole or annotation.get("bbox"):
        parts = whole
    for part in parts:
        fault = points_fault("polygon", part, width, height)
        if fault:
            raise ValueError(fault)
    if len(parts) > 1:
        codes = rle_tools.frPyObjects(parts, height, width)
        return "mask", _rle_to_points(rle_tools.merge(codes))
    if parts:
        return "polygon", [float(p) for p in parts[0]]
    if annotation.get("bbox"):
        left, top, box_width, box_height = (float(p) for p in annotation["bbox"])
        return "rectangle", box_to_points(left, top, box_width, box_height)
    return "", []


def _runs(counts: str) -> list[int]:
    """The runs of a compressed RLE: 5 bits per character, lowest first, from character 48 on.

    From the fourth run on it is the difference to the run before the last. pycocotools does not say
    where too few runs leave a part of its bitmap unwritten, so they are counted here.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs


def _rle_to_points(rle: Any) -> list[float]:
    """Raises ValueError where the runs do not fit the image."""
    with warnings.catch_warnings():  # pycocotools 2.0.11 uses what numpy 2 deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        bitmap = np.asarray(rle_tools.decode(rle), dtype=bool)
    return encode_mask(bitmap) if np.any(bitmap) else []


def points_to_geometry(shape: Wire, width: int, height: int, *, crowd: int) -> Wire:
    """`segmentation`, `area`, `bbox` and `iscrowd` of a shape.

    width, height: of the image. crowd: `iscrowd` of a mask.
    """
    points = [float(p) for p in shape["points"]]
    if shape["type"] == "rectangle":
        left, top, right, bottom = points
        box = [left, top, right - left, bottom - top]
        return {"segmentation": [], "area": box[2] * box[3], "bbox": box, "iscrowd": 0}
    if shape["type"] == "polygon":
        xs, ys = points[0::2], points[1::2]
        box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
        area = float(rle_tools.area(rle_tools.frPyObjects([points], height, width))[0])
        return {"segmentation": [points], "area": area, "bbox": box, "iscrowd": 0}
    bitmap = decode_mask([int(p) for p in points], image_width=width, image_height=height)
    rle = rle_tools.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    return {
        "segmentation": {"size": [height, width], "counts": rle["counts"].decode("ascii")},
        "area": float(rle_tools.area(rle)),
        "bbox": [float(v) for v in rle_tools.toBbox(rle)],
        "iscrowd": crowd,
    }
