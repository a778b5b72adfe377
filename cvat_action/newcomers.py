# SPDX-License-Identifier: MIT
"""Objects that were clicked on, or that a detector finds and nobody tracks.

They begin where they are found. On the first frame of a run, and on every K-th, the detector says
what is there. What overlaps neither a tracked object nor anything else on the frame is new, and is
tracked on with the others.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from cvat_action.calls import CallFailed, Pace, Tracker
from cvat_action.clicked import find_clicked
from cvat_action.detections import SAME, Detection, Outline, new_ones
from cvat_action.errors import ActionError
from cvat_action.identity import free_number, number_of_drawing
from cvat_action.job import Job, Wire
from cvat_action.plan import Options
from cvat_action.seeds import Seed, Tuning
from cvat_action.selection import outlines_on
from cvat_action.snapshot import Snapshot
from cvat_action.tracked import Tracked, TrackedObject, compact
from cvat_action.tracking import Loop, StopTracking, track

logger = logging.getLogger(__name__)


class Finder(Protocol):
    """A detector, or something else that says what is on a frame."""

    @property
    def name(self) -> str: ...

    def find(self, frame: int) -> list[Detection]:
        """Raises ActionError."""


def first_ones(
    finder: Finder | None,
    tracker: Callable[[], Tracker],
    job: Job,
    snapshot: Snapshot,
    options: Options,
    pace: Pace,
) -> list[Seed]:
    """The objects that begin on the first frame, whose shapes the snapshot holds whole.

    finder: None: nothing is looked for. tracker: gives the one that makes masks of clicks and
    boxes. Raises ActionError.
    """
    frame = options.frame
    there = _outlines(outlines_on(job, snapshot.annotations, frame))
    new: list[Detection] = []

    def loop() -> Loop:
        return Loop(tracker(), job, [], pace)

    try:
        if options.points:
            new = find_clicked(options, job, there, partial(_ask, loop, frame))
        if finder:
            found = _wanted(finder, job, options, frame)
            there += [Outline(d.type, d.points) for d in new]
            new += _new(finder, loop, options, frame, found, there, options.most_found - len(new))
    except CallFailed as failure:
        said = str(failure)
        named = said.startswith(f"Frame {frame} ")
        raise ActionError(said if named else f"Frame {frame}: {said}") from failure
    return [_seed(d, frame, number) for number, d in enumerate(new, 1)]


@dataclass
class Newcomers:
    """What a run asks on every frame that was just tracked."""

    finder: Finder
    tracker: Tracker
    job: Job
    options: Options
    frames: Sequence[int]
    """all frames of the run, in the order of tracking"""
    snapshot: Callable[[Collection[int]], Snapshot]
    """what is in the job now, with the shapes of these frames whole"""
    make: Callable[[Seed], TrackedObject]
    pace: Pace

    def __call__(self, frame: int, objects: Sequence[TrackedObject]) -> list[TrackedObject]:
        """The objects that begin on this frame. Raises ActionError, CallFailed."""
        place = self.frames.index(frame) + 1
        if place % self.options.every:
            return []
        found = _wanted(self.finder, self.job, self.options, frame)
        if not found:
            return []
        back = [self.options.frame, *self.frames[: place - 1]][::-1]
        earlier = back if self.options.both_ways else []
        snapshot = self.snapshot({frame, *earlier})
        room = self.options.most_found - sum(o.seed.found for o in objects)
        there = self._there(snapshot, objects, frame)
        new = _new(
            self.finder,
            lambda: Loop(self.tracker, self.job, [], self.pace),
            self.options,
            frame,
            found,
            there,
            room,
        )
        entered = self._entered(new, frame, snapshot, objects)
        if earlier and entered:
            self._back(entered, earlier, snapshot, objects)
        return entered

    def _entered(
        self,
        new: Iterable[Detection],
        frame: int,
        snapshot: Snapshot,
        objects: Sequence[TrackedObject],
    ) -> list[TrackedObject]:
        taken = {k.mark.number for k in snapshot.shapes.values() if k.mark}
        taken |= {o.seed.number for o in objects}
        known = sum(o.seed.found for o in objects)
        entered = []
        for count, d in enumerate(new, known + 1):
            number = free_number(number_of_drawing(d.type, frame, d.points), taken)
            taken.add(number)
            entered.append(self.make(replace(_seed(d, frame, count), number=number)))
        return entered

    def _there(
        self, snapshot: Snapshot, objects: Sequence[TrackedObject], frame: int
    ) -> list[Outline]:
        tracked = [
            (o.seed.ref, o.seed.type, points)
            for o in objects
            if (t := o.frames.get(frame))
            and (points := t.unsure if t.points is None else t.points) is not None
        ]
        return _outlines([*outlines_on(self.job, snapshot.annotations, frame), *tracked])

    def _back(
        self,
        entered: Sequence[TrackedObject],
        earlier: Sequence[int],
        snapshot: Snapshot,
        objects: Sequence[TrackedObject],
    ) -> None:
        """Tracks objects back to where they came into sight, or to where another one is."""
        behind = [TrackedObject(o.seed, tuning=o.tuning) for o in entered]

        def stop_those_that_began(frame: int, _: Sequence[TrackedObject]) -> None:
            there = self._there(snapshot, objects, frame)
            for o in behind:
                t = o.frames.get(frame)
                if o.asleep or t is None:
                    continue
                if t.points is None or _is_there(Outline(o.seed.type, t.points), there):
                    o.asleep = True
                    del o.frames[frame]
            if all(o.asleep or not o.live for o in behind):
                raise StopTracking

        run = track(
            self.tracker, self.job, behind, earlier, pace=self.pace,
            on_frame=stop_those_that_began,
        )  # fmt: skip
        if run.interrupted:
            raise KeyboardInterrupt
        if run.broken and any(o.live for o in behind):
            raise ActionError(run.broken)
        for o, each in zip(entered, behind, strict=True):
            o.frames |= each.frames


def object_of(seed: Seed, tuning: Tuning) -> TrackedObject:
    """An object to track; one that was found has its first result on its own frame."""
    o = TrackedObject(seed, tuning=tuning)
    if seed.found:
        o.frames[seed.frame] = Tracked(compact(seed.type, seed.points), seed.score)
    return o


def _new(
    finder: Finder,
    loop: Callable[[], Loop],
    options: Options,
    frame: int,
    found: Sequence[Detection],
    there: Sequence[Outline],
    room: int,
) -> list[Detection]:
    """What was found that is not there yet, as it is tracked, and tells how much that is.

    room: for how many there is room.
    """
    new: Sequence[Detection] = found
    if options.masks:
        # A box may be much larger than the mask in it, so the masks are compared, too.
        boxes, _ = new_ones(found, there, len(found))
        new = _to_masks(loop(), frame, boxes)
    new, left = new_ones(new, there, max(room, 0))
    _tell(finder, frame, found, new, left)
    return new


def _to_masks(loop: Loop, frame: int, new: Sequence[Detection]) -> list[Detection]:
    """Boxes as the masks that the tracker finds for them; those that it finds none for go."""
    boxes = [d for d in new if d.type == "rectangle"]
    prompts = [{"type": "rectangle", "points": list(d.points)} for d in boxes]
    masks = iter(_ask(lambda: loop, frame, "mask", prompts))
    whole = []
    for d in new:
        if d.type == "rectangle":
            mask, why = next(masks)
            if mask is None or mask.points is None:
                logger.warning("Frame %d: a box gives no mask: %s.", frame, why.rstrip("."))
                continue
            d = replace(d, type="mask", points=mask.points)
        whole.append(d)
    return whole


def _ask(
    loop: Callable[[], Loop], frame: int, shape_type: str, prompts: Sequence[Wire]
) -> list[tuple[Tracked | None, str]]:
    """What the tracker finds of prompts, as shapes of this type; None and why where nothing."""
    nothing = Detection(0, shape_type, ())
    objects = [TrackedObject(_seed(nothing, frame, n)) for n in range(1, len(prompts) + 1)]
    return loop().outlines(frame, objects, prompts)


def _wanted(finder: Finder, job: Job, options: Options, frame: int) -> list[Detection]:
    def is_wanted(d: Detection) -> bool:
        becomes = "mask" if options.masks and d.type == "rectangle" else d.type
        named = not options.labels or job.label(d.label_id).name in options.labels
        return named and (not options.types or becomes in options.types)

    return [d for d in finder.find(frame) if is_wanted(d)]


def _seed(d: Detection, frame: int, count: int) -> Seed:
    wire: Wire = {
        "id": None,
        "type": d.type,
        "frame": frame,
        "label_id": d.label_id,
        "group": 0,
        "source": "auto",
        "points": list(d.points),
        "attributes": list(d.attributes),
    }
    return Seed(
        ref=f"new:{count}",
        type=d.type,
        frame=frame,
        points=tuple(d.points),
        wire=wire,
        occluded=False,
        z_order=0,
        found=True,
        score=d.score,
    )


def _outlines(drawn: Iterable[tuple[str, str, Sequence[float]]]) -> list[Outline]:
    return [Outline(shape_type, points, f"object {ref}") for ref, shape_type, points in drawn]


def _is_there(outline: Outline, there: Sequence[Outline]) -> bool:
    return any(outline.iou(each) >= SAME for each in there)


def _tell(
    finder: Finder, frame: int, found: Sequence[Detection], new: Sequence[Detection], left: int
) -> None:
    if found:
        logger.info(
            "Frame %d: %s found %d, of which %d are new.", frame, finder.name, len(found), len(new)
        )
    if left:
        logger.warning(
            "Frame %d: %d more of what %s found are left out, because --max-objects is reached. "
            "Raise it, or find less with --threshold or --label.",
            frame,
            left,
            finder.name,
        )
