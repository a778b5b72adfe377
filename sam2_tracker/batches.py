# SPDX-License-Identifier: MIT
"""Running many objects in batches that fit into the device's memory."""

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from sam2_tracker.errors import OutOfMemory

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Batches:
    """Runs objects that can go together as one batch, and remembers the size that fits."""

    def __init__(self, most: int) -> None:
        """most: objects that go together at the most."""
        self._most = most

    def run(self, keys: Sequence[Hashable], run: Callable[[list[int]], list[T]]) -> list[T]:
        """Calls `run` with the indexes of objects whose keys are equal; results in order of `keys`.

        A batch that finds too little memory is halved. Raises OutOfMemory if one object alone
        finds too little.
        """
        groups: dict[Hashable, list[int]] = {}
        for index, key in enumerate(keys):
            groups.setdefault(key, []).append(index)
        results: dict[int, T] = {}
        for group in groups.values():
            while group:
                batch = group[: self._most]
                try:
                    results.update(zip(batch, run(batch), strict=True))
                    group = group[len(batch) :]
                except OutOfMemory:
                    if len(batch) == 1:
                        raise
                    # Remembered: the next request would fail in the same way.
                    self._most = len(batch) // 2
                    logger.warning("out of device memory: %d objects at a time now", self._most)
        return [results[index] for index in range(len(keys))]
