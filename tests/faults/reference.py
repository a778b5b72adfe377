# SPDX-License-Identifier: MIT
"""What is right: the same model with every memory bank kept in a variable, no store and no HTTP."""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from sam2_tracker.memory_bank import MemoryBank
from sam2_tracker.shapes import (
    bitmap_to_mask,
    bitmap_to_polygon,
    bitmap_to_rectangle,
    mask_to_bitmap,
    polygon_to_bitmap,
    rectangle_to_box,
)
from tracker_state import RETAINED

POLYGON_TOLERANCE = 0.02


@dataclass(kw_only=True, eq=False)
class Node:
    """An object on one frame; its token, and all that follows from it."""

    bank: MemoryBank
    type: str
    answer: dict[str, Any]
    """The wire's shape (None: not visible) and score."""
    box: list[float]
    parent: "Node | None" = None
    newest: int = 0
    """The highest step that a descendant was, or may have been, saved with."""
    token: Any = None
    may_be_gone: bool = False
    """The store lost or changed records after this was saved."""
    lineage: "list[Node]" = field(default_factory=list)
    """Itself and its ancestors, newest first."""

    def __post_init__(self) -> None:
        self.newest = self.bank.step
        self.lineage = [self, *(self.parent.lineage if self.parent else [])]

    def note_attempt(self) -> None:
        """A request was sent that steps on from here, whatever became of it."""
        for node in self.lineage:
            node.newest = max(node.newest, self.bank.step + 1)

    def promised(self) -> bool:
        """Whether the store still must know it: its own token is at most 8 steps old, and so are
        those that share the memory frames it stands on, and no fault has touched any of these.

        A frame that the store has lost may live on in a worker's cache and carry further steps;
        another worker misses it later.
        """
        recent = self.lineage[: len(self.bank.recent)]
        if any(node.may_be_gone for node in (self, *recent, self.lineage[-1])):
            return False
        if self.newest > self.bank.step + RETAINED:
            return False
        kept = RETAINED + 6
        return all(node.newest < node.bank.step + kept for node in recent)


class Reference:
    def __init__(self, model: Any, images: Sequence[Image.Image]) -> None:
        self._model = model
        self._images = images
        self._frames = [model.encode(image) for image in images]

    def start(self, index: int, shapes: Sequence[dict[str, Any]]) -> list[Node]:
        """The objects started from shapes on image `index`."""
        width, height = self._images[index].size
        prompts: list[Any] = []
        for shape in shapes:
            decode = {
                "mask": mask_to_bitmap,
                "polygon": polygon_to_bitmap,
                "rectangle": rectangle_to_box,
            }[shape["type"]]
            prompts.append(decode(shape["points"], width=width, height=height))  # type: ignore[operator]
        predictions = self._model.start(self._frames[index], prompts, width=width, height=height)
        nodes = []
        for shape, prompt, prediction in zip(shapes, prompts, predictions, strict=True):
            is_box = shape["type"] == "rectangle"
            nodes.append(
                Node(
                    bank=prediction.bank,
                    type=shape["type"],
                    answer={"shape": shape, "score": prediction.score if is_box else 1.0},
                    box=list(prompt) if is_box else [],
                )
            )
        return nodes

    def step(self, index: int, parents: Sequence[Node]) -> list[Node]:
        """The objects on image `index`, all in one batch."""
        banks = [parent.bank for parent in parents]
        predictions = self._model.step(self._frames[index], banks)
        nodes = []
        for parent, prediction in zip(parents, predictions, strict=True):
            width, height = self._images[index].size
            (bitmap,) = self._model.logits_to_bitmaps(
                [prediction.logits], width=width, height=height
            )
            shape: dict[str, Any] | None = None
            box = parent.box
            if parent.type == "rectangle":
                if bitmap.any():
                    box = [float(number) for number in bitmap_to_rectangle(bitmap)]
                    shape = {"type": "rectangle", "points": box}
                else:
                    shape = {"type": "rectangle", "points": box, "outside": True}
            elif bitmap.any() and parent.type == "mask":
                shape = {"type": "mask", "points": bitmap_to_mask(bitmap)}
            elif bitmap.any():
                points = bitmap_to_polygon(bitmap, tolerance=POLYGON_TOLERANCE)
                shape = {"type": "polygon", "points": points}
            nodes.append(
                Node(
                    bank=prediction.bank,
                    type=parent.type,
                    answer={"shape": shape, "score": prediction.score},
                    box=box,
                    parent=parent,
                )
            )
        return nodes


def noise_images(rng: random.Random, count: int, *, width: int, height: int) -> list[Image.Image]:
    noise = np.random.default_rng(rng.getrandbits(64))
    return [
        Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for _ in range(count)
    ]


def image_to_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def random_shapes(rng: random.Random, count: int, *, width: int, height: int) -> list[Any]:
    """Masks, polygons and rectangles that cover something."""
    shapes: list[Any] = []
    for _ in range(count):
        w, h = rng.randint(4, width // 2), rng.randint(4, height // 2)
        x, y = rng.randint(0, width - w), rng.randint(0, height - h)
        type_ = rng.choice(("mask", "polygon", "rectangle"))
        points: list[float] = {
            "mask": [0, w * h, x, y, x + w - 1, y + h - 1],
            "polygon": [x, y, x + w, y, x + w, y + h],
            "rectangle": [x, y, x + w, y + h],
        }[type_]
        shapes.append({"type": type_, "points": points})
    return shapes
