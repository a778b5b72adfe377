# SPDX-License-Identifier: MIT
"""What is measured, part by part; each part's result is plain data that goes into the JSON."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.banks import FILLED
from benchmarks.clip import EncodedClip, encoded_clip
from benchmarks.machine import describe_machine, matrix_rate, peak_memory, synchronise
from benchmarks.models import MICRO, benchmark_files
from benchmarks.plan import EARLY, LATE, Clock, Plan, Report
from benchmarks.runners import (
    AgentRunner,
    HttpRunner,
    InProcessRunner,
    Measurement,
    OfficialRunner,
    mean_iou,
)
from benchmarks.server import RunningFunction, running_function
from sam2_tracker.image_decoding import decode_image
from sam2_tracker.memory_bank import MemoryLayout
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.models import ModelFiles
from sam2_tracker.modules.image_resize import image_to_pixels
from sam2_tracker.protocol import Seed, Token, TrackRequest
from sam2_tracker.records import open_records
from sam2_tracker.settings import MIB, Settings
from sam2_tracker.shapes import bitmap_to_mask, mask_to_bitmap
from sam2_tracker.stopwatch import StoreTraffic
from tools.official import official_predictor
from tools.redis_server import RedisServer
from tracker import Tracker, build_tracker
from tracker_state import StateStore

RUNNERS = ("http", "in_process", "official", "agent")
HEADLINE = ("http", "agent")
# After so many rounds only the headline's two sides take turns, in the best precision: a round of
# all cases takes seven times as long, and most of it is float32.
ROUNDS_OF_ALL = 2
ACTION_FRAMES = 20
AGREEMENT_FRAMES = 8
COLD_STARTS = 2
MEASUREMENTS_EACH = 15
LEAST_MEASUREMENTS = 3
# The first round may take so much more than its time: without it there is no ratio.
FIRST_ROUND_GRACE = 1.25

Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    runner: str
    precision: str
    objects: int
    image_format: str


def machine(plan: Plan, clock: Clock, folder: Path, report: Report) -> Result:
    device = torch.device(plan.device)
    rates = {}
    for dtype in (torch.bfloat16, torch.float32):
        report(f"matrix rate, {dtype}")
        rates[str(dtype).removeprefix("torch.")] = matrix_rate(device, dtype)
    return {**describe_machine(device), "matrix_rate": rates}


def speed(model: str) -> Callable[[Plan, Clock, Path, Report], Result]:
    """Time per frame of every runner, precision and number of objects, taking turns."""

    def measure(plan: Plan, clock: Clock, folder: Path, report: Report) -> Result:
        files = benchmark_files(model, folder)
        cases = speed_cases(plan, model)
        measured: dict[Case, dict[int, Measurement]] = {case: {} for case in cases}
        with _Bench(plan, files) as bench:
            for precision in dict.fromkeys(case.precision for case in cases):
                report(f"{model}, {precision}: loading")
                bench.load(precision)
            rounds, rates = 0, []
            while rounds != plan.rounds and not clock.is_over(
                grace=FIRST_ROUND_GRACE if rounds == 0 else 1
            ):
                rates.append(matrix_rate(torch.device(plan.device), torch.bfloat16))
                taking_turns = cases if rounds < ROUNDS_OF_ALL else headline_cases(plan, cases)
                # From round to round another case comes first.
                turn = rounds % len(taking_turns)
                for case in taking_turns[turn:] + taking_turns[:turn]:
                    if clock.is_over(grace=FIRST_ROUND_GRACE if rounds == 0 else 1):
                        break
                    report(
                        f"{model}, round {rounds + 1}: {case.runner}, {case.precision}, "
                        f"{case.objects} objects"
                    )
                    runner = bench.runner(case)
                    if not measured[case]:
                        runner.step()  # nobody's first step with a full bank counts
                    measured[case][rounds] = runner.step()
                rounds += 1
            resize = seconds_to_resize(
                bench.clip(1, plan.formats[0]), bench.image_size, torch.device(plan.device)
            )
            memory = {
                precision: peak_memory(function.worker_status)
                for precision, function in bench.functions.items()
            }
        return {
            "weights": "random" if files.checkpoint.parent == folder else "its own",
            "resize_seconds": resize,
            "matrix_rates": rates,
            "server_peak_bytes": memory,
            "cases": [
                {
                    **asdict(case),
                    "rounds": list(by_round),
                    "seconds": [one.seconds for one in ones],
                    "phases": {name: [one.phases[name] for one in ones] for name in ones[0].phases},
                    "read_bytes": [one.read_bytes for one in ones],
                    "written_bytes": [one.written_bytes for one in ones],
                }
                for case, by_round in measured.items()
                if (ones := list(by_round.values()))
            ],
            "not_measured": [asdict(case) for case, by_round in measured.items() if not by_round],
        }

    return measure


def speed_cases(plan: Plan, model: str) -> list[Case]:
    """Those that the goals need come first: time may run out in the first round."""
    counts = plan.objects if model in (MICRO, plan.main_model) else plan.large_objects
    cases = [
        Case(runner=runner, precision=precision, objects=objects, image_format="JPEG")
        for objects in counts
        for precision in plan.precisions
        for runner in RUNNERS
    ]
    cases += [
        Case(runner=runner, precision=plan.best_precision, objects=1, image_format=image_format)
        for image_format in plan.formats
        if image_format != "JPEG"
        for runner in RUNNERS
    ]
    return cases


def headline_cases(plan: Plan, cases: list[Case]) -> list[Case]:
    return [c for c in cases if c.runner in HEADLINE and c.precision == plan.best_precision]


def cold_start(plan: Plan, clock: Clock, folder: Path, report: Report) -> Result:
    """From the start of the process to the first answer, and what the first requests cost."""
    files = benchmark_files(plan.main_model, folder)
    clip = _clip(plan, 1)
    seeds = [{"type": "mask", "points": bitmap_to_mask(clip.masks[0])}]
    results: dict[str, list[Any]] = {"seconds": [], "starts": [], "steps": []}
    with RedisServer() as redis:
        for attempt in range(COLD_STARTS):
            report(f"cold start {attempt + 1} of {COLD_STARTS}")
            begin = time.perf_counter()
            with running_function(
                files, precision=plan.best_precision, device=plan.device, redis=redis
            ) as function:
                answered = function.post(clip.image(0), seeds, [])
                results["seconds"].append(time.perf_counter() - begin)
                starts, steps = [answered.seconds], []
                for index in range(1, 5):
                    answered = function.post(clip.image(index), [None], answered.body["states"])
                    steps.append(answered.seconds)
                starts += [
                    function.post(clip.image(index), seeds, []).seconds for index in range(5, 8)
                ]
            results["starts"].append(starts)
            results["steps"].append(steps)
            if clock.is_over():
                break
    return {"model": plan.main_model, "precision": plan.best_precision, **results}


def second_action(plan: Plan, clock: Clock, folder: Path, report: Report) -> Result:
    """The same frames a second time: calls of the encoder, counted on the module."""
    clip = _clip(plan, 1)
    tracker = _tracker(benchmark_files(plan.action_model, folder), plan.device, plan.best_precision)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    tracker._model.network.image_encoder.register_forward_pre_hook(count)
    actions = []
    seed = Seed(type="mask", points=bitmap_to_mask(clip.masks[0]))
    for action in range(2):
        calls = 0
        entry: Seed | Token = seed
        seconds = []
        for index in range(ACTION_FRAMES):
            report(f"action {action + 1}, frame {index + 1} of {ACTION_FRAMES}")
            begin = time.perf_counter()
            (answer,) = tracker.track(TrackRequest(image=clip.image(index), entries=(entry,)))
            seconds.append(time.perf_counter() - begin)
            if answer.token is None:
                raise RuntimeError(f"The object failed: {answer}")
            entry = answer.token
        actions.append({"encoder_calls": calls, "seconds": seconds})
    tracker.close()
    return {"model": plan.action_model, "precision": plan.best_precision, "actions": actions}


def track_length(plan: Plan, clock: Clock, folder: Path, report: Report) -> Result:
    """Frame 500 beside frame 20: time, bytes to and from Redis, and what lies there."""
    with RedisServer() as redis:
        curve = _whole_track(plan, clock.share(0.5), folder, redis, report)
    with RedisServer() as redis:
        early_and_late = _early_and_late(plan, clock, folder, redis, report)
    return {**early_and_late, "curve": curve}


def _early_and_late(
    plan: Plan, clock: Clock, folder: Path, redis: RedisServer, report: Report
) -> Result:
    files, clip = benchmark_files(plan.main_model, folder), _clip(plan, 1)
    tracker = _tracker(files, plan.device, plan.best_precision)  # for the layout
    layout = tracker._model.layout
    with running_function(
        files, precision=plan.best_precision, device=plan.device, redis=redis
    ) as function:
        fingerprint = function.info()["fingerprint"]
        store = open_store(redis, fingerprint, layout)
        tracks, lying = {}, {}
        for frame in (EARLY, LATE):
            report(f"a track of {frame} frames")
            before = bytes_lying(redis)
            runner = HttpRunner(function, clip, store, layout)
            runner.start()
            runner.fill(frame - FILLED)
            runner.step()  # whose memory frames the function does not know yet
            lying[frame] = bytes_lying(redis) - before
            tracks[frame] = runner
        measured: dict[int, list[Any]] = {EARLY: [], LATE: []}
        for attempt in range(MEASUREMENTS_EACH):
            for frame, runner in tracks.items():
                report(f"frame {frame}, measurement {attempt + 1}")
                measured[frame].append(runner.step())
            if clock.is_over() and attempt + 1 >= LEAST_MEASUREMENTS:
                break
        # As another worker sees it, which knows none of the memory frames.
        other = open_store(redis, fingerprint, layout)
        traffic = StoreTraffic()
        other.load([state["id"] for state in tracks[LATE]._states], traffic)
    tracker.close()
    return {
        "model": plan.main_model,
        "precision": plan.best_precision,
        "read_bytes_of_another_worker": traffic.read_bytes,
        "frames": {
            str(frame): {
                "seconds": [one.seconds for one in ones],
                "read_bytes": [one.read_bytes for one in ones],
                "written_bytes": [one.written_bytes for one in ones],
                "bytes_in_redis": lying[frame],
            }
            for frame, ones in measured.items()
        },
    }


def _whole_track(
    plan: Plan, clock: Clock, folder: Path, redis: RedisServer, report: Report
) -> Result:
    """The micro model over one long track, every frame of it really tracked, over HTTP."""
    clip, seconds = _clip(plan, 1), []
    shapes: list[Any] = [{"type": "mask", "points": bitmap_to_mask(clip.masks[0])}]
    states: list[Any] = []
    read, written = [], []
    with running_function(
        benchmark_files(MICRO, folder),
        precision=plan.best_precision,
        device=plan.device,
        redis=redis,
    ) as function:
        for index in range(plan.track_frames):
            report(f"{MICRO}, frame {index + 1} of {plan.track_frames}")
            answered = function.post(clip.image(index), shapes, states)
            states, shapes = answered.body["states"], [None]
            seconds.append(answered.seconds)
            read.append(answered.log["store_read_bytes"])
            written.append(answered.log["store_written_bytes"])
            if clock.is_over():
                break
    return {"model": MICRO, "seconds": seconds, "read_bytes": read, "written_bytes": written}


def agreement(plan: Plan, clock: Clock, folder: Path, report: Report) -> Result:
    """Whether all of them track the same: mean IoU with (c)'s masks, micro model, float32."""
    files, clip = benchmark_files(MICRO, folder), _clip(plan, 3)
    predictor = official_predictor(files).to(plan.device)
    return {
        "model": MICRO,
        "frames": AGREEMENT_FRAMES,
        "mean_iou": compare_masks(files, predictor, clip, plan.device, AGREEMENT_FRAMES, report),
    }


