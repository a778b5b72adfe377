# SPDX-License-Identifier: MIT
"""How many floating point operations a model takes for a frame and for a step of one object.

    python -m benchmarks.flop

Counted by torch over sam2's own modules, on tensors without data, fused attention included; a
multiplication and an addition are two. Our modules take fewer: they keep the keys of memory frames.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sam2_tracker.models import MODELS


@dataclass(frozen=True, kw_only=True)
class Flop:
    encode: float
    """For one frame."""
    step: float
    """For one object on it, with a full memory: 7 frames and 16 object pointers."""


def count_flop(config: Path) -> Flop:
    """config: the YAML file of a model of SAM 2's kind."""
    network = instantiate(OmegaConf.load(config).model, _recursive_=True).eval().to("meta")
    size, channels = network.image_size, network.hidden_dim
    side = size // network.backbone_stride
    pixels, memory_channels = side * side, network.mem_dim
    pointers = network.max_obj_ptrs_in_encoder * channels // memory_channels
    tokens = network.num_maskmem * pixels + pointers
    for layer in network.memory_attention.layers:
        for attention in (layer.self_attn, layer.cross_attn_image):
            turns = attention.internal_dim // attention.num_heads // 2
            attention.freqs_cis = _empty(pixels, turns).to(torch.complex64)
    frame = _empty(pixels, 1, channels)
    memory = _empty(tokens, 1, memory_channels)
    fine = None
    if network.use_high_res_features_in_sam:
        fine = [
            _empty(1, channels // 8, 4 * side, 4 * side),
            _empty(1, channels // 4, 2 * side, 2 * side),
        ]
    encode = _count(lambda: network.image_encoder(_empty(1, 3, size, size)))
    step = (
        _count(
            lambda: network.memory_attention(
                curr=frame,
                curr_pos=frame,
                memory=memory,
                memory_pos=memory,
                num_obj_ptr_tokens=pointers,
            )
        )
        + _count(
            lambda: network._forward_sam_heads(
                _empty(1, channels, side, side), high_res_features=fine, multimask_output=True
            )
        )
        + _count(
            lambda: network.memory_encoder(
                _empty(1, channels, side, side), _empty(1, 1, size, size), skip_mask_sigmoid=True
            )
        )
    )
    return Flop(encode=encode, step=step)


def _count(run: Callable[[], Any]) -> float:
    # Of the fused kernels torch does not count those for a CPU.
    with (
        torch.inference_mode(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        run()
    return float(counter.get_total_flops())


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def main() -> int:
    print("| | to encode, TFLOP | a step, TFLOP |\n|---|---|---|")
    for model in MODELS:
        if not model.name.startswith("sam2_"):  # as large as SAM 2.1
            flop = count_flop(model.config)
            print(f"| {model.name} | {flop.encode / 1e12:.3f} | {flop.step / 1e12:.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
