# SPDX-License-Identifier: MIT
"""Which objects of a frame can be tracked, and why the others cannot."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from cvat_action.errors import ActionError, NothingToTrack
from cvat_action.geometry import TRACKABLE, points_fault, upright
from cvat_action.identity import is_of_drawing, mark_of, number_of
from cvat_action.interpolation import polygon_between, rectangle_between, rotation_between
from cvat_action.job import Annotations, Job, Wire
from cvat_action.kinds import ANY_GROUP, Kind, compared_kind_of, same_kind
from cvat_action.signature import is_signed
from cvat_action.snapshot import keyframe_content


@dataclass(frozen=True)
class Correction:
    """What a person drew on a later frame of the range."""

    frame: int
    points: Sequence[float] | None
    """None: marked as outside"""
    shape: Wire | None = None
    """the shape that it is, where it is not a track's keyframe"""
    sure: bool = True
    """False: it counts only where the tracked result is in the same place"""


@dataclass(frozen=True)
class Seed:
    """One object as it is handed to the tracker."""

    ref: str
    """what `--object` calls it: `17` for a shape, `track:5` for a track"""
    type: str
    frame: int
    points: Sequence[float]
    wire: Wire
    """the shape, or the track without its keyframes, as CVAT held it"""
    occluded: bool
    z_order: int
    corrections: tuple[Correction, ...] = ()
    asleep: bool = False
    """not tracked before its next drawing: a person marked it as outside, or drew it later"""
    number: int = 0
    """the object's number in the marks of its shapes (docs/identity.md); 0: a track that no
    receipt names"""
    keyframes: Mapping[int, int] = field(default_factory=dict)
    """of a track: frame to a hash of the keyframe as it was, on the frames of the run"""
    removed: frozenset[int] = frozenset()
    """of a track: frames whose keyframe a person deleted; they are left to CVAT's interpolation"""
    relabelled: frozenset[int] = frozenset()
    """frames on which a person gave its result another label: it stays, and is no drawing that the
    object stands on"""
    found: bool = False
    """found by a detector: it does not lie in the job yet, and its wire has no id"""
    score: float | None = None
    """0 to 1: how sure the detector is of it"""

    @property
    def is_track(self) -> bool:
        return self.ref.startswith("track:")

    @property
    def label_id(self) -> int:
        return int(self.wire["label_id"])


@dataclass(frozen=True)
class Refusal:
    ref: str
    label_id: int
    reason: str


@dataclass(frozen=True)
class Selection:
    seeds: tuple[Seed, ...]
    refused: tuple[Refusal, ...]


def select(
    job: Job,
    annotations: Annotations,
    frame: int,
    *,
    objects: Collection[str] = (),
    labels: Collection[str] = (),
    excluded: Collection[str] = (),
    types: Collection[str] = (),
    supported: Collection[str] = TRACKABLE,
) -> Selection:
    """The objects visible on `frame`, by default all: shapes, then tracks, each by their ids.

    `objects` (17, track:5), `labels` and `types` narrow them down, `excluded` takes out of them.

    Raises ActionError for a name that is not there.
    """
    _check_labels(job, labels)
    # CVAT lists them in an order that changes.
    shapes = sorted(annotations.shapes, key=lambda s: s["id"])
    tracks = sorted(annotations.tracks, key=lambda t: t["id"])
    present = [_shape_on(s) for s in shapes if s["frame"] == frame]
    present += [_track_on(job, t, frame) for t in tracks]
    named = _Named(objects, excluded)
    named.check(
        {p.ref for p in present if p.there},
        f"on frame {frame} of {job.name}",
        [p.ref for p in present if p.there and not p.reason],
    )
    seeds, refused = [], []
    for p in present:
        if not p.there or not named.takes(p.ref):
            continue
        if labels and job.label(p.wire["label_id"]).name not in labels:
            continue
        if types and p.type not in types:
            continue
        reason = p.reason or _unsupported(p.type, supported) or _malformed(job, frame, p)
        if reason:
            refused.append(Refusal(p.ref, p.wire["label_id"], reason))
        else:
            seeds.append(p.seed(frame))
    return Selection(tuple(seeds), tuple(refused))


