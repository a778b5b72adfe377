# SPDX-License-Identifier: MIT
"""The shapes that earlier runs left of the objects of this run (docs/identity.md).

Marked shapes are known by the number of their object. Where there is no mark, an object is followed
from frame to frame by the overlap of boxes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np

from cvat_action.errors import ActionError
from cvat_action.geometry import SAME_OBJECT, Box, bounding_box, boxes_iou
from cvat_action.identity import KnownNumbers, free_number, mark_of, number_of, numbers_of
from cvat_action.job import Job
from cvat_action.kinds import Kind, compared_kind_of, same_kind
from cvat_action.seeds import Seed
from cvat_action.snapshot import Known, Snapshot

Found = dict[int, dict[int, list[Known]]]
"""number of an object to frame to its earlier shapes there"""
Family = tuple[int, str]
"""label id and type"""


@dataclass
class _Chain:
    """An object of the start frame, followed through shapes without a mark."""

    box: Box
    number: int
    """of a seed of this run; 0: an object that is not part of it"""
    first: int
    """the place, among the frames of the run, of the first one after its own"""
    kind: Kind
    """as `compared_kind` gives it"""
    decided: bool
    """marked shapes of the job carry its number, or one that it took over: no others are its own"""
    beside: Collection[int]
    """numbers of the marked shapes on its own frame; these are other objects"""
    near: Collection[int]
    """numbers of the marked shapes on the frame before: it may be one of these objects"""
    ref: str = ""
    """what `--object` calls the seed"""


def with_numbers(seeds: Sequence[Seed], known: KnownNumbers) -> tuple[Seed, ...]:
    """The seeds with the numbers of their objects.

    A seed of a later frame that is a corrected result of one before it is left out.
    """
    taken: dict[int, Seed] = {}
    """number to its seed"""

    def is_of(seed: Seed, before: Seed) -> bool:
        if mark_of(seed.wire.get("score"), seed.frame):
            return True
        if before.frame == seed.frame:
            return False
        of_drawing = before.found or known.is_of_drawing(before.wire)
        return known.is_own(seed.wire, before.number, of_drawing=of_drawing)

    numbered = []
    for seed in seeds:
        if not seed.is_track:
            number = number_of(seed.wire, known.of_shapes)
            before = taken.get(number)
            if seed.asleep and before and is_of(seed, before):
                continue  # of an object before it: a correction, or what it began with
            seed = replace(seed, number=free_number(number, taken))
            taken[seed.number] = seed
        numbered.append(seed)
    return tuple(
        replace(s, number=number)
        if s.is_track and (number := known.of_tracks.get(s.wire["id"], 0)) not in taken
        else s
        for s in numbered
    )


def without_corrected_results(
    job: Job,
    snapshot: Snapshot,
    seeds: Sequence[Seed],
    frames: Sequence[int],
    known: KnownNumbers,
) -> tuple[tuple[Seed, ...], tuple[str, ...]]:
    """The seeds without results that a person corrected, where their object was drawn anew, and
    warnings.

    Such an object takes its old number over, which shows only as long as no seed has it. Raises
    ActionError as `earlier_results` does.
    """
    corrected = {s.ref for s in seeds if s.asleep and mark_of(s.wire.get("score"), s.frame)}
    if not corrected:
        return tuple(seeds), ()
    others = [s for s in seeds if s.ref not in corrected]
    drawn, _, warnings = earlier_results(job, snapshot, others, frames, known)
    by_ref = {s.ref: s for s in drawn}
    taken = {s.number for s in drawn}
    left = (by_ref.get(s.ref, s) for s in seeds if s.ref in by_ref or s.number not in taken)
    return tuple(left), warnings


def earlier_results(
    job: Job,
    snapshot: Snapshot,
    seeds: Sequence[Seed],
    frames: Sequence[int],
    known: KnownNumbers,
) -> tuple[tuple[Seed, ...], Found, tuple[str, ...]]:
    """The seeds, the automatic shapes of earlier runs on `frames` (in the order of tracking), and
    warnings.

    A seed without shapes of its own number takes over the number of a marked shape that it
    overlaps, on the frame next to its own or on the first one with shapes of this number, unless
    another object of the job has the number. Raises ActionError where it cannot be told whose a
    shape without a mark is.
    """
    found: Found = {s.number: {} for s in seeds if s.number}
    if not found:
        return tuple(seeds), found, ()
    place = {frame: n for n, frame in enumerate(frames)}
    chains = {
        family: _chains(job, snapshot, seeds, family, place, known)
        for family in {_family(s) for s in seeds if not s.is_track}
    }
    first_results = _first_results(snapshot, place)
    others_numbers = _numbers_of_others(snapshot, seeds, known)
    unclear = _sort_out(snapshot, found, chains, place, first_results, others_numbers)
    others = {
        s.number: found[s.number]
        for s in seeds
        if not s.is_track and s.number in known.labels
        if not _is_decided(s.wire, s.number, known)
    }
    """what may be of an equal drawing with another label, that is gone"""
    found |= {number: {} for number in others}
    following = _Following(job, found, first_results, partial(owners_of, snapshot, known))
    for family, on_frame in unclear.items():
        for frame in frames:
            if frame in on_frame:
                following.go_on(place[frame], frame, on_frame[frame], chains[family])
    renamed = following.renamed
    for number in others.keys() - renamed.keys():
        for frame, shapes in others[number].items():
            found[number].setdefault(frame, []).extend(shapes)
    return (
        tuple(replace(s, number=renamed.get(s.number, s.number)) for s in seeds),
        under_new_numbers(found, renamed, snapshot, set(frames)),
        tuple(following.warnings),
    )


def _sort_out(
    snapshot: Snapshot,
    found: Found,
    chains: Mapping[Family, Sequence[_Chain]],
    place: Mapping[int, int],
    first_results: Collection[int],
    others_numbers: Collection[int],
) -> dict[Family, dict[int, list[Known]]]:
    """The shapes whose numbers do not say whose they are, by frame. The others go to `found`.

    place: of a frame among those of the run. others_numbers: of drawings that no seed stands for.
    """
    firsts = {c.first for alike in chains.values() for c in alike}
    unclear: dict[Family, dict[int, list[Known]]] = {family: {} for family in chains}
    for k in snapshot.shapes.values():
        if k.frame not in place:
            continue
        number = k.mark.number if k.mark else 0
        if k.auto and number in found:
            found[number].setdefault(k.frame, []).append(k)
        elif k.kind[:2] not in unclear or number in found or number in others_numbers:
            continue
        elif (place[k.frame] in firsts or k.id in first_results) if number else k.auto:
            unclear[k.kind[:2]].setdefault(k.frame, []).append(k)
    return unclear


def _is_decided(shape: Mapping[str, Any], number: int, known: KnownNumbers) -> bool:
    """Whether the marked shapes with the number of a shape's object are of this object.

    Where nothing says so but a number that the drawing gives, and all have another label, they may
    be of an equal drawing that is gone.
    """
    if mark_of(shape.get("score"), shape["frame"]):
        return True
    labels = known.labels.get(number, ())
    return bool(labels) and (shape.get("id") in known.receipts or shape["label_id"] in labels)


def _first_results(snapshot: Snapshot, place: Mapping[int, int]) -> set[int]:
    """Ids of the shapes on the first frame of the run that has any of their object: of objects that
    may have been drawn anew, for no first result of theirs gives their number.

    place: of a frame among those of the run.
    """
    marked = [
        (k, (k.mark.number, *k.kind[:2]))
        for k in snapshot.shapes.values()
        if k.mark and k.frame in place and k.mark.number not in snapshot.begun
    ]
    first: dict[tuple[int, int, str], int] = {}
    for k, own in marked:
        first[own] = min(place[k.frame], first.get(own, len(place)))
    return {k.id for k, own in marked if place[k.frame] == first[own]}


def _numbers_of_others(snapshot: Snapshot, seeds: Sequence[Seed], known: KnownNumbers) -> set[int]:
    """Numbers of the drawings on the seeds' frames that are not part of the run."""
    on = {s.frame for s in seeds}
    return {
        number_of(s, known.of_shapes)
        for s in snapshot.whole.values()
        if s["frame"] in on and not mark_of(s.get("score"), s["frame"])
    }


