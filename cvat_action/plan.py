# SPDX-License-Identifier: MIT
"""Everything that is decided before the first call: what is tracked, where to, what is replaced.

`track`, `local`, `--dry-run` and `--resume` all run from a plan; the journal begins with it.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from cvat_action.corrections import with_corrections, with_relabelled
from cvat_action.earlier import (
    Found,
    earlier_results,
    with_numbers,
    without_corrected_results,
)
from cvat_action.errors import ActionError, NothingToTrack
from cvat_action.geometry import TRACKABLE
from cvat_action.holes import drawn_on_the_way, fill_holes
from cvat_action.identity import RUNS, KnownNumbers, number_of, numbers_of
from cvat_action.job import Job, check_range
from cvat_action.positions import removed_keyframes
from cvat_action.seeds import Refusal, Seed, Tuning, becomes_track
from cvat_action.selection import Selection, select, select_on_all
from cvat_action.snapshot import Known, Snapshot, track_content

MOST_FOUND = 100
ALL_BY_HAND = (
    "every frame of the range has a keyframe that a person made, or an older version of this "
    "command; delete in CVAT those that are to be tracked again"
)


@dataclass(frozen=True)
class Options:
    """What the person asked for."""

    frame: int
    target: int | None = None
    """None: the last frame of the job, with `backward` the first"""
    objects: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    """shape types of the objects that are tracked; none: all"""
    min_score: float | None = None
    """results that are less sure, from 0 to 1, are not written; None: all are"""
    convert: bool = False
    backward: bool = False
    keyframes: bool = False
    leave_open: bool = False
    replace: bool = False
    keep_earlier: bool = False
    all_seeds: bool = False
    memory: str | None = None
    """memory policy of the function; None: its own"""
    search_region: float | None = None
    """side of the window in which an object is searched, in sizes of the object; 0: no window;
    None: the function's own"""
    both_ways: bool = False
    """with `keyframes`: every gap between drawn frames is tracked from both ends"""
    parallel: int = 1
    """calls at once, with `both_ways`"""
    tolerance: float | None = None
    """of polygons, how much their IoU with the mask may be short of 1; None: the function's own"""
    sparse: float | None = None
    """least IoU of what CVAT makes between sparse keyframes; None: a keyframe on every frame"""
    points: tuple[str, ...] = ()
    """`LABEL x,y -x,y`: objects that begin with clicks on the frame"""
    points_as: str = "mask"
    """what they become: `mask` or `polygon`"""
    detect: str | None = None
    """a function of the server, or a file of detections, whose objects are tracked too"""
    threshold: float | None = None
    """least confidence of a detection, 0 to 1; None: the detector's own"""
    mapping: tuple[str, ...] = ()
    """`MODEL=LABEL`: which label of the job a label of the detector becomes; none: equal names"""
    texts: tuple[str, ...] = ()
    """what to look for, in words"""
    everything: str | None = None
    """track all objects of a frame too: the words for the interactor (docs/interactor.md)"""
    every: int = 0
    """look for new objects once in this many frames; 0: on the first frame only"""
    most_found: int = MOST_FOUND
    """objects of a run that were found"""
    masks: bool = False
    """detected boxes become masks"""

    @property
    def finds(self) -> bool:
        return self.detect is not None or self.everything is not None


@dataclass(frozen=True)
class Plan:
    server: str
    """empty: no server, the job is a file"""
    job: Job
    function: str
    options: Options
    frames: tuple[int, ...]
    """in the order of tracking, without the frame of the seeds"""
    seeds: tuple[Seed, ...]
    run: int
    """the run's number in the marks of its shapes"""
    newest: tuple[int, int]
    """the highest ids of shapes and tracks that were there; higher ones appeared later"""
    refused: tuple[Refusal, ...] = ()
    earlier: Found = field(default_factory=dict)
    """what is replaced, as it was"""
    owned: frozenset[int] = frozenset()
    """numbers of the objects whose drawings are in the job"""
    near: frozenset[int] = frozenset()
    """numbers of objects with results on the frame before the run's and nothing on its first one: a
    person may have drawn them anew"""
    differing: frozenset[int] = frozenset()
    """numbers of the objects whose earlier shapes differ in label, group or attributes"""
    question: str | None = None
    """what has to be answered by an option before anything may be written"""
    warnings: tuple[str, ...] = ()

    @property
    def target(self) -> int:
        return target_of(self.job, self.options)

    def tuning_of(self, seed: Seed) -> Tuning:
        """What the function is asked for: sparse keyframes are made of exact outlines."""
        options = self.options
        sparse = options.sparse is not None and self.becomes_track(seed)
        return Tuning(
            memory=options.memory,
            tolerance=0.0 if sparse else options.tolerance,
            search_region=options.search_region,
        )

    def becomes_track(self, seed: Seed) -> bool:
        return becomes_track(seed, convert=self.options.convert)


