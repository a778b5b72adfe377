# SPDX-License-Identifier: MIT
"""Writes changes to a job in batches (contract section 11.2), so that a cut can be mended."""

import json
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

from tqdm import tqdm

from cvat_action.errors import ActionError
from cvat_action.job import Annotations, Wire
from cvat_action.results import Changes

logger = logging.getLogger(__name__)

MOST_OBJECTS = 300
MOST_BYTES = 16 << 20
"""CVAT takes 100 MiB in one request and nginx waits 60 s for the answer"""
REPEATED_STATUSES = (None, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Batch:
    """One PATCH request."""

    action: str
    kind: str
    objects: tuple[Wire, ...]


class AnnotationServer(Protocol):
    def patch(self, job: int, action: str, body: Wire) -> Wire: ...

    def annotations(self, job: int) -> Annotations: ...


class Log(Protocol):
    def sending(self, index: int) -> None: ...

    def written(self, index: int, ids: list[int]) -> None: ...


def changes_to_batches(changes: Changes) -> list[Batch]:
    parts = (
        ("create", "tracks", changes.create_tracks),
        ("create", "shapes", changes.create_shapes),
        ("update", "tracks", changes.update_tracks),
        ("delete", "shapes", changes.delete_shapes),
    )
    return [
        Batch(action, kind, chunk) for action, kind, objects in parts for chunk in _chunks(objects)
    ]


def upload(
    server: AnnotationServer,
    job: int,
    batches: Sequence[Batch],
    log: Log,
    *,
    first: int = 0,
    first_unsure: bool = False,
    repeats: int = 4,
    first_wait: float = 1.0,
) -> None:
    """Writes `batches[first:]`. `first_unsure`: the first of them may be stored already.

    A request whose answer was lost may have been carried out. So before something is created a
    second time, it is looked up whether it is there. Raises ActionError that says how much is
    written.
    """
    total = sum(len(b.objects) for b in batches)
    before = sum(len(b.objects) for b in batches[:first])
    with (
        ctrl_c_held_back(),
        tqdm(total=total, initial=before, desc="writing", unit="object", disable=None) as bar,
    ):
        for index, batch in enumerate(batches[first:], first):
            unsure = first_unsure and index == first
            log.sending(index)
            try:
                ids = _send(server, job, batch, unsure, repeats, first_wait)
            except ActionError as error:
                done = sum(len(b.objects) for b in batches[:index])
                raise ActionError(
                    f"{error} Written are {done} of {total} objects "
                    f"({index} of {len(batches)} requests)."
                ) from error
            log.written(index, ids)
            bar.update(len(batch.objects))


def _send(
    server: AnnotationServer, job: int, batch: Batch, unsure: bool, repeats: int, first_wait: float
) -> list[int]:
    """Ids of the stored objects, in the order of the batch."""
    for attempt in range(repeats + 1):
        stored: dict[int, int] = {}
        try:
            if unsure and batch.action == "create":
                stored = _already_stored(server.annotations(job), batch)
            missing = [o for i, o in enumerate(batch.objects) if i not in stored]
            if missing:
                answer = server.patch(job, batch.action, {batch.kind: missing})
                ids = iter([o["id"] for o in answer.get(batch.kind) or ()])
                return [stored[i] if i in stored else next(ids) for i in range(len(batch.objects))]
            return [stored[i] for i in range(len(batch.objects))]
        except StopIteration:
            raise ActionError("CVAT did not name the ids of everything that it stored.") from None
        except ActionError as error:
            if getattr(error, "status", 0) not in REPEATED_STATUSES or attempt == repeats:
                raise
            pause = first_wait * 2**attempt
            logger.warning("%s Writing again in %.3g s.", error, pause)
            time.sleep(pause)
            unsure = True
    raise ActionError("CVAT could not be written to.")


def _already_stored(annotations: Annotations, batch: Batch) -> dict[int, int]:
    """Which objects of a batch (by index) the job holds, with their ids."""
    held: dict[str, list[int]] = {}
    for o in annotations.tracks if batch.kind == "tracks" else annotations.shapes:
        held.setdefault(_likeness(o), []).append(o["id"])
    stored = {}
    for index, o in enumerate(batch.objects):
        ids = held.get(_likeness(o))
        if ids:
            stored[index] = ids.pop(0)
    return stored


def _likeness(o: Wire) -> str:
    keyframes = o.get("shapes", [o])
    return json.dumps(
        [
            o["label_id"],
            o.get("group") or 0,
            o.get("source"),
            [
                [k["frame"], k["type"], bool(k["outside"]), [float(p) for p in k["points"]]]
                for k in keyframes
            ],
        ]
    )


def _chunks(objects: Sequence[Wire]) -> Iterator[tuple[Wire, ...]]:
    chunk: list[Wire] = []
    size = 0
    for o in objects:
        length = len(json.dumps(o))
        if chunk and (len(chunk) >= MOST_OBJECTS or size + length > MOST_BYTES):
            yield tuple(chunk)
            chunk, size = [], 0
        chunk.append(o)
        size += length
    if chunk:
        yield tuple(chunk)


@contextmanager
def ctrl_c_held_back() -> Iterator[None]:
    """The first Ctrl+C only says that the writing is finished first; a second one stops it."""
    pressed = False

    def once(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        logger.warning("Writing what is done; press Ctrl+C again to stop even that.")

    try:
        previous = signal.signal(signal.SIGINT, once)
    except ValueError:  # not in the main thread: no signal arrives here
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
