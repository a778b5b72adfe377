# SPDX-License-Identifier: MIT
"""Training clips: what is drawn, stored, read back and changed on the way to the model."""

import shutil
import subprocess
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from training import dataset, pictures
from training.clips import Clip, draw_clip
from training.composites import draw_composite
from training.covers import cover_by_chance
from training.dataset import (
    KINDS,
    ClipStock,
    augment,
    colour_tables,
    ensure_clip,
    frame_size,
    read_clip,
    window,
    write_clip,
)
from training.evaluation_set import COVERED_SUBSETS, SEMI_REAL_SUBSETS, check_frozen
from training.parts import LEAST_SHARE, MOST_SHARE, draw_part

SMALL = {"frames": 5, "width": 160, "height": 96, "objects": 2, "side": "training"}


@pytest.fixture(scope="module")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stamps, photographs and a film of our own, where those of the Debian packages would be."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(1)

    def photograph(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 255, (12, 16, 3), np.uint8)
        cv2.imwrite(str(path), cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC))

    for side in ("training", "held_out"):
        for path in pictures.photograph_paths(side, folder):
            photograph(path)

    def stamp(name: str, pixels: np.ndarray) -> None:
        path = folder / pictures.STAMPS / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), pixels)

    alpha = cv2.ellipse(np.zeros((90, 120, 1), np.uint8), (60, 45), (50, 35), 0, 0, 360, 255, -1)
    for name in ("animals/birds/duck", "animals/fish/seahorse", "sports/soccer", "vehicles/bus"):
        colour = np.broadcast_to(rng.integers(0, 255, 3).astype(np.uint8), (90, 120, 3))
        stamp(name, np.concatenate((colour, alpha), axis=2))
    for name in ("symbols/letter", "animals/cartoon/mouse", "animals/birds/duck_mirror"):
        stamp(name, np.full((90, 90, 4), 255, np.uint8))
    for film in pictures.FILMED:
        codec = cv2.VideoWriter.fourcc(*"MJPG")
        writer = cv2.VideoWriter(str(folder / film), codec, 10, (160, 120))
        for _ in range(6):
            writer.write(rng.integers(0, 255, (120, 160, 3), np.uint8))
        writer.release()
    return folder


def test_drawings_and_mirrored_stamps_are_left_out_and_held_out_kinds_kept_apart(
    picture_folder: Path,
) -> None:
    names = {
        side: [path.stem for path in pictures.cut_out_paths(side, picture_folder)]
        for side in ("training", "held_out")
    }
    assert names == {"training": ["duck", "seahorse", "bus"], "held_out": ["soccer"]}
    training = set(pictures.photograph_paths("training"))
    assert not training & set(pictures.photograph_paths("held_out"))


def test_a_cut_out_is_cropped_and_its_colour_goes_on_beyond_the_outline(
    picture_folder: Path,
) -> None:
    path = picture_folder / pictures.STAMPS / "animals/birds/duck.png"
    found = pictures.cut_out(path)
    assert found is not None
    assert found.shape == (71, 101, 4)
    inside, corner = found[35, 50], found[0, 0]
    assert (inside[3], corner[3]) == (255, 0)
    assert np.abs(inside[:3].astype(int) - corner[:3]).max() <= 2


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "no apt-get.*yourself"),  # a machine without Debian
        ("/usr/bin/apt-get", "apt-get download tuxpaint.*Unable to loc"),
    ],
)
def test_where_no_pictures_can_be_fetched_it_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str | None, said: str
) -> None:
    monkeypatch.setattr(pictures.shutil, "which", lambda _name: found)
    failed = subprocess.CompletedProcess([], 100, "", "E: Unable to locate package")
    monkeypatch.setattr(pictures.subprocess, "run", lambda *_a, **_k: failed)
    with pytest.raises(pictures.NoPicturesError, match=said):
        pictures.fetch(tmp_path)
    monkeypatch.setattr(pictures, "fetch", partial(pictures.fetch, tmp_path))
    monkeypatch.setattr("sys.argv", ["dataset", "--kind", "composite", "--clips", "1"])
    with pytest.raises(SystemExit, match=said):
        dataset.main()


