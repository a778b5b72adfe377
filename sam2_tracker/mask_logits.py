# SPDX-License-Identifier: MIT
"""Low-resolution mask logits: holes, areas, second places, and the way to a bitmap.

Logits are float32; a pixel belongs to the object where its logit is above 0.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_tracker.out_of_memory import memory_errors
from sam2_tracker.shapes import Bitmap, bitmap_to_rectangle

HOLE_FILL_LOGIT = 0.1
SINGLE_HOLE_FILL_LOGIT = 10.0
"""What the official predictor for single images fills holes with."""
MASKS_AT_ONCE = 32
"""So many masks of large images leave a GPU together."""
SAME_PLACE_IOU = 0.7
"""Boxes that overlap less than this show that a candidate mask claims a second place."""

NO_MEMORY = "The device has too little memory for the masks of this frame."


def fill_holes(logits: Tensor, *, largest: int, logit: float = HOLE_FILL_LOGIT) -> Tensor:
    """Sets background components of at most `largest` pixels to a small positive logit.

    logits: (objects, 1, height, width). The official predictor does this where its CUDA extension
    is built (sam2.utils.misc.fill_holes_in_mask_scores). An empty mask has no holes.
    """
    if largest == 0:
        return logits
    holes = np.stack([_holes(mask, largest) for mask in logits.gt(0).cpu().numpy()[:, 0]])
    return torch.where(torch.from_numpy(holes)[:, None].to(logits.device), logit, logits)


def mask_areas(logits: Tensor) -> list[int]:
    """Pixels of each mask; logits: (objects, 1, height, width)."""
    areas: list[int] = logits.gt(0).flatten(1).sum(dim=1).tolist()
    return areas


def find_distractors(candidates: Tensor, chosen: Sequence[int]) -> list[bool]:
    """Whether another candidate mask claims a second place, for each object (DAM4SAM).

    candidates: logits (objects, masks, height, width); chosen: for each object the index of its
    mask. A candidate's largest 8-connected part outside the chosen mask counts if the chosen mask's
    box and the box around both overlap by an IoU of at most SAME_PLACE_IOU.
    """
    masks = candidates.gt(0).cpu().numpy()
    return [
        any(
            _is_distractor(masks[number, index], masks[number, other])
            for other in range(masks.shape[1])
            if other != index
        )
        for number, index in enumerate(chosen)
    ]


def logits_to_image_size(logits: Tensor, *, width: int, height: int) -> Tensor:
    """Scales (height, width) bilinearly and without antialias, as the official predictor does."""
    with torch.inference_mode():
        return F.interpolate(
            logits[None, None], size=(height, width), mode="bilinear", align_corners=False
        )[0, 0]


def stability(logits: Tensor) -> float:
    """IoU of the mask cut at 1 with the one cut at -1; 0 where both are empty.

    logits: (height, width). That is sam2.utils.amg.calculate_stability_score.
    """
    inner, outer = (int((logits > cut).sum()) for cut in (1, -1))
    return inner / outer if outer else 0.0


def logits_to_bitmaps(
    logits: Sequence[Tensor], *, width: int, height: int, packed: bool
) -> Iterator[Bitmap]:
    """Scales logits (height, width) to image size and cuts them at 0: bool (height, width) each.

    packed: many masks leave the device together, as bits. That is for a GPU; on a CPU they are
    made one by one, for those of a large image are large. Raises OutOfMemory.
    """
    if not packed:
        for each in logits:
            with memory_errors(NO_MEMORY):
                bitmap: Bitmap = (
                    logits_to_image_size(each, width=width, height=height).gt(0).numpy()
                )
            yield bitmap
        return
    for first in range(0, len(logits), MASKS_AT_ONCE):
        with memory_errors(NO_MEMORY), torch.inference_mode():
            bits = [
                pack_bits(logits_to_image_size(each, width=width, height=height) > 0)
                for each in logits[first : first + MASKS_AT_ONCE]
            ]
            together = torch.stack(bits).cpu().numpy()
        for each_packed in together:
            yield np.unpackbits(each_packed, axis=1, count=width).view(np.bool_)


def pack_bits(mask: Tensor) -> Tensor:
    """bool (height, width) to uint8 (height, ceil(width / 8)), as numpy.packbits does it."""
    height, width = mask.shape
    padded = F.pad(mask, (0, -width % 8)).reshape(height, -1, 8)
    weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=mask.device)
    return (padded * weights).sum(dim=2, dtype=torch.uint8)


def _holes(mask: Bitmap, largest: int) -> Bitmap:
    if not mask.any():
        return np.zeros_like(mask)
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] <= largest
    small[0] = False  # the object itself
    holes: Bitmap = small[labels]
    return holes


def _is_distractor(chosen: Bitmap, other: Bitmap) -> bool:
    rest = (other & ~chosen).astype(np.uint8)
    if not rest.any() or not chosen.any():
        return False
    _, _, stats, _ = cv2.connectedComponentsWithStats(rest, connectivity=8)
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    x, y, w, h = stats[largest, :4].tolist()
    left, top, right, bottom = bitmap_to_rectangle(chosen)
    around = (min(left, x), min(top, y), max(right, x + w), max(bottom, y + h))
    # The box around both contains that of the chosen mask, so the latter is their intersection.
    return _box_area((left, top, right, bottom)) <= SAME_PLACE_IOU * _box_area(around)


def _box_area(box: tuple[int, int, int, int]) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
