# SPDX-License-Identifier: MIT
"""Measures, and prints tables, goals and where the numbers and the plot lie.

    python -m benchmarks --minutes 10
    python -m benchmarks --full --resume
    python -m benchmarks --device cuda

Every part is written to the JSON as soon as it is done; --resume goes on with the parts that are
missing there.
"""

import argparse
import datetime
import json
import shlex
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import parts
from benchmarks.models import META, MICRO
from benchmarks.parts import Clock, Plan
from benchmarks.report import goals, plot, report_markdown
from model_handler import set_threads

RESULTS = Path(__file__).resolve().parent / "results"
# Shares of the whole time, loading included.
SHARES = {
    "machine": 0.02,
    "agreement": 0.02,
    "speed_main": 0.54,
    "cold_start": 0.08,
    "second_action": 0.04,
    "track_length": 0.18,
    "speed_micro": 0.08,
}
MINUTES = {"default": 10.0, "full": 60.0, "gpu": 8.0}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--full", action="store_true", help="1, 2, 4, 8 and 16 objects, PNG too")
    parser.add_argument("--minutes", type=float, help="for everything; default 10, --full 60")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, help="at most; default: as many as time allows")
    parser.add_argument("--part", action="append", help="only this one; may be given again")
    parser.add_argument("--model", action="append", choices=[*META, MICRO], help="instead")
    parser.add_argument("--objects", type=int, action="append", help="instead; again for more")
    parser.add_argument("--size", type=int, nargs=2, default=(parts.WIDTH, parts.HEIGHT))
    parser.add_argument("--resume", action="store_true", help="keep the parts that are done")
    parser.add_argument("--show", action="store_true", help="measure nothing, print what is there")
    parser.add_argument("--out", type=Path, help="JSON file; default in benchmarks/results/")
    options = parser.parse_args(arguments)

    kind = "gpu" if options.device.startswith("cuda") else "full" if options.full else "default"
    minutes = options.minutes or MINUTES[kind]
    out = options.out or RESULTS / f"{kind}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    plan = make_plan(options)
    set_threads(0, 1)

    results: dict[str, Any] = {"parts": {}, "failed": {}}
    if options.show and not out.exists():
        parser.error(f"{out} is not there")
    if (options.resume or options.show) and out.exists():
        results = json.loads(out.read_text())
    if options.resume and results.get("plan", written(plan)) != written(plan):
        parser.error(f"{out} holds another plan; give --out, or leave out --resume")
    if not options.show:
        command = arguments if arguments is not None else sys.argv[1:]
        results |= {
            "command": shlex.join(["python", "-m", "benchmarks", *command]),
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "plan": written(plan),
            "failed": {},
        }
        measure(plan, minutes, out, results, only=options.part)
    print(report_markdown(results))
    plot(results, out.with_suffix(".png"))
    out.with_suffix(".md").write_text(report_markdown(results) + "\n")
    print(f"\n{out}\n{out.with_suffix('.md')}\n{out.with_suffix('.png')}")
    return 1 if results["failed"] or any(g.passed is False for g in goals(results)) else 0


def make_plan(options: argparse.Namespace) -> Plan:
    cuda = options.device.startswith("cuda")
    models: tuple[str, ...] = ("tiny",)
    if cuda:
        models = ("tiny", "small", "base_plus", "large") if options.full else ("tiny", "large")
    objects = (1, 2, 4, 8, 16) if options.full else (1, 4, 16) if cuda else (1, 4)
    return Plan(
        device=options.device,
        models=tuple(options.model) if options.model else models,
        objects=tuple(options.objects) if options.objects else objects,
        formats=("JPEG", "PNG") if options.full else ("JPEG",),
        action_model="tiny" if options.full or cuda else MICRO,
        rounds=options.rounds,
        width=options.size[0],
        height=options.size[1],
    )


def written(plan: Plan) -> Any:
    """As it is read from the JSON."""
    return json.loads(json.dumps(asdict(plan)))


def measure(
    plan: Plan, minutes: float, out: Path, results: dict[str, Any], *, only: list[str] | None
) -> None:
    """Runs what is missing in `results`, and writes them after each part."""
    todo = [name for name in list_parts(plan) if name not in results["parts"]]
    if only:
        todo = [name for name in todo if name in only]
    begin = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(total=round(60 * minutes), unit="s", desc="benchmarks") as bar,
    ):
        for name, share in todo_shares(plan, todo).items():

            def report(text: str, name: str = name) -> None:
                bar.n = min(round(60 * minutes), round(time.monotonic() - begin))
                bar.set_description(f"{name}: {text}")

            report("starts")
            part_begin = time.monotonic()
            try:
                found = run_part(name, plan, Clock(60 * minutes * share), Path(folder), report)
                results["parts"][name] = {
                    **found, "part_seconds": round(time.monotonic() - part_begin, 1)
                }  # fmt: skip
            except Exception as error:  # the other parts can still be measured
                traceback.print_exc()
                results["failed"][name] = f"{type(error).__name__}: {error}"
            out.write_text(json.dumps(results, indent=1))
        report("done")


def list_parts(plan: Plan) -> list[str]:
    main, *others = plan.models
    small = [] if MICRO in plan.models else [f"speed_{MICRO}"]
    return [
        "machine",
        "agreement",
        f"speed_{main}",
        *(f"speed_{model}" for model in others),
        "cold_start",
        "second_action",
        "track_length",
        *small,
    ]


def todo_shares(plan: Plan, todo: list[str]) -> dict[str, float]:
    """By part; what the main model has is shared with the larger ones."""
    main = [f"speed_{model}" for model in plan.models]
    return {
        name: SHARES["speed_main"] * (1 if len(main) == 1 else 0.6 if name == main[0] else 0.4)
        / (1 if name == main[0] else len(main) - 1)
        if name in main
        else SHARES[name]
        for name in todo
    }  # fmt: skip


def run_part(name: str, plan: Plan, clock: Clock, folder: Path, report: parts.Report) -> Any:
    if name.startswith("speed_"):
        return parts.speed(name.removeprefix("speed_"))(plan, clock, folder, report)
    measure_part = {
        "machine": parts.machine,
        "agreement": parts.agreement,
        "cold_start": parts.cold_start,
        "second_action": parts.second_action,
        "track_length": parts.track_length,
    }[name]
    return measure_part(plan, clock, folder, report)


if __name__ == "__main__":
    sys.exit(main())
