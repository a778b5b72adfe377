# SPDX-License-Identifier: MIT
"""Tracking every gap between drawn frames from both of its ends.

An object that a person drew on several frames of the range stands on all of these drawings at once
(`adopt` in docs/request.md). It is tracked forwards from the first of them and backwards from the
last. On the way each drawing joins, so what was tracked before it still counts. In each gap between
two drawings the answer switches once from the forward to the backward result: where the sum of the
scores is largest, so that it does not flicker. Beside a drawing the answer is the drawing itself,
carried by optical flow, as far as that is better (carrying.py).
"""

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate

import cv2

from cvat_action.calls import CallFailed, Pace, Tracker
from cvat_action.carrying import Drawing, Estimate, Flow, carry
from cvat_action.errors import ActionError
from cvat_action.geometry import points_to_bitmap, size_fault
from cvat_action.job import Job
from cvat_action.kept_ways import KeptWays
from cvat_action.overlay import Frames
from cvat_action.polygons import aligned_points
from cvat_action.seeds import Correction
from cvat_action.tracked import Tracked, TrackedObject, compact
from cvat_action.tracking import Enter, Loop, Run, StopTracking, track
from sam2_tracker.memory_bank import MAX_CONDITIONING
from sam2_tracker.settings import Settings
from sam2_tracker.shapes import Bitmap, bitmap_to_mask, bitmap_to_polygon

logger = logging.getLogger(__name__)

Tell = Callable[[str, int, int], None]
"""called with where frames are tracked beforehand, how many of them are done, and of how many"""

OUTLINES = ("mask", "polygon")
"""Types whose shapes follow the object's outline."""

MOST_UNREADABLE = 3
"""pictures: then nothing more is carried, because each may have been waited for"""


@dataclass(frozen=True)
class _Gap:
    """Frames between two drawn ones, or after the last one."""

    left: int
    right: int | None
    """None: nothing that the object can start from is drawn after these frames"""
    frames: tuple[int, ...]
    """in the order of tracking; it may be empty"""


@dataclass(frozen=True)
class _Drawn:
    """An object with its drawings, each started on its frame."""

    of: TrackedObject
    standing: dict[int, TrackedObject]
    """by frame, the drawings that the function took"""
    order: Sequence[int]
    """the frames, in the order of tracking"""
    place: Mapping[int, int]
    """of a frame in that order; a distance counts tracked frames only, and no deleted ones"""
    loop: Loop

    def section(self, gaps: Sequence[_Gap]) -> "_Section":
        """Gaps that follow each other, ready to be tracked."""
        first, right = gaps[0].left, gaps[-1].right
        last = gaps[-1].left if right is None else right
        begin, end = self.place[first] + 1, self.place[last]
        way = tuple(self.of.corrections[gap.left] for gap in gaps[1:])
        return _Section(
            self,
            gaps,
            forward=self._stand(first, way, 1),
            backward=self._stand(last, way, -1) if end > begin else None,
            ahead=tuple(self.order[begin : self.place[gaps[-1].left] + 1 + len(gaps[-1].frames)]),
            back=tuple(self.order[begin:end][::-1]),
        )

    def _stand(self, frame: int, way: tuple[Correction, ...], direction: int) -> TrackedObject:
        """The drawing of a frame as an object to track, which stands on the nearest others too.

        way: the drawings that join on the way. direction: 1 in the order of tracking, else -1.
        """
        own = self.standing[frame]
        seed = replace(own.seed, corrections=way)
        each = TrackedObject(seed, state=own.state, tuning=own.tuning)
        far = {f: direction * (self.place[f] - self.place[frame]) for f in self.standing}
        drawn = (f for f in self.standing if far[f] and f not in own.seed.relabelled)
        nearest = sorted(drawn, key=lambda f: abs(far[f]))
        others = [(self.standing[f], far[f]) for f in nearest[: MAX_CONDITIONING - 1]]
        if others:
            self.loop.adopt(each, others)
        return each


