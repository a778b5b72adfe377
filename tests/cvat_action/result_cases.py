# SPDX-License-Identifier: MIT
"""Cases of what a run makes of tracks, which the plugin must answer as the command line does.

PYTHONPATH=.:tests/cvat_action python tests/cvat_action/result_cases.py  writes the file anew
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conftest import automatic, keyframe, shape, track

from cvat_action.errors import ActionError
from cvat_action.job import Job, Label
from cvat_action.plan import Options, make_plan, wants_whole
from cvat_action.results import Written
from cvat_action.selection import track_position
from cvat_action.snapshot import take_snapshot
from cvat_action.track_results import tracks_to_create, tracks_to_update
from cvat_action.tracking import Tracked, TrackedObject

CASES = Path(__file__).parents[1] / "action_cases" / "results.json"
LAST = 11
SIZE = (100, 80)
RANDOM_CASES = 80
MUTABLE = 32
POINTS = {
    "rectangle": [10.0, 20.0, 30.0, 45.0],
    "polygon": [10.0, 20.0, 30.0, 22.0, 25.0, 45.0],
}


def job_of(case: dict[str, Any]) -> Job:
    labels = (Label(7, "car", frozenset({MUTABLE})),)
    return Job(1, 1, 0, LAST, labels, (SIZE,), frozenset(case["deleted_frames"]))


def plan_of(case: dict[str, Any]) -> Any:
    kind = "tracks" if "shapes" in case["object"] else "shapes"
    start, target = case["start"], case["target"]
    how: dict[str, Any] = {"convert": True, "replace": True, "sparse": case.get("sparse")}
    options = Options(start, target, backward=target < start, **how)
    held = json.loads(json.dumps(case["object"]))
    snapshot = take_snapshot([(kind, held)], wants_whole(options))
    return make_plan(job_of(case), snapshot, options), snapshot


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


def moved(kind: str, by: float) -> list[float]:
    return [p + by for p in POINTS[kind]]


def _random_track(dice: random.Random, kind: str) -> dict[str, Any]:
    frames = sorted(dice.sample(range(LAST + 1), dice.randint(1, 6)))
    keyframes = []
    for n, frame in enumerate(frames):
        make = automatic if n and dice.random() < 0.7 else keyframe
        more: dict[str, Any] = {"size": SIZE} if make is automatic else {}
        keyframes.append(
            make(
                frame,
                moved(kind, frame + dice.choice([0, 0.25])),
                type=kind,
                outside=n > 0 and dice.random() < 0.3,
                occluded=dice.random() < 0.2,
                z_order=dice.choice([0, 0, 2]),
                attributes=[{"spec_id": MUTABLE, "value": f"{frame}"}] * (dice.random() < 0.3),
                **more,
            )
        )
    source = dice.choice(["manual", "auto", "semi-auto"])
    return track(*keyframes, id=5, source=source, attributes=[{"spec_id": 31, "value": "red"}])


def random_case(dice: random.Random) -> dict[str, Any] | None:
    """None: of what was drawn there is nothing to track."""
    deleted = [f for f in range(LAST + 1) if dice.random() < 0.1]
    kind = dice.choice(["rectangle", "polygon"])
    start, target = dice.sample(range(LAST + 1), 2)
    attributes = [{"spec_id": MUTABLE, "value": "x"}, {"spec_id": 31, "value": "red"}]
    held = _random_track(dice, kind)
    if dice.random() < 0.2:
        held = shape("polygon", POINTS["polygon"], id=5, frame=start, attributes=attributes)
    case = {"object": held, "start": start, "target": target, "deleted_frames": deleted}
    if start in deleted:
        return None
    if "shapes" in held:
        here = track_position(job_of(case), held, start)
        if here is None or here["outside"]:
            return None
        case["points"] = list(here["points"])
        case["flags"] = [bool(here["occluded"]), here["z_order"]]
    else:
        case["points"], case["flags"] = held["points"], [held["occluded"], held["z_order"]]
    plan, _ = plan_of(case)
    (seed,) = plan.seeds
    by_hand = {c.frame: c.points for c in seed.corrections}
    done = plan.frames[: dice.randint(1, len(plan.frames))] if plan.frames else ()
    results, asleep = [], False
    for frame in done:
        if frame in by_hand:
            points = by_hand[frame]
            asleep = points is None
            points = points and list(points)
            results.append({"frame": frame, "points": points, "by_hand": True})
        elif not asleep:
            points = moved(seed.type, frame + 0.5) if dice.random() < 0.75 else None
            results.append({"frame": frame, "points": points, "by_hand": False})
    if all(r["by_hand"] for r in results):
        return None
    return {**case, "results": results}


def named_cases() -> Iterator[dict[str, Any]]:
    box, hide = POINTS["rectangle"], {"outside": True, "size": SIZE}
    attributes = [{"spec_id": MUTABLE, "value": "x"}, {"spec_id": 31, "value": "red"}]

    def on(frame: int, **more: Any) -> dict[str, Any]:
        return automatic(frame, moved("rectangle", frame), **{"size": SIZE, **more})

    def case(why: str, held: Any, start: int, visible: str, **more: Any) -> dict[str, Any]:
        """visible: for each frame of the run whether the object is seen: x or -"""
        step = more.pop("step", 1)
        frames = [start + step * n for n in range(1, len(visible) + 1)]
        deleted = more.get("deleted_frames", ())
        drawn = more.pop("by_hand", ())
        results = [
            {
                "frame": f,
                "points": moved("rectangle", f) if v == "x" else None,
                "by_hand": f in drawn,
            }
            for f, v in zip(frames, visible, strict=True)
            if f not in deleted
        ]
        flags = [False, 0]
        fixed = {"start": start, "target": frames[-1], "deleted_frames": [], "points": box}
        return {"why": why, "object": held, **fixed, "flags": flags, **more, "results": results}

    first = keyframe(0, box)
    lost = track(first, on(1), on(2, **hide), on(7), id=5)
    yield case("hidden after the last frame of the run: it stays hidden", lost, 0, "xxx")
    yield case("shown after the last frame of the run: it is not hidden", lost, 0, "xxx-xx")
    far = track(first, keyframe(9, moved("rectangle", 9)), id=5)
    yield case(
        "lost at the low end of a run backwards: the frames before stay as they are",
        *(far, 9, "xxx--"),
        **{"step": -1, "points": far["shapes"][1]["points"]},
    )
    yield case("lost at the end of the run: the frames after it stay as they are", far, 0, "xxx--")
    turned = track(first, keyframe(9, moved("rectangle", 9), rotation=80.0), id=5)
    yield case("lost at the end of the run: a box that turns goes on turning", turned, 0, "xx-")
    odd = track(first, on(3, occluded=True, z_order=4), on(6), id=5)
    yield case("a keyframe on a deleted frame has no say", odd, 0, "xxxx-", deleted_frames=[3])
    late = track(keyframe(4, box, occluded=True, z_order=2), on(6), id=5)
    position = track_position(Job(1, 1, 0, LAST, (), (SIZE,)), late, 6)
    yield case(
        "before the first keyframe the object is occluded as on it",
        *(late, 6, "xxx-x"),
        **{"step": -1, "points": list(position["points"]) if position else box},
    )
    thin = {"sparse": 0.97}
    twisted = track(first, keyframe(6, moved("rectangle", 6), rotation=20.0), id=5)
    beside = "sparse keyframes stand right beside a box that is turned"
    yield case(beside, twisted, 0, "xxxxxxxx", **thin, by_hand=[6])
    yield case(
        "sparse keyframes stand right beside a turned box after the run",
        *(twisted, 0, "xxxxx"),
        **thin,
    )
    parked = [{"spec_id": MUTABLE, "value": "parked"}]
    late = track(first, *(on(f) for f in (1, 2)), on(3, attributes=parked), on(4), id=5)
    value = "with sparse keyframes the first value of an attribute begins where it was set"
    yield case(value, late, 0, "xxxx", **thin)
    for why, step in (
        ("a polygon becomes a track", 1),
        ("a polygon becomes a track backwards", -1),
    ):
        polygon = shape("polygon", POINTS["polygon"], id=5, frame=5, attributes=attributes)
        one = case(why, polygon, 5, "xx", step=step, points=polygon["points"])
        for r in one["results"]:
            r["points"] = moved("polygon", r["frame"])
        yield one


def main() -> None:
    dice = random.Random(1)
    cases = [{**case, "becomes": outcome(case)} for case in named_cases()]
    known = len(cases)
    while len(cases) < known + RANDOM_CASES:
        try:
            case = random_case(dice)
        except ActionError:
            continue  # nothing of it can be tracked
        if case:
            number = len(cases) - known + 1
            cases.append({"why": f"random {number}", **case, "becomes": outcome(case)})
    text = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    CASES.write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
