# SPDX-License-Identifier: MIT
"""The command in a process of its own, to be stopped and killed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from standin_cvat import StandinCvat

ROOT = Path(__file__).parents[2]
WAIT = 200
"""seconds at most, for processes on a busy machine"""


def command(
    cvat: StandinCvat, state: Path, *arguments: object, token: str | None = "may-write", **more: Any
) -> "subprocess.Popen[str]":
    """state: the folder for journals. token: None for no login."""
    known = {name: value for name, value in os.environ.items() if name != "CVAT_ACCESS_TOKEN"}
    folders = {"XDG_STATE_HOME": str(state), "XDG_CONFIG_HOME": str(state)}
    login = {"CVAT_ACCESS_TOKEN": token} if token else {}
    return subprocess.Popen(
        [sys.executable, "-m", "cvat_action", "--server-host", cvat.url, *map(str, arguments)],
        cwd=ROOT,
        env={**known, **login, **folders, "NO_PROXY": "127.0.0.1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def read_until(process: "subprocess.Popen[str]", words: str) -> None:
    """Until the process says this."""
    assert process.stderr
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"it never said {words!r}")
