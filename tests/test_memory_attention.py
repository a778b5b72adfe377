# SPDX-License-Identifier: MIT
"""The rearranged memory attention against the module that the model comes with."""

import itertools
from pathlib import Path

import pytest
import sam2
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

import sam2_tracker
from sam2_tracker.memory_bank import name_memory
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.modules import memory_attention
from sam2_tracker.modules.memory_attention import MemoryAttention
from sam2_tracker.modules.official_rounding import PlainMemoryAttention

SIDE, CHANNELS, MEMORY_CHANNELS = 16, 256, 64
PIXELS = SIDE * SIDE


CONFIGS = {
    "sam2.1_hiera_t": Path(sam2.__file__).parent / "configs/sam2.1/sam2.1_hiera_t.yaml",
    "sam2_hiera_l": Path(sam2.__file__).parent / "configs/sam2/sam2_hiera_l.yaml",
    # Of EfficientTAM, those that pool memory frames.
    "efficienttam_ti_1": Path(sam2_tracker.__file__).parent / "configs/efficienttam_ti_1.yaml",
    "efficienttam_ti_2": Path(sam2_tracker.__file__).parent / "configs/efficienttam_ti_2.yaml",
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(("objects", "frames", "heads"), [(1, 1, 1), (3, 7, 1), (2, 2, 4)])
def test_equals_the_official_module(
    config: str, objects: int, frames: int, heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_attention, "VALUES_AT_ONCE", 2 * PIXELS * 2048)  # of two objects
    torch.manual_seed(1)
    settings = OmegaConf.load(CONFIGS[config]).model
    settings.memory_attention.layer.self_attention.feat_sizes = [SIDE, SIDE]
    settings.memory_attention.layer.cross_attention.feat_sizes = [SIDE, SIDE]
    settings.memory_attention.layer.self_attention.num_heads = heads
    settings.memory_attention.layer.cross_attention.num_heads = heads
    official = instantiate(settings.memory_attention, _recursive_=True).eval()
    memory_positions = torch.randn(PIXELS, MEMORY_CHANNELS)
    time_encodings = torch.randn(7, MEMORY_CHANNELS)
    plain = PlainMemoryAttention(
        official, memory_positions=memory_positions, time_encodings=time_encodings
    )
    cache = MemoryCache(1 << 27)
    rearranged = MemoryAttention(
        official,
        height=SIDE,
        width=SIDE,
        memory_positions=memory_positions,
        time_encodings=time_encodings,
        dtype=torch.float32,
        cache=cache,
    )
    tokens = 4 * (frames + 1)
    memories = [
        [name_memory(torch.randn(MEMORY_CHANNELS, SIDE * SIDE).bfloat16()) for _ in range(frames)]
        for _ in range(objects)
    ]
    for frame in itertools.chain(*memories):
        cache.put(frame)
    recent = range(frames - 2, -1, -1)
    # The objects' recent frames are not of the same ages, as where one of them was hidden.
    ages = [[6, *(min(5, age + number) for age in recent)] for number in range(objects)]
    arguments = (
        torch.randn(PIXELS, CHANNELS),
        torch.randn(PIXELS, CHANNELS),
        memories,
        ages,
        torch.randn(objects, tokens, MEMORY_CHANNELS),
        torch.randn(objects, tokens, MEMORY_CHANNELS),
    )
    with torch.inference_mode():
        truth = plain(*arguments)
        assert truth.shape == (objects, PIXELS, CHANNELS)
        for _ in range(2):  # the second time from the cache
            assert (rearranged(*arguments) - truth).abs().max() < 1e-4
    # A frame that is the only one is not pooled, and what is not pooled is not kept.
    kept = 0 if frames == 1 and config.startswith("efficienttam") else objects * frames
    assert cache.derived_hits == cache.derived_misses == kept
