# SPDX-License-Identifier: MIT
"""Request bodies as CVAT sends them."""

import base64
import io
from collections.abc import Sequence

from PIL import Image


def image_to_base64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def init(image: Image.Image, shapes: Sequence[object]) -> dict[str, object]:
    """Starts objects on a frame."""
    return {"image": image_to_base64(image), "shapes": list(shapes), "states": []}


def follow(image: Image.Image, states: Sequence[object]) -> dict[str, object]:
    """Continues objects on a frame: CVAT fills up the shapes with null."""
    return {"image": image_to_base64(image), "shapes": [None] * len(states), "states": list(states)}
