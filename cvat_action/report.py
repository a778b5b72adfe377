# SPDX-License-Identifier: MIT
"""What the commands tell: tables for people, JSON for scripts."""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cvat_action.coinciding import coinciding_pairs
from cvat_action.job import Job
from cvat_action.plan import Plan, listed
from cvat_action.results import Written
from cvat_action.seeds import Seed
from cvat_action.server import Function, why_unusable
from cvat_action.tracked import TrackedObject

logger = logging.getLogger(__name__)

MOST_TOLD = 5
"""of objects or pairs of them that may be wrong in one way; the others are counted"""


@contextmanager
def telling() -> Iterator[None]:
    """What is done is done, also where nobody reads what is told of it: `| head`, a full disk."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        logger.warning("The summary could not be printed: %s.", error.strerror)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (Python flushes it again at its end)


def summary(job: Job, objects: Sequence[TrackedObject]) -> list[dict[str, Any]]:
    """One entry per object; `lowest_score` (0 to 1) says which frame to look at first.

    hidden_from: the frame from which an object is hidden that has no result for that reason.
    """
    entries = []
    for o in objects:
        tally = o.tally
        lowest = tally.lowest or (None, None)
        nearest = min(o.seed.corrections, key=lambda c: abs(c.frame - o.seed.frame), default=None)
        stays_hidden = all(c.points is None for c in o.seed.corrections)
        entries.append(
            {
                "object": o.seed.ref,
                "label": job.label(o.seed.label_id).name,
                "type": o.seed.type,
                "frames": tally.frames,
                "lost": len(tally.lost),
                "lost_frames": sorted(tally.lost),
                "unsure": len(tally.unsure),
                "unsure_frames": sorted(tally.unsure),
                "by_hand": tally.by_hand,
                "lowest_score": lowest[0],
                "lowest_score_frame": lowest[1],
                "relabelled_frames": sorted(o.seed.relabelled),
                "stopped": o.stopped,
                "hidden_from": (
                    nearest.frame if nearest and stays_hidden and not tally.frames else None
                ),
            }
        )
    return entries


def summary_table(entries: Sequence[dict[str, Any]], *, with_unsure: bool = False) -> str:
    """with_unsure: also how many frames were left out because of `--min-score`."""
    unsure = ("unsure",) if with_unsure else ()
    rows = [("object", "label", "type", "frames", "lost", *unsure, "lowest confidence", "")]
    for e in entries:
        score = e["lowest_score"]
        rows.append(
            (
                *(e[name] for name in ("object", "label", "type")),
                *(str(e[name]) for name in ("frames", "lost", *unsure)),
                "-" if score is None else f"{score:.2f} on frame {e['lowest_score_frame']}",
                "; ".join(filter(None, (e["stopped"] or _why_nothing(e), _relabelled(e)))),
            )
        )
    return table(rows)


def _why_nothing(entry: dict[str, Any]) -> str:
    """Why an object has no result although nothing went wrong, for a person."""
    if entry["hidden_from"] is not None:
        return f"hidden (outside) from frame {entry['hidden_from']} on"
    if 0 < entry["frames"] == entry["lost"]:
        return "seen on no frame; if it is small, try --search-region 4"
    return ""


def _relabelled(entry: dict[str, Any]) -> str:
    frames = entry["relabelled_frames"]
    return f"kept with another label on frame {listed(frames)}" if frames else ""


def without_scores(objects: Sequence[TrackedObject]) -> list[str]:
    """Objects that were tracked without any confidence, so that none is below a `--min-score`."""
    tallies = [(o.seed.ref, o.tally) for o in objects]
    return [ref for ref, t in tallies if t.lowest is None and t.frames > len(t.lost + t.unsure)]


def print_run(
    plan: Plan,
    objects: Sequence[TrackedObject],
    written: Written,
    done: Mapping[str, int],
    link: str | None,
    out: Path | None = None,
) -> None:
    """What became of a run, for a person. out: the file that is written, if it is one."""
    with_unsure = plan.options.min_score is not None
    print(summary_table(summary(plan.job, objects), with_unsure=with_unsure))
    if not counts(done):
        print("written: nothing new")
        return
    print(f"written{f' to {out}' if out else ''}: {counts_as_text(done)}")
    if thinned := sparse_as_text(written):
        print(thinned)
    could_go_both_ways = not (plan.options.both_ways or plan.options.all_seeds)
    if could_go_both_ways and any(map(_was_corrected, objects)):
        print("With --both-ways frames between drawings are tracked from both ends: often better.")
    if link:
        print(f"{link}\nReload the page if the job is open: it does not show this yet.")


def _was_corrected(o: TrackedObject) -> bool:
    return o.tally.by_hand > 0 and any(c.points is not None for c in o.seed.corrections)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, two blanks apart."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def counted(count: int, what: str) -> str:
    """`1 object`, `2 objects`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def coinciding_lines(objects: Sequence[TrackedObject]) -> list[str]:
    """Which objects lie on each other, and where to look; those on most frames first."""
    pairs = sorted(coinciding_pairs(objects), key=lambda pair: -len(pair[2]))
    lines = [
        f"Objects {one} and {other} cover the same thing on {counted(len(frames), 'frame')}, first "
        f"on frame {frames[0]}. If they are two things, one went over to the other: look there."
        for one, other, frames in pairs
    ]
    return _first(lines, "more pair", " of objects")


