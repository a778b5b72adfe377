# SPDX-License-Identifier: MIT
"""Build the micro model as `build_sam2_video_predictor` builds Meta's, and store its weights."""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from sam2.sam2_video_predictor import SAM2VideoPredictor

from sam2_tracker.build_model import PREDICTOR_OVERRIDES

CONFIG = Path("models/sam2.1_hiera_micro.yaml")
WEIGHTS = Path("models/sam2.1_hiera_micro.safetensors")

# Every frame with a prompt conditions the later ones. The CUDA extension that fills holes is not
# built here: without it the official predictor warns and skips the filling.
_SETTINGS = {"add_all_frames_to_correct_as_cond": True, "fill_hole_area": 0}


def build_predictor(
    config: Path = CONFIG, weights: Path | None = WEIGHTS, device: str = "cpu"
) -> SAM2VideoPredictor:
    """The official predictor in eval mode, float32; random weights where `weights` is None."""
    settings = OmegaConf.merge(OmegaConf.load(config).model, PREDICTOR_OVERRIDES, _SETTINGS)
    predictor = instantiate(settings, _recursive_=True)
    if weights is not None:
        predictor.load_state_dict(load_weights(weights), strict=True)
    return predictor.to(device).eval()


def weights_file(text: str) -> Path:
    """The file of an option, for argparse: one of safetensors that can be read."""
    try:
        with safe_open(text, "pt"):
            return Path(text)
    except (OSError, SafetensorError) as error:
        raise argparse.ArgumentTypeError(f"{text} is no safetensors file: {error}") from error


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
