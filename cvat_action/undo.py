# SPDX-License-Identifier: MIT
"""`undo`: what a run wrote goes, and what it replaced comes back, except what a person changed."""

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from cvat_action import report
from cvat_action.errors import ActionError
from cvat_action.identity import mark_of
from cvat_action.job import Wire
from cvat_action.receipt import Undo, read_undo, tell_restored
from cvat_action.server import Server
from cvat_action.sinks import MOST_OBJECTS
from cvat_action.snapshot import (
    Snapshot,
    content_of,
    plain_track,
    track_attributes,
    track_content,
)

logger = logging.getLogger(__name__)


def undo(server: Server, path: Path) -> list[str]:
    """Takes the run of a receipt back, and prints what became of it.

    Returns what stays because a person changed it. Raises ActionError.
    """
    wanted = read_undo(path)
    if wanted.head["server"] != server.host:
        raise ActionError(f"{path} belongs to {wanted.head['server']}, not to {server.host}.")
    job = wanted.head["job"]
    created = wanted.created["shapes"]
    snapshot = server.first_snapshot(job, lambda s: s["id"] in created)
    there = [number for number in created if number in snapshot.whole]
    untouched = [number for number in there if _is_as_written(wanted, snapshot, number)]
    changed = sorted(set(there) - set(untouched))
    kept = [f"shape {number}" for number in changed]
    tracks = _untouched_tracks(wanted, wanted.created["tracks"], snapshot, kept)
    going = set(untouched)
    contents = {k.content for k in snapshot.shapes.values() if k.id not in going}
    before = [
        t
        for t in wanted.before.values()
        if t["id"] in snapshot.tracks
        and t["id"] not in wanted.created["tracks"]
        and not _is_same(snapshot.tracks[t["id"]], track_content(t), [track_attributes(t)])
    ]
    after = {t["id"]: t["content"] for t in before}
    back = {t["id"] for t in _untouched_tracks(wanted, after, snapshot, kept)}
    edited = {*wanted.created["tracks"], *after} - {t["id"] for t in tracks} - back
    stands = _what_stands(wanted, snapshot, changed, edited & snapshot.tracks.keys())
    restored = [
        s
        for s in wanted.deleted
        if s["id"] not in snapshot.shapes and content_of(s) not in contents and not stands(s)
    ]
    without_ids = [{key: value for key, value in s.items() if key != "id"} for s in restored]
    ids = _patch_all(server, job, "create", "shapes", without_ids)
    as_before = [_without_ids(t) for t in before if t["id"] in back]
    _patch_all(server, job, "update", "tracks", as_before)
    _patch_all(server, job, "delete", "shapes", [snapshot.whole[number] for number in untouched])
    _patch_all(server, job, "delete", "tracks", tracks)
    # A shape that comes back has a new id, and another run that wrote it can be undone too.
    new_ids = {s["id"]: new for s, new in zip(restored, ids, strict=False)}
    tell_restored(server.host, job, new_ids)
    for what in kept:
        logger.warning("A person changed %s since; it was kept.", what)
    with report.telling():
        print(
            f"Job {job}: {report.counted(len(untouched) + len(tracks), 'object')} deleted, "
            f"{report.counted(len(restored), 'shape')} restored, "
            f"{report.counted(len(back), 'track')} as before."
        )
    return kept


def _is_as_written(wanted: Undo, snapshot: Snapshot, number: int) -> bool:
    known = snapshot.shapes[number]
    attributes = wanted.attributes["shapes"].get(number)  # None: an older version's receipt
    return known.content == wanted.created["shapes"][number] and (
        attributes is None or known.attributes in attributes
    )


def _what_stands(
    wanted: Undo, snapshot: Snapshot, changed: Collection[int], edited: Collection[int]
) -> Callable[[Wire], bool]:
    """Whether a replaced shape has something that stays in its place: a result that a person
    changed, or a track of its object. Both together would be one object twice.

    changed: ids of the shapes that stay; edited: those of the tracks.
    """
    marks = ((snapshot.shapes[number].mark, snapshot.shapes[number].frame) for number in changed)
    shapes = {(mark.number, frame) for mark, frame in marks if mark}
    of_tracks = dict(wanted.head.get("tracks", ())) | wanted.numbers
    tracks = {of_tracks[number] for number in edited if number in of_tracks}
    of_drawings = dict(wanted.head.get("numbers", ())) | dict(wanted.head.get("drawings", ()))

    def stands(shape: Wire) -> bool:
        mark = mark_of(shape.get("score"), shape["frame"])
        number = mark.number if mark else of_drawings.get(shape["id"])
        return number in tracks or (number, shape["frame"]) in shapes

    return stands


def _untouched_tracks(
    wanted: Undo, contents: Mapping[int, int], snapshot: Snapshot, kept: list[str]
) -> list[Wire]:
    """The tracks that are as the run left them; `kept` gets the names of the others.

    contents: hashes of what the run left, by the ids of the tracks.
    """
    found = []
    for number, content in contents.items():
        track = snapshot.tracks.get(number)
        if track is None:
            continue
        if _is_same(track, content, wanted.attributes["tracks"].get(number)):
            found.append(plain_track(track))
        else:
            kept.append(f"track {number}")
    return found


def _is_same(track: Wire, content: int, attributes: Collection[int] | None) -> bool:
    """attributes: hashes of those that it may have; None: any."""
    return track_content(track) == content and (
        attributes is None or track_attributes(track) in attributes
    )


def _without_ids(track: Wire) -> Wire:
    keyframes = [{key: v for key, v in k.items() if key != "id"} for k in track["shapes"]]
    return {key: v for key, v in track.items() if key != "content"} | {"shapes": keyframes}


def _patch_all(server: Server, job: int, action: str, where: str, objects: list[Wire]) -> list[int]:
    """The ids that CVAT gives the objects, in order."""
    ids = []
    for first in range(0, len(objects), MOST_OBJECTS):
        answer = server.patch(job, action, {where: objects[first : first + MOST_OBJECTS]})
        ids += [o["id"] for o in answer.get(where) or ()]
    return ids
