# SPDX-License-Identifier: MIT
"""What is right: the same model with every memory bank kept in a variable, no store and no HTTP."""

import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from sam2_tracker.errors import TooManyKeyframes
from sam2_tracker.memory_bank import MemoryBank, adopt_keyframes, correct_bank, start_bank
from sam2_tracker.memory_policy import remember
from sam2_tracker.object_shapes import Drawing, follow_bitmap, place_bitmap, read_drawing
from sam2_tracker.protocol import Seed
from sam2_tracker.record_format import RETAINED
from sam2_tracker.search_region import LEAST_SHARE, SearchRegion, Window, follow, window_of
from sam2_tracker.shapes import Bitmap, bitmap_to_mask, bitmap_to_polygon, bitmap_to_rectangle
from tracker_state import RENEW_BELOW

POLYGON_TOLERANCE = 0.02
POLICY = "quality"
LIFE_SECONDS = 30_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One object after one request, as the store has to keep it."""

    bank: MemoryBank
    type: str
    box: list[float]
    answer: dict[str, Any]
    """The wire's shape (None: not visible) and score."""
    region: SearchRegion | None = None
    """Where it is looked for on the next image; None: on the whole image."""
    lives: Mapping[str, int] = field(default_factory=dict)
    """Of each memory frame when it expires, as far as this track knows."""
    leaving: tuple[tuple[str, int], ...] = ()
    """Memory frames that left use, each with the step after which it did."""
    ancestors: "tuple[Node, ...]" = ()
    """The nodes that it goes back to, the oldest first."""


class World:
    """The records that must be in the store, each with the time at which it expires."""

    def __init__(self) -> None:
        self.now = 1_000_000
        self.heads: dict[Node, int] = {}
        self.frames: dict[str, int] = {}

    def knows_head(self, node: Node) -> bool:
        return self.heads.get(node, 0) > self.now

    def knows_frames(self, node: Node) -> bool:
        return all(self.frames.get(memory.id, 0) > self.now for memory in node.bank.memories)

    def save(self, node: Node) -> Node:
        """The node with what it knows of its records once it is saved.

        A frame that goes on being used gets a new life when its old one is used up by 4 %. A frame
        that left use is removed 8 steps later, a head when 9 newer ones are saved; the head of a
        start and a frame that a person drew are never removed.
        """
        expiry = self.now + LIFE_SECONDS
        lives = dict(node.lives)
        for memory in node.bank.memories:
            if memory.id not in lives:
                lives[memory.id] = self.frames[memory.id] = expiry
            elif lives[memory.id] < expiry - (1 - RENEW_BELOW) * LIFE_SECONDS:
                lives[memory.id] = expiry
                if self.frames.get(memory.id, 0) > self.now:
                    self.frames[memory.id] = expiry
        used = {memory.id for memory in node.bank.memories}
        parent = node.ancestors[-1] if node.ancestors else None
        tracked = [frame.memory for frame in parent.bank.tracked] if parent else []
        left = [memory.id for memory in tracked if memory and memory.id not in used]
        leaving = (*node.leaving, *((id_, node.bank.step) for id_ in left))
        stale = [item for item in leaving if item[1] <= node.bank.step - RETAINED]
        saved = replace(
            node,
            lives={id_: expiry for id_, expiry in lives.items() if id_ in used},
            leaving=tuple(item for item in leaving if item not in stale),
        )
        self.heads[saved] = expiry
        for id_, _ in stale:
            self.frames.pop(id_, None)
        for old in saved.ancestors[:-RETAINED]:
            if old.bank.step:  # a start can be tracked from again
                self.heads.pop(old, None)
        return saved


