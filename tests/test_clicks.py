# SPDX-License-Identifier: MIT
"""Clicks on a single image: our decoding against sam2's own predictor for images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clicking import SIZE
from PIL import Image
from tracking import SAM2_CONFIGS

from model_handler import ModelHandler
from sam2_tracker.clicks import Clicks
from sam2_tracker.errors import ModelFailure
from sam2_tracker.models import ModelFiles
from sam2_tracker.predictions import Candidates, FrameFeatures
from tools.official import official_image_predictor
from tools.sam2_models import load_model, random_model

Both = tuple[ModelHandler, Any]
"""ours, and sam2's predictor for images"""
BOX = (60.5, 40.25, 200.0, 180.0)
POINTS = ((120.0, 90.5), (150.25, 130.0), (20.0, 200.0))
PROMPTS = {
    "point": Clicks(points=POINTS[:1], positive=(True,)),
    "points": Clicks(points=POINTS, positive=(True, True, False)),
    "box": Clicks(box=BOX),
    "box and points": Clicks(points=POINTS[1:], positive=(True, False), box=BOX),
}


@pytest.fixture(
    scope="module",
    params=["micro", pytest.param("sam2.1_hiera_t.yaml", marks=pytest.mark.slow)],
)
def both(request: pytest.FixtureRequest, micro_files: ModelFiles, tmp_path_factory: Any) -> Both:
    """The bundled model, and Meta's tiny one with random weights at 256 px."""
    files = micro_files
    if request.param != "micro":
        folder: Path = tmp_path_factory.mktemp("random")
        files = random_model(SAM2_CONFIGS / "sam2.1" / request.param, folder, image_size=256)
    return load_model(files), official_image_predictor(files)


def decode(
    model: ModelHandler, frame: FrameFeatures, prompts: Sequence[Clicks], **options: Any
) -> list[Candidates]:
    found = model.decode(frame, prompts, **SIZE, **options)
    assert not any(isinstance(each, ModelFailure) for each in found)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("name", PROMPTS)
def test_equal_to_sam2s_image_predictor(both: Both, picture: Image.Image, name: str) -> None:
    """Every bit of every candidate, with and without what was found before."""
    model, predictor = both
    frame, previous, clicks = model.encode(picture, single=True), (), PROMPTS[name]
    predictor.set_image(picture)
    before = None
    for multimask in (True, False):  # the first as a single click, then its correction
        (ours,) = decode(model, frame, [clicks], multimask=multimask, previous=previous)
        _, ious, logits = predictor.predict(
            point_coords=np.array(clicks.points) if clicks.points else None,
            point_labels=np.array(clicks.positive, dtype=int) if clicks.points else None,
            box=np.array(clicks.box) if clicks.box else None,
            mask_input=before,
            multimask_output=multimask,
            return_logits=True,
        )
        assert len(ours.ious) == (3 if multimask else 1)
        assert ours.ious == tuple(ious.tolist())
        assert ours.best == ious.argmax()
        np.testing.assert_array_equal(ours.logits.clamp(-32, 32).numpy(), logits)
        previous, before = (ours.logits[ours.best],), logits[ious.argmax()][None]


def test_a_batch_of_clicks_changes_no_bit(both: Both, picture: Image.Image) -> None:
    model, _ = both
    frame = model.encode(picture, single=True)
    grid = [Clicks(points=((x, y),), positive=(True,)) for x in (40.0, 160.5) for y in (30.0, 99.0)]
    prompts = [*grid, PROMPTS["box"], PROMPTS["points"]]
    together = decode(model, frame, prompts, multimask=True)
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = decode(model, frame, [prompt], multimask=True)
        assert alone.ious == found.ious
        assert torch.equal(alone.logits, found.logits)
