# SPDX-License-Identifier: MIT
"""What `undo` has to do about a job as it is now: what goes, what comes back, and what stays."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from cvat_action.identity import mark_of
from cvat_action.job import Wire
from cvat_action.positions import position_among
from cvat_action.receipt import Undo
from cvat_action.snapshot import Snapshot, content_of, plain_track, track_attributes, track_content

Place = tuple[int | None, int]
"""number of an object, frame"""


@dataclass
class Work:
    shapes: list[Wire]
    """they go"""
    tracks: list[Wire]
    """they go"""
    back: list[Wire]
    """tracks, as they were"""
    restored: list[Wire] = field(default_factory=list)
    """shapes that come back"""
    there: dict[int, int] = field(default_factory=dict)
    """former id to id of the shapes that an undo before this one brought back"""
    kept: list[str] = field(default_factory=list)
    """names of what a person changed"""
    beside_later: list[int] = field(default_factory=list)
    """frames of shapes that do not come back, because a later run's results are in their place"""


def work_of(wanted: Undo, snapshot: Snapshot, numbers: Mapping[int, int]) -> Work:
    """snapshot: with what the run created whole. numbers: of objects by the id of a track."""
    created = wanted.created["shapes"]
    present = [shape_id for shape_id in created if shape_id in snapshot.whole]
    untouched = [shape_id for shape_id in present if _is_as_written(wanted, snapshot, shape_id)]
    going = set(untouched)
    changed = sorted(set(present) - going)
    kept = [f"shape {shape_id}" for shape_id in changed]
    tracks = _untouched_tracks(wanted, wanted.created["tracks"], snapshot, kept)
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
    work = Work(
        shapes=[snapshot.whole[shape_id] for shape_id in untouched],
        tracks=tracks,
        back=[_without_ids(t) for t in before if t["id"] in back],
        kept=kept,
    )
    work.there = _back_already(wanted, snapshot, going)
    changes = _changes(wanted, snapshot, changed, edited & snapshot.tracks.keys())
    later = _later_results(wanted, snapshot, {*going, *work.there.values()}, numbers)
    places = {(k.mark.number, k.frame) for i in going if (k := snapshot.shapes[i]).mark}
    for s in wanted.deleted:
        if s["id"] in snapshot.shapes or s["id"] in work.there:
            continue
        if s["id"] in wanted.brought_back:  # and a person deleted it since
            continue
        place = _place(wanted, s)
        if changes(place):
            continue
        if place not in places and later(place):
            work.beside_later.append(s["frame"])
        else:
            work.restored.append(s)
    return work


def _place(wanted: Undo, shape: Wire) -> Place:
    """The number is None where nothing says it."""
    drawings = dict(wanted.head.get("numbers", ())) | dict(wanted.head.get("drawings", ()))
    mark = mark_of(shape.get("score"), shape["frame"])
    return mark.number if mark else drawings.get(shape["id"]), shape["frame"]


def _is_as_written(wanted: Undo, snapshot: Snapshot, shape_id: int) -> bool:
    known = snapshot.shapes[shape_id]
    attributes = wanted.attributes["shapes"].get(shape_id)  # None: an older version's receipt
    return known.content == wanted.created["shapes"][shape_id] and (
        attributes is None or known.attributes in attributes
    )


def _back_already(wanted: Undo, snapshot: Snapshot, going: Collection[int]) -> dict[int, int]:
    """Former id to id of the shapes that came back, though perhaps no receipt was told so.

    An equal shape with another mark is another object's.
    """
    there = {(k.content, k.mark): k.id for k in snapshot.shapes.values() if k.id not in going}
    of_deleted = {
        s["id"]: (content_of(s), mark_of(s.get("score"), s["frame"])) for s in wanted.deleted
    }
    return {
        shape_id: there[same]
        for shape_id, same in of_deleted.items()
        if same in there and shape_id not in snapshot.shapes
    }


def _changes(
    wanted: Undo, snapshot: Snapshot, changed: Collection[int], edited: Collection[int]
) -> Callable[[Place], bool]:
    """Whether in the place of a replaced shape a result stays that a person changed, or a track
    of its object. Both together would be one object twice.

    changed: ids of the shapes that stay; edited: those of the tracks.
    """
    marks = (
        (snapshot.shapes[shape_id].mark, snapshot.shapes[shape_id].frame) for shape_id in changed
    )
    shapes = {(mark.number, frame) for mark, frame in marks if mark}
    of_tracks = dict(wanted.head.get("tracks", ())) | wanted.numbers
    tracks = {of_tracks[track_id] for track_id in edited if track_id in of_tracks}
    return lambda place: place[0] in tracks or place in shapes


def _later_results(
    wanted: Undo, snapshot: Snapshot, not_these: Collection[int], numbers: Mapping[int, int]
) -> Callable[[Place], bool]:
    """Whether results of a later run are in the place of a replaced shape: shapes with the number
    of its object, or a track of it that is visible there.

    not_these: ids of shapes that are none; numbers: of objects by the id of a track.
    """
    latest = max((s["id"] for s in wanted.deleted), default=0)
    first = min(wanted.created["shapes"], default=latest)
    shapes = {
        (k.mark.number, k.frame)
        for k in snapshot.shapes.values()
        if k.mark and k.id > first and k.id not in not_these
    }
    own = {*wanted.created["tracks"], *wanted.before}
    tracks: dict[int | None, list[list[Wire]]] = {}
    for i, track in snapshot.tracks.items():
        if i in numbers and i not in own:
            in_order = sorted(track["shapes"], key=lambda k: int(k["frame"]))
            tracks.setdefault(numbers[i], []).append(in_order)

    def are_there(place: Place) -> bool:
        number, frame = place
        at = (position_among(keyframes, frame) for keyframes in tracks.get(number, ()))
        return place in shapes or any(k is not None and not k["outside"] for k in at)

    return are_there


def _untouched_tracks(
    wanted: Undo, contents: Mapping[int, int], snapshot: Snapshot, kept: list[str]
) -> list[Wire]:
    """The tracks that are as the run left them; `kept` gets the names of the others.

    contents: hashes of what the run left, by the ids of the tracks.
    """
    found = []
    for track_id, content in contents.items():
        track = snapshot.tracks.get(track_id)
        if track is None:
            continue
        as_left = _is_same(track, content, wanted.attributes["tracks"].get(track_id))
        if as_left and track_id not in wanted.edited:
            found.append(plain_track(track))
        else:
            kept.append(f"track {track_id}")
    return found


def _is_same(track: Wire, content: int, attributes: Collection[int] | None) -> bool:
    """attributes: hashes of those that it may have; None: any."""
    return track_content(track) == content and (
        attributes is None or track_attributes(track) in attributes
    )


def _without_ids(track: Wire) -> Wire:
    keyframes = [{key: v for key, v in k.items() if key != "id"} for k in track["shapes"]]
    return {key: v for key, v in track.items() if key != "content"} | {"shapes": keyframes}
