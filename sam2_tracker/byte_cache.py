# SPDX-License-Identifier: MIT
"""A cache that is bounded in bytes: least recently used out first."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteCache(Generic[K, V]):
    """Holds values that never change, so that a cached one cannot be stale."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def clear(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def put(self, key: K, value: V, nbytes: int) -> None:
        _, old = self._entries.pop(key, (None, 0))
        self._entries[key] = (value, nbytes)
        self._bytes += nbytes - old
        while self._bytes > self._max_bytes:
            _, (_, dropped) = self._entries.popitem(last=False)
            self._bytes -= dropped
