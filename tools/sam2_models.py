# SPDX-License-Identifier: MIT
"""Models for tests and benchmarks: the bundled one, and Meta's models with random weights."""

from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from model_handler import ModelHandler
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.models import ModelFiles, model_files
from sam2_tracker.settings import MIB, Settings

# Bias of the object score (a logit): sam2 hides objects with a negative score, so all are visible.
VISIBLE = 10.0
# Factor that brings the mask logits of random weights to the size of those of trained ones.
CONTRAST = 100.0


def micro_files() -> ModelFiles:
    return model_files(Settings(model="sam2.1_hiera_micro"))


def micro_files_at(image_size: int, folder: Path) -> ModelFiles:
    """The bundled model with another input size (pixels); its configuration goes to `folder`."""
    files = micro_files()
    config = _with_image_size(files.config, image_size, folder)
    return model_files(Settings(config=config, checkpoint=files.checkpoint))


def load_model(
    files: ModelFiles,
    *,
    precision: str = "float32",
    fill_hole_area: int = 0,
    conditioning_frames: int = 0,
    cache: MemoryCache | None = None,
) -> ModelHandler:
    return ModelHandler(
        files,
        device="cpu",
        precision=precision,
        fill_hole_area=fill_hole_area,
        conditioning_frames=conditioning_frames,
        cache=cache or MemoryCache(64 * MIB),
    )


def random_model(
    config: Path, folder: Path, *, seed: int = 0, image_size: int | None = None
) -> ModelFiles:
    """Writes a checkpoint of random weights in Meta's form, and a copy of the configuration.

    image_size: side of the model's input in pixels, instead of the configuration's.
    """
    our_config = _with_image_size(config, image_size, folder)
    torch.manual_seed(seed)
    model = instantiate(OmegaConf.load(our_config).model, _recursive_=True)
    weights = model.state_dict()
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in weights.items():
        # Larger than sam2 initialises them, so that a mistake in their use shows in the logits.
        if "tpos" in name or name.startswith("no_") or "pos_embed" in name:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5)
        if "output_hypernetworks_mlps" in name and ".layers.2." in name:
            tensor.mul_(CONTRAST)
    last = max(name for name in weights if name.startswith("sam_mask_decoder.pred_obj_score_head"))
    bias = last.rsplit(".", 1)[0] + ".bias"
    weights[bias].fill_(VISIBLE)
    checkpoint = folder / f"{our_config.stem}.pt"
    torch.save({"model": weights}, checkpoint)
    return model_files(Settings(config=our_config, checkpoint=checkpoint))


def _with_image_size(config: Path, image_size: int | None, folder: Path) -> Path:
    """A copy of the configuration. None: the size that it has."""
    settings = OmegaConf.load(config)
    if image_size is not None:
        settings.model.image_size = image_size
    copy = folder / f"{config.stem.replace('.', '_')}_{image_size or 'full'}.yaml"
    copy.write_text("# @package _global_\n" + OmegaConf.to_yaml(settings))
    return copy
