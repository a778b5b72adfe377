# SPDX-License-Identifier: MIT
"""What a run has changed in CVAT, kept after it, so that `undo` can take it back.

Lines of JSON: first what run it was, then every change: the ids that CVAT gave, and the content of
what was deleted or changed, as it was before.
"""

import json
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cvat_action.errors import ActionError
from cvat_action.job import Wire
from cvat_action.journal import OWNER_ONLY, cut_half_line, file_name, folder
from cvat_action.plan import Plan
from cvat_action.program import to_discard, to_undo
from cvat_action.snapshot import plain_track, track_attributes, track_content

VERSION = 1


@dataclass
class Undo:
    """What has to be done to take a run back."""

    head: Wire
    created: dict[str, dict[int, int]] = field(default_factory=lambda: {"shapes": {}, "tracks": {}})
    """id of what the run created to a hash of its content"""
    deleted: list[Wire] = field(default_factory=list)
    """shapes as they were"""
    before: dict[int, Wire] = field(default_factory=dict)
    """tracks that the run changed, as they were"""
    attributes: dict[str, dict[int, list[int]]] = field(
        default_factory=lambda: {"shapes": {}, "tracks": {}}
    )
    """id of what the run created or changed to hashes of the attributes that it has as long as
    nobody set any; an older version kept none"""
    numbers: dict[int, int] = field(default_factory=dict)
    """by the id of a track, the number of the object that became it"""
    edited: set[int] = field(default_factory=set)
    """ids of the tracks that a person changed between two writes of the run"""
    brought_back: set[int] = field(default_factory=set)
    """former ids of the shapes that an `undo` has restored already"""


