# SPDX-License-Identifier: MIT
"""All models beside each other: time per frame, memory, bytes per object, cold start.

    python -m benchmarks models                                  7 rounds
    python -m benchmarks models --resume --rounds 9              two more

In every round every model takes its turn, with random weights and a process of its own: it starts,
answers its first request, and tracks one object and then four with full memory banks, 1080p JPEG
in and JSON out. Of the frames of a round the first ones warm up, and the median of the others
counts. Ratios are taken within a round, and so is the machine's matrix rate. A round is written
when it is done, so what was broken off goes on with --resume. Writes
benchmarks/results/models.json and .md.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.clip import EncodedClip, encoded_clip
from benchmarks.flop import count_flop
from benchmarks.machine import describe_machine, matrix_rate, peak_memory
from benchmarks.models import EFFICIENTTAM, META, MICRO, benchmark_files
from benchmarks.origin import origin_of
from benchmarks.parts import bytes_lying, open_store, seconds_to_resize
from benchmarks.plan import HEIGHT, WIDTH
from benchmarks.runners import HttpRunner
from benchmarks.server import running_function
from benchmarks.summary import Interval, median_interval, paired_ratio, spread
from sam2_tracker.build_model import build_model, choose_precision
from sam2_tracker.memory_bank import MemoryLayout
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.models import ModelFiles
from sam2_tracker.record_format import RETAINED
from sam2_tracker.shapes import bitmap_to_mask
from sam2_tracker.threads import set_threads
from tools.redis_server import RedisServer

RESULTS = Path(__file__).resolve().parent / "results" / "models.json"
MODELS = ("tiny", "small", *EFFICIENTTAM)
OBJECTS = (1, 4)
WARM_UP = 2
FRAMES = 5
ROUNDS = 7
FAST = "efficienttam_ti_512"
TINY = "tiny"
CPU = torch.device("cpu")
# What the fast model is to reach on two cores.
RATIO_LIMITS = {1: 0.12, 4: 0.10}
OUTSIDE_LIMIT = 0.20
PRODUCTS_LIMIT = 2.0
COLD_START_LIMIT = 6.0

Results = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 where a goal is missed."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks models",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [*META, MICRO, *EFFICIENTTAM]
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="altogether")
    parser.add_argument(
        "--model",
        action="append",
        choices=names,
        help="instead of tiny, small and EfficientTAM; may be given again",
    )
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--size", type=int, nargs=2, default=(WIDTH, HEIGHT))
    parser.add_argument("--resume", action="store_true", help="keep the rounds that are done")
    parser.add_argument("--show", action="store_true", help="measure nothing, print what is there")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file")
    options = parser.parse_args(words)
    set_threads(0, 1)
    plan = {
        "models": list(options.model or MODELS),
        "precision": choose_precision(options.precision, CPU),
        "size": list(options.size),
        "threads": torch.get_num_threads(),
    }
    results: Results = {"plan": plan, "runs": [], "models": {}, "rounds": []}
    if options.resume or options.show:
        if not options.out.exists():
            parser.error(f"{options.out} is not there")
        results = json.loads(options.out.read_text())
        if options.resume and results["plan"] != plan:
            parser.error(f"{options.out} holds another plan: {json.dumps(results['plan'])}")
    if not options.show:
        _measure(results, options.rounds, options.out, words)
    text = report(results)
    options.out.with_suffix(".md").write_text(text + "\n")
    print(text)
    return int(any(verdict is False for _, _, verdict in goals(results)))


def _measure(results: Results, rounds: int, out: Path, words: list[str]) -> None:
    """Adds the rounds that are missing, and writes after each."""
    plan = results["plan"]
    results["runs"].append({**origin_of("models", *words), "machine": describe_machine(CPU)})
    clips = {
        n: encoded_clip(
            width=plan["size"][0], height=plan["size"][1], objects=n, image_format="JPEG"
        )
        for n in OBJECTS
    }
    with tempfile.TemporaryDirectory() as folder, RedisServer() as redis:
        for name in plan["models"]:
            files = benchmark_files(name, Path(folder))
            if name not in results["models"]:
                results["models"][name] = asdict(count_flop(files.config))
        while len(results["rounds"]) < rounds:
            number = len(results["rounds"])
            turn = number % len(plan["models"])
            measured: Results = {}
            rates = {
                str(dtype).removeprefix("torch."): matrix_rate(CPU, dtype)
                for dtype in (torch.bfloat16, torch.float32)
            }
            for name in plan["models"][turn:] + plan["models"][:turn]:
                print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
                files = benchmark_files(name, Path(folder))
                measured[name] = _measure_model(files, plan["precision"], clips, redis)
            run = len(results["runs"]) - 1
            results["rounds"].append({"run": run, "matrix_rate": rates, "models": measured})
            out.write_text(json.dumps(results, indent=1) + "\n")


def _measure_model(
    files: ModelFiles, precision: str, clips: dict[int, EncodedClip], redis: RedisServer
) -> Results:
    """One model in a new process: its first answer, then a frame of one object and of four."""
    layout, size = _layout(files, precision)
    resize = seconds_to_resize(clips[1], size, CPU)
    with redis.client() as client:
        client.flushall()
    begin = time.perf_counter()
    with running_function(files, precision=precision, device="cpu", redis=redis) as function:
        seed = {"type": "mask", "points": bitmap_to_mask(clips[1].masks[0])}
        function.post(clips[1].image(0), [seed], [])
        found: Results = {"cold_start_s": time.perf_counter() - begin, "objects": {}}
        store = open_store(redis, function.info()["fingerprint"], layout)
        for n, clip in clips.items():
            with redis.client() as client:
                client.flushall()
            runner = HttpRunner(function, clip, store, layout)
            runner.start()
            runner.fill(RETAINED)  # until all frames that can be returned to are there
            for _ in range(WARM_UP):  # the function does not know the memory that was filled in
                runner.step()
            steps = [runner.step() for _ in range(FRAMES)]
            inside = [each.phases["encode"] + each.phases["step"] - resize for each in steps]
            found["objects"][str(n)] = {
                "seconds": statistics.median(each.seconds for each in steps),
                "in_model_s": statistics.median(inside),
                "peak_bytes": peak_memory(function.worker_status),
            }
            if n == 1:
                found["bytes_per_object"] = bytes_lying(redis)
    return found


@cache
def _layout(files: ModelFiles, precision: str) -> tuple[MemoryLayout, int]:
    """Also the side of the model's input."""
    loaded = build_model(files, device="cpu", precision=precision, cache=MemoryCache(0))
    return loaded.layout, int(loaded.network.image_size)


