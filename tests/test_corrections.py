# SPDX-License-Identifier: MIT
"""Corrections and keyframes against the official predictor on the same pixels.

The truth is the predictor with `add_all_frames_to_correct_as_cond`: what SAM 2 was trained with.
Logits are compared on every frame that is tracked or drawn, with LOGIT_TOLERANCE of
tracking.py; on the machine where this was written the largest difference is 0.0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor
from tracking import LOGIT_TOLERANCE, images, step, tight_box

from model_handler import ModelHandler
from sam2_tracker.clicks import Clicks
from sam2_tracker.mask_logits import logits_to_image_size
from sam2_tracker.memory_bank import MemoryBank, adopt_keyframes, correct_bank, start_bank
from sam2_tracker.memory_policy import remember
from sam2_tracker.models import ModelFiles
from sam2_tracker.predictions import FrameFeatures, Prediction, prediction_of
from tools.official import OfficialRun, Prompt, official_predictor
from tools.sam2_models import load_model
from training.clips import Clip, draw_clip

Encoded = Callable[[ModelFiles], list[FrameFeatures]]
FRAMES = 30
SIZE = {"width": 320, "height": 240}


@dataclass
class OurRun:
    """The same actions with banks that are handed in and out."""

    model: ModelHandler
    frames: Sequence[FrameFeatures]
    policy: str = "official"
    banks: dict[int, MemoryBank] = field(default_factory=dict)
    before: dict[int, MemoryBank] = field(default_factory=dict)
    """Each object's bank before its last step."""
    at: dict[int, int] = field(default_factory=dict)
    """The frame on which each object stands."""
    found: dict[int, dict[int, Tensor]] = field(default_factory=dict)
    direction: int = 1

    def draw(self, number: int, frame: int, prompt: Prompt) -> None:
        features, chosen = self.frames[frame], [prompt]
        tracked = self.at.get(number) == frame and number in self.before
        if tracked and not isinstance(prompt, np.ndarray):
            before = self.before[number]
            (corrected,) = self.model.correct(features, [before], chosen, **SIZE)
            drawn = self._keep(number, frame, prediction_of(corrected))
            self.banks[number] = correct_bank(before, drawn, distance=1)
            return
        (started,) = self.model.start(features, chosen, **SIZE)
        drawn = self._keep(number, frame, prediction_of(started))
        if number not in self.banks:
            self.banks[number], self.at[number] = drawn, frame
            return
        bank, distance = self.banks[number], (frame - self.at[number]) * self.direction
        if distance == 0 and number in self.before:
            self.banks[number] = correct_bank(bank, drawn, distance=0)
            # From the state of the frame before it is the same.
            other = correct_bank(self.before[number], drawn, distance=1)
            assert other.step == self.banks[number].step
        else:
            self.banks[number] = adopt_keyframes(bank, [(drawn, distance)])

    def track(self, start: int, last: int) -> None:
        for index in range(start, last + self.direction, self.direction):
            behind = [n for n in self.banks if self.at[n] == index - self.direction]
            predictions = step(self.model, self.frames[index], [self.banks[n] for n in behind])
            for number, prediction in zip(behind, predictions, strict=True):
                drawn = [frame.step for frame in self.banks[number].conditioning]
                if self.banks[number].step + 1 not in drawn:
                    self._found(number, index, prediction)
                self.before[number] = self.banks[number]
                bank = self.banks[number]
                self.banks[number] = remember(bank, prediction.seen, self.model.layout)
                self.at[number] = index

    def _keep(self, number: int, frame: int, prediction: Prediction) -> MemoryBank:
        self._found(number, frame, prediction)
        return start_bank(self.policy, prediction.seen)

    def _found(self, number: int, frame: int, prediction: Prediction) -> None:
        logits = logits_to_image_size(prediction.logits, **SIZE)
        self.found.setdefault(number, {})[frame] = logits


@pytest.fixture(scope="module")
def clip() -> Clip:
    return draw_clip(3, frames=FRAMES, **SIZE, objects=3, leaving=True)


@pytest.fixture(scope="module")
def encoded(clip: Clip) -> Encoded:
    """The clip's frames as a model sees them; each model encodes them once for all tests."""

    @cache
    def encode(files: ModelFiles) -> list[FrameFeatures]:
        model = load_model(files)
        return [model.encode(image) for image in images(clip)]

    return encode


