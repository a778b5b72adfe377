# SPDX-License-Identifier: MIT
"""Tracked frames into what is created, updated and deleted: contract section 10's table.

| seed on frame N | as it is | with `convert` |
|---|---|---|
| mask shape | a mask shape per frame; seed kept | the same |
| polygon shape | a polygon shape per frame; seed kept | a track from keyframe N; seed deleted |
| polygon track | keyframe N and a keyframe per frame; later keyframes kept | the same |
| rectangle shape, track | like polygons | shapes stay shapes, tracks stay tracks |

Everything is worked out against a fresh look at the job, so asking again after an answer that was
lost gives what is still missing, and nothing that changed since the plan is touched. Nothing here
knows a server.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter
from typing import Any

from cvat_action.errors import ActionError
from cvat_action.geometry import Box, bounding_box, boxes_iou
from cvat_action.identity import Mark, marked_score
from cvat_action.job import Job, Wire
from cvat_action.look import (
    BOXED,
    Kind,
    Known,
    Look,
    attributes_hash,
    content_of,
    keyframe_content,
    kind_of,
    known_from_wire,
    track_content,
)
from cvat_action.plan import Plan
from cvat_action.selection import Seed, position_among, track_fault
from cvat_action.signature import is_signed, sign
from cvat_action.sparse import Stretch, Thinning
from cvat_action.tracking import Tracked, TrackedObject

SAME_PLACE = 0.5
"""IoU of boxes from which on a shape without a mark is taken for the object that was tracked"""

DELETED_MEANWHILE = "deleted in CVAT while it was tracked"


@dataclass
class Written:
    """What this run has written, or left out for good, so far."""

    shapes: set[tuple[int, int]] = field(default_factory=set)
    """(number of the object, frame)"""
    ids: dict[int, tuple[int, int]] = field(default_factory=dict)
    """id of a shape that this run created to (number of the object, frame)"""
    tracks: dict[str, int] = field(default_factory=dict)
    """id of the track that was created for a seed"""
    sent: dict[str, set[int]] = field(default_factory=dict)
    """hashes of the keyframes that these tracks were created with, by the object"""
    uncertain: bool = False
    """an answer to a creation is missing, so more may be stored than was acknowledged"""
    adopted: dict[int, tuple[tuple[int, int], int]] = field(default_factory=dict)
    """what a creation stored whose answer is missing, and is on no record yet: id of the shape to
    its entry in `ids` and a hash of its content"""
    thinning: Thinning = field(default_factory=Thinning)
    """sparse keyframes, if they are asked for"""
    left_out: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    """(object, why) to the frames on which nothing was written for it"""

    def adopt(self, shape: int, key: tuple[int, int], content: int) -> None:
        """A shape was found that is this run's own, though no answer said so."""
        self.shapes.add(key)
        self.ids[shape] = key
        self.adopted[shape] = (key, content)

    def leave_out(self, seed: Seed, frame: int, why: str) -> None:
        self.left_out.setdefault((seed.ref, why), set()).add(frame)


THERE_ALREADY = "a shape of this object is there that this run did not write; it was kept"
EDITED = "changed by a person while it was tracked; it was kept"


# --- shapes --------------------------------------------------------------------------------------


