# SPDX-License-Identifier: MIT
"""A run: a plan is tracked and written in stages, with any tracker and into any sink."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cvat_action.both_ways import track_both_ways
from cvat_action.calls import Pace, Tracker
from cvat_action.coinciding import note_coinciding
from cvat_action.errors import ActionError
from cvat_action.journal import Journal
from cvat_action.kept_ways import KeptWays
from cvat_action.overlay import Frames
from cvat_action.plan import Plan
from cvat_action.report import counted
from cvat_action.sinks import Sink
from cvat_action.tracked import TrackedObject
from cvat_action.tracking import Enter, NotOnRecord, OnFrame, Run, track

logger = logging.getLogger(__name__)

STAGE_FRAMES = 200
STAGE_BYTES = 512 << 20
"""results are written after this many frames or bytes; a stage is as long as all before it
together, so that all snapshots of a run cost no more than twice the last one"""
LOG_SECONDS = 60.0
"""without a terminal a line is logged this often"""


@dataclass(frozen=True)
class Outcome:
    run: Run
    done: int
    """frames that are tracked, of this run and of what it goes on with"""
    pending: bool
    """not all that is tracked is written"""
    problem: str | None
    more: bool = False
    """objects may go on although none is live: they may enter, or go on in another gap"""

    @property
    def resumable(self) -> bool:
        live = self.more or any(o.live for o in self.run.objects)
        return self.pending or (
            self.problem is not None
            and (self.done > 0 or self.run.one_way > 0)
            and live
            and self.run.resumable
        )


@dataclass(frozen=True)
class Equipment:
    """What a run works with."""

    tracker: Tracker
    sink: Sink
    journal: Journal
    pace: Pace
    picture: Frames
    """gives a frame, for pictures and for the optical flow of --both-ways"""
    ask: OnFrame | None = None
    """asks a person after every frame"""


def run_plan(
    plan: Plan,
    objects: list[TrackedObject],
    equipment: Equipment,
    *,
    done: Sequence[int],
    written_until: int,
    enter: Enter | None,
    remember: Callable[[], Run | None] | None,
) -> Outcome:
    """Tracks the frames that are not done and writes all results.

    objects: with what is tracked already, of which `written_until` frames are written; those that
    enter are appended.
    remember: called before tracking goes on, to build up a memory that is gone (rebuild.py).
    """
    sink = equipment.sink
    stages = _Stages(plan, objects, list(done), written_until, sink, equipment.journal)
    # An object that stopped in one gap between drawn frames may go on in the others.
    more = enter is not None or _goes_both_ways(plan, equipment)
    left = plan.frames[len(done) :]
    run = Run(tuple(objects), ())
    try:
        stages.write_rest()
        with logging_redirect_tqdm():
            if left and (more or any(o.live for o in objects)):
                forgot = remember() if remember else None
                run = forgot or _track_left(plan, objects, equipment, stages, enter)
        problem = run.broken
        stages.write_rest()
        goes_on = Outcome(run, len(stages.done), False, problem, more).resumable
        pending = bool(stages.done) and not sink.finish(objects, goes_on=goes_on)
    except ActionError as error:
        problem, pending = str(error), True
    except KeyboardInterrupt:
        problem, pending = "Stopped by Ctrl+C while writing.", True
        run = replace(run, interrupted=True)
    return Outcome(run, len(stages.done), pending, problem, more)


def _goes_both_ways(plan: Plan, equipment: Equipment) -> bool:
    return plan.options.both_ways and equipment.tracker.joins


def _track_left(
    plan: Plan,
    objects: list[TrackedObject],
    equipment: Equipment,
    stages: "_Stages",
    enter: Enter | None,
) -> Run:
    done = tuple(stages.done)
    left = plan.frames[len(done) :]
    with tqdm(total=len(left), desc="tracking", unit="frame", disable=None) as bar:
        progress = Progress(len(plan.frames), bar)

        def keep(frame: int) -> None:
            stages.keep(frame)
            progress.tell(frame, len(stages.done), objects)

        what = equipment.tracker, plan.job, objects, left
        how: dict[str, Any] = {"pace": equipment.pace, "enter": enter, "keep": keep}
        if not _goes_both_ways(plan, equipment):
            return track(*what, on_frame=equipment.ask, **how)
        # Without a server the tracker's memory ends with the process.
        kept = KeptWays(equipment.journal, goes_on=bool(plan.server))
        if kept.frames:
            logger.info("Going on with %s in one direction.", counted(kept.frames, "frame"))
        run = track_both_ways(
            *what,
            parallel=plan.options.parallel,
            done=done,
            kept=kept,
            tell=progress.beforehand,
            picture=equipment.picture,
            **how,
        )
        return replace(run, one_way=kept.frames)


class _Stages:
    def __init__(
        self,
        plan: Plan,
        objects: list[TrackedObject],
        done: list[int],
        written: int,
        sink: Sink,
        journal: Journal,
    ) -> None:
        self.done = done
        self._left = set(plan.frames) - set(done)
        self._min_score = plan.options.min_score
        self._objects = objects
        self._written = written
        self._sink = sink
        self._journal = journal
        self._bytes = 0

    def keep(self, frame: int) -> None:
        """Raises NotOnRecord where the frame could not be recorded, so that it is not done."""
        if self._min_score is not None:
            for o in self._objects:
                entered = o.seed.found and o.seed.frame == frame  # it may be tracked back, too
                tracked = o.frames.keys() - {frame} if entered else {frame}
                o.leave_out_unsure(tracked, self._min_score)
        try:
            self._journal.frame(frame, self._objects)
        except ActionError as error:
            raise NotOnRecord(str(error)) from None
        note_coinciding(self._objects, frame, [o.frames.get(frame) for o in self._objects])
        self.done.append(frame)
        self._left.discard(frame)
        for o in self._objects:
            t = o.frames.get(frame)
            if t is not None and t.points is not None:
                self._bytes += 8 * len(t.points)
        since = len(self.done) - self._written
        if since >= max(STAGE_FRAMES, self._written) or self._bytes >= STAGE_BYTES:
            self.write_rest()
            if self._sink.interrupted:
                raise KeyboardInterrupt

    def write_rest(self) -> None:
        frames = self.done[self._written :]
        if not frames:
            return
        # An object that was found also has its own frame, and those that it was tracked back over.
        frames = [*(self._found_on() - set(frames)), *frames]
        self._sink.write(self._objects, frames, len(self.done))
        self._written = len(self.done)
        self._bytes = 0
        for o in self._objects:
            o.hand_on(frames)

    def _found_on(self) -> set[int]:
        """Frames with results of found objects, without those that are not tracked to the end."""
        return {f for o in self._objects if o.seed.found for f in o.frames if f not in self._left}


class Progress:
    """The bar of a terminal, or a line a minute without one."""

    def __init__(self, total: int, bar: Any, clock: Callable[[], float] = time.monotonic):
        self._total = total
        self._bar = bar
        self._left = bar.total
        self._clock = clock
        self._logged = clock()

    def beforehand(self, what: str, done: int, total: int) -> None:
        """Of what `--both-ways` tracks before the first frame is done; the bar counts both."""
        if not self._bar.disable:
            self._bar.n, self._bar.total = done, total + self._left
            self._bar.set_postfix_str(f"{done} of {total} frames {what}")
        elif self._is_due():
            logger.info("%d of %d frames %s.", done, total, what)

    def tell(self, frame: int, done: int, objects: Sequence[TrackedObject]) -> None:
        live = sum(o.live for o in objects)
        self._bar.update()
        if not self._bar.disable:
            self._bar.set_postfix({"frame": frame, "objects": live})
        elif self._is_due():
            counted_live = counted(live, "object")
            logger.info("Frame %d: %d of %d frames, %s.", frame, done, self._total, counted_live)

    def _is_due(self) -> bool:
        """Whether a line is due; then the next one is due a minute later."""
        due = self._clock() - self._logged >= LOG_SECONDS
        if due:
            self._logged = self._clock()
        return due