def compare_masks(
    files: ModelFiles,
    predictor: Any,
    clip: EncodedClip,
    device: str,
    frames: int,
    report: Report,
) -> dict[str, float]:
    """Mean IoU of our tracker's masks and of the agent's way with the official ones, float32."""
    official = OfficialRunner(predictor, clip, "float32")
    agent = AgentRunner(predictor, clip, "float32")
    official.begin()
    agent.begin()
    tracker = _tracker(files, device, "float32", fill_hole_area=0)
    ours = _OurMasks(tracker, clip)
    ious: dict[str, list[float]] = {"in_process": [], "agent": []}
    for index in range(frames):
        report(f"agreement, frame {index + 1} of {frames}")
        truth = list(official.masks())
        ious["agent"].append(mean_iou(agent.masks(), truth))
        ious["in_process"].append(mean_iou(ours.masks(), truth))
    tracker.close()
    return {name: sum(each) / len(each) for name, each in ious.items()}


class _OurMasks:
    """Our tracker's answers as bitmaps."""

    def __init__(self, tracker: Tracker, clip: EncodedClip) -> None:
        self._tracker = tracker
        self._clip = clip
        self._frame = 0
        self._entries: tuple[Seed | Token, ...] = tuple(
            Seed(type="mask", points=bitmap_to_mask(mask)) for mask in clip.masks
        )
        self.masks()

    def masks(self) -> list[Any]:
        request = TrackRequest(image=self._clip.image(self._frame), entries=self._entries)
        answers = self._tracker.track(request)
        self._frame += 1
        self._entries = tuple(answer.token for answer in answers if answer.token is not None)
        size = {"width": self._clip.width, "height": self._clip.height}
        return [
            None if answer.shape is None else mask_to_bitmap(answer.shape.points, **size)
            for answer in answers
        ]


