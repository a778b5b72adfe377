# SPDX-License-Identifier: MIT
"""What a run has done so far, in a file of JSON lines, so that a run cut off can go on.

The first line is the plan. Then comes a line per tracked frame with the results and the tokens of
all objects, and a line for everything that was written: so a run that goes on works out anew what
is missing. `--both-ways` has lines of its own before those (kept_ways.py). One process at a time
holds the file. The tokens are as good as the right to track with them for eight hours, so only its
owner may read the file; there is no password in it.
"""

import errno
import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import IO, Any

import platformdirs
import portalocker

from cvat_action.coinciding import note_coinciding
from cvat_action.errors import ActionError
from cvat_action.job import Wire
from cvat_action.plan_record import seed_as_json, seed_from_json
from cvat_action.program import to_discard, to_resume, to_undo
from cvat_action.results import Written
from cvat_action.seeds import Seed
from cvat_action.tracked import Tracked, TrackedObject, compact
from cvat_action.tracking import StepCorrection

VERSION = 5
OWNER_ONLY = 0o600
MOST_LETTERS = 100
"""of a path in a file name; a name may have 255 bytes"""
HASH_DIGITS = 12


class OtherVersion(ActionError):
    """A journal that another version of this command wrote."""


class Damaged(ActionError):
    """No journal, or one that is damaged."""


@dataclass
class Record:
    """A journal as it is read back."""

    plan: Wire
    done: list[int] = field(default_factory=list)
    """frames that are tracked"""
    written_until: int = 0
    """how many of them are written"""
    written: Written = field(default_factory=lambda: Written(uncertain=True))
    stopped: list[str | None] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)
    receipt: Wire = field(default_factory=dict)
    """path and head of the run's receipt"""

    @property
    def taken_back(self) -> bool:
        """Whether `undo` took back what the run had written."""
        path = self.receipt.get("path")
        return isinstance(path, str) and is_taken_back(Path(path))


