# SPDX-License-Identifier: MIT
"""One object of a run, and what became of it on the frames that were tracked."""

import logging
from array import array
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cvat_action.job import Wire
from cvat_action.seeds import Seed, Tuning

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tracked:
    """An object on one tracked frame."""

    points: Sequence[float] | None
    """None: not visible"""
    score: float | None = None
    by_hand: bool = False
    """a person drew it before this run: nothing is written here"""
    drawn_in_run: bool = False
    """a person drew it during this run: it is written as it is, as a person's keyframe"""
    unsure: Sequence[float] | None = None
    """its points, if it is less sure than what is asked for: it is not written"""


@dataclass
class Tally:
    """What is told of an object after its results were handed on."""

    frames: int = 0
    """tracked ones; those drawn by hand do not count"""
    by_hand: int = 0
    lost: list[int] = field(default_factory=list)
    unsure: list[int] = field(default_factory=list)
    lowest: tuple[float, int] | None = None
    """the lowest score where it was visible, and the frame"""

    def add(self, frame: int, t: Tracked) -> None:
        if t.by_hand:
            self.by_hand += 1
            return
        self.frames += 1
        if t.unsure is not None:
            self.unsure.append(frame)
        elif t.points is None:
            self.lost.append(frame)
        elif t.score is not None and (self.lowest is None or (t.score, frame) < self.lowest):
            self.lowest = (t.score, frame)


@dataclass
class TrackedObject:
    """One seed and what became of it."""

    seed: Seed
    frames: dict[int, Tracked] = field(default_factory=dict)
    """results that are not handed on yet, by frame"""
    stopped: str | None = None
    """why it was not tracked to the end"""
    state: Any = None
    state_before: Any = None
    """the state of the frame before, which a correction joins; None: the correction starts anew"""
    tuning: Tuning = field(default_factory=Tuning)
    asleep: bool = False
    """not tracked before the next frame on which it is drawn"""
    hidden: bool = False
    """asleep because a person said during this run that it is not visible: each frame has a result
    that says so, and takes the place of what an earlier run left there"""
    settled: bool = False
    """all its results are there: it is not tracked any more"""
    last_good: tuple[int, Sequence[float]] = (0, ())
    """frame and points to start again from"""
    handed_on: Tally = field(default_factory=Tally)
    lies_on: dict[str, list[int]] = field(default_factory=dict)
    """by the name of another object of the run, frames on which both cover the same thing"""

    def __post_init__(self) -> None:
        self.last_good = (self.seed.frame, self.seed.points)
        self.asleep = self.seed.asleep
        self.corrections = {c.frame: c for c in self.seed.corrections}

    @property
    def live(self) -> bool:
        return self.stopped is None

    @property
    def drawn_again(self) -> dict[int, Wire]:
        """By frame, drawings of the object in whose place the person of this run drew another one.

        One that may be another object's stays, and so does one with another label.
        """
        sure = {c.frame: c.shape for c in self.seed.corrections if c.shape and c.sure}
        drawn = {frame for frame, t in self.frames.items() if t.drawn_in_run}
        return {f: sure[f] for f in sure.keys() & (drawn - self.seed.relabelled)}

    def stop(self, reason: str) -> None:
        self.stopped = reason
        logger.warning("Object %s: %s", self.seed.ref, reason)

    @property
    def tally(self) -> Tally:
        """Of all its frames."""
        whole = deepcopy(self.handed_on)
        for frame, t in self.frames.items():
            whole.add(frame, t)
        return whole

    def leave_out_unsure(self, frames: Iterable[int], min_score: float) -> None:
        """Takes the points off the tracker's results that are less sure, from 0 to 1."""
        for frame in frames:
            t = self.frames.get(frame)
            if t is None or t.points is None or t.score is None or t.by_hand or t.drawn_in_run:
                continue
            if t.score < min_score:
                self.frames[frame] = replace(t, points=None, unsure=t.points)

    def hand_on(self, frames: Iterable[int]) -> None:
        """Forgets the results of frames that are written; what is told of them stays."""
        for frame in frames:
            t = self.frames.pop(frame, None)
            if t is not None:
                self.handed_on.add(frame, t)


def shape_to_start_from(o: TrackedObject) -> dict[str, Any]:
    """The shape of a request that starts or corrects an object (docs/request.md)."""
    shape: dict[str, Any] = {"type": o.seed.type, "points": list(o.last_good[1])}
    told = {key: value for key, value in asdict(o.tuning).items() if value is not None}
    if o.seed.type != "polygon":
        told.pop("tolerance", None)
    return shape | told


def compact(shape_type: str, points: Iterable[float]) -> Sequence[float]:
    """Points as an array: a result of hundreds of numbers takes a quarter of a list's memory."""
    return array("i", map(int, points)) if shape_type == "mask" else array("d", points)
