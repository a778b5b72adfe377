# SPDX-License-Identifier: MIT
"""The frame loop: which objects are sent with which call, and what is done when a call fails.

It knows neither CVAT nor the tracker, only a `Tracker` that starts objects on a frame and takes
them on to another. What is written of its results is decided in results.py.
"""

import enum
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cvat_action.errors import ActionError
from cvat_action.geometry import points_fault, points_in_image
from cvat_action.job import Job
from cvat_action.selection import Correction, Seed

logger = logging.getLogger(__name__)

Fault = dict[str, str]
"""`{"code": …, "message": …}`, an entry of the answer's `errors` (design section 6)"""


@dataclass(frozen=True)
class Answer:
    """One call's answer; the lists are as long as the call's objects (contract section 4)."""

    shapes: list[Any]
    states: list[Any]
    """None: the object is not tracked on"""
    scores: list[float | None]
    errors: list[Fault | None]


class Tracker(Protocol):
    def start(self, frame: int, shapes: list[dict[str, Any]]) -> Answer: ...

    def step(self, frame: int, states: list[Any]) -> Answer: ...


class Cure(enum.Enum):
    """What helps after a call that failed as a whole (contract section 5.2)."""

    REPEAT = "repeat with back-off"
    FEWER = "send fewer objects, for now"
    FEWER_FOR_GOOD = "send fewer objects from now on"
    START_AGAIN = "start the objects again from their last good results"
    NONE = "nothing"


class CallFailed(Exception):
    """A call failed; the message says why and what to do, for the person at the terminal."""

    def __init__(self, cure: Cure, message: str) -> None:
        super().__init__(message)
        self.cure = cure


@dataclass(frozen=True)
class Pace:
    """How long calls may take and how often one is repeated."""

    seconds_per_call: float = 25.0
    """objects are split over several calls when one nears this"""
    objects_per_call: int = 1_000_000
    repeats: int = 5
    first_wait: float = 1.0
    """seconds before the first repetition; doubles each time"""


@dataclass(frozen=True)
class Tracked:
    """An object on one tracked frame."""

    points: tuple[float, ...] | None
    """None: not visible"""
    score: float | None = None
    by_hand: bool = False
    """drawn by a person (a correction): nothing is written here"""


@dataclass
class TrackedObject:
    """One seed and what became of it."""

    seed: Seed
    frames: dict[int, Tracked] = field(default_factory=dict)
    stopped: str | None = None
    """why it was not tracked to the end"""
    state: Any = None
    asleep: bool = False
    last_good: tuple[int, tuple[float, ...]] = (0, ())
    """frame and points to start again from"""

    def __post_init__(self) -> None:
        self.last_good = (self.seed.frame, self.seed.points)
        self.asleep = self.seed.asleep

    @property
    def live(self) -> bool:
        return self.stopped is None


@dataclass(frozen=True)
class Run:
    objects: tuple[TrackedObject, ...]
    done: tuple[int, ...]
    """frames that are tracked, in the order of tracking"""
    broken: str | None = None
    """why the run ended before its last frame"""
    interrupted: bool = False


Answered = tuple[TrackedObject, tuple[Any, Any, float | None, Fault | None]]
"""an object with its shape, state, score and error"""


@dataclass(frozen=True)
class Corrected:
    """What a person says of an object on the frame that was just tracked."""

    index: int
    points: tuple[float, ...] | None
    """None: not visible"""


class StopTracking(Exception):  # noqa: N818 (not an error)
    """Raised by `on_frame` where a person wants no more frames, with what is corrected here."""

    def __init__(self, corrected: Sequence[Corrected] = ()) -> None:
        super().__init__()
        self.corrected = corrected


OnFrame = Callable[[int, Sequence[TrackedObject]], Sequence[Corrected] | None]
"""called after every frame; what it returns is put in the place of the results"""