def over_others_lines(written: Written) -> list[str]:
    """Objects that may be in the job twice."""
    objects = sorted(written.over_others.items(), key=lambda item: -len(item[1]))
    lines = [
        f"Object {ref} covers the same as another automatic shape on "
        f"{counted(len(frames), 'frame')}, first on frame {frames[0]}; that one stays. If both are "
        "one object, delete one of them there."
        for ref, frames in objects
    ]
    return _first(lines, "more object")


def _first(lines: list[str], others: str, of: str = "") -> list[str]:
    """MOST_TOLD of the lines, and how many others there are."""
    more = len(lines) - MOST_TOLD
    rest = [f"And {counted(more, others)}{of} (--json names them)."] if more > 0 else []
    return lines[:MOST_TOLD] + rest


def left_out_lines(written: Written) -> list[str]:
    """Where nothing was written for an object, and why."""
    return [
        f"Object {ref}, frame{'' if len(frames) == 1 else 's'} {listed(frames)}: {why}."
        for (ref, why), frames in written.left_out.items()
    ]


def _sparse(written: Written) -> dict[str, int] | None:
    total = written.thinning.total
    return asdict(total) if total.frames else None


def sparse_as_text(written: Written) -> str:
    """How many keyframes stand for how many frames; empty where none were left out."""
    total = written.thinning.total
    if not total.frames:
        return ""
    return (
        f"sparse: {counted(total.keyframes, 'keyframe')} of {counted(total.points, 'point')} in "
        f"all for {counted(total.frames, 'frame')}"
    )


def counts(done: Mapping[str, int]) -> dict[str, int]:
    return {name: n for name, n in done.items() if n}


def counts_as_text(done: Mapping[str, int]) -> str:
    parts = []
    for name, n in counts(done).items():
        what, verb = name.split("_")
        parts.append(f"{counted(n, what.removesuffix('s'))} {verb}")
    return ", ".join(parts)


def run_as_json(
    plan: Plan,
    frames: Sequence[int],
    objects: Sequence[TrackedObject],
    written: Written,
    done: Mapping[str, int],
    *,
    problem: str | None,
    resume: str | None,
    link: str | None,
) -> dict[str, Any]:
    return {
        "job": plan.job.id,
        "frames": list(frames),
        "complete": problem is None,
        "ended_because": problem,
        "objects": summary(plan.job, objects),
        "sparse": _sparse(written),
        "left_alone": refusals_as_json(plan),
        "over_earlier_results": [
            {"object": ref, "frames": frames} for ref, frames in written.over_others.items()
        ],
        "cover_the_same": [
            {"objects": [one, other], "frames": frames}
            for one, other, frames in coinciding_pairs(objects)
        ],
        "left_out": [
            {"object": ref, "frames": sorted(on), "reason": why}
            for (ref, why), on in written.left_out.items()
        ],
        "written": counts(done),
        "resume": resume,
        "link": link,
    }


