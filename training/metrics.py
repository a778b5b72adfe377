# SPDX-License-Identifier: MIT
"""Region similarity J and contour accuracy F of the DAVIS benchmark (Perazzi et al., CVPR 2016)."""

from __future__ import annotations

import math

import cv2
import numpy as np

BOUNDARY_TOLERANCE = 0.008  # of the picture's diagonal, as DAVIS sets it


def jaccard(mask: np.ndarray, truth: np.ndarray) -> float:
    """J: intersection over union of two bool (H, W); 1.0 where both are empty."""
    union = np.count_nonzero(mask | truth)
    return 1.0 if union == 0 else np.count_nonzero(mask & truth) / union


def boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from the neighbour to the right, below or both, bool (H, W)."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask != right) | (mask != below) | (mask != diagonal)


def boundary_f(mask: np.ndarray, truth: np.ndarray) -> float:
    """F: harmonic mean of boundary precision and recall of two bool (H, W), 0..1.

    A boundary pixel counts as found within BOUNDARY_TOLERANCE of the diagonal, rounded up.
    Two masks without boundary agree (1.0); one without and one with do not (0.0).
    """
    reach = math.ceil(BOUNDARY_TOLERANCE * math.hypot(*mask.shape))
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disc = (x * x + y * y <= reach * reach).astype(np.uint8)
    ours, theirs = boundary(mask), boundary(truth)
    count, true_count = np.count_nonzero(ours), np.count_nonzero(theirs)
    if count == 0 or true_count == 0:
        return 1.0 if count == true_count else 0.0
    near_ours = cv2.dilate(ours.astype(np.uint8), disc).astype(bool)
    near_theirs = cv2.dilate(theirs.astype(np.uint8), disc).astype(bool)
    precision = np.count_nonzero(ours & near_theirs) / count
    recall = np.count_nonzero(theirs & near_ours) / true_count
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)
