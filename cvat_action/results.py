# SPDX-License-Identifier: MIT
"""Tracked frames into what is created, updated and deleted in CVAT: contract section 10's table.

| seed on frame N | as it is | with `convert` |
|---|---|---|
| mask shape | a mask shape per frame; seed kept | the same |
| polygon shape | a polygon shape per frame; seed kept | a track from keyframe N; seed deleted |
| polygon track | keyframe N and a keyframe per frame; later keyframes kept | the same |
| rectangle shape, track | like polygons | shapes stay shapes, tracks stay tracks |

Nothing here knows a server.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cvat_action.errors import ActionError
from cvat_action.job import Job, Wire
from cvat_action.selection import Seed
from cvat_action.tracking import TrackedObject


@dataclass(frozen=True)
class Changes:
    """Objects in CVAT's wire form (contract 6.4, 11.2), in the order in which they are written.

    Creation comes first and deletion last: a run cut off between two requests loses nothing.
    """

    create_shapes: tuple[Wire, ...] = ()
    create_tracks: tuple[Wire, ...] = ()
    update_tracks: tuple[Wire, ...] = ()
    delete_shapes: tuple[Wire, ...] = ()

    def __bool__(self) -> bool:
        return bool(
            self.create_shapes or self.create_tracks or self.update_tracks or self.delete_shapes
        )


def becomes_track(seed: Seed, *, convert: bool) -> bool:
    return seed.is_track or (convert and seed.type == "polygon")


def changes_for(
    job: Job,
    objects: Sequence[TrackedObject],
    *,
    convert: bool = False,
    leave_open: bool = False,
    replaced: Sequence[Wire] = (),
) -> Changes:
    """What to write for a run. `replaced`: an earlier run's shapes that make room for this one's.

    Objects without a single result are left as they are. Raises ActionError for a result that
    CVAT would store but could not show.
    """
    shapes: list[Wire] = []
    new_tracks: list[Wire] = []
    edited: list[Wire] = []
    deleted: list[Wire] = []
    for o in objects:
        if not any(not t.by_hand for t in o.frames.values()):
            continue
        if o.seed.is_track:
            edited.append(_edited_track(job, o, leave_open=leave_open))
        elif becomes_track(o.seed, convert=convert):
            new_tracks.append(_new_track(job, o, leave_open=leave_open))
            deleted.append(o.seed.wire)
            deleted += [c.shape for c in o.seed.corrections if c.shape and c.frame in o.frames]
        else:
            shapes += _shapes(o)
    changes = Changes(tuple(shapes), tuple(new_tracks), tuple(edited), (*deleted, *replaced))
    _check(job, changes)
    return changes


def _shapes(o: TrackedObject) -> list[Wire]:
    seed = o.seed.wire
    return [
        {
            "type": o.seed.type,
            "frame": frame,
            "label_id": seed["label_id"],
            "group": seed.get("group") or 0,
            "source": "auto",
            "points": list(t.points),
            "occluded": o.seed.occluded,
            "outside": False,
            "z_order": o.seed.z_order,
            "rotation": 0,
            "attributes": _attributes(seed),
            "elements": [],
        }
        for frame, t in sorted(o.frames.items())
        if t.points is not None and not t.by_hand
    ]


def _new_track(job: Job, o: TrackedObject, *, leave_open: bool) -> Wire:
    seed = o.seed
    mutable = job.label(seed.label_id).mutable_attributes
    attributes = _attributes(seed.wire)
    keyframes = {seed.frame: _keyframe(seed, seed.frame, seed.points)}
    for frame, t in sorted(o.frames.items()):
        # What a person drew of this object as shapes becomes a part of the track.
        if t.by_hand and t.points is not None:
            keyframes[frame] = _keyframe(seed, frame, t.points)
    _lay_results(keyframes, o)
    if not leave_open:
        _close(job, keyframes, o)
    first = min(keyframes)
    keyframes[first] = {
        **keyframes[first],
        "attributes": [a for a in attributes if a["spec_id"] in mutable],
    }
    return {
        "label_id": seed.label_id,
        "frame": first,
        "group": seed.wire.get("group") or 0,
        "source": "auto",
        "attributes": [a for a in attributes if a["spec_id"] not in mutable],
        "elements": [],
        "shapes": [keyframes[f] for f in sorted(keyframes)],
    }


def _edited_track(job: Job, o: TrackedObject, *, leave_open: bool) -> Wire:
    seed = o.seed
    track = seed.wire
    before = {k["frame"]: _keyframe_from_wire(k) for k in track["shapes"]}
    keyframes = dict(before)
    if seed.frame not in keyframes:
        keyframes[seed.frame] = _keyframe(seed, seed.frame, seed.points)
    _lay_results(keyframes, o)
    if not leave_open and max(o.frames) > seed.frame:
        _close(job, keyframes, o)
    _keep_attributes(before, keyframes)
    return {
        "id": track["id"],
        "label_id": track["label_id"],
        "frame": min(keyframes),
        "group": track.get("group") or 0,
        "source": "auto",
        "attributes": _attributes(track),
        "elements": [],
        "shapes": [keyframes[f] for f in sorted(keyframes)],
    }


def _lay_results(keyframes: dict[int, Wire], o: TrackedObject) -> None:
    """Lays the tracked frames over `keyframes`, in place.

    Where the object is not visible, one `outside` keyframe stands on the first such frame, with
    the last visible points; where nothing was visible before, the track begins later.
    """
    original = dict(keyframes)
    for frame in sorted(o.frames):
        t = o.frames[frame]
        if t.by_hand:
            continue
        keyframes.pop(frame, None)
        if t.points is not None:
            keyframes[frame] = _keyframe(o.seed, frame, t.points, original)
            continue
        before = [f for f in keyframes if f < frame]
        if before and not keyframes[max(before)]["outside"]:
            last = keyframes[max(before)]
            keyframes[frame] = _keyframe(o.seed, frame, last["points"], original, outside=True)


def _close(job: Job, keyframes: dict[int, Wire], o: TrackedObject) -> None:
    """Ends the track after the last frame of this run, unless it goes on there anyway.

    Without this CVAT repeats the last position to the end of the job (contract 7).
    """
    last = max(o.seed.frame, *o.frames)
    end = job.next_frame(last)
    later = [f for f in keyframes if f > last and f not in job.deleted_frames]
    here = keyframes[max(f for f in keyframes if f <= last)]
    if end is not None and not later and not here["outside"]:
        keyframes[end] = _keyframe(o.seed, end, here["points"], {last: here}, outside=True)


def _keep_attributes(before: dict[int, Wire], after: dict[int, Wire]) -> None:
    """Keeps a track's mutable attributes as they were on every frame, in place.

    They hold from the keyframe that carries them to the next that does (contract 7), so those of a
    keyframe that went are given to the next one that stays; a track that now begins earlier begins
    with those of its former beginning.
    """
    held: dict[int, Any] = {}
    for f in sorted(set(before) | set(after)):
        if f in before and after.get(f) is not before[f]:
            held |= _by_spec(before[f])
        if f in after and held:
            after[f] = {**after[f], "attributes": _as_list(held | _by_spec(after[f]))}
            held = {}
    first = min(after)
    if first < min(before):
        values = _by_spec(before[min(before)])
        after[first] = {**after[first], "attributes": _as_list(values)}


def _by_spec(keyframe: Wire) -> dict[int, Any]:
    return {a["spec_id"]: a["value"] for a in keyframe["attributes"]}


def _as_list(values: dict[int, Any]) -> list[Wire]:
    return [{"spec_id": spec, "value": value} for spec, value in values.items()]


def _keyframe(
    seed: Seed,
    frame: int,
    points: Sequence[float],
    original: Mapping[int, Wire] | None = None,
    *,
    outside: bool = False,
) -> Wire:
    """`occluded` and z-order as they held on this frame in `original`, by default as the seed's."""
    held = max((f for f in original or () if f <= frame), default=None)
    before = original[held] if original and held is not None else None
    return {
        "type": seed.type,
        "frame": frame,
        "points": list(points),
        "outside": outside,
        "occluded": before["occluded"] if before else seed.occluded,
        "z_order": before["z_order"] if before else seed.z_order,
        "rotation": 0,
        "attributes": [],
    }