@dataclass(frozen=True, eq=False)
class _Section:
    """Gaps of one object, one after the other, that are tracked in one go each way."""

    drawn: _Drawn
    gaps: Sequence[_Gap]
    forward: TrackedObject
    backward: TrackedObject | None
    """None: nothing is drawn at the end of these frames, or no frame lies between the drawings"""
    ahead: tuple[int, ...]
    """the frames after the first drawing, in the order of tracking, drawn ones too"""
    back: tuple[int, ...]
    """the frames before the last drawing, in the other order"""

    @property
    def ends(self) -> list[TrackedObject]:
        return [self.forward] if self.backward is None else [self.forward, self.backward]

    def apart(self) -> "list[_Section]":
        """Each gap as a section of its own."""
        return [self.drawn.section([gap]) for gap in self.gaps if gap.frames]


def track_both_ways(
    tracker: Tracker,
    job: Job,
    objects: list[TrackedObject],
    frames: Sequence[int],
    *,
    pace: Pace | None = None,
    enter: Enter | None = None,
    keep: Callable[[int], None] = lambda frame: None,
    parallel: int = 1,
    done: Sequence[int] = (),
    kept: KeptWays | None = None,
    tell: Tell = lambda what, done, total: None,
    picture: Frames | None = None,
) -> Run:
    """Tracks `objects` over `frames`, in that order, with what was drawn on them known beforehand.

    done: the frames of the run before these, which are written. What is drawn on them counts.

    A drawing that may be another object's counts if tracking forwards leads there, which is tried
    first. After a drawing that marks the object as outside it has no results up to the next.

    parallel: how many calls are waited for at once; beyond 2 the range is cut at drawings, where
    nothing but what is drawn is remembered. `keep` is called with every frame when all gaps are
    done. Of a run that ends before only `kept` holds what was tracked. Objects that were found and
    not drawn are tracked from frame to frame after that, and so are those that `enter` adds. tell:
    by one thread at a time. picture: gives a frame, for optical flow; None: nothing is carried.
    """
    left, frames = frames, [*done, *frames]
    pace = pace or Pace()
    drawn = [o for o in objects if not o.seed.found]
    failed = _make_sure(tracker, job, drawn, frames, pace, tell)
    if failed:
        return replace(failed, objects=tuple(objects))
    try:
        sections = _prepare(Loop(tracker, job, [], pace), drawn, frames, parallel)
        sections = [each for each in sections if not set(each.ahead) <= set(done)]
        broken = _follow_all(tracker, job, sections, pace, parallel, kept, tell)
        if not broken:
            # Where an object stopped on the way, the gaps behind are tracked by themselves.
            stopped = [s for s in sections if len(s.gaps) > 1 and not all(e.live for e in s.ends)]
            again = [gap for section in stopped for gap in section.apart()]
            broken = _follow_all(tracker, job, again, pace, parallel, kept, tell)
            sections = [s for s in sections if s not in stopped] + again
        if not broken:
            for section in sections:
                _merge(section)
            interrupted = picture is not None and not _carry_all(sections, job, done, picture, tell)
    except CallFailed as failure:
        return Run(tuple(objects), (), str(failure), resumable=failure.resumable)
    except KeyboardInterrupt:
        return Run(tuple(objects), (), "Stopped by Ctrl+C.", True)
    if broken:
        return replace(broken, objects=tuple(objects), done=())
    for o in drawn:
        o.settled = True
        for frame in done:
            o.frames.pop(frame, None)
    run = track(tracker, job, objects, left, pace=pace, enter=enter, keep=keep)
    return replace(run, interrupted=run.interrupted or interrupted)


