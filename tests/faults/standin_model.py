# SPDX-License-Identifier: MIT
"""A model with ModelHandler's interface whose mask is a hash of everything that it attends to.

The pixels of the image and all that `recall` gives (memories, ages, pointers, distances) go into a
digest; logits, scores, memory features and object pointer come out of it. So a wrong memory frame,
a lost pointer or a stale state shows as a wrong mask, in microseconds instead of a second. One
frame in four does not show the object, and one in two has a look-alike on it, so that every memory
policy has something to choose.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model_handler import ModelHandler
from sam2_tracker.clicks import Clicks
from sam2_tracker.memory_bank import MemoryBank, MemoryLayout, Observation, name_memory
from sam2_tracker.memory_policy import recall
from sam2_tracker.predictions import Prediction
from sam2_tracker.shapes import Bitmap, Box

TINY = MemoryLayout(tokens=4, channels=4, recent=6, pointer_channels=8, pointers=15)
SAM2 = MemoryLayout(tokens=64 * 64, channels=64, recent=6, pointer_channels=256, pointers=15)
LOGITS_SIDE = 8
MASK_SIDE = 16
ROWS_AT_ONCE = 256
CONDITIONING_FRAMES = 2


@dataclass(frozen=True, kw_only=True)
class HashedFrame:
    digest: bytes
    nbytes: int = 10 << 20
    """What a real model's features would take in a cache."""


class StandinModel:
    name = "standin"
    fingerprint = "standin-for-tests"
    precision = "float32"
    device = torch.device("cpu")
    info = ModelHandler.info
    device_failed = ModelHandler.device_failed

    def __init__(self, *_: object, layout: MemoryLayout = TINY, **__: object) -> None:
        self.layout = layout

    def encode(self, image: Image.Image) -> HashedFrame:
        # In bands: a real model does not hold a large image twice either.
        digest = _digest(repr((image.mode, image.size)))
        for row in range(0, image.height, ROWS_AT_ONCE):
            end = min(row + ROWS_AT_ONCE, image.height)
            digest = _digest(digest, image.crop((0, row, image.width, end)).tobytes())
        return HashedFrame(digest=digest)

    def scale_mask(self, mask: Bitmap) -> Bitmap:
        """A digest as a bitmap: small, and unlike that of any other mask."""
        if mask.shape == (MASK_SIDE, MASK_SIDE):
            return mask
        digest = np.frombuffer(_digest(mask.data.cast("B")), dtype=np.uint8)
        return np.unpackbits(digest).astype(np.bool_).reshape(MASK_SIDE, MASK_SIDE)

    def start(
        self,
        frame: HashedFrame,
        prompts: Sequence[Bitmap | Box | Clicks],
        *,
        width: int,
        height: int,
    ) -> list[Prediction]:
        found = []
        for prompt in prompts:
            is_box = not isinstance(prompt, np.ndarray)
            shown = repr(prompt).encode() if is_box else self.scale_mask(prompt).tobytes()
            seen = _digest("start", frame.digest, shown, repr((width, height)))
            found.append(self._predict(seen, drawn=not is_box))
        return found

    def step(self, frame: HashedFrame, banks: Sequence[MemoryBank]) -> list[Prediction]:
        return [self._predict(_digest("step", frame.digest, self._attend(bank))) for bank in banks]

    def correct(
        self,
        frame: HashedFrame,
        banks: Sequence[MemoryBank],
        boxes: Sequence[Box | Clicks],
        *,
        width: int,
        height: int,
    ) -> list[Prediction]:
        return [
            self._predict(
                _digest("correct", frame.digest, self._attend(bank), repr((box, width, height)))
            )
            for bank, box in zip(banks, boxes, strict=True)
        ]

    def logits_to_bitmaps(
        self, logits: Sequence[Tensor], *, width: int, height: int
    ) -> list[Bitmap]:
        rows = np.arange(height) * LOGITS_SIDE // height
        columns = np.arange(width) * LOGITS_SIDE // width
        return [each.numpy()[np.ix_(rows, columns)] > 0 for each in logits]

    def release_memory(self) -> None:
        pass

    def _attend(self, bank: MemoryBank) -> bytes:
        found = recall(bank, self.layout, conditioning_frames=CONDITIONING_FRAMES)
        tensors = [*(memory.features for memory in found.memories), *found.pointers]
        return _digest(repr((found.ages, found.distances)), *map(_tensor_bytes, tensors))

    def _predict(self, digest: bytes, *, drawn: bool = False) -> Prediction:
        layout = self.layout
        size = layout.channels * layout.tokens
        stream = hashlib.shake_256(digest).digest(
            LOGITS_SIDE**2 + 3 + size + layout.pointer_channels
        )
        values = torch.frombuffer(bytearray(stream), dtype=torch.uint8).to(torch.int16) - 128
        logits = values[: LOGITS_SIDE**2].float().reshape(LOGITS_SIDE, LOGITS_SIDE)
        score, iou, look_alike = stream[LOGITS_SIDE**2 : LOGITS_SIDE**2 + 3]
        visible = drawn or digest[0] >= 64
        if not visible:
            logits = -logits.abs() - 1
        rest = values[LOGITS_SIDE**2 + 3 :]
        return Prediction(
            logits=logits,
            score=1.0 if drawn else score / 255,
            seen=Observation(
                # Whole numbers up to 128 are exact in bfloat16.
                memory=name_memory(
                    rest[:size].to(torch.bfloat16).reshape(layout.channels, layout.tokens)
                ),
                pointer=rest[size:].float(),
                object_score=4.0 if visible else -4.0,
                predicted_iou=0.7 + 0.3 * iou / 255,
                area=int(logits.gt(0).sum()),
                distractor=look_alike < 128,
            ),
        )


def _digest(*parts: str | bytes | memoryview) -> bytes:
    state = hashlib.blake2b(digest_size=32)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.digest()


def _tensor_bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()
