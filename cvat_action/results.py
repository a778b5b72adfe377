# SPDX-License-Identifier: MIT
"""Whose the shapes and tracks of a job are: this run's own, an earlier run's, or a person's.

From tracked frames the run makes the shapes and tracks to create, update and delete:

| seed on frame N | as it is | with `convert` |
|---|---|---|
| mask shape | a mask shape per frame; seed kept | the same |
| polygon shape | a polygon shape per frame; seed kept | a track from keyframe N; seed deleted |
| polygon track | keyframe N and a keyframe per frame; later keyframes kept | the same |
| rectangle shape, track | like polygons | shapes stay shapes, tracks stay tracks |

What is still missing is worked out from a fresh snapshot of the job. So asking again after a lost
answer writes nothing twice, and nothing that changed since the plan is touched.
shape_results.py and track_results.py say what to write. None of the three knows a server.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from cvat_action.geometry import TRACKABLE, Box, bounding_box, box_of, boxes_iou
from cvat_action.job import Wire
from cvat_action.kinds import Kind, compared_kind_of, kind_of, same_kind
from cvat_action.plan import Plan
from cvat_action.positions import counting_keyframes, position_among
from cvat_action.seeds import Seed
from cvat_action.signature import is_signed
from cvat_action.snapshot import Known, Snapshot, keyframe_content, known_from_wire
from cvat_action.sparse import Thinning
from cvat_action.tracked import Tracked, TrackedObject

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
    over_others: dict[str, list[int]] = field(default_factory=dict)
    """object to the frames on which it covers the same as a result of an object outside the run"""

    def adopt(self, shape: int, key: tuple[int, int], content: int) -> None:
        """A shape was found that is this run's own, though no answer said so."""
        self.shapes.add(key)
        self.ids[shape] = key
        self.adopted[shape] = (key, content)

    def leave_out(self, seed: Seed, frame: int, why: str) -> None:
        self.left_out.setdefault((seed.ref, why), set()).add(frame)


THERE_ALREADY = "a shape of this object is there that this run did not write; it was kept"
IN_ITS_PLACE = (
    "a shape that this run did not write lies in its place and was kept, so the track is hidden "
    "there; with --keyframes a drawn shape becomes a part of the track"
)
ALONE_IN_ITS_PLACE = (
    "a drawing of this frame alone lies in its place and was kept, so the track is hidden there"
)
EDITED = "changed by a person while it was tracked; it was kept"


