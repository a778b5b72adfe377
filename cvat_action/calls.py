# SPDX-License-Identifier: MIT
"""Calls to a tracker: what it answers, how a call fails, and what is done then."""

import enum
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cvat_action.tracked import TrackedObject

logger = logging.getLogger(__name__)


Fault = dict[str, str]
"""`{"code": …, "message": …}`, an entry of the answer's `errors` (docs/request.md)"""


@dataclass(frozen=True)
class Answer:
    """One call's answer; the lists are as long as the call's objects."""

    shapes: list[Any]
    states: list[Any]
    """None: the object is not tracked on"""
    scores: list[float | None]
    errors: list[Fault | None]


class Tracker(Protocol):
    @property
    def joins(self) -> bool:
        """It has `correct`; other trackers start an object anew from a correction."""

    def start(self, frame: int, shapes: list[dict[str, Any]]) -> Answer: ...

    def step(self, frame: int, states: list[Any]) -> Answer: ...

    def correct(self, frame: int, shapes: list[dict[str, Any]], states: list[Any]) -> Answer:
        """Adds what was drawn on `frame` to what is known; states: of the frame before."""

    def adopt(
        self, frame: int, shape_type: str, state: Any, others: list[tuple[Any, int]]
    ) -> Answer:
        """Lets an object stand on what was drawn on other frames too (docs/request.md).

        shape_type: its type. others: the state and the distance of each. The answer has one entry.
        """


class Cure(enum.Enum):
    """What helps after a call that failed as a whole."""

    REPEAT = "repeat with back-off"
    FEWER = "send fewer objects, for now"
    FEWER_FOR_GOOD = "send fewer objects from now on"
    START_AGAIN = "start the objects again from their last good results"
    NONE = "nothing"


class CallFailed(Exception):
    """A call failed; the message says why and what to do, for the person at the terminal."""

    def __init__(self, cure: Cure, message: str, *, resumable: bool = True) -> None:
        super().__init__(message)
        self.cure = cure
        self.resumable = resumable
        """False: going on would fail in the same way"""


@dataclass(frozen=True)
class Pace:
    """How long calls may take and how long one is repeated."""

    seconds_per_call: float = 25.0
    """objects are split over several calls when one nears this"""
    objects_per_call: int = 1_000_000
    wait: float = 120.0
    """seconds that are waited in all for one call that may succeed later"""
    first_wait: float = 1.0
    """seconds before the first repetition; doubles each time, up to LONGEST_PAUSE"""
    halt: threading.Event | None = None
    """ends every wait when it is set, by another thread"""


LONGEST_PAUSE = 15.0


class Patience:
    """The pauses before the repetitions of one request, until the time to wait is used up."""

    def __init__(self, pace: Pace) -> None:
        self._left = pace.wait
        self._pause = pace.first_wait
        self._halt = pace.halt
        self._was_slow = False

    def waits(
        self,
        reason: object,
        what: str = "Trying again",
        *,
        least: float = 0.0,
        slow: bool = False,
    ) -> bool:
        """Waits and says so; False: the time is used up and nothing was waited, or it was halted.

        least: seconds that the other side asks for. slow: the request took a minute or more before
        it failed; it is made once more, and not until the time is used up.
        """
        if self._left <= 0 or (slow and self._was_slow):
            return False
        self._was_slow |= slow
        pause = min(max(min(self._pause, LONGEST_PAUSE), least), self._left)
        logger.warning("%s %s in %.3g s.", reason, what, pause)
        if self._halt is None:
            time.sleep(pause)
        elif self._halt.wait(pause):
            return False
        self._left -= pause
        self._pause *= 2
        return True


Refused = tuple[TrackedObject, str]
"""an object that was refused alone, and why"""
Answered = tuple[TrackedObject, tuple[Any, Any, float | None, Fault | None]]
"""an object with its shape, state, score and error"""


class Calls:
    """The calls of one run: repeated, split over several calls, and their faults told apart."""

    def __init__(self, pace: Pace) -> None:
        self.answered_on: int | None = None
        """the last frame of which a call was answered"""
        self._pace = pace
        self._limit = max(1, pace.objects_per_call)
        self._per_call = self._limit

    def ask(
        self,
        frame: int,
        objects: Sequence[TrackedObject],
        call: Callable[[list[TrackedObject]], Answer],
        lost_states: list[TrackedObject] | None = None,
        refused: list[Refused] | None = None,
    ) -> list[Answered]:
        """Asks about all objects, in as many calls as it takes; one entry per answered object.

        Objects whose states are void as a whole (410, expired) go to `lost_states`. Those that are
        refused alone go to `refused`; without it they are stopped, or if that is so for all, it
        raises CallFailed.
        """
        answered: list[Answered] = []
        alone: list[Refused] = []
        limit = self._limit
        waiting = deque(objects)
        patience = Patience(self._pace)
        while waiting:
            chunk = [waiting.popleft() for _ in range(min(self._per_call, len(waiting)))]
            began = time.monotonic()
            try:
                answer = call(chunk)
            except CallFailed as failure:
                waiting.extendleft(reversed(chunk))
                fewer = failure.cure in (Cure.FEWER, Cure.FEWER_FOR_GOOD)
                if fewer and len(chunk) > 1:
                    self._send_fewer(len(chunk) // 2, failure)
                elif failure.cure is Cure.FEWER_FOR_GOOD:
                    alone.append((waiting.popleft(), str(failure)))
                elif failure.cure is Cure.START_AGAIN and lost_states is not None:
                    logger.warning("%s They are started again.", failure)
                    for _ in chunk:
                        lost_states.append(waiting.popleft())
                elif failure.cure not in (Cure.REPEAT, Cure.FEWER) or not patience.waits(
                    failure, slow=failure.cure is Cure.FEWER
                ):
                    raise
                continue
            patience = Patience(self._pace)
            self.answered_on = frame
            self._adapt(len(chunk), time.monotonic() - began)
            answered += zip(
                chunk,
                zip(answer.shapes, answer.states, answer.scores, answer.errors, strict=True),
                strict=True,
            )
        if alone and not answered:
            self._per_call = self._limit = limit  # it was not their number
        if refused is not None:
            refused += alone
            return answered
        if alone and not answered and not lost_states:
            # What every object is refused for, each alone, is the frame's and not the objects'.
            raise all_refused(frame, alone)
        for o, why in alone:
            o.stop(why)
        return answered

    def _send_fewer(self, count: int, failure: CallFailed) -> None:
        self._per_call = count
        if failure.cure is Cure.FEWER_FOR_GOOD:
            self._limit = count
        logger.warning("%s Going on with at most %d per call.", failure, count)

    def _adapt(self, count: int, seconds: float) -> None:
        """Fewer objects per call where one took too long; more again where there is much room.

        Halving brings a call to half its time at best, so growing below a quarter cannot flap.
        """
        if seconds > 0.8 * self._pace.seconds_per_call and count > 1:
            self._per_call = count // 2
            logger.warning(
                "A call with %d objects took %.0f s; going on with at most %d per call.",
                count,
                seconds,
                self._per_call,
            )
        elif seconds < 0.25 * self._pace.seconds_per_call and count >= self._per_call:
            self._per_call = min(self._per_call * 2, self._limit)


def all_refused(frame: int, refused: Sequence[Refused]) -> CallFailed:
    return CallFailed(
        Cure.NONE,
        f"Frame {frame}: every object was refused, each one alone. {refused[0][1]} Or the "
        "picture of this frame cannot be decoded.",
    )
