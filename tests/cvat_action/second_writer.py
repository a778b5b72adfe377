# SPDX-License-Identifier: MIT
"""Runs the writing of results against a job that others change at the same time.

Everything is real but the wire: the stand-in's own rules for what is written, the plan, the run,
the journal and the receipt on disk. `world` decides at every request what happens there.
"""

import copy
import json
import threading
from pathlib import Path
from typing import Any

from conftest import LABELS
from scripted_function import moved, object_at
from standin_cvat import StandinCvat, StandinJob
from wire import POLYGON, keyframe, mask_at, shape, track

from cvat_action import commands
from cvat_action.calls import Answer, Pace
from cvat_action.cvat_sink import CvatSink
from cvat_action.identity import Mark, mark_of, marked_score
from cvat_action.job import Job, Label
from cvat_action.journal import Journal
from cvat_action.plan import Options, make_plan, wants_whole
from cvat_action.plan_record import plan_as_json, plan_from_json
from cvat_action.receipt import Receipt
from cvat_action.run import Equipment
from cvat_action.server import HttpFailure
from cvat_action.snapshot import take_snapshot

FIRST, LAST = 10, 16
FRAMES = range(FIRST + 1, LAST + 1)
LOST = {(30, 13)}
"""(object, frame): not visible there"""
EARLIER_RUN, OTHER_RUN, OWN_RUN = 7, 8, 9
JOB = Job(42, 7, 5, 29, (Label(7, "car", frozenset({32})), Label(8, "person")), ((64, 48),))
PACE = Pace(wait=1000.0, first_wait=0.0)


class Killed(BaseException):
    """The process is gone."""


class ScriptedTracker:
    """Every object moves one pixel to the right per frame."""

    joins = False

    def start(self, frame: int, shapes: list[dict[str, Any]]) -> Answer:
        count = len(shapes)
        return Answer([None] * count, shapes, [None] * count, [None] * count)

    def step(self, frame: int, states: list[Any]) -> Answer:
        new = [moved(s) for s in states]
        seen = [None if (object_at(s), frame) in LOST else s for s in new]
        return Answer(seen, new, [0.75] * len(new), [None] * len(new))


class World:
    """The job, and what happens to it and to the process. Quiet, unless a test overrides it."""

    def before(self) -> None:
        """Before the job is read, and before something is created in it."""

    def fate(self, action: str) -> str:
        """ok, refused (not carried out), lost (carried out), late (carried out later), killed
        (before), dead (carried out, and then the process dies)"""
        return "ok"


class DirectServer:
    host = "http://cvat"

    def __init__(self, job: StandinJob) -> None:
        self.job = job
        self.rules = StandinCvat.__new__(StandinCvat)
        self.rules.jobs = {job.id: job}
        self.rules.keeps_scores = True
        self.rules._lock = threading.Lock()
        self.rules._next_id = 5000
        self.world: World = World()
        self.late: list[tuple[str, Any]] = []

    def snapshot(self, job: int, whole: Any) -> Any:
        self.world.before()
        found = [("shapes", s) for s in self.job.shapes] + [("tracks", t) for t in self.job.tracks]
        return take_snapshot(copy.deepcopy(found), whole)

    def patch(self, job: int, action: str, body: Any) -> Any:
        if action == "create":
            self.world.before()
        body = json.loads(json.dumps(body))
        fate = self.world.fate(action)
        if fate == "killed":
            raise Killed
        if fate == "late":
            self.late.append((action, body))
        if fate in ("refused", "late"):
            raise HttpFailure(504, "<html>", "CVAT answered 504")
        answer = self.carry_out(action, body)
        if fate == "dead":
            raise Killed
        if fate == "lost":
            raise HttpFailure(None, "", "CVAT did not answer")
        return answer

    def carry_out(self, action: str, body: Any) -> Any:
        return self.rules._patch(str(self.job.id), {"action": action}, body)

    def what_is_late(self) -> None:
        while self.late:
            self.carry_out(*self.late.pop(0))


