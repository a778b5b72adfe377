# SPDX-License-Identifier: MIT
"""The clips that the micro model is judged on and never trained on: seeds and parameters."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from training.clips import Clip, draw_clip


@dataclass(frozen=True)
class Subset:
    """Clips first_seed .. first_seed + clips - 1, with textures from pictures held out."""

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

    def draw(self, number: int) -> Clip:
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
            pictures="held_out",
            motion=self.motion,
        )


# Training seeds are 1,000,000 and above (training/dataset.py).
SUBSETS = (
    Subset("plain", 100, 14, 3, 0, 0, True, 1, 1.0),
    Subset("occlusion", 200, 20, 1, 6, 0, False, 1, 0.8),
    Subset("distractor", 300, 12, 2, 0, 2, False, 1, 1.0),
)


def parameters_hash() -> str:
    """Of the seeds and parameters above; printed before a training and beside its figures."""
    text = json.dumps([asdict(subset) for subset in SUBSETS], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
