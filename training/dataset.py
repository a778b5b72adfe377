# SPDX-License-Identifier: MIT
"""The pre-drawn training clips on disk, and batches from them. No torch here."""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from training.clips import Clip, Pictures, draw_clip

SIDE = 256
CLIPS_PER_SHARD = 100
FOLDER = Path("out/training")
# Training seeds start here; the evaluation's seeds are below (training/evaluation_set.py).
FIRST_SEED = 1_000_000
LEAST_PIXELS = 100  # of an object in the frame that it is prompted in


@dataclass(frozen=True)
class Kind:
    """A stock of clips: how long they are, how many, how often and how long something hides, and
    what they show."""

    frames: int
    clips: int
    hidden_share: float
    longest_hidden: int
    first_seed: int
    pictures: Pictures = "training"


KINDS = {
    "short": Kind(8, 4000, 0.35, 3, FIRST_SEED),
    "long": Kind(18, 600, 0.7, 9, 2 * FIRST_SEED),
    "mottled": Kind(10, 1000, 0.35, 3, 4 * FIRST_SEED, "mottled"),
}


def training_clip(kind: Kind, number: int) -> Clip:
    """The clip `number` of a stock; its parameters are drawn from its seed too."""
    seed = kind.first_seed + number
    rng = np.random.default_rng((seed, 7))
    hidden = (
        int(rng.integers(1, kind.longest_hidden + 1)) if rng.random() < kind.hidden_share else 0
    )
    return draw_clip(
        seed,
        frames=kind.frames,
        width=SIDE,
        height=SIDE,
        objects=int(rng.integers(2, 5)),
        hidden=hidden,
        distractors=int(rng.choice([0, 1, 2], p=[0.6, 0.25, 0.15])),
        leaving=bool(rng.random() < 0.2),
        clutter=int(rng.choice([0, 1, 2, 3], p=[0.3, 0.35, 0.2, 0.15])),
        pictures=kind.pictures,
        motion=float(rng.uniform(0.3, 1.6)),
    )


def _draw_shard(job: tuple[Kind, int, Path]) -> None:
    """uint8 (clips, T, SIDE, SIDE, 4): RGB and the label (0, or 1 + the object's index)."""
    kind, shard, path = job
    cv2.setNumThreads(1)
    stock = np.empty((CLIPS_PER_SHARD, kind.frames, SIDE, SIDE, 4), np.uint8)
    for i in range(CLIPS_PER_SHARD):
        clip = training_clip(kind, shard * CLIPS_PER_SHARD + i)
        labels = np.arange(1, clip.masks.shape[1] + 1, dtype=np.uint8)[None, :, None, None]
        stock[i, ..., :3] = clip.frames
        stock[i, ..., 3] = (clip.masks * labels).sum(1)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, stock)
    part.rename(path)