class _Bench:
    """What the runners of one model share: Redis, our servers and trackers, one predictor."""

    def __init__(self, plan: Plan, files: ModelFiles) -> None:
        self._plan = plan
        self._files = files
        self._cleanup = contextlib.ExitStack()
        self._trackers: dict[str, Tracker] = {}
        self._stores: dict[str, StateStore] = {}
        self._clips: dict[tuple[int, str], EncodedClip] = {}
        self._runners: dict[Case, Any] = {}
        self.functions: dict[str, RunningFunction] = {}

    def __enter__(self) -> "_Bench":
        self._redis = self._cleanup.enter_context(RedisServer())
        self._predictor: Any = official_predictor(self._files).to(self._plan.device)
        self.image_size = int(self._predictor.image_size)
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def load(self, precision: str) -> None:
        cache_mib = self._plan.memory_cache_mib(precision)
        tracker = _tracker(self._files, self._plan.device, precision, cache_mib=cache_mib)
        self._cleanup.callback(tracker.close)
        function = self._cleanup.enter_context(
            running_function(
                self._files,
                precision=precision,
                device=self._plan.device,
                redis=self._redis,
                cache_mib=cache_mib,
            )
        )
        self._trackers[precision], self.functions[precision] = tracker, function
        self._stores[precision] = open_store(
            self._redis, function.info()["fingerprint"], tracker._model.layout
        )

    def runner(self, case: Case) -> Any:
        """Started when it is first asked for."""
        if case not in self._runners:
            clip = self.clip(case.objects, case.image_format)
            tracker = self._trackers[case.precision]
            made: Any
            if case.runner == "http":
                made = HttpRunner(
                    self.functions[case.precision],
                    clip,
                    self._stores[case.precision],
                    tracker._model.layout,
                )
            elif case.runner == "in_process":
                made = InProcessRunner(tracker, clip)
            elif case.runner == "official":
                made = OfficialRunner(self._predictor, clip, case.precision)
            else:
                made = AgentRunner(self._predictor, clip, case.precision)
            made.start()
            self._runners[case] = made
        return self._runners[case]

    def clip(self, objects: int, image_format: str) -> EncodedClip:
        key = (objects, image_format)
        if key not in self._clips:
            self._clips[key] = encoded_clip(
                width=self._plan.width,
                height=self._plan.height,
                objects=objects,
                image_format=image_format,
            )
        return self._clips[key]


