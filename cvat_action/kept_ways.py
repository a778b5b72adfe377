# SPDX-License-Identifier: MIT
"""What `--both-ways` has tracked in one direction, kept in the journal of the run.

A run that ends before both directions are done goes on from there. Objects that go through the
same frames in the same order are one way.
"""

import json
import threading
from collections.abc import Sequence

from cvat_action.journal import Journal
from cvat_action.tracked import TrackedObject


class KeptWays:
    """The ways of one run. Each may be tracked in a thread of its own."""

    def __init__(self, journal: Journal, *, goes_on: bool) -> None:
        """goes_on: whether a way can go on from its last frame. Otherwise only those count that are
        tracked to their end. Raises ActionError where the journal is damaged."""
        self._journal = journal
        self._goes_on = goes_on
        ways = journal.ways()
        self._ways = {
            name: frames for name, frames in ways.items() if goes_on or _end(name) in frames
        }
        self._lock = threading.Lock()
        self.frames = sum(map(len, self._ways.values()))
        """how many are kept, of all ways"""

    def recall(self, objects: Sequence[TrackedObject], along: Sequence[int]) -> Sequence[int]:
        """Gives the objects what is kept of their way over the frames `along`.

        Returns the frames that are left, in the same order. Raises ActionError where the journal
        is damaged.
        """
        with self._lock:
            frames = self._ways.pop(_name(objects, along), {})
            return along[self._journal.fill_way(frames.values(), objects) :]

    def keep(self, objects: Sequence[TrackedObject], along: Sequence[int], frame: int) -> None:
        """Raises ActionError where the journal cannot be written."""
        with self._lock:
            self._journal.way(_name(objects, along), frame, objects)
            if self._goes_on:
                self.frames += 1
            elif frame == along[-1]:
                self.frames += len(along)


def _name(objects: Sequence[TrackedObject], along: Sequence[int]) -> str:
    """The same one when the plan of the run is carried out again."""
    return json.dumps([along[0], along[-1], [[o.seed.ref, o.seed.frame] for o in objects]])


def _end(name: str) -> int:
    return int(json.loads(name)[1])
