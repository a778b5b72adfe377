# SPDX-License-Identifier: MIT
"""What one request did and how long its phases took: for the log and for the time budget.

Never a token, a point or a pixel.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class StoreTraffic:
    """What one request moved to and from the store."""

    read_bytes: int = 0
    written_bytes: int = 0
    cache_hits: int = 0
    """Memory frames that did not have to be read from the store."""
    cache_misses: int = 0


@dataclass(kw_only=True)
class Stopwatch:
    objects: int = 0
    started: int = 0
    continued: int = 0
    failed: int = 0
    failed_codes: str = ""
    """The error codes of the failed objects, each once."""
    image_bytes: int = 0
    traffic: StoreTraffic = field(default_factory=StoreTraffic)
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds by phase: read, decode, load, encode, start, step, shapes, save, write."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time of the `with` block to a phase."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - begin

    def fields(self) -> dict[str, float | str]:
        """For a structured log line; phases as `<phase>_ms`."""
        return {
            "objects": self.objects,
            "started": self.started,
            "continued": self.continued,
            "failed": self.failed,
            "failed_codes": self.failed_codes,
            "image_bytes": self.image_bytes,
            "store_read_bytes": self.traffic.read_bytes,
            "store_written_bytes": self.traffic.written_bytes,
            "cache_hits": self.traffic.cache_hits,
            "cache_misses": self.traffic.cache_misses,
            **{f"{name}_ms": round(seconds * 1000, 1) for name, seconds in self.phases.items()},
        }
