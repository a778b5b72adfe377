# SPDX-License-Identifier: MIT
"""Files that are there whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def put_in_place(path: Path) -> Iterator[Path]:
    """Gives a new file to write into. It takes the place of the one at the path at the end.

    The mode of that one stays, and so does a link to it. Where writing fails, nothing of the new
    file is left, and what was at the path is as it was. Raises OSError.
    """
    file = Path(os.path.realpath(path))
    part = _new_file_beside(file)
    try:
        yield part
        if file.exists():
            part.chmod(file.stat().st_mode & 0o7777)  # now: it may be read-only
        part.replace(file)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def check_can_put(path: Path) -> None:
    """Raises OSError where a file cannot be written at this path."""
    _new_file_beside(Path(os.path.realpath(path))).unlink()


def _new_file_beside(file: Path) -> Path:
    """With a name that nobody else uses, and the suffix, which OpenCV goes by.

    A process that is killed leaves it, so the name says what it is.
    """
    if file.exists() and not file.is_file():
        raise OSError("it is no file")
    part = file.with_name(f".unfinished-{secrets.token_hex(8)}{file.suffix}")
    # Nobody reads what is written before it has the mode of the file in whose place it comes.
    part.touch(0o600 if file.exists() else 0o666, exist_ok=False)
    return part
