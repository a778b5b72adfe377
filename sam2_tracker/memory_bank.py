# SPDX-License-Identifier: MIT
"""What SAM 2 remembers of one object (arXiv 2408.00714, section 4, "memory bank")."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MemoryLayout:
    """The sizes that a model gives to a memory bank."""

    channels: int
    height: int
    width: int
    recent: int
    """Memory frames kept beside the conditioning frame: 6 in SAM 2."""
    pointer_channels: int
    pointers: int
    """Object pointers of past frames kept beside that of the conditioning frame: 15 in SAM 2."""

    @property
    def frame_bytes(self) -> int:
        """Of one memory frame's features, in bfloat16."""
        return 2 * self.channels * self.height * self.width


@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryBank:
    """Never changed: a step makes a new one, which shares its tensors with the old."""

    step: int
    """How many frames the object was tracked over; 0: it has just been started."""
    conditioning: Tensor
    """Memory features of the frame with the prompt, bfloat16 (channels, height, width)."""
    recent: tuple[Tensor, ...]
    """The same of the last frames, oldest first; the newest is that of `step`."""
    pointers: Tensor
    """float32 (1 + min(step, 15), channels): conditioning frame, then newest to oldest."""

    @property
    def newest(self) -> Tensor:
        return self.recent[-1] if self.recent else self.conditioning


def start_bank(features: Tensor, pointer: Tensor) -> MemoryBank:
    return MemoryBank(step=0, conditioning=features, recent=(), pointers=pointer[None])


def advance_bank(
    bank: MemoryBank, features: Tensor, pointer: Tensor, layout: MemoryLayout
) -> MemoryBank:
    return MemoryBank(
        step=bank.step + 1,
        conditioning=bank.conditioning,
        recent=(*bank.recent, features)[-layout.recent :],
        pointers=torch.cat((bank.pointers[:1], pointer[None], bank.pointers[1 : layout.pointers])),
    )
