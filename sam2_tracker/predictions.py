# SPDX-License-Identifier: MIT
"""What goes into the model and what comes out of it, by frame and by object."""

from dataclasses import dataclass

from torch import Tensor

from sam2_tracker.clicks import Clicks
from sam2_tracker.errors import ModelFailure
from sam2_tracker.memory_bank import Observation
from sam2_tracker.shapes import Bitmap, Box


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameFeatures:
    """One encoded frame, in levels from fine to coarse."""

    levels: tuple[Tensor, ...]
    """Each (height x width, 1, channels)."""
    positions: tuple[Tensor, ...]
    """Positional encodings of each level, (height x width, 1, hidden channels)."""
    sizes: tuple[tuple[int, int], ...]
    """(height, width) of each level."""

    @property
    def nbytes(self) -> int:
        return sum(level.nbytes for level in self.levels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """One object on one frame."""

    logits: Tensor
    """float32 (size / 4, size / 4) on the model's device; above 0 is the object."""
    score: float
    """0..1: sigmoid of the object score times the predicted IoU of the chosen mask."""
    seen: Observation
    """What the memory keeps of it."""


Result = Prediction | ModelFailure
"""What becomes of one object of a batch."""

Prompt = Bitmap | Box | Clicks
"""What can be drawn of an object: a mask, a box, or clicks with or without a box."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """The masks that a prompt may mean on a single image, without any memory."""

    logits: Tensor
    """float32 (masks, size / 4, size / 4) on the model's device; above 0 is the object."""
    ious: tuple[float, ...]
    """The IoU that the model predicts of each mask."""

    @property
    def best(self) -> int:
        """The index of the mask with the highest predicted IoU, the first of equal ones."""
        return max(range(len(self.ious)), key=self.ious.__getitem__)

    @property
    def with_pixels(self) -> list[int]:
        """The indexes of the masks that have a pixel."""
        found: list[int] = self.logits.gt(0).flatten(1).any(dim=1).nonzero()[:, 0].tolist()
        return found


def prediction_of(result: Result) -> Prediction:
    """Raises the ModelFailure that the result is."""
    if not isinstance(result, Prediction):
        raise result
    return result
