# SPDX-License-Identifier: MIT
"""Finds what is stored twice in the job when a run ends, and chooses which of the two goes.

A request that was taken for lost may have been carried out later; a person may have corrected a
shape just when this run wrote its own beside it; and another run may have written the same object.
What a person changed stays. Of two automatic ones the older stays, in every run the same one, so
that two runs never delete each other's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cvat_action.coinciding import SAME_BOX
from cvat_action.geometry import boxes_iou
from cvat_action.job import Wire
from cvat_action.kinds import same_kind
from cvat_action.plan import Plan
from cvat_action.results import Ownership, Written, attributes_of, own_tracks
from cvat_action.signature import is_signed
from cvat_action.snapshot import (
    Known,
    Snapshot,
    attributes_hash,
    keyframe_content,
    values_by_spec,
)
from cvat_action.track_results import keyframe_from_wire


def duplicate_shapes(plan: Plan, snapshot: Snapshot, written: Written) -> list[int]:
    """Ids of shapes of this run that go."""
    here = Ownership(plan, snapshot, written)
    as_sent = attributes_as_sent(plan)
    surplus: list[int] = []
    kept: dict[int, Known] = {}
    for (number, frame), shapes in here.ours.items():
        own = [k for k in shapes if k.auto and k.attributes in as_sent[number]]
        if not own:
            continue
        first = min(own, key=lambda k: k.id)
        others = here.marked.get((number, frame), [])
        edited = len(own) < len(shapes) or any(not k.auto for k in others)
        if edited or any(k.id < first.id for k in others):
            surplus += [k.id for k in own]
            continue
        # Another run's may be among them, if it drew the same numbers: it has another content.
        contents: set[int] = set()
        for k in sorted(own, key=lambda k: k.id):
            if k.content in contents or (k is not first and k.id in written.ids):
                surplus.append(k.id)
            contents.add(k.content)
        kept[first.content] = first
        if first.id not in written.ids:
            written.adopt(first.id, (number, frame), first.content)
    if written.uncertain:
        surplus += _without_marks(plan, snapshot, written, kept)
    return surplus


def results_over_others(plan: Plan, snapshot: Snapshot, written: Written) -> dict[str, list[int]]:
    """By the name of an object, frames on which its new shape covers the same as an automatic one
    of which nobody can tell whose it is: no object of this run has its number, no drawing of the
    job, and nothing on the frame that the run begins with.

    Empty where the person wants the results of earlier runs to stay.
    """
    if plan.options.keep_earlier:
        return {}
    refs = {s.number: s.ref for s in plan.seeds}
    known = refs.keys() | plan.owned | plan.near
    ours: dict[int, list[Known]] = {}
    others: dict[int, list[Known]] = {}
    for k in snapshot.shapes.values():
        if k.id in written.ids:
            ours.setdefault(k.frame, []).append(k)
        elif k.auto and not (k.mark and k.mark.number in known):
            others.setdefault(k.frame, []).append(k)
    found: dict[str, list[int]] = {}
    for frame in sorted(ours.keys() & others.keys()):
        own, beside = ours[frame], others[frame]
        overlap = boxes_iou([k.box for k in own], [k.box for k in beside])
        for k, ious in zip(own, overlap, strict=True):
            alike = [same_kind(k.compared_kind, other.compared_kind) for other in beside]
            if (ious[alike] > SAME_BOX).any():
                found.setdefault(refs[written.ids[k.id][0]], []).append(frame)
    return found


def attributes_as_sent(plan: Plan) -> dict[int, set[int]]:
    """Hashes of the attributes that a shape of an object has, if no person set any, by number."""
    found = {}
    for seed in plan.seeds:
        sent = values_by_spec(seed.wire)
        filled_up = {**plan.job.label(seed.label_id).defaults, **sent}
        found[seed.number] = {attributes_hash(each) for each in (sent, filled_up)}
        if seed.number in plan.differing:
            replaced = plan.earlier.get(seed.number, {}).values()
            found[seed.number] |= {k.attributes for shapes in replaced for k in shapes}
    return found


def _without_marks(
    plan: Plan, snapshot: Snapshot, written: Written, kept: dict[int, Known]
) -> list[int]:
    """Ids of duplicates on a server that stores no scores (CVAT before 2.56).

    Of two shapes with equal content, one of which no answer named, it is the id of the later one.
    """
    return [
        max(k.id, kept[k.content].id)
        for k in snapshot.shapes.values()
        if k.mark is None
        and k.auto
        and k.id > plan.newest[0]
        and k.id not in written.ids
        and k.content in kept
    ]


@dataclass
class DuplicateTracks:
    updated: list[Wire] = field(default_factory=list)
    """tracks that stay, with the keyframes of one that goes"""
    gone: list[int] = field(default_factory=list)
    """ids"""
    both_edited: list[tuple[int, int]] = field(default_factory=list)
    """ids of two that a person changed both: they stay"""


def duplicate_tracks(plan: Plan, snapshot: Snapshot, written: Written) -> DuplicateTracks:
    """What is to be done about tracks that this run created twice, or another run created too."""
    found = DuplicateTracks()
    taken = set(written.tracks.values())
    seeds = {s.ref: s for s in plan.seeds}
    for ref, track_id in written.tracks.items():
        stays = snapshot.tracks.get(track_id)
        if stays is None:
            continue
        for other in own_tracks(plan, seeds[ref], snapshot, written):
            if other["id"] in taken or other["id"] in found.gone:
                continue
            edited = [_is_edited(t, written.sent[ref]) for t in (stays, other)]
            if all(edited):
                found.both_edited.append((stays["id"], other["id"]))
            elif edited[1] or (not edited[0] and other["id"] < stays["id"]):
                found.gone.append(stays["id"])
                stays = _with_keyframes_of(other, stays["shapes"], written.sent[ref])
                found.updated.append(stays)
            elif written.uncertain:
                found.gone.append(other["id"])
    return found


def _is_edited(track: Wire, sent: set[int]) -> bool:
    """Whether a keyframe is a person's."""
    return any(_is_a_persons(k, sent) for k in track["shapes"])


def _is_a_persons(keyframe: Wire, sent: set[int]) -> bool:
    return not is_signed(keyframe) and keyframe_content(keyframe) not in sent


def _with_keyframes_of(track: Wire, keyframes: Sequence[Wire], sent: set[int]) -> Wire:
    """A track with other keyframes; on frames with a keyframe of a person's, that one stays."""
    laid = {k["frame"]: k for k in keyframes}
    laid |= {k["frame"]: k for k in track["shapes"] if _is_a_persons(k, sent)}
    return {
        **track,
        "frame": min(laid),
        "attributes": attributes_of(track),
        "shapes": [keyframe_from_wire(laid[f]) for f in sorted(laid)],
    }
