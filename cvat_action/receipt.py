# SPDX-License-Identifier: MIT
"""What a run has changed in CVAT, kept after it, so that `undo` can take it back.

Lines of JSON: first what run it was, then every change: the ids that CVAT gave, and the content of
what was deleted or changed, as it was before.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cvat_action.errors import ActionError
from cvat_action.job import Wire
from cvat_action.journal import OWNER_ONLY, file_name, folder
from cvat_action.snapshot import plain_track

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
    attributes: dict[int, list[int]] = field(default_factory=dict)
    """hashes of the attributes that a shape has as long as nobody set any, by its id"""
    numbers: dict[int, int] = field(default_factory=dict)
    """by the id of a track, the number of the object that became it"""


class Receipt:
    """Every line is on disk before the request that it is about is sent or forgotten."""

    def __init__(self, path: Path, head: Wire) -> None:
        """Nothing is on disk before the first change."""
        self.path = path
        self.head = head
        self._kept: set[int] = set()

    @classmethod
    def begin(cls, server: str, job: int, run: int, numbers: Mapping[int, int]) -> "Receipt":
        """numbers: number of the object by the id of its seed."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        name = f"{file_name(server)}-job-{job}-{stamp}-{os.getpid()}-{run:02}.jsonl"
        head = {
            "receipt": VERSION,
            "server": server,
            "job": job,
            "run": run,
            "time": time.strftime("%Y-%m-%d %H:%M:%S"),
            "numbers": [list(pair) for pair in numbers.items()],
        }
        return cls(receipts_folder() / name, head)

    def created(
        self,
        where: str,
        contents: Mapping[int, int],
        attributes: Mapping[int, Iterable[int]] | None = None,
    ) -> None:
        """Both by id. attributes: hashes of those that a shape has as long as nobody set any."""
        known = attributes or {}
        of = [[n, content, sorted(known.get(n, ()))] for n, content in contents.items()]
        self._line({"created": where, "of": of})

    def became(self, numbers: Mapping[int, int]) -> None:
        """numbers: of the object, by the id of its track."""
        self._line({"tracks_of": [list(pair) for pair in numbers.items()]})

    def deleting(self, shapes: Sequence[Wire]) -> None:
        self._line({"deleted": list(shapes)})

    def updating(self, track: Wire, after: int) -> None:
        """`after`: a hash of what the track becomes."""
        if track["id"] not in self._kept:
            self._kept.add(track["id"])
            self._line({"before": plain_track(track)})
        self._line({"updated": track["id"], "content": after})

    def _line(self, content: Wire) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            with os.fdopen(os.open(self.path, flags, OWNER_ONLY), "ab") as file:
                if file.tell() == 0:
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
        if head["receipt"] != VERSION:
            raise ActionError(f"{path} was written by another version of this command.")
        undo = Undo(head)
        updated: dict[int, int] = {}
        for line in lines:
            if "created" in line:
                undo.created[line["created"]] |= {n: content for n, content, *_ in line["of"]}
                undo.attributes |= {n: more[0] for n, _, *more in line["of"] if any(more)}
            elif "tracks_of" in line:
                undo.numbers |= {track: number for track, number in line["tracks_of"]}
            elif "deleted" in line:
                undo.deleted += line["deleted"]
            elif "before" in line:
                undo.before.setdefault(line["before"]["id"], line["before"])
            elif "updated" in line:
                updated[line["updated"]] = line["content"]
        for track in undo.before.values():
            track["content"] = updated.get(track["id"], 0)
        created = undo.created["tracks"]
        created |= {number: content for number, content in updated.items() if number in created}
    except OSError as error:
        raise ActionError(f"The receipt {path} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, StopIteration):
        raise ActionError(f"{path} is not a receipt of this command, or is damaged.") from None
    return undo


def numbers_of_seeds(server: str, job: int) -> dict[int, int]:
    """Number of the object by the id of its seed, of all runs on this job, the latest first."""
    numbers: dict[int, int] = {}
    pattern = f"{file_name(server)}-job-{job}-*.jsonl"
    for path in sorted(receipts_folder().glob(pattern)):
        try:
            head = next(_lines(path))
            if (head["server"], head["job"]) == (server, job):
                numbers |= {seed: number for seed, number in head["numbers"]}
        except (OSError, ValueError, KeyError, TypeError, StopIteration):
            continue  # an unreadable receipt makes a seed look new, and then the command asks
    return numbers


def _lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)
