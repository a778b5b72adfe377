# SPDX-License-Identifier: MIT
"""What SAM 2 remembers of one object (arXiv 2408.00714, section 4, "memory bank").

Frames are numbered by steps: the frame on which an object was first drawn is step 0, and every
request that tracks it is one step. A person may draw the object on other frames too; these
conditioning frames can lie before step 0 and after the present step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sam2_tracker.errors import TooManyKeyframes
from sam2_tracker.ids import new_id

if TYPE_CHECKING:  # the wire knows policies and bounds without torch
    from torch import Tensor

MAX_CONDITIONING = 8
"""Conditioning frames per object. This bounds what a track keeps in the store."""


@dataclass(frozen=True, kw_only=True)
class MemoryLayout:
    """The sizes that a model gives to a memory bank."""

    tokens: int
    """Of one memory frame: the pixels of SAM 2's memory features."""
    channels: int
    """Of one token."""
    recent: int
    """Memory frames that a step attends to beside the conditioning frames: 6 in SAM 2."""
    pointer_channels: int
    pointers: int
    """A tracked frame's object pointer is used up to this distance in steps: 15 in SAM 2."""

    @property
    def frame_bytes(self) -> int:
        """Of one memory frame's features, in bfloat16."""
        return 2 * self.channels * self.tokens


@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryFrame:
    """The memory features of one object on one frame, under a name that no other features have.

    Values derived from the features can be cached under the name: both never change.
    """

    id: str
    features: Tensor
    """bfloat16 (channels, tokens)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ConditioningFrame:
    """A frame on which a person drew the object, or clicked on it."""

    step: int
    memory: MemoryFrame
    pointer: Tensor
    """Object pointer, float32 (channels,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackedFrame:
    """A frame on which the model found the object, or found that it is not there."""

    step: int
    memory: MemoryFrame | None
    """None: only the pointer is still needed."""
    pointer: Tensor
    """Object pointer, float32 (channels,)."""
    good: bool
    """The object was seen on it (memory_policy.py, "quality")."""
    anchor: bool = False
    """It guards against look-alikes (memory_policy.py, "anchors")."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """What the model found on one frame, for the memory."""

    memory: MemoryFrame
    pointer: Tensor
    """Object pointer, float32 (channels,)."""
    object_score: float
    """Logit; above 0 the object is visible."""
    predicted_iou: float
    """Of the chosen mask, as the model predicts it."""
    area: int
    """Pixels of the chosen mask at low resolution; in a search region as many as it would have in
    the smallest window. 0: the object is not visible."""
    distractor: bool = False
    """Another candidate mask claims a second place (memory_policy.py, "anchors")."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryBank:
    """Never changed: a step makes a new one, which shares its frames with the old one."""

    policy: str
    """A name from memory_policy.POLICIES. A track keeps its policy."""
    step: int
    """The last step that was done."""
    conditioning: tuple[ConditioningFrame, ...]
    """In the order in which they were given; at least one."""
    tracked: tuple[TrackedFrame, ...] = ()
    """Oldest first."""
    areas: tuple[int, ...] = ()
    """Areas of the last frames on which the object was visible, oldest first; for "anchors"."""

    @property
    def memories(self) -> tuple[MemoryFrame, ...]:
        """Every memory frame that this bank stands on."""
        tracked = (frame.memory for frame in self.tracked)
        return (
            *(frame.memory for frame in self.conditioning),
            *(memory for memory in tracked if memory is not None),
        )


def name_memory(features: Tensor) -> MemoryFrame:
    """Gives new features their name."""
    return MemoryFrame(id=new_id(), features=features)


def start_bank(policy: str, seen: Observation) -> MemoryBank:
    """The memory of an object that was drawn on this frame: step 0."""
    drawn = ConditioningFrame(step=0, memory=seen.memory, pointer=seen.pointer)
    return MemoryBank(
        policy=policy, step=0, conditioning=(drawn,), areas=(seen.area,) if seen.area else ()
    )


def correct_bank(bank: MemoryBank, drawn: MemoryBank, *, distance: int) -> MemoryBank:
    """Joins a correction: the object was drawn `distance` steps after the bank's last step.

    distance: 0, the last tracked frame is the one that was drawn; 1, the frame after it, which
    then counts as done. Where MAX_CONDITIONING frames are drawn already, the farthest gives way.
    """
    step = bank.step + distance
    kept = bank.conditioning
    if len(kept) == MAX_CONDITIONING and all(frame.step != step for frame in kept):
        farthest = max(kept, key=lambda frame: abs(frame.step - step))
        kept = tuple(frame for frame in kept if frame is not farthest)
    joined = adopt_keyframes(replace(bank, conditioning=kept), [(drawn, distance)])
    # The drawing says how large the object is; what was tracked before it may be another one.
    return replace(joined, step=step, areas=drawn.areas or bank.areas)


def adopt_keyframes(bank: MemoryBank, others: Sequence[tuple[MemoryBank, int]]) -> MemoryBank:
    """Adds the conditioning frames of other banks of the same object.

    others: each bank with its distance: its last step lies so many frames after the bank's last
    step, or before it where the distance is negative. A frame that was drawn takes the place of
    what was tracked or drawn there, as in the official predictor with
    `add_all_frames_to_correct_as_cond`. Raises TooManyKeyframes.
    """
    drawn = {frame.step: frame for frame in bank.conditioning}
    for other, distance in others:
        for frame in other.conditioning:
            step = bank.step + distance + frame.step - other.step
            drawn[step] = replace(frame, step=step)
    if len(drawn) > MAX_CONDITIONING:
        raise TooManyKeyframes(
            f"The object would have {len(drawn)} drawn frames; at most {MAX_CONDITIONING} can be "
            "remembered. Leave out those that are farthest from the frames to track."
        )
    return replace(
        bank,
        conditioning=tuple(drawn.values()),
        tracked=tuple(frame for frame in bank.tracked if frame.step not in drawn),
    )
