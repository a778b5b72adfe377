# SPDX-License-Identifier: MIT
"""The interactor: what a second click costs beside the first, and what ten people wait for.

    python -m benchmarks clicks                         the micro model
    python -m benchmarks clicks --model tiny            random weights: the time is the same

Both over HTTP, with one worker. In each round one picture that the function has not seen gets one
click, then a second one. Then ten people click at once, each on a picture of their own: the longest
wait is told beside the work, which is the sum of what the function's log says of the ten requests.
Results go to benchmarks/results/clicks_MODEL.json.
"""

import argparse
import ast
import base64
import os
import re
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2

from benchmarks.models import META, MICRO, benchmark_files
from benchmarks.origin import origin_of
from benchmarks.out import add_out, write_json
from benchmarks.plan import HEIGHT, WIDTH
from tools.function_process import FunctionError, FunctionProcess
from training.clips import draw_clip

RESULTS = Path(__file__).resolve().parent / "results"
MOST_OF_THE_FIRST = 0.1
"""The goal for tiny: a second click costs at most this of the first."""
MOST_OF_THE_WORK = 1.1
"""Nobody of ten waits longer than the work of all, but for what HTTP takes."""
PEOPLE = 10
FIRST = [WIDTH / 2, HEIGHT / 2]
SECOND = [WIDTH / 3, HEIGHT / 3]


def bodies(count: int) -> list[dict[str, Any]]:
    """Requests with one click, each on a picture of its own."""
    clip = draw_clip(7, frames=1, width=WIDTH, height=HEIGHT, objects=3)
    made = []
    for number in range(count):
        picture = clip.frames[0][..., ::-1].copy()
        picture[0, 0] = number % 256, number // 256, 0
        data = cv2.imencode(".png", picture)[1].tobytes()
        image = base64.b64encode(data).decode()
        made.append({"image": image, "pos_points": [FIRST], "neg_points": [], "obj_bbox": []})
    return made


def seconds_of(function: FunctionProcess, body: dict[str, Any]) -> float:
    begin = time.perf_counter()
    status, answer = function.post(body)
    if status != 200:
        raise FunctionError(f"The function answered {status}: {answer}")
    return time.perf_counter() - begin


def work_of(lines: list[str]) -> list[float]:
    """Seconds that the function worked on each request, by its log."""
    requests = [
        ast.literal_eval(found[0]) for line in lines if (found := re.findall(r"\{.*\}", line))
    ]
    return [
        sum(value for name, value in each.items() if name.endswith("_ms")) / 1000
        for each in requests
        if "image_bytes" in each
    ]


def measure(function: FunctionProcess, rounds: int) -> dict[str, Any]:
    pairs = []
    for body in bodies(rounds):
        first = seconds_of(function, body)
        pairs.append((first, seconds_of(function, {**body, "pos_points": [FIRST, SECOND]})))
    ratios = [second / first for first, second in pairs]
    before = len(function.log.splitlines())
    crowd = bodies(rounds + PEOPLE)[rounds:]
    with ThreadPoolExecutor(PEOPLE) as people:
        waits = list(people.map(lambda body: seconds_of(function, body), crowd))
    work = work_of(function.log.splitlines()[before:])
    if len(work) != PEOPLE:
        raise FunctionError(f"The log tells of {len(work)} requests, not of {PEOPLE}.")
    return {
        "first_ms": statistics.median(first for first, _ in pairs) * 1000,
        "second_ms": statistics.median(second for _, second in pairs) * 1000,
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "longest_wait_ms": max(waits) * 1000,
        "work_ms": sum(work) * 1000,
        "wait_of_work": max(waits) / sum(work),
    }


def main() -> int:
    """Returns 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", choices=(MICRO, *META), default=MICRO)
    parser.add_argument("--rounds", type=int, default=9)
    add_out(parser, "clicks_MODEL.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = benchmark_files(options.model, Path(folder))
        environment = {
            **os.environ,
            "SAM2_FUNCTION": "interactor",
            "SAM2_CONFIG": str(files.config),
            "SAM2_CHECKPOINT": str(files.checkpoint),
        }
        with FunctionProcess(environment) as function:
            found = measure(function, options.rounds)
    result = {**origin_of("clicks", *sys.argv[1:]), "model": options.model, **found}
    path = options.out or RESULTS / f"clicks_{options.model}.json"
    write_json(path, result)
    print(f"second click of the first: {found['ratio']:.3f} (goal, of tiny: {MOST_OF_THE_FIRST})")
    print(f"longest wait of the work: {found['wait_of_work']:.3f} (goal: {MOST_OF_THE_WORK})")
    print(path)
    missed = options.model != MICRO and found["ratio"] > MOST_OF_THE_FIRST
    return int(missed or found["wait_of_work"] > MOST_OF_THE_WORK)


if __name__ == "__main__":
    raise SystemExit(main())
