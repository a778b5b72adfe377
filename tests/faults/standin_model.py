# SPDX-License-Identifier: MIT
"""A model with ModelHandler's interface whose mask is a hash of everything that it saw.

The pixels of the image and every byte of the memory bank go into a digest; logits, memory features
and object pointer come out of it. So a wrong memory frame, a lost pointer or a stale state shows as
a wrong mask, in microseconds instead of a second.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model_handler import Prediction
from sam2_tracker.memory_bank import MemoryBank, MemoryLayout, advance_bank, start_bank
from sam2_tracker.shapes import Bitmap, Box

TINY = MemoryLayout(channels=4, height=2, width=2, recent=6, pointer_channels=8, pointers=15)
SAM2 = MemoryLayout(channels=64, height=64, width=64, recent=6, pointer_channels=256, pointers=15)
LOGITS_SIDE = 8
MASK_SIDE = 16
ROWS_AT_ONCE = 256


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
        self, frame: HashedFrame, prompts: Sequence[Bitmap | Box], *, width: int, height: int
    ) -> list[Prediction]:
        return [self._start_one(frame, prompt, width, height) for prompt in prompts]

    def step(self, frame: HashedFrame, banks: Sequence[MemoryBank]) -> list[Prediction]:
        return [self._step_one(frame, bank) for bank in banks]

    def logits_to_bitmaps(
        self, logits: Sequence[Tensor], *, width: int, height: int
    ) -> list[Bitmap]:
        rows = np.arange(height) * LOGITS_SIDE // height
        columns = np.arange(width) * LOGITS_SIDE // width
        return [each.numpy()[np.ix_(rows, columns)] > 0 for each in logits]

    def release_memory(self) -> None:
        pass

    def _start_one(
        self, frame: HashedFrame, prompt: Bitmap | Box, width: int, height: int
    ) -> Prediction:
        box = isinstance(prompt, tuple)
        shown = repr(prompt).encode() if box else self.scale_mask(prompt).tobytes()
        logits, score, features, pointer = self._outputs(
            _digest("start", frame.digest, shown, repr((width, height)))
        )
        return Prediction(logits=logits, score=score, bank=start_bank(features, pointer))

    def _step_one(self, frame: HashedFrame, bank: MemoryBank) -> Prediction:
        seen = [bank.conditioning, *bank.recent, bank.pointers]
        logits, score, features, pointer = self._outputs(
            _digest("step", frame.digest, str(bank.step), *map(_tensor_bytes, seen))
        )
        bank = advance_bank(bank, features, pointer, self.layout)
        return Prediction(logits=logits, score=score, bank=bank)

    def _outputs(self, digest: bytes) -> tuple[Tensor, float, Tensor, Tensor]:
        layout = self.layout
        features = layout.channels * layout.height * layout.width
        stream = hashlib.shake_256(digest).digest(
            LOGITS_SIDE**2 + 1 + features + layout.pointer_channels
        )
        values = torch.frombuffer(bytearray(stream), dtype=torch.uint8).to(torch.int16) - 128
        logits = values[: LOGITS_SIDE**2].float().reshape(LOGITS_SIDE, LOGITS_SIDE)
        if digest[0] < 32:  # one in eight is not visible
            logits = -logits.abs() - 1
        rest = values[LOGITS_SIDE**2 + 1 :]
        shape = (layout.channels, layout.height, layout.width)
        # Whole numbers up to 128 are exact in bfloat16.
        memory = rest[:features].to(torch.bfloat16).reshape(shape)
        return logits, stream[LOGITS_SIDE**2] / 255, memory, rest[features:].float()


def _digest(*parts: str | bytes | memoryview) -> bytes:
    state = hashlib.blake2b(digest_size=32)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.digest()


def _tensor_bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()
