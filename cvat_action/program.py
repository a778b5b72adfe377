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


def to_resume(journal: Path, server: str, command: str = "") -> str:
    """The command that goes on with a journal.

    server: of the run; empty for a run of files. command: this program with the options that lead
    to the server, and a blank at the end; without it the server's address is all that is known.
    """
    if not command:
        command = program() + (f" --server-host {shlex.quote(server)} " if server else " ")
    return f"{command}{'track' if server else 'local'} --resume {shlex.quote(str(journal))}"


def to_undo(receipt: Path, server: str) -> str:
    """The command that takes back what the run of a receipt wrote on a server."""
    host = f"--server-host {shlex.quote(server)}"
    return f"{program()} {host} undo {shlex.quote(str(receipt))}"


def to_discard(journal: Path) -> str:
    """The command that drops a journal."""
    return f"{program()} discard {shlex.quote(str(journal))}"
