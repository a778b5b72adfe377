# SPDX-License-Identifier: MIT
"""The tracks that a run creates and updates, keyframe by keyframe."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cvat_action.errors import ActionError
from cvat_action.job import Job, Wire
from cvat_action.plan import Plan
from cvat_action.positions import counting_keyframes, position_among, track_fault
from cvat_action.results import (
    ALONE_IN_ITS_PLACE,
    DELETED_MEANWHILE,
    EDITED,
    IN_ITS_PLACE,
    THERE_ALREADY,
    Ownership,
    Written,
    attributes_of,
    own_tracks,
)
from cvat_action.seeds import Seed
from cvat_action.signature import is_signed, sign
from cvat_action.snapshot import Snapshot, keyframe_content, track_content, values_by_spec
from cvat_action.sparse import Stretch
from cvat_action.tracked import Tracked, TrackedObject


def tracks_to_create(
    plan: Plan,
    objects: Sequence[TrackedObject],
    frames: Sequence[int],
    snapshot: Snapshot,
    written: Written,
) -> list[tuple[str, Wire]]:
    """(object, track) for all polygons that become tracks and are none yet."""
    made = []
    here = Ownership(plan, snapshot, written, objects)
    for o in objects:
        seed = o.seed
        if seed.is_track or not plan.becomes_track(seed) or seed.ref in written.tracks:
            continue
        results = _results(plan, o, frames, here, written)
        if not results:
            continue
        with_seed = snapshot.holds(seed.wire)
        track = _new_track(plan, o, results, snapshot, written, with_seed=with_seed)
        if track is None:
            continue
        drawn = _keyframe(seed, seed.frame, seed.points)  # a request before this one may have it
        sent = written.sent.setdefault(seed.ref, set())
        sent |= {keyframe_content(k) for k in (drawn, *track["shapes"])}
        taken = set(written.tracks.values())
        stored = [
            t["id"] for t in own_tracks(plan, seed, snapshot, written) if t["id"] not in taken
        ]
        if stored:
            written.tracks[seed.ref] = min(stored)
        elif seed.wire["id"] not in snapshot.shapes and not seed.found:
            o.stopped = DELETED_MEANWHILE
        else:
            made.append((seed.ref, track))
    return made


def tracks_to_update(
    plan: Plan,
    objects: Sequence[TrackedObject],
    frames: Sequence[int],
    snapshot: Snapshot,
    written: Written,
) -> Iterator[tuple[str, Wire]]:
    """(object, track as it is to be) for all tracks that do not hold these results yet."""
    here = Ownership(plan, snapshot, written, objects)
    for o in objects:
        track_id = o.seed.wire["id"] if o.seed.is_track else written.tracks.get(o.seed.ref)
        if track_id is None:
            continue
        results = _results(plan, o, frames, here, written)
        if not results:
            continue
        fresh = snapshot.tracks.get(track_id)
        if fresh is None:
            o.stopped = DELETED_MEANWHILE
            continue
        if fault := track_fault(fresh):
            o.stopped = fault
            continue
        edited = _edited_track(plan, o, results, fresh, snapshot, written)
        if track_content(edited) != track_content(fresh):
            yield o.seed.ref, edited


def _results(
    plan: Plan, o: TrackedObject, frames: Sequence[int], here: Ownership, written: Written
) -> dict[int, Tracked]:
    """An object's results on these frames.

    A result counts as not visible where something lies in its place that this run did not write,
    and `written` says so.
    """
    results = {f: o.frames[f] for f in sorted(frames) if f in o.frames}
    for frame, t in results.items():
        if why := _why_hidden(plan, o.seed, frame, t, here, written):
            results[frame] = replace(t, points=None)
            written.leave_out(o.seed, frame, why)
    return results


def _why_hidden(
    plan: Plan, seed: Seed, frame: int, t: Tracked, here: Ownership, written: Written
) -> str | None:
    if t.by_hand or t.points is None:
        return None
    for why in (THERE_ALREADY, IN_ITS_PLACE, ALONE_IN_ITS_PLACE):
        # what was in its place may have become a part of another object's track since
        if frame in written.left_out.get((seed.ref, why), ()):
            return why
    if here.is_taken(seed, frame, t):
        return THERE_ALREADY
    if not plan.server and here.is_drawn_alone(seed, frame, t):
        return ALONE_IN_ITS_PLACE
    holder = here.holder(seed, frame, t)
    if holder is None:
        return None
    if seed.is_track:
        return ALONE_IN_ITS_PLACE
    replaced = plan.earlier.get(seed.number, {}).get(frame, ())
    return EDITED if any(k.id == holder.id for k in replaced) else IN_ITS_PLACE


def _new_track(
    plan: Plan,
    o: TrackedObject,
    results: Mapping[int, Tracked],
    snapshot: Snapshot,
    written: Written,
    *,
    with_seed: bool,
) -> Wire | None:
    """None: it was not visible on any of these frames."""
    seed = o.seed
    mutable = plan.job.label(seed.label_id).mutable_attributes
    attributes = attributes_of(seed.wire)
    mine = [a for a in attributes if a["spec_id"] in mutable]
    drawn = _drawn_as_shapes(plan.job, seed, results)
    if with_seed:
        beginning = _keyframe(seed, seed.frame, seed.points)
        drawn[seed.frame] = {**beginning, "attributes": mine}
    said = _attributes_said(plan, seed, drawn, results, snapshot)
    keyframes = _laid(plan, seed, drawn, results, written, forced=said.keys())
    if not plan.options.leave_open:
        _close(plan.job, seed, keyframes, max(seed.frame, *results), {})
    if not keyframes:
        return None
    if drawn or said:
        _keep_attributes(said | drawn, keyframes)
    first = min(keyframes)
    if not with_seed and first not in drawn and first not in said:
        keyframes[first] = {**keyframes[first], "attributes": mine}
    return _checked(
        {
            "label_id": seed.label_id,
            "frame": first,
            "group": seed.wire.get("group") or 0,
            "source": _source_of(seed.wire, {}, keyframes),
            "attributes": [a for a in attributes if a["spec_id"] not in mutable],
            "elements": [],
            "shapes": [keyframes[f] for f in sorted(keyframes)],
        }
    )


def _edited_track(
    plan: Plan,
    o: TrackedObject,
    results: Mapping[int, Tracked],
    track: Wire,
    snapshot: Snapshot,
    written: Written,
) -> Wire:
    seed = o.seed
    results = {f: t for f, t in results.items() if f not in seed.removed}
    before = {k["frame"]: keyframe_from_wire(k) for k in track["shapes"]}
    drawn = {} if seed.is_track else _drawn_as_shapes(plan.job, seed, results)
    edited = {f for f in drawn if f in before and not is_signed(before[f])}
    held = before | {f: k for f, k in drawn.items() if f not in edited}
    if seed.is_track and seed.frame not in held:
        held[seed.frame] = _signed(plan.job, _keyframe(seed, seed.frame, seed.points))
    own = {f: t for f, t in results.items() if not t.by_hand}
    said = _attributes_said(plan, seed, held, results, snapshot)
    laid = _laid(plan, seed, held, results, written, forced=said.keys())
    kept = set()
    for frame in own:
        if frame not in before:
            continue
        content = keyframe_content(before[frame])
        as_planned = (
            content == seed.keyframes.get(frame)
            or is_signed(before[frame])  # automatic, and as it was written
        )
        ours = frame in laid and keyframe_content(laid[frame]) == content
        if not as_planned and not ours:
            kept.add(frame)
            written.leave_out(seed, frame, EDITED)
    if kept:
        others = {f: t for f, t in results.items() if f not in kept}
        laid = _laid(plan, seed, held, others, written, kept, forced=said.keys())
    top = max(results, default=seed.frame)
    end = plan.job.next_frame(top)
    if end is not None and end < min(before) and top in laid and not laid[top]["outside"]:
        # Tracked backwards, it was lost from here up to the track's beginning so far.
        hidden = _keyframe(seed, end, laid[top]["points"], laid[top], outside=True)
        laid[end] = _signed(plan.job, hidden)
    last = max(own if seed.is_track else results, default=seed.frame)
    if not plan.options.leave_open and last > seed.frame:
        _close(plan.job, seed, laid, last, before)
    _keep_attributes(said | before, laid)
    return _checked(
        {
            "id": track["id"],
            "label_id": track["label_id"],
            "frame": min(laid),
            "group": track.get("group") or 0,
            "source": _source_of(track, before, laid),
            "attributes": attributes_of(track),
            "elements": [],
            "shapes": [laid[f] for f in sorted(laid)],
        }
    )


def _source_of(track: Wire, before: Mapping[int, Wire], laid: Mapping[int, Wire]) -> Any:
    """The source of the track as it is written.

    Where no keyframe is signed, the source "auto" alone says that nobody edited the track. So it
    becomes "semi-auto" when the last signed keyframe goes and a person's keyframes stay.
    """
    if any(map(is_signed, laid.values())):
        return "auto"
    return "semi-auto" if any(map(is_signed, before.values())) else track.get("source")


def _drawn_as_shapes(job: Job, seed: Seed, results: Mapping[int, Tracked]) -> dict[int, Wire]:
    """What a person drew of the object as other shapes, which becomes a part of the track."""
    shapes = {c.frame: c.shape for c in seed.corrections}
    mutable = job.label(seed.label_id).mutable_attributes
    keyframes = {}
    for frame, t in results.items():
        if t.by_hand and t.points is not None and frame != seed.frame:
            drawn = shapes.get(frame) or seed.wire
            values = [a for a in attributes_of(drawn) if a["spec_id"] in mutable]
            keyframes[frame] = {
                **_keyframe(seed, frame, t.points, drawn),
                "attributes": values if shapes.get(frame) else [],
            }
    return keyframes


def _attributes_said(
    plan: Plan,
    seed: Seed,
    keyframes: Mapping[int, Wire],
    frames: Iterable[int],
    snapshot: Snapshot,
) -> dict[int, Wire]:
    """By frame, the mutable attributes that a person set on results which the track replaces, where
    they are others than those that hold there by then.

    keyframes: of the track beforehand, by frame. CVAT leaves the source of a result as it is when a
    person sets its attributes, so this shows only where an object's results differ.
    """
    if seed.number not in plan.differing:
        return {}
    mutable = plan.job.label(seed.label_id).mutable_attributes
    earlier = plan.earlier.get(seed.number, {})
    held: dict[int, Any] = {}
    said: dict[int, Wire] = {}
    for frame in sorted({*keyframes, *frames}):
        if frame in keyframes:
            held |= values_by_spec(keyframes[frame])
            continue
        for k in earlier.get(frame, ()):
            shape = snapshot.whole.get(k.id, {})
            if shape.get("label_id") != seed.label_id:
                continue
            values = {s: v for s, v in values_by_spec(shape).items() if s in mutable}
            if not values.items() <= held.items():
                said[frame] = {"attributes": _as_list(values)}
            held |= values
    return said


def _laid(
    plan: Plan,
    seed: Seed,
    before: Mapping[int, Wire],
    results: Mapping[int, Tracked],
    written: Written,
    kept: Collection[int] = (),
    *,
    forced: Collection[int] = (),
) -> dict[int, Wire]:
    """The keyframes `before` with results laid over them, by frame.

    Where the object is not visible, one `outside` keyframe stands on the first such frame, with
    the last visible points; where nothing was visible before, the track begins later. Where the
    frame before it is not part of the run, it carries the points that held there, so that the
    frames in between stay as they were. With sparse keyframes, only the results that are needed are
    laid, and the automatic keyframes on the other frames go.

    kept: frames of keyframes in `before` that stay, besides a person's. forced: frames that have a
    keyframe in any case.
    """
    job = plan.job
    by_hand = {f for f, t in results.items() if t.by_hand}
    own = {f: t for f, t in results.items() if not t.by_hand}
    chosen = own
    if plan.options.sparse is not None and own:
        iou, still = plan.options.sparse, {*by_hand, *kept}
        stretch = Stretch(
            job=job, seed=seed, iou=iou, before=before, results=own, still=still, forced=set(forced)
        )
        chosen = written.thinning.thin(stretch)
    dropped = own.keys() - chosen.keys()
    results = {**results, **chosen}
    counting = counting_keyframes(job, before.values())
    frames_counting = [k["frame"] for k in counting]
    laid: dict[int, Wire] = {}
    last: Wire | None = None
    for frame in sorted((before.keys() | results.keys()) - dropped):
        if frame not in results or frame in by_hand:
            if frame in before:
                laid[frame] = before[frame]
                # CVAT passes over keyframes on deleted frames
                last = last if frame in job.deleted_frames else before[frame]
            continue
        t = results[frame]
        at = bisect_right(frames_counting, frame)
        held = counting[max(at - 1, 0)] if counting else None
        if t.points is not None:
            keyframe = _keyframe(seed, frame, t.points, held)
            laid[frame] = last = keyframe if t.drawn_in_run else _signed(job, keyframe)
        elif last is not None and not last["outside"]:
            points = last["points"]
            far = last["frame"] not in results and last["frame"] != seed.frame
            if far and last["frame"] < frame - 1:
                position = position_among(counting, frame)
                points = position["points"] if position else points
            keyframe = _keyframe(seed, frame, points, held, outside=True)
            laid[frame] = last = keyframe if t.drawn_in_run else _signed(job, keyframe)
    return laid


def _close(
    job: Job, seed: Seed, keyframes: dict[int, Wire], last: int, before: Mapping[int, Wire]
) -> None:
    """Leaves the frames after the last one of this run as they were.

    Where it is visible on the last frame, CVAT would repeat that position to the end of the job, or
    show it where the track was hidden; where it is not, CVAT would hide it up to its next keyframe.
    before: the keyframes before this run.
    """
    end = job.next_frame(last)
    until = [f for f in keyframes if f <= last]
    if end is None or end in keyframes or not until:
        return
    later = any(f > last and f not in job.deleted_frames for f in keyframes)
    counting = counting_keyframes(job, before.values())
    held = position_among(counting, end)
    here = keyframes[max(until)]
    if here["outside"]:
        if later and held and not held["outside"] and is_signed(here):
            again = _keyframe(seed, end, held["points"], held)
            turned = held.get("rotation") or 0
            # A turned box cannot be signed: the keyframe counts as a person's from here on.
            keyframes[end] = {**again, "rotation": turned} if turned else _signed(job, again)
    elif not later or (held and held["outside"]):
        keyframe = _keyframe(seed, end, here["points"], here, outside=True)
        keyframes[end] = _signed(job, keyframe)


def _keep_attributes(before: dict[int, Wire], after: dict[int, Wire]) -> None:
    """Keeps a track's mutable attributes as they were on every frame, in place.

    They hold from the keyframe that carries them to the next that does, so those of a keyframe
    that went are given to the next one that stays; a track that now begins earlier begins
    with those of its former beginning.
    """
    held: dict[int, Any] = {}
    for f in sorted(set(before) | set(after)):
        if f in before and after.get(f) is not before[f]:
            held |= values_by_spec(before[f])
        if f in after and held:
            after[f] = {**after[f], "attributes": _as_list(held | values_by_spec(after[f]))}
            held = {}
    first = min(after)
    if first < min(before):
        values = values_by_spec(before[min(before)])
        after[first] = {**after[first], "attributes": _as_list(values)}


def _as_list(values: dict[int, Any]) -> list[Wire]:
    return [{"spec_id": spec, "value": value} for spec, value in values.items()]


def _keyframe(
    seed: Seed,
    frame: int,
    points: Sequence[float],
    held: Wire | None = None,
    *,
    outside: bool = False,
) -> Wire:
    """`held`: what held here, whose `occluded` and z-order stay; else the seed's."""
    return {
        "type": seed.type,
        "frame": frame,
        "points": list(points),
        "outside": outside,
        "occluded": bool(held.get("occluded")) if held else seed.occluded,
        "z_order": int(held.get("z_order") or 0) if held else seed.z_order,
        "rotation": 0,
        "attributes": [],
    }