def _keyframe_from_wire(keyframe: Wire) -> Wire:
    """The keyframe without its id: ids of keyframes are never sent back."""
    return {
        "type": keyframe["type"],
        "frame": keyframe["frame"],
        "points": list(keyframe["points"]),
        "outside": bool(keyframe["outside"]),
        "occluded": bool(keyframe["occluded"]),
        "z_order": keyframe.get("z_order") or 0,
        "rotation": keyframe.get("rotation") or 0,
        "attributes": _attributes(keyframe),
    }


def _attributes(wire: Wire) -> list[Wire]:
    return [{"spec_id": a["spec_id"], "value": a["value"]} for a in wire.get("attributes") or ()]


def _check(job: Job, changes: Changes) -> None:
    """The last guard before anything is written; what it finds is our own mistake."""
    for track in (*changes.create_tracks, *changes.update_tracks):
        frames = [k["frame"] for k in track["shapes"]]
        if any(k["type"] == "mask" for k in track["shapes"]):
            raise ActionError(
                "Refused to write a track of masks: CVAT could not open the job any more."
            )
        if len(set(frames)) < len(frames) or track["frame"] != min(frames):
            raise ActionError(f"Refused to write a track with the keyframes {frames}.")
    for shape in changes.create_shapes:
        if not job.start_frame <= shape["frame"] <= job.stop_frame:
            raise ActionError(f"Refused to write a shape on frame {shape['frame']}.")