def select_on_all(
    job: Job,
    annotations: Annotations,
    frames: Sequence[int],
    *,
    objects: Collection[str] = (),
    labels: Collection[str] = (),
    excluded: Collection[str] = (),
    types: Collection[str] = (),
    supported: Collection[str] = TRACKABLE,
) -> Selection:
    """The objects of `frames`, in the order of tracking: of the first, and what is drawn later.

    Later objects sleep until their frame: every shape that a person drew, and every track where it
    is first visible. The options are those of `select`. Raises ActionError.
    """
    shapes_on: dict[int, list[Wire]] = {}
    for s in annotations.shapes:
        shapes_on.setdefault(s["frame"], []).append(s)
    counting = {t["id"]: counting_keyframes(job, t["shapes"]) for t in annotations.tracks}
    seeds: dict[str, Seed] = {}
    refused: dict[str, Refusal] = {}
    for frame in frames:
        late = frame != frames[0]
        visible = [
            t
            for t in annotations.tracks
            if f"track:{t['id']}" not in seeds
            and (not late or _is_visible(counting[t["id"]], frame))
        ]
        drawn = [s for s in shapes_on.get(frame, ()) if not late or s.get("source") != "auto"]
        here = select(
            *(job, Annotations(tuple(drawn), tuple(visible)), frame),
            labels=labels,
            types=types,
            supported=supported,
        )
        for seed in here.seeds:
            if late:  # it sleeps until its frame, where its own drawing wakes it
                awake = Correction(frame, seed.points, None)
                seed = replace(seed, asleep=True, corrections=(awake,))
            seeds[seed.ref] = seed
        refused |= {r.ref: r for r in here.refused if r.ref not in refused}
    named = _Named(objects, excluded)
    where = f"drawn on frames {min(frames)} to {max(frames)} of {job.name}"
    named.check({*seeds, *refused}, where, seeds)
    return Selection(
        tuple(s for ref, s in seeds.items() if named.takes(ref)),
        tuple(r for ref, r in refused.items() if named.takes(ref) and ref not in seeds),
    )


def _is_visible(keyframes: Sequence[Wire], frame: int) -> bool:
    """keyframes: of a track, in the order of their frames."""
    after = bisect_right(keyframes, frame, key=_frame_of)
    return after > 0 and not keyframes[after - 1]["outside"]


