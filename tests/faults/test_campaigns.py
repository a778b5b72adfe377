# SPDX-License-Identifier: MIT
"""Short versions of the campaigns; `python -m faults` has the long ones."""

import os
import time

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from faults.campaign import Lane, Tally, redis_faults, worker_faults
from faults.campaign_bodies import CODES, bodies_campaign, judge, live_pool
from faults.campaign_records import records_campaign
from faults.fleet import Fleet
from faults.hostile_bodies import hostile_body
from faults.kill_points import kill_campaign
from faults.lanes import in_lanes
from faults.local_fleet import LocalFleet
from faults.real_model import micro_models

# Another seed every day, the same for everybody; a failing one is printed and can be given.
SEED = int(os.environ.get("FAULTS_SEED") or time.strftime("%Y%m%d", time.gmtime()))


def check(tally: Tally) -> None:
    print(tally.line())
    assert tally.wrong == []
    assert tally.unexplained == []
    assert tally.finished == tally.runs
    assert tally.right > 0


def test_redis_fails_at_random() -> None:
    tally = in_lanes(
        lambda lane, runs: lane.campaign("Redis fails at random", runs, faults=redis_faults),
        40,
        seed=SEED,
        lanes=4,
        make_fleet=lambda: LocalFleet(workers=4),
    )
    check(tally)
    assert sum(tally.met.values()) >= 20


def test_redis_fails_and_workers_are_killed_at_random() -> None:
    tally = in_lanes(
        lambda lane, runs: lane.campaign(
            "Redis fails and workers are killed at random, over HTTP",
            runs,
            faults=lambda rng: [*redis_faults(rng), *worker_faults()],
            frames=20,
            fault_rate=0.15,
        ),
        4,
        seed=SEED,
        lanes=1,
        make_fleet=lambda: Fleet(workers=2),
    )
    check(tally)
    assert sum(tally.met.values()) >= 4


def test_redis_fails_at_random_under_a_real_model() -> None:
    models = micro_models()
    with LocalFleet(workers=2, models=models) as fleet:
        lane = Lane(fleet, seed=SEED, model=models[1], images=4)
        check(
            lane.campaign(
                "Redis fails at random, the micro model",
                2,
                faults=redis_faults,
                frames=8,
                fault_rate=0.3,
            )
        )


def test_workers_are_interchangeable() -> None:
    with Fleet(workers=4) as fleet:
        lane = Lane(fleet, seed=SEED)
        for workers in (2, 4):
            tally = lane.campaign(f"{workers} workers at random", 1, workers=workers, frames=60)
            check(tally)
            assert tally.errors.keys() <= {"state_gone", "410"}  # of tokens older than 8 steps


def test_a_worker_may_die_at_any_point() -> None:
    with Fleet(workers=2) as fleet:
        tally = kill_campaign(Lane(fleet, seed=SEED), 1)
    check(tally)
    assert all(tally.met[point] == 1 for point in tally.faults)


def test_hostile_bodies() -> None:
    with Fleet(workers=2) as fleet:
        tally = bodies_campaign(fleet, 600, seed=SEED, large_images=False)
    print(tally.line())
    assert tally.wrong == []
    assert tally.deaths == 0
    assert tally.geometry >= tally.bodies / 5
    assert all(tally.codes[code] for code in CODES)
    assert tally.slowest_cpu < 1.0
    assert tally.growth_mib < 300


@pytest.fixture(scope="module")
def body_fleet() -> Fleet:
    with Fleet(workers=1) as fleet:
        yield fleet


def test_hostile_bodies_that_hypothesis_shrinks(body_fleet: Fleet) -> None:
    pool = live_pool(body_fleet, large_images=False)

    @hypothesis_settings(
        max_examples=100,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(st.randoms(use_true_random=False))
    def throw(rng: object) -> None:
        reply = body_fleet.post(hostile_body(rng, pool))
        assert judge(reply) is None, reply

    throw()


def test_hostile_records() -> None:
    tally = records_campaign(400, seed=SEED)
    print(tally.line())
    assert tally.wrong == []
    assert tally.gone == tally.mutations
    assert tally.resealed == tally.mutations // 2
