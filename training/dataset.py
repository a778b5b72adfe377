# SPDX-License-Identifier: MIT
"""The training clips on disk, and batches from them: `python -m training.dataset` draws ahead.

A clip is two files: its frames below one another in a JPEG, its labels likewise in a PNG. What is
not on disk yet is drawn when it is asked for, so a training may begin before all of it is there.
No torch here.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from training import pictures
from training.clips import Clip, draw_clip
from training.composites import draw_composite
from training.covers import cover_by_chance
from training.textures import Pictures

SIDE = 384  # of the square pictures that the model sees
FOLDER = Path("out/training")
# Training seeds start here; the evaluation's seeds are below (training/evaluation_set.py).
FIRST_SEED = 1_000_000
COVERED_SHARE = 0.15  # of the clips of at least 4 frames in which a plain rectangle hides an object
LEAST_PIXELS = 150  # of an object in the frame that it is prompted in, at SIDE x SIDE
DATA_VERSION = 2  # raise it when the same number no longer gives the same clip


@dataclass(frozen=True)
class Kind:
    """A stock of clips.

    frames: of each. clips: how many. hidden_share, longest_hidden: how often something hides, and
    for how many frames at most. composite: cut-outs over photographs, else drawn shapes.
    area: pixels of a frame of any aspect. pictures: the textures of drawn shapes.
    """

    frames: int
    clips: int
    hidden_share: float
    longest_hidden: int
    first_seed: int
    composite: bool
    area: int = 300 * 300
    pictures: Pictures = "training"


KINDS = {
    "drawn": Kind(8, 1500, 0.35, 3, FIRST_SEED, composite=False),
    "drawn_long": Kind(20, 600, 0.7, 9, 2 * FIRST_SEED, composite=False),
    "mottled": Kind(8, 400, 0.35, 3, 4 * FIRST_SEED, composite=False, pictures="mottled"),
    "composite": Kind(10, 3000, 0.15, 3, 5 * FIRST_SEED, composite=True, area=370 * 370),
    "composite_long": Kind(22, 1000, 0.5, 12, 6 * FIRST_SEED, composite=True, area=340 * 340),
}
DRAWN_KINDS = tuple(name for name, kind in KINDS.items() if not kind.composite)


def frame_size(rng: np.random.Generator, area: int) -> tuple[int, int]:
    """Width and height: half of the clips are 16:9, the others anything from 9:16 to 1.91:1."""
    if rng.random() < 0.5:
        aspect = 16 / 9
    else:
        aspect = float(np.exp(rng.uniform(np.log(0.56), np.log(1.91))))
    return round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)


def training_clip(kind: Kind, number: int, picture_folder: Path = pictures.FOLDER) -> Clip:
    """The clip `number` of a stock; its parameters are drawn from its seed too."""
    seed = kind.first_seed + number
    rng = np.random.default_rng((seed, 7))
    hides = rng.random() < kind.hidden_share
    hidden = int(rng.integers(1, kind.longest_hidden + 1)) if hides else 0
    width, height = frame_size(rng, kind.area)
    leaving = bool(rng.random() < 0.2)
    clutter = int(rng.choice([0, 1, 2, 3], p=[0.3, 0.35, 0.2, 0.15]))
    if kind.composite:
        objects = int(rng.integers(1, 4))
        motion = float(rng.uniform(0.3, 1.5))
        for attempt in range(20):
            try:
                return draw_composite(
                    seed + attempt * 100_000,
                    frames=kind.frames,
                    width=width,
                    height=height,
                    objects=objects,
                    side="training",
                    hidden=hidden,
                    twins=bool(rng.random() < 0.3),
                    leaving=leaving,
                    clutter=clutter,
                    motion=motion,
                    folder=picture_folder,
                )
            except ValueError:
                continue
        raise ValueError(f"clip {number} finds no arrangement")
    return draw_clip(
        seed,
        frames=kind.frames,
        width=width,
        height=height,
        objects=int(rng.integers(2, 5)),
        hidden=hidden,
        distractors=int(rng.choice([0, 1, 2], p=[0.6, 0.25, 0.15])),
        leaving=leaving,
        clutter=clutter,
        pictures=kind.pictures,
        motion=float(rng.uniform(0.3, 1.6)),
    )


def labels_of(masks: np.ndarray) -> np.ndarray:
    """bool (T, N, H, W) of objects that share no pixel, as uint8 (T, H, W): 0, or 1 + the index."""
    numbers = np.arange(1, masks.shape[1] + 1, dtype=np.uint8)[None, :, None, None]
    return np.asarray((masks * numbers).sum(1), np.uint8)


def write_clip(clip: Clip, path: Path, quality: int) -> None:
    """path.jpg and path.png, the frames below one another; whole or not at all."""
    height, width = clip.frames.shape[1:3]
    strips = {
        ".png": (labels_of(clip.masks).reshape(-1, width), []),
        ".jpg": (
            clip.frames[..., ::-1].reshape(-1, width, 3),
            [cv2.IMWRITE_JPEG_QUALITY, quality],
        ),
    }
    for suffix, (strip, options) in strips.items():  # the JPEG last: it says that both are there
        part = path.with_name(f"{path.name}.{os.getpid()}.part{suffix}")
        if not cv2.imwrite(str(part), np.ascontiguousarray(strip), options):
            raise OSError(f"{part} cannot be written")
        part.replace(path.with_suffix(suffix))


def read_clip(path: Path, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 (T, H, W, 3), RGB, and labels uint8 (T, H, W)."""
    strip = cv2.imread(str(path.with_suffix(".jpg")), cv2.IMREAD_COLOR)
    labels = cv2.imread(str(path.with_suffix(".png")), cv2.IMREAD_UNCHANGED)
    if strip is None or labels is None or strip.shape[:2] != labels.shape:
        raise OSError(f"{path}.jpg and .png are not a clip: remove them, they are drawn again")
    height, width = strip.shape[0] // frames, strip.shape[1]
    return (
        strip.reshape(frames, height, width, 3)[..., ::-1],
        labels.reshape(frames, height, width),
    )


