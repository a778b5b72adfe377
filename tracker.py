# SPDX-License-Identifier: MIT
"""The flow of one request: restore what is remembered, run the model once for all objects, save."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Generic, ParamSpec, TypeVar

import numpy as np
from PIL import Image

from model_handler import FrameFeatures, ModelHandler, set_threads
from sam2_tracker.byte_cache import ByteCache
from sam2_tracker.errors import (
    AllObjectsFailed,
    ObjectError,
    OutOfMemory,
    SizeChanged,
    StateGone,
    StoreUnavailable,
    TooLarge,
)
from sam2_tracker.image_decoding import decode_image
from sam2_tracker.memory_bank import advance_bank
from sam2_tracker.models import model_files
from sam2_tracker.protocol import Answer, Seed, Shape, Token, TrackRequest
from sam2_tracker.records import open_records
from sam2_tracker.settings import MIB, Settings
from sam2_tracker.shapes import (
    Bitmap,
    Box,
    bitmap_to_mask,
    bitmap_to_polygon,
    bitmap_to_rectangle,
    mask_to_bitmap,
    polygon_to_bitmap,
    rectangle_to_box,
    widen_box,
)
from sam2_tracker.stopwatch import RequestLog
from tracker_state import StateStore, Track, TrackState

T = TypeVar("T")
P = ParamSpec("P")

COSTS_REMEMBERED = 9
# Pixels of the bitmaps that one request's seeds become, one after the other: bounds the time that
# a small body can take. 129 seeds at 4K, 26 at 40 megapixels.
MAX_SEED_PIXELS = 1 << 30


@dataclass(frozen=True, kw_only=True)
class TrackerInfo:
    """What a running tracker is, for GET and for the log at start."""

    model: str
    fingerprint: str
    device: str
    precision: str
    threads: int
    store: str
    limits: dict[str, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Frame:
    """A decoded image, or one whose features are known from an earlier request."""

    width: int
    height: int
    content: Image.Image | FrameFeatures


@dataclass(frozen=True, kw_only=True, eq=False)
class _Start:
    seed: Seed
    prompt: Bitmap | Box
    track: Track


class Tracker:
    def __init__(self, model: ModelHandler, store: StateStore, settings: Settings) -> None:
        self._model = model
        self._store = store
        self._settings = settings
        self._threads = set_threads(settings.threads, settings.workers)
        self._costs = _Costs(settings.time_budget_seconds)
        # By a digest of the encoded image: the next action over the same frames, or the same one
        # after a correction, neither decodes nor encodes them again.
        self._frames: ByteCache[bytes, _Frame] = ByteCache(settings.frame_cache_mib * MIB)
        # The store is spoken to on a thread of its own: so the image is decoded meanwhile, and
        # whatever hangs there (a name server, say) is waited for only so long.
        self._store_thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    def track(self, request: TrackRequest, log: RequestLog | None = None) -> list[Answer]:
        """Starts and continues objects on one frame; one answer per entry, in their order.

        Raises RequestError if the request as a whole, or every object of it, fails. Nothing is
        saved before every object has been computed.
        """
        log = log or RequestLog()
        before = self._store.traffic
        try:
            return self._track(request, log)
        except OutOfMemory as error:
            message = error.message
        finally:
            after = self._store.traffic
            log.store_read_bytes = after.read_bytes - before.read_bytes
            log.store_written_bytes = after.written_bytes - before.written_bytes
            log.cache_hits = after.cache_hits - before.cache_hits
            log.cache_misses = after.cache_misses - before.cache_misses
        # Not while the error is handled: on its traceback hang the tensors of the call that failed.
        self._release_memory()
        raise OutOfMemory(message)

    def _track(self, request: TrackRequest, log: RequestLog) -> list[Answer]:
        began = time.monotonic()
        log.objects, log.image_bytes = len(request.entries), len(request.image)
        seeds: dict[int, Seed] = {}
        tokens: dict[int, Token] = {}
        failures: dict[int, ObjectError] = {}
        for index, entry in enumerate(request.entries):
            if isinstance(entry, Seed):
                seeds[index] = entry
            elif isinstance(entry, Token):
                tokens[index] = entry
            elif entry is not None:
                failures[index] = entry
        self._costs.check(starts=len(seeds), steps=len(tokens))
        if not seeds and not tokens:
            return self._answers(request, {}, failures, log)

        loading = self._ask_store(self._read_store, [token.id for token in tokens.values()])
        with log.phase("decode"):
            digest = hashlib.sha256(request.image).digest()
            frame = self._frames.get(digest) or self._decode(request.image)
        with log.phase("load"):
            loaded = loading.wait()

        _check_seeds(seeds.values(), frame)
        starts: dict[int, _Start] = {}
        states: dict[int, TrackState] = {}
        with log.phase("start"):
            for done, (index, seed) in enumerate(seeds.items()):
                self._check_budget(began, done, len(seeds))
                try:
                    starts[index] = _prepare_start(seed, frame, self._model)
                except ObjectError as error:
                    failures[index] = error
        for index, state in zip(tokens, loaded, strict=True):
            if isinstance(state, StateGone):
                failures[index] = state
            elif (state.track.width, state.track.height) != (frame.width, frame.height):
                failures[index] = SizeChanged(
                    "Image sizes of the start frame and the current frame are different: "
                    f"{state.track.width} x {state.track.height}, {frame.width} x {frame.height}."
                )
            else:
                states[index] = state
        log.started, log.continued = len(starts), len(states)
        if not starts and not states:
            return self._answers(request, {}, failures, log)

        with log.phase("encode"):
            features = frame.content
            if isinstance(features, Image.Image):
                features = self._model.encode(features)
        answers: dict[int, Answer] = {}
        new_states: dict[int, TrackState] = {}
        with log.phase("start"):
            predictions = self._model.start(
                features,
                [start.prompt for start in starts.values()],
                width=frame.width,
                height=frame.height,
            )
        for (index, start), prediction in zip(starts.items(), predictions, strict=True):
            # A mask or polygon is what its drawer says it is; only a box is the model's guess.
            score = prediction.score if start.seed.type == "rectangle" else 1.0
            shape = Shape(type=start.seed.type, points=start.seed.points)
            answers[index] = Answer(shape=shape, score=score)
            new_states[index] = TrackState(track=start.track, bank=prediction.bank)
        with log.phase("step"):
            predictions = self._model.step(features, [state.bank for state in states.values()])
        with log.phase("shapes"):
            bitmaps = self._model.logits_to_bitmaps(
                [prediction.logits for prediction in predictions],
                width=frame.width,
                height=frame.height,
            )
            for (index, state), prediction, bitmap in zip(
                states.items(), predictions, bitmaps, strict=True
            ):
                shape_, track = self._bitmap_to_shape(bitmap, state.track)
                answers[index] = Answer(shape=shape_, score=prediction.score)
                new_states[index] = replace(state, track=track, bank=prediction.bank)
        self._remember(frame, digest, features)
        self._remember_costs(log, frame, len(starts), list(states.values()))

        with log.phase("save"):
            ids = self._ask_store(self._store.save, list(new_states.values())).wait()
        for index, id_ in zip(new_states, ids, strict=True):
            answers[index] = replace(answers[index], token=Token(id=id_))
        return self._answers(request, answers, failures, log)

    def warm_up(self) -> None:
        """Runs every part of the model, so that no request pays for what happens only once."""
        side = 64
        image = Image.new("RGB", (side, side))
        mask = np.zeros((side, side), dtype=np.bool_)
        mask[16:48, 16:48] = True
        layout = self._model.layout
        for memories in (1, layout.recent + layout.pointers):  # the second round counts
            log = RequestLog()
            with log.phase("frame"):
                frame = self._model.encode(image)
            with log.phase("start"):
                prompts: list[Bitmap | Box] = [mask, (8.0, 8.0, 40.0, 40.0)]
                bank = self._model.start(frame, prompts, width=side, height=side)[0].bank
            for _ in range(memories - 1):
                bank = advance_bank(bank, bank.conditioning, bank.pointers[0], layout)
            with log.phase("step"):
                self._model.step(frame, [bank])
        self._costs.remember("frame", log.phases["frame"])
        self._costs.remember("start", log.phases["start"] / len(prompts))
        self._costs.remember("step", log.phases["step"])

    def info(self) -> TrackerInfo:
        settings = self._settings
        return TrackerInfo(
            model=self._model.name,
            fingerprint=self._model.fingerprint,
            device=str(self._model.device),
            precision=self._model.precision,
            threads=self._threads,
            store=self._store.name,
            limits={
                "image_megapixels": settings.max_image_megapixels,
                "objects": settings.max_objects,
                "points": settings.max_points,
                "time_budget_seconds": settings.time_budget_seconds,
                "state_ttl_seconds": settings.state_ttl_seconds,
            },
        )

    def store_answers(self) -> bool:
        try:
            self._ask_store(self._store.ping).wait()
        except StoreUnavailable:
            return False
        return True

    def close(self) -> None:
        self._store_thread.shutdown(wait=False, cancel_futures=True)
        self._store.close()

    def _read_store(self, ids: list[str]) -> list[TrackState | StateGone]:
        if ids:
            return self._store.load(ids)
        self._store.ping()  # it would be of no use to compute what cannot be saved
        return []

    def _ask_store(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "_Asked[T]":
        deadline = time.monotonic() + self._settings.redis_timeout_seconds
        return _Asked(self._store_thread.submit(call, *args, **kwargs), deadline)

    def _check_budget(self, began: float, done: int, of: int) -> None:
        """Raises TooLarge if the time is up before all are prepared; one always is."""
        if done and time.monotonic() - began > self._settings.time_budget_seconds:
            raise TooLarge(
                f"After {self._settings.time_budget_seconds:g} s only {done} of {of} new shapes "
                "are prepared; send fewer or simpler ones at once."
            )

    def _decode(self, data: bytes) -> _Frame:
        image = decode_image(data, max_megapixels=self._settings.max_image_megapixels)
        return _Frame(width=image.width, height=image.height, content=image)

    def _remember(self, frame: _Frame, digest: bytes, features: FrameFeatures) -> None:
        """Called when the model could compute with it, not before."""
        if frame.content is not features:
            known = replace(frame, content=features)
            self._frames.put(digest, known, features.nbytes)

    def _remember_costs(
        self, log: RequestLog, frame: _Frame, starts: int, states: list[TrackState]
    ) -> None:
        seconds = log.phases
        if isinstance(frame.content, Image.Image):  # else it would seem to cost nothing
            self._costs.remember("frame", seconds["decode"] + seconds["encode"])
        if starts:
            self._costs.remember("start", seconds["start"] / starts)
        # Most of a track is stepped with all that an object remembers.
        if any(len(state.bank.recent) == self._model.layout.recent for state in states):
            self._costs.remember("step", (seconds["step"] + seconds["shapes"]) / len(states))

    def _release_memory(self) -> None:
        self._frames.clear()
        with suppress(StoreUnavailable):  # a store that hangs: its thread does it later
            self._ask_store(self._store.forget_frames).wait()
        self._model.release_memory()

    def _bitmap_to_shape(self, bitmap: Bitmap, track: Track) -> tuple[Shape | None, Track]:
        """The shape, None if the object is not visible, and the track with its last box."""
        visible = bool(bitmap.any())
        if track.shape_type == "rectangle":
            if not visible:
                return Shape(type="rectangle", points=list(track.box), outside=True), track
            left, top, right, bottom = bitmap_to_rectangle(bitmap)
            box = (float(left), float(top), float(right), float(bottom))
            return Shape(type="rectangle", points=list(box)), replace(track, box=box)
        if not visible:
            return None, track
        if track.shape_type == "mask":
            return Shape(type="mask", points=bitmap_to_mask(bitmap)), track
        points = bitmap_to_polygon(bitmap, tolerance=self._settings.polygon_tolerance)
        return Shape(type="polygon", points=points), track

    def _answers(
        self,
        request: TrackRequest,
        answers: dict[int, Answer],
        failures: dict[int, ObjectError],
        log: RequestLog,
    ) -> list[Answer]:
        log.failed = len(failures)
        log.failed_codes = ",".join(sorted({failure.code for failure in failures.values()}))
        if failures and not answers:
            raise AllObjectsFailed(dict(sorted(failures.items())))
        failed = {index: Answer(error=error) for index, error in failures.items()}
        return [(answers | failed).get(index, Answer()) for index in range(len(request.entries))]


class _Asked(Generic[T]):
    """What the store was asked for, on its thread, and until when that is waited for."""

    def __init__(self, future: Future[T], deadline: float) -> None:
        self._future: Future[T] | None = future
        self._deadline = deadline

    def wait(self) -> T:
        """Raises StoreUnavailable at the deadline, and what the call raises."""
        # Asked once, and let go: the traceback of an error in it holds the tensors of the request.
        future, self._future = self._future, None
        if future is None:
            raise RuntimeError("the answer was taken already")
        try:
            return future.result(timeout=max(0.0, self._deadline - time.monotonic()))
        except FutureTimeoutError:
            future.cancel()
            raise StoreUnavailable(
                "The store of the tracks does not answer in time; try again in a moment."
            ) from None
        finally:
            del future


class _Costs:
    """What a frame, a new object and a tracked one cost here, at the best of the last requests.

    The best, because a stall that has passed must not refuse the next request.
    """

    def __init__(self, budget_seconds: float) -> None:
        self._budget = budget_seconds
        self._seconds: dict[str, deque[float]] = {
            kind: deque(maxlen=COSTS_REMEMBERED) for kind in ("frame", "start", "step")
        }

    def remember(self, kind: str, seconds: float) -> None:
        """kind: frame, start or step; of the last two, the seconds per object."""
        self._seconds[kind].append(seconds)

    def check(self, *, starts: int, steps: int) -> None:
        """Raises TooLarge if so many objects would take longer than the budget. One never does."""
        objects = starts + steps
        best = {kind: min(seconds, default=0.0) for kind, seconds in self._seconds.items()}
        needed = starts * best["start"] + steps * best["step"]
        left = self._budget - best["frame"]
        if objects > 1 and needed > left:
            fitting = max(1, int(objects * max(0.0, left) / needed)) if needed else 1
            raise TooLarge(
                f"{objects} objects would take longer than {self._budget:g} s here; "
                f"send at most {fitting} in one request."
            )


def build_tracker(settings: Settings) -> Tracker:
    """Loads the model and opens the store. Raises ConfigurationError."""
    set_threads(settings.threads, settings.workers)
    model = ModelHandler(
        model_files(settings),
        device=settings.device,
        precision=settings.precision,
        fill_hole_area=settings.fill_hole_area,
        image_size=settings.image_size,
        memory_frames=settings.memory_frames,
        cache_bytes=settings.attention_cache_mib * MIB,
    )
    return Tracker(model, open_store(settings, model), settings)


def open_store(settings: Settings, model: ModelHandler) -> StateStore:
    """Connects to nothing yet: a Redis may be down at start."""
    return StateStore(
        open_records(settings),
        layout=model.layout,
        fingerprint=model.fingerprint,
        prefix=settings.redis_prefix,
        ttl_seconds=settings.state_ttl_seconds,
        device=model.device,
        cache_bytes=settings.memory_cache_mib * MIB,
    )


def _check_seeds(seeds: Iterable[Seed], frame: _Frame) -> None:
    drawn = sum(seed.type != "rectangle" for seed in seeds)
    fitting = max(1, MAX_SEED_PIXELS // (frame.width * frame.height))
    if drawn > fitting:
        raise TooLarge(
            f"{drawn} masks and polygons start on an image of {frame.width} x {frame.height} "
            f"pixels; send at most {fitting} at once."
        )


def _prepare_start(seed: Seed, frame: _Frame, model: ModelHandler) -> _Start:
    track = Track(width=frame.width, height=frame.height, shape_type=seed.type)
    if seed.type == "rectangle":
        box = rectangle_to_box(seed.points, width=frame.width, height=frame.height)
        # What is answered while the object is lost, if it is never seen again.
        last = widen_box(box, width=frame.width, height=frame.height)
        return _Start(seed=seed, prompt=box, track=replace(track, box=last))
    to_bitmap = mask_to_bitmap if seed.type == "mask" else polygon_to_bitmap
    bitmap = to_bitmap(seed.points, width=frame.width, height=frame.height)
    # Scaled at once: bitmaps of 40 megapixels are not held for many seeds together.
    return _Start(seed=seed, prompt=model.scale_mask(bitmap), track=track)
