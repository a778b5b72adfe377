# SPDX-License-Identifier: MIT
"""A cache with a limit in bytes, which drops the least recently used entries first."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteCache(Generic[K, V]):
    """For immutable values: an entry cannot become out of date."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Returns the value and counts as a use of it; None: not in the cache."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def clear(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def put(self, key: K, value: V, nbytes: int) -> None:
        """Adds or replaces an entry. A value larger than the limit is not kept."""
        _, old = self._entries.pop(key, (None, 0))
        self._entries[key] = (value, nbytes)
        self._bytes += nbytes - old
        while self._bytes > self._max_bytes:
            _, (_, dropped) = self._entries.popitem(last=False)
            self._bytes -= dropped
