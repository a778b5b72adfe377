# SPDX-License-Identifier: MIT
"""Memory frames on the device, each with what attention derives from it; bounded in bytes."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sam2_tracker.memory_bank import MemoryFrame

STALE_REQUESTS = 16
"""An entry that was not used for so many requests gives way to any other."""


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


@dataclass(kw_only=True, eq=False)
class _Entry:
    frame: MemoryFrame
    derived: Sized | None
    used: int
    """The number of the last request that used it."""

    @property
    def nbytes(self) -> int:
        return self.frame.features.nbytes + (self.derived.nbytes if self.derived else 0)


class MemoryCache:
    """Holds what never changes, so a cached value cannot be stale.

    What is derived from a frame (keys, 16 times its size) is only kept where there is room. It
    never pushes out that of another frame in use: every request goes through the frames of all
    objects in the same order, and a cache that drops the least recently used would then drop each
    entry just before it is needed again.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._requests = 0
        # The least recently used comes first.
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self.derived_hits = 0
        self.derived_misses = 0

    def begin_request(self) -> None:
        self._requests += 1

    def get(self, id_: str) -> MemoryFrame | None:
        entry = self._use(id_)
        return entry.frame if entry else None

    def put(self, frame: MemoryFrame) -> None:
        """Keeps a frame; what was used least recently gives way."""
        self._drop(frame.id)
        entry = _Entry(frame=frame, derived=None, used=self._requests)
        self._entries[frame.id] = entry
        self._bytes += entry.nbytes
        self._drop_stale()
        for other in self._entries.values():
            if self._bytes <= self._max_bytes:
                return
            self._drop_derived(other)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def derived(self, frame: MemoryFrame, derive: Callable[[], T]) -> T:
        """What `derive` makes of a frame; kept if the frame is cached and there is room."""
        entry = self._use(frame.id)
        if entry is not None and entry.derived is not None:
            self.derived_hits += 1
            return entry.derived  # type: ignore[return-value]  # one caller, one kind of value
        self.derived_misses += 1
        value = derive()
        if entry is not None:
            self._bytes += value.nbytes
            entry.derived = value
            self._drop_stale()
            if self._bytes > self._max_bytes:
                self._drop_derived(entry)
        return value

    def retire(self, id_: str) -> None:
        """Drops what was derived from a frame that left its object's memory.

        Its features stay: a repeated request may still want them.
        """
        if (entry := self._entries.get(id_)) is not None:
            self._drop_derived(entry)

    def clear(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def _use(self, id_: str) -> _Entry | None:
        entry = self._entries.get(id_)
        if entry is not None:
            self._entries.move_to_end(id_)
            entry.used = self._requests
        return entry

    def _drop_stale(self) -> None:
        while self._bytes > self._max_bytes and self._entries:
            id_, entry = next(iter(self._entries.items()))
            if entry.used > self._requests - STALE_REQUESTS:
                return
            self._drop(id_)

    def _drop_derived(self, entry: _Entry) -> None:
        before = entry.nbytes
        entry.derived = None
        self._bytes += entry.nbytes - before

    def _drop(self, id_: str) -> None:
        entry = self._entries.pop(id_, None)
        if entry is not None:
            self._bytes -= entry.nbytes
