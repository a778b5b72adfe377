# SPDX-License-Identifier: MIT
"""How long a request is expected to take, and which ones are refused."""

import pytest

from sam2_tracker.errors import TooLarge
from sam2_tracker.time_budget import TimeBudget


def budget_that_knows(**seconds: float) -> TimeBudget:
    budget = TimeBudget(25.0)
    for kind, cost in seconds.items():
        budget.remember(kind, cost)
    return budget


def test_the_number_that_fits_is_told() -> None:
    TimeBudget(25.0).check(starts=1000, steps=1000, megapixels=40)  # no cost is known yet
    budget = budget_that_knows(frame=5.0, start=1.0, step=2.0)
    for starts, steps in ((0, 10), (20, 0), (10, 5)):
        budget.check(starts=starts, steps=steps)
    with pytest.raises(TooLarge, match=r"11 objects .* 25 s here; send at most 10 "):
        budget.check(starts=0, steps=11)
    with pytest.raises(TooLarge, match=r"21 objects .* 25 s here; send at most 20 "):
        budget.check(starts=21, steps=0)
    budget.check(starts=0, steps=1, megapixels=1e9)  # one object always goes


def test_the_shapes_of_a_large_image_count() -> None:
    budget = budget_that_knows(step=0.2, polygon=0.005)
    polygons = {"polygon": 100}
    budget.check(starts=0, steps=100, shapes=polygons, megapixels=2)
    with pytest.raises(TooLarge, match="send at most 62 "):
        budget.check(starts=0, steps=100, shapes=polygons, megapixels=40)


def test_each_type_of_shape_has_its_own_cost() -> None:
    budget = budget_that_knows(mask=0.002, polygon=0.06)
    budget.check(starts=25, steps=0, shapes={"mask": 25}, megapixels=40)
    with pytest.raises(TooLarge, match="send at most 10 "):
        budget.check(starts=25, steps=0, shapes={"polygon": 25}, megapixels=40)
    with pytest.raises(TooLarge, match="send at most 18 "):  # 1.04 s for 25 masks, 33.6 s for both
        budget.check(starts=0, steps=25, shapes={"mask": 11, "polygon": 14}, megapixels=40)


def test_a_machine_that_was_slow_for_a_while_locks_nobody_out() -> None:
    """Refused requests bring no new cost, so a bad time must not raise the estimate for good."""
    budget = budget_that_knows(frame=0.5, step=1.0)  # the warm-up
    for _ in range(50):
        budget.remember("frame", 20.0)
        budget.remember("step", 30.0)
    budget.check(starts=0, steps=20)


def test_a_slow_warm_up_is_corrected_by_the_first_request() -> None:
    budget = budget_that_knows(frame=20.0, step=30.0)
    budget.remember("frame", 0.5)
    budget.remember("step", 1.0)
    budget.check(starts=0, steps=20)


def test_new_shapes_may_take_the_budget_and_no_longer() -> None:
    now = [100.0]
    check = TimeBudget(25.0, clock=lambda: now[0]).begin()
    words = "new shapes are prepared", "send fewer"
    now[0] = 124.0
    check(5, 9, *words)
    now[0] = 126.0
    check(0, 9, *words)  # one is always prepared
    with pytest.raises(TooLarge, match="After 25 s only 5 of 9 new shapes are prepared; send few"):
        check(5, 9, *words)
