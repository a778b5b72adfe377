# SPDX-License-Identifier: MIT
"""Running many objects in batches that fit into the device's memory."""

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from sam2_tracker.errors import OutOfMemory

logger = logging.getLogger(__name__)

T = TypeVar("T")


SMALL = 4
"""A batch of so few objects that runs out of memory empties the caches before it is made smaller:
then they take most of the memory."""
GROW_AFTER = 64
"""After so many full batches twice as many objects are tried: another process may have given memory
back."""


class Batches:
    """Runs objects that can go together as one batch, and remembers the size that fits."""

    def __init__(self, most: int, release: Callable[[], None]) -> None:
        """most: objects that go together at the most. release: gives back what memory it can."""
        self._limit = self._most = most
        self._release = release
        self._full = 0  # full batches since the size was changed

    def run(self, keys: Sequence[Hashable], run: Callable[[list[int]], list[T]]) -> list[T]:
        """Calls `run` with the indexes of objects whose keys are equal; results in order of `keys`.

        A batch that finds too little memory is halved; before a small one is, all memory that is
        held for speed is given back, once. Raises OutOfMemory if one object alone finds too little.
        """
        groups: dict[Hashable, list[int]] = {}
        for index, key in enumerate(keys):
            groups.setdefault(key, []).append(index)
        results: dict[int, T] = {}
        released = False
        for group in groups.values():
            while group:
                batch = group[: self._most]
                done = _try(run, batch)
                if isinstance(done, list):
                    results.update(zip(batch, done, strict=True))
                    group = group[len(batch) :]
                    self._grow_after(len(batch))
                elif len(batch) <= SMALL and not released:
                    self._release()
                    released = True
                elif len(batch) == 1:
                    raise done
                else:
                    # Remembered: the next request would fail in the same way.
                    self._most, self._full = len(batch) // 2, 0
                    logger.warning("out of device memory: %d objects at a time now", self._most)
        return [results[index] for index in range(len(keys))]

    def _grow_after(self, objects: int) -> None:
        """objects: of a batch that fitted."""
        self._full += objects == self._most < self._limit
        if self._full == GROW_AFTER:
            self._most, self._full = min(2 * self._most, self._limit), 0


def _try(run: Callable[[list[int]], list[T]], batch: list[int]) -> list[T] | OutOfMemory:
    try:
        return run(batch)
    except OutOfMemory as failure:
        return failure.with_traceback(None)  # which holds the tensors of the batch
