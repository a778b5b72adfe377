# SPDX-License-Identifier: MIT
"""Hostile bodies and records, and workers that are killed: always the same ones.

`make faults` has many times more.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faults.campaign_bodies import CODES, bodies_campaign, judge
from faults.campaign_records import records_campaign
from faults.fleet import Fleet, Reply
from faults.hostile_bodies import Pool, hostile_body, live_pool
from faults.kill_points import kill_run
from faults.local import DictRecords, local_function, make_tracker
from faults.worker import KILL_POINTS
from tools.redis_server import RedisServer

SEED = 20240607


@pytest.fixture(scope="module")
def function() -> Any:
    """`main.handler` around the stand-in model, without HTTP."""
    return local_function(make_tracker(DictRecords()))


@pytest.fixture(scope="module")
def pool(function: Any) -> Pool:
    return live_pool(function, large_images=False)


@settings(max_examples=2 * settings.default.max_examples, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False))
def test_any_body_gets_an_answer_or_an_error_with_a_name(
    function: Any, pool: Pool, rng: Any
) -> None:
    reply: Reply = function(hostile_body(rng, pool))
    assert judge(reply) is None, reply


def test_damaged_and_forged_records_are_tracks_that_are_gone() -> None:
    tally = records_campaign(300, seed=SEED)
    assert tally.wrong == []
    assert tally.gone == tally.mutations
    assert tally.resealed == tally.mutations // 2


# ---- processes ----


@pytest.fixture(scope="module")
def fleet(redis_server: RedisServer) -> Iterator[Fleet]:
    redis_server.client().flushall()
    with Fleet(workers=2, redis=redis_server) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("point", KILL_POINTS)
def test_a_worker_may_die_in_the_middle_of_a_step_a_correction_and_an_adoption(
    fleet: Fleet, point: str
) -> None:
    assert kill_run(fleet, f"{SEED}/{point}", point) == []


@pytest.mark.slow
def test_hostile_bodies_over_http(fleet: Fleet) -> None:
    tally = bodies_campaign(fleet, 300, seed=SEED, large_images=False)
    assert tally.wrong == []
    assert tally.deaths == 0
    assert tally.geometry >= tally.bodies / 5
    assert sum(tally.codes[code] > 0 for code in CODES) >= len(CODES) - 2
