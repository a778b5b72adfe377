# SPDX-License-Identifier: MIT
"""Signals that end a process."""

import signal
from types import FrameType
from typing import NoReturn

HANG_UP: int | None = getattr(signal, "SIGHUP", None)
"""None: the system has none. Where a terminal is closed, the kernel and the shell may both send it.
"""


def ending_signals() -> list[int]:
    """Ctrl+C and the other signals that end a process, without those that are ignored.

    `nohup` has SIGHUP ignored, and a shell that starts a program in the background SIGINT.
    """
    numbers = [signal.SIGINT, signal.SIGTERM, *([HANG_UP] if HANG_UP else ())]
    return [n for n in numbers if signal.getsignal(n) is not signal.SIG_IGN]


def stop_on_signals() -> None:
    """A signal that ends the process ends its work as Ctrl+C does."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        if number == HANG_UP:
            signal.signal(number, signal.SIG_IGN)  # the second one says nothing new
        raise KeyboardInterrupt

    try:
        for number in ending_signals():
            if number != signal.SIGINT:
                signal.signal(number, stop)
    except ValueError:
        pass  # not in the main thread: no signal arrives here
