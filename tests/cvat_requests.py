# SPDX-License-Identifier: MIT
"""Request bodies as CVAT sends them, and shapes as it reads them."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from cvat_sdk.masks import decode_mask
from PIL import Image

from sam2_tracker.shapes import polygon_to_bitmap


def image_to_base64(image: Image.Image, kind: str = "PNG") -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


def init(image: Image.Image, shapes: Sequence[object]) -> dict[str, object]:
    """Starts objects on a frame."""
    return {"image": image_to_base64(image), "shapes": list(shapes), "states": []}


def follow(image: Image.Image, states: Sequence[object]) -> dict[str, object]:
    """Continues objects on a frame: CVAT fills up the shapes with null."""
    return {"image": image_to_base64(image), "shapes": [None] * len(states), "states": list(states)}


def shape_to_bitmap(shape: Any, width: int, height: int) -> np.ndarray:
    """What a shape of an answer covers; of a lost rectangle and of null nothing."""
    if shape is None or shape.get("outside"):
        return np.zeros((height, width), dtype=np.bool_)
    points = shape["points"]
    if shape["type"] == "mask":
        return np.asarray(decode_mask(points, image_width=width, image_height=height))
    if shape["type"] == "rectangle":
        left, top, right, bottom = points
        points = [left, top, right, top, right, bottom, left, bottom]
    return polygon_to_bitmap(points, width=width, height=height)
