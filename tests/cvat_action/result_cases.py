# SPDX-License-Identifier: MIT
"""Cases of what a run makes of tracks, which the plugin must answer as the command line does.

PYTHONPATH=.:tests/cvat_action python tests/cvat_action/result_cases.py  works out anew what becomes
of the objects in the file. A new case needs all but `becomes`.
"""

import json
from pathlib import Path
from typing import Any

from cvat_action.job import Job, Label
from cvat_action.plan import Options, make_plan, wants_whole
from cvat_action.results import Written
from cvat_action.snapshot import take_snapshot
from cvat_action.track_results import tracks_to_create, tracks_to_update
from cvat_action.tracked import Tracked, TrackedObject

CASES = Path(__file__).parents[1] / "action_cases" / "results.json"
LABEL = Label(7, "car", frozenset({32}))


def plan_of(case: dict[str, Any]) -> Any:
    job = Job(1, 1, 0, 11, (LABEL,), ((100, 80),), frozenset(case["deleted_frames"]))
    kind = "tracks" if "shapes" in case["object"] else "shapes"
    start, target = case["start"], case["target"]
    how: dict[str, Any] = {"convert": True, "replace": True, "sparse": case.get("sparse")}
    options = Options(start, target, backward=target < start, **how)
    held = json.loads(json.dumps(case["object"]))
    snapshot = take_snapshot([(kind, held)], wants_whole(options))
    return make_plan(job, snapshot, options), snapshot


def outcome(case: dict[str, Any]) -> dict[str, Any] | None:
    """The track as it is written; None: it stays as it is."""
    plan, snapshot = plan_of(case)
    (seed,) = plan.seeds
    o = TrackedObject(seed)
    for r in case["results"]:
        o.frames[r["frame"]] = Tracked(r["points"], by_hand=r["by_hand"])
    made = tracks_to_update if seed.is_track else tracks_to_create
    written = list(made(plan, [o], [*o.frames], snapshot, Written()))
    if not written:
        return None
    return {name: value for name, value in written[0][1].items() if name != "id"}


def main() -> None:
    cases = [{**case, "becomes": outcome(case)} for case in json.loads(CASES.read_text())]
    text = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    CASES.write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
