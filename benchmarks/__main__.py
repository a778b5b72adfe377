# SPDX-License-Identifier: MIT
"""Measures, and prints tables, goals and where the numbers and the plot lie.

    python -m benchmarks --minutes 10
    python -m benchmarks --full --resume
    python -m benchmarks --device cuda

Every part is written to the JSON as soon as it is done, with its date and command; --resume goes on
with the parts that are missing there, and measures those anew that are named. `savings` and
`accuracy` are measured with --full and on a GPU, or when named:

    python -m benchmarks --resume --part savings --part accuracy

Benchmarks of their own, with their own options (--help): `python -m benchmarks steps`, `memory`,
`effort`, `small`, `scores`, `flop`, `growth`, `clicks`, `tracks`, `models`. Those that write their
numbers to benchmarks/results/ write them to another file with --out.
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import parts
from benchmarks.accuracy import accuracy
from benchmarks.models import EFFICIENTTAM, META, MICRO, benchmark_files
from benchmarks.origin import origin_of
from benchmarks.plan import HEIGHT, WIDTH, Clock, Plan, Report
from benchmarks.report import goals, plot, report_markdown
from benchmarks.savings import savings
from sam2_tracker.threads import set_threads
from training.real_clip import NoClipError

RESULTS = Path(__file__).resolve().parent / "results"
# By part, how the time is divided, loading included; what one part leaves over or takes too much is
# the others' to share.
SHARES = {
    "machine": 2,
    "agreement": 2,
    "speed_main": 70,
    "speed_others": 36,
    "cold_start": 8,
    "second_action": 4,
    "track_length": 12,
    "speed_micro": 5,
    "savings": 16,
    "accuracy": 40,
}
EXTRA = ("savings", "accuracy")
# Programs with options of their own, and their modules; imported only when asked for.
OTHERS = {
    n: n
    for n in ("steps", "memory", "effort", "small", "scores", "flop", "growth", "clicks", "tracks")
}
OTHERS["models"] = "all_models"
# Of the whole time: what has begun when it is over is finished.
RESERVE = 0.04
MINUTES = {"default": 10.0, "full": 60.0, "gpu": 8.0, "gpu-full": 25.0}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--full", action="store_true", help="1, 2, 4, 8 and 16 objects, PNG too")
    parser.add_argument(
        "--minutes", type=float, help="for everything; default 10, --full 60, on a GPU 8 and 25"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, help="at most; default: as many as time allows")
    parser.add_argument("--part", action="append", help="only this one; may be given again")
    names = [*META, MICRO, *EFFICIENTTAM]
    parser.add_argument(
        "--model",
        action="append",
        choices=names,
        help="instead of tiny (on a GPU also larger ones); may be given again",
    )
    parser.add_argument(
        "--objects", type=int, action="append", help="instead of 1 and 4; may be given again"
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(WIDTH, HEIGHT),
        metavar=("WIDTH", "HEIGHT"),
        help="of the frames, in pixels",
    )
    parser.add_argument("--resume", action="store_true", help="keep the parts that are done")
    parser.add_argument("--show", action="store_true", help="measure nothing, print what is there")
    parser.add_argument("--out", type=Path, help="JSON file; default in benchmarks/results/")
    return parser


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in OTHERS:
        sys.argv = [f"python -m benchmarks {words[0]}", *words[1:]]
        try:
            found: int = importlib.import_module(f"benchmarks.{OTHERS[words[0]]}").main()
        except NoClipError as error:  # of --clip
            raise SystemExit(str(error)) from error
        return found
    parser = make_parser()
    options = parser.parse_args(arguments)

    kind = "full" if options.full else "default"
    if options.device.startswith("cuda"):
        kind = "gpu-full" if options.full else "gpu"
    minutes = options.minutes or MINUTES[kind]
    out = options.out or RESULTS / f"{kind}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    plan = make_plan(options)
    if unknown := set(options.part or ()) - set(list_parts(plan, extra=True)):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; "
                     f"there are {', '.join(list_parts(plan, extra=True))}")  # fmt: skip
    set_threads(0, 1)

    results: dict[str, Any] = {"parts": {}, "failed": {}}
    if options.show and not out.exists():
        parser.error(f"{out} is not there")
    if options.part and out.exists() and not (options.resume or options.show):
        parser.error(f"{out} has other parts, which would be lost; give --resume, or another --out")
    if (options.resume or options.show) and out.exists():
        results = json.loads(out.read_text())
    if options.resume and results.get("plan", written(plan)) != written(plan):
        parser.error(f"{out} holds another plan; give --out, or leave out --resume")
    weights = benchmark_files(MICRO, RESULTS).sha256
    if options.resume and results["parts"] and results.get("weights") != weights:
        parser.error(f"{out} was measured with other weights; give --out, or leave out --resume")
    if not options.show:
        results |= {"plan": written(plan), "weights": weights}
        measure(plan, minutes, out, results, words=words, only=options.part)
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
        extra=options.full or cuda,
        width=options.size[0],
        height=options.size[1],
    )


def written(plan: Plan) -> Any:
    """As it is read from the JSON."""
    return json.loads(json.dumps(asdict(plan)))


def measure(
    plan: Plan,
    minutes: float,
    out: Path,
    results: dict[str, Any],
    *,
    words: Sequence[str],
    only: list[str] | None,
) -> None:
    """Runs the parts `only`, or else all of the plan that `results` lacks; writes after each."""
    missing = [name for name in list_parts(plan) if name not in results["parts"]]
    wanted = missing if only is None else only
    todo = [name for name in list_parts(plan, extra=True) if name in wanted]
    begin = time.monotonic()
    end = begin + 60 * minutes * (1 - RESERVE)
    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(total=round(60 * minutes), unit="s", desc="benchmarks") as bar,
    ):
        for index, name in enumerate(todo):

            def report(text: str, name: str = name) -> None:
                bar.n = min(round(60 * minutes), round(time.monotonic() - begin))
                bar.set_description(f"{name}: {text}")

            report("starts")
            part_begin = time.monotonic()
            seconds = share_of_first(plan, todo[index:]) * max(0.0, end - part_begin)
            try:
                found = run_part(name, plan, Clock(seconds), Path(folder), report)
                results["parts"][name] = {
                    **origin_of(*words),
                    **found,
                    "part_seconds": round(time.monotonic() - part_begin, 1),
                }
                results["failed"].pop(name, None)
            except Exception as error:  # the other parts can still be measured
                traceback.print_exc()
                results["failed"][name] = f"{type(error).__name__}: {error}"
            out.write_text(json.dumps(results, indent=1))
        bar.set_description("benchmarks: done")


def list_parts(plan: Plan, *, extra: bool = False) -> list[str]:
    """In the order in which they are measured; extra: with those that not every plan has."""
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
        *(EXTRA if extra or plan.extra else ()),
    ]


def share_of_first(plan: Plan, todo: list[str]) -> float:
    """Of the time that is left to `todo`, what its first part may take."""

    def weight(name: str) -> float:
        main, *others = (f"speed_{model}" for model in plan.models)
        if name == main:
            return SHARES["speed_main"]
        return SHARES["speed_others"] / len(others) if name in others else SHARES[name]

    return weight(todo[0]) / sum(weight(name) for name in todo)


def run_part(name: str, plan: Plan, clock: Clock, folder: Path, report: Report) -> Any:
    if name.startswith("speed_"):
        return parts.speed(name.removeprefix("speed_"))(plan, clock, folder, report)
    measure_part = {
        "machine": parts.machine,
        "agreement": parts.agreement,
        "cold_start": parts.cold_start,
        "second_action": parts.second_action,
        "track_length": parts.track_length,
        "savings": savings,
        "accuracy": accuracy,
    }[name]
    return measure_part(plan, clock, folder, report)


if __name__ == "__main__":
    sys.exit(main())