class Here:
    """What a look shows of this run's objects.

    A shape is this run's own if an answer named its id. Where an answer is missing, one that
    appeared since the plan with the run's mark is, too; else such a shape is another run's that
    happened to draw the same number.
    """

    def __init__(self, plan: Plan, look: Look, written: Written) -> None:
        self._plan = plan
        self._written = written
        self.ours: dict[tuple[int, int], list[Known]] = {}
        """(number, frame) to the shapes that this run wrote there"""
        self.marked: dict[tuple[int, int], list[Known]] = {}
        """(number, frame) to what others wrote or changed there: persons and other runs"""
        self._others: dict[tuple[int, Kind], list[Known]] = {}
        self._not_ours: dict[int, list[Known]] = {}
        """frame to all shapes that this run did not write"""
        self._look = look
        self._boxes: dict[int, list[Box]] = {}
        replaced = {
            k.id: k for by in plan.earlier.values() for shapes in by.values() for k in shapes
        }
        seeds = {s.wire["id"] for s in plan.seeds if not s.is_track}
        numbers = {s.number for s in plan.seeds if not s.is_track}
        for k in look.shapes.values():
            mark, known_of = k.mark, written.ids.get(k.id)
            new = k.id > plan.newest[0]
            unacknowledged = written.uncertain and new and mark and mark.run == plan.run
            if known_of or (mark and unacknowledged and mark.number in numbers):
                key = known_of or (mark.number if mark else 0, k.frame)
                self.ours.setdefault(key, []).append(k)
                continue
            if k.id in seeds or k.same(replaced.get(k.id)):
                continue
            self._not_ours.setdefault(k.frame, []).append(k)
            if mark and mark.number in numbers:
                if new or not k.auto:
                    self.marked.setdefault((mark.number, k.frame), []).append(k)
            elif mark is None and (new or not k.auto):
                self._others.setdefault((k.frame, k.kind), []).append(k)

    def is_taken(self, seed: Seed, frame: int, t: Tracked) -> bool:
        """Whether something that this run did not write lies in the place of what was found."""
        if not seed.found or t.points is None:
            return False
        if frame not in self._boxes:
            at = (position_among(keyframes, frame) for keyframes in self._other_tracks)
            self._boxes[frame] = [
                *(k.box for k in self._not_ours.get(frame, ())),
                *(
                    bounding_box(k["type"], k["points"])
                    for k in at
                    if k and k["type"] in BOXED and not k["outside"]
                ),
            ]
        boxes, own = self._boxes[frame], bounding_box(seed.type, t.points)
        return bool(boxes) and bool((boxes_iou([own], boxes) >= SAME_PLACE).any())

    @cached_property
    def _other_tracks(self) -> list[list[Wire]]:
        """The keyframes that count, in order, of each track that this run did not write."""
        own = {s.wire["id"] for s in self._plan.seeds if s.is_track}
        own |= set(self._written.tracks.values())
        for ref in self._written.sent:
            own |= {t["id"] for t in own_tracks(self._plan, ref, self._look, self._written)}
        deleted = self._plan.job.deleted_frames
        return [
            sorted(
                (k for k in track["shapes"] if k["frame"] not in deleted), key=itemgetter("frame")
            )
            for number, track in self._look.tracks.items()
            if number not in own
        ]

    def holder(self, seed: Seed, frame: int, t: Tracked) -> Known | None:
        """A shape of this object on the frame that this run did not write."""
        marked = self.marked.get((seed.number, frame))
        if marked:
            return marked[0]
        # Of what a detector found, anything in its place may be the same object.
        others = (
            self._not_ours.get(frame)
            if seed.found
            else self._others.get((frame, kind_of(seed.wire)))
        )
        if not others or t.points is None:
            return None
        overlap = boxes_iou([bounding_box(seed.type, t.points)], [k.box for k in others])[0]
        best = int(overlap.argmax())
        return others[best] if overlap[best] >= SAME_PLACE else None


def shapes_to_create(
    plan: Plan,
    objects: Sequence[TrackedObject],
    frames: Sequence[int],
    look: Look,
    written: Written,
) -> Iterator[tuple[int, int, Wire]]:
    """(number of the object, frame, shape) for all results that are not in the job yet."""
    here = Here(plan, look, written)
    for frame in sorted(frames):
        for o in objects:
            seed = o.seed
            t = o.frames.get(frame)
            key = (seed.number, frame)
            if plan.becomes_track(seed) or t is None or t.by_hand or key in written.shapes:
                continue
            if not seed.found and seed.wire["id"] not in look.shapes:
                o.stopped = DELETED_MEANWHILE
                continue
            if t.points is None:
                continue
            ours = here.ours.get(key)
            shape = result_shape(plan, seed, frame, t, look)
            if ours:
                written.adopt(ours[0].id, key, content_of(shape))
            elif _standing(plan, seed, shape, look) is not None:
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


