# SPDX-License-Identifier: MIT
"""One object tracked through one clip by the function's own model code, without store and HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_handler import ModelHandler
from sam2_tracker.mask_logits import logits_to_bitmaps
from sam2_tracker.memory_bank import MemoryBank, adopt_keyframes, correct_bank, start_bank
from sam2_tracker.memory_policy import remember
from sam2_tracker.predictions import FrameFeatures, prediction_of
from sam2_tracker.shapes import Bitmap
from training.clips import Clip
from training.real_clip import read_real_clip

Masks = NDArray[np.bool_]
"""bool (frames, height, width) of one object."""


@dataclass
class Found:
    """What tracking found, by frame."""

    masks: dict[int, Bitmap] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    """The answer's score: 0 to 1; 1 where the object was drawn."""


class Session:
    """The frames of a clip, encoded once, and the ways to track one object through them."""

    def __init__(self, model: ModelHandler, frames: NDArray[np.uint8], policy: str) -> None:
        """frames: uint8 (frames, height, width, 3), RGB."""
        self._model = model
        self._policy = policy
        self.count, self._height, self._width = frames.shape[:3]
        self._features: list[FrameFeatures] = [
            model.encode(Image.fromarray(frame)) for frame in frames
        ]

    def start(self, frame: int, mask: Bitmap) -> MemoryBank:
        (result,) = self._model.start(
            self._features[frame], [mask], width=self._width, height=self._height
        )
        return start_bank(self._policy, prediction_of(result).seen)

    def anew(self, drawn: Mapping[int, Bitmap]) -> Found:
        """Each drawn frame starts the object anew, up to the next one."""
        found, starts = Found(), sorted(drawn)
        for start, end in zip(starts, [*starts[1:], self.count], strict=True):
            self._draw(found, start, drawn[start])
            self._follow(found, self.start(start, drawn[start]), range(start + 1, end))
        return found

    def joined(self, drawn: Mapping[int, Bitmap]) -> Found:
        """Tracked once from the first drawn frame; the others join on the way."""
        found, starts = Found(), sorted(drawn)
        bank = self.start(starts[0], drawn[starts[0]])
        self._draw(found, starts[0], drawn[starts[0]])
        for start, end in zip(starts, [*starts[1:], self.count], strict=True):
            bank = self._follow(found, bank, range(start + 1, end))
            if end in drawn:
                bank = correct_bank(bank, self.start(end, drawn[end]), distance=1)
                self._draw(found, end, drawn[end])
        return found

    def both_ways(self, drawn: Mapping[int, Bitmap]) -> Found:
        """Tracked forwards from the first drawn frame and backwards from the last.

        Each end stands on the nearest drawn frames, and those on the way join. In a gap between two
        of them the answer switches once from the forward to the backward result: where the sum of
        the scores is largest.
        """
        starts = sorted(drawn)
        banks = {frame: self.start(frame, drawn[frame]) for frame in starts}
        forward = self._sweep(banks, range(starts[0], self.count))
        backward = self._sweep(banks, range(starts[-1], -1, -1))
        found = Found()
        for frame in starts:
            self._draw(found, frame, drawn[frame])
        for left, right in zip([-1, *starts], [*starts, self.count], strict=True):
            _merge(found, forward, backward, range(left + 1, right))
        return found

    def _sweep(self, banks: Mapping[int, MemoryBank], frames: range) -> Found:
        """Over frames that begin with a drawn one; banks: of the drawn frames."""
        found = Found()
        bank = _adopt(banks, frames[0], frames.step)
        for frame in frames[1:]:
            if frame in banks:
                bank = correct_bank(bank, banks[frame], distance=1)
            else:
                bank = self._follow(found, bank, [frame])
        return found

    def _follow(self, found: Found, bank: MemoryBank, frames: Sequence[int]) -> MemoryBank:
        for frame in frames:
            (result,) = self._model.step(self._features[frame], [bank])
            prediction = prediction_of(result)
            bank = remember(bank, prediction.seen, self._model.layout)
            (found.masks[frame],) = logits_to_bitmaps(
                [prediction.logits], width=self._width, height=self._height, packed=False
            )
            found.scores[frame] = prediction.score
        return bank

    def _draw(self, found: Found, frame: int, mask: Bitmap) -> None:
        found.masks[frame], found.scores[frame] = mask, 1.0


def read_clip(folder: Path) -> Clip:
    """A filmed clip with masks on all frames (`training.real_clip`); its objects count as one.

    Raises ValueError if the folder is no such clip.
    """
    clip = read_real_clip(folder)
    if len(clip.masks) != len(clip.frames):
        raise ValueError(f"{folder}: {len(clip.frames) - len(clip.masks)} frames have no mask.")
    masks = [clip.masks[frame].any(0) for frame in range(len(clip.frames))]
    return Clip(clip.frames, np.stack(masks)[:, None])


def _adopt(banks: Mapping[int, MemoryBank], own: int, direction: int) -> MemoryBank:
    """The bank that was drawn on frame `own`, with the nearest others; at most 8 together."""
    others = sorted((frame for frame in banks if frame != own), key=lambda f: abs(f - own))[:7]
    return adopt_keyframes(banks[own], [(banks[f], (f - own) * direction) for f in others])


def _merge(found: Found, forward: Found, backward: Found, frames: Sequence[int]) -> None:
    gains = [forward.scores.get(f, -1.0) - backward.scores.get(f, -1.0) for f in frames]
    # Forward results come first. The switch is where the sum of their gains is largest.
    sums = np.concatenate(([0.0], np.cumsum(gains)))
    switch = int(sums.argmax())
    for number, frame in enumerate(frames):
        source = forward if number < switch else backward
        found.masks[frame], found.scores[frame] = source.masks[frame], source.scores[frame]
