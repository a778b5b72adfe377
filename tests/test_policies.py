# SPDX-License-Identifier: MIT
"""Memory policies against the official predictor with its choice of memory frames replaced."""

from pathlib import Path

import numpy as np
import pytest
import torch
from memory_oracle import MemoryOracle
from PIL import Image
from tracking import LOGIT_TOLERANCE, images, largest_difference, our_logits, tight_box

from sam2_tracker.models import ModelFiles, model_files
from sam2_tracker.settings import Settings
from tools.official import Prompt, official_logits, official_predictor
from tools.sam2_models import load_model
from training.clips import Clip, draw_clip

FRAMES = 48


@pytest.fixture(scope="module")
def clip() -> Clip:
    return draw_clip(3, frames=FRAMES, width=320, height=240, objects=3)


@pytest.fixture(scope="module")
def covered(clip: Clip) -> list[Image.Image]:
    """The clip with two stretches in which a cover hides one half, then everything."""
    frames = []
    for index, image in enumerate(images(clip)):
        pixels = np.asarray(image).copy()
        if 10 <= index < 18:
            pixels[:, :160] = 127
        if 26 <= index < 37:
            pixels[:] = 127
        frames.append(Image.fromarray(pixels))
    return frames


@pytest.fixture(scope="module")
def hiding_files(family_files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """A model that holds objects for hidden where they are covered. Random weights answer scores
    from which plain grey stands out, and a bias makes that the limit."""
    if family_files.name == "sam2.1_hiera_micro":
        return family_files
    content = torch.load(family_files.checkpoint, weights_only=True)
    score = "sam_mask_decoder.pred_obj_score_head.layers.2"
    content["model"][f"{score}.weight"].mul_(-100)
    content["model"][f"{score}.bias"].fill_(21)
    checkpoint = tmp_path_factory.mktemp("hiding") / "efficienttam.pt"
    torch.save(content, checkpoint)
    return model_files(Settings(config=family_files.config, checkpoint=checkpoint))


@pytest.mark.parametrize(
    ("policy", "family_files"),
    [("quality", "small_files"), ("anchors", "small_files"), ("quality", "efficienttam_files")],
    indirect=["family_files"],
)
@pytest.mark.slow
def test_quality_and_anchors_give_the_logits_of_the_memory_oracle_over_hidden_stretches(
    policy: str, clip: Clip, covered: list[Image.Image], hiding_files: ModelFiles, tmp_path: Path
) -> None:
    masks, starts, frames = clip.masks, [0, 0, 0, 4], covered
    prompts: list[Prompt] = [masks[0, 0], tight_box(masks[0, 1]), masks[0, 2], masks[4, 0]]
    if hiding_files.name != "sam2.1_hiera_micro":  # a slow model: one stretch and two objects
        frames, prompts, starts = covered[23:40], prompts[:2], starts[:2]
    predictor = official_predictor(hiding_files, fill_hole_area=8)
    MemoryOracle(predictor, policy)
    official = official_logits(predictor, frames, prompts, tmp_path, starts=starts)
    model = load_model(hiding_files, fill_hole_area=8)
    ours = our_logits(model, frames, prompts, starts, policy=policy)
    hidden = [not (each[len(frames) - 12] > 0).any() for each in official]
    assert any(hidden)  # else nothing would be told apart
    assert largest_difference(ours, official) < LOGIT_TOLERANCE


@pytest.mark.parametrize("family_files", ["small_files", "efficienttam_files"], indirect=True)
@pytest.mark.slow
def test_the_policies_differ_where_objects_hide(
    clip: Clip, covered: list[Image.Image], hiding_files: ModelFiles
) -> None:
    """And nowhere else: up to the first hidden frame they are the same, bit for bit."""
    model = load_model(hiding_files, fill_hole_area=8)
    frames = [*covered[:8], *covered[26:42]]
    found = {
        policy: our_logits(model, frames, [clip.masks[0, 0], clip.masks[0, 2]], policy=policy)
        for policy in ("official", "quality")
    }
    pairs = list(zip(found["official"], found["quality"], strict=True))
    differences = [
        max(float((one[n] - other[n]).abs().max()) for one, other in pairs) for n in range(24)
    ]
    visible = [all((one[n] > 0).any() for one, _ in pairs) for n in range(24)]
    first_hidden = visible.index(False)
    assert first_hidden < 20
    assert max(differences[: first_hidden + 2]) == 0.0
    assert max(differences) > 1
