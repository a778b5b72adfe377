# SPDX-License-Identifier: MIT
"""What a run tells: the table for people, the JSON for scripts."""

from collections.abc import Sequence
from typing import Any

from cvat_action.job import Job
from cvat_action.selection import Refusal
from cvat_action.tracking import Run, TrackedObject


def summary(job: Job, objects: Sequence[TrackedObject]) -> list[dict[str, Any]]:
    """One entry per object; `lowest_score` (0 to 1) says which frame to look at first."""
    entries = []
    for o in objects:
        tracked = {f: t for f, t in o.frames.items() if not t.by_hand}
        scored = [(t.score, f) for f, t in sorted(tracked.items()) if t.score is not None]
        lowest = min(scored, default=(None, None))
        entries.append(
            {
                "object": o.seed.ref,
                "label": job.label(o.seed.label_id).name,
                "type": o.seed.type,
                "frames": len(tracked),
                "lost": sum(t.points is None for t in tracked.values()),
                "lost_frames": sorted(f for f, t in tracked.items() if t.points is None),
                "by_hand": len(o.frames) - len(tracked),
                "lowest_score": lowest[0],
                "lowest_score_frame": lowest[1],
                "stopped": o.stopped,
            }
        )
    return entries


def summary_table(entries: Sequence[dict[str, Any]]) -> str:
    rows = [("object", "label", "type", "frames", "lost", "lowest confidence", "")]
    for e in entries:
        score = e["lowest_score"]
        rows.append(
            (
                e["object"],
                e["label"],
                e["type"],
                str(e["frames"]),
                str(e["lost"]),
                "-" if score is None else f"{score:.2f} on frame {e['lowest_score_frame']}",
                e["stopped"] or "",
            )
        )
    return table(rows)


def refusals_table(job: Job, refused: Sequence[Refusal]) -> str:
    return table([(r.ref, job.label(r.label_id).name, r.reason) for r in refused])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, two blanks apart."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def run_as_json(
    job: Job, run: Run, refused: Sequence[Refusal], written: dict[str, int], resume: str | None
) -> dict[str, Any]:
    return {
        "job": job.id,
        "frames": list(run.done),
        "complete": run.broken is None,
        "ended_because": run.broken,
        "objects": summary(job, run.objects),
        "left_alone": [
            {"object": r.ref, "label": job.label(r.label_id).name, "reason": r.reason}
            for r in refused
        ],
        "written": written,
        "resume": resume,
    }
