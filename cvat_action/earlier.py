# SPDX-License-Identifier: MIT
"""Shapes that an earlier run left on the frames of this one.

They carry no mark: an earlier result has the source `auto` and the label, type and group of its
seed (contract section 10). Where objects of the same kind are not part of the run, their shapes are
told apart by following each object from frame to frame by overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cvat_action.errors import ActionError
from cvat_action.geometry import bounding_box
from cvat_action.job import Annotations, Job, Wire
from cvat_action.selection import Seed, kind_of

Box = tuple[float, float, float, float]


@dataclass
class _Chain:
    """An object of the start frame, followed through the shapes of an earlier run."""

    box: Box
    selected: bool


def earlier_results(
    job: Job, annotations: Annotations, seeds: Sequence[Seed], frames: Sequence[int]
) -> list[Wire]:
    """The earlier run's shapes of these objects on `frames` (in the order of tracking).

    Raises ActionError where it cannot be told whose a shape is.
    """
    shape_seeds = [s for s in seeds if not s.is_track]
    found: list[Wire] = []
    for kind in dict.fromkeys(kind_of(s.wire) for s in shape_seeds):
        alike = [s for s in annotations.shapes if kind_of(s) == kind]
        selected = [s for s in shape_seeds if kind_of(s.wire) == kind]
        # by place, not by id: a run that is resumed starts from its own last results
        starts = {(s.frame, *map(float, s.points)) for s in selected}
        frames_of_starts = {s.frame for s in selected}
        others = [
            s
            for s in alike
            if s["frame"] in frames_of_starts
            and (s["frame"], *map(float, s["points"])) not in starts
        ]
        chains = [_Chain(bounding_box(s.type, s.points), True) for s in selected]
        chains += [_Chain(bounding_box(s["type"], s["points"]), False) for s in others]
        on_frame: dict[int, list[Wire]] = {}
        for s in alike:
            if s["source"] == "auto":
                on_frame.setdefault(s["frame"], []).append(s)
        for frame in frames:
            found += _own(job, kind, frame, on_frame.get(frame, []), chains)
    return found


def _own(
    job: Job, kind: tuple[int, str, int], frame: int, shapes: list[Wire], chains: list[_Chain]
) -> list[Wire]:
    """Those shapes of one frame that belong to selected objects; moves the chains on."""
    boxes = [bounding_box(s["type"], s["points"]) for s in shapes]
    scored = sorted(
        ((_overlap(c.box, b), i, j) for i, c in enumerate(chains) for j, b in enumerate(boxes)),
        reverse=True,
    )
    chain_of: dict[int, int] = {}
    for score, i, j in scored:
        if score > 0 and j not in chain_of and i not in chain_of.values():
            chain_of[j] = i
    lone = [i for i in range(len(chains)) if i not in chain_of.values()]
    rest = [j for j in range(len(shapes)) if j not in chain_of]
    lone_selected = [i for i in lone if chains[i].selected]
    # An object that was corrected can be far from where the earlier run went on. What is left over
    # is its own where nobody else can be meant.
    if rest and lone_selected:
        if len(lone_selected) < len(lone) or len(rest) > len(lone):
            name = job.label(kind[0]).name
            raise ActionError(
                f"Frame {frame} holds shapes of an earlier run ({name}, {kind[1]}) and it cannot "
                "be told whose they are. Select all objects of this label and type, or give "
                "them different groups in CVAT."
            )
        chain_of |= dict(zip(rest, lone_selected, strict=False))
    for j, i in chain_of.items():
        chains[i].box = boxes[j]
    return [shapes[j] for j, i in sorted(chain_of.items()) if chains[i].selected]


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    shared = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return shared / (_area(a) + _area(b) - shared) if shared else 0.0


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)