class Receipt:
    """Every line is on disk before the request that it is about is sent or forgotten."""

    def __init__(self, path: Path, head: Wire) -> None:
        """Nothing is on disk before the first change."""
        self.path = path
        self.head = head
        self._kept: set[int] = set()

    @classmethod
    def begin(cls, plan: Plan) -> "Receipt":
        # Names in the order of the runs, and never one twice.
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
        name = f"{file_name(plan.server)}-job-{plan.job.id}-{stamp}-{os.getpid()}-{plan.run:02}"
        in_job = [s for s in plan.seeds if not s.found]
        head = {
            "receipt": VERSION,
            "server": plan.server,
            "job": plan.job.id,
            "run": plan.run,
            "time": time.strftime("%Y-%m-%d %H:%M:%S"),
            # numbers of the objects, by the ids of: their seeds, what else a person drew of them,
            # their tracks
            "numbers": [[s.wire["id"], s.number] for s in in_job if not s.is_track],
            "drawings": [
                [c.shape["id"], s.number] for s in in_job for c in s.corrections if c.shape
            ],
            "tracks": [[s.wire["id"], s.number] for s in in_job if s.is_track and s.number],
        }
        return cls(receipts_folder() / f"{name}.jsonl", head)

    def created(
        self,
        where: str,
        contents: Mapping[int, int],
        attributes: Mapping[int, Iterable[int]],
    ) -> None:
        """Both by id. attributes: hashes of those that it has as long as nobody set any."""
        of = [[n, content, sorted(attributes[n])] for n, content in contents.items()]
        self._line({"created": where, "of": of})

    def became(self, numbers: Mapping[int, int]) -> None:
        """numbers: of the object, by the id of its track."""
        self._line({"tracks_of": [list(pair) for pair in numbers.items()]})

    def deleting(self, shapes: Sequence[Wire]) -> None:
        self._line({"deleted": list(shapes)})

    def updating(self, track: Wire, after: int, attributes: Iterable[int]) -> None:
        """`after`: a hash of what the track becomes; attributes: those of its attributes.

        track: as it is now. Where that is nothing that the run wrote or found first, a person
        changed it between two writes.
        """
        if track["id"] not in self._kept:
            self._kept.add(track["id"])
            self._line({"before": plain_track(track)})
        seen = [track_content(track), track_attributes(track)]
        hashes = {"content": after, "attributes": sorted(attributes)}
        self._line({"updated": track["id"], "seen": seen, **hashes})

    def restored(self, ids: Sequence[Sequence[int]]) -> None:
        """ids: the old and the new one of each shape that `undo` restored."""
        self._line({"restored": ids})

    def brought_back(self, ids: Sequence[int]) -> None:
        """ids: the former ones of shapes that `undo` of this run restored."""
        self._line({"brought_back": ids})

    def taken_back(self, began: bool) -> None:
        """`undo` of this run begins; False: nothing has changed, because CVAT refused it."""
        self._line({"undone": began})

    def changed(self) -> tuple[set[int], set[int]]:
        """Ids of the shapes and of the tracks that the run was about to delete and to change.

        Both are empty where the receipt cannot be read.
        """
        with suppress(ActionError):
            undo = read_undo(self.path)
            return {s["id"] for s in undo.deleted}, set(undo.before)
        return set(), set()

    def _line(self, content: Wire) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT
            with os.fdopen(os.open(self.path, flags, OWNER_ONLY), "r+b") as file:
                if cut_half_line(file) == 0:
                    file.write(json.dumps(self.head).encode() + b"\n")
                file.write(json.dumps(content).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ActionError(
                f"The receipt {self.path} cannot be written: {error.strerror}."
            ) from None


def receipts_folder() -> Path:
    return folder() / "receipts"


def read_undo(path: Path) -> Undo:
    """Raises ActionError where the file is not a receipt."""
    try:
        lines = _lines(path)
        head = next(lines)
        if "journal" in head:
            raise ActionError(_about_journal(path, head))
        if head["receipt"] != VERSION:
            raise ActionError(f"{path} was written by another version of this command.")
        if not {"server", "job", "time"} <= head.keys():
            raise KeyError
        undo = Undo(head)
        updated: dict[int, int] = {}
        # Hashes of contents and attributes that the run found first or wrote, by ids of tracks.
        as_left: dict[int, tuple[set[int], set[int]]] = {}
        for line in lines:
            if "created" in line:
                if line["created"] == "tracks":
                    as_left |= {n: ({content}, set(*more)) for n, content, *more in line["of"]}
                undo.created[line["created"]] |= {n: content for n, content, *_ in line["of"]}
                known = {n: more[0] for n, _, *more in line["of"] if any(more)}
                undo.attributes[line["created"]] |= known
            elif "tracks_of" in line:
                undo.numbers |= {track_id: number for track_id, number in line["tracks_of"]}
            elif "deleted" in line:
                undo.deleted += line["deleted"]
            elif "before" in line:
                before = undo.before.setdefault(line["before"]["id"], line["before"])
                first = {track_content(before)}, {track_attributes(before)}
                as_left.setdefault(before["id"], first)
            elif "updated" in line:
                contents, attributes = as_left.setdefault(line["updated"], (set(), set()))
                if "seen" in line:  # an older version did not note it
                    content, values = line["seen"]
                    if content not in contents or values not in attributes:
                        undo.edited.add(line["updated"])
                contents.add(line["content"])
                attributes.update(line.get("attributes", ()))
                updated[line["updated"]] = line["content"]
                if "attributes" in line:
                    undo.attributes["tracks"][line["updated"]] = line["attributes"]
            elif "brought_back" in line:
                undo.brought_back |= set(line["brought_back"])
            elif "restored" in line:
                for old, new in line["restored"]:
                    undo.created["shapes"][new] = undo.created["shapes"].pop(old)
                    if old in undo.attributes["shapes"]:
                        undo.attributes["shapes"][new] = undo.attributes["shapes"].pop(old)
        for track in undo.before.values():
            track["content"] = updated.get(track["id"], 0)
        created = undo.created["tracks"]
        created |= {
            track_id: content for track_id, content in updated.items() if track_id in created
        }
    except OSError as error:
        raise ActionError(f"The receipt {path} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        raise ActionError(f"{path} is not a receipt of this command, or is damaged.") from None
    return undo


def _about_journal(path: Path, head: Wire) -> str:
    """What to do about a journal that is given as a receipt."""
    receipt = head.get("receipt")
    written = Path(receipt["path"]) if receipt else None
    if written and written.exists():
        how = f"To take back what the run wrote: {to_undo(written, head['plan']['server'])}"
    else:
        how = f"There is nothing that can be taken back. To drop the run: {to_discard(path)}"
    return f"{path} is the journal of a run, and no receipt. {how}"


def tell_restored(server: str, job: int, ids: Mapping[int, int]) -> None:
    """Tells the receipts of all runs on a job that `undo` restored shapes.

    ids: the new id of each by the one that it had. Raises ActionError.
    """
    if not ids:
        return
    known: list[tuple[Receipt, Collection[int]]] = []
    for path, head in _receipts_of(server, job):
        with suppress(ActionError):  # it cannot be undone anyway
            known.append((Receipt(path, head), read_undo(path).created["shapes"]))
    taken = {shape_id for _, created in known for shape_id in created}
    for receipt, created in known:
        if theirs := [[old, n] for old, n in ids.items() if old in created and n not in taken]:
            receipt.restored(theirs)


def receipts_that_replaced(server: str, job: int, ids: Collection[int]) -> list[Path]:
    """The receipts of the runs that deleted shapes with these ids, the latest first."""
    found = []
    for path, _ in _receipts_of(server, job):
        with suppress(ActionError):  # it cannot be undone anyway
            if any(s["id"] in ids for s in read_undo(path).deleted):
                found.append(path)
    return found[::-1]


def numbers_of_seeds(server: str, job: int) -> dict[int, int]:
    """Number of the object by the id of its seed, of all runs on this job; the latest counts."""
    numbers: dict[int, int] = {}
    for _, head in _receipts_of(server, job):
        with suppress(ValueError, KeyError, TypeError):  # without it, a seed looks new
            numbers |= {seed: number for seed, number in head["numbers"]}
    return numbers


def numbers_of_tracks(server: str, job: int) -> dict[int, int]:
    """Number of the object by the id of the track that it became, of all runs on this job."""
    numbers: dict[int, int] = {}
    for path, _ in _receipts_of(server, job):
        with suppress(ActionError):  # without it, a track looks like a person's
            numbers |= read_undo(path).numbers
    return numbers


def _receipts_of(server: str, job: int) -> Iterator[tuple[Path, Wire]]:
    """The receipts of all runs on a job, the earliest first, with their heads.

    An unreadable one makes what its run wrote look new, and then the command asks.
    """
    # Those of a server with a similar name may be among them.
    for path in sorted(receipts_folder().glob(f"{file_name(server)}-job-{job}-*.jsonl")):
        with suppress(OSError, ValueError, KeyError, TypeError, StopIteration):
            head = next(_lines(path))
            if (head["server"], head["job"]) == (server, job):
                yield path, head


def _lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)
