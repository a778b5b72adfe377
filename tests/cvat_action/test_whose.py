# SPDX-License-Identifier: MIT
"""Which object a shape is of: the table that the plugin is tested with too (docs/identity.md)."""

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import recorded
from wire import RECTANGLE, keyframe, shape, shifted, track

from cvat_action.errors import ActionError
from cvat_action.identity import Mark, marked_score, number_of_outline
from cvat_action.job import Job, Label
from cvat_action.plan import Options, Plan, make_plan, wants_whole
from cvat_action.results import THERE_ALREADY, Written
from cvat_action.shape_results import shapes_to_create, shapes_to_delete
from cvat_action.snapshot import Snapshot, take_snapshot
from cvat_action.tracked import Tracked, TrackedObject

TABLE = recorded("whose")
JOB = Job(42, 7, 0, 29, (Label(1, "car"), Label(2, "person")), ((100, 80),), name="job 42")
NOTHING_ELSE: dict[str, Any] = {
    "replaces": [], "corrections": [], "other_label": [], "in_place": [], "refused": False,
}  # fmt: skip


class Case:
    def __init__(self, case: dict[str, Any]) -> None:
        self.start, self.target = case["run"]
        self.shapes = {s["id"]: s for row in case["shapes"] for s in self._shapes(row)}
        for s in self.shapes.values():
            if (number := s.pop("number")) is not None:
                s["score"] = marked_score(0.9, Mark(self.number(number), 5), s["frame"])
        self.tracks = case.get("tracks", [])
        self.receipts = {int(i): self.number(n) for i, n in case.get("receipts", {}).items()}

    @staticmethod
    def _shapes(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        own = {name: row[name] for name in ("group", "rotation") if name in row}
        own |= {"label_id": row.get("label", 1), "number": row.get("number")}
        own["source"] = row.get("source", "auto" if "number" in row else "manual")
        points = row.get("points") or shifted(RECTANGLE, row.get("right", 0))
        first, last = row.get("frames", (0, 0))
        on = [(row["id"] + f, f) for f in range(first, last + 1)] if last else []
        for number, frame in on or [(row["id"], row["frame"])]:
            yield shape(row.get("type", "rectangle"), points, id=number, frame=frame, **own)

    def number(self, said: str | int | None) -> int:
        if isinstance(said, int):
            return number_of_outline(self.shapes[said])
        return TABLE["numbers"][said] if said else 0

    def plan(self, *seeds: str) -> tuple[Plan, Snapshot]:
        options = Options(
            self.start, self.target, seeds, backward=self.target < self.start, replace=True
        )
        tracks = [
            track(keyframe(t["frame"], RECTANGLE), id=t["id"], label_id=1) for t in self.tracks
        ]
        there = [*(("shapes", s) for s in self.shapes.values()), *(("tracks", t) for t in tracks)]
        snapshot = take_snapshot(there, wants_whole(options))
        of_tracks = {t["id"]: self.number(t["number"]) for t in self.tracks if "number" in t}
        made = make_plan(JOB, snapshot, options, receipts=self.receipts, tracks=of_tracks)
        return made, snapshot


def outcome(plan: Plan, snapshot: Snapshot) -> dict[str, dict[str, Any]]:
    """What becomes of each seed, by its name."""
    written, found = Written(), {}
    for seed in plan.seeds:
        own = {c.frame: c.shape["id"] for c in seed.corrections if c.shape}
        # not quite where an earlier result is: what would be written as it is stays
        points = [*seed.points[:-1], seed.points[-1] + (1 if seed.type == "mask" else 0.5)]
        o = TrackedObject(seed, {f: Tracked(points, by_hand=f in own) for f in plan.frames})
        list(shapes_to_create(plan, [o], plan.frames, snapshot, written))
        found[seed.ref] = {
            "number": seed.number,
            "replaces": sorted(shapes_to_delete(plan, [o], plan.frames, snapshot, written)),
            "corrections": sorted(own.values()),
            "other_label": sorted(own[frame] for frame in seed.relabelled if frame in own),
            "in_place": sorted(written.left_out.get((seed.ref, THERE_ALREADY), ())),
            "refused": False,
        }
    return found


@pytest.mark.parametrize("said", TABLE["cases"], ids=lambda case: case["why"])
def test_whose_a_shape_is(said):
    case = Case(said)
    expected = {
        ref: {**NOTHING_ELSE, **seed, "number": case.number(seed["number"])}
        for ref, seed in said["seeds"].items()
    }
    if "stops" in said:
        with pytest.raises(ActionError, match=said["stops"]):
            case.plan(*expected)
        return
    plan, snapshot = case.plan(*expected)
    refused = {ref for ref, seed in expected.items() if seed["refused"]}
    assert {r.ref for r in plan.refused} == refused
    assert outcome(plan, snapshot) == {r: s for r, s in expected.items() if r not in refused}
    said_of = " ".join([*plan.warnings, *(r.reason for r in plan.refused)])
    assert said.get("told", "") in said_of
    assert ("more than one drawing may be meant" in said_of) == said.get("unclear", False)