def _standing(plan: Plan, seed: Seed, shape: Wire, look: Look) -> int | None:
    """The id of a result of an earlier run that is what would be written now, and stays."""
    earlier = plan.earlier.get(seed.number, {}).get(shape["frame"], ())
    if len(earlier) != 1 or earlier[0].mark is None or earlier[0].mark.number != seed.number:
        return None
    known = look.shapes.get(earlier[0].id)
    equal = known is not None and (known.content, known.attributes) == (
        content_of(shape),
        attributes_hash({a["spec_id"]: a["value"] for a in shape["attributes"]}),
    )
    return earlier[0].id if equal else None


def result_shape(plan: Plan, seed: Seed, frame: int, t: Tracked, look: Look) -> Wire:
    """What is written of a result.

    CVAT's page leaves the source of a shape as it is when a person sets only its label, group or
    attributes. So where the shapes of an earlier run differ in these, each new one takes them over
    from the one that it replaces.
    """
    like = seed.wire
    if seed.number in plan.differing:
        replaced = plan.earlier.get(seed.number, {}).get(frame, ())
        like = next((look.whole[k.id] for k in replaced if k.id in look.whole), like)
    return {
        "type": seed.type,
        "frame": frame,
        "label_id": like["label_id"],
        "group": like.get("group") or 0,
        "source": "semi-auto" if t.drawn else "auto",
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
    look: Look,
    written: Written,
) -> list[int]:
    """Ids of what this run's results take the place of, where nobody changed it."""
    gone: list[int] = []

    def unless_edited(seed: Seed, shape: Wire, frame: int) -> None:
        known = look.shapes.get(shape["id"])
        if known is None:
            return
        if known.same(known_from_wire(shape)):
            gone.append(known.id)
        else:
            written.leave_out(seed, frame, EDITED)

    for o in objects:
        if plan.becomes_track(o.seed) and not o.seed.is_track:
            if o.seed.ref not in written.tracks:
                continue
            unless_edited(o.seed, o.seed.wire, o.seed.frame)
            for c in o.seed.corrections:
                if c.shape and c.frame in frames and _is_by_hand(o, c.frame):
                    unless_edited(o.seed, c.shape, c.frame)
        if o.seed.is_track:
            continue
        for frame in frames:
            t = o.frames.get(frame)
            if t is None or t.by_hand:
                continue
            written_here = (o.seed.number, frame) in written.shapes
            alone = not written_here and not plan.becomes_track(o.seed)
            if o.stopped == DELETED_MEANWHILE and alone:
                continue  # nothing takes its place
            stays = None
            if t.points is not None:
                shape = result_shape(plan, o.seed, frame, t, look)
                stays = _standing(plan, o.seed, shape, look)
            for k in plan.earlier.get(o.seed.number, {}).get(frame, ()):
                known = look.shapes.get(k.id)
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
    look: Look,
    written: Written,
) -> list[int]:
    """Ids of the polygons that a person drew, nobody changed and a track of this run holds."""
    gone: list[int] = []
    for o in objects:
        track = look.tracks.get(written.tracks.get(o.seed.ref, 0))
        if track is None or o.seed.is_track:
            continue
        held = {k["frame"]: list(k["points"]) for k in track["shapes"] if not k["outside"]}
        drawn = [o.seed.wire]
        drawn += [c.shape for c in o.seed.corrections if c.shape and c.frame in frames]
        for shape in drawn:
            known = look.shapes.get(shape["id"])
            same = known is not None and known.same(known_from_wire(shape))
            if same and held.get(shape["frame"]) == list(shape["points"]):
                gone.append(shape["id"])
    return gone


# --- tracks --------------------------------------------------------------------------------------


