# SPDX-License-Identifier: MIT
"""All fault campaigns in full, one line each; what a campaign met replaces its last result.

PYTHONPATH=.:tests python -m faults [--seed N] [--scale X] [--out FILE] [campaign ...]
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck
from hypothesis.stateful import run_state_machine_as_test

from faults.campaign_bodies import CODES, bodies_campaign
from faults.campaign_leak import leak_campaign
from faults.campaign_records import records_campaign
from faults.disk import disk_line
from faults.fleet import Fleet
from faults.kill_points import kill_run
from faults.machine import TrackersOnOneStore
from faults.worker import KILL_POINTS

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "faults.json"
MACHINE_RUNS = 6000
MACHINE_STEPS = 25


@dataclass
class Result:
    line: str
    broken: list[str] = field(default_factory=list)
    """Promises that were not kept."""


def machine(scale: float, seed: int) -> Result:
    runs = max(1, round(MACHINE_RUNS * scale))
    TrackersOnOneStore.met = Counter()
    settings = hypothesis.settings(
        max_examples=runs,
        stateful_step_count=MACHINE_STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    broken = []
    try:
        run_state_machine_as_test(hypothesis.seed(seed)(TrackersOnOneStore), settings=settings)
    except Exception as error:
        found = getattr(error, "exceptions", [error])  # several, where it found several
        broken = ["\n".join([repr(each), *getattr(each, "__notes__", [])]) for each in found]
    met = sorted(TrackersOnOneStore.met.items())
    told = "; ".join(f"{name} {count:,} x" for name, count in met)
    return Result(f"{runs:,} runs: {told}", broken)


def kills(scale: float, seed: int) -> Result:
    times = max(1, round(20 * scale))
    broken = []
    with Fleet(workers=2) as fleet:
        for number in range(times):
            for point in KILL_POINTS:
                troubles = kill_run(fleet, f"{seed}/{point}/{number}", point)
                broken += [f"killed when {point}, {number}: {each}" for each in troubles]
    return Result(f"{times * len(KILL_POINTS)} workers killed", broken)


def bodies(scale: float, seed: int) -> Result:
    count = max(1, round(50_000 * scale))
    with Fleet(workers=4) as fleet:
        tally = bodies_campaign(fleet, count, seed=seed, large_images=True)
    broken = list(tally.wrong)
    if tally.geometry < count / 5:
        broken.append("too few reached geometry")
    if count >= 50_000:
        broken += [f"{code} met too rarely" for code in CODES if tally.codes[code] < 100]
    if tally.slowest_cpu > 1.0:
        broken.append(f"{tally.slowest_cpu} s for {tally.slowest_body[:200]!r}")
    if tally.growth_mib > 300 or tally.deaths:
        broken.append("memory, or a worker died")
    return Result(tally.line(), broken)


def records(scale: float, seed: int) -> Result:
    tally = records_campaign(max(2, round(10_000 * scale)), seed=seed)
    return Result(tally.line(), tally.wrong)


def leaks(scale: float, seed: int) -> Result:
    tally = leak_campaign(max(1, round(10_000 * scale)))
    grows = tally.mib > 20 or tally.handles > 1 or tally.connections > 1
    return Result(tally.line(), ["it grows"] if grows else [])


def disk(scale: float, seed: int) -> Result:
    return Result(disk_line())


def writing(scale: float, seed: int) -> Result:
    courses = max(1, round(10_000 * scale))
    tests = "tests/cvat_action/test_second_writer.py"
    command = [sys.executable, "-m", "pytest", "-q", f"--hypothesis-seed={seed}", tests]
    line = f"2 x {courses:,} courses of a run beside a second writer"
    return _run(line, command, ROOT, WRITING_EXAMPLES=courses)


def plugin(scale: float, seed: int) -> Result:
    jobs = max(4, round(10_000 * scale))
    command = ["./with_node.sh", "npx", "vitest", "run", "tests/changes.test.ts"]
    line = f"{jobs:,} random jobs that others change, {jobs // 4:,} that are run again"
    return _run(line, command, ROOT / "cvat_ui_plugin", PLUGIN_JOBS=jobs, PLUGIN_SEED=seed)


def _run(line: str, command: list[str], folder: Path, **environment: int) -> Result:
    """Tests that try as much as the environment tells them."""
    told = {name: str(value) for name, value in environment.items()}
    run = subprocess.run(
        command, cwd=folder, env={**os.environ, **told}, capture_output=True, text=True
    )
    return Result(line, [(run.stdout + run.stderr)[-4000:]] if run.returncode else [])


ALL = (machine, kills, bodies, records, leaks, disk, writing, plugin)
CAMPAIGNS: dict[str, Callable[[float, int], Result]] = {each.__name__: each for each in ALL}


def commit() -> str:
    """Of the code that is tested; empty outside a git checkout."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
        )
    except OSError:
        return ""
    return found.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__.split("\n\n")[0])
    parser.add_argument("campaigns", nargs="*", metavar="campaign", help=", ".join(CAMPAIGNS))
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full counts")
    parser.add_argument("--out", type=Path, default=RESULTS, help="%(default)s")
    options = parser.parse_args()
    if unknown := set(options.campaigns) - set(CAMPAIGNS):
        parser.error(f"no campaign is called {', '.join(sorted(unknown))}")
    logging.disable(logging.CRITICAL)  # each fault is an error in the function's log
    print(f"seed {options.seed}, scale {options.scale:g}", flush=True)
    told: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    all_broken = 0
    for name in options.campaigns or CAMPAIGNS:
        begin = time.monotonic()
        told[name] = {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit(),
            "seed": options.seed,
            "scale": options.scale,
        }
        result = CAMPAIGNS[name](options.scale, options.seed)
        seconds = round(time.monotonic() - begin)
        print(f"{name}: {result.line}, {seconds} s, {len(result.broken)} broken", flush=True)
        for what in result.broken[:20]:
            print(f"    BROKEN: {what}"[:4000], flush=True)
        all_broken += len(result.broken)
        told[name] |= {"met": result.line, "broken": len(result.broken), "seconds": seconds}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(told, indent=1) + "\n")
    print("all promises held" if not all_broken else f"{all_broken} promises broken")
    return 1 if all_broken else 0


if __name__ == "__main__":
    sys.exit(main())
