# SPDX-License-Identifier: MIT
"""Writing results into a file of annotations."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from cvat_action import own_files
from cvat_action.duplicates import results_over_others
from cvat_action.errors import ActionError
from cvat_action.formats import write_document
from cvat_action.formats.document import Document, Edit, edited
from cvat_action.job import Wire
from cvat_action.media import Media
from cvat_action.plan import Plan
from cvat_action.results import Written
from cvat_action.shape_results import shapes_to_create, shapes_to_delete
from cvat_action.sinks import Objects, tracks_of, with_seeds_of
from cvat_action.snapshot import Snapshot, annotations_to_snapshot
from cvat_action.track_results import tracks_to_create, tracks_to_update


class FileSink:
    """Collects the changes of a document; `finish` writes the file."""

    def __init__(
        self,
        document: Document,
        plan: Plan,
        media: Media,
        out: Path,
        *,
        in_place: bool,
        before: str | None,
    ) -> None:
        """in_place: the document was read from the same file.

        before: digest of the file that is written, as it was then.
        """
        self.written = Written()
        self.counts: Counter[str] = Counter()
        self._updated: set[int] = set()
        """ids of the tracks that were edited in any stage"""
        self.interrupted = False
        self._first = self._last = plan.options.frame
        """frames that are written"""
        self._document = document
        self._plan = plan
        self._media = media
        self._out = out
        self._in_place = in_place
        self._before = before

    def snapshot(self, frames: Collection[int]) -> Snapshot:
        return annotations_to_snapshot(self._document.annotations)

    def write(self, objects: Objects, frames: Sequence[int], done: int) -> None:
        self._plan = with_seeds_of(self._plan, objects)
        plan, written = self._plan, self.written
        snapshot = annotations_to_snapshot(self._document.annotations)
        shapes = list(shapes_to_create(plan, objects, frames, snapshot, written))
        new_tracks = tracks_to_create(plan, objects, frames, snapshot, written)
        updates = list(tracks_to_update(plan, objects, frames, snapshot, written))
        highest = max((*snapshot.shapes, *snapshot.tracks, *plan.newest), default=0)
        for new_id, (ref, track) in enumerate(new_tracks, highest + 1):
            track["id"] = written.tracks[ref] = new_id
            highest = new_id
        for new_id, (object_number, frame, shape) in enumerate(shapes, highest + 1):
            shape["id"] = new_id
            written.shapes.add((object_number, frame))
            written.ids[new_id] = (object_number, frame)
        gone = shapes_to_delete(plan, objects, frozenset(frames), snapshot, written)
        edit = Edit(
            shapes=[shape for _, _, shape in shapes],
            tracks=[track for _, track in new_tracks],
            updated={track["id"]: track for _, track in updates},
            gone=frozenset(gone),
        )
        self._document = edited(self._document, edit)
        self._first = min(self._first, *frames)
        self._last = max(self._last, *frames)
        created = set(written.tracks.values())
        self.counts["shapes_created"] += len(shapes)
        self.counts["tracks_created"] += len(new_tracks)
        self._updated |= {t["id"] for _, t in updates} - created
        self.counts["tracks_updated"] = len(self._updated)
        self.counts["shapes_deleted"] += len(gone)

    def finish(self, objects: Objects, *, goes_on: bool) -> bool:
        """A run that goes on begins with the file that it read: that one is not written over, and
        neither are an earlier run's results of more than is tracked so far.

        Raises ActionError where somebody changed the file in the meantime, and where a run that a
        person ended has fewer results than the file.
        """
        snapshot = annotations_to_snapshot(self._document.annotations)
        self.written.over_others = results_over_others(self._plan, snapshot, self.written)
        held = extent_of(self._plan, (self._first, self._last))
        lost = None if self._in_place else own_files.lost_results(self._out, held)
        if goes_on and (self._in_place or lost):
            self.counts.clear()
            return False
        try:
            own_files.check_unchanged(self._out, self._before)
            if lost:
                raise ActionError(lost)
            write_document(self._out, self._document, self._media)
        except BaseException:  # Ctrl+C, too
            self.counts.clear()
            raise
        if not self._in_place:  # else the file is a person's, with results
            own_files.note(self._out, held)
        return True

    def tracks(self) -> dict[str, Wire]:
        held = {t["id"]: t for t in self._document.annotations.tracks}
        return tracks_of(self._plan, self.written, held)


def extent_of(plan: Plan, frames: Sequence[int]) -> own_files.Extent:
    """What a file with the plan's results on these frames holds."""
    drawn = frozenset(s.ref for s in plan.seeds if not s.found)
    return own_files.Extent(min(frames), max(frames), drawn)
