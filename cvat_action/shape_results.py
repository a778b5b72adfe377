# SPDX-License-Identifier: MIT
"""The shapes that a run creates and deletes: one row of results.py's table after the other."""

from collections.abc import Collection, Iterator, Sequence

from cvat_action.identity import Mark, marked_score
from cvat_action.job import Wire
from cvat_action.plan import Plan
from cvat_action.results import (
    DELETED_MEANWHILE,
    EDITED,
    THERE_ALREADY,
    Ownership,
    Written,
    attributes_of,
)
from cvat_action.seeds import Seed
from cvat_action.snapshot import Snapshot, attributes_hash, content_of, values_by_spec
from cvat_action.tracked import Tracked, TrackedObject


def shapes_to_create(
    plan: Plan,
    objects: Sequence[TrackedObject],
    frames: Sequence[int],
    snapshot: Snapshot,
    written: Written,
) -> Iterator[tuple[int, int, Wire]]:
    """(number of the object, frame, shape) for all results that are not in the job yet."""
    here = Ownership(plan, snapshot, written, objects)
    for frame in sorted(frames):
        for o in objects:
            seed = o.seed
            t = o.frames.get(frame)
            key = (seed.number, frame)
            if plan.becomes_track(seed) or t is None or t.by_hand or key in written.shapes:
                continue
            if not seed.found and seed.wire["id"] not in snapshot.shapes:
                o.stopped = DELETED_MEANWHILE
                continue
            if t.points is None:
                continue
            ours = here.ours.get(key)
            shape = result_shape(plan, seed, frame, t, snapshot)
            if ours:
                written.adopt(ours[0].id, key, content_of(shape))
            elif _standing(plan, seed, shape, snapshot) is not None:
                written.shapes.add(key)
            elif holder := here.holder(seed, frame, t):
                written.shapes.add(key)
                new = holder.id > plan.newest[0] and holder.mark is None
                if written.uncertain and new and holder.content == content_of(shape):
                    # ours, on a server that keeps no scores
                    written.adopt(holder.id, key, holder.content)
                else:
                    replaced = plan.earlier.get(seed.number, {}).get(frame, ())
                    edited = any(k.id == holder.id for k in replaced)
                    written.leave_out(seed, frame, EDITED if edited else THERE_ALREADY)
            elif here.is_taken(seed, frame, t):
                written.shapes.add(key)
                written.leave_out(seed, frame, THERE_ALREADY)
            else:
                yield seed.number, frame, shape


def _standing(plan: Plan, seed: Seed, shape: Wire, snapshot: Snapshot) -> int | None:
    """The id of a result of an earlier run that is what would be written now, and stays."""
    earlier = plan.earlier.get(seed.number, {}).get(shape["frame"], ())
    if len(earlier) != 1 or earlier[0].mark is None or earlier[0].mark.number != seed.number:
        return None
    known = snapshot.shapes.get(earlier[0].id)
    equal = known is not None and (known.content, known.attributes) == (
        content_of(shape),
        attributes_hash(values_by_spec(shape)),
    )
    return earlier[0].id if equal else None


def result_shape(plan: Plan, seed: Seed, frame: int, t: Tracked, snapshot: Snapshot) -> Wire:
    """What is written of a result.

    CVAT's page leaves the source of a shape as it is when a person sets only its label, group or
    attributes. So where the shapes of an earlier run differ in these, each new one takes them over
    from the one that it replaces.
    """
    like = seed.wire
    if seed.number in plan.differing:
        replaced = plan.earlier.get(seed.number, {}).get(frame, ())
        like = next((snapshot.whole[k.id] for k in replaced if k.id in snapshot.whole), like)
    return {
        "type": seed.type,
        "frame": frame,
        "label_id": like["label_id"],
        "group": like.get("group") or 0,
        "source": "semi-auto" if t.drawn_in_run else "auto",
        "score": marked_score(t.score, Mark(seed.number, plan.run), frame),
        "points": list(t.points or ()),
        "occluded": seed.occluded,
        "outside": False,
        "z_order": seed.z_order,
        "rotation": 0,
        "attributes": attributes_of(like),
        "elements": [],
    }


def shapes_to_delete(
    plan: Plan,
    objects: Sequence[TrackedObject],
    frames: Collection[int],
    snapshot: Snapshot,
    written: Written,
) -> list[int]:
    """Ids of what this run's results take the place of, where nobody changed it."""
    gone: list[int] = []

    def unless_edited(seed: Seed, shape: Wire, frame: int) -> None:
        if snapshot.holds(shape):
            gone.append(shape["id"])
        elif shape["id"] in snapshot.shapes:
            written.leave_out(seed, frame, EDITED)

    for o in objects:
        if plan.becomes_track(o.seed) and not o.seed.is_track:
            if o.seed.ref not in written.tracks:
                continue
            unless_edited(o.seed, o.seed.wire, o.seed.frame)
            for c in o.seed.corrections:
                t = o.frames.get(c.frame)
                if c.shape and c.frame in frames and t and t.by_hand:
                    unless_edited(o.seed, c.shape, c.frame)
        if o.seed.is_track and o.seed.wire["id"] not in snapshot.tracks:
            continue
        for frame, shape in o.drawn_again.items():
            if frame in frames:
                unless_edited(o.seed, shape, frame)
        becomes_track = plan.becomes_track(o.seed)
        drawn = {c.frame: c.shape["id"] for c in o.seed.corrections if c.shape}
        for frame in frames:
            t = o.frames.get(frame)
            if t is None:
                continue
            if t.by_hand:
                replaced = drawn.get(frame) in snapshot.shapes
            else:
                written_here = (o.seed.number, frame) in written.shapes
                replaced = written_here or o.stopped != DELETED_MEANWHILE
            if not (replaced or becomes_track):
                continue  # nothing takes its place
            stays = None
            if t.points is not None and not (t.by_hand or becomes_track):
                shape = result_shape(plan, o.seed, frame, t, snapshot)
                stays = _standing(plan, o.seed, shape, snapshot)
            for k in plan.earlier.get(o.seed.number, {}).get(frame, ()):
                known = snapshot.shapes.get(k.id)
                if known is None or k.id == stays:
                    continue
                if k.same(known):
                    gone.append(k.id)
                else:
                    written.leave_out(o.seed, frame, EDITED)
    return gone


def drawn_in_tracks(
    plan: Plan,
    objects: Sequence[TrackedObject],
    frames: Collection[int],
    snapshot: Snapshot,
    written: Written,
) -> list[int]:
    """Ids of the polygons that a person drew, nobody changed and a track of this run holds."""
    gone: list[int] = []
    for o in objects:
        track = snapshot.tracks.get(written.tracks.get(o.seed.ref, 0))
        if track is None or o.seed.is_track:
            continue
        held = {k["frame"]: list(k["points"]) for k in track["shapes"] if not k["outside"]}
        drawn = [o.seed.wire]
        drawn += [c.shape for c in o.seed.corrections if c.shape and c.frame in frames]
        gone += [
            shape["id"]
            for shape in drawn
            if snapshot.holds(shape) and held.get(shape["frame"]) == list(shape["points"])
        ]
    return gone
