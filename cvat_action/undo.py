# SPDX-License-Identifier: MIT
"""`undo`: what a run wrote goes, and what it replaced comes back, except what a person changed.

What is to be done is worked out from a look at the job. Where an answer is missing it is looked at
again, so an undo that broke off can be repeated too.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cvat_action import report
from cvat_action.cvat_sink import REPEATED_STATUSES, chunks
from cvat_action.errors import ActionError
from cvat_action.job import Wire
from cvat_action.journal import is_taken_back
from cvat_action.plan import listed
from cvat_action.program import to_undo
from cvat_action.receipt import (
    Receipt,
    numbers_of_tracks,
    read_undo,
    receipts_that_replaced,
    tell_restored,
)
from cvat_action.server import HttpFailure, Server, stored_ids
from cvat_action.undo_plan import Work, work_of

logger = logging.getLogger(__name__)


@dataclass
class _Done:
    """Ids of what was done, in all attempts."""

    shapes: set[int] = field(default_factory=set)
    """they went"""
    tracks: set[int] = field(default_factory=set)
    """they went"""
    back: set[int] = field(default_factory=set)
    restored: set[int] = field(default_factory=set)
    """former ids"""


def undo(server: Server, path: Path) -> list[str]:
    """Takes the run of a receipt back, and prints what became of it.

    Returns what stays because a person changed it or a later run wrote it. Raises ActionError.
    """
    wanted = read_undo(path)
    if wanted.head["server"] != server.host:
        whose = wanted.head["server"]
        raise ActionError(
            f"{path} belongs to {whose}, not to {server.host}. Take the run back with: "
            f"{to_undo(path, whose)}"
        )
    job, created = wanted.head["job"], wanted.created["shapes"]
    done = _Done()
    patience = server.patience()
    begun_before = is_taken_back(path)
    while True:
        snapshot = server.first_snapshot(job, lambda s: s["id"] in created)
        work = work_of(wanted, snapshot, numbers_of_tracks(server.host, job))
        try:
            _do(server, job, Receipt(path, wanted.head), work, done)
            break
        except HttpFailure as failure:
            refused = failure.status is not None and failure.status < 500
            if refused and done == _Done() and not begun_before:
                Receipt(path, wanted.head).taken_back(False)
            repeated = failure.status in REPEATED_STATUSES
            again = "Looking again"
            if not repeated or not patience.waits(failure, again, least=failure.retry_after):
                raise
    for what in work.kept:
        logger.warning("A person or a later run changed %s since; it was kept.", what)
    if work.beside_later:
        later = receipts_that_replaced(server.host, job, created)
        logger.warning(
            "What this run had replaced on frame %s is not restored: a later run's results are "
            "there. Take that run back first, then this one again%s",
            listed(set(work.beside_later)),
            ": " + ", ".join(to_undo(receipt, server.host) for receipt in later) if later else ".",
        )
    with report.telling():
        print(
            f"Job {job}: {report.counted(len(done.shapes) + len(done.tracks), 'object')} deleted, "
            f"{report.counted(len(done.restored), 'shape')} restored, "
            f"{report.counted(len(done.back), 'track')} as before."
        )
    return [*work.kept, *(f"frame {frame}" for frame in work.beside_later)]


def _do(server: Server, job: int, receipt: Receipt, work: Work, done: _Done) -> None:
    """Raises HttpFailure, after which it is not known what of it is done."""
    new_ids = dict(work.there)
    if work.shapes or work.tracks or work.back:
        receipt.taken_back(True)
    try:
        for batch in _batches(work.restored):
            without_ids = [{key: value for key, value in s.items() if key != "id"} for s in batch]
            answer = server.patch(job, "create", {"shapes": without_ids})
            done.restored |= {s["id"] for s in batch}
            ids = stored_ids(answer, "shapes", len(batch))
            new_ids |= {s["id"]: new for s, new in zip(batch, ids, strict=True)}
    finally:
        # A shape that came back has a new id, and another run that wrote it can be undone too.
        tell_restored(server.host, job, new_ids)
        if new_ids:
            receipt.brought_back(sorted(new_ids))
    for batch in _batches(work.back):
        server.patch(job, "update", {"tracks": batch})
        done.back |= {t["id"] for t in batch}
    for batch in _batches(work.shapes):
        server.patch(job, "delete", {"shapes": batch})
        done.shapes |= {s["id"] for s in batch}
    for batch in _batches(work.tracks):
        server.patch(job, "delete", {"tracks": batch})
        done.tracks |= {t["id"] for t in batch}


def _batches(objects: Sequence[Wire]) -> Iterator[list[Wire]]:
    return ([o for _, o in chunk] for chunk in chunks((None, o) for o in objects))
