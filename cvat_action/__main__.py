# SPDX-License-Identifier: MIT
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130


def run() -> None:
    takes_ctrl_c = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if takes_ctrl_c:
        signal.signal(signal.SIGINT, _stop)  # while libraries are loaded, and nothing is begun
    from cvat_action.cli import main

    if takes_ctrl_c:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = main()
    except KeyboardInterrupt:
        _stop()
    sys.exit(code)


def _stop(_signal: int = 0, _frame: FrameType | None = None) -> NoReturn:
    os.write(2, b"Stopped by Ctrl+C.\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    run()
