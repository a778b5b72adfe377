# SPDX-License-Identifier: MIT
"""Time per step: memory policies, mixed batches, corrections; and what the memory cache hits.

    python -m benchmarks steps                        the micro model
    python -m benchmarks steps --model tiny --objects 4 --rounds 5

Variants take turns, round by round; a ratio is the median of the ratios within each round, with its
95 % interval. On a CPU steps are timed by processor time, for other processes may be busy too.
Memory banks are full (benchmarks/banks.py), and in every round the newest memory frame of an object
is one whose keys are not known yet, as in use. The table goes to
benchmarks/results/steps_MODEL.json and .md, and what the cache hits to cache.json beside them.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.banks import FILLED, full_bank, seen_again
from benchmarks.clip import encoded_clip
from benchmarks.machine import describe_machine, synchronise
from benchmarks.models import EFFICIENTTAM, META, MICRO, benchmark_files
from benchmarks.origin import origin_of
from benchmarks.out import add_out, write_json
from benchmarks.runners import fill_store
from benchmarks.summary import Interval, median_interval, paired_ratio
from model_handler import ModelHandler
from sam2_tracker.image_decoding import decode_image
from sam2_tracker.memory_bank import MemoryBank, MemoryFrame, MemoryLayout, Observation, start_bank
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.memory_policy import POLICIES, recall, remember
from sam2_tracker.models import ModelFiles
from sam2_tracker.predictions import FrameFeatures, prediction_of
from sam2_tracker.protocol import Correction, Entry, Seed, Token, TrackRequest
from sam2_tracker.settings import MIB, Settings
from sam2_tracker.shapes import bitmap_to_mask
from tracker import build_tracker

RESULTS = Path(__file__).resolve().parent / "results"
WIDTH, HEIGHT = 640, 480
WARM_UP_ROUNDS = 2

POLICY_LIMIT = 1.01
ANCHOR_SECONDS = 0.001
"""What "anchors" may take more for each object: for its boxes."""
MIXED_LIMIT = 1.15

# The cache, at the sizes of SAM 2.1 tiny at 1024 px.
TINY = MemoryLayout(tokens=64 * 64, channels=64, recent=6, pointer_channels=256, pointers=15)
KEYS_BYTES = int(8.5 * MIB)
CACHE_OBJECTS = (8, 16, 24, 32, 64)
CACHE_WARM_UP, CACHE_REQUESTS = 40, 100

Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    model: ModelHandler
    cache: MemoryCache
    frame: FrameFeatures
    seen: tuple[Observation, ...]
    """Of the clip's objects, as they were drawn."""

    def banks(self, policy: str, count: int, **options: Any) -> list[MemoryBank]:
        return [
            full_bank(
                self.seen[number % len(self.seen)],
                policy,
                self.model.layout,
                self.cache,
                **options,
            )
            for number in range(count)
        ]

    def step(self, banks: Sequence[MemoryBank]) -> float:
        """Seconds of one step of all objects, from their banks to their new banks."""
        # The newest frame is one whose keys are not known yet.
        fresh = [seen_again(bank, self.model.layout, self.cache) for bank in banks]
        synchronise(self.model.device)
        begin = self.clock()
        for bank, result in zip(fresh, self.model.step(self.frame, fresh), strict=True):
            remember(bank, prediction_of(result).seen, self.model.layout)
        synchronise(self.model.device)
        return self.clock() - begin

    def clock(self) -> float:
        """Seconds of this process's work on a CPU, where other processes may be busy too."""
        return time.perf_counter() if self.model.device.type == "cuda" else time.process_time()