class Reference:
    def __init__(self, model: Any, images: Sequence[Image.Image]) -> None:
        self._model = model
        self._images = images

    def start(self, index: int, shape: dict[str, Any]) -> Node:
        """An object that is drawn on image `index`; `shape` as in a request."""
        drawing = self._read(index, shape, shape.get("search_region", 0))
        prediction = self._start(index, drawing)
        return Node(
            bank=start_bank(shape.get("memory") or POLICY, prediction.seen),
            type=shape["type"],
            box=list(drawing.box),
            answer=_drawn(shape, prediction),
            region=self._follow_drawn(index, drawing),
        )

    def step(self, index: int, parent: Node) -> Node:
        """An object that is tracked to image `index`."""
        features, window = self._look(index, parent.region)
        (prediction,) = self._model.step(features, [parent.bank])
        bitmap = self._bitmap(index, prediction, window)
        shape, box = _found(bitmap, parent)
        bank = remember(parent.bank, _seen(prediction, parent.region), self._model.layout)
        region = parent.region and follow_bitmap(parent.region, bitmap)
        return _follow(parent, bank, {"shape": shape, "score": prediction.score}, box, region)

    def correct(self, index: int, parent: Node, shape: dict[str, Any], distance: int) -> Node | str:
        """An object that is drawn on image `index` though it is tracked; or the error's code."""
        size = parent.region.size if parent.region else 0
        is_box = shape["type"] == "rectangle"
        drawing = self._read(index, shape, size, parent.region if is_box else None)
        features, window = self._look(index, drawing.region)
        if is_box:
            (prediction,) = self._model.correct(
                features, [parent.bank], [drawing.prompt], **_size_of(window)
            )
            prediction = replace(prediction, seen=_seen(prediction, drawing.region))
        else:
            prediction = self._start(index, drawing)
        drawn = start_bank(parent.bank.policy, prediction.seen)
        try:
            bank = correct_bank(parent.bank, drawn, distance=distance)
        except TooManyKeyframes as error:
            return error.code
        if is_box and parent.type != "rectangle":  # SAM 2 finds the mask
            bitmap = self._bitmap(index, prediction, window)
            told, _ = _found(bitmap, parent)
            region = drawing.region and follow_bitmap(drawing.region, bitmap)
            answer = {"shape": told, "score": prediction.score}
            return _follow(parent, bank, answer, parent.box, region)
        region = self._follow_drawn(index, drawing)
        return _follow(parent, bank, _drawn(shape, prediction), list(drawing.box), region)

    def adopt(self, parent: Node, others: Sequence[tuple[Node, int]]) -> Node | str:
        """An object that takes over what was drawn of others; or the error's code."""
        try:
            bank = adopt_keyframes(parent.bank, [(node.bank, far) for node, far in others])
        except TooManyKeyframes as error:
            return error.code
        answer: dict[str, Any] = {"shape": None, "score": None}
        node = _follow(parent, bank, answer, parent.box, parent.region)
        lives = dict(parent.lives)
        for other, _ in others:
            for frame in other.bank.conditioning:
                lives[frame.memory.id] = other.lives[frame.memory.id]
        return replace(node, lives=lives)

    def _read(
        self, index: int, shape: dict[str, Any], size: float, tracked_in: Any = None
    ) -> Drawing:
        seed = Seed(type=shape["type"], points=shape["points"])
        width, height = self._images[index].size
        return read_drawing(seed, width=width, height=height, size=size, tracked_in=tracked_in)

    def _look(self, index: int, region: SearchRegion | None) -> tuple[Any, Window]:
        """The features of the part of an image in which an object is looked for."""
        image = self._images[index]
        window = window_of(region, width=image.width, height=image.height)
        return self._model.encode(image.crop(window)), window

    def _start(self, index: int, drawing: Drawing) -> Any:
        features, window = self._look(index, drawing.region)
        (found,) = self._model.start(features, [drawing.prompt], **_size_of(window))
        return replace(found, seen=_seen(found, drawing.region))

    def _follow_drawn(self, index: int, drawing: Drawing) -> SearchRegion | None:
        width, height = self._images[index].size
        return drawing.region and follow(drawing.region, drawing.box, width=width, height=height)

    def _bitmap(self, index: int, prediction: Any, window: Window) -> Bitmap:
        (bitmap,) = self._model.logits_to_bitmaps([prediction.logits], **_size_of(window))
        width, height = self._images[index].size
        return place_bitmap(bitmap, window, width=width, height=height)


def _size_of(window: Window) -> dict[str, int]:
    left, top, right, bottom = window
    return {"width": right - left, "height": bottom - top}


def _seen(prediction: Any, region: SearchRegion | None) -> Any:
    """What is remembered of the prediction: areas of windows of any size can be compared."""
    scale = (region.share / LEAST_SHARE) ** 2 if region else 1
    return replace(prediction.seen, area=round(prediction.seen.area * scale))


def _found(bitmap: Bitmap, parent: Node) -> tuple[dict[str, Any] | None, list[float]]:
    """The shape that is answered, and the box that is kept for when the object is lost."""
    if parent.type == "rectangle" and bitmap.any():
        box = [float(number) for number in bitmap_to_rectangle(bitmap)]
        return {"type": "rectangle", "points": box}, box
    shape: dict[str, Any] | None = None
    if parent.type == "rectangle":
        shape = {"type": "rectangle", "points": parent.box, "outside": True}
    elif bitmap.any() and parent.type == "mask":
        shape = {"type": "mask", "points": bitmap_to_mask(bitmap)}
    elif bitmap.any():
        points = bitmap_to_polygon(bitmap, tolerance=POLYGON_TOLERANCE)
        shape = {"type": "polygon", "points": points}
    return shape, parent.box


def _drawn(shape: dict[str, Any], prediction: Any) -> dict[str, Any]:
    """What was drawn is what is there."""
    told = {"type": shape["type"], "points": shape["points"]}
    return {"shape": told, "score": prediction.score}


def _follow(
    parent: Node,
    bank: MemoryBank,
    answer: dict[str, Any],
    box: list[float],
    region: SearchRegion | None,
) -> Node:
    return Node(
        bank=bank,
        type=parent.type,
        box=box,
        answer=answer,
        region=region,
        lives=parent.lives,
        leaving=parent.leaving,
        ancestors=(*parent.ancestors, parent),
    )


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


def noise_png(seed: int = 0) -> bytes:
    """A file with a picture that a test does not look at."""
    return image_to_png(noise_images(random.Random(seed), 1, width=40, height=30)[0])


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