def tracks_to_create(
    plan: Plan,
    objects: Sequence[TrackedObject],
    frames: Sequence[int],
    look: Look,
    written: Written,
) -> list[tuple[str, Wire]]:
    """(object, track) for all polygons that become tracks and are none yet."""
    made = []
    here = Here(plan, look, written)
    for o in objects:
        seed = o.seed
        if seed.is_track or not plan.becomes_track(seed) or seed.ref in written.tracks:
            continue
        results = _results(o, frames, here, written)
        if not results:
            continue
        fresh = look.shapes.get(seed.wire["id"])
        with_seed = fresh is not None and fresh.same(known_from_wire(seed.wire))
        track = _new_track(plan, o, results, written, with_seed=with_seed)
        if track is None:
            continue
        drawn = _keyframe(seed, seed.frame, seed.points)  # a request before this one may have it
        sent = written.sent.setdefault(seed.ref, set())
        sent |= {keyframe_content(k) for k in (drawn, *track["shapes"])}
        taken = set(written.tracks.values())
        stored = [
            t["id"] for t in own_tracks(plan, seed.ref, look, written) if t["id"] not in taken
        ]
        if stored:
            written.tracks[seed.ref] = min(stored)
        elif fresh is None and not seed.found:
            o.stopped = DELETED_MEANWHILE
        else:
            made.append((seed.ref, track))
    return made


def tracks_to_update(
    plan: Plan,
    objects: Sequence[TrackedObject],
    frames: Sequence[int],
    look: Look,
    written: Written,
) -> Iterator[tuple[str, Wire]]:
    """(object, track as it is to be) for all tracks that do not hold these results yet."""
    here = Here(plan, look, written)
    for o in objects:
        number = o.seed.wire["id"] if o.seed.is_track else written.tracks.get(o.seed.ref)
        results = _results(o, frames, here, written)
        if number is None or not results:
            continue
        fresh = look.tracks.get(number)
        if fresh is None:
            o.stopped = DELETED_MEANWHILE
            continue
        if fault := track_fault(fresh):
            o.stopped = fault
            continue
        edited = _edited_track(plan, o, results, fresh, written)
        if track_content(edited) != track_content(fresh):
            yield o.seed.ref, edited


def _results(
    o: TrackedObject, frames: Sequence[int], here: Here, written: Written
) -> dict[int, Tracked]:
    """Of what was found, as not visible where something lies in its place."""
    results = {f: o.frames[f] for f in sorted(frames) if f in o.frames}
    for frame, t in results.items():
        if here.is_taken(o.seed, frame, t):
            results[frame] = replace(t, points=None)
            written.leave_out(o.seed, frame, THERE_ALREADY)
    return results


def _is_by_hand(o: TrackedObject, frame: int) -> bool:
    return frame in o.frames and o.frames[frame].by_hand


def own_tracks(plan: Plan, ref: str, look: Look, written: Written) -> list[Wire]:
    """The tracks that appeared since the plan with an automatic keyframe that was sent for `ref`.

    One such keyframe is enough: a person may have changed the others since.
    """
    sent = written.sent.get(ref, set())
    return [
        track
        for number, track in look.tracks.items()
        if number > plan.newest[1]
        and any(is_signed(k) and keyframe_content(k) in sent for k in track["shapes"])
    ]


