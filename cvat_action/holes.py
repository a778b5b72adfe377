# SPDX-License-Identifier: MIT
"""A result that a person deleted to draw the object anew where it really is: too far from the wrong
results for an overlap to tell whose they are (docs/identity.md)."""

from bisect import bisect
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from cvat_action.earlier import Found, owners_of, under_new_numbers
from cvat_action.geometry import SAME_OBJECT, boxes_iou
from cvat_action.identity import KnownNumbers, number_of
from cvat_action.job import Job
from cvat_action.kinds import same_kind
from cvat_action.seeds import Seed
from cvat_action.snapshot import Known, Snapshot


@dataclass(frozen=True)
class _Hole:
    """What drawings of the first frame may stand for."""

    drawings: dict[str, Known]
    """by what `--object` calls them, those to which nothing belongs so far"""
    results: list[Known]
    """on the next frame, of objects with a shape on the frame before, but none on the first; those
    that overlap a drawing are left out"""

    def fitting(self, drawing: Known) -> list[Known]:
        return [k for k in self.results if same_kind(k.compared_kind, drawing.compared_kind)]

    def number_for(self, drawing: Known) -> int | None:
        """The number of the one object that can be meant; None: it cannot be told which one."""
        meant = self.fitting(drawing)
        rivals = [d for d in self.drawings.values() if any(k in meant for k in self.fitting(d))]
        mark = meant[0].mark
        return mark.number if mark and len(meant) == len(rivals) == 1 else None


def fill_holes(
    job: Job,
    snapshot: Snapshot,
    seeds: Sequence[Seed],
    found: Found,
    start: int,
    frames: Sequence[int],
    known: KnownNumbers,
) -> tuple[tuple[Seed, ...], Found, tuple[str, ...]]:
    """What `earlier_results` gives, with the results of the one object that a seed stands for.

    start: the frame before `frames`. The other arguments are those of `earlier_results`, and what
    it gave. A number that a person's drawing or a track has is taken over by no seed.
    """
    hole = _hole(job, snapshot, seeds, found, start, frames, known)
    owners = cache(partial(owners_of, snapshot, known))  # takes long in a large job
    renamed: dict[int, int] = {}
    warnings = []
    for seed in seeds:
        drawing = hole.drawings.get(seed.ref)
        if drawing is None or not hole.fitting(drawing):
            continue
        number = hole.number_for(drawing)
        owner = number and owners().get(number)
        if number is None:
            told = (
                f"More than one object there has no shape on frame {start}, or more than one "
                "drawing may be meant, so all stay. If it is one of them, delete the wrong results."
            )
        elif owner:
            told = (
                f"Those of object {owner} stay, which has no shape on frame {start}. If both are "
                "one object, delete the wrong results."
            )
        else:
            renamed[seed.number] = number
            told = (
                f"It is taken for the one object there that has no shape on frame {start}. If it "
                "is another one, write beside the results with --keep-earlier."
            )
        where = f"Object {seed.ref} lies far from the results on frame {frames[0]}."
        warnings.append(f"{where} {told}")
    return (
        tuple(replace(s, number=renamed.get(s.number, s.number)) for s in seeds),
        under_new_numbers(found, renamed, snapshot, set(frames)),
        tuple(warnings),
    )


def drawn_on_the_way(
    job: Job,
    snapshot: Snapshot,
    seeds: Sequence[Seed],
    found: Found,
    start: int,
    frames: Sequence[int],
    known: KnownNumbers,
) -> tuple[str, ...]:
    """Warnings of drawings on frames where an object has no result, but some before and after.

    The arguments are those of `fill_holes`; the seeds have their corrections. What lies near
    results on the frames beside, or right before or after the gap, is not told, and neither is a
    drawing that has results of its own, or that this run goes on from: it is known whose it is.
    """
    beyond = job.frame_before(frames[-1], start)
    present = _present(snapshot, found, beyond)
    order = [start, *frames, *(() if beyond is None else (beyond,))]
    drawn = {k.frame for k in snapshot.shapes.values() if not k.auto and not k.mark}
    gaps = _Gaps(order, drawn)
    holes = [
        (seed, frame, after, beside)
        for seed in seeds
        if (on := present.get(seed.number, {}))
        for frame, after, beside in gaps.of(on)
    ]
    if not holes:
        return ()
    drawings = _lone_drawings(snapshot, seeds, known, {frame for _, frame, _, _ in holes})
    results: dict[int, list[Known]] = {}
    for on in present.values():
        for frame, there in on.items():
            results.setdefault(frame, []).extend(there)
    near: set[int] = set()
    for frame, beside in {(frame, beside) for _, frame, _, beside in holes if frame in drawings}:
        there = [k for one in beside for k in results.get(one, ())]
        near |= {d.id for d, _ in _near(drawings[frame], there)}
    return tuple(
        f"Shape {d.id} is drawn on frame {frame}, where object {seed.ref} has no "
        f"result. If it is this object, run from frame {frame} first: this run may "
        "write a result beside it."
        for seed, frame, after, _ in holes
        for d in drawings.get(frame, ())
        if d.id not in near
        and same_kind(d.compared_kind, present[seed.number][after][-1].compared_kind)
    )


