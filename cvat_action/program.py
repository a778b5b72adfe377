# SPDX-License-Identifier: MIT
"""How this program was called, for the commands that its messages name."""

import shlex
import sys
from pathlib import Path


def program() -> str:
    """What to type to get here again."""
    name = Path(sys.argv[0]).name
    if not name.startswith("cvat-sam2"):
        return f"{shlex.quote(sys.executable)} -m cvat_action"
    return shlex.quote(sys.argv[0])


def to_resume(journal: Path, server: str) -> str:
    """The command that goes on with a journal. server: empty for a run of files."""
    where = f"--server-host {shlex.quote(server)} track" if server else "local"
    return f"{program()} {where} --resume {shlex.quote(str(journal))}"


def to_discard(journal: Path) -> str:
    """The command that drops a journal."""
    return f"{program()} discard {shlex.quote(str(journal))}"