def track(
    tracker: Tracker,
    job: Job,
    seeds: Sequence[Seed],
    frames: Sequence[int],
    *,
    pace: Pace | None = None,
    on_frame: OnFrame | None = None,
) -> Run:
    """Tracks `seeds` over `frames`, in that order.

    Whatever goes wrong, and on Ctrl+C, the frames that are done come back: a frame counts as done
    when every object has its result on it.
    """
    loop = _Loop(tracker, job, [TrackedObject(s) for s in seeds], pace or Pace())
    done: list[int] = []
    broken, interrupted = None, False
    try:
        loop.start([o for o in loop.objects if not o.asleep])
        for frame in frames:
            loop.check_size(frame)
            results = loop.track_frame(frame) if any(o.live for o in loop.objects) else {}
            if not results and not any(o.live for o in loop.objects):
                broken = "No object is left to track."
                break
            for index, result in results.items():
                loop.objects[index].frames[frame] = result
            done.append(frame)
            if on_frame:
                try:
                    corrected = on_frame(frame, loop.objects)
                except ActionError:  # it is not on record, so it counts as not done
                    done.pop()
                    for o in loop.objects:
                        o.frames.pop(frame, None)
                    raise
                loop.correct(frame, corrected or ())
    except StopTracking as stop:
        loop.correct(done[-1], stop.corrected, start=False)
    except (CallFailed, ActionError) as failure:
        broken = str(failure)
    except KeyboardInterrupt:
        broken, interrupted = "Stopped by Ctrl+C.", True
    return Run(tuple(loop.objects), tuple(done), broken, interrupted)