# --- what was measured ---------------------------------------------------------------------------


def _seconds(results: Results, model: str, objects: int, key: str = "seconds") -> dict[int, float]:
    return {
        number: one["models"][model]["objects"][str(objects)][key]
        for number, one in enumerate(results["rounds"])
    }


def of_tiny(results: Results, model: str, objects: int) -> Interval | None:
    """The time of a frame over that of tiny in the same round; None where tiny was not measured."""
    if TINY not in results["plan"]["models"]:
        return None
    return paired_ratio(_seconds(results, model, objects), _seconds(results, TINY, objects))


def outside(results: Results, model: str, objects: int) -> Interval:
    """The share of a frame that is not spent in the model."""
    totals = _seconds(results, model, objects)
    inside = _seconds(results, model, objects, "in_model_s")
    return median_interval([1 - inside[number] / totals[number] for number in totals])


def over_products(results: Results, model: str, objects: int) -> Interval:
    """The model's time over that of matrix products of as many operations in the same round."""
    flop = results["models"][model]
    count = flop["encode"] + objects * flop["step"]
    inside = _seconds(results, model, objects, "in_model_s")
    rates = [one["matrix_rate"][results["plan"]["precision"]] for one in results["rounds"]]
    return median_interval([inside[number] * rates[number] / count for number in inside])


def cold_start(results: Results, model: str) -> Interval:
    return spread([one["models"][model]["cold_start_s"] for one in results["rounds"]])


