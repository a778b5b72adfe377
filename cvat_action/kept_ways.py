# SPDX-License-Identifier: MIT
"""What `--both-ways` has tracked in one direction, kept in the journal of a run on a server.

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

    def __init__(self, journal: Journal) -> None:
        """Raises ActionError where the journal is damaged."""
        self._journal = journal
        self._lines = journal.ways()
        self._lock = threading.Lock()
        self.frames = sum(map(len, self._lines.values()))
        """frames of all ways that are kept"""

    def recall(self, objects: Sequence[TrackedObject], along: Sequence[int]) -> Sequence[int]:
        """Gives the objects what is kept of their way over the frames `along`.

        Returns the frames that are left, in the same order. Raises ActionError where the journal
        is damaged.
        """
        with self._lock:
            lines = self._lines.pop(_name(objects, along), ())
            return along[self._journal.fill_way(lines, objects) :]

    def keep(self, objects: Sequence[TrackedObject], along: Sequence[int], frame: int) -> None:
        """Raises ActionError where the journal cannot be written."""
        with self._lock:
            self._journal.way(_name(objects, along), frame, objects)
            self.frames += 1


def _name(objects: Sequence[TrackedObject], along: Sequence[int]) -> str:
    """The same one when the plan of the run is carried out again."""
    return json.dumps([along[0], along[-1], [[o.seed.ref, o.seed.frame] for o in objects]])