def _make_sure(
    tracker: Tracker,
    job: Job,
    objects: Sequence[TrackedObject],
    frames: Sequence[int],
    pace: Pace,
    tell: Tell,
) -> Run | None:
    """Decides for every unsure drawing whether it shows the object.

    It does if the object, tracked forwards, is found there. Returns the run if that tracking
    fails, else None.
    """
    unsure = {o.seed.ref: {f for f, c in o.corrections.items() if not c.sure} for o in objects}
    asked = [o for o in objects if unsure[o.seed.ref]]
    if not asked:
        return None
    last = max(n for n, f in enumerate(frames) if any(f in unsure[o.seed.ref] for o in asked))
    trial = [TrackedObject(o.seed, tuning=o.tuning) for o in asked]
    count = _Count("tracked forwards to check drawings", last + 1, tell)
    run = track(tracker, job, trial, frames[: last + 1], pace=pace, on_frame=count.one_more)
    if _broke(run):
        return replace(run, done=())
    for o, tried in zip(asked, trial, strict=True):
        o.corrections = {
            frame: replace(c, sure=True)
            for frame, c in o.corrections.items()
            if c.sure or (frame in tried.frames and tried.frames[frame].by_hand)
        }
    return None


def _prepare(
    loop: Loop, objects: Sequence[TrackedObject], frames: Sequence[int], parallel: int
) -> list[_Section]:
    """Starts every drawn shape on its frame and lets the ends of sections stand on the others."""
    order = [objects[0].seed.frame, *frames] if objects else []
    place = {frame: number for number, frame in enumerate(order)}
    drawn = [_drawings(o, place) for o in objects]
    loop.objects += [each for one in drawn for each in one.values() if each is not None]
    loop.start(loop.objects)
    sections = []
    for o, ones in zip(objects, drawn, strict=True):
        first = ones[o.seed.frame]
        if first is None or not first.live:
            o.stopped = first.stopped if first else o.stopped
            continue
        standing = {f: each for f, each in ones.items() if each is not None and each.live}
        for frame, each in ones.items():
            if frame != o.seed.frame:
                o.frames[frame] = Tracked(each.seed.points if each else None, by_hand=True)
        of = _Drawn(o, standing, order, place, loop)
        gaps = _gaps(of, ones)
        # No more drawings than the function remembers, so that none of them gives way to another.
        longest = min(-(-len(gaps) // -(-parallel // 2)), MAX_CONDITIONING - 1)
        sections += [of.section(group) for group in _cut(gaps, o.seed.relabelled, longest)]
    return [section for section in sections if any(gap.frames for gap in section.gaps)]


def _gaps(drawn: _Drawn, ones: Mapping[int, TrackedObject | None]) -> list[_Gap]:
    """ones: what was drawn, by frame."""
    gaps = []
    ends: list[int | None] = [*list(ones)[1:], None]
    for left, right in zip(ones, ends, strict=True):
        end = len(drawn.order) if right is None else drawn.place[right]
        between = tuple(drawn.order[drawn.place[left] + 1 : end])
        refused = ones[left]
        if left in drawn.standing:
            gaps.append(_Gap(left, right if right in drawn.standing else None, between))
        elif between and refused:
            drawn.of.stopped = refused.stopped
    return gaps


def _cut(gaps: Sequence[_Gap], relabelled: Collection[int], longest: int) -> list[list[_Gap]]:
    """The gaps in groups of at most `longest`, each gap beginning where the one before it ends.

    A gap beside a result with another label is alone, for no other gap stands on that result.
    """
    groups: list[list[_Gap]] = []
    for gap in gaps:
        group = groups[-1] if groups else []
        beside = {gap.left, gap.right, *(each.left for each in group)}
        ends_here = not group or group[-1].right != gap.left or len(group) == longest
        if ends_here or beside & set(relabelled):
            groups.append([gap])
        else:
            group.append(gap)
    return groups


def _drawings(o: TrackedObject, place: dict[int, int]) -> dict[int, TrackedObject | None]:
    """By frame, in the order of tracking, the seed and the corrections as objects of their own.

    None: marked as outside.
    """
    found: dict[int, TrackedObject | None] = {
        o.seed.frame: TrackedObject(replace(o.seed, corrections=()), tuning=o.tuning)
    }
    for frame in sorted(set(o.corrections) & set(place), key=place.__getitem__):
        correction = o.corrections[frame]
        found[frame] = None
        if correction.points is not None:
            seed = replace(o.seed, frame=frame, points=correction.points, corrections=())
            found[frame] = TrackedObject(seed, tuning=o.tuning)
    return found


def _together(sections: Sequence[_Section]) -> dict[tuple[int, ...], list[TrackedObject]]:
    """Objects that go through the same frames in the same order, by these frames."""
    together: dict[tuple[int, ...], list[TrackedObject]] = {}
    for section in sections:
        together.setdefault(section.ahead, []).append(section.forward)
        if section.backward is not None:
            # A section of one frame is the same in both directions.
            together.setdefault(section.back, []).append(section.backward)
    return together


def _follow_all(
    tracker: Tracker,
    job: Job,
    sections: Sequence[_Section],
    pace: Pace,
    parallel: int,
    kept: KeptWays | None,
    tell: Tell,
) -> Run | None:
    """Tracks all sections, each way in a thread of its own, `parallel` of them at once.

    What one raises ends the others. Returns a run that broke, if there is one.
    """
    together = _together(sections)
    what = "tracked between drawings, in both directions"
    count = _Count(what, sum(map(len, together)), tell)
    halt = threading.Event()
    pace = replace(pace, halt=halt)
    with ThreadPoolExecutor(parallel) as threads:
        try:
            runs = [
                threads.submit(_follow, tracker, job, each, along, pace, halt, kept, count)
                for along, each in together.items()
            ]
            ended = [run.result() for run in runs]
        except BaseException:
            halt.set()
            raise
    return next((run for run in ended if _broke(run)), None)


def _follow(
    tracker: Tracker,
    job: Job,
    objects: list[TrackedObject],
    frames: Sequence[int],
    pace: Pace,
    halt: threading.Event,
    kept: KeptWays | None,
    count: "_Count",
) -> Run:
    """halt: nothing more is tracked, because another way has ended the run."""

    def on_frame(frame: int, objects: Sequence[TrackedObject]) -> None:
        if kept:
            kept.keep(objects, frames, frame)
        if halt.is_set():
            raise StopTracking
        count.one_more(frame, objects)

    if halt.is_set():
        return Run(tuple(objects), ())
    try:
        left = kept.recall(objects, frames) if kept else frames
        if len(left) < len(frames):
            count.add(len(frames) - len(left))
        run = track(tracker, job, objects, left, pace=pace, on_frame=on_frame)
    except BaseException:
        halt.set()
        raise
    if _broke(run):
        halt.set()
    return run


def _broke(run: Run) -> bool:
    """Whether it ended for another reason than that no object is left to track."""
    return bool(run.broken) and any(o.live for o in run.objects)


class _Count:
    """How many frames are tracked, in any thread."""

    def __init__(self, what: str, total: int, tell: Tell) -> None:
        self._what = what
        self._total = total
        self._tell = tell
        self._done = 0
        self._lock = threading.Lock()

    def one_more(self, frame: int, objects: Sequence[TrackedObject]) -> None:
        self.add(1)

    def add(self, frames: int) -> None:
        with self._lock:
            self._done += frames
            self._tell(self._what, self._done, self._total)


def _merge(section: _Section) -> None:
    """In each gap, takes the backward results from the frame on where their scores are better."""
    o, forward, backward = section.drawn.of, section.forward, section.backward
    back = backward.frames if backward else {}
    for gap in section.gaps:
        ahead = [_score(forward.frames.get(frame)) for frame in gap.frames]
        kept = kept_of(ahead, [_score(back.get(frame)) for frame in gap.frames])
        for number, frame in enumerate(gap.frames):
            result = (forward.frames if number < kept else back).get(frame)
            if result is not None:
                o.frames[frame] = result
        if any(frame not in o.frames for frame in gap.frames):
            o.stopped = next((each.stopped for each in section.ends if each.stopped), None)
        elif gap.right is None and gap.frames:  # where the last gap ends, the object stands
            o.state, o.last_good = forward.state, forward.last_good


def kept_of(forward: Sequence[float], backward: Sequence[float]) -> int:
    """How many frames of a gap keep the forward result: the sum of the scores is largest where
    those behind them get the backward one.

    forward, backward: a score for each frame of the gap, in the order of tracking forwards; -1
    where there is no result.
    """
    sums = list(accumulate((f - b for f, b in zip(forward, backward, strict=True)), initial=0.0))
    return sums.index(max(sums))


def _score(result: Tracked | None) -> float:
    """A frame without a result is worse than any with one."""
    return -1.0 if result is None else result.score or 0.0


def _carry_all(
    sections: Sequence[_Section], job: Job, done: Sequence[int], picture: Frames, tell: Tell
) -> bool:
    """Puts carried drawings in the place of what was tracked, where they are better.

    Where a frame cannot be read, the results of the gaps that need it stay as they were tracked.
    So do all that are left where several cannot be read, and after Ctrl+C. Returns False after
    Ctrl+C.
    """
    gaps = [
        (section.drawn, gap)
        for section in sections
        for gap in section.gaps
        if section.drawn.of.seed.type in OUTLINES
        and gap.left not in section.drawn.of.seed.relabelled
        and not set(gap.frames) <= set(done)
    ]
    if not gaps:
        return True
    # Gaps that lie together need the same pictures.
    gaps.sort(key=lambda each: (each[0].place[each[1].left], len(each[1].frames)))
    flow = Flow(picture, job.size(gaps[0][1].left))
    count = _Count(
        "compared with the drawings carried to them", sum(len(gap.frames) for _, gap in gaps), tell
    )
    told = False
    try:
        for drawn, gap in gaps:
            try:
                _carry(drawn, gap, flow)
            except ActionError as error:
                if not told:
                    logger.warning(
                        "Results may be coarser where optical flow needs a frame that could not be "
                        "read. %s",
                        error,
                    )
                told = True
                if len(flow.unreadable) >= MOST_UNREADABLE:
                    break
            count.add(len(gap.frames))
    except cv2.error as error:
        logger.warning("Results may be coarser, because optical flow failed. %s", error)
    except KeyboardInterrupt:
        logger.warning("Stopped by Ctrl+C; what is tracked is written.")
        return False
    return True


def _carry(drawn: _Drawn, gap: _Gap, flow: Flow) -> None:
    o, (width, height) = drawn.of, flow.size

    def bitmap(points: Sequence[float]) -> Bitmap:
        return points_to_bitmap(o.seed.type, points, width, height)

    def found(frame: int) -> Estimate | None:
        t = o.frames.get(frame)
        if t is None or t.points is None:
            return None
        return Estimate(bitmap(t.points), t.score or 0.0)

    def drawing(frame: int) -> Drawing:
        return Drawing(frame, bitmap(drawn.standing[frame].seed.points))

    right = None
    if gap.right is not None and gap.right not in o.seed.relabelled:
        right = drawing(gap.right)
    for frame, carried in carry(flow, drawing(gap.left), right, gap.frames, found):
        before = o.frames.get(drawn.order[drawn.place[frame] - 1])
        like = before.points if before and before.points else drawn.standing[gap.left].seed.points
        points = _points(o, carried.mask, like)
        if size_fault(o.seed.type, points) is None:
            o.frames[frame] = Tracked(points, carried.score)


def _points(o: TrackedObject, mask: Bitmap, like: Sequence[float]) -> Sequence[float]:
    """The mask as points of the object's type; like: a polygon to begin and to be directed like."""
    if o.seed.type == "mask":
        return compact("mask", bitmap_to_mask(mask))
    own = o.tuning.tolerance  # what is set for the function is not known here
    ring = bitmap_to_polygon(mask, tolerance=Settings().polygon_tolerance if own is None else own)
    return compact("polygon", aligned_points(ring, like))