class Ownership:
    """Whose the shapes of a snapshot are: this run's, or somebody else's.

    A shape is this run's own if an answer named its id. Where an answer is missing, one that
    appeared since the plan with the run's mark is, too; else such a shape is another run's that
    happened to draw the same number.
    """

    def __init__(
        self,
        plan: Plan,
        snapshot: Snapshot,
        written: Written,
        objects: Sequence[TrackedObject] = (),
    ) -> None:
        """objects: what they hold on the frames that are to be written."""
        self._plan = plan
        self._written = written
        self.ours: dict[tuple[int, int], list[Known]] = {}
        """(number, frame) to the shapes that this run wrote there"""
        self.marked: dict[tuple[int, int], list[Known]] = {}
        """(number, frame) to what others wrote or changed there: persons and other runs"""
        self._others: dict[int, list[Known]] = {}
        """frame to the shapes that persons drew, or that appeared, and that may be of any object"""
        self._not_ours: dict[int, list[Known]] = {}
        """frame to all shapes that this run did not write"""
        self._snapshot = snapshot
        self._boxes: dict[int, list[Box]] = {}
        replaced = {
            k.id: k for by in plan.earlier.values() for shapes in by.values() for k in shapes
        }
        drawn_again = [s for o in objects for s in o.drawn_again.values()]
        replaced |= {s["id"]: known_from_wire(s) for s in drawn_again}
        seeds = {s.wire["id"] for s in plan.seeds if not s.is_track}
        numbers = {s.number for s in plan.seeds if not s.is_track}
        for k in snapshot.shapes.values():
            mark, known_of = k.mark, written.ids.get(k.id)
            new = k.id > plan.newest[0]
            unacknowledged = written.uncertain and new and mark and mark.run == plan.run
            if known_of or (mark and unacknowledged and mark.number in numbers):
                key = known_of or (mark.number if mark else 0, k.frame)
                self.ours.setdefault(key, []).append(k)
                continue
            if k.same(replaced.get(k.id)):
                continue
            if mark and not k.auto and mark.number in plan.near:
                self._others.setdefault(k.frame, []).append(k)
            if k.id in seeds:
                continue
            self._not_ours.setdefault(k.frame, []).append(k)
            if mark and mark.number in numbers:
                if new or not k.auto:
                    self.marked.setdefault((mark.number, k.frame), []).append(k)
            elif mark is None and (new or not k.auto):
                self._others.setdefault(k.frame, []).append(k)

    def is_taken(self, seed: Seed, frame: int, t: Tracked) -> bool:
        """Whether something that this run did not write lies in the place of what was found."""
        if not seed.found or t.points is None:
            return False
        if frame not in self._boxes:
            at = (position_among(keyframes, frame) for _, keyframes in self._other_tracks)
            self._boxes[frame] = [
                *(k.box for k in self._not_ours.get(frame, ())),
                *(box_of(k) for k in at if k and k["type"] in TRACKABLE and not k["outside"]),
            ]
        boxes, own = self._boxes[frame], bounding_box(seed.type, t.points)
        return bool(boxes) and bool((boxes_iou([own], boxes) >= SAME_PLACE).any())

    def is_drawn_alone(self, seed: Seed, frame: int, t: Tracked) -> bool:
        """Whether a track of this frame alone lies in the place of what was tracked.

        CVAT for video knows no shapes but masks: what else a person drew is such a track there.
        """
        kind = compared_kind_of({**seed.wire, "type": seed.type})
        there = [box for k, box in self._alone.get(frame, ()) if same_kind(kind, k)]
        if not there or t.points is None:
            return False
        return bool((boxes_iou([bounding_box(seed.type, t.points)], there) >= SAME_PLACE).any())

    @cached_property
    def _alone(self) -> dict[int, list[tuple[Kind, Box]]]:
        """By frame, what others drew as tracks that are visible on this frame alone."""
        found: dict[int, list[tuple[Kind, Box]]] = {}
        for track, keyframes in self._other_tracks:
            visible = [k for k in keyframes if not k["outside"]]
            if len(visible) != 1 or is_signed(visible[0]) or visible[0]["type"] not in TRACKABLE:
                continue
            k, frame = visible[0], int(visible[0]["frame"])
            after = self._plan.job.next_frame(frame)
            # an end on a deleted frame is one, too
            if after is None or any(frame < e["frame"] <= after for e in track["shapes"]):
                kind = compared_kind_of({**track, "type": k["type"]})
                found.setdefault(frame, []).append((kind, box_of(k)))
        return found

    @cached_property
    def _other_tracks(self) -> list[tuple[Wire, list[Wire]]]:
        """Each track that this run did not write, and its keyframes that count, in order."""
        own = {s.wire["id"] for s in self._plan.seeds if s.is_track}
        own |= set(self._written.tracks.values())
        for seed in self._plan.seeds:
            own |= {t["id"] for t in own_tracks(self._plan, seed, self._snapshot, self._written)}
        return [
            (track, counting_keyframes(self._plan.job, track["shapes"]))
            for track_id, track in self._snapshot.tracks.items()
            if track_id not in own
        ]

    def holder(self, seed: Seed, frame: int, t: Tracked) -> Known | None:
        """A shape of this object on the frame that this run did not write."""
        marked = self.marked.get((seed.number, frame), [])
        if self._plan.becomes_track(seed):  # it has one label; others are no part of it
            marked = [k for k in marked if k.kind[0] == seed.label_id]
        if marked:
            return marked[0]
        # Of what a detector found, anything in its place may be the same object.
        others = self._not_ours.get(frame) if seed.found else self._others_like(seed, frame)
        if not others or t.points is None:
            return None
        overlap = boxes_iou([bounding_box(seed.type, t.points)], [k.box for k in others])[0]
        best = int(overlap.argmax())
        return others[best] if overlap[best] >= SAME_PLACE else None

    def _others_like(self, seed: Seed, frame: int) -> list[Known]:
        wire = {**seed.wire, "type": seed.type}
        kind, compared = kind_of(wire), compared_kind_of(wire)
        return [
            k
            for k in self._others.get(frame, ())
            if k.kind == kind or (not k.auto and same_kind(k.compared_kind, compared))
        ]


def own_tracks(plan: Plan, seed: Seed, snapshot: Snapshot, written: Written) -> list[Wire]:
    """The tracks that appeared since the plan with an automatic keyframe that was sent for `seed`.

    One such keyframe is enough: a person may have changed the others since. Label and group must be
    the seed's: an object with the same outline, which another run tracks, has equal keyframes.
    """
    sent = written.sent.get(seed.ref, set())
    wanted = seed.label_id, seed.wire.get("group") or 0
    return [
        track
        for track_id, track in snapshot.tracks.items()
        if track_id > plan.newest[1]
        and (track["label_id"], track.get("group") or 0) == wanted
        and any(is_signed(k) and keyframe_content(k) in sent for k in track["shapes"])
    ]


def attributes_of(wire: Wire) -> list[Wire]:
    return [{"spec_id": a["spec_id"], "value": a["value"]} for a in wire.get("attributes") or ()]
