# SPDX-License-Identifier: MIT
"""J and F on cases that can be counted by hand, and the baselines on known motion."""

import numpy as np
import pytest

from training.baselines import carry_by_flow, repeat_first
from training.metrics import boundary, boundary_f, jaccard
from training.tally import Tally, returns_after


def square(top: int, left: int, side: int = 20, shape: tuple[int, int] = (100, 100)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_equal_masks_score_one() -> None:
    assert jaccard(square(10, 10), square(10, 10)) == 1.0
    assert boundary_f(square(10, 10), square(10, 10)) == 1.0


def test_jaccard_of_a_shifted_square() -> None:
    # 20x20 moved by 5: 300 pixels in both, 500 in either.
    assert jaccard(square(10, 10), square(10, 15)) == pytest.approx(300 / 500)


def test_boundary_f_forgives_the_tolerance_and_no_more() -> None:
    # Diagonal 141.4 px: 0.008 of it is 1.13, rounded up 2.
    assert boundary_f(square(10, 10), square(10, 12)) == 1.0
    assert boundary_f(square(10, 10), square(10, 13)) < 1.0
    assert boundary_f(square(10, 10), square(60, 60)) == 0.0


def test_empty_masks() -> None:
    nothing = np.zeros((100, 100), bool)
    assert (jaccard(nothing, nothing), boundary_f(nothing, nothing)) == (1.0, 1.0)
    assert (jaccard(nothing, square(5, 5)), boundary_f(nothing, square(5, 5))) == (0.0, 0.0)
    assert (jaccard(square(5, 5), nothing), boundary_f(square(5, 5), nothing)) == (0.0, 0.0)


def test_boundary_of_a_square_is_its_outline() -> None:
    # Pixels that differ from right, below or diagonal: 20 + 20 along the far sides, 20 + 20 + 1
    # outside the near ones, less the corner that two of them share.
    assert boundary(square(10, 10)).sum() == 80
    assert boundary(np.ones((30, 30), bool)).sum() == 0


def test_an_object_counts_as_back_after_five_hidden_frames() -> None:
    hidden = np.array([0, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0], bool)
    assert returns_after(hidden, 5) == [6]
    assert returns_after(hidden, 2) == [6, 10]


def test_tally_of_an_object_that_hides() -> None:
    seen, gone = square(10, 10), np.zeros((100, 100), bool)
    truth = np.stack([seen, *[gone] * 5, seen, seen])
    perfect, stubborn, blind = truth, np.stack([seen] * 8), np.stack([seen, *[gone] * 7])
    scores = []
    for masks in (perfect, stubborn, blind):
        tally = Tally()
        tally.add(masks, truth)
        scores.append((tally.j_and_f, tally.found, sum(tally.shown_while_hidden)))
    assert scores == [
        (1.0, [True], 0),
        (pytest.approx(2 / 7), [True], 5),
        (pytest.approx(5 / 7), [False], 0),
    ]


def test_baselines_on_a_texture_that_moves() -> None:
    rng = np.random.default_rng(0)
    world = np.repeat(np.repeat(rng.integers(0, 255, (50, 60, 3), np.uint8), 4, 0), 4, 1)
    frames = np.stack([world[40:140, 40 - 2 * t : 160 - 2 * t] for t in range(5)])
    first = square(40, 40, 24, (100, 120))[None]
    last = square(40, 48, 24, (100, 120))
    assert jaccard(repeat_first(frames, first)[-1, 0], last) == pytest.approx(16 / 32)
    assert jaccard(carry_by_flow(frames, first)[-1, 0], last) > 0.9
