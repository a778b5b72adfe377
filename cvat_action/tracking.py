# SPDX-License-Identifier: MIT
"""The frame loop: which objects are sent with which call, and what is done when a call fails.

It knows neither CVAT nor the tracker, only a `Tracker` that starts objects on a frame and takes
them on to another. What is written of its results is decided in results.py.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cvat_action.calls import (
    Answer,
    CallFailed,
    Calls,
    Cure,
    Fault,
    Pace,
    Refused,
    Tracker,
    all_refused,
)
from cvat_action.errors import ActionError
from cvat_action.geometry import (
    SAME_OBJECT,
    bounding_box,
    boxes_iou,
    points_fault,
    points_in_image,
    size_fault,
)
from cvat_action.job import Job
from cvat_action.polygons import aligned_points
from cvat_action.seeds import Correction
from cvat_action.tracked import Tracked, TrackedObject, compact, shape_to_start_from

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    objects: tuple[TrackedObject, ...]
    done: tuple[int, ...]
    """frames that are tracked, in the order of tracking"""
    broken: str | None = None
    """why the run ended before its last frame"""
    interrupted: bool = False
    resumable: bool = True
    """False: going on would fail in the same way"""
    one_way: int = 0
    """frames that `--both-ways` tracked in one direction, and kept"""


@dataclass(frozen=True)
class StepCorrection:
    """What a person says of an object on the frame that was just tracked."""

    index: int
    points: Sequence[float] | None
    """None: not visible"""


class StopTracking(Exception):  # noqa: N818 (not an error)
    """Raised by `on_frame` where a person wants no more frames, with what is corrected here."""

    def __init__(self, corrected: Sequence[StepCorrection] = ()) -> None:
        super().__init__()
        self.corrected = corrected


class NotOnRecord(ActionError):
    """A frame could not be recorded, so it does not count as done."""


OnFrame = Callable[[int, Sequence[TrackedObject]], Sequence[StepCorrection] | None]
"""called after every frame; what it returns is put in the place of the results"""

Enter = Callable[[int, Sequence[TrackedObject]], list[TrackedObject]]
"""called after every frame; the objects that it returns begin there and are tracked on"""


def track(
    tracker: Tracker,
    job: Job,
    objects: list[TrackedObject],
    frames: Sequence[int],
    *,
    pace: Pace | None = None,
    on_frame: OnFrame | None = None,
    enter: Enter | None = None,
    keep: Callable[[int], None] = lambda frame: None,
) -> Run:
    """Tracks `objects` over `frames`, in that order.

    An object that has a state goes on with it; the others are started from their last good results.
    Objects that enter on the way are appended to `objects`.
    After a fault and after Ctrl+C the frames that are done come back: a frame counts as done
    when every object has its result on it. `keep` is called with every frame that is done; what it
    raises, other than NotOnRecord and KeyboardInterrupt, comes out.
    """
    loop = Loop(tracker, job, objects, pace or Pace())
    done: list[int] = []
    broken, interrupted, resumable = None, False, True
    try:
        loop.start([o for o in objects if loop.follows(o) and not o.asleep and o.state is None])
        for frame in frames:
            loop.check_size(frame)
            results = loop.track_frame(frame) if any(o.live for o in objects) else {}
            if not (enter or results or any(o.live or o.settled for o in objects)):
                broken, resumable = "No object is left to track.", False
                break
            for index, result in results.items():
                objects[index].frames[frame] = result
            stop = False
            try:
                corrected = on_frame(frame, objects) if on_frame else None
            except StopTracking as stopped:
                corrected, stop = stopped.corrected, True
            loop.correct(frame, corrected or (), start=not stop)
            before = len(objects)
            if enter and not stop:
                loop.add(enter(frame, objects))
            done.append(frame)
            try:
                keep(frame)
            except NotOnRecord:
                done.pop()
                loop.take_back(frame, before)
                raise
            except ActionError as error:
                raise _FromKeep(error) from error
            if stop:
                break
    except _FromKeep as error:
        raise error.error from None
    except (CallFailed, ActionError) as failure:
        broken = str(failure)
        resumable = getattr(failure, "resumable", True)
    except KeyboardInterrupt:
        broken, interrupted = "Stopped by Ctrl+C.", True
    return Run(tuple(objects), tuple(done), broken, interrupted, resumable)


class _FromKeep(Exception):  # noqa: N818 (it carries an error)
    def __init__(self, error: ActionError) -> None:
        super().__init__(str(error))
        self.error = error


class Loop:
    """The objects of one run on their way from frame to frame."""

    def __init__(
        self,
        tracker: Tracker,
        job: Job,
        objects: list[TrackedObject],
        pace: Pace,
    ) -> None:
        self.objects = objects
        self._tracker = tracker
        self._job = job
        self._calls = Calls(pace)

    def add(self, entered: list[TrackedObject]) -> None:
        self.start(entered)
        self.objects += entered

    def take_back(self, frame: int, count: int) -> None:
        """Forgets a frame, and all objects but the first `count`, which began on it."""
        del self.objects[count:]
        for o in self.objects:
            o.frames.pop(frame, None)

    @staticmethod
    def follows(o: TrackedObject) -> bool:
        return o.live and not o.settled

    def check_size(self, frame: int) -> None:
        for o in self.objects:
            size, expected = self._job.size(frame), self._job.size(o.seed.frame)
            if size != expected and o.live and not o.asleep:
                raise CallFailed(
                    Cure.NONE,
                    f"Frame {frame} is {size[0]}x{size[1]}, the frames before it "
                    f"{expected[0]}x{expected[1]}; a track cannot go on over that. Draw the "
                    f"objects on frame {frame} and track on from there with --frame {frame}.",
                    resumable=False,
                )

    def start(self, objects: Sequence[TrackedObject]) -> None:
        """Starts objects from their last good results; those that cannot be started are stopped.

        Raises CallFailed where all of a frame are refused, and nothing says that its picture is
        not the reason.
        """
        by_frame: dict[int, list[TrackedObject]] = {}
        for o in objects:
            by_frame.setdefault(o.last_good[0], []).append(o)
        for frame, together in by_frame.items():
            refused: list[Refused] = []
            start = self._start_on(frame)
            for o, (_, state, _, fault) in self._calls.ask(frame, together, start, refused=refused):
                o.state, o.state_before = state, None
                if fault or state is None:
                    why = fault["message"] if fault else "the function gave no state for it"
                    o.stop(f"not started on frame {frame}: {why}")
            others = {id(o) for o in self.objects if self.follows(o)} - {id(o) for o in together}
            if refused and self._calls.answered_on != frame and not others:
                raise all_refused(frame, refused)
            for o, why in refused:
                o.stop(f"not started on frame {frame}: {why}")

    def _join(self, frame: int, objects: Sequence[TrackedObject]) -> None:
        """Adds what was drawn on `frame` to what is known of the objects.

        What the function cannot join is started anew from what was drawn.
        """
        known = [o for o in objects if self._tracker.joins and o.state_before is not None]
        anew = [o for o in objects if o not in known]

        def call(chunk: list[TrackedObject]) -> Answer:
            shapes = [shape_to_start_from(o) for o in chunk]
            return self._tracker.correct(frame, shapes, [o.state_before for o in chunk])

        refused: list[Refused] = []
        for o, (_, state, _, fault) in self._calls.ask(frame, known, call, anew, refused):
            if fault or state is None:
                refused.append((o, _why(fault)))
            else:
                o.state, o.state_before = state, None
        for o, why in refused:
            logger.warning(
                "Frame %d, object %s: its correction starts it anew. %s", frame, o.seed.ref, why
            )
        self.start([*anew, *(o for o, _ in refused)])

    def outlines(
        self, frame: int, objects: Sequence[TrackedObject], prompts: Sequence[dict[str, Any]]
    ) -> list[tuple[Tracked | None, str]]:
        """What the tracker finds on a frame: the outline of each object, or None and why.

        objects: only their types count, in which they are answered. prompts: a shape of a request
        for each (docs/request.md).
        """
        prompt_of = {id(o): prompt for o, prompt in zip(objects, prompts, strict=True)}

        def call(chunk: list[TrackedObject]) -> Answer:
            asked = [{**prompt_of[id(o)], "answer": o.seed.type} for o in chunk]
            return self._tracker.start(frame, asked)

        found: dict[int, tuple[Tracked | None, str]] = {}
        width, height = self._job.size(frame)
        refused: list[Refused] = []
        for o, (shape, _, score, fault) in self._calls.ask(frame, objects, call, refused=refused):
            outline, wrong = _shape_to_tracked(shape, o.seed.type, width, height, score)
            if outline and outline.points is not None:
                found[id(o)] = outline, ""
            else:
                why = fault["message"] if fault else wrong or "the tracker sees nothing there"
                found[id(o)] = None, why.rstrip(".")
        found |= {id(o): (None, why.rstrip(".")) for o, why in refused}
        return [found[id(o)] for o in objects]

    def adopt(self, o: TrackedObject, others: Sequence[tuple[TrackedObject, int]]) -> None:
        """Lets an object stand on the drawings of others, each some steps ahead or behind."""
        states = [(other.state, distance) for other, distance in others]

        def call(chunk: list[TrackedObject]) -> Answer:
            return self._tracker.adopt(o.seed.frame, o.seed.type, chunk[0].state, states)

        refused: list[Refused] = []
        for each, (_, state, _, fault) in self._calls.ask(o.seed.frame, [o], call, [], refused):
            if fault or state is None:
                refused.append((o, _why(fault)))
            else:
                each.state = state
        for _, why in refused:
            logger.warning(
                "Frame %d, object %s: the drawings on other frames do not count. %s",
                o.seed.frame,
                o.seed.ref,
                why,
            )

    def _start_on(self, frame: int) -> Callable[[list[TrackedObject]], Answer]:
        return lambda chunk: self._tracker.start(frame, [shape_to_start_from(o) for o in chunk])

    def track_frame(self, frame: int) -> dict[int, Tracked]:
        """The results of one frame by the objects' indexes; an object without one is missing."""
        results: dict[int, Tracked] = {}
        corrected: list[TrackedObject] = []
        to_step: list[TrackedObject] = []
        index_of = {id(o): i for i, o in enumerate(self.objects)}
        for o in self.objects:
            correction = o.corrections.get(frame)
            if not self.follows(o):
                continue
            if correction and correction.sure:
                results[index_of[id(o)]] = Tracked(correction.points, by_hand=True)
                alone = o.asleep or frame in o.seed.relabelled
                o.state_before = None if alone else o.state
                o.asleep, o.hidden = correction.points is None, False
                if correction.points is not None:
                    o.last_good = (frame, correction.points)
                    corrected.append(o)
            elif o.hidden:
                results[index_of[id(o)]] = Tracked(None)
            elif not o.asleep:
                to_step.append(o)
        failed = self._step(frame, to_step, results, index_of)
        if failed:
            self.start(failed)
            again = [o for o in failed if o.live]
            for o in self._step(frame, again, results, index_of):
                o.stop(f"lost its state twice on frame {frame}")
        for o in to_step:
            correction = o.corrections.get(frame)
            result = results.get(index_of[id(o)])
            if correction and correction.points is not None and o.live:
                if result and self._is_drawn_there(o, result, correction):
                    results[index_of[id(o)]] = Tracked(correction.points, by_hand=True)
                    o.last_good = (frame, correction.points)
                    corrected.append(o)
                else:
                    logger.warning(
                        "Frame %d: what is drawn there may be object %s or another one, so it does "
                        "not count as its correction. Give the object a group of its own in CVAT; "
                        "COCO knows no groups: use CVAT for video.",
                        frame,
                        o.seed.ref,
                    )
        self._join(frame, corrected)
        return results

    def _is_drawn_there(self, o: TrackedObject, result: Tracked, drawn: Correction) -> bool:
        if result.points is None or drawn.points is None:
            return False
        boxes = [bounding_box(o.seed.type, points) for points in (result.points, drawn.points)]
        return bool(boxes_iou(boxes[:1], boxes[1:])[0, 0] >= SAME_OBJECT)

    def correct(
        self, frame: int, corrected: Sequence[StepCorrection], *, start: bool = True
    ) -> None:
        """Puts corrections in the place of results; from there on they count."""
        again = []
        for c in corrected:
            o = self.objects[c.index]
            o.frames[frame] = Tracked(c.points, drawn_in_run=True)
            if c.points is not None:
                o.last_good = (frame, c.points)
                if o.asleep:  # its state is of the frame before it was hidden
                    o.state_before = None
                o.stopped, o.asleep, o.hidden = None, False, False
                again.append(o)
            else:
                o.asleep = o.hidden = True
        if start:
            self._join(frame, again)

    def _step(
        self,
        frame: int,
        objects: list[TrackedObject],
        results: dict[int, Tracked],
        index_of: dict[int, int],
    ) -> list[TrackedObject]:
        """Takes objects on to `frame`; those that have to be started again come back."""
        lost_states: list[TrackedObject] = []
        answers = self._calls.ask(
            frame,
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
                    raise CallFailed(Cure.NONE, f"Frame {frame}: {message}", resumable=False)
                logger.warning("Frame %d, object %s: %s", frame, o.seed.ref, message)
                lost_states.append(o)
                continue
            result, wrong = _shape_to_tracked(shape, o.seed.type, width, height, score)
            if result is None:
                o.stop(f"the function answered {wrong} on frame {frame}")
                continue
            o.state_before, o.state = o.state, state
            if state is None:
                o.stop(f"the function ended it on frame {frame}")
            result = _begun_like(o, result)
            results[index_of[id(o)]] = result
            if result.points is not None:
                o.last_good = (frame, result.points)
        return lost_states


def _why(fault: Fault | None) -> str:
    return fault["message"] if fault else "The function gave no state for it."


def _begun_like(o: TrackedObject, result: Tracked) -> Tracked:
    """The result with its polygon begun and directed like the object's last one."""
    if o.seed.type != "polygon" or result.points is None:
        return result
    points = aligned_points(result.points, o.last_good[1])
    return replace(result, points=compact("polygon", points))


def _shape_to_tracked(
    shape: Any, shape_type: str, width: int, height: int, score: float | None
) -> tuple[Tracked | None, str]:
    """A shape of an answer, or None with what is wrong with it."""
    if score is not None and not math.isfinite(score):
        return None, "a score that is not finite"
    if shape is None:
        return Tracked(None, score), ""
    if not isinstance(shape, dict) or shape.get("type") != shape_type:
        found = shape.get("type") if isinstance(shape, dict) else type(shape).__name__
        return None, f"a {found} for a {shape_type}"
    if shape.get("outside") is True:
        return Tracked(None, score), ""
    wrong = points_fault(shape_type, shape.get("points"), width, height)
    if wrong:
        return None, wrong
    points = points_in_image(shape_type, shape["points"], width, height)
    wrong = size_fault(shape_type, points)  # clamping can leave nothing
    if wrong:
        return None, wrong
    return Tracked(compact(shape_type, points), score), ""
