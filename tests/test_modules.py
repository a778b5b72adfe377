# SPDX-License-Identifier: MIT
"""The rearranged parts of the model against the modules that the model comes with."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor
from tracking import SAM2_CONFIGS

import sam2_tracker
from sam2_tracker.build_model import PREDICTOR_OVERRIDES
from sam2_tracker.memory_bank import name_memory
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.modules import image_encoder, memory_attention
from sam2_tracker.modules.attention import attend
from sam2_tracker.modules.image_encoder import prepare_image_encoder
from sam2_tracker.modules.image_resize import resize
from sam2_tracker.modules.memory_attention import MemoryAttention
from sam2_tracker.modules.memory_encoder import MemoryEncoder
from sam2_tracker.modules.official_rounding import PlainMemoryAttention

SIDE, CHANNELS, MEMORY_CHANNELS = 16, 256, 64
PIXELS = SIDE * SIDE
OUR_CONFIGS = Path(sam2_tracker.__file__).parent / "configs"


def assert_equal_but_for_bfloat16(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    difference = (ours.float() - theirs.float()).abs()
    assert difference.max() < 0.03 * theirs.abs().max()
    assert difference.mean() < 0.004 * theirs.abs().max()


# The windows of the first do not divide the picture, those of the second do.
@pytest.mark.slow
@pytest.mark.parametrize("config", ["sam2.1/sam2.1_hiera_t.yaml", "sam2/sam2_hiera_l.yaml"])
def test_the_image_encoder_equals_the_official_one(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_encoder, "VALUES_AT_ONCE", 1 << 18)  # parts, in a small picture too
    torch.manual_seed(1)
    settings = OmegaConf.load(SAM2_CONFIGS / config)
    settings.model.image_size = 256
    settings = OmegaConf.merge(settings, {"model": PREDICTOR_OVERRIDES})
    model = instantiate(settings.model, _recursive_=True).eval()
    image = torch.randn(1, 3, 256, 256).bfloat16()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        truth = model.forward_image(image)
        prepare_image_encoder(model, dtype=torch.bfloat16)
        ours = model.forward_image(image)
    for theirs, level in zip(truth["backbone_fpn"], ours["backbone_fpn"], strict=True):
        assert_equal_but_for_bfloat16(level, theirs)
    for theirs, place in zip(truth["vision_pos_enc"], ours["vision_pos_enc"], strict=True):
        assert torch.allclose(place.float(), theirs.float(), atol=0.01)


@pytest.mark.parametrize("layer_scale", [0.1, 0.0])
def test_the_memory_encoder_equals_the_official_one(layer_scale: float) -> None:
    torch.manual_seed(1)
    settings = OmegaConf.load(SAM2_CONFIGS / "sam2.1/sam2.1_hiera_t.yaml").model.memory_encoder
    settings.fuser.layer.layer_scale_init_value = layer_scale
    official = instantiate(settings, _recursive_=True).eval()
    features, logits = torch.randn(3, 256, 16, 16), 8 * torch.randn(3, 1, 256, 256)
    ways: list[Any] = [(logits, {}), (logits.sigmoid(), {"skip_mask_sigmoid": True})]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        truth = [official(features, masks, **options) for masks, options in ways]
        rearranged = MemoryEncoder(official)
        ours = [rearranged(features, masks, **options) for masks, options in ways]
    for theirs, own in zip(truth, ours, strict=True):
        assert_equal_but_for_bfloat16(own["vision_features"], theirs["vision_features"])
        (place,), (their_place,) = own["vision_pos_enc"], theirs["vision_pos_enc"]
        assert torch.allclose(place.float(), their_place[:1].float(), atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        *(SAM2_CONFIGS / name for name in ("sam2.1/sam2.1_hiera_t.yaml", "sam2/sam2_hiera_l.yaml")),
        # Of EfficientTAM, those that pool memory frames.
        *(OUR_CONFIGS / name for name in ("efficienttam_ti_1.yaml", "efficienttam_ti_2.yaml")),
    ],
    ids=lambda path: path.stem,
)
@pytest.mark.parametrize(("objects", "frames", "heads"), [(1, 1, 1), (3, 7, 1), (2, 2, 4)])
def test_memory_attention_equals_the_official_one(
    config: Path, objects: int, frames: int, heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_attention, "VALUES_AT_ONCE", 2 * PIXELS * 2048)  # of two objects
    torch.manual_seed(1)
    settings = OmegaConf.load(config).model.memory_attention
    for attention in (settings.layer.self_attention, settings.layer.cross_attention):
        attention.feat_sizes, attention.num_heads = [SIDE, SIDE], heads
    official = instantiate(settings, _recursive_=True).eval()
    places = {
        "memory_positions": torch.randn(PIXELS, MEMORY_CHANNELS),
        "time_encodings": torch.randn(7, MEMORY_CHANNELS),
    }
    plain, cache = PlainMemoryAttention(official, **places), MemoryCache(1 << 27)
    size = {"height": SIDE, "width": SIDE, "dtype": torch.float32}
    rearranged = MemoryAttention(official, **size, **places, cache=cache)
    tokens = 4 * (frames + 1)
    memories = [
        [name_memory(torch.randn(MEMORY_CHANNELS, PIXELS).bfloat16()) for _ in range(frames)]
        for _ in range(objects)
    ]
    for frame in itertools.chain(*memories):
        cache.put(frame)
    recent = range(frames - 2, -1, -1)
    # The objects' recent frames are not of the same ages, as where one of them was hidden.
    ages = [[6, *(min(5, age + number) for age in recent)] for number in range(objects)]
    arguments = (
        *(torch.randn(PIXELS, CHANNELS) for _ in range(2)),
        *(memories, ages),
        *(torch.randn(objects, tokens, MEMORY_CHANNELS) for _ in range(2)),
    )
    with torch.inference_mode():
        truth = plain(*arguments)
        assert truth.shape == (objects, PIXELS, CHANNELS)
        for _ in range(2):  # the second time from the cache
            assert (rearranged(*arguments) - truth).abs().max() < 1e-4
    # A frame that is the only one is not pooled, and what is not pooled is not kept.
    kept = 0 if frames == 1 and config.stem.startswith("efficienttam") else objects * frames
    assert cache.derived_hits == cache.derived_misses == kept


# ---- attention ----


@pytest.mark.parametrize("amx", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("channels", [16, 64])
@pytest.mark.parametrize("biased", [False, True])
def test_attends_as_the_formula_says(
    monkeypatch: pytest.MonkeyPatch, amx: bool, dtype: torch.dtype, channels: int, biased: bool
) -> None:
    """In both ways, also where values are narrower than keys."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    torch.manual_seed(1)
    queries = torch.randn(3, 2, 100, 64).to(dtype)
    keys = torch.randn(3, 2, 70, 64).to(dtype)
    values = torch.randn(3, 2, 70, channels).to(dtype)
    biases = (torch.arange(70) % 2 * math.log(4)).to(dtype) if biased else None
    scores = queries.double() @ keys.double().transpose(2, 3) / math.sqrt(64)
    if biases is not None:
        scores = scores + biases.double()
    truth = scores.softmax(-1) @ values.double()
    attended = attend(queries, keys, values, biases)
    assert attended.dtype == dtype
    assert attended.shape == (3, 2, 100, channels)
    assert (attended - truth).abs().max() < (0.02 if dtype == torch.bfloat16 else 1e-5)


