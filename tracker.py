# SPDX-License-Identifier: MIT
"""The flow of one request: restore what is remembered, run the model once for all objects, save."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from model_handler import ModelHandler, ModelInfo
from request_objects import (
    RequestObject,
    adopt,
    by_window,
    check_sizes,
    observation_of,
    prompted_state,
    restore,
    to_object,
)
from sam2_tracker.clicks import Clicks
from sam2_tracker.errors import (
    AllObjectsFailed,
    ObjectError,
    StateGone,
    StoreUnavailable,
    TooLarge,
)
from sam2_tracker.frame_cache import Frame, FrameCache
from sam2_tracker.memory_bank import start_bank
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.memory_policy import remember
from sam2_tracker.models import model_files
from sam2_tracker.object_shapes import (
    bitmap_to_shape,
    follow_bitmap,
    place_bitmap,
    read_drawing,
)
from sam2_tracker.out_of_memory import retry_after_release
from sam2_tracker.predictions import FrameFeatures, Prediction, Result, prediction_of
from sam2_tracker.protocol import (
    Answer,
    Shape,
    Token,
    TrackRequest,
)
from sam2_tracker.records import open_records
from sam2_tracker.settings import MIB, Settings
from sam2_tracker.shapes import Bitmap, Box
from sam2_tracker.stopwatch import Stopwatch, StoreTraffic
from sam2_tracker.store_call import StoreThread
from sam2_tracker.threads import set_threads
from sam2_tracker.time_budget import Check, TimeBudget
from tracker_state import StateStore, TrackState

# Pixels of the bitmaps that one request's seeds become, one after the other: bounds the time that
# a small body can take. 129 seeds at 4K, 26 at 40 megapixels.
MAX_SEED_PIXELS = 1 << 30
# Making the shape of an object takes some time on the smallest image too. For the estimate of large
# ones a small image counts as one of this size.
LEAST_MEGAPIXELS = 0.25


@dataclass(frozen=True, kw_only=True)
class TrackerInfo(ModelInfo):
    """What a running tracker is, for GET and for the log at start."""

    memory_policy: str
    search_region: float
    """`SearchRegion.size` of objects that name none; 0: the whole image."""
    store: str
    limits: dict[str, float]


_Frame = Frame[FrameFeatures]


class Tracker:
    def __init__(self, model: ModelHandler, store: StateStore, settings: Settings) -> None:
        self._model = model
        self._store = store
        self._settings = settings
        self.budget = TimeBudget(settings.time_budget_seconds)
        # The next action over the same frames, or the same one after a correction, finds them here.
        self._frames: FrameCache[FrameFeatures] = FrameCache(
            settings.frame_cache_mib * MIB, max_megapixels=settings.max_image_megapixels
        )
        self._store_thread = StoreThread(settings.redis_timeout_seconds)

    @property
    def model(self) -> ModelHandler:
        return self._model

    @property
    def settings(self) -> Settings:
        return self._settings

    def track(self, request: TrackRequest, watch: Stopwatch | None = None) -> list[Answer]:
        """Starts, continues and corrects objects on one frame; one answer per entry, in order.

        Raises RequestError if the request as a whole, or every object of it, fails. Nothing is
        saved before every object has been computed.
        """
        watch, check_time = watch or Stopwatch(), self.budget.begin()
        # Nothing was saved, so the request can be repeated.
        return retry_after_release(
            lambda: self._track(request, watch, check_time), self._release_memory
        )

    def _track(self, request: TrackRequest, watch: Stopwatch, check_time: Check) -> list[Answer]:
        objects = [to_object(entry) for entry in request.entries]
        watch.objects, watch.image_bytes = len(objects), len(request.image)
        self._check_budget(objects)
        if any(each.active for each in objects):
            tokens = [each.token.id for each in objects if each.active and each.token]
            loading = self._store_thread.submit(self._read_store, tokens, watch.traffic)
            frame = None
            if any(each.seed or each.steps for each in objects if each.active):
                with watch.phase("decode"):
                    frame = self._frames.open(request.image)
            with watch.phase("load"):
                restore(objects, loading.wait())
            adopt(objects)
            if frame is not None:
                self._compute(objects, frame, request.image, watch, check_time)
            with watch.phase("save"):
                self._save(objects, watch.traffic)
        return _to_answers(objects, watch)

    def _compute(
        self,
        objects: Sequence[RequestObject],
        frame: _Frame,
        image: bytes,
        watch: Stopwatch,
        check_time: Check,
    ) -> None:
        """Everything that needs the frame: new objects, corrections, steps. image: its file."""
        check_sizes(objects, frame)
        self._check_budget(objects, frame)
        with watch.phase("start"):
            self._prepare_prompts(objects, frame, check_time)
        drawn = [each for each in objects if each.active and each.prompt is not None]
        stepped = [each for each in objects if each.active and isinstance(each.entry, Token)]
        watch.started, watch.continued = len(drawn), len(stepped)
        if not drawn and not stepped:
            return
        for each in stepped:
            each.region = each.known.track.region
        groups = by_window([*drawn, *stepped], frame)
        self._check_budget(objects, frame, views=len(groups))
        encoded = 0
        views = self._frames.cut(frame, image, groups)
        for done, group in enumerate(groups.values()):
            check_time(done, len(groups), "search regions are done", "send fewer objects at once")
            with watch.phase("encode"):
                view = next(views)
                features = self._encode(view)
            encoded += view.is_new
            self._compute_view(group, view, features, frame, watch)
            if any(each.active for each in group):  # the features served
                self._frames.keep(view, features)
        with watch.phase("shapes"):
            found = [each for group in groups.values() for each in group if each.logits is not None]
            self._make_shapes(found, frame)
        self._remember_costs(drawn, stepped, encoded if frame.is_new else 0, watch)

    def _compute_view(
        self,
        group: Sequence[RequestObject],
        view: _Frame,
        features: FrameFeatures,
        frame: _Frame,
        watch: Stopwatch,
    ) -> None:
        """Objects that are looked for in the same window. view: the window; frame: the whole."""
        drawn = [each for each in group if each.prompt is not None]
        with watch.phase("start"):
            self._start([each for each in drawn if not each.steps], features, view, frame)
            self._correct([each for each in drawn if each.steps], features, view, frame)
        with watch.phase("step"):
            self._step([each for each in group if isinstance(each.entry, Token)], features)

    def warm_up(self) -> None:
        """Runs every part of the model, so that no request pays for what happens only once."""
        side = 64
        image = Image.new("RGB", (side, side))
        mask = np.zeros((side, side), dtype=np.bool_)
        mask[16:48, 16:48] = True
        prompts: list[Bitmap | Box] = [mask, (8.0, 8.0, 40.0, 40.0)]
        layout = self._model.layout
        for memories in (1, layout.recent + layout.pointers):  # the second round counts
            watch = Stopwatch()
            with watch.phase("frame"):
                features = self._model.encode(image)
            with watch.phase("start"):
                started = self._model.start(features, prompts, width=side, height=side)[0]
            seen = prediction_of(started).seen
            bank = start_bank("official", seen)
            for _ in range(memories - 1):
                bank = remember(bank, seen, layout)
            with watch.phase("step"):
                self._model.step(features, [bank])
        self.budget.remember("frame", watch.phases["frame"])
        self.budget.remember("start", watch.phases["start"] / len(prompts))
        self.budget.remember("step", watch.phases["step"])

    def info(self) -> TrackerInfo:
        settings = self._settings
        return TrackerInfo(
            **vars(self._model.info()),
            memory_policy=settings.memory_policy,
            search_region=settings.search_region,
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
            self._store_thread.submit(self._store.probe).wait()
        except StoreUnavailable:
            return False
        return True

    def device_failed(self) -> bool:
        """Whether only another process can use the GPU again."""
        return self._model.device_failed()

    def close(self) -> None:
        self._store_thread.close()
        self._store.close()

    def _check_budget(
        self, objects: Sequence[RequestObject], frame: _Frame | None = None, views: int = 1
    ) -> None:
        active = [each for each in objects if each.active]
        steps = sum(each.steps for each in active)
        starts = sum(each.seed is not None and not each.steps for each in active)
        self.budget.check(
            starts=starts,
            steps=steps,
            views=views,
            shapes=Counter(each.made_type for each in active if each.made_type),
            megapixels=frame.megapixels if frame else 0.0,
        )

    def _region_size(self, each: RequestObject) -> float:
        """The size of an object's windows (`SearchRegion.size`); 0: the whole image is searched."""
        if each.state is not None:
            region = each.state.track.region
            return region.size if region else 0.0
        if each.seed is None:
            return 0.0
        own = each.seed.search_region
        return float(self._settings.search_region if own is None else own)

    def _read_store(self, ids: list[str], traffic: StoreTraffic) -> list[TrackState | StateGone]:
        if ids:
            return self._store.load(ids, traffic)
        self._store.probe()  # it would be of no use to compute what cannot be saved
        return []

    def _encode(self, frame: _Frame) -> FrameFeatures:
        content = frame.content
        return self._model.encode(content) if isinstance(content, Image.Image) else content

    def _prepare_prompts(
        self, objects: Sequence[RequestObject], frame: _Frame, check_time: Check
    ) -> None:
        drawn = [each for each in objects if each.active and each.seed is not None]
        _check_seed_pixels(drawn, frame)
        for done, each in enumerate(drawn):
            check_time(
                done, len(drawn), "new shapes are prepared", "send fewer or simpler ones at once"
            )
            try:
                self._prepare_prompt(each, frame)
            except ObjectError as error:
                each.fail(error)

    def _prepare_prompt(self, each: RequestObject, frame: _Frame) -> None:
        drawing = read_drawing(
            each.drawn,
            width=frame.width,
            height=frame.height,
            size=self._region_size(each),
            # A box or clicks correct what the model finds there, by the memory.
            tracked_in=each.state.track.region if each.steps and each.state else None,
        )
        each.box, each.region, prompt = drawing.box, drawing.region, drawing.prompt
        if isinstance(prompt, np.ndarray):
            # Scaled at once: bitmaps of 40 megapixels are not held for many seeds together.
            prompt = self._model.scale_mask(prompt)
        each.prompt = prompt

    def _start(
        self, drawn: list[RequestObject], features: FrameFeatures, view: _Frame, frame: _Frame
    ) -> None:
        """New objects, and corrections by masks and polygons: both are starts of the model."""
        prompts = [each.prompt for each in drawn if each.prompt is not None]
        results = self._model.start(features, prompts, width=view.width, height=view.height)
        self._take(drawn, results, frame)

    def _correct(
        self, drawn: list[RequestObject], features: FrameFeatures, view: _Frame, frame: _Frame
    ) -> None:
        """Corrections by rectangles and clicks."""
        prompts = [p for each in drawn if isinstance(p := each.prompt, tuple | Clicks)]
        banks = [each.known.bank for each in drawn]
        results = self._model.correct(
            features, banks, prompts, width=view.width, height=view.height
        )
        self._take(drawn, results, frame)

    def _take(self, drawn: list[RequestObject], results: list[Result], frame: _Frame) -> None:
        """The answers and the new states of objects that were drawn on this frame."""
        for each, result in zip(drawn, results, strict=True):
            if not isinstance(result, Prediction):
                each.fail(result)
                continue
            seed = each.drawn
            seen = observation_of(each, result)
            each.new_state = prompted_state(each, seen, frame, self._settings.memory_policy)
            each.answer = Answer(
                shape=Shape(type=seed.type, points=seed.points), score=result.score
            )
            if each.made_type:  # what was drawn is not the answer
                each.logits = result.logits

    def _step(self, stepped: list[RequestObject], features: FrameFeatures) -> None:
        results = self._model.step(features, [each.known.bank for each in stepped])
        for each, result in zip(stepped, results, strict=True):
            if not isinstance(result, Prediction):
                each.fail(result)
                continue
            state = each.known
            bank = remember(state.bank, observation_of(each, result), self._model.layout)
            each.new_state = replace(state, bank=bank)
            each.answer = Answer(score=result.score)
            each.logits = result.logits

    def _make_shapes(self, found: list[RequestObject], frame: _Frame) -> None:
        """The shapes of the answers, of objects with logits and a new state. Raises TooLarge.

        They have a budget of their own: a model that stalled is no reason to throw its work away.
        """
        check_time = self.budget.begin()
        bitmaps = self._bitmaps(found, frame)
        tolerance = self._settings.polygon_tolerance
        watch, made = Stopwatch(), Counter[str]()
        for done, each in enumerate(found):
            check_time(done, len(found), "shapes are made", f"send at most {done} in one request")
            state = each.computed
            type_ = state.track.shape_type
            with watch.phase(type_):
                bitmap = next(bitmaps)
                shape, track = bitmap_to_shape(bitmap, state.track, tolerance=tolerance)
                if track.region is not None:
                    track = replace(track, region=follow_bitmap(track.region, bitmap))
            made[type_] += 1
            each.new_state = replace(state, track=track)
            each.answer = replace(each.answer, shape=shape)
        megapixels = max(frame.megapixels, LEAST_MEGAPIXELS)
        for type_, count in made.items():
            self.budget.remember(type_, watch.phases[type_] / count / megapixels)

    def _bitmaps(self, found: Sequence[RequestObject], frame: _Frame) -> Iterator[Bitmap]:
        """Where each object was found on the image, bool (height, width). Raises OutOfMemory."""
        for window, group in by_window(found, frame).items():
            left, top, right, bottom = window
            logits = [each.logits for each in group if each.logits is not None]
            for bitmap in self._model.logits_to_bitmaps(
                logits, width=right - left, height=bottom - top
            ):
                yield place_bitmap(bitmap, window, width=frame.width, height=frame.height)

    def _save(self, objects: Sequence[RequestObject], traffic: StoreTraffic) -> None:
        changed = [each for each in objects if each.active and each.new_state is not None]
        if not changed:
            return
        states = [each.new_state for each in changed if each.new_state is not None]
        ids = self._store_thread.submit(self._store.save, states, traffic).wait()
        for each, id_ in zip(changed, ids, strict=True):
            each.answer = replace(each.answer, token=Token(id=id_))

    def _remember_costs(
        self,
        drawn: list[RequestObject],
        stepped: list[RequestObject],
        encoded: int,
        watch: Stopwatch,
    ) -> None:
        """encoded: images and windows that were; 0: the frame was known, and cost less."""
        seconds = watch.phases
        if encoded:
            self.budget.remember("frame", seconds["decode"] + seconds["encode"] / encoded)
        if drawn and not any(each.steps for each in drawn):
            self.budget.remember("start", seconds["start"] / len(drawn))
        # Most of a track is stepped with all that an object remembers.
        full = self._model.layout.recent + 1
        if stepped and all(len(each.known.bank.memories) >= full for each in stepped):
            self.budget.remember("step", seconds["step"] / len(stepped))

    def _release_memory(self) -> None:
        self._frames.clear()
        self._model.release_memory()