def _clip(plan: Plan, objects: int) -> EncodedClip:
    return encoded_clip(
        width=plan.width, height=plan.height, objects=objects, image_format=plan.formats[0]
    )


def _tracker(
    files: ModelFiles,
    device: str,
    precision: str,
    *,
    fill_hole_area: int = 8,
    cache_mib: int = Settings().memory_cache_mib,
) -> Tracker:
    return build_tracker(
        Settings(
            config=files.config,
            checkpoint=files.checkpoint,
            device=device,
            precision=precision,
            fill_hole_area=fill_hole_area,
            memory_cache_mib=cache_mib,
            time_budget_seconds=600,
        )
    )


def open_store(redis: RedisServer, fingerprint: str, layout: MemoryLayout) -> StateStore:
    """As a worker opens it, with a cache of its own."""
    settings = Settings(redis_host=redis.host, redis_port=redis.port)
    return StateStore(
        open_records(settings),
        layout=layout,
        fingerprint=fingerprint,
        prefix=settings.redis_prefix,
        ttl_seconds=settings.state_ttl_seconds,
        device=torch.device("cpu"),
        cache=MemoryCache(256 * MIB),
    )


def bytes_lying(redis: RedisServer) -> int:
    """Of all values in Redis."""
    with redis.client() as client:
        return sum(int(client.strlen(key)) for key in client.scan_iter())


def seconds_to_resize(clip: EncodedClip, size: int, device: torch.device) -> float:
    """Best of 5: it belongs to the phase "encode", but is not the model's."""
    image = decode_image(clip.image(0), max_megapixels=40)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        image_to_pixels(image, size, device)
        synchronise(device)
        best = min(best, time.perf_counter() - begin)
    return best
