# SPDX-License-Identifier: MIT
"""Which objects of a frame can be tracked, and why the others cannot."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from cvat_action.errors import ActionError, NothingToTrack
from cvat_action.geometry import TRACKABLE, points_fault, upright
from cvat_action.job import Annotations, Job, Wire
from cvat_action.positions import counting_keyframes, is_visible, position_among, track_fault
from cvat_action.seeds import Correction, Refusal, Seed
from cvat_action.snapshot import keyframe_content


@dataclass(frozen=True)
class Selection:
    seeds: tuple[Seed, ...]
    refused: tuple[Refusal, ...]
    passed_over: frozenset[str] = frozenset()
    """names of the objects that the options leave out"""


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
    present = _present(job, annotations, frame)
    named = _Named(objects, excluded)
    named.check(
        {p.ref for p in present},
        f"on frame {frame} of {job.name}",
        [p.ref for p in present if not p.reason],
    )
    seeds, refused, passed_over = [], [], set()
    for p in present:
        of_label = not labels or job.label(p.wire["label_id"]).name in labels
        if not (named.takes(p.ref) and of_label and (not types or p.type in types)):
            passed_over.add(p.ref)
            continue
        reason = p.reason or _unsupported(p.type, supported) or _malformed(job, frame, p)
        if reason:
            refused.append(Refusal(p.ref, p.wire["label_id"], reason))
        else:
            seeds.append(p.seed(frame))
    return Selection(tuple(seeds), tuple(refused), frozenset(passed_over))


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
    passed_over: set[str] = set()
    for frame in frames:
        late = frame != frames[0]
        visible = [
            t
            for t in annotations.tracks
            if f"track:{t['id']}" not in seeds
            and (not late or is_visible(counting[t["id"]], frame))
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
        passed_over |= here.passed_over
    named = _Named(objects, excluded)
    where = f"drawn on frames {min(frames)} to {max(frames)} of {job.name}"
    named.check({*seeds, *refused, *passed_over}, where, seeds)
    return Selection(
        tuple(s for ref, s in seeds.items() if named.takes(ref)),
        tuple(r for ref, r in refused.items() if named.takes(ref) and ref not in seeds),
        frozenset(passed_over | {ref for ref in (*seeds, *refused) if not named.takes(ref)}),
    )


def outlines_on(
    job: Job, annotations: Annotations, frame: int
) -> list[tuple[str, str, Sequence[float]]]:
    """(name, type, points) of all masks, polygons and rectangles that are visible on `frame`.

    Of a rotated box it is the box around it.
    """
    return [
        (p.ref, p.type, upright(p.shape))
        for p in _present(job, annotations, frame)
        if p.type in TRACKABLE and not p.shape.get("outside") and not _malformed(job, frame, p)
    ]


@dataclass(frozen=True)
class _On:
    """An object as it is on one frame."""

    ref: str
    wire: Wire
    shape: Wire
    """the shape, or the track's position"""

    @property
    def type(self) -> str:
        return str(self.shape["type"])

    @property
    def reason(self) -> str | None:
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
        shape = self.shape
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


def _present(job: Job, annotations: Annotations, frame: int) -> list[_On]:
    # CVAT lists them in an order that changes.
    shapes = sorted(annotations.shapes, key=lambda s: s["id"])
    present = [_On(str(s["id"]), s, s) for s in shapes if s["frame"] == frame]
    for t in sorted(annotations.tracks, key=lambda t: t["id"]):
        if position := position_among(counting_keyframes(job, t["shapes"]), frame):
            present.append(_On(f"track:{t['id']}", t, position))
    return present


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
    prefix, _, number = name.strip().rpartition(":")
    if prefix not in ("", "shape", "track") or not number.isdecimal():
        raise ActionError(f"--object {name!r} is not an object; write 17 or track:5.")
    return f"track:{number}" if prefix == "track" else number


def _check_labels(job: Job, labels: Collection[str]) -> None:
    known = {label.name for label in job.labels}
    for name in labels:
        if name not in known:
            raise ActionError(
                f"There is no label {name!r} in {job.name}. Its labels: {', '.join(sorted(known))}."
            )


def _unsupported(shape_type: str, supported: Collection[str]) -> str | None:
    if shape_type in supported:
        return None
    return f"the function does not track objects of type {shape_type}"


def _malformed(job: Job, frame: int, p: _On) -> str | None:
    fault = points_fault(p.type, p.shape["points"], *job.size(frame))
    return f"malformed: {fault}" if fault else None
