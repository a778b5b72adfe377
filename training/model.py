# SPDX-License-Identifier: MIT
"""Build the micro model as `build_sam2_video_predictor` builds Meta's, and store its weights."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from sam2.sam2_video_predictor import SAM2VideoPredictor

CONFIG = Path("models/sam2.1_hiera_micro.yaml")
WEIGHTS = Path("models/sam2.1_hiera_micro.safetensors")

# What build_sam2_video_predictor adds to every configuration, but for fill_hole_area: its CUDA
# extension is not built here, and without it the official predictor warns and skips the filling.
_OVERRIDES = {
    "_target_": "sam2.sam2_video_predictor.SAM2VideoPredictor",
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
    "binarize_mask_from_pts_for_mem_enc": True,
    "add_all_frames_to_correct_as_cond": True,
    "fill_hole_area": 0,
}


def build_predictor(
    config: Path = CONFIG, weights: Path | None = WEIGHTS, device: str = "cpu"
) -> SAM2VideoPredictor:
    """The official predictor in eval mode, float32; random weights where `weights` is None."""
    settings = OmegaConf.merge(OmegaConf.load(config).model, _OVERRIDES)
    predictor = instantiate(settings, _recursive_=True)
    if weights is not None:
        predictor.load_state_dict(load_weights(weights), strict=True)
    return predictor.to(device).eval()


def digest_of(weights: Path) -> str:
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """float32 tensors under the names of sam2's state_dict."""
    return {name: tensor.float() for name, tensor in load_file(path).items()}


def save_weights(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Store as float16, atomically. Raises ValueError where a weight does not fit float16."""
    halves = {name: tensor.detach().cpu().half().contiguous() for name, tensor in weights.items()}
    for name, tensor in halves.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} does not fit float16")
    part = path.with_suffix(".part")
    save_file(halves, part, metadata={"format": "pt", "model": "sam2.1_hiera_micro"})
    part.chmod(0o644)
    os.replace(part, path)
