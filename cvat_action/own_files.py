# SPDX-License-Identifier: MIT
"""Which files `local` wrote, so that none that somebody changed since is written over.

For each file a note lies in the state folder: the hash of what was written last, and of results
which objects and frames they are of.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from cvat_action import journal as journals
from cvat_action.errors import ActionError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extent:
    """What a file of results holds."""

    first: int
    last: int
    objects: frozenset[str]
    """what `--object` calls those that were drawn"""


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


def lost_results(path: Path, written: Extent) -> str | None:
    """Says so where the file holds results that writing these would lose.

    Of a file that is as it was written; about others `check_ours` says what there is to say.
    """
    digest_then, held = _noted(path)
    if held is None or digest_then != digest(path):
        return None
    missing = sorted(held.objects - written.objects)
    if missing:
        lost, this = f"object {', '.join(missing)}", "is without it"
    elif held.first < written.first or written.last < held.last:
        lost = f"frames {held.first} to {held.last}"
        this = f"has frames {written.first} to {written.last}"
    else:
        return None
    return (
        f"{path} holds an earlier run's results of {lost}, and this run {this}: writing it would "
        "lose them. Name another file with --out, or delete this one."
    )


def note(path: Path, written: Extent | None = None) -> None:
    """Remembers a file as it was just written. written: where it is one of results."""
    place = _place(path)
    extent = (written.first, written.last, *sorted(written.objects)) if written else ()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(" ".join(map(str, (digest(path) or "", *extent))))
    except OSError as error:
        logger.warning(
            "That %s was written by this command cannot be noted (%s): the next run asks to move "
            "it away.",
            path,
            error.strerror,
        )


def _noted(path: Path) -> tuple[str | None, Extent | None]:
    """The hash, and what it holds, which pictures and notes of older versions lack."""
    try:
        held, *extent = _place(path).read_text().split()
        if not extent:
            return held, None
        return held, Extent(int(extent[0]), int(extent[1]), frozenset(extent[2:]))
    except (OSError, ValueError, IndexError):
        return None, None


def _place(path: Path) -> Path:
    return journals.folder() / "written" / f"{journals.name_of_path(path)}.sha256"
