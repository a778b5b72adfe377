# SPDX-License-Identifier: MIT
"""Parts of things, as a person may draw them: a cap on a head, the seat of a chair.

A model that has only seen whole things runs over to the rest of the thing, which moves along with
its part. No torch here.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import binary_fill_holes

LEAST_SHARE, MOST_SHARE = 0.06, 0.55  # of the thing's pixels
COLOURED = 0.65  # share of the parts that end where the colour changes; the others end anywhere
_TRIES = 12
_WORKING_SIDE = 96


def draw_part(rng: np.random.Generator, colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Which pixels of a thing belong to one of its parts, float32 (h, w), 0..1.

    colour: float32 (h, w, 3), 0..255. alpha: float32 (h, w), 0..1. All of the thing where no part
    of a fit size is found.
    """
    height, width = alpha.shape
    scale = min(_WORKING_SIDE / max(height, width), 1)
    size = max(round(width * scale), 2), max(round(height * scale), 2)
    small = np.asarray(cv2.resize(colour, size, interpolation=cv2.INTER_AREA))
    solid = np.asarray(cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)) >= 0.5
    for _ in range(_TRIES):
        coloured = rng.random() < COLOURED
        part = (_by_colour(rng, small, solid) if coloured else _by_a_line(rng, solid)) & solid
        if LEAST_SHARE <= part.sum() / max(solid.sum(), 1) <= MOST_SHARE:
            smooth = cv2.resize(
                part.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
            )
            # Enlarged, its outline is as smooth as that of a drawing.
            soft = cv2.GaussianBlur(smooth, (0, 0), max(0.5 / scale, 0.5))
            return np.asarray(np.clip((soft - 0.5) * 4 + 0.5, 0, 1), np.float32)
    return np.ones_like(alpha)


def _by_colour(rng: np.random.Generator, colour: np.ndarray, solid: np.ndarray) -> np.ndarray:
    """A connected region of like colours, without its holes."""
    height, width = solid.shape
    blurred = cv2.GaussianBlur(colour, (0, 0), float(rng.uniform(0.8, 2.5)))
    lab = cv2.cvtColor(np.clip(blurred, 0, 255).astype(np.uint8), cv2.COLOR_RGB2LAB)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    weight = float(rng.uniform(0.2, 1.5)) * 100 / max(height, width)
    features = np.dstack([lab.astype(np.float32), rows * weight, columns * weight])
    inside = features[solid]
    if len(inside) < 8:
        return np.zeros_like(solid)
    groups = int(rng.integers(3, 8))
    centres = inside[rng.choice(len(inside), groups)]
    for _ in range(4):
        nearest = ((inside[:, None] - centres) ** 2).sum(2).argmin(1)
        for group in np.unique(nearest):
            centres[group] = inside[nearest == group].mean(0)
    labels = np.full(solid.shape, -1)
    labels[solid] = nearest
    chosen = (labels == int(rng.choice(nearest))).astype(np.uint8)
    chosen = cv2.morphologyEx(chosen, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, regions, stats, _ = cv2.connectedComponentsWithStats(np.asarray(chosen), connectivity=4)
    if count < 2:
        return np.zeros_like(solid)
    region = regions == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return np.asarray(binary_fill_holes(region))


def _by_a_line(rng: np.random.Generator, solid: np.ndarray) -> np.ndarray:
    """One side of a wavy line across the thing, or what lies between two of them."""
    height, width = solid.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    angle = float(rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)]))
    across = columns * np.cos(angle) + rows * np.sin(angle)
    along = rows * np.cos(angle) - columns * np.sin(angle)
    wave = rng.uniform(0, 0.08) * max(height, width)
    across += wave * np.sin(along * rng.uniform(2, 8) / max(height, width) + rng.uniform(0, 6.3))
    ends = np.quantile(across[solid], np.sort(rng.uniform(0, 1, 2))) if solid.any() else (0, 0)
    if rng.random() < 0.6:  # an end of the thing
        return np.asarray(across < ends[0] if rng.random() < 0.5 else across > ends[1])
    return np.asarray((across > ends[0]) & (across < ends[1]))
