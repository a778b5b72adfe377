# SPDX-License-Identifier: MIT
"""The rearranged image encoder against the official one, in bfloat16."""

from pathlib import Path

import pytest
import sam2
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from sam2_tracker.build_model import PREDICTOR_OVERRIDES
from sam2_tracker.modules import image_encoder
from sam2_tracker.modules.image_encoder import prepare_image_encoder

# The windows of the first do not divide the picture, those of the second do.
CONFIGS = ["sam2.1/sam2.1_hiera_t.yaml", "sam2/sam2_hiera_l.yaml"]


@pytest.mark.parametrize("config", CONFIGS)
def test_equals_the_official_encoder(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_encoder, "VALUES_AT_ONCE", 1 << 18)  # parts, in a small picture too
    torch.manual_seed(1)
    settings = OmegaConf.load(Path(sam2.__file__).parent / "configs" / config)
    settings.model.image_size = 256
    settings = OmegaConf.merge(settings, {"model": PREDICTOR_OVERRIDES})
    model = instantiate(settings.model, _recursive_=True).eval()
    image = torch.randn(1, 3, 256, 256).bfloat16()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        truth = model.forward_image(image)
        prepare_image_encoder(model, dtype=torch.bfloat16)
        ours = model.forward_image(image)
    for theirs, level in zip(truth["backbone_fpn"], ours["backbone_fpn"], strict=True):
        assert level.shape == theirs.shape
        difference = (level.float() - theirs.float()).abs()
        assert difference.max() < 0.03 * theirs.abs().max()
        assert difference.mean() < 0.004 * theirs.abs().max()
    for theirs, place in zip(truth["vision_pos_enc"], ours["vision_pos_enc"], strict=True):
        assert torch.allclose(place.float(), theirs.float(), atol=0.01)
