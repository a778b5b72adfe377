# SPDX-License-Identifier: MIT
"""The numbers that EfficientTAM's own video predictor answers, recorded for the tests.

    python -m tools.efficienttam_reference --source FOLDER

FOLDER is a checkout of yformer/EfficientTAM (Apache-2.0) at abcd061. Its package cannot be
installed beside sam2, and none of its code is in this repository. So the tests compare with what it
answered to the weights and frames that this module makes: `tests/data/efficienttam.safetensors`,
and the names and shapes of all parameters in `tests/data/efficienttam_parameters.json`.
"""

import argparse
import json
import math
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
NUMBERS = DATA / "efficienttam.safetensors"
PARAMETERS = DATA / "efficienttam_parameters.json"
VARIANTS = {
    "efficienttam_ti": "efficienttam_ti",
    "efficienttam_ti_512": "efficienttam_ti_512x512",
    "efficienttam_ti_1": "efficienttam_ti_1",
    "efficienttam_ti_2": "efficienttam_ti_2",
    "efficienttam_s": "efficienttam_s",
    "efficienttam_s_512": "efficienttam_s_512x512",
    "efficienttam_s_1": "efficienttam_s_1",
    "efficienttam_s_2": "efficienttam_s_2",
}
"""Our name of each configuration, and the authors'."""
FRAMES = 24
SMALL_SIZE = 128
"""The image size, in pixels, at which every model is recorded over all frames."""
LARGE_SIZE = 512
LARGE_FRAMES = 3
"""So many frames of two models are recorded at the large size too, of which the third is the first
with two memory frames, which one of the models pools."""
RECORDED_LARGE = ("efficienttam_ti_512", "efficienttam_ti_2")
PARTS = {
    "logits": "pred_masks",
    "memories": "maskmem_features",
    "pointers": "obj_ptr",
    "object_scores": "object_score_logits",
}
"""What is recorded of each object and frame, and its name in the official predictor's outputs."""
WIDTH, HEIGHT = 320, 240
SAMPLES = 48
"""Numbers that are kept of a tensor."""

Shapes = dict[str, tuple[int, ...]]
Prompt = np.ndarray | tuple[float, float, float, float]


def seeded_weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """float32 weights that depend on a parameter's name and shape only.

    Random, but of a size at which every part of the model shows in the answers.
    """
    weights = {}
    for name, shape in shapes.items():
        noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        if "embed" in name or "tpos" in name or name.startswith("no_"):
            noise = noise * 0.5
        elif name.endswith("bias") or len(shape) == 1 and "gamma" in name:
            noise = noise * 0.1
        elif len(shape) == 1:  # the weight of a normalisation
            noise = 1 + noise * 0.1
        elif "gaussian_matrix" not in name:
            noise = noise / math.sqrt(math.prod(shape[1:]))
        if "output_hypernetworks_mlps" in name and ".layers.2." in name:
            noise = noise * 10  # masks have a clear edge
        if name.startswith("sam_mask_decoder.pred_obj_score_head.layers.2."):
            # Some objects are taken for absent on some frames.
            noise = noise * 10 - (5 if name.endswith("bias") else 0)
        weights[name] = torch.from_numpy(np.asarray(noise, np.float32))
    return weights


