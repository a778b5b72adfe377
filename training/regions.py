# SPDX-License-Identifier: MIT
"""Clips in which parts of a photograph are the objects: a real scene before a moving camera.

A cut-out pasted over a photograph is always a whole thing with an edge of its own. A person also
tracks a part of a thing, a sign, a patch of ground. Such objects are regions of the photograph
here, found by the segmentation of Felzenszwalb and Huttenlocher (2004), with its real edges. The
scene bends smoothly, as with parallax, and cut-outs pass before it. No torch here.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from skimage.segmentation import felzenszwalb

from training.clips import Clip, smooth_curve
from training.composites import (
    LEAST_SHARE,
    SOLID,
    TRIES,
    developer,
    draw_camera,
    draw_mover,
    draw_sprite,
    draw_world,
    overlay,
    to_picture,
)
from training.pictures import FOLDER, Side

_LARGEST_SHARE = 0.35  # of the picture that a region covers
_LEAST_CONTRAST = 12.0  # of the mean colours on both sides of an edge, 0..255
_REACH = 0.3  # of the picture's shorter side, over which one bend fades


def _grown(rng: np.random.Generator, labels: np.ndarray, start: int, most: int) -> np.ndarray:
    """bool (H, W): the region `start` with up to three of its neighbours, of at most `most` pixels.

    The outline is smoothed a little, holes are filled, and one piece is kept: as a person draws.
    """
    chosen = labels == start
    for _ in range(int(rng.integers(0, 4))):
        around = cv2.dilate(chosen.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        beside = np.setdiff1d(labels[around], labels[chosen])
        if not len(beside):
            break
        wider = chosen | (labels == rng.choice(beside))
        if wider.sum() <= most:
            chosen = wider
    smooth = np.asarray(cv2.medianBlur(chosen.astype(np.uint8), 5))
    outlines, _ = cv2.findContours(smooth, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return np.zeros(labels.shape, bool)
    filled = np.zeros(labels.shape, np.uint8)
    cv2.drawContours(filled, [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return filled > 0


def _contrast(picture: np.ndarray, region: np.ndarray) -> float:
    """Distance of the mean colours on both sides of a region's edge. picture: (H, W, 3), 0..255."""
    mask, disc = region.astype(np.uint8), np.ones((7, 7), np.uint8)
    inside = region & (cv2.erode(mask, disc) == 0)
    outside = ~region & (cv2.dilate(mask, disc) > 0)
    if not (inside.any() and outside.any()):
        return 0.0
    return float(np.linalg.norm(picture[inside].mean(0) - picture[outside].mean(0)))


def draw_regions_of(
    rng: np.random.Generator, world: np.ndarray, objects: int, width: int, height: int
) -> np.ndarray | None:
    """Regions of a photograph that share no pixel, float32 (N, H, W), 0 to 1 at their edges.

    world: float32 (H, W, 3), 0..255, of which the middle, width x height pixels, is the picture.
    None where the photograph has too few regions of a fitting size.
    """
    tall, wide = world.shape[:2]
    small = np.asarray(cv2.resize(world, (wide // 2, tall // 2), interpolation=cv2.INTER_AREA))
    scale = float(np.exp(rng.uniform(np.log(30), np.log(300))))
    least, most = LEAST_SHARE * width * height / 4, _LARGEST_SHARE * width * height / 4
    labels = felzenszwalb(small.astype(np.uint8), scale=scale, sigma=0.7, min_size=int(least / 2))
    top, left = (tall - height) // 4, (wide - width) // 4
    window = (slice(top, top + height // 2), slice(left, left + width // 2))
    names, sizes = np.unique(labels[window], return_counts=True)
    found: list[np.ndarray] = []
    for name in rng.permutation(names[(sizes >= least) & (sizes <= most)]):
        region = _grown(rng, labels, int(name), int(most))
        if any((region & other).any() for other in found) or region[window].sum() < least:
            continue
        if _contrast(small, region) < _LEAST_CONTRAST:
            continue
        found.append(region)
        if len(found) == objects:
            return np.stack([
                np.asarray(cv2.resize(each.astype(np.float32), (wide, tall))) for each in found
            ])  # fmt: skip
    return None


def _bent(
    rng: np.random.Generator, frames: int, width: int, height: int, strength: float
) -> np.ndarray:
    """By how many pixels each place of the picture is moved, float32 (T, H, W, 2)."""
    unit = min(width, height)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    moved = np.zeros((frames, height, width, 2), np.float32)
    for _ in range(int(rng.integers(2, 6))):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        reach = _REACH * unit * rng.uniform(0.5, 1.5)
        near = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * reach**2))
        for axis in range(2):
            curve = smooth_curve(rng, frames, 0.3 * reach * strength * rng.normal())
            moved[..., axis] += (curve - curve[0]).astype(np.float32)[:, None, None] * near
    return moved


def draw_region_clip(
    seed: int,
    *,
    frames: int,
    width: int,
    height: int,
    objects: int,
    side: Side,
    clutter: int = 1,
    motion: float = 1.0,
    folder: Path = FOLDER,
) -> Clip:
    """Draw a clip whose objects are regions of a photograph; the same arguments give the same clip.

    objects: how many regions have masks; every one is visible in frame 0.
    side: "training" or "held_out", which pictures are used.
    clutter: cut-outs without masks that pass before the scene.

    Raises ValueError where no photograph gives as many regions, NoPicturesError without pictures.
    """
    for attempt in range(TRIES):
        rng = np.random.default_rng((seed, attempt, 3))
        world = draw_world(rng, frames, width, height, side, folder, use_film=False)[0]
        regions = draw_regions_of(rng, world, objects, width, height)
        if regions is None:
            continue
        movers = [
            (draw_mover(rng, draw_sprite(rng, side, folder, 0.3), frames, width, height, motion,
                        largest=0.3, leaving=True), -1)
            for _ in range(clutter)
        ]  # fmt: skip
        camera = draw_camera(rng, frames, width, height, motion)
        bent = _bent(rng, frames, width, height, motion * float(rng.choice([0, 0.3, 1.0])))
        develop = developer(rng, frames, width, height)
        shots = np.empty((frames, height, width, 3), np.uint8)
        masks = np.empty((frames, objects, height, width), bool)
        for t in range(frames):
            back = np.linalg.inv(to_picture(world, camera[t], width, height))
            y, x = np.mgrid[:height, :width].astype(np.float64)
            x, y = x - bent[t, ..., 0], y - bent[t, ..., 1]
            depth = back[2, 0] * x + back[2, 1] * y + back[2, 2]
            at_x = ((back[0, 0] * x + back[0, 1] * y + back[0, 2]) / depth).astype(np.float32)
            at_y = ((back[1, 0] * x + back[1, 1] * y + back[1, 2]) / depth).astype(np.float32)
            shot = np.asarray(
                cv2.remap(world, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            )
            share = np.stack(
                [np.asarray(cv2.remap(region, at_x, at_y, cv2.INTER_LINEAR)) for region in regions]
            )
            overlay(movers, shot, share, camera[t], t, 0.0)
            masks[t] = share >= SOLID
            shots[t] = develop(shot, t)
        if (masks[0].sum((1, 2)) >= LEAST_SHARE * width * height).all():
            return Clip(shots, masks)
    raise ValueError(f"no photograph gives {objects} regions (seed {seed})")
