# SPDX-License-Identifier: MIT
"""Reading a filmed clip with masks, and what is reported of it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training import pictures
from training.clips import Clip
from training.evaluate import correction_scores, main, run_real_clip
from training.model import build_predictor
from training.prompting import resize_input
from training.real_clip import read_real_clip


def write_clip(folder: Path, annotated: tuple[int, ...] = (1, 3)) -> None:
    (folder / "JPEGImages").mkdir(parents=True)
    (folder / "Annotations").mkdir()
    for t in range(5):
        pixels = np.full((60, 80, 3), 40, np.uint8)
        pixels[20:40, 10 + 4 * t : 30 + 4 * t] = (220, 180, 40)
        Image.fromarray(pixels).save(folder / "JPEGImages" / f"{t:05d}.jpg")
        label = np.zeros((60, 80), np.uint8)
        label[20:40, 10 + 4 * t : 30 + 4 * t] = 7
        if t in annotated:
            Image.fromarray(label).save(folder / "Annotations" / f"{t:05d}.png")


def test_a_clip_begins_with_its_first_annotation(tmp_path: Path) -> None:
    write_clip(tmp_path / "car")
    clip = read_real_clip(tmp_path / "car")
    assert clip.name == "car"
    assert clip.frames.shape == (4, 60, 80, 3)
    assert sorted(clip.masks) == [0, 2]
    assert clip.masks[0].shape == (1, 60, 80)
    assert clip.masks[2][0, 30, 30]


def test_a_folder_that_is_no_clip_is_named(tmp_path: Path) -> None:
    for name in ("broken", "sizes", "empty"):
        write_clip(tmp_path / name)
    write_clip(tmp_path / "late", annotated=(4,))
    write_clip(tmp_path / "unjudged", annotated=(1,))
    (tmp_path / "broken" / "JPEGImages" / "00002.jpg").write_bytes(b"no picture")
    Image.new("L", (20, 20)).save(tmp_path / "sizes" / "Annotations" / "00003.png")
    Image.new("L", (80, 60)).save(tmp_path / "empty" / "Annotations" / "00001.png")
    for name, said in (
        ("missing", "has no clip: wanted are JPEGImages"),
        ("late", "two frames or more"),
        ("unjudged", "two frames or more"),
        ("broken", "cannot be read"),
        ("sizes", "must have one size"),
        ("empty", "shows no object"),
    ):
        with pytest.raises(ValueError, match=said):
            read_real_clip(tmp_path / name)


def test_a_real_clip_is_reported_beside_the_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip(tmp_path / "car")
    predictor = build_predictor()
    resize_input(predictor, 128)
    run_real_clip(read_real_clip(tmp_path / "car"), predictor)
    told = capsys.readouterr().out
    assert "car: 4 frames, 1 objects, masks on 1 frames after the first" in told
    lines = {line.strip()[:19].strip(): line.split()[-3:] for line in told.splitlines()[1:5]}
    # Moved by 8 of 20 columns: 12 are in both, 28 in either.
    assert float(lines["first mask repeated"][0]) == pytest.approx(12 / 28, abs=0.002)
    assert float(lines["mask prompt"][0]) > 12 / 28
    assert "IoU after 3 clicks" in told


def test_corrections_are_judged_after_the_first_and_not_where_a_mask_was_given() -> None:
    truth = np.zeros((6, 1, 8, 8), bool)
    truth[:, 0, :4] = True
    masks = truth.copy()
    masks[:2] = False  # before the first correction
    masks[4] = False  # given
    masks[3, 0, 2:4] = False  # half of it
    clip = Clip(np.zeros((6, 8, 8, 3), np.uint8), truth)
    assert correction_scores(clip, masks, [2, 4]) == [pytest.approx((0.5 + 1) / 2)]


def test_an_evaluation_that_measured_nothing_has_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise pictures.NoPicturesError("There is no apt-get.")

    monkeypatch.setattr(pictures, "fetch", fail)
    monkeypatch.setattr("sys.argv", ["evaluate", "--only", "semi-real"])
    assert main() == 1
    assert "NOT MEASURED" in capsys.readouterr().out
