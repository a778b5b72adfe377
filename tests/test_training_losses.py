# SPDX-License-Identifier: MIT
"""The losses: their definitions, and that each falls the right way. The schedule of a training."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from training.dataset import SIDE
from training.losses import (
    balanced_loss,
    dice_loss,
    drift_loss,
    focal_loss,
    losses_of,
    mean_of,
)
from training.prompting import Answer
from training.schedule import MIXTURE, rate_at, serving_at, stock_at


def square(side: int = 32) -> torch.Tensor:
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[8:24, 8:24] = True
    return mask


def answer(
    truth: torch.Tensor, masks: list[torch.Tensor], *, ious: list[float] | None = None,
    visibility: float = 5.0, points: int = 0,
) -> Answer:  # fmt: skip
    """One object; masks: the four that the decoder gives, as bool."""
    logits = torch.stack([torch.where(mask, 8.0, -8.0) for mask in masks])[None]
    return Answer(
        logits=logits,
        ious=torch.tensor([ious or [1.0] * 4]),
        visibility=torch.tensor([[visibility]]),
        tokens=torch.arange(32.0).view(1, 4, 8),
        decoded=torch.zeros(1, 4, 8),
        remembered=None,
        truth=truth[None],
        points=points,
    )


def test_focal_loss_is_its_definition() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, -3.0]])
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    total = 0.0
    for logit, goal in zip(logits.flatten().tolist(), target.flatten().tolist(), strict=True):
        right = 1 / (1 + math.exp(-logit)) if goal else 1 - 1 / (1 + math.exp(-logit))
        total += (1 - right) ** 2 * -math.log(right)
    assert focal_loss(logits, target).item() == pytest.approx(total / 4, rel=1e-5)


def test_dice_loss_is_its_definition() -> None:
    logits, target = torch.tensor([[0.0, 100.0]]), torch.tensor([[1.0, 1.0]])
    assert dice_loss(logits, target).item() == pytest.approx(1 - (2 * 1.5 + 1) / (1.5 + 2 + 1))
    assert dice_loss(torch.full((4, 4), 50.0), torch.ones(4, 4)).item() == pytest.approx(0)


def test_balanced_loss_counts_object_and_background_the_same() -> None:
    target = torch.zeros(10, 10)
    target[0, 0] = 1
    missed = torch.full((10, 10), -5.0)
    flooded = torch.full((10, 10), 5.0)
    assert balanced_loss(missed, target) == pytest.approx(balanced_loss(flooded, target))


def test_better_masks_cost_less() -> None:
    truth, nothing = square(), torch.zeros(32, 32, dtype=torch.bool)
    shifted = truth.roll(4, 1)
    costs = [
        float(losses_of([answer(truth, [mask] * 4)], 0, 32).mask)
        for mask in (truth, shifted, nothing, ~truth)
    ]
    assert costs == sorted(costs)
    assert costs[0] < 0.01


def test_a_mask_costs_its_focal_and_its_dice_loss_together() -> None:
    """SAM 2's weights: 20 to 1, both to be made small."""
    truth, shifted = square(), square().roll(4, 1)
    one = answer(truth, [shifted] * 4)
    target = truth[None, None].float()
    focal = focal_loss(one.logits[:, :1], target).item()
    dice = dice_loss(one.logits[:, :1], target).item()
    assert dice > 0.1
    # The three masks of a frame and the single one.
    cost = float(losses_of([one], 0, 32).mask)
    assert cost == pytest.approx(2 * (20 * focal + dice), rel=1e-4)


def test_after_one_click_the_best_of_three_masks_counts_most_and_otherwise_all_count_the_same() -> (
    None
):
    truth = square()

    def cost(masks: list[torch.Tensor], points: int) -> float:
        return float(losses_of([answer(truth, masks, points=points)], 0, 32).mask)

    one_wrong, all_wrong = [truth, ~truth, truth, truth], [truth, ~truth, ~truth, ~truth]
    whole = cost(all_wrong, points=0)
    for points in (0, 2, 5):  # tracked, a box, five clicks
        assert cost(all_wrong, points) == pytest.approx(whole)
        assert cost(one_wrong, points) == pytest.approx(whole / 3, rel=1e-3)
    assert cost(one_wrong, points=1) == pytest.approx(whole / 6, rel=1e-3)
    assert cost(all_wrong, points=1) == pytest.approx(1.5 * whole, rel=1e-3)


