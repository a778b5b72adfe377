# SPDX-License-Identifier: MIT
"""CVAT's requests to the interactor, and one drawn picture to click on."""

import json
from collections.abc import Callable
from typing import Any

import nuclio_sdk
import numpy as np
from cvat_requests import image_to_base64, shape_to_bitmap
from PIL import Image

import main
from training.clips import draw_clip

WIDTH, HEIGHT = 320, 240
SIZE = {"width": WIDTH, "height": HEIGHT}
Ask = Callable[..., tuple[int, Any]]
OLD, NEW = "CVAT/2.59.1 python-requests/2.32", "CVAT/2.60.0 python-requests/2.32"


def pictures(count: int) -> list[Image.Image]:
    clip = draw_clip(5, frames=count, width=WIDTH, height=HEIGHT, objects=3)
    return [Image.fromarray(frame) for frame in clip.frames]


def body(image: Image.Image, /, **clicks: Any) -> dict[str, Any]:
    """As CVAT's server sends it: all three keys."""
    empty: dict[str, Any] = {"pos_points": [], "neg_points": [], "obj_bbox": []}
    return {"image": image_to_base64(image), **empty, **clicks}


def call(context: Any, content: object, agent: str | None) -> tuple[int, Any]:
    headers = {"User-Agent": agent} if agent else {}
    event = nuclio_sdk.Event(body=content, method="POST", headers=headers)
    response = main.handler(context, event)
    return response.status_code, json.loads(response.body)


def bitmap(shape: dict[str, Any]) -> np.ndarray:
    return shape_to_bitmap(shape, WIDTH, HEIGHT)
