# SPDX-License-Identifier: MIT
"""Which files `local` wrote, so that none that somebody changed since is written over.

For each file a note lies in the state folder: the hash of what was written last, and of results the
first and last frame of that run.
"""

import hashlib
import logging
from pathlib import Path

from cvat_action import journal as journals
from cvat_action.errors import ActionError

logger = logging.getLogger(__name__)


def digest(path: Path) -> str | None:
    """Of what a file holds; None where there is no file, or an empty one."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ActionError(f"{path} cannot be read: {error.strerror}.") from None
    return hashlib.sha256(data).hexdigest() if data else None


def check_ours(path: Path) -> None:
    """Raises ActionError where something lies there that this command did not write."""
    if not may_replace(path):
        raise ActionError(
            f"{path} is there already and is not a file of results as this command wrote it: "
            "another program wrote it, somebody changed it since, or it was given as --annotations "
            "itself. It is not written over; move it away first. To track on from what it holds, "
            "give it as --annotations."
        )


def may_replace(path: Path) -> bool:
    """Whether nothing lies there, or what this command wrote."""
    return digest(path) in (None, _noted(path)[0])


def check_unchanged(path: Path, before: str | None) -> None:
    """Raises ActionError where a file is there that is not what it was.

    before: its digest at the beginning.
    """
    if digest(path) not in (None, before):
        raise ActionError(
            f"{path} was changed while this ran, so it is not written over; move it away first."
        )


def lost_frames(path: Path, first: int, last: int) -> str | None:
    """Says so where the file holds results of frames that a run from `first` to `last` leaves out.

    Of a file that is as it was written; about others `check_ours` says what there is to say.
    """
    held, frames = _noted(path)
    if not frames or held != digest(path) or (first <= frames[0] and frames[1] <= last):
        return None
    return (
        f"{path} holds an earlier run's results of frames {frames[0]} to {frames[1]}, and this run "
        f"is from frame {first} to {last}: writing it would lose the others. Name another file "
        "with --out, or delete this one."
    )


def note(path: Path, frames: tuple[int, int] | None = None) -> None:
    """Remembers a file as it was just written.

    frames: of results, the first and last one of the run.
    """
    place = _place(path)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(" ".join(map(str, (digest(path) or "", *(frames or ())))))
    except OSError as error:
        logger.warning(
            "That %s was written by this command cannot be noted (%s): the next run asks to move "
            "it away.",
            path,
            error.strerror,
        )


def _noted(path: Path) -> tuple[str | None, tuple[int, int] | None]:
    """The hash, and the first and last frame, which pictures and notes of older versions lack."""
    try:
        held, *frames = _place(path).read_text().split()
        return held, (int(frames[0]), int(frames[1])) if frames else None
    except (OSError, ValueError, IndexError):
        return None, None


def _place(path: Path) -> Path:
    return journals.folder() / "written" / f"{journals.name_of_path(path)}.sha256"
