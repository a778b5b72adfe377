# SPDX-License-Identifier: MIT
"""Tracking every gap between drawn frames from both of its ends.

An object that a person drew on several frames of the range stands on all of these drawings at once
(`adopt` in docs/request.md). Each gap between two of them is tracked forwards from its left end and
backwards from its right end. In a gap the answer switches once from the forward to the backward
result: where the sum of the scores is largest, so that it does not flicker.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate

from cvat_action.calls import CallFailed, Pace, Tracker
from cvat_action.job import Job
from cvat_action.tracked import Tracked, TrackedObject
from cvat_action.tracking import Enter, Loop, Run, StopTracking, track

Tell = Callable[[str, int, int], None]
"""called with where frames are tracked beforehand, how many of them are done, and of how many"""

MOST_KEYFRAMES = 8
"""Drawn frames that the function remembers of one object."""


@dataclass
class _Gap:
    """Frames of one object between two drawn ones, or after the last one."""

    of: TrackedObject
    frames: tuple[int, ...]
    """in the order of tracking"""
    forward: TrackedObject
    backward: TrackedObject | None
    """None: nothing is drawn after these frames"""


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
    tell: Tell = lambda what, done, total: None,
) -> Run:
    """Tracks `objects` over `frames`, in that order, with what was drawn on them known beforehand.

    done: the frames of the run before these, which are written. What is drawn on them counts.

    A drawing that may be another object's counts if tracking forwards leads there, which is tried
    first. After a drawing that marks the object as outside it has no results up to the next.

    parallel: the number of gaps tracked at once. `keep` is called with every frame when all gaps
    are done; nothing is kept of a run that ends before. Objects that were found and not drawn are
    tracked from frame to frame after that, and so are those that `enter` adds. tell: by one thread
    at a time.
    """
    left, frames = frames, [*done, *frames]
    pace = pace or Pace()
    drawn = [o for o in objects if not o.seed.found]
    failed = _make_sure(tracker, job, drawn, frames, pace, tell)
    if failed:
        return replace(failed, objects=tuple(objects))
    try:
        gaps = _prepare(Loop(tracker, job, [], pace), drawn, frames)
        gaps = [gap for gap in gaps if not set(gap.frames) <= set(done)]
        ended = _follow_all(tracker, job, gaps, pace, parallel, tell)
    except CallFailed as failure:
        return Run(tuple(objects), (), str(failure), resumable=failure.resumable)
    except KeyboardInterrupt:
        return Run(tuple(objects), (), "Stopped by Ctrl+C.", True)
    broken = next((run for run in ended if run.broken and any(o.live for o in run.objects)), None)
    if broken:
        return replace(broken, objects=tuple(objects), done=())
    for gap in gaps:
        _merge(gap)
    for o in drawn:
        o.settled = True
        for frame in done:
            o.frames.pop(frame, None)
    return track(tracker, job, objects, left, pace=pace, enter=enter, keep=keep)


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
    trial = [TrackedObject(o.seed, memory=o.memory, tolerance=o.tolerance) for o in asked]
    count = _Count("forwards to what is drawn", last + 1, tell)
    run = track(tracker, job, trial, frames[: last + 1], pace=pace, on_frame=count.one_more)
    if run.broken and any(o.live for o in trial):
        return replace(run, done=())
    for o, tried in zip(asked, trial, strict=True):
        o.corrections = {
            frame: replace(c, sure=True)
            for frame, c in o.corrections.items()
            if c.sure or (frame in tried.frames and tried.frames[frame].by_hand)
        }
    return None


def _prepare(loop: Loop, objects: Sequence[TrackedObject], frames: Sequence[int]) -> list[_Gap]:
    """Starts every drawn shape on its frame and lets each stand on the others."""
    order = [objects[0].seed.frame, *frames] if objects else []
    # A distance counts tracked frames only: deleted frames are not tracked.
    place = {frame: number for number, frame in enumerate(order)}
    drawn = [_drawings(o, place) for o in objects]
    loop.objects += [each for one in drawn for each in one.values() if each is not None]
    loop.start(loop.objects)
    gaps = []
    for o, ones in zip(objects, drawn, strict=True):
        first = ones[o.seed.frame]
        if first is None or not first.live:
            o.stopped = first.stopped if first else o.stopped
            continue
        standing = {f: each for f, each in ones.items() if each is not None and each.live}
        for frame, each in ones.items():
            if frame != o.seed.frame:
                o.frames[frame] = Tracked(each.seed.points if each else None, by_hand=True)
        ends: list[int | None] = [*list(ones)[1:], None]
        for left, right in zip(ones, ends, strict=True):
            end = len(order) if right is None else place[right]
            between = tuple(order[place[left] + 1 : end])
            refused = ones[left]
            if between and refused and left not in standing:
                o.stopped = refused.stopped
            if between and left in standing:
                ahead = _stand(loop, standing, standing[left], place, 1)
                drawn_next = standing.get(right) if right is not None else None
                back = drawn_next and _stand(loop, standing, drawn_next, place, -1)
                gaps.append(_Gap(o, between, ahead, back))
    return gaps


def _drawings(o: TrackedObject, place: dict[int, int]) -> dict[int, TrackedObject | None]:
    """By frame, in the order of tracking, the seed and the corrections as objects of their own.

    None: marked as outside.
    """
    found: dict[int, TrackedObject | None] = {
        o.seed.frame: TrackedObject(
            replace(o.seed, corrections=()), memory=o.memory, tolerance=o.tolerance
        )
    }
    for frame in sorted(set(o.corrections) & set(place), key=place.__getitem__):
        correction = o.corrections[frame]
        found[frame] = None
        if correction.points is not None:
            seed = replace(o.seed, frame=frame, points=correction.points, corrections=())
            found[frame] = TrackedObject(seed, memory=o.memory, tolerance=o.tolerance)
    return found


def _stand(
    loop: Loop,
    standing: dict[int, TrackedObject],
    own: TrackedObject,
    place: dict[int, int],
    direction: int,
) -> TrackedObject:
    """A drawing as an object to track, which stands on the nearest other drawings too."""
    each = TrackedObject(own.seed, state=own.state, memory=own.memory, tolerance=own.tolerance)
    far = {f: direction * (place[f] - place[own.seed.frame]) for f in standing}
    drawn = (f for f in standing if far[f] and f not in own.seed.relabelled)
    nearest = sorted(drawn, key=lambda f: abs(far[f]))
    others = [(standing[f], far[f]) for f in nearest[: MOST_KEYFRAMES - 1]]
    if others:
        loop.adopt(each, others)
    return each


def _together(gaps: Sequence[_Gap]) -> dict[tuple[int, ...], list[TrackedObject]]:
    """Objects that go through the same frames in the same order, by these frames."""
    together: dict[tuple[int, ...], list[TrackedObject]] = {}
    for gap in gaps:
        together.setdefault(gap.frames, []).append(gap.forward)
        if gap.backward is not None:
            # A gap of one frame is the same in both directions.
            together.setdefault(gap.frames[::-1], []).append(gap.backward)
    return together


def _follow_all(
    tracker: Tracker, job: Job, gaps: Sequence[_Gap], pace: Pace, parallel: int, tell: Tell
) -> list[Run]:
    """Tracks the frames of the gaps, `parallel` gaps at once. What one raises ends the others."""
    together = _together(gaps)
    what = "in the gaps between drawn frames, from both ends"
    count = _Count(what, sum(map(len, together)), tell)
    halt = threading.Event()
    with ThreadPoolExecutor(parallel) as threads:
        try:
            runs = [
                threads.submit(_follow, tracker, job, each, along, pace, halt, count)
                for along, each in together.items()
            ]
            return [run.result() for run in runs]
        except BaseException:
            halt.set()
            raise


def _follow(
    tracker: Tracker,
    job: Job,
    objects: list[TrackedObject],
    frames: Sequence[int],
    pace: Pace,
    halt: threading.Event,
    count: "_Count",
) -> Run:
    """halt: nothing more is tracked, for none of it would be kept."""

    def on_frame(frame: int, objects: Sequence[TrackedObject]) -> None:
        if halt.is_set():
            raise StopTracking
        count.one_more(frame, objects)

    if halt.is_set():
        return Run(tuple(objects), ())
    run = track(tracker, job, objects, frames, pace=pace, on_frame=on_frame)
    if run.broken and any(o.live for o in objects):
        halt.set()
    return run


class _Count:
    """How many frames are tracked, in any thread."""

    def __init__(self, what: str, total: int, tell: Tell) -> None:
        self._what = what
        self._total = total
        self._tell = tell
        self._done = 0
        self._lock = threading.Lock()

    def one_more(self, frame: int, objects: Sequence[TrackedObject]) -> None:
        with self._lock:
            self._done += 1
            self._tell(self._what, self._done, self._total)


def _merge(gap: _Gap) -> None:
    """Takes the backward results from the frame on from which they have the better scores."""
    back = gap.backward.frames if gap.backward else {}
    gains = [
        _score(gap.forward.frames.get(frame)) - _score(back.get(frame)) for frame in gap.frames
    ]
    sums = list(accumulate(gains, initial=0.0))
    switch = sums.index(max(sums))
    for number, frame in enumerate(gap.frames):
        result = (gap.forward.frames if number < switch else back).get(frame)
        if result is not None:
            gap.of.frames[frame] = result
    ends = [gap.forward, gap.backward] if gap.backward else [gap.forward]
    stopped = next((each.stopped for each in ends if each.stopped), None)
    if any(frame not in gap.of.frames for frame in gap.frames):
        gap.of.stopped = stopped
    elif gap.backward is None:  # the last gap: its end is where the object stands
        gap.of.state = gap.forward.state
        gap.of.last_good = gap.forward.last_good


def _score(result: Tracked | None) -> float:
    """A frame without a result is worse than any with one."""
    return -1.0 if result is None else result.score or 0.0
