# SPDX-License-Identifier: MIT
"""Models to measure: Meta's configurations with random weights, and the bundled micro model.

What a frame costs does not depend on what a model has learned, but for the shapes that it answers.
So the weights are made to draw one smooth blob, whatever the image: random ones would answer noise,
which is dear to trace and to write down.
"""

import importlib.util
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from sam2_tracker.models import ModelFiles, model_files
from sam2_tracker.settings import Settings

MICRO = "micro"
META = {
    "tiny": "sam2.1_hiera_t.yaml",
    "small": "sam2.1_hiera_s.yaml",
    "base_plus": "sam2.1_hiera_b+.yaml",
    "large": "sam2.1_hiera_l.yaml",
}
# Logits: of the blob's middle and around it, and of an object's being there.
BLOB, AROUND, VISIBLE = 4.0, -1.5, 10.0


def benchmark_files(name: str, folder: Path) -> ModelFiles:
    """name: micro, or a key of META. Writes a checkpoint into `folder` where there is none."""
    if name == MICRO:
        return model_files(Settings(model="sam2.1_hiera_micro"))
    spec = importlib.util.find_spec("sam2")
    package = Path((spec.submodule_search_locations or [""])[0]) if spec else Path()
    return random_files(package / "configs" / "sam2.1" / META[name], folder)


def random_files(config: Path, folder: Path) -> ModelFiles:
    """Random weights of a configuration's shapes that answer a blob for every visible object."""
    checkpoint = folder / f"{config.stem}.pt"
    if not checkpoint.exists():
        torch.manual_seed(0)
        model = instantiate(OmegaConf.load(config).model, _recursive_=True)
        weights = model.state_dict()
        _draw_a_blob(weights, stage_1=range(model.image_encoder.trunk.stage_ends[0] + 1))
        torch.save({"model": weights}, checkpoint)
    return model_files(Settings(config=config, checkpoint=checkpoint))


def _draw_a_blob(weights: dict[str, Tensor], *, stage_1: range) -> None:
    """Channel 0 carries a bump of the position embedding through to the mask, past all else."""
    trunk, decoder = "image_encoder.trunk", "sam_mask_decoder"
    bump = weights[f"{trunk}.pos_embed"][0, 0]
    bump.fill_(AROUND)
    bump[bump.shape[0] // 2, bump.shape[1] // 2] = BLOB
    weights[f"{trunk}.pos_embed_window"][0, 0] = 0
    _silence(weights, f"{trunk}.patch_embed.proj")
    for block in stage_1:
        _silence(weights, f"{trunk}.blocks.{block}.attn.proj")
        _silence(weights, f"{trunk}.blocks.{block}.mlp.layers.1")
    finest = max(name for name in weights if name.startswith("image_encoder.neck.convs"))
    for layer in (finest.rsplit(".", 1)[0], f"{decoder}.conv_s0"):
        _silence(weights, layer)
        weights[f"{layer}.weight"][0, 0] = 1
    weights[f"{decoder}.output_upscaling.3.weight"][:, 0] = 0
    weights[f"{decoder}.output_upscaling.3.bias"][0] = 0
    for name, tensor in weights.items():
        if name.startswith(f"{decoder}.output_hypernetworks_mlps") and ".layers.2." in name:
            tensor.zero_()
            if tensor.ndim == 1:
                tensor[0] = 1
    last = max(name for name in weights if name.startswith(f"{decoder}.pred_obj_score_head"))
    weights[f"{last.rsplit('.', 1)[0]}.bias"].fill_(VISIBLE)


def _silence(weights: dict[str, Tensor], layer: str) -> None:
    weights[f"{layer}.weight"][0] = 0
    weights[f"{layer}.bias"][0] = 0
