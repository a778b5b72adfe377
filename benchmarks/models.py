# SPDX-License-Identifier: MIT
"""Models to measure: Meta's configurations with random weights, and the bundled micro model.

The time of a frame does not depend on what a model has learned, except for the shapes in its
answers. Random weights would answer noise, which takes long to trace and to write down. So the
weights are made to draw one smooth blob on every image.
"""

import math
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from sam2_tracker.models import MODELS, ModelFiles, find_model, model_files
from sam2_tracker.modules.vit_encoder import PlainViT
from sam2_tracker.settings import Settings
from tools.sam2_models import micro_files

MICRO = "micro"
META = ("tiny", "small", "base_plus", "large")
EFFICIENTTAM = tuple(model.name for model in MODELS if model.name.startswith("efficienttam_"))
# Logits: of the blob's middle and around it, and of an object's being there.
BLOB, AROUND, VISIBLE = 4.0, -1.5, 10.0


def benchmark_files(name: str, folder: Path) -> ModelFiles:
    """name: micro, one of META, or a model of EfficientTAM.

    Of another model than micro a checkpoint with random weights is written into `folder`, once.
    """
    if name == MICRO:
        return micro_files()
    model = find_model(f"sam2.1_hiera_{name}" if name in META else name)
    return random_files(model.config, folder)


def random_files(config: Path, folder: Path) -> ModelFiles:
    """Random weights of a configuration's shapes that answer a blob for every visible object."""
    checkpoint = folder / f"{config.stem}.pt"
    if not checkpoint.exists():
        torch.manual_seed(0)
        model = instantiate(OmegaConf.load(config).model, _recursive_=True)
        weights = model.state_dict()
        if isinstance(model.image_encoder.trunk, PlainViT):
            _draw_a_blob_without_fine_levels(weights)
        else:
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
    _answer_channel_0(weights)


def _draw_a_blob_without_fine_levels(weights: dict[str, Tensor]) -> None:
    """The same for a plain ViT, whose only features go through memory attention and decoder.

    There they are normalised, so channel 1 carries the bump's negative.
    """
    trunk, neck, decoder = "image_encoder.trunk", "image_encoder.neck.convs.0", "sam_mask_decoder"
    learned = weights[f"{trunk}.pos_embed"][0]
    side = math.isqrt(len(learned) - 1)
    bump = torch.full((side, side), AROUND)
    bump[side // 3 : 2 * side // 3, side // 3 : 2 * side // 3] = BLOB
    learned[1:, 0] = bump.flatten()
    for name in list(weights):
        layer, _, kind = name.rpartition(".")
        if kind != "weight":
            continue
        if (
            layer == f"{trunk}.patch_embed.proj"
            or layer.startswith(f"{trunk}.blocks")
            and (layer.endswith(("attn.proj", "mlp.layers.1")))
        ):
            _silence(weights, layer)
        if layer.endswith((".out_proj", ".linear2", ".mlp.layers.1")) and not layer.startswith(
            "image_encoder"
        ):
            for channel in (0, 1):
                _silence(weights, layer, channel)
    for channel in (0, 1):
        weights["sam_prompt_encoder.no_mask_embed.weight"][0, channel] = 0
        weights[f"{neck}.conv_1x1.weight"][channel] = 0
        weights[f"{neck}.conv_3x3.weight"][channel] = 0
        weights[f"{neck}.conv_3x3.weight"][channel, channel, 1, 1] = 1
    weights[f"{neck}.conv_1x1.weight"][0, 0] = 1
    weights[f"{neck}.conv_1x1.weight"][1, 0] = -1
    for layer, offset in (("0", 0.0), ("3", -1.0)):
        weights[f"{decoder}.output_upscaling.{layer}.weight"][:, 0] = 0
        weights[f"{decoder}.output_upscaling.{layer}.weight"][0, 0] = 1
        weights[f"{decoder}.output_upscaling.{layer}.bias"][0] = offset
    _answer_channel_0(weights)


def _answer_channel_0(weights: dict[str, Tensor]) -> None:
    """Every mask is channel 0 of the upscaled features, and every object is visible."""
    decoder = "sam_mask_decoder"
    for name, tensor in weights.items():
        if name.startswith(f"{decoder}.output_hypernetworks_mlps") and ".layers.2." in name:
            tensor.zero_()
            if tensor.ndim == 1:
                tensor[0] = 1
    last = max(name for name in weights if name.startswith(f"{decoder}.pred_obj_score_head"))
    weights[f"{last.rsplit('.', 1)[0]}.bias"].fill_(VISIBLE)


def _silence(weights: dict[str, Tensor], layer: str, channel: int = 0) -> None:
    weights[f"{layer}.weight"][channel] = 0
    weights[f"{layer}.bias"][channel] = 0
