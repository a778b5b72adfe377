# SPDX-License-Identifier: MIT
"""Which memory frames a step attends to, and which are kept for the steps after it.

SAM 2 attends to the frames that a person drew (conditioning frames) and to six recent ones. Which
six is a choice that costs nothing. There are three:

official    The last six frames, as `SAM2Base._prepare_memory_conditioned_features` takes them.

quality     The last six frames on which the object was seen, however old they are. An object that
            hides for ten frames does not fill its memory with frames on which it is not there. The
            idea is that of `use_memory_selection` in SAM 3 (facebookresearch/sam3). As long as the
            object is seen on every frame this is `official`, bit for bit.

anchors     `quality`, and up to three frames on which a look-alike was told apart. They act as
            conditioning frames (DAM4SAM, arXiv 2411.17576, in the form of d4sm).

Every function here is pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from sam2_tracker.memory_bank import (
    ConditioningFrame,
    MemoryBank,
    MemoryFrame,
    MemoryLayout,
    Observation,
    TrackedFrame,
)

if TYPE_CHECKING:  # the wire knows the policies without torch
    from torch import Tensor

POLICIES = ("official", "quality", "anchors")

GOOD_SCORE = 0.01
"""A frame is good if `seen_score` exceeds this."""
MAX_ANCHORS = 3
"""So many anchors are used at most. Where SAM2_MEMORY_FRAMES leaves fewer than six recent frames,
half of these."""
ANCHOR_IOU = 0.8
"""An anchor's predicted IoU exceeds this."""
ANCHOR_AREA = (0.8, 1.2)
"""Allowed area of an anchor, relative to the median of the last areas."""
ANCHOR_AREAS = 10
"""The median is taken of so many areas."""
ANCHOR_PAUSE = 5
"""An anchor lies more than so many steps after the last one."""

CONDITIONING_APART = 5
"""Frames that were drawn fewer steps apart show nearly the same. Where only some drawn frames are
attended to, the nearer one of such a pair is, and another one in place of the other. The policy
`official` does not look at that."""

Drawn = ConditioningFrame | TrackedFrame
"""A frame that takes part in attention as a conditioning frame."""


@dataclass(frozen=True, kw_only=True)
class Recall:
    """What one object attends to on its next frame, in SAM 2's order."""

    memories: tuple[MemoryFrame, ...]
    ages: tuple[int, ...]
    """For each memory its row of SAM 2's time encodings: 0 for the newest, the last row for
    conditioning frames."""
    pointers: tuple[Tensor, ...]
    """Object pointers, float32 (channels,)."""
    distances: tuple[int, ...]
    """For each pointer how many steps ago it was; 0 for a frame that was drawn on the next step."""

    @property
    def size(self) -> tuple[int, int]:
        """Objects with equal sizes can run as one batch."""
        return len(self.memories), len(self.pointers)


