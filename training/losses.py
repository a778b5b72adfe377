# SPDX-License-Identifier: MIT
"""What a training minimises: focal and dice loss, predicted IoU, visibility; the early guides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from training.prompting import Answer

FOCAL_WEIGHT, FOCAL_GAMMA = 20.0, 2.0
VISIBILITY_WEIGHT = 2.0
SLIVER = 12  # pixels at 256 x 256: fewer show nothing that anybody could name, so no lesson in it


@dataclass(frozen=True)
class Losses:
    mask: torch.Tensor
    iou: torch.Tensor
    visibility: torch.Tensor
    mean_iou: float  # of the mask that tracking chooses, over frames that show the object
    silence: float  # share of the hidden frames that are known as hidden; nan without any

    @property
    def total(self) -> torch.Tensor:
        return self.mask + self.iou + VISIBILITY_WEIGHT * self.visibility


def mean_of(values: torch.Tensor) -> torch.Tensor:
    """The mean, and 0 of nothing: a batch may show no object at all after its first frame."""
    return values.sum() / max(values.numel(), 1)


def focal_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean of (1 - p)^2 * cross-entropy, p the probability of the right answer.

    (..., s, s) to (...). Lin et al., 2017, without their weight of the classes. target: 0..1, how
    much of a pixel is covered.
    """
    wrong = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (wrong * (logits.sigmoid() - target).abs() ** FOCAL_GAMMA).mean((-2, -1))


def dice_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - 2 |A B| / (|A| + |B|), smoothed by one pixel: (..., s, s) to (...)."""
    chance = logits.sigmoid()
    overlap = (chance * target).sum((-2, -1))
    return 1 - (2 * overlap + 1) / (chance.sum((-2, -1)) + target.sum((-2, -1)) + 1)


def balanced_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in which object and background count the same: (..., s, s) to (...)."""
    wrong = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    inside = (wrong * target).sum((-2, -1)) / target.sum((-2, -1)).clamp(min=1)
    outside = (wrong * (1 - target)).sum((-2, -1)) / (1 - target).sum((-2, -1)).clamp(min=1)
    return inside + outside


def losses_of(answers: Sequence[Answer], balance: float, side: int) -> Losses:
    """The losses of the frames that were answered.

    balance: weight of `balanced_loss`, which at the start of a training leads away from answering
    "background" everywhere. side: of the masks that are compared; their truth is how much of a
    pixel is covered.
    """
    logits = torch.cat([answer.logits for answer in answers]).float()
    ious = torch.cat([answer.ious for answer in answers]).float()
    visibility = torch.cat([answer.visibility for answer in answers]).float().flatten()
    truth = torch.cat([answer.truth for answer in answers])
    points = torch.cat(
        [torch.full((len(answer.truth),), answer.points) for answer in answers]
    ).to(truth.device)  # fmt: skip
    area = truth.sum((1, 2))
    shown, hidden = area > SLIVER * (truth.shape[-1] / 256) ** 2, area == 0
    clear = shown | hidden
    # Hidden frames are few: they weigh more.
    seen_loss = mean_of(
        F.binary_cross_entropy_with_logits(
            visibility[clear], shown[clear].float(), weight=1 + hidden[clear].float(),
            reduction="none",
        )
    )  # fmt: skip
    silence = float((visibility[hidden] <= 0).float().mean()) if hidden.any() else math.nan
    covered = F.adaptive_avg_pool2d(truth[shown, None].float(), side)
    logits, ious, points = logits[shown], ious[shown], points[shown]
    if side != logits.shape[-1]:
        logits = F.interpolate(logits, (side, side), mode="bilinear")
    target = covered.expand_as(logits)
    per_mask = FOCAL_WEIGHT * focal_loss(logits, target) + dice_loss(logits, target)
    if balance:
        per_mask = per_mask + balance * balanced_loss(logits, target)
    alone, three = per_mask[:, 0], per_mask[:, 1:]
    # One click may mean several things: the best of the three masks counts in full, and the mean
    # of all three counts half. All else means one thing, and whichever mask is chosen has to be
    # right. (SAM 2 always trains the best one alone. This small model then often chose another
    # one while it tracked.)
    three = torch.where(points == 1, three.min(1).values + 0.5 * three.mean(1), three.mean(1))
    with torch.no_grad():
        said, real = logits > 0, target > 0.5
        union = (said | real).sum((2, 3)).clamp(min=1)
        actual = (said & real).sum((2, 3)) / union
        chosen = actual[:, 1:].gather(1, ious[:, 1:].argmax(1, keepdim=True)).flatten()
        chosen = torch.where(points > 1, actual[:, 0], chosen)
    return Losses(
        mask=mean_of(three) + mean_of(alone),
        iou=mean_of((ious - actual).abs()),
        visibility=seen_loss,
        mean_iou=float(chosen.mean()) if len(chosen) else math.nan,
        silence=silence,
    )


def drift_loss(comparisons: Sequence[tuple[Answer, Answer, bool]]) -> torch.Tensor:
    """How far answers without clicks have moved since before the training; 0: not at all.

    Of a mask prompt only the token counts that becomes the object pointer, because the mask itself
    is the answer. Of a tracked frame all four masks count, with their tokens, IoUs and visibility.
    """
    parts = []
    for now, before, prompted in comparisons:
        used = slice(0, 1) if prompted else slice(1, None)
        tokens, kept = now.tokens[:, used].float(), before.tokens[:, used].float()
        parts.append(F.mse_loss(tokens, kept) / kept.square().mean())
        if not prompted:
            chance = before.logits.float().sigmoid()
            moved = F.binary_cross_entropy_with_logits(now.logits.float(), chance)
            least = F.binary_cross_entropy_with_logits(before.logits.float(), chance)
            parts.append(2 * (moved - least))
            parts.append(F.mse_loss(now.ious.float(), before.ious.float()))
            parts.append(0.01 * F.mse_loss(now.visibility.float(), before.visibility.float()))
    return torch.stack(parts).sum() / len(comparisons)


def guide_loss(guides: torch.nn.ModuleList, answers: Sequence[Answer]) -> torch.Tensor:
    """How well two linear layers read the object off the features of decoder and memory attention.

    Early in a training from nothing this tells memory, attention and decoder directly what they
    are for, long before the masks can. The guides are not part of the model.
    """
    pairs = [(guides[0], answer.decoded, answer.truth) for answer in answers]
    pairs += [
        (guides[1], answer.remembered.transpose(0, 1), answer.truth)
        for answer in answers
        if answer.remembered is not None
    ]
    total = torch.zeros((), device=answers[0].truth.device)
    for guide, feature, truth in pairs:
        read = guide(feature.float())[..., 0]  # (M, HW)
        cells = math.isqrt(read.shape[1])
        covered = F.adaptive_avg_pool2d(truth[:, None].float(), cells).flatten(1)
        total = total + balanced_loss(read[:, None], covered[:, None]).mean() / len(answers)
    return total
