# SPDX-License-Identifier: MIT
"""The clips that the micro model is judged on and never trained on: seeds and parameters.

Four sets: drawn shapes with textures held out; the same with plain covers; cut-outs of kinds held
out over photographs and films held out ("semi-real"); the same with parts of things.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from training import pictures
from training.clips import Clip, draw_clip
from training.composites import draw_composite
from training.covers import lay_cover
from training.textures import Pictures


@dataclass(frozen=True)
class Subset:
    """Clips first_seed .. first_seed + clips - 1; of held-out pictures unless `side` is given."""

    name: str
    first_seed: int
    clips: int
    objects: int
    hidden: int
    distractors: int
    leaving: bool
    clutter: int
    motion: float
    frames: int = 30
    width: int = 320
    height: int = 256

    def draw(self, number: int, side: Pictures = "held_out") -> Clip:
        return draw_clip(
            self.first_seed + number,
            frames=self.frames,
            width=self.width,
            height=self.height,
            objects=self.objects,
            hidden=self.hidden,
            distractors=self.distractors,
            leaving=self.leaving,
            clutter=self.clutter,
            pictures=side,
            motion=self.motion,
        )


@dataclass(frozen=True)
class CoveredSubset(Subset):
    """The same, with a plain grey rectangle over object 0 for a while."""

    covered_from: int = 10
    covered_frames: int = 9

    def draw(self, number: int, side: Pictures = "held_out") -> Clip:
        clip = super().draw(number, side)
        frames, masks = clip.frames.copy(), clip.masks.copy()
        grey = np.full(3, 128)
        lay_cover(
            frames, masks.transpose(1, 0, 2, 3), 0, self.covered_from, self.covered_frames, grey
        )
        return Clip(frames, masks)


@dataclass(frozen=True)
class SemiRealSubset:
    """Clips first_seed .. first_seed + clips - 1, of cut-outs and photographs held out.

    Every third clip has a filmed background; every fifth is upright.
    """

    name: str
    first_seed: int
    clips: int
    objects: int
    hidden: int
    twins: bool
    clutter: int
    motion: float
    frames: int = 40
    width: int = 640
    height: int = 360

    def draw(self, number: int, folder: Path = pictures.FOLDER) -> Clip:
        return self._draw(number, folder, parts=0.0)

    def _draw(self, number: int, folder: Path, parts: float) -> Clip:
        upright = number % 5 == 4
        return draw_composite(
            self.first_seed + number,
            frames=self.frames,
            width=self.height if upright else self.width,
            height=self.width if upright else self.height,
            objects=self.objects,
            side="held_out",
            hidden=self.hidden,
            twins=self.twins,
            clutter=self.clutter,
            pseudo=0.0,
            motion=self.motion,
            use_film=number % 3 == 2,
            parts=parts,
            folder=folder,
        )


@dataclass(frozen=True)
class PartsSubset(SemiRealSubset):
    """The same with parts of things: the rest of each thing goes on beside its mask."""

    parts: float = 1.0

    def draw(self, number: int, folder: Path = pictures.FOLDER) -> Clip:
        return self._draw(number, folder, self.parts)


# Training seeds are 1,000,000 and above (training/dataset.py).
SUBSETS = (
    Subset("plain", 100, 14, 3, 0, 0, True, 1, 1.0),
    Subset("occlusion", 200, 20, 1, 6, 0, False, 1, 0.8),
    Subset("distractor", 300, 12, 2, 0, 2, False, 1, 1.0),
)
COVERED_SUBSETS = (CoveredSubset("covered", 700, 12, 1, 0, 0, False, 1, 0.8),)
SEMI_REAL_SUBSETS = (
    SemiRealSubset("free", 400, 14, 2, 0, False, 1, 1.0),
    SemiRealSubset("hidden", 500, 8, 1, 8, False, 1, 0.8),
    SemiRealSubset("twins", 600, 8, 2, 0, True, 1, 0.8),
)
PARTS_SUBSETS = (PartsSubset("parts", 800, 12, 2, 0, False, 1, 0.8),)
# What the sets are frozen as: of their parameters, and of the held-out pictures' files.
DRAWN_HASH = "3185ef38ac83e795"
COVERED_HASH = "cb727e2f00745355"
SEMI_REAL_HASH = "54b923700e324ee7"
PARTS_HASH = "5eefc8dc54063996"
HELD_OUT_PICTURES = "8c3815c8fa058ec8"


def parameters_hash(subsets: Sequence[Subset | SemiRealSubset] = SUBSETS) -> str:
    """Of the seeds and parameters above; printed before a training and beside its figures."""
    text = json.dumps([asdict(subset) for subset in subsets], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_frozen(folder: Path | None = pictures.FOLDER) -> None:
    """Raises ValueError where a set is not the frozen one. folder: None leaves the files out."""
    expected = {
        "the drawn evaluation set": (parameters_hash(SUBSETS), DRAWN_HASH),
        "the covered evaluation set": (parameters_hash(COVERED_SUBSETS), COVERED_HASH),
        "the semi-real evaluation set": (parameters_hash(SEMI_REAL_SUBSETS), SEMI_REAL_HASH),
        "the set of parts": (parameters_hash(PARTS_SUBSETS), PARTS_HASH),
    }
    if folder is not None:
        found = pictures.digest("held_out", folder)[:16]
        expected["the held-out pictures"] = (found, HELD_OUT_PICTURES)
    for name, (found, frozen) in expected.items():
        if found != frozen:
            raise ValueError(f"{name} changed: {found}, not {frozen}; figures are not comparable")
