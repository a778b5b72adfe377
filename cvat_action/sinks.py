# SPDX-License-Identifier: MIT
"""Where results go: into a job of CVAT (cvat_sink.py), or into a file (file_sink.py)."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from cvat_action.job import Wire
from cvat_action.plan import Plan
from cvat_action.results import Written
from cvat_action.snapshot import Snapshot
from cvat_action.tracked import TrackedObject

Objects = Sequence[TrackedObject]


class Sink(Protocol):
    written: Written
    counts: Counter[str]
    interrupted: bool
    """a person pressed Ctrl+C while this wrote"""

    def snapshot(self, frames: Collection[int]) -> Snapshot:
        """What is there now, with the shapes of these frames whole."""

    def write(self, objects: Objects, frames: Sequence[int], done: int) -> None:
        """Writes the results of these frames; then the first `done` frames are written."""

    def finish(self, objects: Objects, *, goes_on: bool) -> bool:
        """After the last frame. False: not all is written before it goes on.

        goes_on: the run broke, and can go on.
        """

    def tracks(self) -> dict[str, Wire]:
        """The tracks of this run's objects as they are now, by the name of the seed."""


def tracks_of(plan: Plan, written: Written, held: Mapping[int, Wire]) -> dict[str, Wire]:
    ids = {s.ref: s.wire["id"] for s in plan.seeds if s.is_track} | written.tracks
    return {ref: held[number] for ref, number in ids.items() if number in held}


def with_seeds_of(plan: Plan, objects: Objects) -> Plan:
    """The plan with what entered since it was made."""
    return replace(plan, seeds=tuple(o.seed for o in objects))
