# SPDX-License-Identifier: MIT
"""What a run has done so far, in a file of JSON lines, so that a run cut off can go on.

The first line says what is run, then comes a line per tracked frame, then the requests to write,
and one line before and one after each of them. No credentials are in it.
"""

import errno
import json
import os
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import platformdirs

from cvat_action.errors import ActionError
from cvat_action.job import Wire
from cvat_action.selection import Correction, Seed
from cvat_action.tracking import Tracked, TrackedObject
from cvat_action.upload import Batch

VERSION = 1


@dataclass(frozen=True)
class Header:
    server: str
    job: int
    function: str
    frame: int
    target: int
    convert: bool
    leave_open: bool
    replace: bool
    keep_earlier: bool


@dataclass
class Record:
    """A journal as it is read back."""

    header: Header
    objects: list[TrackedObject]
    done: list[int] = field(default_factory=list)
    batches: list[Batch] | None = None
    """None: the run was cut off before it began to write"""
    converted: list[str] = field(default_factory=list)
    """refs of the shapes that became the created tracks, in order"""
    sent: int = 0
    """requests begun"""
    written: int = 0
    """requests answered"""
    track_ids: list[int] = field(default_factory=list)
    """ids of the created tracks"""


class Journal:
    """Written line by line; every line is on disk before the run goes on."""

    def __init__(self, path: Path, file: FileIO, created_tracks: frozenset[int]) -> None:
        self.path = path
        self._file = file
        self._created_tracks = created_tracks

    @classmethod
    def begin(
        cls, path: Path, header: Header, seeds: Sequence[Seed], *, over: bool = False
    ) -> "Journal":
        """over: in the place of the journal that lies there, of a run that is written.

        Raises ActionError where one lies there else: it may hold the only copy of what was tracked.
        """
        part = path.with_name(path.name + ".part") if over else path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = FileIO(part, "w" if over else "x")
        except OSError as error:
            if isinstance(error, FileExistsError) and path.is_file():
                raise ActionError(
                    "A run that was cut off or is still going on has its journal there. Delete "
                    "the file, name another with --journal, or go on with that run: "
                    f"--resume {shlex.quote(str(path))}"
                ) from None
            raise ActionError(
                f"The journal {path} cannot be written ({error.strerror}); name another place "
                "with --journal."
            ) from None
        journal = cls(path, file, frozenset())
        try:
            content = {**asdict(header), "seeds": [asdict(s) for s in seeds]}
            journal._line({"journal": VERSION, **content})
        except ActionError:
            file.close()
            part.unlink()
            raise
        if over:
            part.replace(path)
        return journal

    @classmethod
    def append(cls, path: Path, record: Record) -> "Journal":
        with path.open("r+b") as file:  # a last line cut short must not spoil the next one
            file.truncate(file.read().rfind(b"\n") + 1)
        journal = cls(path, FileIO(path, "a"), frozenset())
        if record.batches is not None:
            journal._created_tracks = _created_tracks(record.batches)
        return journal

    def frame(self, frame: int, objects: Sequence[TrackedObject]) -> None:
        results = [
            [t.points, t.score, t.by_hand] if (t := o.frames.get(frame)) else None for o in objects
        ]
        self._line({"frame": frame, "results": results, "stopped": [o.stopped for o in objects]})

    def changes(self, batches: Sequence[Batch], converted: Sequence[str]) -> None:
        self._created_tracks = _created_tracks(batches)
        requests = [{"action": b.action, "kind": b.kind, "objects": b.objects} for b in batches]
        self._line({"changes": requests, "converted": list(converted)})

    def sending(self, index: int) -> None:
        self._line({"sending": index})

    def written(self, index: int, ids: list[int]) -> None:
        kept = ids if index in self._created_tracks else []
        self._line({"written": index, "track_ids": kept})

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)

    def _line(self, content: Wire) -> None:
        line = json.dumps(content).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):  # half a line would spoil the next one
                self._file.truncate(end)
            raise ActionError(
                f"The journal {self.path} cannot be written: {error.strerror}."
            ) from None


def default_path(header: Header) -> Path:
    folder = platformdirs.user_state_path("cvat-action")
    server = re.sub(r"[^A-Za-z0-9.-]+", "-", header.server)
    return folder / f"{server}-job-{header.job}-frame-{header.frame}-to-{header.target}.jsonl"


def read(path: Path) -> Record:
    """Raises ActionError where the file is not a journal. A last line cut short is left out."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ActionError(f"The journal {path} cannot be read: {error}.") from None
    try:
        head = json.loads(lines[0])
        if head.pop("journal") != VERSION:
            raise ActionError(f"{path} was written by another version of this command.")
        seeds = [_seed(s) for s in head.pop("seeds")]
        record = Record(Header(**head), [TrackedObject(s) for s in seeds])
        for line in lines[1:-1]:
            _take(record, json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise ActionError(f"{path} is not a journal of this command, or is damaged.") from None
    return record


def _take(record: Record, line: dict[str, Any]) -> None:
    if "frame" in line:
        record.done.append(line["frame"])
        pairs = zip(record.objects, line["results"], line["stopped"], strict=True)
        for o, result, stopped in pairs:
            o.stopped = stopped
            if result is None:
                continue
            points, score, by_hand = result
            kept = None if points is None else tuple(points)
            o.frames[line["frame"]] = Tracked(kept, score, by_hand)
            if by_hand:
                o.asleep = kept is None
            if kept is not None:
                o.last_good = (line["frame"], kept)
    elif "changes" in line:
        record.batches = [
            Batch(b["action"], b["kind"], tuple(b["objects"])) for b in line["changes"]
        ]
        record.converted = line["converted"]
    elif "sending" in line:
        record.sent = line["sending"] + 1
    elif "written" in line:
        record.written = line["written"] + 1
        record.track_ids += line["track_ids"]


def _seed(data: dict[str, Any]) -> Seed:
    corrections = tuple(
        Correction(c["frame"], None if c["points"] is None else tuple(c["points"]), c.get("shape"))
        for c in data.pop("corrections")
    )
    points = tuple(data.pop("points"))
    return Seed(**data, points=points, corrections=corrections)


def _created_tracks(batches: Sequence[Batch]) -> frozenset[int]:
    return frozenset(
        i for i, b in enumerate(batches) if b.action == "create" and b.kind == "tracks"
    )
