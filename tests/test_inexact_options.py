# SPDX-License-Identifier: MIT
"""A smaller input and fewer memory frames: the official predictor with the same, and kept apart."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cvat_requests import image_to_base64
from omegaconf import OmegaConf
from PIL import Image
from tracking import (
    LOGIT_TOLERANCE,
    SAM2_CONFIGS,
    images,
    largest_difference,
    mean_overlap,
    our_logits,
    start,
    step,
    tight_box,
)

from model_handler import ModelHandler
from sam2_tracker.errors import AllObjectsFailed, ConfigurationError
from sam2_tracker.memory_bank import start_bank
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.memory_policy import remember
from sam2_tracker.models import ModelFiles
from sam2_tracker.protocol import Seed, TrackRequest
from sam2_tracker.settings import MIB, Settings
from sam2_tracker.shapes import bitmap_to_mask
from tools.official import official_logits, official_predictor
from tools.redis_server import RedisServer
from tools.sam2_models import random_model
from tracker import build_tracker
from training.clips import Clip, draw_clip

FRAMES = 10  # more than the memory holds


@pytest.fixture(scope="module")
def clip() -> Clip:
    return draw_clip(3, frames=FRAMES, width=320, height=240, objects=2)


def model_with(files: ModelFiles, *, precision: str = "float32", **options: Any) -> ModelHandler:
    cache = MemoryCache(64 * MIB)
    return ModelHandler(
        files, device="cpu", precision=precision, fill_hole_area=0, cache=cache, **options
    )


def test_fewer_memory_frames_give_the_logits_of_the_official_predictor(
    clip: Clip, small_files: ModelFiles, tmp_path: Path
) -> None:
    predictor = official_predictor(small_files)
    encodings = predictor.maskmem_tpos_enc.data
    # sam2 takes the encoding of the conditioning frame from the end, those of others by their age.
    predictor.maskmem_tpos_enc.data = encodings[[0, 1, 6]]
    predictor.num_maskmem = 3
    prompts = list(clip.masks[0])
    official = official_logits(predictor, images(clip), prompts, tmp_path)
    ours = our_logits(model_with(small_files, memory_frames=3), images(clip), prompts)
    assert largest_difference(ours, official) < LOGIT_TOLERANCE
    whole = our_logits(model_with(small_files), images(clip), prompts)
    assert largest_difference(whole, official) > 10 * LOGIT_TOLERANCE


def test_a_smaller_input_gives_the_logits_of_the_official_predictor(
    clip: Clip, micro_files: ModelFiles, tmp_path: Path
) -> None:
    config = OmegaConf.load(micro_files.config)
    config.model.image_size = 128
    small = replace(micro_files, config=tmp_path / "small.yaml")
    small.config.write_text("# @package _global_\n" + OmegaConf.to_yaml(config))
    prompts = list(clip.masks[0])
    official = official_logits(official_predictor(small), images(clip), prompts, tmp_path)
    ours = our_logits(model_with(micro_files, image_size=128), images(clip), prompts)
    assert largest_difference(ours, official) < LOGIT_TOLERANCE


@pytest.mark.parametrize(
    ("options", "least"), [({}, 0.95), ({"image_size": 192, "memory_frames": 3}, 0.9)]
)
def test_bfloat16_tracks_alike(
    clip: Clip, micro_files: ModelFiles, options: dict[str, Any], least: float
) -> None:
    """It keeps rearranged weights of its own."""
    exact = model_with(micro_files, **options)
    half = model_with(micro_files, precision="bfloat16", **options)
    assert half.fingerprint == exact.fingerprint  # they may share a Redis
    prompts = [clip.masks[0, 0], tight_box(clip.masks[0, 1])]
    rough = our_logits(half, images(clip), prompts)
    assert {logits.dtype for each in rough for logits in each.values()} == {torch.float32}
    assert mean_overlap(our_logits(exact, images(clip), prompts), rough) > least


def test_metas_models_take_a_smaller_input_and_fewer_memory_frames(tmp_path: Path) -> None:
    files = random_model(SAM2_CONFIGS / "sam2.1" / "sam2.1_hiera_t.yaml", tmp_path)
    model = model_with(files, image_size=128, memory_frames=4)
    assert (model.layout.tokens, model.layout.recent) == (8 * 8, 3)
    image = Image.new("RGB", (96, 64))
    (started,) = start(model, image, [(8.0, 8.0, 40.0, 40.0)])
    bank = start_bank("official", started.seen)
    for _ in range(5):
        (prediction,) = step(model, model.encode(image), [bank])
        bank = remember(bank, prediction.seen, model.layout)
    assert prediction.logits.shape == (32, 32)
    assert len(bank.memories) == 1 + 3


def test_the_models_own_values_are_no_options(micro_files: ModelFiles) -> None:
    plain, named = model_with(micro_files), model_with(micro_files, image_size=384, memory_frames=7)
    assert plain.fingerprint == named.fingerprint
    assert plain.layout == named.layout


def test_more_frames_than_the_model_remembers_are_refused(micro_files: ModelFiles) -> None:
    with pytest.raises(ConfigurationError, match="SAM2_MEMORY_FRAMES is 8.*remembers 7"):
        model_with(micro_files, memory_frames=8)


@pytest.mark.parametrize("options", [{"image_size": 128}, {"memory_frames": 3}])
def test_a_track_is_not_continued_with_other_options(
    clip: Clip, micro_files: ModelFiles, empty_redis: RedisServer, options: dict[str, Any]
) -> None:
    """They share a Redis, as replicas with different settings would."""
    address = {"redis_host": empty_redis.host, "redis_port": empty_redis.port}
    model = {"config": micro_files.config, "checkpoint": micro_files.checkpoint}
    settings = Settings(precision="float32", **address, **model)
    trackers = [build_tracker(settings), build_tracker(replace(settings, **options))]
    frame = base64.b64decode(image_to_base64(images(clip)[0]))
    seed = Seed(type="mask", points=bitmap_to_mask(clip.masks[0, 0]))
    for one, other in (trackers, trackers[::-1]):
        (answer,) = one.track(TrackRequest(image=frame, entries=(seed,)))
        request = TrackRequest(image=frame, entries=(answer.token,))
        with pytest.raises(AllObjectsFailed) as caught:
            other.track(request)
        assert caught.value.status == 410
        assert one.track(request)[0].token is not None
    for tracker in trackers:
        tracker.close()