def _signed(job: Job, keyframe: Wire) -> Wire:
    """The keyframe as this run writes it: signed, so that it is known again."""
    if is_signed(keyframe):
        return keyframe
    shape_type, points, frame = (keyframe[name] for name in ("type", "points", "frame"))
    flags = {name: keyframe[name] for name in ("outside", "occluded", "z_order")}
    width, height = job.size(frame)
    return {
        **keyframe,
        "points": sign(shape_type, points, frame, width=width, height=height, **flags),
    }


def keyframe_from_wire(keyframe: Wire) -> Wire:
    """The keyframe without its id: ids of keyframes are never sent back."""
    return {
        "type": keyframe["type"],
        "frame": keyframe["frame"],
        "points": list(keyframe["points"]),
        "outside": bool(keyframe["outside"]),
        "occluded": bool(keyframe["occluded"]),
        "z_order": keyframe.get("z_order") or 0,
        "rotation": keyframe.get("rotation") or 0,
        "attributes": attributes_of(keyframe),
    }


def _checked(track: Wire) -> Wire:
    """The last guard before a track is written; what it finds is our own mistake."""
    frames = [k["frame"] for k in track["shapes"]]
    if any(k["type"] == "mask" for k in track["shapes"]):
        raise ActionError(
            "Refused to write a track of masks: CVAT could not open the job any more."
        )
    if len(set(frames)) < len(frames) or track["frame"] != min(frames):
        raise ActionError(f"Refused to write a track with the keyframes {frames}.")
    return track