def take_turns(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds by variant and round; every round begins with another one."""
    names = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-WARM_UP_ROUNDS, rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            measured = variants[name]()
            if number >= 0:
                seconds[name].append(measured)
    return seconds


def time_policies(bench: Bench, objects: int, rounds: int) -> list[Row]:
    """Steps of the same objects by policy; "anchors" with as many anchors as it may have."""
    variants = {}
    for policy in POLICIES:
        banks = bench.banks(policy, objects, look_alike=policy == "anchors")
        variants[policy] = lambda banks=banks: bench.step(banks)
    seconds = take_turns(variants, rounds)
    official = statistics.median(seconds["official"])
    rows = []
    for policy in POLICIES[1:]:
        extra = ANCHOR_SECONDS * objects / official if policy == "anchors" else 0.0
        text = f"step of {objects}: {policy}, of official"
        rows.append(_row(text, seconds[policy], seconds["official"], POLICY_LIMIT + extra))
    return rows


def time_mixed(bench: Bench, objects: int, rounds: int) -> list[Row]:
    """Half of the objects with hidden stretches and corrections, beside equal ones."""
    chance = np.random.default_rng(0)
    equal = bench.banks("quality", objects)
    mixed = equal[: objects // 2]
    for _ in range(objects - len(mixed)):
        first = int(chance.integers(1, FILLED - 2))
        mixed += bench.banks(
            "quality",
            1,
            hidden=range(first, min(FILLED, first + int(chance.integers(3, 13)))),
            corrected=chance.choice(range(1, FILLED), chance.integers(3), replace=False).tolist(),
        )
    layout, drawn = bench.model.layout, Settings().conditioning_frames
    sizes = {
        recall(seen_again(bank, layout), layout, conditioning_frames=drawn).size for bank in mixed
    }
    seconds = take_turns(
        {"mixed": lambda: bench.step(mixed), "equal": lambda: bench.step(equal)}, rounds
    )
    text = f"step of {objects}: half with hidden stretches and corrections "
    text += f"({len(sizes)} layouts), of equal ones"
    return [_row(text, seconds["mixed"], seconds["equal"], MIXED_LIMIT)]


def time_corrections(files: ModelFiles, precision: str, rounds: int) -> list[Row]:
    """Whole requests of one object with the embedded store, the image known already."""
    tracker = build_tracker(
        Settings(
            config=files.config,
            checkpoint=files.checkpoint,
            precision=precision,
            threads=torch.get_num_threads(),
            time_budget_seconds=600,
        )
    )
    clip = encoded_clip(width=WIDTH, height=HEIGHT, objects=1, image_format="JPEG")
    image = clip.image(1)
    ys, xs = clip.masks[0].nonzero()
    box = [float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)]
    mask_seed = Seed(type="mask", points=bitmap_to_mask(clip.masks[0]))
    box_seed = Seed(type="rectangle", points=box)
    started = tracker.track(TrackRequest(image=image, entries=(mask_seed,)))[0].token
    if started is None:
        raise RuntimeError("The object was not started.")
    (id_,) = fill_store(tracker._store, tracker._model.layout, [started.id], FILLED)

    def request(entry: Entry) -> Callable[[], float]:
        def measure() -> float:
            begin = time.perf_counter()
            tracker.track(TrackRequest(image=image, entries=(entry,)))
            return time.perf_counter() - begin

        return measure

    token = Token(id=id_)
    seconds = take_turns(
        {
            "step": request(token),
            "start by mask": request(mask_seed),
            "start by box": request(box_seed),
            "mask": request(Correction(token=token, seed=mask_seed, distance=1)),
            "box": request(Correction(token=token, seed=box_seed, distance=1)),
        },
        rounds,
    )
    tracker.close()
    return [
        _row("correction by mask, of a start by mask", seconds["mask"], seconds["start by mask"]),
        _row("correction by box, of a start by box", seconds["box"], seconds["start by box"]),
        _row("correction by box, of a step", seconds["box"], seconds["step"]),
    ]


@dataclass(frozen=True)
class _Keys:
    nbytes: int = KEYS_BYTES


def cache_hits(objects: int, max_bytes: int) -> Row:
    """Shares of what is found in the real cache, driven as requests drive it, by sizes alone."""
    cache = MemoryCache(max_bytes)
    # One value that says it is many: the cache counts bytes and looks at nothing.
    features = torch.empty((), dtype=torch.bfloat16).expand(TINY.channels, TINY.tokens)
    pointer = torch.zeros(1)
    names = 0
    found = wanted = 0

    def observe() -> Observation:
        nonlocal names
        names += 1
        memory = MemoryFrame(id=str(names), features=features)
        cache.put(memory)
        return Observation(
            memory=memory, pointer=pointer, object_score=10.0, predicted_iou=0.9, area=1
        )

    banks = [start_bank("quality", observe()) for _ in range(objects)]
    for request in range(CACHE_WARM_UP + CACHE_REQUESTS):
        if request == CACHE_WARM_UP:
            found = wanted = cache.derived_hits = cache.derived_misses = 0
        cache.begin_request()
        missing = []
        for memory in (memory for bank in banks for memory in bank.memories):
            wanted += 1
            if cache.get(memory.id) is None:
                missing.append(memory)
            else:
                found += 1
        for memory in missing:  # read from the store
            cache.put(memory)
        for bank in banks:
            for memory in recall(bank, TINY).memories:
                cache.derived(memory, _Keys)
        for number, bank in enumerate(banks):
            grown = remember(bank, observe(), TINY)
            for memory in set(bank.memories) - set(grown.memories):
                cache.retire(memory.id)
            banks[number] = grown
    keys = cache.derived_hits / (cache.derived_hits + cache.derived_misses)
    return {"objects": objects, "keys": keys, "frames": found / wanted}


def report(results: Row) -> str:
    about = results["machine"]
    lines = [
        f"{results['model']}, {results['precision']}, {results['objects']} objects, "
        f"{about['cpu']}, {about['threads']} threads; {results['origin']['date']}, commit "
        f"{results['origin']['commit']}, weights {results['origin']['weights_digest']}, "
        f"`{results['origin']['command']}`.",
        "",
        "| | ms | ratio (95 % interval) | goal | |",
        "|---|---:|---:|---:|---|",
    ]
    words = {True: "holds", False: "**missed**", None: "open"}
    for row in results["rows"]:
        ratio = Interval(**row["ratio"])
        limit = row["limit"]
        verdict = "" if limit is None else words[holds(ratio, limit)]
        goal = "" if limit is None else f"<= {limit:.3f}"
        lines.append(f"| {row['name']} | {row['ms']:.1f} | {ratio} | {goal} | {verdict} |")
    rounds = f"{results['rounds']} rounds (of the policies more for few objects)"
    lines += ["", f"{rounds}. Open: the interval holds the limit.", ""]
    return "\n".join(lines)


def report_cache(rows: Sequence[Row]) -> str:
    lines = [
        "| objects | keys found | frames found |",
        "|---:|---:|---:|",
        *(
            f"| {row['objects']} | {100 * row['keys']:.0f} % | {100 * row['frames']:.0f} % |"
            for row in rows
        ),
    ]
    return "\n".join(lines) + "\n"


def holds(ratio: Interval, limit: float) -> bool | None:
    """None: the interval lies on both sides of the limit."""
    return True if ratio.high <= limit else False if ratio.low > limit else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default=MICRO, choices=[MICRO, *META, *EFFICIENTTAM])
    parser.add_argument("--objects", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--only", choices=["cache"], help="what needs no model")
    add_out(parser, "steps_MODEL.json, or cache.json with --only cache,")
    options = parser.parse_args()
    out = options.out or RESULTS / f"steps_{options.model}.json"
    default = Settings().memory_cache_mib
    hits = [cache_hits(objects, default * MIB) for objects in CACHE_OBJECTS]
    print(report_cache(hits))
    only_cache = options.only == "cache"
    cache_out = options.out if options.out and only_cache else out.with_name("cache.json")
    write_json(cache_out, {"mib": default, "rows": hits})
    if only_cache:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        files = benchmark_files(options.model, Path(folder))
        bench = _bench(files, options.precision)
        precision = bench.model.precision
        counts = sorted({1, min(8, options.objects)})
        rows = [row for n in counts for row in time_policies(bench, n, options.rounds * 8 // n)]
        rows += time_mixed(bench, options.objects, options.rounds)
        rows += time_corrections(files, precision, options.rounds)
        results = {
            "origin": origin_of("steps", *sys.argv[1:]),
            "machine": describe_machine(bench.model.device),
            "model": options.model,
            "precision": precision,
            "objects": options.objects,
            "rounds": options.rounds,
            "rows": rows,
        }
    write_json(out, results)
    out.with_suffix(".md").write_text(report(results))
    print(report(results))
    return 0


def _bench(files: ModelFiles, precision: str) -> Bench:
    settings = Settings()
    cache = MemoryCache(4 * settings.memory_cache_mib * MIB)  # all variants side by side
    model = ModelHandler(
        files,
        precision=precision,
        conditioning_frames=settings.conditioning_frames,
        cache=cache,
    )
    clip = encoded_clip(width=WIDTH, height=HEIGHT, objects=4, image_format="JPEG")
    frames = [model.encode(decode_image(clip.image(index), max_megapixels=1)) for index in range(2)]
    started = model.start(frames[0], list(clip.masks), width=WIDTH, height=HEIGHT)
    seen = tuple(prediction_of(result).seen for result in started)
    return Bench(model=model, cache=cache, frame=frames[1], seen=seen)


def _row(name: str, ours: list[float], theirs: list[float], limit: float | None = None) -> Row:
    ratio = paired_ratio(dict(enumerate(ours)), dict(enumerate(theirs)))
    return {
        "name": name,
        "ms": 1000 * statistics.median(ours),
        "beside_ms": 1000 * statistics.median(theirs),
        "ratio": asdict(ratio),
        "limit": limit,
        "more_ms": asdict(
            median_interval([1000 * (a - b) for a, b in zip(ours, theirs, strict=True)])
        ),
    }


if __name__ == "__main__":
    sys.exit(main())
