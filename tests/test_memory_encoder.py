# SPDX-License-Identifier: MIT
"""The rearranged memory encoder against the official one, in bfloat16."""

from pathlib import Path

import pytest
import sam2
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from sam2_tracker.modules.memory_encoder import MemoryEncoder


@pytest.mark.parametrize("layer_scale", [0.1, 0.0])
def test_equals_the_official_module(layer_scale: float) -> None:
    torch.manual_seed(1)
    config = Path(sam2.__file__).parent / "configs/sam2.1/sam2.1_hiera_t.yaml"
    settings = OmegaConf.load(config).model.memory_encoder
    settings.fuser.layer.layer_scale_init_value = layer_scale
    official = instantiate(settings, _recursive_=True).eval()
    features, logits = torch.randn(3, 256, 16, 16), 8 * torch.randn(3, 1, 256, 256)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        truth = official(features, logits)
        scaled = official(features, logits.sigmoid(), skip_mask_sigmoid=True)
        memory_encoder = MemoryEncoder(official)
        ours = memory_encoder(features, logits)
        ours_scaled = memory_encoder(features, logits.sigmoid(), skip_mask_sigmoid=True)
    for theirs, own in ((truth, ours), (scaled, ours_scaled)):
        difference = (own["vision_features"].float() - theirs["vision_features"].float()).abs()
        assert own["vision_features"].shape == theirs["vision_features"].shape
        assert difference.max() < 0.03 * theirs["vision_features"].abs().max()
        assert difference.mean() < 0.004 * theirs["vision_features"].abs().max()
        (place,), (their_place,) = own["vision_pos_enc"], theirs["vision_pos_enc"]
        assert torch.allclose(place.float(), their_place[:1].float(), atol=0.01)