def _new_track(
    plan: Plan,
    o: TrackedObject,
    results: Mapping[int, Tracked],
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
    keyframes = _laid(plan, seed, drawn, results, written)
    if not plan.options.leave_open:
        _close(plan.job, seed, keyframes, max(seed.frame, *results), {})
    if not keyframes:
        return None
    if drawn:
        _keep_attributes(drawn, keyframes)
    first = min(keyframes)
    if not with_seed and first not in drawn:
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
    laid = _laid(plan, seed, held, results, written)
    kept = set()
    for frame in own:
        if frame not in before:
            continue
        content = keyframe_content(before[frame])
        as_planned = (
            content == seed.keyframes.get(frame)
            or is_signed(before[frame])  # automatic, and as it was written
            or _closes(plan.job, before, frame)
        )
        ours = frame in laid and keyframe_content(laid[frame]) == content
        if not as_planned and not ours:
            kept.add(frame)
            written.leave_out(seed, frame, EDITED)
    if kept:
        others = {f: t for f, t in results.items() if f not in kept}
        laid = _laid(plan, seed, held, others, written, kept)
    last = max(own if seed.is_track else results, default=seed.frame)
    if not plan.options.leave_open and last > seed.frame:
        _close(plan.job, seed, laid, last, before)
    _keep_attributes(before, laid)
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
    """Of a track without a signed keyframe the source alone tells that nobody edited it. So it must
    not say so where only a person's keyframes are left."""
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


def _closes(job: Job, keyframes: Mapping[int, Wire], frame: int) -> bool:
    """Whether the keyframe on `frame` is as `_close` writes it after the frame before."""
    until = max((f for f in keyframes if f < frame), default=None)
    if until is None or job.next_frame(until) != frame or not keyframes[frame]["outside"]:
        return False
    return list(keyframes[frame]["points"]) == list(keyframes[until]["points"])


def _laid(
    plan: Plan,
    seed: Seed,
    before: Mapping[int, Wire],
    results: Mapping[int, Tracked],
    written: Written,
    kept: Collection[int] = (),
) -> dict[int, Wire]:
    """The keyframes `before` with results laid over them, by frame.

    Where the object is not visible, one `outside` keyframe stands on the first such frame, with
    the last visible points; where nothing was visible before, the track begins later. Where the
    frame before it is not part of the run, it carries the points that held there, so that the
    frames in between stay as they were. With sparse keyframes, only the results that are needed are
    laid, and the automatic keyframes on the other frames go.

    kept: frames of keyframes in `before` that stay, besides a person's.
    """
    job = plan.job
    by_hand = {f for f, t in results.items() if t.by_hand}
    dropped: set[int] = set()
    own = {f: t for f, t in results.items() if not t.by_hand}
    if plan.options.sparse is not None and own:
        stretch = Stretch(
            job=job,
            seed=seed,
            iou=plan.options.sparse,
            before=before,
            results=own,
            still={*by_hand, *kept},
        )
        chosen = written.thinning.thin(stretch)
        dropped = own.keys() - chosen.keys()
        results = {**results, **chosen}
    counting = [before[f] for f in sorted(before) if f not in job.deleted_frames]
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
            laid[frame] = last = keyframe if t.drawn else _signed(job, keyframe)
        elif last is not None and not last["outside"]:
            points = last["points"]
            far = last["frame"] not in results and last["frame"] != seed.frame
            if far and last["frame"] < frame - 1:
                position = position_among(counting, frame)
                points = position["points"] if position else points
            keyframe = _keyframe(seed, frame, points, held, outside=True)
            laid[frame] = last = keyframe if t.drawn else _signed(job, keyframe)
    return laid


def _close(
    job: Job, seed: Seed, keyframes: dict[int, Wire], last: int, before: Mapping[int, Wire]
) -> None:
    """Leaves the frames after the last one of this run as they were.

    Where it is visible on the last frame, CVAT would repeat that position to the end of the job, or
    show it where the track was hidden; where it is not, CVAT would hide it up to its next keyframe
    (contract 7). before: the keyframes before this run.
    """
    end = job.next_frame(last)
    until = [f for f in keyframes if f <= last]
    if end is None or end in keyframes or not until:
        return
    later = any(f > last and f not in job.deleted_frames for f in keyframes)
    counting = [before[f] for f in sorted(before) if f not in job.deleted_frames]
    held = position_among(counting, end)
    here = keyframes[max(until)]
    if here["outside"]:
        if later and held and not held["outside"] and is_signed(here):
            keyframes[end] = _signed(job, _keyframe(seed, end, held["points"], held))
    elif not later or (held and held["outside"]):
        keyframe = _keyframe(seed, end, here["points"], here, outside=True)
        keyframes[end] = _signed(job, keyframe)


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
    kind, points, frame = (keyframe[name] for name in ("type", "points", "frame"))
    flags = {name: keyframe[name] for name in ("outside", "occluded", "z_order")}
    width, height = job.size(frame)
    return {**keyframe, "points": sign(kind, points, frame, width=width, height=height, **flags)}


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


def attributes_of(wire: Wire) -> list[Wire]:
    return [{"spec_id": a["spec_id"], "value": a["value"]} for a in wire.get("attributes") or ()]


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
