# SPDX-License-Identifier: MIT
"""The four ways to track that are compared, each able to track one more frame when asked.

After its start a runner's memory bank is filled by copies of its newest memory, so that the first
frame that is measured costs what every later one does.
"""

import contextlib
import io
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np
import sam2.sam2_video_predictor
import sam2.utils.misc
import torch
from PIL import Image
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor

from benchmarks.agent import AgentTracker
from benchmarks.banks import FILLED, seen_again
from benchmarks.clip import EncodedClip
from benchmarks.machine import synchronise
from benchmarks.server import RunningFunction
from model_handler import IMAGE_MEAN, IMAGE_STD
from sam2_tracker.errors import StateGone
from sam2_tracker.memory_bank import MemoryLayout
from sam2_tracker.protocol import Answer, Seed, Token, TrackRequest
from sam2_tracker.shapes import Bitmap, bitmap_to_mask
from sam2_tracker.stopwatch import Stopwatch
from tracker import Tracker
from tracker_state import StateStore, TrackState
from training.metrics import jaccard

PHASES = ("read", "decode", "load", "encode", "start", "step", "shapes", "save", "write")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One frame of all objects."""

    seconds: float
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds by phase, where the runner knows them."""
    read_bytes: int = 0
    written_bytes: int = 0


class HttpRunner:
    """(a) The whole handler: HTTP and JSON in and out, states in Redis."""

    def __init__(
        self, function: RunningFunction, clip: EncodedClip, store: StateStore, layout: MemoryLayout
    ) -> None:
        self._function = function
        self._clip = clip.another_take()
        self._store = store
        self._layout = layout
        self._states: list[Any] = []
        self._frame = 0

    def start(self) -> None:
        shapes = [{"type": "mask", "points": bitmap_to_mask(mask)} for mask in self._clip.masks]
        self._states = self._function.post(self._next_image(), shapes, []).body["states"]
        self.fill(FILLED)

    def fill(self, steps: int) -> None:
        ids = fill_store(self._store, self._layout, [s["id"] for s in self._states], steps)
        self._states = [{"v": 1, "id": id_} for id_ in ids]

    def step(self) -> Measurement:
        shapes = [None] * len(self._states)
        answered = self._function.post(self._next_image(), shapes, self._states)
        self._states = answered.body["states"]
        return Measurement(
            seconds=answered.seconds,
            phases={
                name: answered.log[f"{name}_ms"] / 1000
                for name in PHASES
                if f"{name}_ms" in answered.log
            },
            read_bytes=answered.log["store_read_bytes"],
            written_bytes=answered.log["store_written_bytes"],
        )

    def _next_image(self) -> bytes:
        self._frame += 1
        return self._clip.image(self._frame)


class InProcessRunner:
    """(b) Our tracker in this process, with the embedded store."""

    def __init__(self, tracker: Tracker, clip: EncodedClip) -> None:
        self._tracker = tracker
        self._clip = clip.another_take()
        self._tokens: list[Token] = []
        self._frame = 0

    def start(self) -> None:
        seeds = tuple(Seed(type="mask", points=bitmap_to_mask(mask)) for mask in self._clip.masks)
        self._track(seeds, Stopwatch())
        ids = fill_store(
            self._tracker._store,
            self._tracker._model.layout,
            [token.id for token in self._tokens],
            FILLED,
        )
        self._tokens = [Token(id=id_) for id_ in ids]

    def step(self) -> Measurement:
        watch = Stopwatch()
        begin = time.perf_counter()
        self._track(tuple(self._tokens), watch)
        seconds = time.perf_counter() - begin
        return Measurement(
            seconds=seconds,
            phases=dict(watch.phases),
            read_bytes=watch.traffic.read_bytes,
            written_bytes=watch.traffic.written_bytes,
        )

    def _track(self, entries: tuple[Seed | Token, ...], watch: Stopwatch) -> None:
        self._frame += 1
        request = TrackRequest(image=self._clip.image(self._frame), entries=entries)
        answers: list[Answer] = self._tracker.track(request, watch)
        tokens = [answer.token for answer in answers if answer.token is not None]
        if len(tokens) != len(entries):
            raise RuntimeError(f"An object failed: {answers}")
        self._tokens = tokens


