# SPDX-License-Identifier: MIT
"""Writing results into a job of CVAT, safe against everything that happens beside it.

Before every batch the job is looked at again, what is missing is worked out from that look, and an
answer that was lost only leads to another look. Nothing that changed since the plan is touched.
"""

import json
import logging
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

from tqdm import tqdm

from cvat_action.calls import Pace, Patience
from cvat_action.duplicates import (
    attributes_as_sent,
    duplicate_shapes,
    duplicate_tracks,
    results_over_others,
)
from cvat_action.job import Wire
from cvat_action.journal import Journal
from cvat_action.plan import Plan
from cvat_action.receipt import Receipt
from cvat_action.results import Written
from cvat_action.server import HttpFailure, stored_ids
from cvat_action.shape_results import drawn_in_tracks, shapes_to_create, shapes_to_delete
from cvat_action.signals import HANG_UP, ending_signals
from cvat_action.sinks import Objects, tracks_of, with_seeds_of
from cvat_action.snapshot import (
    Snapshot,
    Whole,
    content_of,
    plain_track,
    track_attributes,
    track_content,
)
from cvat_action.track_results import tracks_to_create, tracks_to_update

logger = logging.getLogger(__name__)


MOST_OBJECTS = 300
MOST_BYTES = 16 << 20
"""CVAT takes 100 MiB in one request and nginx waits 60 s for the answer"""
REPEATED_STATUSES = (None, 409, 429, 500, 502, 503, 504)
"""409: another request has held the job for ten seconds, a large import for one (CVAT 2.73)"""
FRESH = 9.0
"""a snapshot counts as fresh for so many times as long as it took: so snapshots take a tenth of the
time in jobs of hundreds of thousands of shapes, and in others every batch has its own"""
Chooser = Callable[[Plan, Objects, Collection[int], Snapshot, Written], list[int]]
"""gives the ids of shapes that are to go"""


class AnnotationServer(Protocol):
    def snapshot(self, job: int, whole: Whole) -> Snapshot: ...

    def patch(self, job: int, action: str, body: Wire) -> Wire: ...