class _Gaps:
    """Frames with a drawing, on which objects have no shape."""

    def __init__(self, order: Sequence[int], drawn: Collection[int]) -> None:
        """order: the frames of a run, which begins where its objects have a shape."""
        self._order = order
        self._place = {frame: place for place, frame in enumerate(order)}
        self._drawn = sorted(self._place[f] for f in drawn if self._place.get(f))

    def of(self, on: Collection[int]) -> Iterator[tuple[int, int, tuple[int, ...]]]:
        """Each such frame between frames on which the object has a shape: itself, the next one with
        a shape, and the frames beside it and beside its gap. on: where the object has one."""
        if not self._drawn:  # mostly so
            return
        there = sorted({0, *(self._place[frame] for frame in on if frame in self._place)})
        for here in self._drawn:
            after = bisect(there, here)
            if there[after - 1] == here or after == len(there):
                continue
            beside = (there[after - 1], here - 1, here + 1, there[after])
            frames = tuple(self._order[place] for place in beside)
            yield self._order[here], frames[-1], frames


def _lone_drawings(
    snapshot: Snapshot, seeds: Sequence[Seed], known: KnownNumbers, frames: set[int]
) -> dict[int, list[Known]]:
    """By frame, what a person drew there that no run has followed and that this run does not go on
    from."""
    shapes_of = Counter(_number(k, snapshot, known) for k in snapshot.shapes.values())
    settled = {s.wire.get("id") for s in seeds}
    settled |= {c.shape["id"] for s in seeds for c in s.corrections if c.shape and c.sure}
    drawings: dict[int, list[Known]] = {}
    for k in snapshot.shapes.values():
        by_hand = k.frame in frames and not k.auto and not k.mark and k.id not in settled
        if by_hand and shapes_of[_number(k, snapshot, known)] == 1:
            drawings.setdefault(k.frame, []).append(k)
    return drawings


def _present(snapshot: Snapshot, found: Found, beyond: int | None) -> Found:
    """What the job holds of all objects, by number and frame: results, those too that a person
    corrected, and what `found` tells of the run's objects besides.

    beyond: the frame behind the last one of the run, of which `found` tells nothing.
    """
    present: Found = {n: {f: list(ks) for f, ks in on.items()} for n, on in found.items()}
    for k in snapshot.shapes.values():
        if k.mark and (k.frame == beyond or not (k.auto and k.mark.number in found)):
            present.setdefault(k.mark.number, {}).setdefault(k.frame, []).append(k)
    return present


def _number(k: Known, snapshot: Snapshot, known: KnownNumbers) -> int:
    """The number of the object that a shape is of; 0: it says none."""
    if k.mark:
        return k.mark.number
    whole = snapshot.whole.get(k.id)
    return number_of(whole, known.of_shapes) if whole else 0


def _hole(
    job: Job,
    snapshot: Snapshot,
    seeds: Sequence[Seed],
    found: Found,
    start: int,
    frames: Sequence[int],
    known: KnownNumbers,
) -> _Hole:
    settled = {s.wire.get("id") for s in seeds if found.get(s.number)}
    after = frames[0]
    before = job.frame_before(start, after)
    on: dict[int | None, list[Known]] = {start: [], before: [], after: []}
    for k in snapshot.shapes.values():
        if k.frame in on:
            on[k.frame].append(k)

    number = partial(_number, snapshot=snapshot, known=known)
    here = {number(k) for k in on[start]} | {s.number for s in seeds}
    here |= {n for i, n in known.of_tracks.items() if i in snapshot.tracks}
    earlier = {number(k) for k in on[before]}
    marked = [k for k in on[after] if k.mark and k.auto and k.mark.number not in here]
    with_shapes = {k.mark.number for k in snapshot.shapes.values() if k.mark}
    with_shapes |= {n for n, on_frame in found.items() if on_frame}
    open_ = [k for k in on[start] if k.id not in settled and number(k) not in with_shapes]
    lone = [k for k in open_ if not k.auto and not k.mark]
    taken = {k.id for pair in _near(lone, marked) for k in pair}
    return _Hole(
        {str(d.id): d for d in lone if d.id not in taken},
        [k for k in marked if k.mark and k.mark.number in earlier and k.id not in taken],
    )


def _near(drawings: Sequence[Known], results: Sequence[Known]) -> list[tuple[Known, Known]]:
    """The pairs of which the overlap may tell that they are one object."""
    if not (drawings and results):
        return []
    overlap = boxes_iou([d.box for d in drawings], [k.box for k in results])
    pairs = ((drawings[i], results[j]) for i, j in np.argwhere(overlap >= SAME_OBJECT).tolist())
    return [(d, k) for d, k in pairs if same_kind(d.compared_kind, k.compared_kind)]