# Each: the actions, and how many conditioning frames attention sees. (number, frame, prompt) draws
# an object on a frame, for the first time or to correct it. (start, last) tracks all objects to a
# frame, from where they stand. Of the prompts (number, frame) stands for that object's true mask on
# that frame, a pair in a list for its tight box, a pair after a word for clicks on it.
SCENARIOS: dict[str, tuple[list[tuple[Any, ...]], int]] = {
    "a correction by a mask": ([(0, 0, (0, 0)), (1, 22), (0, 22, (0, 22)), (22, 29)], 0),
    "two corrections": (
        [(0, 0, (0, 0)), (1, 9), (0, 9, (0, 9)), (9, 14), (0, 14, (0, 14)), (14, 29)],
        0,
    ),
    "a correction of the seed frame": ([(0, 0, (0, 0)), (1, 12), (0, 0, (1, 0)), (13, 29)], 0),
    "a keyframe ahead": ([(0, 0, (0, 0)), (0, 24, (0, 24)), (1, 29)], 0),
    "backwards between keyframes": ([(0, 29, (0, 29)), (0, 4, (0, 4)), (28, 0)], 0),
    "the nearest two of four, without the seed": (
        [(0, 0, (0, 0)), (0, 8, (0, 8)), (0, 15, (0, 15)), (0, 20, (0, 20)), (1, 29)],
        2,
    ),
    "one of three objects is corrected": (
        [(0, 0, (0, 0)), (1, 0, (1, 0)), (2, 0, [(2, 0)]), (1, 20), (1, 20, (1, 20)), (20, 29)],
        0,
    ),
    "a correction by a box": ([(0, 0, (0, 0)), (1, 22), (0, 22, [(0, 22)]), (22, 29)], 0),
    "one click, corrected by several": (
        [(0, 0, ("click", 0, 0)), (1, 12), (0, 12, ("clicks", 0, 12)), (12, 29)],
        0,
    ),
    "a box with clicks, corrected by one": (
        [(0, 0, ("box and clicks", 1, 0)), (1, 12), (0, 12, ("click", 1, 12)), (12, 29)],
        0,
    ),
}


def clicks_on(true: np.ndarray, word: str) -> Clicks:
    """Two on the object and one beside it; or the first of them."""
    y, x = np.argwhere(true)[[true.sum() // 2, true.sum() // 4]].T.tolist()
    points = ((x[0] + 0.5, y[0] + 0.25), (float(x[1]), float(y[1])), (3.0, 4.5))
    count = 1 if word == "click" else 3
    box = tight_box(true) if word.startswith("box") else None
    return Clicks(points=points[:count], positive=(True, True, False)[:count], box=box)


def prompt_of(item: Any, clip: Clip) -> Prompt:
    if isinstance(item, list):
        (inside,) = item
        return tight_box(clip.masks[inside[1], inside[0]])
    *words, number, frame = item
    true = clip.masks[frame, number]
    return clicks_on(true, *words) if words else true


@cache
def predictor_of(files: ModelFiles) -> SAM2VideoPredictor:
    return official_predictor(files, fill_hole_area=8)


SLOW = pytest.mark.slow
CASES = [
    *((name, "official", "small_files") for name in SCENARIOS),
    ("two corrections", "official", "micro_files"),
    # The object is in sight on every frame, so quality is official.
    ("the nearest two of four, without the seed", "quality", "small_files"),
    ("one of three objects is corrected", "official", "efficienttam_files"),
    ("a box with clicks, corrected by one", "official", "efficienttam_files"),
]


@SLOW
@pytest.mark.parametrize(("name", "policy", "family_files"), CASES, indirect=["family_files"])
def test_corrections_give_the_logits_of_the_official_predictor(
    name: str, policy: str, clip: Clip, encoded: Encoded, family_files: ModelFiles, tmp_path: Path
) -> None:
    rows, nearest = SCENARIOS[name]
    predictor = predictor_of(family_files)
    predictor.max_cond_frames_in_attn = nearest or -1
    official = OfficialRun(predictor, images(clip), tmp_path)
    model = load_model(family_files, fill_hole_area=8, conditioning_frames=nearest)
    ours = OurRun(model, encoded(family_files), policy)
    # What was drawn shows only once the official predictor passes over it.
    ours.direction = -1 if name.startswith("backwards") else 1
    for row in rows:
        for run in (official, ours):
            if len(row) == 3:
                run.draw(row[0], row[1], prompt_of(row[2], clip))
            else:
                run.track(*row)
    compared = [
        float((logits - official.found[number][index]).abs().max())
        for number, found in ours.found.items()
        for index, logits in found.items()
        if index in official.found[number]
    ]
    print(f"{name}: {len(compared)} frames, largest difference of a logit {max(compared)}")
    assert len(compared) >= 26
    assert max(compared) < LOGIT_TOLERANCE


@SLOW
def test_a_correction_changes_what_follows(
    clip: Clip, encoded: Encoded, small_files: ModelFiles
) -> None:
    """Else the comparisons above would not see that it is missing."""
    model, runs = load_model(small_files), []
    for corrected in (False, True):
        run = OurRun(model, encoded(small_files))
        run.draw(0, 0, clip.masks[0, 0])
        run.track(1, 22)
        if corrected:
            run.draw(0, 22, clip.masks[22, 1])  # another object's place
        run.track(23, 29)
        runs.append(run)
    one, other = (run.found[0] for run in runs)
    assert max(float((one[i] - other[i]).abs().max()) for i in range(23, 30)) > 1