def frames() -> list[Image.Image]:
    """RGB images of a striped background and three striped discs that move across it."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    images = []
    for time in range(FRAMES):
        pixels = 96 + 60 * np.sin((x + 2 * time)[..., None] / (9, 13, 17) + y[..., None] / 21)
        for number, disc in enumerate(_discs(time)):
            stripes = 130 + 100 * np.cos((x * (number + 1) + y)[..., None] / (5 + number, 7, 11))
            pixels = np.where(disc[..., None], stripes, pixels)
        images.append(Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)))
    return images


def prompts() -> list[Prompt]:
    """Of the three discs on the first frame: bool masks (height, width), and a box in pixels."""
    first, second, third = _discs(0)
    y, x = np.nonzero(third)
    return [first, second, (float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1))]


def _discs(time: int) -> Iterator[np.ndarray]:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    for x0, y0, radius, dx, dy in ((90, 80, 42, 4, 1), (220, 150, 55, -3, -1), (160, 60, 24, 1, 5)):
        yield (x - x0 - dx * time) ** 2 + (y - y0 - dy * time) ** 2 < radius**2


def sample(tensor: Tensor) -> Tensor:
    """SAMPLES numbers of a tensor, float32, or all of fewer.

    Always at the same places for the same size.
    """
    if tensor.numel() <= SAMPLES:
        return tensor.detach().float().flatten().clone()
    chosen = np.random.default_rng(tensor.numel()).choice(tensor.numel(), SAMPLES, replace=False)
    return tensor.detach().float().flatten()[torch.from_numpy(chosen)].clone()


def recordings(name: str) -> list[tuple[str, int, int]]:
    """Of one model: label, image size in pixels, and number of frames of each recording."""
    large = [("large", LARGE_SIZE, LARGE_FRAMES)] if name in RECORDED_LARGE else []
    return [("small", SMALL_SIZE, FRAMES), *large]


def _parameters_to_text(shapes: Mapping[str, Shapes]) -> str:
    """JSON, {"models": [names], "parameters": {name: shape}}, one line for each set of equals."""
    models: dict[str, list[str]] = {}
    for name, parameters in shapes.items():
        models.setdefault(json.dumps(parameters), []).append(name)
    entries = [
        f'{{"models": {json.dumps(names)}, "parameters": {text}}}' for text, names in models.items()
    ]
    return "[" + ",\n".join(entries) + "]\n"


def _record(name: str, image_size: int, frame_count: int) -> tuple[dict[str, Tensor], Shapes]:
    """Runs the authors' predictor. Returns numbers by name, and the shapes of its parameters."""
    predictor = _authors_predictor(VARIANTS[name], image_size)
    shapes = {key: tuple(value.shape) for key, value in predictor.state_dict().items()}
    predictor.load_state_dict(seeded_weights(shapes), strict=True)
    features: list[Tensor] = []
    encode = predictor.forward_image

    def remember(image: Tensor) -> Any:
        encoded = encode(image)
        features.append(sample(encoded["backbone_fpn"][-1]))
        return encoded

    predictor.forward_image = remember
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for index, image in enumerate(frames()[:frame_count]):
            image.save(Path(folder) / f"{index}.jpg", format="PNG")
        state = predictor.init_state(folder)
        for number, prompt in enumerate(prompts()):
            if isinstance(prompt, tuple):
                predictor.add_new_points_or_box(state, 0, number, box=prompt)
            else:
                predictor.add_new_mask(state, 0, number, prompt)
        state["cached_features"].clear()
        features.clear()
        for _ in predictor.propagate_in_video(state):
            pass
    numbers = {"features": torch.stack(features)}
    for key, part in PARTS.items():
        objects = []
        for outputs in state["output_dict_per_obj"].values():
            found = {**outputs["cond_frame_outputs"], **outputs["non_cond_frame_outputs"]}
            objects.append(torch.stack([sample(found[i][part]) for i in range(frame_count)]))
        numbers[key] = torch.stack(objects)
    return numbers, shapes


def _authors_predictor(config: str, image_size: int) -> Any:
    """What the authors' builder makes, for another image size."""
    from efficient_track_anything import build_efficienttam  # type: ignore[import-not-found]

    compose = build_efficienttam.compose

    def compose_resized(config_name: str, overrides: list[str]) -> Any:
        return compose(config_name, [*overrides, f"++model.image_size={image_size}"])

    # The builder takes overrides, but drops them where there is no GPU.
    with mock.patch.object(build_efficienttam, "compose", compose_resized):
        predictor = build_efficienttam.build_efficienttam_video_predictor(
            f"configs/efficienttam/{config}.yaml", device="cpu"
        )
    predictor.fill_hole_area = 0  # it needs an extension for CUDA
    return predictor


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="efficienttam_reference", description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="the authors' checkout")
    parser.add_argument("--only", choices=VARIANTS, help="compute one, print it, write nothing")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(options.source))
    numbers: dict[str, Tensor] = {}
    shapes: dict[str, Shapes] = {}
    for name in [options.only] if options.only else VARIANTS:
        for label, size, count in recordings(name):
            found, shapes[name] = _record(name, size, count)
            numbers |= {f"{name}/{label}/{key}": value for key, value in found.items()}
            visible = (found["object_scores"] > 0).float().mean()
            print(f"{name} {label}: {visible:.0%} of the objects visible", flush=True)
    if not options.only:
        DATA.mkdir(exist_ok=True)
        save_file(numbers, NUMBERS)
        PARAMETERS.write_text(_parameters_to_text(shapes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