def goals(results: Results) -> list[tuple[str, str, bool | None]]:
    """(goal, measured, reached); None: the interval holds the limit, or it was not measured."""
    rows: list[tuple[str, Interval | None, float, str]] = []
    there = FAST in results["plan"]["models"] and bool(results["rounds"])
    for n in OBJECTS:
        objects = "1 object" if n == 1 else f"{n} objects"
        ratio = of_tiny(results, FAST, n) if there else None
        rows.append((f"a frame with {objects}, of tiny's", ratio, RATIO_LIMITS[n], ".3f"))
        share = outside(results, FAST, n) if there else None
        rows.append((f"outside the model, {objects}", share, OUTSIDE_LIMIT, ".1%"))
        took = over_products(results, FAST, n) if there else None
        rows.append((f"the model, of its matrix products, {objects}", took, PRODUCTS_LIMIT, ".2f"))
    cold = cold_start(results, FAST) if there else None
    rows.append(("cold start, s", cold, COLD_START_LIMIT, ".1f"))
    return [
        (
            f"{FAST}: {text} <= {limit:{'.0%' if form == '.1%' else 'g'}}",
            _shown(value, form),
            _verdict(value, limit),
        )
        for text, value, limit, form in rows
    ]


def _shown(value: Interval | None, form: str) -> str:
    if value is None:
        return "not measured"
    interval = f" ({value.low:{form}} to {value.high:{form}})" if value.rounds > 1 else ""
    return f"{value.median:{form}}{interval}"


def _verdict(value: Interval | None, limit: float) -> bool | None:
    if value is None or value.rounds < 2:  # one round decides nothing
        return None
    return True if value.high <= limit else False if value.low > limit else None


def report(results: Results) -> str:
    """Markdown."""
    if not results["rounds"]:
        return "No round is done."
    machine, plan = results["runs"][-1]["machine"], results["plan"]
    rates = {
        name: statistics.median(one["matrix_rate"][name] for one in results["rounds"]) / 1e12
        for name in ("bfloat16", "float32")
    }
    commands = [f"`{run['command']}` ({run['date']}, {run['commit']})" for run in results["runs"]]
    head = [
        "model", "operations of 1, TFLOP", "1 object, ms", "4 objects, ms", "1 object, of tiny",
        "4 objects, of tiny", "of matrix products: 1, 4", "outside the model: 1, 4",
        "memory of the process: 1, 4, MiB", "an object in Redis, MiB", "cold start, s",
    ]  # fmt: skip
    rows = [_row(results, model) for model in plan["models"]]
    verdicts = {True: "reached", False: "**missed**", None: "open"}
    lines = [
        f"{machine['cpu']}, {plan['threads']} threads, {plan['precision']}, random weights, images "
        f"of {plan['size'][0]} x {plan['size'][1]} as JPEG, load at the start {machine['load']}; "
        f"{len(results['rounds'])} rounds by {', '.join(commands)}. Matrix rate: bfloat16 "
        f"{rates['bfloat16']:.2f}, float32 {rates['float32']:.2f} TFLOP/s, "
        f"{rates['bfloat16'] / rates['float32']:.1f} times as much.",
        "",
        *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)),
        "",
        "| goal | measured (95 % interval; cold start: least to greatest) | |",
        "|---|---|---|",
        *(f"| {text} | {value} | {verdicts[found]} |" for text, value, found in goals(results)),
    ]
    return "\n".join(lines)


def _row(results: Results, model: str) -> list[str]:
    measured = [one["models"][model] for one in results["rounds"]]
    times = [statistics.median(_seconds(results, model, n).values()) for n in OBJECTS]
    peaks = [max(_seconds(results, model, n, "peak_bytes").values()) for n in OBJECTS]
    flop = results["models"][model]
    return [
        model,
        f"{flop['encode'] / 1e12:.3f} + {flop['step'] / 1e12:.3f}",
        *(f"{1000 * seconds:.0f}" for seconds in times),
        *(_shown(of_tiny(results, model, n), ".3f") for n in OBJECTS),
        ", ".join(f"{over_products(results, model, n).median:.2f}" for n in OBJECTS),
        ", ".join(f"{outside(results, model, n).median:.0%}" for n in OBJECTS),
        ", ".join(f"{peak / 2**20:.0f}" for peak in peaks),
        f"{max(one['bytes_per_object'] for one in measured) / 2**20:.2f}",
        f"{cold_start(results, model).median:.1f}",
    ]


if __name__ == "__main__":
    raise SystemExit(main())