class CvatSink:
    def __init__(
        self,
        server: AnnotationServer,
        plan: Plan,
        pace: Pace,
        journal: Journal,
        receipt: Receipt,
        written: Written | None = None,
    ) -> None:
        self.written = written or Written()
        self.counts = Counter(
            shapes_created=len(self.written.ids), tracks_created=len(self.written.tracks)
        )
        deleted, edited = receipt.changed() if written else (set(), set())
        self._deleted = deleted
        """ids of the shapes that were deleted, by the run that this one goes on with too"""
        self._updated = edited - set(self.written.tracks.values())
        """ids of the tracks that were edited, likewise"""
        self._count_changed()
        self.interrupted = False
        self._server = server
        self._plan = plan
        self._pace = pace
        self._journal = journal
        self._receipt = receipt
        self._noted = set(self.written.tracks)
        self._seen: Snapshot | None = None
        self._whole: frozenset[int] = frozenset()
        self._seen_at = self._took = 0.0

    def snapshot(self, frames: Collection[int]) -> Snapshot:
        """Raises ActionError."""
        found: list[Snapshot] = []
        job = self._plan.job.id
        self._settle(
            lambda: found.append(self._server.snapshot(job, lambda s: s["frame"] in frames)),
            "Reading again",
        )
        return found[0]

    def write(self, objects: Objects, frames: Sequence[int], done: int) -> None:
        """Raises ActionError that says what is not written."""
        self._plan = with_seeds_of(self._plan, objects)
        self._whole, self._seen = self._may_be_deleted(frames), None
        remain = [o for o in objects if not self._plan.becomes_track(o.seed)]
        become_tracks = [o for o in objects if self._plan.becomes_track(o.seed)]
        with self._held_back():
            self._settle(lambda: self._create_tracks(objects, frames))
            self._settle(lambda: self._create_shapes(objects, frames))
            # Nothing is doubled if CVAT refuses to change a track. What a person drew goes only
            # when the track holds it.
            self._settle(lambda: self._delete(shapes_to_delete, remain, frames))
            self._settle(lambda: self._delete(drawn_in_tracks, become_tracks, frames))
            self._settle(lambda: self._update_tracks(objects, frames))
            self._settle(lambda: self._delete(shapes_to_delete, become_tracks, frames))
            self._journal.stage(done, self.written.left_out)

    def finish(self, objects: Objects, *, goes_on: bool) -> bool:
        """One more snapshot, for what is there twice."""
        self._plan = with_seeds_of(self._plan, objects)
        with self._held_back():
            self._settle(self._delete_doubles)
        return True

    def tracks(self) -> dict[str, Wire]:
        """Raises HttpFailure."""
        return tracks_of(self._plan, self.written, self._snapshot().tracks)

    def _settle(self, step: Callable[[], None], again: str = "Writing again") -> None:
        """Does a step until nothing of it is missing."""
        patience = Patience(self._pace)
        while True:
            try:
                step()
                return
            except HttpFailure as error:
                self._seen = None
                if error.status not in REPEATED_STATUSES:
                    raise
                if not patience.waits(error, again, least=error.retry_after):
                    raise

    def _batches(
        self, missing: Callable[[Snapshot], Iterable[tuple[Any, Wire]]]
    ) -> Iterator[tuple[Snapshot, list[tuple[Any, Wire]]]]:
        """Batches of what is missing, each with the fresh snapshot that it is worked out from."""
        while True:
            snapshot = self._snapshot()
            complete = True
            for index, batch in enumerate(chunks(missing(snapshot))):
                if index and not self._is_fresh():
                    complete = False
                    break
                yield snapshot, batch
            if complete:
                return

    def _create_shapes(self, objects: Objects, frames: Sequence[int]) -> None:
        def missing(snapshot: Snapshot) -> Iterator[tuple[tuple[int, int], Wire]]:
            found = shapes_to_create(self._plan, objects, frames, snapshot, self.written)
            return (((number, frame), shape) for number, frame, shape in found)

        total = sum(f in o.frames for o in objects for f in frames)
        with tqdm(total=total, desc="writing", unit="object", disable=None, leave=False) as bar:
            for _, batch in self._batches(missing):
                ids = self._patch("create", "shapes", [shape for _, shape in batch])
                pairs = list(zip(batch, ids, strict=True))
                self.written.shapes |= {key for key, _ in batch}
                self.written.ids |= {shape_id: key for (key, _), shape_id in pairs}
                self._note_shapes({n: (key, content_of(shape)) for (key, shape), n in pairs})
                bar.update(len(ids))
        self._note_adopted()

    def _note_shapes(self, shapes: Mapping[int, tuple[tuple[int, int], int]]) -> None:
        """id of a shape that this run created to (number of the object, frame) and its content"""
        self._journal.created("shapes", [(*key, n) for n, (key, _) in shapes.items()])
        sent = attributes_as_sent(self._plan)
        self._receipt.created(
            "shapes",
            {n: content for n, (_, content) in shapes.items()},
            {n: sent[number] for n, ((number, _), _) in shapes.items()},
        )
        self.counts["shapes_created"] += len(shapes)

    def _note_adopted(self) -> None:
        """Those that a request created whose answer was lost are only found by looking."""
        if self.written.adopted:
            self._note_shapes(self.written.adopted)
            self.written.adopted.clear()

    def _create_tracks(self, objects: Objects, frames: Sequence[int]) -> None:
        for _, batch in self._batches(
            lambda snapshot: tracks_to_create(self._plan, objects, frames, snapshot, self.written)
        ):
            ids = self._patch("create", "tracks", [track for _, track in batch])
            self.written.tracks |= {ref: n for (ref, _), n in zip(batch, ids, strict=True)}
            self._note_tracks({n: track for (_, track), n in zip(batch, ids, strict=True)})
            self._seen = None  # the next snapshot shows them
        # Those that a request created whose answer was lost are only found by looking.
        if set(self.written.tracks) - self._noted:
            self._note_tracks(self._snapshot().tracks)

    def _note_tracks(self, tracks: Mapping[int, Wire]) -> None:
        new = {
            ref: track_content(tracks[n])
            for ref, n in self.written.tracks.items()
            if ref not in self._noted and n in tracks
        }
        ids = {ref: self.written.tracks[ref] for ref in new}
        sent = {ref: sorted(self.written.sent[ref]) for ref in new}
        self._journal.created("tracks", [[ref, ids[ref], sent[ref]] for ref in new])
        attributes = {ids[ref]: self._attributes_as_sent(tracks[ids[ref]]) for ref in new}
        self._receipt.created("tracks", {ids[ref]: new[ref] for ref in new}, attributes)
        numbers = {s.ref: s.number for s in self._plan.seeds}
        self._receipt.became({ids[ref]: numbers[ref] for ref in new})
        self._noted |= set(new)
        self.counts["tracks_created"] += len(new)

    def _attributes_as_sent(self, track: Wire) -> set[int]:
        """Hashes of the attributes that a track has, if no person set any since."""
        defaults = self._plan.job.label(track["label_id"]).defaults
        return {track_attributes(track), track_attributes(track, defaults)}

    def _update_tracks(self, objects: Objects, frames: Sequence[int]) -> None:
        created = set(self.written.tracks.values())
        for snapshot, batch in self._batches(
            lambda snapshot: tracks_to_update(self._plan, objects, frames, snapshot, self.written)
        ):
            for _, track in batch:
                self._receipt.updating(
                    snapshot.tracks[track["id"]],
                    track_content(track),
                    self._attributes_as_sent(track),
                )
            self._patch("update", "tracks", [track for _, track in batch])
            for _, track in batch:
                seen = snapshot.tracks[track["id"]]
                snapshot.tracks[track["id"]] = {**seen, **track}
            self._updated |= {t["id"] for _, t in batch} - created
            self._count_changed()

    def _delete(self, choose: Chooser, objects: Objects, frames: Sequence[int]) -> None:
        on = frozenset(frames)

        def missing(snapshot: Snapshot) -> Iterator[tuple[int, Wire]]:
            ids = choose(self._plan, objects, on, snapshot, self.written)
            return ((shape_id, snapshot.whole[shape_id]) for shape_id in ids)

        for _, batch in self._batches(missing):
            self._delete_shapes([shape for _, shape in batch])
            self._deleted |= {shape_id for shape_id, _ in batch}
            self._count_changed()

    def _delete_shapes(self, shapes: list[Wire]) -> None:
        self._receipt.deleting(shapes)
        self._patch("delete", "shapes", shapes)
        if self._seen:
            for shape in shapes:
                self._seen.shapes.pop(shape["id"], None)

    def _count_changed(self) -> None:
        self.counts["tracks_updated"] = len(self._updated)
        self.counts["shapes_deleted"] = len(self._deleted)

    def _delete_doubles(self) -> None:
        self._seen = None
        surplus = duplicate_shapes(self._plan, self._snapshot(), self.written)
        if surplus:
            self._whole, self._seen = frozenset(surplus), None
            snapshot = self._snapshot()
            again = duplicate_shapes(self._plan, snapshot, self.written)
            shapes = [snapshot.whole[i] for i in again if i in snapshot.whole]
            for batch in chunks((s["id"], s) for s in shapes):
                self._patch("delete", "shapes", [s for _, s in batch])
            logger.warning("%d shapes that were stored twice were deleted.", len(shapes))
        self._note_adopted()
        snapshot = self._snapshot()
        tracks = duplicate_tracks(self._plan, snapshot, self.written)
        for one, other in tracks.both_edited:
            logger.warning(
                "Tracks %d and %d are the same object, and a person changed both; they were kept.",
                one,
                other,
            )
        if tracks.updated:
            self._patch("update", "tracks", tracks.updated)
        if tracks.gone:
            self._patch("delete", "tracks", [plain_track(snapshot.tracks[i]) for i in tracks.gone])
            logger.warning("%d tracks that were stored twice were deleted.", len(tracks.gone))
        self.written.over_others = results_over_others(self._plan, snapshot, self.written)
        self._deleted -= snapshot.shapes.keys()  # the receipt had one, but the request was lost
        self._count_changed()

    def _may_be_deleted(self, frames: Sequence[int]) -> frozenset[int]:
        ids = {
            k.id
            for on_frame in self._plan.earlier.values()
            for frame in frames
            for k in on_frame.get(frame, ())
        }
        for seed in self._plan.seeds:
            if self._plan.becomes_track(seed) and not seed.is_track:
                ids.add(seed.wire["id"])
                ids |= {c.shape["id"] for c in seed.corrections if c.shape}
        return frozenset(ids)

    def _snapshot(self) -> Snapshot:
        if self._seen is None or not self._is_fresh():
            began = time.monotonic()
            whole = self._whole
            self._seen = self._server.snapshot(self._plan.job.id, lambda s: s["id"] in whole)
            self._seen_at = time.monotonic()
            self._took = self._seen_at - began
        return self._seen

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._seen_at < FRESH * self._took

    def _patch(self, action: str, where: str, objects: list[Wire]) -> list[int]:
        """Ids of the objects that were created, in order."""
        try:
            answer = self._server.patch(self._plan.job.id, action, {where: objects})
            return stored_ids(answer, where, len(objects)) if action == "create" else []
        except BaseException:
            self._seen = None  # it may have been carried out
            self.written.uncertain |= action == "create"
            raise

    @contextmanager
    def _held_back(self) -> Iterator[None]:
        """The first Ctrl+C only says that the writing is finished first; a second one stops it.

        So do the other signals that end a run, but a second SIGHUP says nothing new (signals.py).
        """

        def once(number: int, _frame: FrameType | None) -> None:
            if not self.interrupted:
                self.interrupted = True
                logger.warning("Writing what is done; press Ctrl+C again to stop even that.")
            elif number != HANG_UP:
                raise KeyboardInterrupt

        caught = ending_signals()
        try:
            previous = [signal.signal(s, once) for s in caught]
        except ValueError:  # not in the main thread: no signal arrives here
            yield
            return
        try:
            yield
        finally:
            for s, handler in zip(caught, previous, strict=True):
                signal.signal(s, handler)


def chunks(objects: Iterable[tuple[Any, Wire]]) -> Iterator[list[tuple[Any, Wire]]]:
    """Pairs of anything and an object of CVAT's, so many as one request may hold."""
    chunk: list[tuple[Any, Wire]] = []
    size = 0
    for key, o in objects:
        length = len(json.dumps(o))
        if chunk and (len(chunk) >= MOST_OBJECTS or size + length > MOST_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((key, o))
        size += length
    if chunk:
        yield chunk