def recall(bank: MemoryBank, layout: MemoryLayout, *, conditioning_frames: int = 0) -> Recall:
    """Chooses what the step after `bank.step` attends to.

    conditioning_frames: at most so many of them, the nearest as SAM 2 selects them
    (`select_closest_cond_frames`), but see CONDITIONING_APART; 0 means all.
    """
    now = bank.step + 1
    apart = 0 if bank.policy == "official" else CONDITIONING_APART
    drawn, left_out = _nearest(bank.conditioning, now, conditioning_frames, apart)
    anchors = _anchors_in_use(bank, now, min(MAX_ANCHORS, layout.recent // 2))
    acting: tuple[Drawn, ...] = (*drawn, *anchors)
    taken = {frame.step for frame in anchors}
    # A conditioning frame that is left out counts as a tracked one, as in SAM 2.
    rest: tuple[Drawn, ...] = (*bank.tracked, *left_out)
    others = {frame.step: frame for frame in rest if frame.step not in taken}
    recent = RECENT[bank.policy](bank, others, now, layout.recent - len(anchors))
    past: list[Drawn] = [frame for frame in acting if frame.step <= now]
    past += [others[now - d] for d in range(1, layout.pointers + 1) if now - d in others]
    return Recall(
        memories=tuple(
            frame.memory for frame in (*acting, *(frame for frame, _ in recent)) if frame.memory
        ),
        ages=(*[layout.recent] * len(acting), *(age for _, age in recent)),
        pointers=tuple(frame.pointer for frame in past),
        distances=tuple(now - frame.step for frame in past),
    )


def remember(bank: MemoryBank, seen: Observation, layout: MemoryLayout) -> MemoryBank:
    """The bank after a step: with the new frame, without what no later step attends to.

    A frame on which the object was drawn is remembered as it was drawn.
    """
    step = bank.step + 1
    if any(frame.step == step for frame in bank.conditioning):
        return replace(bank, step=step)
    newest = TrackedFrame(
        step=step,
        memory=seen.memory,
        pointer=seen.pointer,
        good=seen_score(seen) > GOOD_SCORE,
        anchor=bank.policy == "anchors" and _is_anchor(bank, seen),
    )
    areas = (*bank.areas, seen.area) if seen.area else bank.areas
    grown = replace(bank, step=step, tracked=(*bank.tracked, newest), areas=areas[-ANCHOR_AREAS:])
    # A frame that the next step does not attend to is never attended to later: every policy only
    # moves on to newer frames.
    needed = {memory.id for memory in recall(grown, layout).memories}
    kept = []
    for frame in grown.tracked:
        if frame.memory is not None and frame.memory.id not in needed:
            frame = replace(frame, memory=None, anchor=False)
        if frame.memory is not None or frame.step > step - layout.pointers:
            kept.append(frame)
    return replace(grown, tracked=tuple(kept))


def seen_score(seen: Observation) -> float:
    """0 .. 1: how surely the object was seen (SAM 3's memory selection)."""
    if seen.object_score <= 0:
        return 0.0
    return math.tanh(seen.object_score / 2) * seen.predicted_iou  # 2 sigmoid(x) - 1 = tanh(x / 2)


def _official(
    bank: MemoryBank, others: dict[int, Drawn], now: int, most: int
) -> list[tuple[Drawn, int]]:
    """The last frames, oldest first, each with its age; frames that were drawn leave a gap."""
    return [
        (others[now - 1 - age], age)
        for age in reversed(range(most))
        if now - 1 - age in others and others[now - 1 - age].memory
    ]


def _quality(
    bank: MemoryBank, others: dict[int, Drawn], now: int, most: int
) -> list[tuple[Drawn, int]]:
    """The last frame, and the newest good ones; the age of each is its rank.

    Drawn frames in the past, and the steps before the tracking began, count in the ranking but are
    not returned. So this is `_official` for an object that is seen on every frame. Drawn frames in
    the future do not count.
    """
    first = min((frame.step for frame in bank.tracked), default=now)
    past = range(min(first, now - most), now)
    drawn = {frame.step for frame in bank.conditioning}
    seen = {step for step, frame in others.items() if _is_good(frame) or step == now - 1}
    holding = drawn | seen | {step for step in past if step < first}
    steps = sorted((step for step in holding if step in past), reverse=True)
    ranked = [(others[step], age) for age, step in enumerate(steps[:most]) if step in others]
    return ranked[::-1]


RECENT: dict[str, Callable[[MemoryBank, dict[int, Drawn], int, int], list[tuple[Drawn, int]]]] = {
    "official": _official,
    "quality": _quality,
    "anchors": _quality,
}


def _is_good(frame: Drawn) -> bool:
    return isinstance(frame, ConditioningFrame) or (frame.good and frame.memory is not None)


def _nearest(
    conditioning: Sequence[ConditioningFrame], now: int, most: int, apart: int
) -> tuple[list[ConditioningFrame], list[ConditioningFrame]]:
    """The conditioning frames that are attended to, and those that are left out.

    `sam2.modeling.sam2_utils.select_closest_cond_frames`: the nearest before, the nearest at or
    after, then the nearest of the rest; of these, those first that lie at least `apart` steps from
    both.
    """
    if not most or len(conditioning) <= most:
        return list(conditioning), []
    before = max((f for f in conditioning if f.step < now), key=lambda f: f.step, default=None)
    after = min((f for f in conditioning if f.step >= now), key=lambda f: f.step, default=None)
    chosen = [frame for frame in (before, after) if frame is not None]

    def order(frame: ConditioningFrame) -> tuple[bool, int]:
        beside = any(abs(frame.step - other.step) < apart for other in chosen)
        return beside, abs(frame.step - now)

    rest = sorted((frame for frame in conditioning if frame not in chosen), key=order)
    chosen += rest[: most - len(chosen)]
    return chosen, [frame for frame in conditioning if frame not in chosen]


def _anchors_in_use(bank: MemoryBank, now: int, most: int) -> list[TrackedFrame]:
    """The newest anchors. A frame serves as one from the step after the next one on."""
    ready = [frame for frame in bank.tracked if frame.anchor and frame.step < now - 1]
    return ready[max(len(ready) - most, 0) :]


def _is_anchor(bank: MemoryBank, seen: Observation) -> bool:
    last = max((frame.step for frame in bank.tracked if frame.anchor), default=None)
    if last is not None and bank.step + 1 - last <= ANCHOR_PAUSE:
        return False
    if not (seen.distractor and seen.area and bank.areas and seen.predicted_iou > ANCHOR_IOU):
        return False
    low, high = ANCHOR_AREA
    return low <= seen.area / median(bank.areas) <= high