def with_corrections(
    job: Job,
    annotations: Annotations,
    seeds: Sequence[Seed],
    frames: Sequence[int],
    *,
    numbers: Mapping[int, int],
    receipts: Mapping[int, int],
    labels: Mapping[int, Collection[int]],
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

    numbers: of objects by the id of a shape; a drawing that was edited is known by it. receipts:
    those of them that earlier runs have written down. labels: of the marked shapes, by their
    number.
    """
    wanted = set(frames)
    present: dict[int, Counter[Kind]] = {}
    for s in (*annotations.shapes, *(seed.wire for seed in seeds if seed.found)):
        if s["frame"] not in wanted:
            present.setdefault(s["frame"], Counter())[compared_kind_of(s)] += 1
    drawings = [s for s in annotations.shapes if s["frame"] in wanted and s["source"] != "auto"]
    marked, others = _by_object(drawings, seeds, numbers, receipts, labels)
    drawn_on = others if unmarked else {}
    warnings: list[str] = []
    corrected = []
    for seed in seeds:
        found: list[Correction] = []
        for frame in () if seed.is_track else frames:
            own = marked.get((seed.number, frame))
            if own:
                found.append(Correction(frame, _upright(own), own))
                continue
            objects = present.get(seed.frame, Counter())
            drawn, meant, sure = _meant(seed, drawn_on.get(frame, {}), objects)
            if len(drawn) == meant == 1:
                found.append(Correction(frame, _upright(drawn[0]), drawn[0], sure))
            elif drawn:
                warnings.append(
                    f"Frame {frame}: more than one object could be object {seed.ref} "
                    f"({job.label(seed.label_id).name}, {seed.type}); it is not corrected there. "
                    "Give each its own group."
                )
        if seed.is_track:
            found = _keyframes_by_hand(seed, wanted, every=unmarked)
        if seed.asleep:  # its own drawing wakes it
            found = [*seed.corrections, *(c for c in found if c.frame != seed.frame)]
        in_order = tuple(sorted(found, key=lambda c: c.frame))
        corrected.append(replace(seed, corrections=in_order))
    return tuple(corrected), tuple(dict.fromkeys(warnings))


def becomes_track(seed: Seed, *, convert: bool) -> bool:
    return seed.is_track or (convert and seed.type == "polygon")


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
    drawings: Sequence[Wire],
    seeds: Sequence[Seed],
    known: Mapping[int, int],
    receipts: Mapping[int, int],
    labels: Mapping[int, Collection[int]],
) -> tuple[dict[tuple[int, int], Wire], dict[int, dict[Kind, list[Wire]]]]:
    """What a person drew: of the seeds, by number and frame; the rest without a mark, by frame,
    then by kind.

    known: numbers of objects by the id of a shape. A drawing with the number of a seed is the
    seed's only where a marked shape of the number has its label; and where the number is that of
    the seed's drawing, too, the two are equal only by chance.
    """
    numbers = {s.number for s in seeds if not s.is_track}
    drawn = {
        s.number for s in seeds if not s.is_track and (s.found or is_of_drawing(s.wire, receipts))
    }
    types = {s.type for s in seeds if not s.is_track}
    marked: dict[tuple[int, int], Wire] = {}
    others: dict[int, dict[Kind, list[Wire]]] = {}
    for s in drawings:
        number = number_of(s, known) if s["type"] in types else 0
        if number in numbers and (
            not is_of_drawing(s, receipts)
            or (number not in drawn and s["label_id"] in labels.get(number, ()))
        ):
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


def _upright(shape: Wire) -> tuple[float, ...]:
    """Its points; of a rotated box the box around it, which the tracker can start from."""
    return upright(shape["type"], shape["points"], shape.get("rotation"))


def _keyframes_by_hand(seed: Seed, wanted: Collection[int], *, every: bool) -> list[Correction]:
    """The keyframes of a track that count as a person's; with `every` all that are not signed."""
    by_hand = hand_made_frames(seed.wire)
    return [
        Correction(k["frame"], None if k["outside"] else _upright(k))
        for k in seed.wire.get("shapes", ())
        if k["frame"] in wanted and (k["frame"] in by_hand or (every and not is_signed(k)))
    ]


def outlines_on(
    job: Job, annotations: Annotations, frame: int
) -> list[tuple[str, str, Sequence[float]]]:
    """(name, type, points) of all masks, polygons and rectangles that are visible on `frame`.

    Of a rotated box it is the box around it.
    """
    present = [_shape_on(s) for s in annotations.shapes if s["frame"] == frame]
    present += [_track_on(job, t, frame) for t in annotations.tracks]
    return [
        (p.ref, p.type, _upright(p.shape))
        for p in present
        if p.shape
        and p.type in TRACKABLE
        and not p.shape.get("outside")
        and not _malformed(job, frame, p)
    ]


def hand_made_frames(track: Wire) -> set[int]:
    """The frames of the keyframes that a person made or changed: those without our signature.

    An older version signed nothing. Of a track of which no keyframe is signed, all are automatic
    if the track's source is `auto`: then nobody edited it. Else it cannot be told, and all count as
    a person's.
    """
    keyframes = track.get("shapes", ())
    unsigned = {int(k["frame"]) for k in keyframes if not is_signed(k)}
    if len(unsigned) == len(keyframes) and track.get("source") == "auto":
        return set()
    return unsigned


def removed_keyframes(job: Job, track: Wire) -> frozenset[int]:
    """The frames whose keyframe a person deleted from a track with one on every frame.

    CVAT does not say which keyframes were deleted. A gap of n frames counts as deleted keyframes if
    - the keyframe right after it is signed, and the one right before it is not `outside`;
    - the stretch of keyframes before it has at least n frames;
    - the stretch after it has more than n, or begins with an `outside` keyframe (the track's end).
    A stretch goes on across gaps that were found already, and each of their frames counts -2
    instead of 1. Longer gaps were never tracked, or belong to sparse keyframes.
    """
    keyframes = {int(k["frame"]): k for k in track["shapes"]}
    first, last = min(keyframes), max(keyframes)
    frames = [f for f in range(first, last + 1) if f not in job.deleted_frames]
    removed: set[int] = set()
    while more := _gaps(keyframes, frames, removed):
        removed |= more
    return frozenset(removed)


def _gaps(keyframes: Mapping[int, Wire], frames: Sequence[int], removed: set[int]) -> set[int]:
    """The frames of deleted keyframes that are found where those of `removed` are known."""

    def weight(stretch: Sequence[int]) -> int:
        return sum(-2 if f in removed else 1 for f in stretch)

    held = groupby(frames, lambda f: f in keyframes or f in removed)
    stretches = [(there, list(on)) for there, on in held]
    found: set[int] = set()
    for (_, before), (there, gap), (_, after) in zip(
        stretches, stretches[1:], stretches[2:], strict=False
    ):
        left, right = keyframes.get(before[-1]), keyframes.get(after[0])
        if there or left is None or right is None or left["outside"] or not is_signed(right):
            continue
        if len(gap) <= weight(before) and (len(gap) < weight(after) or right["outside"]):
            found |= set(gap)
    return found


def track_fault(track: Wire) -> str | None:
    """Why CVAT would answer 500 to every update of a track."""
    on = Counter(int(k["frame"]) for k in track.get("shapes", ()))
    twice = min((f for f, n in on.items() if n > 1), default=None)
    if twice is None:
        return None
    return (
        f"it has two keyframes on frame {twice}, and CVAT takes no changes of such a track; delete "
        "it and draw it again"
    )


def track_position(job: Job, track: Wire, frame: int) -> Wire | None:
    """The keyframe, real or interpolated, of a track on `frame`; None before its first one."""
    return position_among(counting_keyframes(job, track["shapes"]), frame)


def counting_keyframes(job: Job, keyframes: Iterable[Wire]) -> list[Wire]:
    """In the order of their frames, without those on deleted frames, which CVAT passes over."""
    counting = (k for k in keyframes if k["frame"] not in job.deleted_frames)
    return sorted(counting, key=_frame_of)


def position_among(keyframes: Sequence[Wire], frame: int) -> Wire | None:
    """Like `track_position`, of keyframes in the order of their frames."""
    after = bisect_right(keyframes, frame, key=_frame_of)
    if not after:
        return None
    left = keyframes[after - 1]
    if left["frame"] == frame or left["outside"] or after == len(keyframes):
        return left
    right = keyframes[after]
    share = (frame - left["frame"]) / (right["frame"] - left["frame"])
    if left["type"] == "polygon":
        return {**left, "points": polygon_between(left["points"], right["points"], share)}
    if left["type"] == "rectangle":
        turned = rotation_between(left.get("rotation") or 0, right.get("rotation") or 0, share)
        points = rectangle_between(left["points"], right["points"], share)
        return {**left, "points": points, "rotation": turned}
    return left


def _frame_of(shape: Wire) -> int:
    return int(shape["frame"])


@dataclass(frozen=True)
class _On:
    """An object as it is on one frame."""

    ref: str
    wire: Wire
    shape: Wire | None
    """the shape, or the track's position; None: not there"""

    @property
    def type(self) -> str:
        return str(self.shape["type"]) if self.shape else ""

    @property
    def there(self) -> bool:
        return self.shape is not None

    @property
    def reason(self) -> str | None:
        if self.shape is None:
            return None
        if self.wire.get("elements") or self.type == "skeleton":
            return "skeletons cannot be tracked"
        if self.type not in TRACKABLE:
            return f"objects of type {self.type} cannot be tracked"
        if self.type == "mask" and "shapes" in self.wire:
            return "a track of masks, which CVAT itself cannot open (its tracks are of polygons)"
        if fault := track_fault(self.wire):
            return fault
        if self.shape.get("outside"):
            return "outside on this frame"
        if self.shape.get("rotation"):
            return "a rotated box; draw it upright, or as a polygon"
        return None

    def seed(self, frame: int) -> Seed:
        shape = self.shape or {}
        keyframes = {k["frame"]: keyframe_content(k) for k in self.wire.get("shapes", ())}
        return Seed(
            ref=self.ref,
            type=self.type,
            frame=frame,
            points=tuple(shape["points"]),
            wire=self.wire,
            occluded=bool(shape.get("occluded")),
            z_order=int(shape.get("z_order") or 0),
            keyframes=keyframes,
        )


def _shape_on(shape: Wire) -> _On:
    return _On(str(shape["id"]), shape, shape)


def _track_on(job: Job, track: Wire, frame: int) -> _On:
    return _On(f"track:{track['id']}", track, track_position(job, track, frame))


class _Named:
    """The objects that `--object` and `--exclude` name. Raises ActionError for what is no name."""

    def __init__(self, wanted: Collection[str], excluded: Collection[str]) -> None:
        self._wanted = [name_to_ref(name) for name in wanted]
        self._excluded = [name_to_ref(name) for name in excluded]

    def check(self, there: Collection[str], where: str, choice: Collection[str]) -> None:
        """Raises ActionError for a name that is not among `there`; it offers the choice."""
        none = bool(self._wanted) and not any(ref in there for ref in self._wanted)
        for ref in (*self._wanted, *self._excluded):
            if ref not in there:
                raise (NothingToTrack if none else ActionError)(
                    f"There is no object {ref} {where}. "
                    f"Objects there: {', '.join(choice) or 'none'}."
                )

    def takes(self, ref: str) -> bool:
        return ref not in self._excluded and (not self._wanted or ref in self._wanted)


def name_to_ref(name: str) -> str:
    kind, _, number = name.strip().rpartition(":")
    if kind not in ("", "shape", "track") or not number.isdecimal():
        raise ActionError(f"--object {name!r} is not an object; write 17 or track:5.")
    return f"track:{number}" if kind == "track" else number


def _check_labels(job: Job, labels: Collection[str]) -> None:
    known = {label.name for label in job.labels}
    for name in labels:
        if name not in known:
            raise ActionError(
                f"There is no label {name!r} in {job.name}. Its labels: {', '.join(sorted(known))}."
            )


def _unsupported(kind: str, supported: Collection[str]) -> str | None:
    if kind in supported:
        return None
    return f"the function does not track objects of type {kind}"


def _malformed(job: Job, frame: int, p: _On) -> str | None:
    points = p.shape["points"] if p.shape else None
    fault = points_fault(p.type, points, *job.size(frame))
    return f"malformed: {fault}" if fault else None
