# SPDX-License-Identifier: MIT
"""How long a request will take, and refusing one that would take too long."""

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from sam2_tracker.errors import TooLarge
from sam2_tracker.shapes import ANSWER_TYPES

KINDS = ("frame", "start", "step", *ANSWER_TYPES)


class Check(Protocol):
    def __call__(self, done: int, of: int, what: str, cure: str, /) -> None:
        """Raises TooLarge ("After 25 s only {done} of {of} {what}; {cure}.") once the budget is
        spent, but never while `done` is 0."""


class TimeBudget:
    """Estimates a request from the lowest cost of each of its parts that was seen so far.

    The lowest, because a stall that has passed must not refuse the next request. The costs of the
    warm-up are among those seen, so a machine that was slow for a while can never lock clients out.
    Of shapes nothing is known before the first ones are made, and large objects take longer than
    small ones: so the estimate can be too low, and the check of `begin` ends the request in time.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._lowest: dict[str, float] = {}

    def remember(self, kind: str, seconds: float) -> None:
        """kind: one of KINDS: decoding and encoding a frame; starting an object; a step of an
        object with a full memory; making a shape of a type, per megapixel of the image."""
        if kind not in KINDS:
            raise ValueError(f"unknown kind of cost: {kind}")
        self._lowest[kind] = min(seconds, self._lowest.get(kind, seconds))

    def check(
        self,
        *,
        starts: int,
        steps: int,
        views: int = 1,
        shapes: Mapping[str, int] | None = None,
        megapixels: float = 0.0,
    ) -> None:
        """Raises TooLarge if so many objects would take longer than the budget.

        A single object is never refused.

        views: how often the image, or a window of it, is encoded. shapes: how many are made of each
        type. megapixels: size of the image, 0 as long as it is not known.
        """
        objects = starts + steps
        per_megapixel = sum(count * self._cost(type_) for type_, count in (shapes or {}).items())
        needed = starts * self._cost("start") + steps * self._cost("step")
        needed += (views - 1) * self._cost("frame")
        needed += megapixels * per_megapixel
        left = self.seconds - self._cost("frame")
        if objects > 1 and needed > left:
            fitting = max(1, int(objects * max(0.0, left) / needed)) if needed else 1
            raise TooLarge(
                f"{objects} objects would take longer than {self.seconds:g} s here; "
                f"send at most {fitting} in one request."
            )

    def begin(self) -> Check:
        """Starts the clock of one request. The check that it returns is called before each part."""
        deadline = self._clock() + self.seconds

        def check(done: int, of: int, what: str, cure: str) -> None:
            if done and self._clock() > deadline:
                raise TooLarge(f"After {self.seconds:g} s only {done} of {of} {what}; {cure}.")

        return check

    def _cost(self, kind: str) -> float:
        return self._lowest.get(kind, 0.0)