class Journal:
    """Written line by line; every line is on disk before the run goes on."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self.path = path
        self._file = file

    @classmethod
    def begin(cls, path: Path, plan: Wire, receipt: Wire | None = None) -> "Journal":
        """Raises ActionError if it cannot be written, or if there is one already: that may hold the
        only copy of what was tracked."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = FileIO(path, "x")
        except FileExistsError:
            raise in_the_way(path) from None
        except OSError as error:
            raise _cannot_write(path, error.strerror) from None
        journal = cls(path, file)
        try:
            os.fchmod(file.fileno(), OWNER_ONLY)
            _lock(file, path)
            journal._line({"journal": VERSION, "receipt": receipt or {}, "plan": plan})
        except BaseException:  # Ctrl+C, too: half a journal helps nobody
            file.close()
            path.unlink()
            raise
        return journal

    @classmethod
    def go_on(cls, path: Path) -> tuple["Journal", Record]:
        """The journal of a run that was cut off, held from here on, and what it says.

        Raises ActionError where it cannot be read, is no journal, or its run is still going on.
        """
        try:
            file = FileIO(path, "r+")
        except OSError as error:
            raise ActionError(
                f"The journal {path} cannot be read or written: {error.strerror}."
            ) from None
        try:
            _lock(file, path)
            record = read(path)
            cut_half_line(file)
        except ActionError:
            file.close()
            raise
        return cls(path, file), record

    def frame(self, frame: int, objects: Sequence[TrackedObject]) -> None:
        """Objects that were found on this frame are told whole, and begin here."""
        entered = [
            {
                "seed": seed_as_json(o.seed),
                "before": [[f, _as_json(t)] for f, t in o.frames.items() if f != frame],
            }
            for o in objects
            if o.seed.found and o.seed.frame == frame
        ]
        self._line(
            {
                "frame": frame,
                "entered": entered,
                **_results_as_json(frame, objects),
            }
        )

    def way(self, name: str, frame: int, objects: Sequence[TrackedObject]) -> None:
        """A frame of a way of `--both-ways` (kept_ways.py)."""
        self._line({"way": name, "at": frame, **_results_as_json(frame, objects)})

    def created(self, where: str, of: Sequence[Sequence[Any]]) -> None:
        """shapes: (number, frame, id); tracks: (object, id, hashes of the keyframes)."""
        self._line({"created": where, "of": of})

    def stage(self, frames: int, left_out: Mapping[tuple[str, str], Iterable[int]]) -> None:
        """The first `frames` tracked frames are written, but for those of `Written.left_out`."""
        told = [[*key, sorted(on)] for key, on in left_out.items()]
        self._line({"written": frames, "left_out": told})

    def results(self, shape_types: Sequence[str]) -> dict[int, list[Tracked | None]]:
        """Results of all objects by frame. shape_types: of the objects."""
        found: dict[int, list[Tracked | None]] = {}
        known = len(_read_head(self.path).plan["seeds"])
        for line in _lines(self.path):
            if "frame" not in line:
                continue
            for entered in line.get("entered", ()):
                for frame, result in entered["before"]:
                    here = found.setdefault(frame, [None] * len(shape_types))
                    here[known] = _result(shape_types[known], result)
                known += 1
            here = found.setdefault(line["frame"], [None] * len(shape_types))
            here[:known] = _results(line, shape_types[:known])
        return found

    def ways(self) -> dict[str, dict[int, int]]:
        """By the name of a way, where the line of each frame begins in the file, in their order."""
        found: dict[str, dict[int, int]] = {}
        with sound(self.path):
            for start, line in _lines_from(self.path):
                if "way" in line:
                    frames = found.setdefault(line["way"], {})
                    if line["at"] in frames:  # it was begun anew
                        frames.clear()
                    frames[line["at"]] = start
        return found

    def fill_way(self, lines: Collection[int], objects: Sequence[TrackedObject]) -> int:
        """Gives the objects what these lines of their way hold; how many there are."""
        with sound(self.path), self.path.open("rb") as file:
            for start in lines:
                file.seek(start)
                line = json.loads(file.readline())
                _fill_frame({**line, "frame": line["at"]}, objects, set())
                for o, why, state in zip(objects, line["stopped"], line["states"], strict=True):
                    o.stopped, o.state = why, state
        return len(lines)

    def drawn(self) -> dict[int, list[StepCorrection]]:
        """By frame, what a person drew of the objects while stepping."""
        found: dict[int, list[StepCorrection]] = {}
        for line in _lines(self.path):
            for index, result in enumerate(line.get("results", ())):
                if result and result[3]:
                    found.setdefault(line["frame"], []).append(StepCorrection(index, result[0]))
        return found

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.close()

    def _line(self, content: Wire) -> None:
        line = json.dumps(content).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(line)
            while rest:  # one write takes at most 2 GiB
                rest = rest[self._file.write(rest) or _full() :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):  # half a line would spoil the next one
                self._file.truncate(end)
            raise ActionError(
                f"The journal {self.path} cannot be written: {error.strerror}."
            ) from None


def default_path(server: str, job: int, frame: int, target: int) -> Path:
    return folder() / f"{file_name(server)}-job-{job}-frame-{frame}-to-{target}.jsonl"


def folder() -> Path:
    return platformdirs.user_state_path("cvat-action")