def target_of(job: Job, options: Options) -> int:
    if options.target is not None:
        return options.target
    return job.start_frame if options.backward else job.stop_frame


def wants_whole(options: Options) -> Any:
    """Says which shapes a plan needs whole: those of the frame, and what persons drew."""
    return lambda shape: shape["frame"] == options.frame or shape.get("source") != "auto"


def make_plan(
    job: Job,
    snapshot: Snapshot,
    options: Options,
    *,
    server: str = "",
    function: str = "",
    supported: Sequence[str] = TRACKABLE,
    receipts: Mapping[int, int] = MappingProxyType({}),
    tracks: Mapping[int, int] = MappingProxyType({}),
    newcomers: Sequence[Seed] = (),
) -> Plan:
    """Raises ActionError where there is nothing to track, or it cannot be told whose a shape is.

    receipts: number of an object by the id of its seed, of earlier runs of this command; tracks: by
    the id of the track that it became.
    newcomers: what a detector found on the first frame.
    """
    target = target_of(job, options)
    check_range(job, options.frame, target, backward=options.backward)
    frames = job.frames_between(options.frame, target)
    more = bool(newcomers) or options.every > 0
    seeds, refused = _select(job, snapshot, options, frames, supported, more=more)
    seeds = (*seeds, *newcomers)
    numbers = _numbers(snapshot, options, frames, {s.type for s in seeds}, receipts)
    known = KnownNumbers(numbers, receipts, tracks, _labels_of_marked(snapshot))
    seeds = with_numbers(seeds, known)
    if not options.keep_earlier:
        seeds, as_shapes = _without_those_as_shapes(snapshot, seeds, frames, known, more=more)
        refused = (*refused, *as_shapes)
    seeds, found, about_others = _earlier(job, snapshot, options, seeds, frames, known)
    seeds, warnings = with_corrections(
        job, snapshot.annotations, seeds, frames, known, unmarked=options.keyframes
    )
    if not options.keep_earlier:
        on_the_way = drawn_on_the_way(job, snapshot, seeds, found, options.frame, frames, known)
        about_others = (*about_others, *on_the_way)
    seeds = tuple(with_relabelled(s, convert=options.convert) for s in seeds)
    if options.sparse is None and not options.replace:
        seeds, about_removed = _with_removed(job, seeds, frames)
        warnings = (*warnings, *about_removed)
    seeds, by_hand = _without_those_by_hand(seeds, len(frames), more=more)
    wanted = set(frames)
    return Plan(
        server=server,
        job=job,
        function=function,
        options=options,
        frames=tuple(frames),
        seeds=tuple(_slim(s, wanted) for s in seeds),
        run=_free_run(snapshot),
        newest=snapshot.newest,
        refused=(*refused, *by_hand),
        earlier={} if options.keep_earlier else found,
        owned=frozenset(n for i, n in numbers.items() if i in snapshot.shapes),
        near=_near(job, snapshot, options, seeds, frames, known),
        differing=_differing(snapshot, seeds, found),
        question=_question(found, options),
        warnings=(*about_others, *warnings, *_equal_tracks(seeds)),
    )


def _equal_tracks(seeds: Sequence[Seed]) -> tuple[str, ...]:
    """Warnings of tracks with the same keyframes, as a request leaves them that CVAT carried out
    after the end of its run."""
    alike: dict[int, list[str]] = {}
    for seed in seeds:
        if seed.is_track:
            alike.setdefault(track_content(seed.wire), []).append(seed.ref)
    return tuple(
        f"These tracks are equal, delete all but one: {', '.join(refs)}."
        for refs in alike.values()
        if len(refs) > 1
    )


def _numbers(
    snapshot: Snapshot,
    options: Options,
    frames: Sequence[int],
    types: Collection[str],
    receipts: Mapping[int, int],
) -> dict[int, int]:
    """Numbers of objects by the id of a shape: of all receipts, and of what the run goes over.

    types: of the seeds; only shapes of one type can have equal numbers.
    """
    on, wanted = {options.frame, *frames}, wants_whole(options)
    drawn = [
        s for s in snapshot.whole.values() if s["frame"] in on and s["type"] in types and wanted(s)
    ]
    return {**receipts, **numbers_of(drawn, receipts)}


