# SPDX-License-Identifier: MIT
"""What one command measures, and how much time a part of it may take."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.models import MICRO
from sam2_tracker.settings import Settings

WIDTH, HEIGHT = 1920, 1080
EARLY, LATE = 20, 500

Report = Callable[[str], None]
"""Says what is being measured."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one command measures."""

    device: str
    models: tuple[str, ...]
    objects: tuple[int, ...]
    precisions: tuple[str, ...] = ("bfloat16", "float32")
    formats: tuple[str, ...] = ("JPEG",)
    large_objects: tuple[int, ...] = (1,)
    """Of models larger than tiny."""
    action_model: str = MICRO
    """Of the two actions over the same frames."""
    width: int = WIDTH
    height: int = HEIGHT
    rounds: int | None = None
    """At most so many of the interleaved ones; None: until the time is over."""
    track_frames: int = LATE + EARLY
    """Of the whole track that is measured with the micro model."""
    extra: bool = False
    """Whether what each saving gives and what it costs in accuracy are parts too."""
    accuracy_clips: int | None = None
    """At most so many of each subset of the evaluation set; None: all."""

    @property
    def main_model(self) -> str:
        return self.models[0]

    @property
    def best_precision(self) -> str:
        return self.precisions[0]

    def memory_cache_mib(self, precision: str) -> int:
        """Holds the memory frames and keys of all cases, which take turns: 8 memory frames of 9 MiB
        at most for every object in bfloat16. In float32 no keys are kept."""
        default = Settings().memory_cache_mib
        if precision != "bfloat16":
            return default
        return max(default, 8 * 9 * (sum(self.objects) + len(self.formats) - 1))


class Clock:
    """A case that has begun is finished; another is not begun."""

    def __init__(self, seconds: float) -> None:
        self._begin = time.monotonic()
        self._seconds = seconds

    def is_over(self, *, grace: float = 1.0) -> bool:
        """grace: what the time may be exceeded by, as a factor, for what is wanted most."""
        return time.monotonic() - self._begin > grace * self._seconds

    def share(self, of: float) -> "Clock":
        """A clock of its own for a share of what is left."""
        left = self._seconds - (time.monotonic() - self._begin)
        return Clock(of * max(0.0, left))
