# SPDX-License-Identifier: MIT
"""A plan as it stands in the journal, in JSON."""

from dataclasses import asdict, fields
from typing import Any

from cvat_action.earlier import Found
from cvat_action.identity import Mark
from cvat_action.job import Job, Wire
from cvat_action.plan import Options, Plan
from cvat_action.seeds import Correction, Refusal, Seed
from cvat_action.snapshot import Known


def plan_as_json(plan: Plan) -> Wire:
    return {
        "server": plan.server,
        "job": plan.job.id,
        "function": plan.function,
        "options": asdict(plan.options),
        "frames": list(plan.frames),
        "seeds": [seed_as_json(s) for s in plan.seeds],
        "run": plan.run,
        "newest": list(plan.newest),
        "refused": [asdict(r) for r in plan.refused],
        "earlier": [
            [k.id, k.frame, number, k.content, k.attributes, k.mark.run if k.mark else None]
            for number, on_frame in plan.earlier.items()
            for shapes in on_frame.values()
            for k in shapes
        ],
        "owned": sorted(plan.owned),
        "near": sorted(plan.near),
        "differing": sorted(plan.differing),
    }


def plan_from_json(data: Wire, job: Job) -> Plan:
    """Raises KeyError, TypeError or ValueError where the data is no plan."""
    known = {f.name for f in fields(Options)}
    options = {key: _tuple(value) for key, value in data["options"].items() if key in known}
    earlier: Found = {}
    for shape_id, frame, number, content, attributes, run in data["earlier"]:
        mark = None if run is None else Mark(number, run)
        box = (0.0, 0.0, 0.0, 0.0)
        known_shape = Known(shape_id, frame, (0, "", 0), True, mark, box, content, attributes)
        earlier.setdefault(number, {}).setdefault(frame, []).append(known_shape)
    return Plan(
        server=data["server"],
        job=job,
        function=data["function"],
        options=Options(**options),
        frames=tuple(data["frames"]),
        seeds=tuple(seed_from_json(s) for s in data["seeds"]),
        run=data["run"],
        newest=(data["newest"][0], data["newest"][1]),
        refused=tuple(Refusal(**r) for r in data["refused"]),
        earlier=earlier,
        owned=frozenset(data["owned"]),
        near=frozenset(data["near"]),
        differing=frozenset(data["differing"]),
    )


def seed_as_json(seed: Seed) -> Wire:
    values = {f.name: getattr(seed, f.name) for f in fields(seed)}
    return {
        **values,
        "points": list(seed.points),
        "keyframes": list(seed.keyframes.items()),
        "removed": sorted(seed.removed),
        "relabelled": sorted(seed.relabelled),
        "corrections": [
            {**asdict(c), "points": None if c.points is None else list(c.points)}
            for c in seed.corrections
        ],
    }


def seed_from_json(data: Wire) -> Seed:
    """Raises KeyError, TypeError or ValueError where the data is no seed."""
    corrections = tuple(
        Correction(**{**c, "points": None if c["points"] is None else tuple(c["points"])})
        for c in data["corrections"]
    )
    return Seed(
        **{
            **data,
            "points": tuple(data["points"]),
            "corrections": corrections,
            "keyframes": {frame: content for frame, content in data["keyframes"]},
            "removed": frozenset(data["removed"]),
            "relabelled": frozenset(data["relabelled"]),
        }
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