def _labels_of_marked(snapshot: Snapshot) -> dict[int, set[int]]:
    """The labels of the marked shapes, by their number."""
    labels: dict[int, set[int]] = {}
    for k in snapshot.shapes.values():
        if k.mark:
            labels.setdefault(k.mark.number, set()).add(k.kind[0])
    return labels


def _earlier(
    job: Job,
    snapshot: Snapshot,
    options: Options,
    seeds: Sequence[Seed],
    frames: Sequence[int],
    known: KnownNumbers,
) -> tuple[tuple[Seed, ...], Found, tuple[str, ...]]:
    """The seeds, what earlier runs left of them, and warnings. Raises ActionError where it cannot
    be told whose a shape is, and nothing is said about it."""
    about_others: tuple[str, ...] = ()
    try:
        if not options.keep_earlier:
            seeds, about_others = without_corrected_results(job, snapshot, seeds, frames, known)
        seeds, found, warnings = earlier_results(job, snapshot, seeds, frames, known)
        warnings = tuple(dict.fromkeys((*about_others, *warnings)))
    except ActionError:
        if not options.keep_earlier:
            raise
        return tuple(seeds), {}, ()
    if options.keep_earlier:
        return seeds, found, warnings
    seeds, found, more = fill_holes(job, snapshot, seeds, found, options.frame, frames, known)
    return seeds, found, (*warnings, *more)


def _question(found: Found, options: Options) -> str | None:
    earlier = [k for on_frame in found.values() for shapes in on_frame.values() for k in shapes]
    if not earlier or options.replace or options.keep_earlier:
        return None
    on = sorted({k.frame for k in earlier})
    return (
        f"{len(earlier)} shapes on frames {on[0]} to {on[-1]} are an earlier run's, or look "
        "like it. --replace replaces them; --keep-earlier writes beside them."
    )


def _without_those_by_hand(
    seeds: Sequence[Seed], frames: int, *, more: bool
) -> tuple[tuple[Seed, ...], tuple[Refusal, ...]]:
    """The seeds without the tracks that a person drew on every frame to be tracked.

    frames: the number of those. more: objects may be found besides.
    """
    wholly = {s.ref: ALL_BY_HAND for s in seeds if s.is_track and len(s.corrections) == frames}
    return _without(seeds, wholly, more=more)


def _without_those_as_shapes(
    snapshot: Snapshot,
    seeds: Sequence[Seed],
    frames: Sequence[int],
    known: KnownNumbers,
    *,
    more: bool,
) -> tuple[tuple[Seed, ...], tuple[Refusal, ...]]:
    """The seeds without the tracks of which a person drew or corrected a shape on these frames.

    A shape with another label is no part of a track.

    more: objects may be found besides.
    """
    wanted = set(frames)
    by_hand: dict[tuple[int, int], set[int]] = {}
    for s in snapshot.whole.values() if any(s.is_track and s.number for s in seeds) else ():
        if s["frame"] in wanted and s.get("source") != "auto":
            own = number_of(s, known.of_shapes), s["label_id"]
            by_hand.setdefault(own, set()).add(s["frame"])
    both = {
        s.ref: "a person drew or corrected shapes of it, on frame "
        f"{listed(by_hand[s.number, s.label_id])}; delete these in CVAT, or write beside them "
        "with --keep-earlier"
        for s in seeds
        if s.is_track and (s.number, s.label_id) in by_hand
    }
    return _without(seeds, both, more=more)


def _without(
    seeds: Sequence[Seed], reasons: Mapping[str, str], *, more: bool
) -> tuple[tuple[Seed, ...], tuple[Refusal, ...]]:
    """The seeds without those that have a reason to be left alone, and these as refusals.

    reasons: by the seed's ref. more: objects may be found besides. Raises ActionError where nothing
    is left to track.
    """
    refused = tuple(Refusal(s.ref, s.label_id, reasons[s.ref]) for s in seeds if s.ref in reasons)
    left = tuple(s for s in seeds if s.ref not in reasons)
    if refused and not left and not more:
        raise ActionError(f"There is nothing to track: {refused[0].ref}: {refused[0].reason}.")
    return left, refused


def _near(
    job: Job,
    snapshot: Snapshot,
    options: Options,
    seeds: Sequence[Seed],
    frames: Sequence[int],
    known: KnownNumbers,
) -> frozenset[int]:
    start = options.frame
    frame_before = job.frame_before(start, frames[0])
    marked = [k for k in snapshot.shapes.values() if k.mark]
    before = {k.mark.number for k in marked if k.mark and k.frame == frame_before}
    here = {k.mark.number for k in marked if k.mark and k.frame == start}
    here |= {s.number for s in seeds if s.frame == start}
    drawn = (s for s in snapshot.whole.values() if s["frame"] == start)
    return frozenset(before - here - {number_of(s, known.of_shapes) for s in drawn})