@pytest.mark.parametrize("seed", range(3))
def test_a_composite_depends_on_its_seed_alone(seed: int, picture_folder: Path) -> None:
    one, again, other = (
        draw_composite(number, **SMALL, folder=picture_folder) for number in (seed, seed, seed + 10)
    )
    assert np.array_equal(one.frames, again.frames)
    assert np.array_equal(one.masks, again.masks)
    assert not np.array_equal(one.frames, other.frames)


@pytest.mark.parametrize("seed", range(4))
def test_a_composite_shows_every_object_at_first_and_no_pixel_is_two_objects(
    seed: int, picture_folder: Path
) -> None:
    clip = draw_composite(
        seed, **SMALL, hidden=2, twins=seed % 2 == 1, use_film=seed == 3, folder=picture_folder
    )
    assert clip.frames.shape == (5, 96, 160, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.masks.shape == (5, 2, 96, 160)
    assert clip.masks.sum(1).max() == 1
    assert (clip.masks[0].sum((1, 2)) >= 0.004 * 96 * 160).all()


def test_the_mask_of_a_composite_lies_on_what_is_drawn(picture_folder: Path) -> None:
    """One stamp of one colour: inside the mask the picture is nearer to it than outside."""
    for seed in range(3):
        options = SMALL | {"objects": 1, "side": "held_out"}
        clip = draw_composite(seed, **options, clutter=0, pseudo=0.0, folder=picture_folder)
        inside = np.stack([f[m[0]].mean(0) for f, m in zip(clip.frames, clip.masks, strict=True)])
        spread = np.stack([f[m[0]].std(0) for f, m in zip(clip.frames, clip.masks, strict=True)])
        assert spread.mean() < 25, "one colour within the mask"
        assert np.abs(inside - inside[0]).max() < 60, "and the same colour in every frame"


def test_a_part_has_a_smaller_mask_on_the_same_picture_and_moves_with_its_thing(
    picture_folder: Path,
) -> None:
    for seed in range(3):
        whole, part = (_one_thing(seed, picture_folder, parts=share) for share in (0.0, 1.0))
        assert part.masks.any((2, 3)).all()
        assert not (part.masks & ~whole.masks).any()
        shares = part.masks.sum((1, 2, 3)) / whole.masks.sum((1, 2, 3))
        assert (shares < 0.9).all()
        assert np.ptp(shares) < 0.35 * shares.mean(), "the same part in every frame"


def _one_thing(seed: int, folder: Path, *, parts: float) -> Clip:
    """A thing that stands still, and no other."""
    options = SMALL | {"objects": 1, "clutter": 0, "motion": 0.0}
    return draw_composite(seed, **options, parts=parts, folder=folder)


def test_a_part_ends_where_the_colour_changes_or_anywhere_and_is_never_all_of_the_thing() -> None:
    colour = np.zeros((60, 90, 3), np.float32)
    colour[:, :30], colour[:, 30:] = (200, 40, 40), (40, 40, 200)
    alpha = np.zeros((60, 90), np.float32)
    alpha[5:55, 5:85] = 1
    by_colour = 0
    for seed in range(40):
        part = draw_part(np.random.default_rng(seed), colour, alpha) > 0.5
        assert part.shape == alpha.shape
        share = (part & (alpha > 0.5)).sum() / (alpha > 0.5).sum()
        assert LEAST_SHARE / 2 < share < MOST_SHARE + 0.1
        by_colour += not part[:, 34:].any()
    assert by_colour > 4


def test_the_evaluation_sets_are_the_frozen_ones() -> None:
    check_frozen(None)
    assert sum(subset.clips for subset in SEMI_REAL_SUBSETS) == 30


def test_other_held_out_pictures_are_noticed(picture_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(picture_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / pictures.FILMED[1]).write_bytes(b"another film")
    with pytest.raises(ValueError, match="held-out pictures changed"):
        check_frozen(tmp_path)


def test_a_stored_clip_is_read_back(tmp_path: Path) -> None:
    clip = draw_clip(3, frames=4, width=90, height=70, objects=2, pictures="none")
    write_clip(clip, tmp_path / "00000", quality=95)
    frames, labels = read_clip(tmp_path / "00000", 4)
    assert np.abs(frames.astype(int) - clip.frames).mean() < 4
    for index in range(2):
        assert np.array_equal(labels == index + 1, clip.masks[:, index])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.jpg", "00000.png"]


def test_a_clip_that_is_missing_is_drawn_when_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def draw(_kind: dataset.Kind, number: int) -> Clip:
        asked.append(number)
        return draw_clip(number, frames=8, width=64, height=64, objects=1, pictures="none")

    monkeypatch.setattr(dataset, "training_clip", draw)
    first, again = (ensure_clip("drawn", 7, tmp_path) for _ in range(2))
    assert first == again
    assert asked == [7]


def test_half_of_the_clips_are_16_to_9_and_the_others_upright_or_wide() -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([frame_size(rng, 300 * 300) for _ in range(400)])
    aspects = sizes[:, 0] / sizes[:, 1]
    assert 0.4 < np.isclose(aspects, 16 / 9, atol=0.02).mean() < 0.6
    assert aspects.min() < 0.7
    assert aspects.max() <= 1.93
    assert np.abs(sizes.prod(1) / 300**2 - 1).max() < 0.02


@pytest.mark.parametrize("name", KINDS)
def test_every_stock_has_fast_motion(name: str) -> None:
    """A stride of 3 is taken, where the clip is long enough."""
    rng = np.random.default_rng(0)
    length, frames = KINDS[name].frames, 3
    steps = [abs(np.diff(window(rng, length, frames, 3))) for _ in range(200)]
    assert {int(step[0]) for step in steps} == {1, 2, 3}
    assert all((step == step[0]).all() for step in steps)


def test_a_window_longer_than_its_stride_allows_stays_inside_the_clip() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        chosen = window(rng, 8, 7, 3)
        assert len(chosen) == 7
        assert 0 <= chosen.min() <= chosen.max() < 8


def striped(side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A bright object in the upper left of a dark picture, and its label."""
    labels = np.zeros((2, side, 2 * side), np.uint8)
    labels[:, 8:40, 10:60] = 1
    shots = np.where(labels[..., None] > 0, 220, 30).astype(np.uint8).repeat(3, -1)
    return shots, labels


@pytest.mark.parametrize("seed", range(12))
def test_what_happens_to_a_picture_happens_to_its_label(seed: int) -> None:
    """Crop, flip and squash: the bright object stays exactly under its mask."""
    images, masks = augment(np.random.default_rng(seed), *striped(), side=96)
    bright = images[..., 0] > (int(images.max()) + int(images.min())) / 2
    assert images.shape == (2, 96, 96, 3)
    assert masks.shape == (1, 2, 96, 96)
    wrong = bright ^ masks[0]
    assert wrong.mean() < 0.01


def test_flips_are_to_the_side_only() -> None:
    sides = set()
    for seed in range(40):
        _, masks = augment(np.random.default_rng(seed), *striped(), side=64)
        rows, columns = np.nonzero(masks[0, 0])
        if masks[0, 0].mean() < 0.3:  # not a crop of the object alone
            sides.add(bool(columns.mean() > 32))
            assert rows.mean() < 48
    assert sides == {True, False}


@pytest.mark.parametrize(("from_side", "to_side"), [(97, 128), (251, 96), (130, 128)])
def test_a_label_is_not_moved_against_its_picture(from_side: int, to_side: int) -> None:
    """Centres of mass of picture and mask agree to a fraction of a pixel."""
    y, x = np.mgrid[:from_side, :from_side]
    inside = (x - from_side * 0.45) ** 2 + (y - from_side * 0.55) ** 2 < (from_side * 0.2) ** 2
    labels = inside[None].astype(np.uint8)
    shots = np.where(inside, 255, 0).astype(np.uint8)[None, ..., None].repeat(3, -1)
    rng = np.random.default_rng(2)
    offsets = []
    for _ in range(12):
        images, masks = augment(rng, shots, labels, side=to_side)
        light = images[0, ..., 0].astype(float) - images[0, 0, 0, 0]
        rows, columns = np.mgrid[:to_side, :to_side]
        centre = [(light * places).sum() / light.sum() for places in (rows, columns)]
        offsets.append(np.array(centre) - [p.mean() for p in np.nonzero(masks[0, 0])])
    # The median, for a crop may cut the disc; a label that is resized by itself is 0.4 off.
    assert np.abs(np.median(offsets, 0)).max() < 0.3


def test_colours_stay_natural_and_flicker_a_little() -> None:
    rng = np.random.default_rng(0)
    tables = [colour_tables(rng, 4)[:, :, 0].astype(int) for _ in range(60)]
    assert all((np.diff(table, axis=1) >= 0).all() for table in tables), "nothing is inverted"
    casts = [np.abs(table[0, 128] - table[0, 128].mean()).max() for table in tables]
    assert max(casts) < 50, "no channel takes another's place"
    steps = [np.abs(table[1:, 128] - table[:-1, 128]).max() for table in tables]
    assert any(step == 0 for step in steps)
    assert any(0 < step < 40 for step in steps)


def test_an_object_that_vanishes_when_it_is_made_small_is_not_prompted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thin diagonal line of 220 pixels is nothing at 128 x 128: the next clip is taken."""
    line = np.zeros((8, 1, 256, 256), bool)
    line[:, 0, np.arange(18, 238), np.arange(18, 238)] = True
    frames = np.zeros((8, 256, 256, 3), np.uint8)
    good = draw_clip(1, frames=8, width=256, height=256, objects=1, pictures="none", motion=0.1)
    clips = [Clip(frames, line), good]
    monkeypatch.setattr(dataset, "training_clip", lambda _kind, number: clips[number])
    stock = ClipStock("drawn", tmp_path, clips=2)
    for seed in range(6):
        batch = stock.sample(np.random.default_rng(seed), 2, 3, 2, 1, side=128)
        assert batch.masks[:, 0].any((1, 2)).all()


def test_batches_hold_whole_objects_of_their_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"frames": 8, "width": 200, "height": 120, "objects": 2, "motion": 0.3}
    monkeypatch.setattr(
        dataset, "training_clip", lambda _, seed: draw_clip(seed, **options, pictures="none")
    )
    stock = ClipStock("drawn", tmp_path, clips=2)
    batch = stock.sample(np.random.default_rng(0), 3, 4, 2, 2, side=128)
    assert batch.images.shape == (3, 4, 128, 128, 3)
    assert batch.masks.shape[1:] == (4, 128, 128)
    assert len(batch.clip) == len(batch.masks)
    assert batch.masks[:, 0].any((1, 2)).all()
    assert batch.times[0] == 0
    assert list(batch.times) == sorted(set(batch.times))


def test_a_plain_cover_hides_all_of_the_object_and_only_for_a_while() -> None:
    clip = COVERED_SUBSETS[0].draw(1)
    seen = clip.masks[:, 0].any((1, 2))
    assert list(np.flatnonzero(~seen)) == list(range(10, 19))
    uncovered = clip.frames[9][clip.masks[9, 0]]
    assert (uncovered != 128).any()
    assert (clip.frames[10][clip.masks[9, 0] & clip.masks[19, 0]] == 128).all()


@pytest.mark.parametrize("seed", range(20))
def test_a_chance_cover_spares_the_first_frame_and_is_no_object(seed: int) -> None:
    frames = np.full((6, 40, 60, 3), 7, np.uint8)
    masks = np.zeros((2, 6, 40, 60), bool)
    masks[0, :, 10:20, 5:15] = masks[1, :, 12:18, 30:44] = True
    cover_by_chance(np.random.default_rng(seed), frames, masks)
    covered = (frames != 7).any(3)
    assert not covered[0].any()
    assert covered.any()
    assert not (masks & covered).any()
    assert any(not masks[i, t].any() for i in range(2) for t in range(1, 6))