def ensure_clip(name: str, number: int, folder: Path = FOLDER) -> Path:
    """The path (without suffix) of a clip on disk; it is drawn if it is not there yet."""
    kind = KINDS[name]
    path = folder / f"{name}-v{DATA_VERSION}" / f"{number:05d}"
    if not path.with_suffix(".jpg").exists():
        cv2.setNumThreads(1)
        path.parent.mkdir(parents=True, exist_ok=True)
        quality = int(np.random.default_rng((kind.first_seed + number, 8)).integers(55, 97))
        write_clip(training_clip(kind, number), path, quality)
    return path


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
    """Clips of one kind; those that are not on disk are drawn when they are needed."""

    def __init__(self, name: str, folder: Path = FOLDER, clips: int | None = None) -> None:
        self._name, self._folder, self._kind = name, folder, KINDS[name]
        self._clips = clips or self._kind.clips

    def __len__(self) -> int:
        return self._clips

    def sample(
        self, rng: np.random.Generator, clips: int, frames: int, objects: int, widest_stride: int,
        side: int = SIDE,
    ) -> Batch:  # fmt: skip
        """clips x up to `objects` objects over `frames` frames, augmented, side x side pixels."""
        images: list[np.ndarray] = []
        masks: list[np.ndarray] = []
        clip_of: list[int] = []
        least = LEAST_PIXELS * (side / SIDE) ** 2
        while len(images) < clips:
            path = ensure_clip(self._name, int(rng.integers(len(self))), self._folder)
            shots, labels = read_clip(path, self._kind.frames)
            chosen = window(rng, len(shots), frames, widest_stride)
            shots, shown = augment(rng, shots[chosen], labels[chosen], side)
            if rng.random() < COVERED_SHARE:
                cover_by_chance(rng, shots, shown)
            seen = np.flatnonzero(shown[:, 0].sum((1, 2)) >= least)
            if not len(seen):
                continue
            # Objects that vanish on the way teach silence and re-finding: they come first.
            gone = np.array([not shown[i].any((1, 2)).all() for i in seen])
            order = np.argsort(rng.random(len(seen)) - 1.0 * (gone & (rng.random(len(seen)) < 0.5)))
            for i in seen[order[:objects]]:
                masks.append(shown[i])
                clip_of.append(len(images))
            images.append(shots)
        return Batch(np.stack(images), np.stack(masks), np.array(clip_of), times_of(rng, frames))


def times_of(rng: np.random.Generator, frames: int) -> tuple[int, ...]:
    """Frame indices with gaps, so that short clips teach all of the temporal encodings."""
    if frames > 6 or rng.random() < 0.3:
        steps = np.ones(frames - 1, int)
    else:
        steps = rng.choice([1, 2, 3], frames - 1, p=[0.75, 0.15, 0.1])
    if frames > 1 and rng.random() < 0.5:
        steps[0] += int(rng.integers(0, 26))
    return (0, *np.cumsum(steps).tolist())


