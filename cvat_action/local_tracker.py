# SPDX-License-Identifier: MIT
"""The function's own tracker in this process, without JSON and HTTP between.

The only place of the command line that knows the tracker itself (tracker.py).
"""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cvat_action.calls import Answer, CallFailed, Cure
from cvat_action.detections import Detection, Reader
from cvat_action.detectors import tell_left_out, tell_message
from cvat_action.errors import ActionError
from cvat_action.job import Job
from cvat_action.media import Media, on_frame
from interactor import Interactor
from sam2_tracker.errors import (
    AllObjectsFailed,
    BadRequest,
    ConfigurationError,
    OutOfMemory,
    RequestError,
    StoreUnavailable,
    TooLarge,
)
from sam2_tracker.everything import Everything
from sam2_tracker.protocol import Adoption, Entry, Lent, Token, TrackRequest
from sam2_tracker.protocol import Correction as EntryCorrection
from sam2_tracker.protocol import Seed as StartSeed
from sam2_tracker.settings import settings_from_environment, with_model
from tracker import Tracker, build_tracker

logger = logging.getLogger(__name__)

Load = Callable[[], Tracker]
"""gives the tracker, which it loads the first time"""

LONGEST_SECONDS = 3600.0
"""for all objects of a frame"""
MICRO_MODEL = "sam2.1_hiera_micro"


def _seed(shape: dict[str, Any]) -> StartSeed:
    return StartSeed(
        type=shape["type"],
        points=shape["points"],
        policy=shape.get("memory"),
        tolerance=shape.get("tolerance"),
        negative=shape.get("neg_points", []),
        answer=shape.get("answer"),
        search_region=shape.get("search_region"),
    )


class LocalEverything:
    """The `Finder` of all objects of a frame."""

    name = "everything"

    def __init__(
        self, tracker: Tracker, media: Media, job: Job, label_id: int, wanted: Everything
    ) -> None:
        # Nobody else waits for this process.
        settings = replace(tracker.settings, time_budget_seconds=LONGEST_SECONDS)
        self._interactor = Interactor(tracker.model, settings)
        self._media, self._job = media, job
        self._label_id, self._wanted = label_id, wanted

    def find(self, frame: int) -> list[Detection]:
        """Raises ActionError."""
        try:
            found, message = self._interactor.find_all(self._media.encoded(frame), self._wanted)
        except RequestError as failure:
            raise ActionError(on_frame(self._media, frame, failure.message)) from failure
        reader = Reader(self._job, frame)
        masks = [
            reader.shape(self._label_id, "mask", each.mask, each.confidence)
            for each in found
            if each.mask
        ]
        tell_left_out(reader, frame, self.name)
        tell_message(frame, self.name, message)
        return [each for each in masks if each]


class LocalTracker:
    """The `Tracker` of the frame loop on the tracker itself, without JSON and HTTP between."""

    joins = True

    def __init__(self, tracker: Tracker, media: Media) -> None:
        self._tracker = tracker
        self._media = media

    def start(self, frame: int, shapes: list[dict[str, Any]]) -> Answer:
        return self._track(frame, tuple(_seed(shape) for shape in shapes))

    def step(self, frame: int, states: list[Any]) -> Answer:
        return self._track(frame, tuple(Token(id=state) for state in states))

    def correct(self, frame: int, shapes: list[dict[str, Any]], states: list[Any]) -> Answer:
        return self._track(
            frame,
            tuple(
                EntryCorrection(token=Token(id=state), seed=_seed(shape), distance=1)
                for shape, state in zip(shapes, states, strict=True)
            ),
        )

    def adopt(
        self, frame: int, shape_type: str, state: Any, others: list[tuple[Any, int]]
    ) -> Answer:
        keyframes = tuple((n, distance) for n, (_, distance) in enumerate(others, 1))
        lent = (Lent(token=Token(id=each)) for each, _ in others)
        whole = self._track(frame, (Adoption(token=Token(id=state), keyframes=keyframes), *lent))
        return Answer(whole.shapes[:1], whole.states[:1], whole.scores[:1], whole.errors[:1])

    def _track(self, frame: int, entries: tuple[Entry, ...]) -> Answer:
        request = TrackRequest(image=self._media.encoded(frame), entries=entries)
        try:
            answers = self._tracker.track(request)
        except AllObjectsFailed as failure:
            fault = {"code": failure.code, "message": failure.message}
            none: list[Any] = [None] * len(entries)
            return Answer(none, none, none, [fault] * len(entries))
        except RequestError as failure:
            said = failure.message
            if isinstance(failure, BadRequest):  # which only the picture can be here
                said = on_frame(self._media, frame, said)
            raise CallFailed(_cure(failure), said) from failure
        return Answer(
            shapes=[
                a.shape
                and {"type": a.shape.type, "points": a.shape.points, "outside": a.shape.outside}
                for a in answers
            ],
            states=[a.token and a.token.id for a in answers],
            scores=[a.score for a in answers],
            errors=[
                {"code": a.error.code, "message": a.error.message} if a.error else None
                for a in answers
            ],
        )


def load_tracker(model: str | None) -> Tracker:
    environment = with_model(os.environ, model) if model else dict(os.environ)
    if not environment.get("SAM2_MODEL") and not environment.get("SAM2_CONFIG"):
        environment["SAM2_MODEL"] = MICRO_MODEL
        logger.warning(
            "No --model and no SAM2_MODEL: running the bundled micro model, which is for trying."
        )
    logging.getLogger("sam2").setLevel(logging.WARNING)
    try:
        return build_tracker(settings_from_environment(environment))
    except ConfigurationError as error:
        raise ActionError(error.message) from error


def _cure(failure: RequestError) -> Cure:
    if isinstance(failure, TooLarge):
        return Cure.FEWER_FOR_GOOD
    if isinstance(failure, OutOfMemory):
        return Cure.FEWER
    if isinstance(failure, StoreUnavailable):
        return Cure.REPEAT
    return Cure.NONE
