# SPDX-License-Identifier: MIT
"""The two numbers that trained weights get afterwards."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from training import calibrate
from training.clips import Clip, draw_clip
from training.model import CONFIG, WEIGHTS, build_predictor, load_weights, save_weights
from training.predict import clicked, tracked

SIDE = 96


@pytest.fixture(scope="module")
def clip() -> Clip:
    return draw_clip(43, frames=4, width=SIDE, height=SIDE, objects=2, pictures="none", motion=0.5)


def masks_with(shift: float, factor: float, clip: Clip, folder: Path) -> np.ndarray:
    predictor = build_predictor(CONFIG, None)
    predictor.load_state_dict(calibrate.calibrated(load_weights(WEIGHTS), shift, factor))
    return tracked(predictor, clip, "mask", folder, [])


def test_a_large_negative_shift_hides_everything_that_is_tracked(clip: Clip, tmp_path) -> None:
    masks = masks_with(-1000.0, 1.0, clip, tmp_path)
    assert masks[0].any()
    assert not masks[1:].any()


def test_sharpening_changes_no_track(clip: Clip, tmp_path) -> None:
    plain = masks_with(0.0, 1.0, clip, tmp_path)
    assert plain[1:].any()
    assert np.array_equal(plain, masks_with(0.0, 10.0, clip, tmp_path))


def test_a_sharp_single_mask_answers_every_second_click(clip: Clip, tmp_path) -> None:
    """As a model does that never falls back on the other three masks."""
    blunt = calibrate.calibrated(load_weights(WEIGHTS), 0.0, 0.01)
    found = {}
    for name, weights, fallback in (
        ("blunt", blunt, True),
        ("sharp", calibrate.calibrated(blunt, 0.0, 1e6), True),
        ("never", blunt, False),
    ):
        predictor = build_predictor(CONFIG, None)
        predictor.load_state_dict(weights)
        predictor.sam_mask_decoder.dynamic_multimask_via_stability = fallback
        found[name] = clicked(predictor, clip, 2, tmp_path)
    assert found["sharp"] == found["never"] != found["blunt"]


def test_what_is_chosen_is_stored_and_nothing_else_changes(tmp_path, monkeypatch) -> None:
    path = tmp_path / "weights.safetensors"
    before = load_weights(WEIGHTS)
    save_weights(before, path)
    arguments = ["calibrate", "--weights", str(path), "--shift", "-0.5", "--sharpen", "2"]
    monkeypatch.setattr(sys, "argv", arguments)
    calibrate.main()
    after = load_weights(path)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    single = {f"{calibrate.SINGLE_MASK}.{part}" for part in ("weight", "bias")}
    assert changed == {calibrate.VISIBILITY, *single}
    assert torch.allclose(
        after[calibrate.VISIBILITY], before[calibrate.VISIBILITY] - 0.5, atol=0.01
    )


@pytest.mark.parametrize("options", [("--sharpen", "0"), ("--clips", "0")])
def test_numbers_that_make_no_sense_are_a_usage_error(monkeypatch, capsys, options) -> None:
    monkeypatch.setattr(sys, "argv", ["calibrate", *options])
    with pytest.raises(SystemExit) as ended:
        calibrate.main()
    assert ended.value.code == 2
    assert "have to be above 0" in capsys.readouterr().err
