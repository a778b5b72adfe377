# SPDX-License-Identifier: MIT
"""Our model run frame by frame, to be compared with the official predictor."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sam2
import torch
from PIL import Image
from torch import Tensor

from model_handler import ModelHandler
from sam2_tracker.mask_logits import logits_to_image_size
from sam2_tracker.memory_bank import MemoryBank, start_bank
from sam2_tracker.memory_policy import remember
from sam2_tracker.predictions import Prediction, prediction_of
from tools.official import Prompt
from training.clips import Clip

SAM2_CONFIGS = Path(sam2.__file__).parent / "configs"
# In float32 every sum is taken in the official order (official_rounding.py): 0.0 is what is seen.
# On another processor a kernel may round otherwise and move a memory to the next bfloat16, a logit
# by some 1e-3. An exchanged age or a missing pointer moves it by 1 and more.
LOGIT_TOLERANCE = 1e-2

Logits = list[dict[int, Tensor]]
"""By object, by frame, at image size."""


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def images(clip: Clip) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in clip.frames]


def tight_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    y, x = np.nonzero(mask)
    return float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)


def start(model: ModelHandler, image: Image.Image, prompts: Sequence[Any]) -> list[Prediction]:
    width, height = image.size
    found = model.start(model.encode(image), prompts, width=width, height=height)
    return [prediction_of(result) for result in found]


def step(model: ModelHandler, frame: Any, banks: Sequence[MemoryBank]) -> list[Prediction]:
    return [prediction_of(result) for result in model.step(frame, banks)]


def our_logits(
    model: ModelHandler,
    frames: Sequence[Image.Image],
    prompts: Sequence[Prompt],
    starts: Sequence[int] | None = None,
    policy: str = "official",
) -> Logits:
    """As official_logits gives them."""
    starts = starts or [0] * len(prompts)
    width, height = frames[0].size
    banks: dict[int, MemoryBank] = {}
    found: Logits = [{} for _ in prompts]
    for index, image in enumerate(frames):
        frame, known = model.encode(image), list(banks)
        predictions = step(model, frame, [banks[number] for number in known])
        for number, prediction in zip(known, predictions, strict=True):
            banks[number] = remember(banks[number], prediction.seen, model.layout)
        new = [number for number, first in enumerate(starts) if first == index]
        chosen: list[Any] = [prompts[number] for number in new]
        started = [prediction_of(r) for r in model.start(frame, chosen, width=width, height=height)]
        for number, prediction in zip(new, started, strict=True):
            banks[number] = start_bank(policy, prediction.seen)
        for number, prediction in zip(known + new, predictions + started, strict=True):
            found[number][index] = logits_to_image_size(
                prediction.logits, width=width, height=height
            )
    return found


def largest_difference(ours: Logits, official: Logits) -> float:
    assert [set(each) for each in ours] == [set(each) for each in official]
    largest = max(
        float((one - official[number][index]).abs().max())
        for number, each in enumerate(ours)
        for index, one in each.items()
    )
    print(f"largest difference of a logit: {largest}")
    return largest


def mean_overlap(ours: Logits, others: Logits) -> float:
    """The mean IoU of the masks; it is 1 where both are hidden."""
    overlaps = []
    for one, other in zip(ours, others, strict=True):
        for a, b in ((one[index] > 0, other[index] > 0) for index in one):
            overlaps.append(float((a & b).sum() / (a | b).sum()) if (a | b).any() else 1.0)
    return float(np.mean(overlaps))


def hide_all_objects(checkpoint: Path) -> None:
    """Changes a checkpoint so that its model holds every object that is tracked for absent."""
    content = torch.load(checkpoint, weights_only=True)
    for name, tensor in content["model"].items():
        if name.startswith("sam_mask_decoder.pred_obj_score_head") and tensor.shape == (1,):
            tensor.fill_(-10.0)
    torch.save(content, checkpoint)