def new_job(*, earlier: bool) -> StandinJob:
    """Two masks, a polygon that becomes a track, and a polygon track; with `earlier` also the
    results of a run before, which this one replaces."""
    job = StandinJob([], [(64, 48)], LABELS, start_frame=5, stop_frame=29)
    job.shapes = [
        shape("mask", mask_at(4, 20), id=100, group=1, score=1.0),
        shape("mask", mask_at(4, 30), id=101, group=2, score=1.0),
        shape("polygon", POLYGON, id=102, group=3, score=1.0),
        # not part of the run: a person's, and another program's
        shape("mask", mask_at(50, 40), id=103, frame=12, group=9, score=1.0),
        shape("mask", mask_at(50, 44), id=104, frame=12, group=9, source="auto", score=1.0),
    ]
    other = [p + 8 if i % 2 else p for i, p in enumerate(POLYGON)]
    later = [p + 3 for p in other]
    job.tracks = [
        track(keyframe(8, other, id=1), keyframe(14, later, id=2), keyframe(20, other, id=3), id=50)
    ]
    if earlier:
        tracked = [seed for seed in plan_of(job, replace=False).seeds if seed.type == "mask"]
        for group, (seed, y) in enumerate(zip(tracked, (20, 30), strict=True), 1):
            for frame in FRAMES:
                about = {"id": 1000 + 100 * y + frame, "frame": frame, "group": group}
                score = marked_score(0.5, Mark(seed.number, EARLIER_RUN), frame)
                result = shape("mask", mask_at(frame - 5, y), source="auto", score=score, **about)
                job.shapes.append(result)
    return job


def plan_of(job: StandinJob, *, replace: bool) -> Any:
    options = Options(FIRST, LAST, convert=True, replace=replace)
    found = [("shapes", s) for s in job.shapes] + [("tracks", t) for t in job.tracks]
    snapshot = take_snapshot(copy.deepcopy(found), wants_whole(options))
    return make_plan(JOB, snapshot, options, server="http://cvat", function="f")


def no_picture(frame: int) -> Any:
    raise AssertionError("no picture is needed here")


def run_until_done(
    server: DirectServer, folder: Path, world: World, *, replace: bool = True
) -> tuple[Any, CvatSink]:
    """Begins a run, and resumes it as often as the process dies. The plan and the last sink."""
    plan = plan_of(server.job, replace=replace)
    path = folder / "run.jsonl"
    path.unlink(missing_ok=True)
    receipt = Receipt(folder / "receipt.jsonl", {"receipt": 1, "server": "http://cvat", "job": 42})
    journal = Journal.begin(path, plan_as_json(plan))
    record = None
    server.world = world
    for _ in range(60):
        sink = CvatSink(server, plan, PACE, journal, receipt, record.written if record else None)
        late, finish = server.what_is_late, sink.finish
        sink.finish = lambda *a, late=late, finish=finish, **kw: (late(), finish(*a, **kw))[1]  # type: ignore[assignment]
        try:
            equipment = Equipment(ScriptedTracker(), sink, journal, PACE, no_picture)
            outcome, _, _ = commands.go(plan, equipment, record)
            assert outcome.problem is None, outcome.problem
            return plan, sink
        except Killed:
            pass
        finally:
            journal.close()
        journal, record = Journal.go_on(path)
        plan = plan_from_json(record.plan, JOB)
    journal.close()
    raise AssertionError("the run never ended")


def contents(job: StandinJob) -> Any:
    """What the job holds, without ids and without the run's number."""
    shapes = [
        (s["frame"], s["type"], s["points"], s["source"], s["group"], int(s["score"] * 10_000))
        for s in job.shapes
    ]
    tracks = [
        (t["source"], [(k["frame"], k["points"], k["outside"], k["occluded"]) for k in t["shapes"]])
        for t in job.tracks
    ]
    return sorted(shapes, key=repr), sorted(tracks, key=repr)


def undisturbed(folder: Path, *, earlier: bool) -> Any:
    server = DirectServer(new_job(earlier=earlier))
    run_until_done(server, folder, World())
    return contents(server.job)


def mark(s: dict[str, Any]) -> Mark | None:
    return mark_of(s.get("score"), s["frame"])