def refusals_as_json(plan: Plan) -> list[dict[str, str]]:
    return [
        {"object": r.ref, "label": plan.job.label(r.label_id).name, "reason": r.reason}
        for r in plan.refused
    ]


def _becomes(plan: Plan, seed: Seed) -> str:
    if seed.is_track:
        return "keyframes of this track"
    if plan.becomes_track(seed):
        return "a new track" if seed.found else "a new track; the shape is deleted"
    return f"a {seed.type} shape per frame"


def dry_run_as_json(plan: Plan) -> dict[str, Any]:
    """What `--dry-run` shows, for scripts."""
    frame, target = plan.options.frame, plan.target
    low, high = min(frame, target), max(frame, target)
    every = plan.options.every
    return {
        "dry_run": True,
        "job": plan.job.id,
        "function": plan.function,
        "frames": list(plan.frames),
        "deleted_frames_skipped": sorted(f for f in plan.job.deleted_frames if low <= f <= high),
        "objects": [
            {
                "object": s.ref,
                "label": plan.job.label(s.label_id).name,
                "type": s.type,
                "becomes": _becomes(plan, s),
                "frame": s.frame,
                "corrected_on": [c.frame for c in s.corrections],
            }
            for s in plan.seeds
        ],
        "left_alone": refusals_as_json(plan),
        "shapes_replaced": sum(
            len(shapes) for on in plan.earlier.values() for shapes in on.values()
        ),
        "new_objects_looked_for_on": list(plan.frames[every - 1 :: every]) if every else [],
        "min_score": plan.options.min_score,
        "question": plan.question,
    }


def print_plan(plan: Plan) -> None:
    """What `--dry-run` shows, for a person."""
    told = dry_run_as_json(plan)
    skipped = told["deleted_frames_skipped"]
    what = f"Job {plan.job.id}, {plan.function}" if plan.server else plan.job.name
    print(
        f"{what}: from frame {plan.options.frame} to {plan.target}, "
        + counted(len(plan.frames), "frame")
        + (f" (deleted ones skipped: {skipped})" if skipped else "")
    )
    rows = [("object", "label", "type", "becomes", "")]
    for seed, e in zip(plan.seeds, told["objects"], strict=True):
        frames_of = ", ".join(map(str, e["corrected_on"]))
        remark = f"corrected on {frames_of}" if frames_of else ""
        if seed.asleep:
            remark = f"from frame {seed.frame} on"
        rows.append((e["object"], e["label"], e["type"], e["becomes"], remark))
    print(table(rows))
    if plan.refused:
        print("left alone:\n" + table([tuple(r.values()) for r in told["left_alone"]]))
    if plan.question:
        print(f"before it can run: {plan.question}")
    elif told["shapes_replaced"]:
        print(f"replaced: {counted(told['shapes_replaced'], 'shape')} of an earlier run")
    if plan.options.min_score is not None:
        print(f"not written: results of a confidence below {plan.options.min_score:g}")
    if again := told["new_objects_looked_for_on"]:
        print(f"looked at again for new objects: frames {', '.join(map(str, again))}")
    print("Nothing was tracked or written (--dry-run).")


def print_functions(listed: Sequence[Function], *, as_json: bool) -> None:
    trackers = [f for f in listed if f.kind == "tracker"]
    if as_json:
        entries = [
            {
                "id": f.id,
                "name": f.name,
                "kind": f.kind,
                "shape_types": list(f.shape_types),
                "usable": why_unusable(f) is None,
                "why_not": why_unusable(f),
            }
            for f in listed
        ]
        print(json.dumps(entries, indent=2))
        return
    if not trackers:
        print("This server has no trackers.")
    else:
        rows = [("id", "name", "tracks", "can be used")]
        for f in trackers:
            reason = why_unusable(f)
            rows.append(
                (f.id, f.name, ", ".join(f.shape_types), f"no: {reason}" if reason else "yes")
            )
        print(table(rows))
    detectors = [f for f in listed if f.kind == "detector"]
    if detectors:
        found = [(f.id, f.name, ", ".join(f.labels) or "does not say") for f in detectors]
        print("\n" + table([("id", "name", "finds (--detect)"), *found]))
