# SPDX-License-Identifier: MIT
"""The shapes that earlier runs left of the objects of this run (docs/identity.md).

Marked shapes are known by the number of their object. Where there is no mark, an object is followed
from frame to frame by the overlap of boxes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cvat_action.errors import ActionError
from cvat_action.geometry import Box, bounding_box, boxes_iou
from cvat_action.identity import free_number, mark_of, number_of
from cvat_action.job import Job
from cvat_action.selection import Seed
from cvat_action.snapshot import Kind, Known, Snapshot, kind_of
from cvat_action.tracking import SAME_OBJECT

Found = dict[int, dict[int, list[Known]]]
"""number of an object to frame to its earlier shapes there"""


@dataclass
class _Chain:
    """An object of the start frame, followed through shapes without a mark."""

    box: Box
    number: int
    """of a seed of this run; 0: an object that is not part of it"""


def with_numbers(
    seeds: Sequence[Seed], receipts: Mapping[int, int], tracks: Mapping[int, int]
) -> tuple[Seed, ...]:
    """The seeds with the numbers of their objects.

    receipts: number by the id of a seed; tracks: by the id of the track that an object became.

    A seed of a later frame that is a corrected result of one before it is left out.
    """
    taken: dict[int, int] = {}
    """number to the frame of its seed"""
    numbered = []
    for seed in seeds:
        if not seed.is_track:
            number = number_of(seed.wire, receipts)
            marked = mark_of(seed.wire.get("score"), seed.frame)
            before = taken.get(number)
            if seed.asleep and before is not None and (marked or before != seed.frame):
                continue  # of an object before it: a correction, or what it began with
            seed = replace(seed, number=free_number(number, taken))
            taken[seed.number] = seed.frame
        numbered.append(seed)
    return tuple(
        replace(s, number=number)
        if s.is_track and (number := tracks.get(s.wire["id"], 0)) not in taken
        else s
        for s in numbered
    )


def earlier_results(
    job: Job,
    snapshot: Snapshot,
    seeds: Sequence[Seed],
    frames: Sequence[int],
    receipts: Mapping[int, int],
) -> tuple[tuple[Seed, ...], Found]:
    """The seeds and the automatic shapes of earlier runs on `frames` (in the order of tracking).

    A seed without shapes of its own number takes over the number of marked shapes that follow it by
    overlap. Raises ActionError where it cannot be told whose a shape without a mark is.
    """
    found: Found = {s.number: {} for s in seeds if s.number}
    if not found:
        return tuple(seeds), found
    wanted = set(frames)
    known_numbers = set(found) | _numbers_of_others(snapshot, seeds, receipts)
    unclear: dict[Kind, dict[int, list[Known]]] = {
        kind_of(s.wire): {} for s in seeds if not s.is_track
    }
    for k in snapshot.shapes.values():
        if not k.auto or k.frame not in wanted:
            continue
        if k.mark and k.mark.number in found:
            found[k.mark.number].setdefault(k.frame, []).append(k)
        elif k.kind in unclear and (k.mark is None or k.mark.number not in known_numbers):
            unclear[k.kind].setdefault(k.frame, []).append(k)
    renamed: dict[int, int] = {}
    for kind, on_frame in unclear.items():
        chains = _chains(snapshot, seeds, kind)
        for frame in frames:
            if frame in on_frame:
                _follow(job, kind, frame, on_frame[frame], chains, found, renamed)
    return tuple(
        replace(s, number=renamed.get(s.number, s.number)) for s in seeds
    ), _under_new_numbers(found, renamed, snapshot, wanted)


def _numbers_of_others(
    snapshot: Snapshot, seeds: Sequence[Seed], receipts: Mapping[int, int]
) -> set[int]:
    """Numbers of the objects on the seeds' frames that are not part of the run."""
    on = {s.frame for s in seeds}
    return {number_of(s, receipts) for s in snapshot.whole.values() if s["frame"] in on}


def _chains(snapshot: Snapshot, seeds: Sequence[Seed], kind: Kind) -> list[_Chain]:
    own = [s for s in seeds if not s.is_track and kind_of(s.wire) == kind]
    ids = {s.wire["id"] for s in own}
    frames = {s.frame for s in own}
    chains = [_Chain(bounding_box(s.type, s.points), s.number) for s in own]
    return chains + [
        _Chain(k.box, 0)
        for k in snapshot.shapes.values()
        if k.kind == kind and k.frame in frames and k.id not in ids
    ]


def _follow(
    job: Job,
    kind: Kind,
    frame: int,
    shapes: list[Known],
    chains: list[_Chain],
    found: Found,
    renamed: dict[int, int],
) -> None:
    """Links the shapes of one frame to chains, which move on; adds those of seeds to `found`."""
    overlap = boxes_iou([c.box for c in chains], [k.box for k in shapes])
    pairs = np.argwhere(overlap >= SAME_OBJECT)
    best_first = pairs[np.argsort(-overlap[pairs[:, 0], pairs[:, 1]], kind="stable")]
    shape_of: dict[int, int] = {}
    linked: set[int] = set()
    for i, j in best_first.tolist():
        if i not in shape_of and j not in linked:
            shape_of[i] = j
            linked.add(j)
    for i, j in shape_of.items():
        chain, shape = chains[i], shapes[j]
        chain.box = shape.box
        if not chain.number:
            continue
        if shape.mark is None:
            found[chain.number].setdefault(frame, []).append(shape)
        elif not found[chain.number] and chain.number not in renamed:
            renamed[chain.number] = shape.mark.number
    left = [k for j, k in enumerate(shapes) if j not in linked and k.mark is None]
    lone = any(
        c.number and i not in shape_of and frame not in found[c.number] and c.number not in renamed
        for i, c in enumerate(chains)
    )
    if left and lone:
        raise ActionError(
            f"Frame {frame} holds {len(left)} automatic shapes ({job.label(kind[0]).name}, "
            f"{kind[1]}) without a mark, and it cannot be told whose they are. Select all objects "
            "of this label and type, give them different groups in CVAT, or write beside them "
            "with --keep-earlier."
        )


def _under_new_numbers(
    found: Found, renamed: dict[int, int], snapshot: Snapshot, wanted: set[int]
) -> Found:
    """`found` under the numbers that seeds took over, with all marked shapes of these."""
    if not renamed:
        return found
    result = {renamed.get(number, number): on_frame for number, on_frame in found.items()}
    new = set(renamed.values())
    for k in snapshot.shapes.values():
        if k.auto and k.mark and k.mark.number in new and k.frame in wanted:
            result[k.mark.number].setdefault(k.frame, []).append(k)
    return result
