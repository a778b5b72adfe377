# SPDX-License-Identifier: MIT
"""A quick score during a training: the official predictor on clips like those of the evaluation.

They are of the same subsets, with other seeds: what chooses among the averages of a training must
not be what judges it afterwards (`training.evaluate`).
"""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import torch

from training.clips import Clip
from training.evaluation_set import SEMI_REAL_SUBSETS, SUBSETS
from training.model import CONFIG, build_predictor
from training.predict import silence_bars, tracked
from training.tally import Tally

CLIPS, FRAMES = 3, 16  # of each subset
FIRST_NUMBER = 1000  # of a clip; those of the evaluation sets are below


@lru_cache(maxsize=2)
def _clips(semi_real: bool) -> tuple[Clip, ...]:
    subsets = (*SUBSETS, *SEMI_REAL_SUBSETS) if semi_real else SUBSETS
    numbers = range(FIRST_NUMBER, FIRST_NUMBER + CLIPS)
    clips = [subset.draw(number) for subset in subsets for number in numbers]
    return tuple(Clip(clip.frames[:FRAMES], clip.masks[:FRAMES]) for clip in clips)


def score_of(weights: dict[str, torch.Tensor], device: str, semi_real: bool = True) -> float:
    """Mean J&F, 0..1, of weights under the names of sam2's state_dict.

    semi_real: on cut-outs over photographs too, and not on drawn clips alone.
    """
    silence_bars()
    clips = _clips(semi_real)
    random_state = torch.get_rng_state()
    predictor = build_predictor(CONFIG, None, device)
    torch.set_rng_state(random_state)
    predictor.load_state_dict(weights)
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        for clip in clips:
            masks = tracked(predictor, clip, "mask", Path(folder), [])
            for index in range(clip.masks.shape[1]):
                tally.add(masks[:, index], clip.masks[:, index])
    return tally.j_and_f