class OfficialRunner:
    """(c) `SAM2VideoPredictor`, one call of propagate_in_video for every frame.

    Its frames are decoded when they are asked for, as its own loader decodes them, so that this is
    part of the time of a frame here too.
    """

    def __init__(self, predictor: SAM2VideoPredictor, clip: EncodedClip, precision: str) -> None:
        self._predictor = predictor
        self._clip = clip
        self._precision = precision
        self._state: dict[str, Any] = {}
        self._frame = 0

    def start(self) -> None:
        self.begin()
        self.masks()
        for outputs in self._state["output_dict_per_obj"].values():
            kept = outputs["non_cond_frame_outputs"]
            for index in range(self._frame + 1, FILLED):
                kept[index] = _copy(kept[self._frame])
        self._frame = FILLED - 1

    def begin(self) -> None:
        """Starts the objects, and fills nothing."""
        frames = LazyFrames(self._clip, self._predictor)
        loaded = (frames, self._clip.height, self._clip.width)
        module = sam2.sam2_video_predictor
        with (
            mock.patch.object(module, "load_video_frames", return_value=loaded),
            autocast(self._predictor.device, self._precision),
        ):
            self._state = self._predictor.init_state("")
            for number, mask in enumerate(self._clip.masks):
                self._predictor.add_new_mask(self._state, 0, number, mask)

    def step(self) -> Measurement:
        synchronise(self._predictor.device)
        begin = time.perf_counter()
        self.masks()
        synchronise(self._predictor.device)
        return Measurement(seconds=time.perf_counter() - begin)

    def masks(self) -> list[Bitmap]:
        """Tracks one frame further; one bool mask (height, width) for each object."""
        self._frame += 1
        with (
            mock.patch.object(sam2.sam2_video_predictor, "tqdm", lambda frames, **_: frames),
            autocast(self._predictor.device, self._precision),
        ):
            ((_, _, logits),) = self._predictor.propagate_in_video(
                self._state, start_frame_idx=self._frame, max_frame_num_to_track=0
            )
        return list((logits[:, 0] > 0).cpu().numpy())


class AgentRunner:
    """(d) The way of CVAT's agent function."""

    def __init__(self, predictor: SAM2VideoPredictor, clip: EncodedClip, precision: str) -> None:
        self._predictor = predictor
        self._agent = AgentTracker(predictor)
        self._clip = clip
        self._precision = precision
        self._states: list[Any] = []
        self._frame = 0

    def start(self) -> None:
        self.begin()
        self.masks()
        for state in self._states:
            kept = state.outputs["non_cond_frame_outputs"]
            newest = kept.pop(state.frame_index)
            state.frame_index = FILLED - 1
            for index in range(FILLED - self._predictor.num_maskmem, FILLED):
                kept[index] = _copy(newest)

    def begin(self) -> None:
        """Starts the objects, and fills nothing."""
        with autocast(self._predictor.device, self._precision):
            frame = self._agent.encode(_decode(self._clip.image(0)))
            self._states = [self._agent.start(frame, mask) for mask in self._clip.masks]

    def step(self) -> Measurement:
        synchronise(self._predictor.device)
        begin = time.perf_counter()
        for bitmap in self.masks():
            if bitmap is not None:
                bitmap_to_mask(bitmap)
        synchronise(self._predictor.device)
        return Measurement(seconds=time.perf_counter() - begin)

    def masks(self) -> list[Bitmap | None]:
        self._frame += 1
        with autocast(self._predictor.device, self._precision):
            frame = self._agent.encode(_decode(self._clip.image(self._frame)))
            return [
                self._agent.track(frame, state, width=self._clip.width, height=self._clip.height)
                for state in self._states
            ]


class LazyFrames:
    """A clip as `load_video_frames` gives it, except that a frame is decoded when it is used."""

    def __init__(self, clip: EncodedClip, predictor: SAM2VideoPredictor) -> None:
        self._clip = clip
        self._size = predictor.image_size
        self._mean = torch.tensor(IMAGE_MEAN)[:, None, None]
        self._std = torch.tensor(IMAGE_STD)[:, None, None]

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, index: int) -> Tensor:
        image, _, _ = sam2.utils.misc._load_img_as_tensor(
            io.BytesIO(self._clip.image(index)), self._size
        )
        normalised: Tensor = (image.float() - self._mean) / self._std
        return normalised


def fill_store(store: StateStore, layout: MemoryLayout, ids: list[str], steps: int) -> list[str]:
    """Advances stored tracks by copies of their newest memory, as if they had been tracked."""
    for _ in range(steps):
        states: list[TrackState] = []
        for state in store.load(ids):
            if isinstance(state, StateGone):
                raise RuntimeError("A track that was just saved is gone.")
            states.append(replace(state, bank=seen_again(state.bank, layout)))
        ids = store.save(states)
    return ids


@contextlib.contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        yield


def mean_iou(ones: Sequence[Bitmap | None], others: Sequence[Bitmap | None]) -> float:
    """Over pairs of masks, bool (height, width); None: an empty one. Two empty ones are equal."""
    empty = np.zeros((1, 1), np.bool_)
    return statistics.fmean(
        jaccard(empty if one is None else one, empty if other is None else other)
        for one, other in zip(ones, others, strict=True)
    )


def _decode(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def _copy(value: Any) -> Any:
    """One frame's output with tensors of its own."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, list):
        return [_copy(item) for item in value]
    if isinstance(value, dict):
        return {name: _copy(item) for name, item in value.items()}
    return value