def owners_of(snapshot: Snapshot, known: KnownNumbers) -> dict[int, str]:
    """By its number, what `--object` calls each object that a person drew in the job."""
    drawn = [
        s
        for s in snapshot.whole.values()
        if s.get("source") != "auto" and not mark_of(s.get("score"), s["frame"])
    ]
    frames = {s["id"]: s["frame"] for s in drawn}
    refs = {n: f"{i} (frame {frames[i]})" for i, n in numbers_of(drawn, known.of_shapes).items()}
    return refs | {n: f"track:{i}" for i, n in known.of_tracks.items() if i in snapshot.tracks}


def _family(seed: Seed) -> Family:
    return seed.label_id, seed.type


def _chains(
    job: Job,
    snapshot: Snapshot,
    seeds: Sequence[Seed],
    family: Family,
    place: Mapping[int, int],
    known: KnownNumbers,
) -> list[_Chain]:
    """place: of a frame among those of the run."""
    own = [s for s in seeds if not s.is_track and _family(s) == family]
    ids = {s.wire["id"] for s in own}
    first = {s.frame: place.get(s.frame, -1) + 1 for s in own}
    following = next(iter(place), 0)
    before = {f: None if f in place else job.frame_before(f, following) for f in first}
    on: dict[int | None, set[int]] = {frame: set() for frame in (*first, *before.values())}
    for k in snapshot.shapes.values():
        if k.mark and k.frame in on:
            on[k.frame].add(k.mark.number)
    chains = [
        _Chain(
            bounding_box(s.type, s.points),
            s.number,
            first[s.frame],
            compared_kind_of(s.wire),
            _is_decided(s.wire, s.number, known),
            on[s.frame],
            on[before[s.frame]],
            s.ref,
        )
        for s in own
    ]

    def decided(k: Known) -> bool:
        whole = snapshot.whole.get(k.id)
        return bool(
            k.mark or whole and _is_decided(whole, number_of(whole, known.of_shapes), known)
        )

    return chains + [
        _Chain(
            k.box,
            0,
            first[k.frame],
            k.compared_kind,
            decided(k),
            on[k.frame],
            on[before[k.frame]],
        )
        for k in snapshot.shapes.values()
        if k.kind[:2] == family and k.frame in first and k.id not in ids
    ]


