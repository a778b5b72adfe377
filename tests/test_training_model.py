# SPDX-License-Identifier: MIT
"""The shipped micro model, and that a training stopped half-way goes on where it was."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from training import train as training_program
from training.clips import draw_clip
from training.dataset import KINDS, SIDE, ClipStock
from training.evaluate import tracked
from training.metrics import jaccard
from training.model import CONFIG, WEIGHTS, build_predictor, load_weights, save_weights

META_CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"


@pytest.fixture(scope="module")
def predictor():
    return build_predictor()


def test_the_shipped_weights_are_small_halves_and_fit_the_official_predictor(predictor) -> None:
    stored = load_file(WEIGHTS)
    assert WEIGHTS.stat().st_size <= 10_000_000
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert set(stored) == set(predictor.state_dict())
    assert sum(tensor.numel() for tensor in stored.values()) <= 5_000_000
    assert all(torch.isfinite(tensor).all() for tensor in stored.values())


def test_every_feature_of_sam_2_1_is_on_as_in_metas_configuration() -> None:
    import sam2

    meta = OmegaConf.load(Path(sam2.__path__[0]) / META_CONFIG).model
    ours = OmegaConf.load(CONFIG).model
    assert set(ours) == set(meta)
    for name in set(meta) - {"image_encoder", "memory_attention", "memory_encoder", "image_size"}:
        assert ours[name] == meta[name], name


@pytest.mark.parametrize("prompt", ["mask", "box"])
def test_it_tracks_two_objects_through_the_official_predictor(
    predictor, tmp_path: Path, prompt: str
) -> None:
    clip = draw_clip(41, frames=8, width=256, height=256, objects=2, pictures="none", motion=0.5)
    masks = tracked(predictor, clip, prompt, tmp_path, [])
    scores = [jaccard(masks[t, i], clip.masks[t, i]) for t in range(1, 8) for i in range(2)]
    assert np.mean(scores) > 0.6


def test_the_training_encoder_equals_the_models_own(predictor) -> None:
    images = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        _, levels, places, sizes = predictor._prepare_backbone_features(
            predictor.forward_image(images)
        )
        ours, our_places, our_sizes = training_program.encode(predictor, images)
    for level, our_level in zip(levels, ours, strict=True):
        torch.testing.assert_close(our_level, level, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(our_places[2], places[2][:, :1])
    assert our_sizes == sizes


@pytest.fixture
def stocks(tmp_path: Path) -> dict[str, ClipStock]:
    """One small shard of each kind."""
    for name in KINDS:
        clips = np.zeros((2, 9, SIDE, SIDE, 4), np.uint8)
        for i in range(2):
            clip = draw_clip(i, frames=9, width=SIDE, height=SIDE, objects=2, pictures="none")
            clips[i, ..., :3] = clip.frames
            clips[i, ..., 3] = clip.masks[:, 0] + 2 * clip.masks[:, 1]
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "00000.npy", clips)
    return {name: ClipStock(name, tmp_path) for name in KINDS}


def test_a_stopped_training_goes_on_bit_by_bit(stocks, tmp_path: Path) -> None:
    whole = training_program.Training("cpu", seed=5)
    whole.advance(stocks)
    whole.save(tmp_path / "checkpoint.pt")
    stopped = training_program.Training("cpu", seed=6)
    stopped.load(tmp_path / "checkpoint.pt")
    whole.advance(stocks)
    stopped.advance(stocks)
    assert stopped.step == whole.step == 2
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, stopped.model.state_dict()[name]), name
        assert torch.equal(whole.average[name], stopped.average[name]), name


def test_a_training_is_not_mixed_up_with_another(tmp_path: Path) -> None:
    arguments = argparse.Namespace(device="cpu", seed=5, folder=tmp_path, start_from=None)
    from_nothing = training_program.begin(arguments)
    from_nothing.progress = 0.5
    from_nothing.save(tmp_path / "checkpoint.pt")
    assert training_program.begin(arguments).progress == 0.5
    arguments.start_from = WEIGHTS
    with pytest.raises(SystemExit, match="half of a training that did not start from"):
        training_program.begin(arguments)
    (tmp_path / "checkpoint.pt").unlink()
    continued = training_program.begin(arguments)
    continued.progress = 0.7
    continued.save(tmp_path / "checkpoint.pt")
    assert training_program.begin(arguments).progress == 0.7
    continued.progress = 1.0
    continued.save(tmp_path / "checkpoint.pt")
    assert training_program.begin(arguments).progress == training_program.CONTINUED
    arguments.start_from = None
    with pytest.raises(SystemExit, match="is finished"):
        training_program.begin(arguments)


def test_a_training_starts_from_the_committed_weights() -> None:
    training = training_program.Training("cpu", seed=5)
    training.start_from(WEIGHTS)
    stored = load_weights(WEIGHTS)
    for name, weight in training.model.state_dict().items():
        assert torch.equal(weight, stored[name]), name


def test_weights_beyond_float16_are_not_stored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too_large does not fit float16"):
        save_weights({"too_large": torch.tensor([1e6])}, tmp_path / "weights.safetensors")
    assert not list(tmp_path.iterdir())


def test_batches_hold_whole_objects_of_their_clips(stocks) -> None:
    rng = np.random.default_rng(0)
    batch = stocks["short"].sample(rng, clips=3, frames=4, objects=2, widest_stride=2, side=128)
    assert batch.images.shape == (3, 4, 128, 128, 3)
    assert batch.masks.shape[1:] == (4, 128, 128)
    assert len(batch.clip) == len(batch.masks)
    assert batch.masks[:, 0].any((1, 2)).all()
    assert batch.times[0] == 0
    assert list(batch.times) == sorted(set(batch.times))
