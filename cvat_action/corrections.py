# SPDX-License-Identifier: MIT
"""What a person drew of the objects on the frames that are tracked."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cvat_action.geometry import upright
from cvat_action.identity import KnownNumbers, mark_of, number_of
from cvat_action.job import Annotations, Job, Wire
from cvat_action.kinds import ANY_GROUP, Kind, compared_kind_of, same_kind
from cvat_action.positions import counting_keyframes, hand_made_frames
from cvat_action.seeds import Correction, Seed, becomes_track
from cvat_action.signature import is_signed


def with_corrections(
    job: Job,
    annotations: Annotations,
    seeds: Sequence[Seed],
    frames: Sequence[int],
    known: KnownNumbers,
    *,
    unmarked: bool,
) -> tuple[tuple[Seed, ...], tuple[str, ...]]:
    """The seeds with what a person drew of them on `frames`, and warnings.

    A result that a person corrected still has the object's mark, so it is known whose it is, and a
    person's keyframe of a track lacks our signature. With `unmarked` (`--keyframes`) these
    count too: keyframes without it that an older version may have made, and shapes without a mark
    that are not a tracker's (`source` other than `auto`) where label, type and group are the seed's
    and neither another object of the seed's frame nor another shape of their frame can be meant.
    A drawing in group 0 may be of any group, and counts only if the tracked result is in the same
    place.
    """
    wanted = set(frames)
    present: dict[int, Counter[Kind]] = {}
    for s in (*annotations.shapes, *(seed.wire for seed in seeds if seed.found)):
        if s["frame"] not in wanted:
            present.setdefault(s["frame"], Counter())[compared_kind_of(s)] += 1
    drawings = [s for s in annotations.shapes if s["frame"] in wanted and s["source"] != "auto"]
    marked, others = _by_object(drawings, seeds, known)
    drawn_on = others if unmarked else {}
    warnings: list[str] = []
    corrected = []
    for seed in seeds:
        found: list[Correction] = []
        for frame in () if seed.is_track else frames:
            own = marked.get((seed.number, frame))
            if own:
                found.append(Correction(frame, upright(own), own))
                continue
            objects = present.get(seed.frame, Counter())
            drawn, meant, sure = _meant(seed, drawn_on.get(frame, {}), objects)
            if len(drawn) == meant == 1:
                found.append(Correction(frame, upright(drawn[0]), drawn[0], sure))
            elif drawn:
                warnings.append(
                    f"Frame {frame}: more than one object could be object {seed.ref} "
                    f"({job.label(seed.label_id).name}, {seed.type}); it is not corrected there. "
                    "Give each its own group in CVAT; COCO knows no groups: use CVAT for video."
                )
        if seed.is_track:
            found = _keyframes_by_hand(job, seed, frames, every=unmarked)
        if seed.asleep:  # its own drawing wakes it
            found = [*seed.corrections, *(c for c in found if c.frame != seed.frame)]
        in_order = tuple(sorted(found, key=lambda c: c.frame))
        corrected.append(replace(seed, corrections=in_order))
    return tuple(corrected), tuple(dict.fromkeys(warnings))


def with_relabelled(seed: Seed, *, convert: bool) -> Seed:
    """The seed with the frames on which a person gave a result of it another label.

    The result stays, and the run starts again from it. But a track has one label: there the result
    is no correction, and the track goes on over it. convert: polygons become tracks.
    """
    frames = frozenset(
        c.frame for c in seed.corrections if c.shape and int(c.shape["label_id"]) != seed.label_id
    )
    kept = seed.corrections
    if becomes_track(seed, convert=convert):
        kept = tuple(c for c in kept if c.frame not in frames)
    return replace(seed, corrections=kept, relabelled=frames)


def _by_object(
    drawings: Sequence[Wire], seeds: Sequence[Seed], known: KnownNumbers
) -> tuple[dict[tuple[int, int], Wire], dict[int, dict[Kind, list[Wire]]]]:
    """What a person drew: of the seeds, by number and frame; the rest without a mark, by frame,
    then by kind.
    """
    of_drawing = {s.number: s.found or known.is_of_drawing(s.wire) for s in seeds if not s.is_track}
    """whether a seed's number is that of its drawing, by the number"""
    types = {s.type for s in seeds if not s.is_track}
    marked: dict[tuple[int, int], Wire] = {}
    others: dict[int, dict[Kind, list[Wire]]] = {}
    for s in drawings:
        number = number_of(s, known.of_shapes) if s["type"] in types else 0
        if number in of_drawing and known.is_own(s, number, of_drawing=of_drawing[number]):
            marked[number, s["frame"]] = s
        elif not mark_of(s.get("score"), s["frame"]):
            others.setdefault(s["frame"], {}).setdefault(compared_kind_of(s), []).append(s)
    return marked, others


def _meant(
    seed: Seed, drawings: Mapping[Kind, list[Wire]], objects: Mapping[Kind, int]
) -> tuple[list[Wire], int, bool]:
    """The drawings of a frame that may show the object of a seed, of how many objects they may be,
    and whether its group says that they are its own.

    drawings: without a mark, by kind; objects: how many the frame of the seed has, by kind. What is
    drawn in the group of an object is no other's.
    """
    kind = compared_kind_of(seed.wire)
    if kind[2] > 0 and kind in drawings:
        return drawings[kind], objects.get(kind, 0), True
    fitting = {
        other: drawn
        for other, drawn in drawings.items()
        if same_kind(kind, other) and (other[2] == ANY_GROUP or other not in objects)
    }
    meant = sum(n for other, n in objects.items() if any(same_kind(other, f) for f in fitting))
    return [s for drawn in fitting.values() for s in drawn], meant, False


def _keyframes_by_hand(
    job: Job, seed: Seed, frames: Sequence[int], *, every: bool
) -> list[Correction]:
    """The keyframes of a track that count as a person's; with `every` all that are not signed.

    CVAT hides a track from an `outside` keyframe up to the next keyframe. A run backwards comes to
    the last of these frames first, so there the correction lies on that one.
    """
    by_hand = hand_made_frames(seed.wire)
    keyframes = counting_keyframes(job, seed.wire.get("shapes", ()))
    backwards = bool(frames) and frames[-1] < seed.frame
    wanted = set(frames)
    found = {}
    for k, following in zip(keyframes, [*keyframes[1:], None], strict=True):
        frame = k["frame"]
        if frame not in by_hand and not (every and not is_signed(k)):
            continue
        points = None if k["outside"] else upright(k)
        if points is None and backwards and following:
            frame = max((f for f in frames if frame <= f < following["frame"]), default=frame)
        found[frame] = Correction(frame, points)
    return [c for c in found.values() if c.frame in wanted]
