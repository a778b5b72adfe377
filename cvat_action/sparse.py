# SPDX-License-Identifier: MIT
"""Which results of a track become keyframes when they are to be sparse (keyframes.py)."""

from bisect import bisect_right
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace

from tqdm import tqdm

from cvat_action.job import Job, Wire
from cvat_action.keyframes import Result, sparse_keyframes
from cvat_action.seeds import Seed
from cvat_action.tracked import Tracked


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """The results of one object in one stage, and the track that they are laid over."""

    job: Job
    seed: Seed
    iou: float
    """least IoU of polygons (keyframes.sparse_keyframes)"""
    before: Mapping[int, Wire]
    """the track's keyframes by frame"""
    results: Mapping[int, Tracked]
    """by frame"""
    still: Set[int]
    """frames of keyframes in `before` that stay as they are"""
    forced: Set[int] = frozenset()
    """frames of results that have a keyframe in any case"""


@dataclass
class Thinned:
    """How many keyframes and points stand for how many frames."""

    frames: int = 0
    keyframes: int = 0
    points: int = 0


@dataclass
class Thinning:
    """Sparse keyframes of a run; what is worked out once is kept until the stage is written."""

    total: Thinned = field(default_factory=Thinned)
    _kept: dict[str, tuple[tuple[int, ...], dict[int, Tracked]]] = field(default_factory=dict)

    def thin(self, stretch: Stretch) -> dict[int, Tracked]:
        """The results on frames that are to have a keyframe, and those that are not visible."""
        ref = stretch.seed.ref
        key = (*stretch.results, -1, *sorted(stretch.still))
        kept = self._kept.get(ref)
        if kept is None or kept[0] != key:
            kept = (key, _thinned(stretch))
            self._kept[ref] = kept
            self._count(stretch, kept[1])
        return kept[1]

    def _count(self, stretch: Stretch, chosen: Mapping[int, Tracked]) -> None:
        total = self.total
        total.frames += sum(t.points is not None for t in stretch.results.values())
        written = [t.points for t in chosen.values() if t.points is not None]
        total.keyframes += len(written)
        total.points += sum(len(points) // 2 for points in written)


def _thinned(stretch: Stretch) -> dict[int, Tracked]:
    seed, before, results = stretch.seed, stretch.before, stretch.results
    flags = _Flags(stretch.job, seed, before)
    chosen = {f: t for f, t in results.items() if t.points is None and f not in stretch.still}
    still = stretch.still | _neighbours(stretch)
    # CVAT turns a box step by step up to a keyframe that is turned, so each has one beside it.
    turned = (f for f in still & before.keys() if before[f].get("rotation"))
    beside = {_beside(stretch.job, f, step) for f in turned for step in (-1, 1)}
    width, height = stretch.job.size(seed.frame)
    with tqdm(
        total=len(results), desc=f"keyframes of {seed.ref}", disable=None, leave=False
    ) as bar:
        for run in _visible_runs(stretch, still):
            drawn = {
                f: Result(
                    tuple(before[f]["points"] if f in still else results[f].points or ()),
                    fixed=f in still or results[f].drawn_in_run,
                    occluded=flags.occluded(f),
                    z_order=flags.z_order(f),
                )
                for f in run
            }
            points = sparse_keyframes(
                seed.type,
                drawn,
                iou=stretch.iou,
                width=width,
                height=height,
                forced=(flags.attributes_change | beside | stretch.forced) & set(run),
                on_frame=bar.update,
            )
            chosen |= {
                f: replace(results[f], points=p) for f, p in points.items() if f not in still
            }
    return {f: chosen[f] for f in sorted(chosen)}


class _Flags:
    """What the keyframes of a track say on frames without a keyframe of their own."""

    def __init__(self, job: Job, seed: Seed, before: Mapping[int, Wire]) -> None:
        self._seed = seed
        self._frames = [f for f in sorted(before) if f not in job.deleted_frames]
        self._before = before
        self.attributes_change: set[int] = set()
        """frames from which on a mutable attribute has another value"""
        values: dict[int, str] = {}
        for at, frame in enumerate(self._frames):
            here = {a["spec_id"]: str(a["value"]) for a in before[frame].get("attributes") or ()}
            if at and values | here != values:
                self.attributes_change.add(frame)
            values |= here

    def occluded(self, frame: int) -> bool:
        held = self._held(frame)
        return bool(held["occluded"]) if held else self._seed.occluded

    def z_order(self, frame: int) -> int:
        held = self._held(frame)
        return int(held.get("z_order") or 0) if held else self._seed.z_order

    def _held(self, frame: int) -> Wire | None:
        at = bisect_right(self._frames, frame)
        return self._before[self._frames[at - 1]] if at else None


def _neighbours(stretch: Stretch) -> set[int]:
    """Frames of the keyframes just before and after the results: interpolation starts there."""
    first, last = min(stretch.results), max(stretch.results)
    return {_beside(stretch.job, first, -1), _beside(stretch.job, last, 1)} & stretch.before.keys()


def _visible_runs(stretch: Stretch, still: Set[int]) -> list[list[int]]:
    """Frames on which the object is visible without a gap, each with a result or a still keyframe.

    still: frames of keyframes that stay, with the neighbours of the results.
    """
    before, results = stretch.before, stretch.results
    runs: list[list[int]] = []
    last: int | None = None
    for frame in sorted({*results, *still}):
        if frame in still:
            visible = frame in before and not before[frame]["outside"]
        else:
            visible = results[frame].points is not None
        if visible:
            if last is None or _beside(stretch.job, frame, -1) != last:
                runs.append([])
            runs[-1].append(frame)
            last = frame
    return [run for run in runs if any(f not in still for f in run)]


def _beside(job: Job, frame: int, step: int) -> int:
    """The next frame that is not deleted; it may lie outside of the job."""
    frame += step
    while frame in job.deleted_frames:
        frame += step
    return frame
