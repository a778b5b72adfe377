# SPDX-License-Identifier: MIT
"""Signals that end a process."""

import signal
from types import FrameType
from typing import NoReturn


def stop_on_signals() -> None:
    """A signal that ends the process ends its work as Ctrl+C does."""

    def stop(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    try:
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), stop)
    except ValueError:
        pass  # not in the main thread: no signal arrives here
