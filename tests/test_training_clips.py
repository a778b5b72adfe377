# SPDX-License-Identifier: MIT
"""The clip generator: what a seed gives, and that its masks are what one sees."""

from itertools import pairwise

import numpy as np
import pytest

from training.clips import draw_clip

SIZE = {"width": 160, "height": 96}


def test_the_same_arguments_give_the_same_clip_and_another_seed_another() -> None:
    one, again, other = (
        draw_clip(seed, frames=6, objects=2, distractors=1, **SIZE) for seed in (3, 3, 4)
    )
    assert np.array_equal(one.frames, again.frames)
    assert np.array_equal(one.masks, again.masks)
    assert not np.array_equal(one.frames, other.frames)


@pytest.mark.parametrize("seed", range(4))
def test_a_first_frame_shows_every_object_and_no_pixel_belongs_to_two(seed: int) -> None:
    clip = draw_clip(seed, frames=5, objects=4, leaving=True, **SIZE)
    assert (clip.frames.shape, clip.frames.dtype) == ((5, 96, 160, 3), np.uint8)
    assert (clip.masks.shape, clip.masks.dtype) == ((5, 4, 96, 160), bool)
    assert (clip.masks[0].sum((1, 2)) >= 0.003 * 96 * 160).all()
    assert clip.masks.sum(1).max() == 1  # no pixel belongs to two objects


@pytest.mark.parametrize("seed", range(5))
def test_a_hidden_object_vanishes_for_long_enough_and_comes_back(seed: int) -> None:
    clip = draw_clip(seed, frames=16, objects=2, hidden=5, **SIZE)
    seen = clip.masks[:, 0].any((1, 2))
    assert seen[0]
    runs = "".join("x" if shown else "." for shown in seen)
    longest = max(map(len, runs.strip("x").split("x")))
    assert longest >= 5
    assert "x" in runs[runs.rindex("." * 5) :]


def test_a_leaving_object_is_gone_for_a_while() -> None:
    gone = [
        not draw_clip(seed, frames=24, objects=1, leaving=True, clutter=0, **SIZE)
        .masks.any((2, 3))
        .all()
        for seed in range(4)
    ]
    assert sum(gone) >= 3


def test_masks_lie_on_what_is_drawn() -> None:
    """Things of one colour on a still background: where no mask is, nothing changes."""
    differences = []
    for seed in range(6):
        clip = draw_clip(seed, frames=2, objects=1, clutter=0, pictures="none", **SIZE)
        # The colours inside the first mask are found again inside the second, not outside it.
        first = clip.frames[0][clip.masks[0, 0]].astype(float).mean(0)
        second = clip.frames[1][clip.masks[1, 0]].astype(float).mean(0)
        outside = clip.frames[1][~clip.masks[1, 0]].astype(float).mean(0)
        differences.append(np.abs(first - second).sum() < np.abs(first - outside).sum())
    assert sum(differences) >= 5


def test_held_out_pictures_change_the_clip() -> None:
    clips = [
        draw_clip(11, frames=1, objects=2, pictures=pictures, **SIZE)
        for pictures in ("training", "held_out", "none", "mottled")
    ]
    for one, other in pairwise(clips):
        assert not np.array_equal(one.frames, other.frames)


@pytest.mark.parametrize(
    "wrong",
    [
        {"frames": 0}, {"objects": 0}, {"width": 8}, {"hidden": 5}, {"hidden": -1},
        {"distractors": -1}, {"pictures": "all"},
    ],
)  # fmt: skip
def test_arguments_that_make_no_clip_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"clip|hidden|pictures"):
        draw_clip(1, **{"frames": 6, "objects": 1, **SIZE, **wrong})