def _differing(snapshot: Snapshot, seeds: Sequence[Seed], found: Found) -> frozenset[int]:
    """The numbers of objects whose untouched results in the job differ in label, group or
    attributes."""
    seen = {s.wire.get("id") for s in seeds}
    said: dict[int, set[tuple[int, int, int]]] = {number: set() for number in found}

    def add(number: int, k: Known) -> None:
        if k.id not in seen:
            said[number].add((k.kind[0], k.kind[2], k.attributes))

    for number, on_frame in found.items():
        for shapes in on_frame.values():
            for k in shapes:
                add(number, k)
    for k in snapshot.shapes.values():
        if k.auto and k.mark and k.mark.number in said:
            add(k.mark.number, k)
    return frozenset(number for number, sets in said.items() if len(sets) > 1)


def _select(
    job: Job,
    snapshot: Snapshot,
    options: Options,
    frames: Sequence[int],
    supported: Sequence[str],
    *,
    more: bool,
) -> tuple[tuple[Seed, ...], tuple[Refusal, ...]]:
    """more: objects that were found, or may be, are tracked besides."""

    which: dict[str, Any] = {
        "objects": options.objects,
        "labels": options.labels,
        "excluded": options.excluded,
        "types": options.types,
        "supported": supported,
    }
    if options.all_seeds:
        selection = select_on_all(job, snapshot.annotations, (options.frame, *frames), **which)
        if not selection.seeds and not more:
            raise (ActionError if selection.refused else NothingToTrack)(
                f"There is nothing to track in {job.name}.{_passed_over(selection, options)}"
            )
        return selection.seeds, selection.refused
    selection = select(job, snapshot.annotations, options.frame, **which)
    if not selection.seeds and not more:
        reasons = [f"{r.ref}: {r.reason}" for r in selection.refused]
        found = reasons or selection.passed_over
        raise (ActionError if reasons else NothingToTrack)(
            f"There is nothing to track on frame {options.frame} of {job.name}"
            + (", and nothing new was found there." if options.finds else ".")
            + (f" Left alone: {'; '.join(reasons)}." if reasons else "")
            + _passed_over(selection, options)
            + ("" if found or options.finds else " Name another frame with --frame.")
        )
    return selection.seeds, selection.refused


def _passed_over(selection: Selection, options: Options) -> str:
    """Says which options leave nothing to track, where they do."""
    count = len(selection.passed_over)
    if selection.refused or not count:
        return ""
    given = {
        "--object": options.objects,
        "--exclude": options.excluded,
        "--label": options.labels,
        "--type": options.types,
    }
    names = " and ".join(name for name, values in given.items() if values)
    return f" Of {count} object{'' if count == 1 else 's'} there, none passes {names}."


def _with_removed(
    job: Job, seeds: Sequence[Seed], frames: Sequence[int]
) -> tuple[tuple[Seed, ...], tuple[str, ...]]:
    """The seeds with the frames of the run whose keyframe a person deleted, and warnings."""
    wanted = set(frames)
    seeds = tuple(
        replace(s, removed=removed_keyframes(job, s.wire) & wanted) if s.is_track else s
        for s in seeds
    )
    return seeds, tuple(
        f"{s.ref}: its keyframes on these frames seem to have been deleted: {listed(s.removed)}. "
        "CVAT goes on interpolating there; --replace writes them again."
        for s in seeds
        if s.removed
    )


def listed(frames: Collection[int], most: int = 10) -> str:
    return ", ".join(map(str, sorted(frames)[:most])) + (" …" if len(frames) > most else "")


def _slim(seed: Seed, frames: set[int]) -> Seed:
    """Without the keyframes of a track, of which only those of the run's frames are recognised."""
    if not seed.is_track:
        return seed
    wire = {key: value for key, value in seed.wire.items() if key != "shapes"}
    keyframes = {f: h for f, h in seed.keyframes.items() if f in frames}
    return replace(seed, wire=wire, keyframes=keyframes)


def _free_run(snapshot: Snapshot) -> int:
    used = {k.mark.run for k in snapshot.shapes.values() if k.mark}
    free = [run for run in range(RUNS) if run not in used] or list(range(RUNS))
    return random.SystemRandom().choice(free)