def build_tracker(settings: Settings) -> Tracker:
    """Loads the model and opens the store. Raises ConfigurationError."""
    set_threads(settings.threads, settings.workers)
    cache = MemoryCache(settings.memory_cache_mib * MIB)
    model = ModelHandler(
        model_files(settings),
        device=settings.device,
        precision=settings.precision,
        fill_hole_area=settings.fill_hole_area,
        image_size=settings.image_size,
        memory_frames=settings.memory_frames,
        conditioning_frames=settings.conditioning_frames,
        cache=cache,
    )
    return Tracker(model, open_store(settings, model, cache), settings)


def open_store(
    settings: Settings, model: ModelHandler, cache: MemoryCache | None = None
) -> StateStore:
    """Connects to nothing yet: a Redis may be down at start."""
    return StateStore(
        open_records(settings),
        layout=model.layout,
        fingerprint=model.fingerprint,
        prefix=settings.redis_prefix,
        ttl_seconds=settings.state_ttl_seconds,
        device=model.device,
        cache=cache,
    )


def _to_answers(objects: Sequence[RequestObject], watch: Stopwatch) -> list[Answer]:
    """Raises AllObjectsFailed if there are errors and nothing else."""
    failures = {
        index: each.answer.error
        for index, each in enumerate(objects)
        if each.answer.error is not None
    }
    watch.failed = len(failures)
    watch.failed_codes = ",".join(sorted({failure.code for failure in failures.values()}))
    if failures and not any(each.answer.token for each in objects):
        raise AllObjectsFailed(failures)
    return [each.answer for each in objects]


def _check_seed_pixels(drawn: Sequence[RequestObject], frame: _Frame) -> None:
    masks = sum(not each.drawn.is_prompt for each in drawn)
    fitting = max(1, MAX_SEED_PIXELS // (frame.width * frame.height))
    if masks > fitting:
        raise TooLarge(
            f"{masks} masks and polygons start on an image of {frame.width} x {frame.height} "
            f"pixels; send at most {fitting} at once."
        )