def file_name(server: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", server)


def name_of_path(path: Path) -> str:
    """A file name for a path: the end of it to read, and a hash of the whole to tell it apart."""
    whole = os.path.realpath(path)
    digest = hashlib.sha256(os.fsencode(whole)).hexdigest()
    return f"{file_name(whole.strip('/'))[-MOST_LETTERS:]}-{digest[:HASH_DIGITS]}"


def in_the_way(path: Path, server: str = "", command: str = "") -> ActionError:
    """What to do about a file that lies where a journal is wanted.

    server: the one that is asked now. command: the command with the options that lead to it, and a
    blank at the end.
    """
    name = shlex.quote(str(path))
    if not path.is_file():
        return _cannot_write(path, "it is no file")
    if is_held(path):
        return ActionError(
            f"Such a run is still going on in another process, with the journal {name}. Wait until "
            "it ends, or name another journal with --journal."
        )
    drop = f"drop it: {to_discard(path)}, or name another journal with --journal."
    try:
        head = _read_head(path)
    except OtherVersion as error:
        return error
    except ActionError as error:
        if isinstance(error, Damaged) and counts_as_journal(path):
            return ActionError(f"The journal {name} of an earlier run is damaged: {drop}")
        return ActionError(
            f"--journal: {name} is there already and is no journal of this command. It stays as it "
            "is; name another file."
        )
    if head.taken_back:
        return ActionError(f"The run of the journal {name} was taken back with undo: {drop}")
    whose = head.plan.get("server", "")
    return ActionError(
        "Such a run was cut off before, and its journal is still there. Go on with it: "
        f"{to_resume(path, whose, command if whose == server else '')}, {drop}"
    )


def is_taken_back(receipt: Path) -> bool:
    """Whether `undo` took back what the run of a receipt had written; a run that wrote nothing has
    none."""
    taken_back = False
    with suppress(OSError, ValueError, TypeError, AttributeError):
        for line in _lines(receipt):
            taken_back = line.get("undone", taken_back)
    return taken_back


def is_held(path: Path) -> bool:
    """Whether a process works with this journal."""
    try:
        with FileIO(path, "r+") as file:
            _lock(file, path)
    except ActionError:
        return True
    except OSError:
        pass  # not locked; whoever opens it next says why it cannot be opened
    return False


def read(path: Path) -> Record:
    """Raises ActionError where the file is not a journal. A last line cut short is left out."""
    record = _read_head(path)
    with sound(path):
        for line in _lines(path):
            _take(record, line)
    return record


def fill(
    record: Record,
    path: Path,
    objects: list[TrackedObject],
    make: Callable[[Seed], TrackedObject],
) -> None:
    """Gives the objects what the journal holds of them: results, tokens, where to go on from.

    make: an object of a seed; those that were found on the way are appended.
    """
    written = set(record.done[: record.written_until])
    if written:
        for o in objects:
            o.hand_on(list(o.frames))
    with sound(path):
        for line in _lines(path):
            if "frame" in line:
                objects += [_entered(each, line, make, written) for each in line.get("entered", ())]
                results = _fill_frame(line, objects, written)
                note_coinciding(objects, line["frame"], results)
    for o, stopped, state in zip(objects, record.stopped, record.states, strict=False):
        o.stopped, o.state = stopped, state


def _entered(
    content: Wire, line: Wire, make: Callable[[Seed], TrackedObject], written: set[int]
) -> TrackedObject:
    o = make(seed_from_json(content["seed"]))
    o.frames = {frame: _result(o.seed.type, result) for frame, result in content["before"]}
    if line["frame"] in written:
        o.hand_on(list(o.frames))
    return o


def _fill_frame(
    line: Wire, objects: Sequence[TrackedObject], written: set[int]
) -> list[Tracked | None]:
    frame = line["frame"]
    results = _results(line, [o.seed.type for o in objects])
    for o, t in zip(objects, results, strict=True):
        if t is None:
            continue
        if frame in written:
            o.handed_on.add(frame, t)
        else:
            o.frames[frame] = t
        if t.by_hand or t.drawn_in_run:
            o.asleep = t.points is None
            o.hidden = o.asleep and t.drawn_in_run
        if t.points is not None:
            o.last_good = (frame, t.points)
        elif t.unsure is not None:
            o.last_good = (frame, t.unsure)
    return results


def _results(line: Wire, shape_types: Sequence[str]) -> list[Tracked | None]:
    return [
        None if result is None else _result(shape_type, result)
        for shape_type, result in zip(shape_types, line["results"], strict=True)
    ]


def _result(shape_type: str, result: Sequence[Any]) -> Tracked:
    points, score, by_hand, drawn, *more = result
    unsure = more[0] if more else None
    return Tracked(
        None if points is None else compact(shape_type, points),
        score,
        by_hand,
        drawn,
        None if unsure is None else compact(shape_type, unsure),
    )


def _results_as_json(frame: int, objects: Sequence[TrackedObject]) -> Wire:
    return {
        "results": [_as_json(t) if (t := o.frames.get(frame)) else None for o in objects],
        "stopped": [o.stopped for o in objects],
        "states": [o.state if o.live else None for o in objects],
    }


def _as_json(t: Tracked) -> list[Any]:
    points, unsure = (None if each is None else list(each) for each in (t.points, t.unsure))
    return [points, t.score, t.by_hand, t.drawn_in_run, *([] if unsure is None else [unsure])]


def _take(record: Record, line: Wire) -> None:
    written = record.written
    if "frame" in line:
        record.done.append(line["frame"])
        record.stopped, record.states = line["stopped"], line["states"]
    elif line.get("created") == "shapes":
        for number, frame, shape_id in line["of"]:
            written.shapes.add((number, frame))
            written.ids[shape_id] = (number, frame)
    elif line.get("created") == "tracks":
        written.tracks |= {ref: track_id for ref, track_id, _ in line["of"]}
        written.sent |= {ref: set(keyframes) for ref, _, keyframes in line["of"]}
    elif "way" in line:
        _check_way(line)
    elif "written" in line:
        record.written_until = line["written"]
        written.left_out = {(ref, why): set(on) for ref, why, on in line["left_out"]}


def _check_way(line: Wire) -> None:
    """Raises ValueError, KeyError or TypeError where the line is not one of `Journal.way`."""
    _, last, objects = json.loads(line["way"])
    columns = [line[name] for name in ("results", "stopped", "states")]
    whole = all(isinstance(each, list) and len(each) == len(objects) for each in columns)
    results = [each for each in line["results"] if each is not None]
    if not (whole and all(isinstance(n, int) for n in (last, line["at"]))):
        raise ValueError
    for each in results:
        _result("mask", each)


def _read_head(path: Path) -> Record:
    try:
        with sound(path), path.open(encoding="utf-8") as file:
            head = json.loads(file.readline())
            if isinstance(head.get("receipt"), int) and isinstance(head["server"], str):
                raise ActionError(
                    f"{path} is the receipt of a run, and no journal. To take back what the run "
                    f"wrote: {to_undo(path, head['server'])}"
                )
            if head["journal"] != VERSION:
                raise OtherVersion(
                    f"{path} was written by another version of this command. Go on with that one, "
                    f"or drop it: {to_discard(path)}."
                )
            plan, receipt = head["plan"], head.get("receipt", {})
            objects = plan, receipt, plan.get("files", {})
            if not all(isinstance(each, dict) for each in objects):
                raise TypeError
            if not isinstance(plan.get("server", ""), str):
                raise TypeError
            return Record(plan, receipt=receipt)
    except OSError as error:
        raise ActionError(f"The journal {path} cannot be read: {error.strerror}.") from None


def _lines(path: Path) -> Iterator[Wire]:
    """All lines but the first and one that was cut short."""
    return (line for _, line in _lines_from(path))


def _lines_from(path: Path) -> Iterator[tuple[int, Wire]]:
    """(where it begins in the file, line) of all lines but the first and one that was cut short."""
    with path.open("rb") as file:
        start = len(file.readline())
        for line in file:
            if line.endswith(b"\n"):
                yield start, json.loads(line)
            start += len(line)


def cut_half_line(file: IO[bytes]) -> int:
    """Goes to the end of the last whole line and cuts off what follows; gives the new size.

    A line that was cut short must not spoil the next one.
    """
    step = 1 << 20
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - step)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            end = start + at + 1
            break
        end = start
    file.truncate(end)
    return file.seek(end)


def _lock(file: FileIO, path: Path) -> None:
    try:
        portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.LockException:
        raise ActionError(
            f"The run of {path} is still going on in another process; wait for it, or stop it."
        ) from None


def _full() -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _cannot_write(path: Path, why: str | None) -> ActionError:
    return ActionError(
        f"The journal {path} cannot be written ({why}); name another place with --journal."
    )


@contextmanager
def sound(path: Path) -> Iterator[None]:
    """Raises Damaged where a part of the journal is missing, or is something else."""
    try:
        yield
    except (LookupError, ArithmeticError, ValueError, TypeError, AttributeError, RecursionError):
        raise Damaged(f"{path} is not a journal of this command, or is damaged.") from None


def counts_as_journal(path: Path) -> bool:
    """Whether a damaged file may be dropped as a journal.

    It lies where journals lie, or it is empty, as one that was cut off while it was begun.
    """
    beside_others = path.suffix == ".jsonl" and path.resolve().parent == folder().resolve()
    return beside_others or path.stat().st_size == 0