def test_attends_to_more_than_is_worked_on_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys, values = (torch.randn(5, 1, 33, 8).bfloat16() for _ in range(3))
    whole = attend(queries, keys, values)
    monkeypatch.setattr("sam2_tracker.modules.attention.SCORES_AT_ONCE", 100)  # 3 rows of 33
    assert (attend(queries, keys, values) - whole).abs().max() < 0.02


# ---- resizing, for GPUs ----

SIDES = st.integers(1, 200)


def check_resize(pixels: np.ndarray, width: int, height: int) -> None:
    truth = np.asarray(Image.fromarray(pixels).resize((width, height)))
    ours = resize(torch.from_numpy(pixels), width=width, height=height)
    assert ours.dtype == torch.uint8
    np.testing.assert_array_equal(ours.numpy(), truth)


@given(before=st.tuples(SIDES, SIDES), after=st.tuples(SIDES, SIDES), seed=st.integers(0, 99))
def test_resizes_as_pillow(before: tuple[int, int], after: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Black and white pixels reach beyond both ends of the range.
    check_resize(rng.choice([0, 255, seed], (*before, 3)).astype(np.uint8), *after)


@pytest.mark.parametrize("before", [(1080, 1920), (1920, 1080), (480, 853), (1024, 1024)])
def test_resizes_as_pillow_at_sizes_of_videos(before: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*before, 3), dtype=np.uint8)
    check_resize(pixels, 1024, 1024)