def draw_stock(name: str, folder: Path = FOLDER, workers: int | None = None) -> None:
    """Draw the shards of a stock that are not on disk yet."""
    kind = KINDS[name]
    (folder / name).mkdir(parents=True, exist_ok=True)
    jobs = [
        (kind, shard, folder / name / f"{shard:05d}.npy")
        for shard in range(kind.clips // CLIPS_PER_SHARD)
    ]
    jobs = [job for job in jobs if not job[2].exists()]
    if not jobs:
        return
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        for _ in tqdm(pool.map(_draw_shard, jobs), total=len(jobs), desc=f"drawing {name} clips"):
            pass


@dataclass(frozen=True)
class Batch:
    """Objects of several clips.

    images: uint8 (B, T, S, S, 3), RGB.
    masks: bool (M, T, S, S); clip: int (M,), whose clip each object is of.
    times: the T frame indices as the memory bank sees them, rising from 0.
    """

    images: np.ndarray
    masks: np.ndarray
    clip: np.ndarray
    times: tuple[int, ...]


class ClipStock:
    """Reads the shards that exist when it is made."""

    def __init__(self, name: str, folder: Path = FOLDER) -> None:
        self._shards = [
            np.load(path, mmap_mode="r") for path in sorted((folder / name).glob("*.npy"))
        ]

    def __len__(self) -> int:
        return len(self._shards) * CLIPS_PER_SHARD

    def sample(
        self, rng: np.random.Generator, clips: int, frames: int, objects: int, widest_stride: int,
        side: int = SIDE,
    ) -> Batch:  # fmt: skip
        """clips x up to `objects` objects over `frames` frames, augmented, side x side pixels."""
        images: list[np.ndarray] = []
        masks: list[np.ndarray] = []
        clip_of: list[int] = []
        while len(images) < clips:
            shard = self._shards[int(rng.integers(len(self._shards)))]
            stock = shard[int(rng.integers(len(shard)))]
            picked = _window(rng, stock, frames, widest_stride)
            picked = _augment(rng, picked)
            areas = np.bincount(picked[0, ..., 3].ravel(), minlength=8)[1:]
            seen = np.flatnonzero(areas >= LEAST_PIXELS)
            if not len(seen):
                continue
            # Objects that vanish on the way teach silence and re-finding: they come first.
            gone = np.array([(picked[..., 3] == i + 1).any((1, 2)).min() == 0 for i in seen])
            order = np.argsort(rng.random(len(seen)) - 1.0 * (gone & (rng.random(len(seen)) < 0.5)))
            for i in seen[order[:objects]]:
                masks.append(picked[..., 3] == i + 1)
                clip_of.append(len(images))
            images.append(picked[..., :3])
        batch = Batch(np.stack(images), np.stack(masks), np.array(clip_of), _times(rng, frames))
        return batch if side == SIDE else _shrunk(batch, side)


def _shrunk(batch: Batch, side: int) -> Batch:
    """The same batch in smaller pictures."""
    images = [
        [cv2.resize(np.ascontiguousarray(f), (side, side), interpolation=cv2.INTER_AREA) for f in c]
        for c in batch.images
    ]
    count, frames, full, _ = batch.masks.shape
    step = full // side
    covered = batch.masks.reshape(count, frames, side, step, side, step).mean((3, 5))
    return replace(batch, images=np.array(images), masks=covered >= 0.5)


def _times(rng: np.random.Generator, frames: int) -> tuple[int, ...]:
    """Frame indices with gaps, so that short clips teach all of the temporal encodings."""
    if frames > 6 or rng.random() < 0.3:
        steps = np.ones(frames - 1, int)
    else:
        steps = rng.choice([1, 2, 3], frames - 1, p=[0.75, 0.15, 0.1])
    if rng.random() < 0.5:
        steps[0] += int(rng.integers(0, 26))
    return (0, *np.cumsum(steps).tolist())


def _window(
    rng: np.random.Generator, stock: np.ndarray, frames: int, widest_stride: int
) -> np.ndarray:
    stride = int(rng.integers(1, min(widest_stride, (len(stock) - 1) // (frames - 1)) + 1))
    span = (frames - 1) * stride + 1
    # Objects are sure to be visible in frame 0, so it is the start more often than chance has it.
    start = 0 if rng.random() < 0.3 else int(rng.integers(0, len(stock) - span + 1))
    picked = np.array(stock[start : start + span : stride])
    return picked[::-1] if rng.random() < 0.3 else picked


def _augment(rng: np.random.Generator, picked: np.ndarray) -> np.ndarray:
    if rng.random() < 0.5:
        picked = picked[:, :, ::-1]
    if rng.random() < 0.3:
        picked = picked[:, ::-1]
    if rng.random() < 0.3:
        picked = picked.swapaxes(1, 2)
    if rng.random() < 0.35:
        w, h = rng.integers(int(SIDE * 0.55), SIDE + 1, 2)
        x, y = int(rng.integers(0, SIDE - w + 1)), int(rng.integers(0, SIDE - h + 1))
        crop = picked[:, y : y + h, x : x + w]
        picked = np.empty((len(crop), SIDE, SIDE, 4), np.uint8)
        for t, frame in enumerate(crop):
            picked[t, ..., :3] = cv2.resize(np.ascontiguousarray(frame[..., :3]), (SIDE, SIDE))
            picked[t, ..., 3] = cv2.resize(
                np.ascontiguousarray(frame[..., 3]), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST
            )
    picked = picked.copy()
    if rng.random() < 0.3:
        picked[..., :3] = picked[..., rng.permutation(3)]
    if rng.random() < 0.5:
        levels = np.arange(256)[None] * rng.uniform(0.6, 1.3) + rng.normal(0, 20, (3, 1))
        table = np.clip(levels, 0, 255).astype(np.uint8)
        for channel in range(3):
            picked[..., channel] = table[channel][picked[..., channel]]
    return picked


def main() -> None:
    parser = argparse.ArgumentParser(description="draw the training clips")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--kind", choices=sorted(KINDS), action="append")
    arguments = parser.parse_args()
    for name in arguments.kind or sorted(KINDS, reverse=True):
        draw_stock(name, arguments.folder, arguments.workers)


if __name__ == "__main__":
    main()