class _Loop:
    def __init__(
        self, tracker: Tracker, job: Job, objects: list[TrackedObject], pace: Pace
    ) -> None:
        self.objects = objects
        self._tracker = tracker
        self._job = job
        self._pace = pace
        self._limit = max(1, pace.objects_per_call)
        self._per_call = self._limit

    def check_size(self, frame: int) -> None:
        for o in self.objects:
            size, expected = self._job.size(frame), self._job.size(o.seed.frame)
            if size != expected:
                raise CallFailed(
                    Cure.NONE,
                    f"Frame {frame} is {size[0]}x{size[1]}, the frames before it "
                    f"{expected[0]}x{expected[1]}; a track cannot go on over that. Start again on "
                    f"frame {frame}.",
                )

    def start(self, objects: Sequence[TrackedObject]) -> None:
        """Starts objects from their last good results; those that cannot be started are stopped."""
        by_frame: dict[int, list[TrackedObject]] = {}
        for o in objects:
            by_frame.setdefault(o.last_good[0], []).append(o)
        for frame, together in by_frame.items():
            for o, (_, state, _, fault) in self._call(together, self._start_on(frame)):
                o.state = state
                if fault or state is None:
                    why = fault["message"] if fault else "the function gave no state for it"
                    self._stop(o, f"not started on frame {frame}: {why}")

    def _start_on(self, frame: int) -> Callable[[list[TrackedObject]], Answer]:
        return lambda chunk: self._tracker.start(
            frame, [{"type": o.seed.type, "points": list(o.last_good[1])} for o in chunk]
        )

    def track_frame(self, frame: int) -> dict[int, Tracked]:
        """The results of one frame by the objects' indexes; an object without one is missing."""
        results: dict[int, Tracked] = {}
        corrected: list[TrackedObject] = []
        to_step: list[TrackedObject] = []
        index_of = {id(o): i for i, o in enumerate(self.objects)}
        for o in self.objects:
            correction = _correction_on(o.seed, frame)
            if correction and o.live:
                results[index_of[id(o)]] = Tracked(correction.points, by_hand=True)
                o.asleep = correction.points is None
                if correction.points is not None:
                    o.last_good = (frame, correction.points)
                    corrected.append(o)
            elif o.live and not o.asleep:
                to_step.append(o)
        failed = self._step(frame, to_step, results, index_of)
        if failed:
            self.start(failed)
            again = [o for o in failed if o.live]
            for o in self._step(frame, again, results, index_of):
                self._stop(o, f"lost its state twice on frame {frame}")
        self.start(corrected)
        return results

    def correct(self, frame: int, corrected: Sequence[Corrected], *, start: bool = True) -> None:
        """Puts corrections in the place of results, and starts the objects again from them."""
        again = []
        for c in corrected:
            o = self.objects[c.index]
            o.frames[frame] = Tracked(c.points)
            if c.points is not None:
                o.last_good = (frame, c.points)
                o.stopped, o.asleep = None, False
                again.append(o)
            else:
                o.asleep = True
        if start:
            self.start(again)

    def _step(
        self,
        frame: int,
        objects: list[TrackedObject],
        results: dict[int, Tracked],
        index_of: dict[int, int],
    ) -> list[TrackedObject]:
        """Takes objects on to `frame`; those that have to be started again come back."""
        lost_states: list[TrackedObject] = []
        answers = self._call(
            objects,
            lambda chunk: self._tracker.step(frame, [o.state for o in chunk]),
            lost_states,
        )
        width, height = self._job.size(frame)
        for o, (shape, state, score, fault) in answers:
            if shape is None and (fault or state is None):
                code = fault["code"] if fault else "no_state"
                message = (
                    fault["message"] if fault else "the function answered neither shape nor state"
                )
                if code == "size_changed":
                    raise CallFailed(Cure.NONE, f"Frame {frame}: {message}")
                logger.warning("Frame %d, object %s: %s", frame, o.seed.ref, message)
                lost_states.append(o)
                continue
            result, wrong = _shape_to_tracked(shape, o.seed.type, width, height, score)
            if result is None:
                self._stop(o, f"the function answered {wrong} on frame {frame}")
                continue
            o.state = state
            if state is None:
                self._stop(o, f"the function ended it on frame {frame}")
            results[index_of[id(o)]] = result
            if result.points is not None:
                o.last_good = (frame, result.points)
        return lost_states

    def _call(
        self,
        objects: Sequence[TrackedObject],
        call: Callable[[list[TrackedObject]], Answer],
        lost_states: list[TrackedObject] | None = None,
    ) -> list[Answered]:
        """Calls for all objects, in as many calls as it takes; one entry per answered object.

        Objects whose states are void as a whole (410, expired) go to `lost_states`.
        """
        answered: list[Answered] = []
        waiting = deque(objects)
        repeats = 0
        while waiting:
            chunk = [waiting.popleft() for _ in range(min(self._per_call, len(waiting)))]
            began = time.monotonic()
            try:
                answer = call(chunk)
            except CallFailed as failure:
                waiting.extendleft(reversed(chunk))
                fewer = failure.cure in (Cure.FEWER, Cure.FEWER_FOR_GOOD)
                if fewer and len(chunk) > 1:
                    self._send_fewer(len(chunk) // 2, failure)
                elif failure.cure is Cure.FEWER_FOR_GOOD:
                    self._stop(waiting.popleft(), str(failure))
                elif failure.cure is Cure.START_AGAIN and lost_states is not None:
                    logger.warning("%s They are started again.", failure)
                    for _ in chunk:
                        lost_states.append(waiting.popleft())
                elif failure.cure in (Cure.REPEAT, Cure.FEWER) and repeats < self._pace.repeats:
                    pause = self._pace.first_wait * 2**repeats
                    repeats += 1
                    logger.warning(
                        "%s Trying again in %.3g s (%d of %d).",
                        failure,
                        pause,
                        repeats,
                        self._pace.repeats,
                    )
                    time.sleep(pause)
                else:
                    raise
                continue
            repeats = 0
            self._adapt(len(chunk), time.monotonic() - began)
            answered += zip(
                chunk,
                zip(answer.shapes, answer.states, answer.scores, answer.errors, strict=True),
                strict=True,
            )
        return answered

    def _send_fewer(self, count: int, failure: CallFailed) -> None:
        self._per_call = count
        if failure.cure is Cure.FEWER_FOR_GOOD:
            self._limit = count
        logger.warning("%s Going on with %d objects per call.", failure, count)

    def _adapt(self, count: int, seconds: float) -> None:
        """Fewer objects per call where one took too long; more again where there is much room.

        Halving brings a call to half its time at best, so growing below a quarter cannot flap.
        """
        if seconds > 0.8 * self._pace.seconds_per_call and count > 1:
            self._per_call = count // 2
            logger.warning(
                "A call with %d objects took %.0f s; going on with %d objects per call.",
                count,
                seconds,
                self._per_call,
            )
        elif seconds < 0.25 * self._pace.seconds_per_call and count >= self._per_call:
            self._per_call = min(self._per_call * 2, self._limit)

    def _stop(self, o: TrackedObject, reason: str) -> None:
        o.stopped = reason
        logger.warning("Object %s: %s", o.seed.ref, reason)


def _correction_on(seed: Seed, frame: int) -> Correction | None:
    return next((c for c in seed.corrections if c.frame == frame), None)


def _shape_to_tracked(
    shape: Any, kind: str, width: int, height: int, score: float | None
) -> tuple[Tracked | None, str]:
    """A shape of an answer, or None with what is wrong with it."""
    if shape is None:
        return Tracked(None, score), ""
    if not isinstance(shape, dict) or shape.get("type") != kind:
        found = shape.get("type") if isinstance(shape, dict) else type(shape).__name__
        return None, f"a {found} for a {kind}"
    if shape.get("outside") is True:
        return Tracked(None, score), ""
    wrong = points_fault(kind, shape.get("points"), width, height)
    if wrong:
        return None, wrong
    return Tracked(tuple(points_in_image(kind, shape["points"], width, height)), score), ""
