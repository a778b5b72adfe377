# SPDX-License-Identifier: MIT
"""What each saving gives: encoder and memory attention with and without it, taking turns.

The official modules are those of the `sam2` package, called with the same inputs as ours.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from PIL import Image

from benchmarks.banks import full_bank, noise, noise_memory
from benchmarks.machine import synchronise
from benchmarks.models import benchmark_files
from benchmarks.plan import Clock, Plan, Report
from benchmarks.runners import autocast
from model_handler import ModelHandler
from sam2_tracker.memory_bank import MemoryBank
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.models import ModelFiles
from sam2_tracker.modules import image_encoder, memory_attention
from sam2_tracker.modules.attention import attend_fused
from sam2_tracker.modules.memory_attention import MemoryAttention
from sam2_tracker.modules.official_rounding import PlainMemoryAttention
from sam2_tracker.predictions import FrameFeatures
from sam2_tracker.settings import MIB, Settings
from tools.official import official_predictor

ROUNDS = 5
OBJECTS = 4
CACHE_BYTES = 1024 * MIB
POLICY = Settings().memory_policy
# SAM2_IMAGE_SIZE, SAM2_MEMORY_FRAMES; 0: the model's own.
OPTIONS = ((0, 0), (512, 0), (0, 4), (512, 4))


def savings(plan: Plan, clock: Clock, folder: Path, report: Report) -> dict[str, Any]:
    """Seconds of every row by round; rows of one group, the options apart, compute the same."""
    model, device = plan.main_model, torch.device(plan.device)
    report(f"savings: loading {model}")
    files = benchmark_files(model, folder)
    with torch.inference_mode():
        rows: dict[tuple[str, str], Callable[[], object]] = {}
        cache = MemoryCache(CACHE_BYTES)
        ours = _handler(files, plan.device, cache)
        official = official_predictor(files).to(device)
        _encoder_rows(rows, files, ours, official)
        _attention_rows(rows, ours, official)
        _option_rows(rows, files, plan.device, ours, cache)
        seconds: dict[tuple[str, str], list[float]] = {key: [] for key in rows}
        rounds = 0
        while rounds < (plan.rounds or ROUNDS) and not (rounds > 1 and clock.is_over()):
            # From round to round another row comes first, but in the first, which warms them up.
            turn = rounds % len(rows)
            for (group, name), run in [*rows.items()][turn:] + [*rows.items()][:turn]:
                report(f"savings, round {rounds + 1}: {group}, {name}")
                if rounds == 0:
                    run()  # warms up, and fills the caches
                synchronise(device)
                begin = time.perf_counter()
                run()
                synchronise(device)
                seconds[group, name].append(time.perf_counter() - begin)
            rounds += 1
    return {
        "model": model,
        "image_size": ours.network.image_size,
        "rows": [
            {"group": group, "name": name, "seconds": each}
            for (group, name), each in seconds.items()
        ],
    }


def _handler(
    files: ModelFiles, device: str, cache: MemoryCache, image_size: int = 0, frames: int = 0
) -> ModelHandler:
    return ModelHandler(
        files,
        device=device,
        precision="bfloat16",
        image_size=image_size,
        memory_frames=frames,
        cache=cache,
    )


def _encoder_rows(
    rows: dict[tuple[str, str], Callable[[], object]],
    files: ModelFiles,
    ours: ModelHandler,
    official: Any,
) -> None:
    size, device = official.image_size, ours.device
    # As a decoded image comes.
    image = torch.randn(1, size, size, 3, device=device).permute(0, 3, 1, 2)
    encoder = ours.network.image_encoder

    with mock.patch.object(image_encoder, "_fine_levels_are_merely_projected", return_value=False):
        unmerged = _handler(files, str(device), MemoryCache(0))

    def encode(model: ModelHandler = ours) -> None:
        with model._inference():
            model.network.forward_image(image.bfloat16())

    def encode_whole() -> None:
        with mock.patch.object(image_encoder, "VALUES_AT_ONCE", 1 << 60):
            encode(unmerged)

    def encode_officially(precision: str) -> None:
        with autocast(device, precision):
            official.forward_image(image)

    def encode_with_fused_attention() -> None:
        with mock.patch.object(image_encoder, "attend", attend_fused):
            encode()

    def encode_channels_last() -> None:
        with _channels_last(encoder):
            encode()

    group = "encoder, one frame"
    rows[group, "official, float32"] = lambda: encode_officially("float32")
    rows[group, "official, autocast"] = lambda: encode_officially("bfloat16")
    rows[group, "ours: weights in bfloat16, constants once"] = encode_whole
    rows[group, "and windows and pixels part by part"] = lambda: encode(unmerged)
    rows[group, "and the fine levels' convolutions merged (this is what we run)"] = encode
    rows[group, "ours, with torch's own fused attention"] = encode_with_fused_attention
    rows[group, "ours, channels-last (not in the function)"] = encode_channels_last


@contextlib.contextmanager
def _channels_last(encoder: torch.nn.Module) -> Iterator[None]:
    convolutions = [layer for layer in encoder.modules() if isinstance(layer, torch.nn.Conv2d)]
    before = [layer.weight.data for layer in convolutions]
    for layer in convolutions:
        layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    yield
    for layer, weight in zip(convolutions, before, strict=True):
        layer.weight.data = weight


def _attend_to_noise(
    ours: ModelHandler, cache: MemoryCache
) -> Callable[[torch.nn.Module, str, int, int], None]:
    """Runs a memory attention in a precision, for the objects from a first to before a last.

    Each object has a full memory bank of noise.
    """
    layout, device = ours.layout, ours.device
    channels = layout.pointer_channels
    frame = torch.randn(layout.tokens, channels, device=device)
    frame_positions = torch.randn(layout.tokens, channels, device=device)
    ages = [layout.recent, *range(layout.recent - 1, -1, -1)]
    memories = [[noise_memory(ours, cache) for _ in ages] for _ in range(OBJECTS)]
    tokens = (layout.pointers + 1) * channels // layout.channels
    pointers = torch.randn(OBJECTS, tokens, layout.channels, device=device)
    pointer_positions = torch.randn(OBJECTS, tokens, layout.channels, device=device)

    def attend(module: torch.nn.Module, precision: str, first: int, last: int) -> None:
        with autocast(device, precision):
            module(
                frame,
                frame_positions,
                memories[first:last],
                [ages] * (last - first),
                pointers[first:last],
                pointer_positions[first:last],
            )

    return attend


def _attention_rows(
    rows: dict[tuple[str, str], Callable[[], object]], ours: ModelHandler, official: Any
) -> None:
    layout, device = ours.layout, ours.device
    positions = torch.randn(layout.tokens, layout.channels, device=device)
    encodings = official.maskmem_tpos_enc[:, 0, 0]
    plain = PlainMemoryAttention(
        official.memory_attention, memory_positions=positions, time_encodings=encodings
    )

    def rearranged(cache: MemoryCache) -> MemoryAttention:
        return MemoryAttention(
            official.memory_attention,
            height=math.isqrt(layout.tokens),
            width=math.isqrt(layout.tokens),
            memory_positions=positions,
            time_encodings=encodings,
            dtype=torch.bfloat16,
            cache=cache,
        )

    cache = MemoryCache(CACHE_BYTES)
    uncached, cached = rearranged(MemoryCache(0)), rearranged(cache)
    attend = _attend_to_noise(ours, cache)

    def attend_with_fused_kernels() -> None:
        with mock.patch.object(memory_attention, "attend", attend_fused):
            attend(cached, "float32", 0, 1)

    def attend_one_by_one() -> None:
        for number in range(OBJECTS):
            attend(cached, "float32", number, number + 1)

    frames = layout.recent + 1
    group = f"memory attention, 1 object, {frames} memory frames"
    rows[group, "official, float32 (this is what we run in float32)"] = lambda: attend(
        plain, "float32", 0, 1
    )
    rows[group, "official, autocast"] = lambda: attend(plain, "bfloat16", 0, 1)
    rows[group, "ours: bfloat16 products, rotations of real numbers, values after attention"] = (
        lambda: attend(uncached, "float32", 0, 1)
    )
    rows[group, "and keys of memory frames kept (this is what we run)"] = lambda: attend(
        cached, "float32", 0, 1
    )
    rows[group, "the same, with torch's own fused attention"] = attend_with_fused_kernels
    group = f"memory attention, {OBJECTS} objects, {frames} memory frames"
    rows[group, "ours, one object after the other"] = attend_one_by_one
    rows[group, "ours, in one batch"] = lambda: attend(cached, "float32", 0, OBJECTS)


def _option_rows(
    rows: dict[tuple[str, str], Callable[[], object]],
    files: ModelFiles,
    device: str,
    ours: ModelHandler,
    cache: MemoryCache,
) -> None:
    """Encoding a frame and stepping one object with the inexact options."""
    size = ours.network.image_size
    for image_size, frames in OPTIONS:
        if image_size > size:
            continue
        model = _handler(files, device, cache, image_size, frames) if image_size or frames else ours
        layout = model.layout
        side = model.network.image_size
        pixels = torch.randn(1, 3, side, side, device=model.device)
        bank = full_bank(noise(model), POLICY, layout, cache)
        features = model.encode(Image.new("RGB", (side, side)))

        def encode(model: ModelHandler = model, pixels: torch.Tensor = pixels) -> None:
            with model._inference():
                model.network.forward_image(pixels.bfloat16())

        def step(
            model: ModelHandler = model,
            features: FrameFeatures = features,
            bank: MemoryBank = bank,
        ) -> None:
            model.step(features, [bank])

        name = f"{image_size or size} px, {layout.recent + 1} memory frames"
        rows["options: encode a frame", name] = encode
        rows["options: step one object", name] = step