def window(rng: np.random.Generator, length: int, frames: int, widest_stride: int) -> np.ndarray:
    """Which frames of a clip are taken, int (frames,): forwards or backwards, evenly spaced.

    The stride is drawn first and shortened only as far as the clip is too short for it.
    """
    stride = int(rng.integers(1, widest_stride + 1))
    while frames > 1 and (frames - 1) * stride >= length:
        stride -= 1
    span = (frames - 1) * stride + 1
    # Objects are sure to be visible in frame 0, so it is the start more often than chance has it.
    start = 0 if rng.random() < 0.3 else int(rng.integers(0, length - span + 1))
    chosen = np.arange(start, start + span, stride)
    return chosen[::-1] if rng.random() < 0.3 else chosen


def augment(
    rng: np.random.Generator, shots: np.ndarray, labels: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """A crop, a flip and other light, squashed to a square as SAM 2 squashes its videos.

    shots: uint8 (T, H, W, 3); labels: uint8 (T, H, W). Gives uint8 (T, side, side, 3) and bool
    (N, T, side, side): a pixel is the object's where at least half of it is.
    """
    count, height, width = labels.shape
    if rng.random() < 0.4:
        w, h = int(width * rng.uniform(0.5, 1)), int(height * rng.uniform(0.5, 1))
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        shots, labels = shots[:, y : y + h, x : x + w], labels[:, y : y + h, x : x + w]
        height, width = h, w
    if rng.random() < 0.5:
        shots, labels = shots[:, :, ::-1], labels[:, :, ::-1]
    objects = int(labels.max())
    images = np.empty((count, side, side, 3), np.uint8)
    masks = np.empty((objects, count, side, side), bool)
    how = cv2.INTER_AREA if height * width > 1.1 * side * side else cv2.INTER_LINEAR
    tables = colour_tables(rng, count)
    grey = rng.random() < 0.05
    for t in range(count):
        image = cv2.resize(np.ascontiguousarray(shots[t]), (side, side), interpolation=how)
        if grey:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        images[t] = cv2.LUT(image, tables[t])
        for index in range(objects):
            covered = np.ascontiguousarray(labels[t] == index + 1).astype(np.float32)
            masks[index, t] = (
                np.asarray(cv2.resize(covered, (side, side), interpolation=how)) >= 0.5
            )
    return images, masks


def colour_tables(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Brightness, contrast and colour cast of a clip, and a little of its own for every frame.

    uint8 (T, 256, 1, 3), for cv2.LUT.
    """
    levels = np.arange(256, dtype=np.float64)[None, :, None]
    strong = rng.random() < 0.6
    gain = rng.uniform(0.75, 1.3, (1, 1, 1)) if strong else np.ones((1, 1, 1))
    cast = rng.normal(0, 8, (1, 1, 3)) if strong else np.zeros((1, 1, 3))
    shift = rng.normal(0, 12, (1, 1, 1)) if strong else np.zeros((1, 1, 1))
    unsteady = 1.0 if rng.random() < 0.5 else 0.0
    gain = gain * (1 + unsteady * rng.normal(0, 0.04, (frames, 1, 1)))
    shift = shift + unsteady * rng.normal(0, 4, (frames, 1, 1))
    tables = (levels - 128) * gain + 128 + cast + shift
    return np.clip(np.round(tables), 0, 255).astype(np.uint8)[:, :, None, :]


def main() -> None:
    parser = argparse.ArgumentParser(description="draw the training clips that are not there yet")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--kind", choices=sorted(KINDS), action="append")
    parser.add_argument("--clips", type=int, help="only the first of each kind")
    arguments = parser.parse_args()
    for name in arguments.kind or KINDS:
        if KINDS[name].composite:
            try:
                pictures.fetch()
            except pictures.NoPicturesError as error:
                raise SystemExit(str(error)) from error
        draw = partial(ensure_clip, name, folder=arguments.folder)
        numbers = range(min(KINDS[name].clips, arguments.clips or KINDS[name].clips))
        with ProcessPoolExecutor(arguments.workers or os.cpu_count()) as pool:
            drawn = pool.map(draw, numbers, chunksize=4)
            for _ in tqdm(drawn, total=len(numbers), desc=name, mininterval=10):
                pass


if __name__ == "__main__":
    main()