class _Following:
    """Links the shapes of one frame after the other to chains, which move on."""

    def __init__(
        self,
        job: Job,
        found: Found,
        first_results: Collection[int],
        owners: Callable[[], Mapping[int, str]],
    ) -> None:
        """found: it gets the shapes of seeds. first_results: ids of shapes that a chain may take
        over on any frame. owners: gives the names of the objects that persons drew, by number; it
        takes long in a large job."""
        self.renamed: dict[int, int] = {}
        """number of a seed to the one that it takes over"""
        self.warnings: list[str] = []
        self._taken: set[int] = set()
        """numbers that were taken over, also by objects that are not part of the run"""
        self._job = job
        self._found = found
        self._first_results = first_results
        self._owners = cache(owners)

    def go_on(self, at: int, frame: int, shapes: list[Known], chains: list[_Chain]) -> None:
        """`at`: the place of the frame among those of the run. Raises ActionError."""
        chains = [c for c in chains if c.first <= at]
        shapes = _fitting(shapes, chains)
        marked = [k for k in shapes if k.mark]
        if marked:
            owned = [k for k in marked if k.mark and k.mark.number in self._owners()]
            shapes = [k for k in shapes if k not in owned]
            new = [c for c in chains if c.first == at and c.number]
            for c in chains:
                near = [k for k in owned if c in new or k.mark and k.mark.number in c.near]
                self._warn_of(frame, near, [c])
            elsewhere = [c for c in new if c.decided and frame not in self._found[c.number]]
            self._warn_of(frame, [k for k in marked if k not in owned], elsewhere)
        shape_of = self._linked(at, shapes, chains)
        for i, j in shape_of.items():
            chain, shape = chains[i], shapes[j]
            chain.box = shape.box
            if shape.mark is None:
                if chain.number:
                    self._found[chain.number].setdefault(frame, []).append(shape)
            elif shape.mark.number not in self._taken:
                self._taken.add(shape.mark.number)
                chain.decided = True
                if chain.number:
                    self.renamed[chain.number] = shape.mark.number
        linked = set(shape_of.values())
        lone = [
            c
            for i, c in enumerate(chains)
            if c.number
            and i not in shape_of
            and frame not in self._found[c.number]
            and c.number not in self.renamed
        ]
        free = [k for j, k in enumerate(shapes) if j not in linked and k.mark is None]
        if left := _fitting(free, lone):
            label, shape_type, _ = left[0].kind
            raise ActionError(
                f"Frame {frame} holds {len(left)} automatic shapes "
                f"({self._job.label(label).name}, {shape_type}) without a mark, and it cannot be "
                "told whose they are. Select all objects of this label and type, give them "
                "different groups in CVAT, or write beside them with --keep-earlier."
            )

    def _linked(self, at: int, shapes: Sequence[Known], chains: Sequence[_Chain]) -> dict[int, int]:
        """The best pairs of a chain and a shape, one to one, by their places in the lists."""
        if not (chains and shapes):
            return {}
        overlap = boxes_iou([c.box for c in chains], [k.box for k in shapes])
        for i, c in enumerate(chains):
            overlap[i, [not self._may_link(at, c, k) for k in shapes]] = 0
        pairs = np.argwhere(overlap >= SAME_OBJECT)
        best_first = pairs[np.argsort(-overlap[pairs[:, 0], pairs[:, 1]], kind="stable")]
        shape_of: dict[int, int] = {}
        linked: set[int] = set()
        for i, j in best_first.tolist():
            if i not in shape_of and j not in linked:
                shape_of[i] = j
                linked.add(j)
        return shape_of

    def _may_link(self, at: int, chain: _Chain, shape: Known) -> bool:
        """A marked shape is another object's, except for a chain that has no shapes of its own
        number: on the first frame of the chain, and on the first one with shapes of the other
        number.
        """
        if not same_kind(chain.kind, shape.compared_kind):
            return False
        if shape.mark is None:
            return True
        near = chain.first == at or shape.id in self._first_results
        return near and not chain.decided and shape.mark.number not in chain.beside

    def _warn_of(self, frame: int, passed: Sequence[Known], chains: Sequence[_Chain]) -> None:
        """passed: shapes that are not taken over; chains: objects that may be the same."""
        for c in chains:
            alike = _fitting(passed, [c])
            if not alike:
                continue
            overlap = boxes_iou([c.box], [k.box for k in alike])[0]
            mark = alike[int(overlap.argmax())].mark
            if mark is None or overlap.max() < SAME_OBJECT or mark.number in c.beside:
                continue
            if owner := self._owners().get(mark.number):
                whose, what_to_do = f"object {owner}", "track that one with --keyframes instead"
            else:
                whose, what_to_do = "an object whose drawing is gone", "delete them in CVAT"
            self.warnings.append(
                f"Object {c.ref}: on frame {frame} it lies where results of {whose} are; these "
                f"stay. If both are one object, {what_to_do}."
            )


def _fitting(shapes: Sequence[Known], chains: Sequence[_Chain]) -> list[Known]:
    """The shapes that may be of one of these objects by their kinds."""
    kinds = {c.kind for c in chains}
    return [k for k in shapes if any(same_kind(kind, k.compared_kind) for kind in kinds)]


def under_new_numbers(
    found: Found, renamed: dict[int, int], snapshot: Snapshot, wanted: set[int]
) -> Found:
    """`found` under the numbers that seeds took over, with all marked shapes of these."""
    if not renamed:
        return found
    result = {renamed.get(number, number): on_frame for number, on_frame in found.items()}
    new = set(renamed.values())
    for k in snapshot.shapes.values():
        if k.auto and k.mark and k.mark.number in new and k.frame in wanted:
            result[k.mark.number].setdefault(k.frame, []).append(k)
    return result
