# SPDX-License-Identifier: MIT
"""All campaigns in full, one line each; --scale 0.05 is a taste.

PYTHONPATH=.:tests python -m faults [--seed N] [--scale X] [--lanes N] [campaign ...]
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from faults.campaign import Lane, Tally, redis_faults, worker_faults
from faults.campaign_bodies import CODES, bodies_campaign
from faults.campaign_leak import leak_campaign
from faults.campaign_records import records_campaign
from faults.disk import disk_line
from faults.fleet import Fleet
from faults.kill_points import kill_campaign
from faults.lanes import in_lanes
from faults.local_fleet import LocalFleet
from faults.real_model import micro_models

LEAST_FINISHED = 0.95


class Report:
    """Prints a line per campaign and remembers whether its promises held."""

    def __init__(self) -> None:
        self.broken: list[str] = []

    def say(self, line: str, broken: Sequence[str]) -> None:
        print(line, flush=True)
        for what in broken[:20]:
            print(f"    BROKEN: {what}"[:2000], flush=True)
        self.broken += broken

    def track(self, tally: Tally) -> None:
        broken = tally.wrong + tally.unexplained
        if tally.finished < LEAST_FINISHED * tally.runs:
            broken.append(f"only {tally.finished} of {tally.runs} runs finished")
        if tally.stalls > tally.right / 100:
            broken.append(f"{tally.stalls} times 503 without a fault")
        if tally.runs >= 200:
            broken += [f"{name} was never met" for name in tally.faults if not tally.met[name]]
        self.say(tally.line(), broken)


def faults_campaign(report: Report, options: argparse.Namespace) -> None:
    report.track(
        in_lanes(
            lambda lane, runs: lane.campaign("Redis fails at random", runs, faults=redis_faults),
            scaled(1000, options),
            seed=options.seed,
            lanes=options.lanes,
            make_fleet=lambda: LocalFleet(workers=4),
        )
    )


def http_campaign(report: Report, options: argparse.Namespace) -> None:
    report.track(
        in_lanes(
            lambda lane, runs: lane.campaign(
                "Redis fails and workers are killed at random, over HTTP",
                runs,
                faults=lambda rng: [*redis_faults(rng), *worker_faults()],
            ),
            scaled(100, options),
            seed=options.seed,
            lanes=options.lanes,
            make_fleet=lambda: Fleet(workers=2),
        )
    )


def micro_campaign(report: Report, options: argparse.Namespace) -> None:
    models = micro_models()
    with LocalFleet(workers=2, models=models) as fleet:
        lane = Lane(fleet, seed=options.seed, model=models[1], images=10)
        report.track(
            lane.campaign(
                "Redis fails at random, the micro model",
                scaled(36, options),
                faults=redis_faults,
                frames=20,
                fault_rate=0.1,
            )
        )


def workers_campaign(report: Report, options: argparse.Namespace) -> None:
    with Fleet(workers=4) as fleet:
        lane = Lane(fleet, seed=options.seed)
        for workers in (2, 4):
            name = f"{workers} workers at random, 300 frames"
            runs = scaled(3, options)
            report.track(lane.campaign(name, runs, workers=workers, frames=300))


def kills_campaign(report: Report, options: argparse.Namespace) -> None:
    with Fleet(workers=2) as fleet:
        report.track(kill_campaign(Lane(fleet, seed=options.seed), scaled(20, options)))


def hostile_bodies_campaign(report: Report, options: argparse.Namespace) -> None:
    with Fleet(workers=options.lanes) as fleet:
        count = scaled(50_000, options)
        tally = bodies_campaign(fleet, count, seed=options.seed, large_images=True)
    broken = list(tally.wrong)
    if tally.geometry < count / 5:
        broken.append("too few reached geometry")
    if count >= 50_000:
        broken += [f"{code} met too rarely" for code in CODES if tally.codes[code] < 100]
    if tally.slowest_cpu > 1.0:
        broken.append(f"{tally.slowest_cpu} s for {tally.slowest_body[:200]!r}")
    if tally.growth_mib > 300 or tally.deaths:
        broken.append("memory, or a worker died")
    report.say(tally.line(), broken)


def hostile_records_campaign(report: Report, options: argparse.Namespace) -> None:
    tally = records_campaign(scaled(10_000, options), seed=options.seed)
    report.say(tally.line(), tally.wrong)


def leaks_campaign(report: Report, options: argparse.Namespace) -> None:
    tally = leak_campaign(scaled(10_000, options))
    broken = ["it grows"] if tally.mib > 20 or tally.handles > 1 or tally.connections > 1 else []
    report.say(tally.line(), broken)


def disk_campaign(report: Report, options: argparse.Namespace) -> None:
    report.say(disk_line(), [])


CAMPAIGNS: dict[str, Callable[[Report, argparse.Namespace], Any]] = {
    "faults": faults_campaign,
    "http": http_campaign,
    "micro": micro_campaign,
    "workers": workers_campaign,
    "kills": kills_campaign,
    "bodies": hostile_bodies_campaign,
    "records": hostile_records_campaign,
    "leaks": leaks_campaign,
    "disk": disk_campaign,
}


def scaled(count: int, options: argparse.Namespace) -> int:
    return max(1, round(count * options.scale))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__.split("\n\n")[0])
    parser.add_argument("campaigns", nargs="*", metavar="campaign", help=", ".join(CAMPAIGNS))
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full counts")
    parser.add_argument("--lanes", type=int, default=4, help="fleets side by side")
    options = parser.parse_args()
    if unknown := set(options.campaigns) - set(CAMPAIGNS):
        parser.error(f"no campaign is called {', '.join(sorted(unknown))}")
    logging.disable(logging.CRITICAL)  # each fault is an error in the function's log
    report = Report()
    for name in options.campaigns or CAMPAIGNS:
        CAMPAIGNS[name](report, options)
    print("all promises held" if not report.broken else f"{len(report.broken)} promises broken")
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
