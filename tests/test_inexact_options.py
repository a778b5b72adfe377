# SPDX-License-Identifier: MIT
"""A smaller input and fewer memory frames: the official predictor with the same, and kept apart."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image
from test_fidelity import (
    LOGIT_TOLERANCE,
    images,
    largest_difference,
    our_logits,
    step,
)

from model_handler import ModelHandler, prediction_of
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
from tracker import Tracker, build_tracker
from training.clips import Clip, draw_clip

FRAMES = 10  # more than the memory holds


@pytest.fixture(scope="module")
def clip() -> Clip:
    return draw_clip(3, frames=FRAMES, width=320, height=240, objects=2)


def model_with(files: ModelFiles, *, precision: str = "float32", **options: Any) -> ModelHandler:
    return ModelHandler(
        files,
        device="cpu",
        precision=precision,
        fill_hole_area=0,
        cache=MemoryCache(64 * MIB),
        **options,
    )


def test_fewer_memory_frames_are_the_official_predictors(
    clip: Clip, micro_files: ModelFiles, tmp_path: Path
) -> None:
    predictor = official_predictor(micro_files)
    encodings = predictor.maskmem_tpos_enc.data
    # sam2 takes the encoding of the conditioning frame from the end, those of others by their age.
    predictor.maskmem_tpos_enc.data = encodings[[0, 1, 6]]
    predictor.num_maskmem = 3
    prompts = list(clip.masks[0])
    official = official_logits(predictor, images(clip), prompts, tmp_path)
    ours = our_logits(model_with(micro_files, memory_frames=3), images(clip), prompts)
    assert largest_difference(ours, official) < LOGIT_TOLERANCE
    whole = our_logits(model_with(micro_files), images(clip), prompts)
    assert largest_difference(whole, official) > 10 * LOGIT_TOLERANCE


def test_a_smaller_input_is_the_official_predictors(
    clip: Clip, micro_files: ModelFiles, tmp_path: Path
) -> None:
    config = OmegaConf.load(micro_files.config)
    config.model.image_size = 128
    path = tmp_path / "small.yaml"
    path.write_text("# @package _global_\n" + OmegaConf.to_yaml(config))
    small = ModelFiles(
        name="small",
        config=path,
        checkpoint=micro_files.checkpoint,
        sha256=micro_files.sha256,
    )
    prompts = list(clip.masks[0])
    frames = tmp_path / "frames"
    frames.mkdir()
    official = official_logits(official_predictor(small), images(clip), prompts, frames)
    ours = our_logits(model_with(micro_files, image_size=128), images(clip), prompts)
    assert largest_difference(ours, official) < LOGIT_TOLERANCE


@pytest.mark.parametrize("options", [{"image_size": 192}, {"memory_frames": 3}])
def test_the_fast_arrangement_has_the_same_options(
    clip: Clip, micro_files: ModelFiles, options: dict[str, Any]
) -> None:
    """bfloat16 keeps rearranged weights of its own."""
    prompts = list(clip.masks[0])
    exact = our_logits(model_with(micro_files, **options), images(clip), prompts)
    rough = our_logits(
        model_with(micro_files, precision="bfloat16", **options), images(clip), prompts
    )
    overlaps = []
    for one, other in zip(exact, rough, strict=True):
        for index in one:
            a, b = one[index] > 0, other[index] > 0
            both_hidden = not (a | b).any()
            overlaps.append(1.0 if both_hidden else float((a & b).sum() / (a | b).sum()))
    assert sum(overlaps) / len(overlaps) > 0.9


def test_meta_s_models_take_them(tmp_path: Path, repository: Path) -> None:
    import sam2

    config = Path(sam2.__file__).parent / "configs" / "sam2.1" / "sam2.1_hiera_t.yaml"
    files = random_model(config, tmp_path)
    model = model_with(files, image_size=128, memory_frames=4)
    assert (model.layout.tokens, model.layout.recent) == (8 * 8, 3)
    frame = model.encode(Image.new("RGB", (96, 64)))
    (started,) = model.start(frame, [(8.0, 8.0, 40.0, 40.0)], width=96, height=64)
    bank = start_bank("official", prediction_of(started).seen)
    for _ in range(5):
        (prediction,) = step(model, frame, [bank])
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
    clip: Clip,
    micro_files: ModelFiles,
    empty_redis: RedisServer,
    tmp_path: Path,
    options: dict[str, Any],
) -> None:
    """They share a Redis, as replicas with different settings would."""

    def tracker(**some: Any) -> Tracker:
        return build_tracker(
            Settings(
                redis_host=empty_redis.host,
                redis_port=empty_redis.port,
                config=micro_files.config,
                checkpoint=micro_files.checkpoint,
                precision="float32",
                **some,
            )
        )

    exact, inexact = tracker(), tracker(**options)
    frame = tmp_path / "frame.png"
    images(clip)[0].save(frame)
    seed = Seed(type="mask", points=bitmap_to_mask(clip.masks[0, 0]))
    for one, other in ((exact, inexact), (inexact, exact)):
        (answer,) = one.track(TrackRequest(image=frame.read_bytes(), entries=(seed,)))
        assert answer.token is not None
        request = TrackRequest(image=frame.read_bytes(), entries=(answer.token,))
        with pytest.raises(AllObjectsFailed) as caught:
            other.track(request)
        assert caught.value.status == 410
        (continued,) = one.track(request)
        assert continued.token is not None
    exact.close()
    inexact.close()
