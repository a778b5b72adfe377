# SPDX-License-Identifier: MIT
"""Read a filmed clip with masks from a folder, laid out as DAVIS lays out one of its clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError


class NoClipError(ValueError):
    """A folder is no clip with masks; the message says what is missing."""


@dataclass(frozen=True)
class RealClip:
    """frames: uint8 (T, H, W, 3), RGB. masks: by frame index, bool (N, H, W); 0 is among them."""

    name: str
    frames: np.ndarray
    masks: dict[int, np.ndarray]


def read_real_clip(folder: Path) -> RealClip:
    """JPEGImages/*.jpg in the order of their names, Annotations/NAME.png for some of them.

    A pixel of an annotation is 0 (background) or the number of its object; the objects are those
    of the first frame, and the clip begins with the first frame that has an annotation. A second
    annotated frame is needed to judge anything.

    Raises NoClipError if the folder is no such clip.
    """
    images = sorted((folder / "JPEGImages").glob("*.jpg"))
    annotations = {path.stem: path for path in (folder / "Annotations").glob("*.png")}
    images = images[next((i for i, p in enumerate(images) if p.stem in annotations), len(images)) :]
    if sum(path.stem in annotations for path in images) < 2:
        raise NoClipError(
            f"{folder} has no clip: wanted are JPEGImages/*.jpg and Annotations/*.png of the same "
            "names, for two frames or more: on the first one the objects start, on the others they "
            "are judged"
        )
    try:
        frames = [np.asarray(Image.open(path).convert("RGB")) for path in images]
        labels = {
            t: np.asarray(Image.open(annotations[path.stem]))
            for t, path in enumerate(images)
            if path.stem in annotations
        }
    except (UnidentifiedImageError, OSError) as error:
        raise NoClipError(f"{folder}: a picture cannot be read: {error}") from error
    sizes = {frame.shape[:2] for frame in frames} | {label.shape for label in labels.values()}
    if len(sizes) != 1:
        raise NoClipError(
            f"{folder}: all frames and annotations must have one size, and an annotation one "
            f"channel of object numbers; found {sorted(sizes)}"
        )
    numbers = [number for number in np.unique(labels[0]) if number]
    if not numbers:
        raise NoClipError(f"{folder}: the first annotation shows no object")
    masks = {t: np.stack([label == n for n in numbers]) for t, label in labels.items()}
    return RealClip(folder.name, np.stack(frames), masks)