def test_the_predicted_iou_is_compared_with_the_real_one() -> None:
    truth, nothing = square(), torch.zeros(32, 32, dtype=torch.bool)
    honest = losses_of([answer(truth, [truth, nothing, truth, nothing], ious=[1, 0, 1, 0])], 0, 32)
    boasting = losses_of([answer(truth, [nothing] * 4)], 0, 32)
    assert float(honest.iou) == pytest.approx(0)
    assert float(boasting.iou) == pytest.approx(1)
    assert honest.mean_iou == 1.0


def test_visibility_is_learned_in_the_right_direction_and_hidden_frames_teach_no_mask() -> None:
    truth, nothing = square(), torch.zeros(32, 32, dtype=torch.bool)
    for shown, mask in ((5.0, truth), (-5.0, nothing)):
        right = losses_of([answer(mask, [truth] * 4, visibility=shown)], 0, 32)
        wrong = losses_of([answer(mask, [truth] * 4, visibility=-shown)], 0, 32)
        assert right.visibility < 0.05 < wrong.visibility
    hidden = losses_of([answer(nothing, [truth] * 4, visibility=-5.0)], 0, 32)
    assert float(hidden.mask) == 0
    assert hidden.silence == 1.0


def test_a_sliver_teaches_nothing() -> None:
    sliver = torch.zeros(256, 256, dtype=torch.bool)
    sliver[0, :10] = True
    losses = losses_of([answer(sliver, [~sliver] * 4, visibility=-9.0)], 0, 256)
    assert float(losses.total) == 0


def test_the_mean_of_nothing_is_nothing() -> None:
    assert mean_of(torch.zeros(0)) == 0
    assert mean_of(torch.tensor([1.0, 3.0])) == 2


def test_the_rate_warms_up_stays_and_falls_to_nothing() -> None:
    rates = [rate_at(step, 1000, 100) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[:100] == sorted(rates[:100])
    assert set(rates[100:700]) == {1.0}
    assert rates[700:] == sorted(rates[700:], reverse=True)
    assert rates[1000] == 0


def test_a_training_can_be_made_longer_without_a_change_of_its_first_part() -> None:
    for step in range(700):
        assert rate_at(step, 1000, 100) == rate_at(step, 9000, 100)


def test_drawn_clips_alone_are_enough() -> None:
    rng = np.random.default_rng(0)
    assert {stock_at(rng, drawn_only=True) for _ in range(200)} == {
        "drawn", "drawn_long", "mottled"
    }  # fmt: skip
    assert {stock_at(rng, drawn_only=False) for _ in range(400)} == set(MIXTURE)
    for progress in (0.0, 0.5, 0.9):
        for continued in (False, True):
            serving = serving_at(progress, continued, rng, drawn_only=True)
            assert not serving.stock.startswith("composite")


def test_drift_counts_what_a_later_frame_would_notice() -> None:
    before = answer(square(), [square()] * 4)
    for prompted in (True, False):
        assert drift_loss([(before, before, prompted)]).item() == pytest.approx(0, abs=1e-6)
    changes = {
        "single token": ("tokens", (0, 0), True, False),
        "other tokens": ("tokens", (0, 2), False, True),
        "masks": ("logits", (0, 3), False, True),
        "IoUs": ("ious", (0, 1), False, True),
        "visibility": ("visibility", (0, 0), False, True),
    }
    for name, (field, place, after_mask, after_tracking) in changes.items():
        values = getattr(before, field).clone()
        values[place] += 3.0
        now = replace(before, **{field: values})
        for prompted, counts in ((True, after_mask), (False, after_tracking)):
            moved = drift_loss([(now, before, prompted)]).item() > 1e-4
            assert moved == counts, (name, prompted)


@pytest.mark.parametrize(("decoder_only", "share"), [(False, 0.25), (True, 0.5)])
def test_weights_go_on_with_full_size_and_a_decoder_alone_with_more_clicks(
    decoder_only: bool, share: float
) -> None:
    rng = np.random.default_rng(0)
    servings = [serving_at(0.1, True, rng, decoder_only=decoder_only) for _ in range(400)]
    assert {serving.side for serving in servings} == {SIDE}
    assert np.mean([serving.alone for serving in servings]) == pytest.approx(share, abs=0.05)
