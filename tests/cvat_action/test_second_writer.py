# SPDX-License-Identifier: MIT
"""A second writer does anything at any moment, answers get lost or come late, the process dies
anywhere: nothing that is not ours changes, nothing is doubled, and a resume ends where the
undisturbed run ends.

`make test` tries 100 courses of events; WRITING_EXAMPLES=10000 (`make faults`)
tries more.
"""

import copy
import itertools
import logging
import os
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from second_writer import (
    FRAMES,
    OTHER_RUN,
    OWN_RUN,
    DirectServer,
    World,
    contents,
    mark,
    new_job,
    plan_of,
    run_until_done,
    undisturbed,
)
from wire import mask_at

from cvat_action.duplicates import duplicate_shapes
from cvat_action.identity import Mark, marked_score
from cvat_action.results import Written
from cvat_action.signature import is_signed
from cvat_action.snapshot import take_snapshot

EXAMPLES = int(os.environ.get("WRITING_EXAMPLES", settings.default.max_examples))
AS_ALWAYS = "WRITING_EXAMPLES" not in os.environ
"""Always the same courses; else those of pytest's --hypothesis-seed."""
COURSES_OF_EVENTS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=AS_ALWAYS,
    database=None,
)
MOST_EVENTS = 12


@pytest.fixture(scope="module", autouse=True)
def short_stages():
    """Many small requests and stages, with a snapshot before each; the disk is not tested."""
    logging.disable()  # pytest would keep every line of 10,000 runs: 4 GB
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cvat_action.run.STAGE_FRAMES", 2)
        patch.setattr("cvat_action.cvat_sink.MOST_OBJECTS", 3)
        patch.setattr("cvat_action.cvat_sink.FRESH", 0.0)
        patch.setattr("cvat_action.calls.LONGEST_PAUSE", 0.0)
        patch.setattr("cvat_action.plan._free_run", lambda snapshot: OWN_RUN)
        patch.setattr("os.fsync", lambda file: None)
        yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def expected(short_stages, tmp_path_factory):
    return {
        earlier: undisturbed(tmp_path_factory.mktemp("run"), earlier=earlier)
        for earlier in (False, True)
    }


ACTS = ["correct", "delete", "new_shape", "attribute", "keyframe", "other_run"]


class Events(World):
    """Draws what happens at every request, and remembers what a person left behind."""

    def __init__(self, draw, server, *, persons, faults):
        self._draw = draw
        self._job = server.job
        self._server = server
        self._persons = persons
        self._faults = faults
        self._left = MOST_EVENTS
        self.theirs = {}
        """id of a shape that a person made or changed last, as they left it; None: deleted"""
        self.keyframes = {}
        """(track, frame) of a keyframe that a person changed, as they left it"""
        self.of_other_runs = set()
        """ids of what another run wrote"""
        self.emptied = set()
        """(number, frame) of what a person deleted"""

    def fate(self, action):
        if not self._faults or not self._left:
            return "ok"
        fates = ["ok", "ok", "refused", "lost", "killed", "dead"]
        fates += ["late"] if action == "create" else []
        drawn = self._draw(st.sampled_from(fates))
        self._left -= drawn != "ok"
        if drawn != "ok":
            event(drawn)
        return drawn

    def before(self):
        if self._server.late and self._draw(st.booleans()):
            self._server.what_is_late()
        idle = not self._persons or not self._left or not self._job.shapes
        if idle or self._draw(st.integers(0, 2)):
            return
        self._left -= 1
        act = self._draw(st.sampled_from(ACTS))
        event(act)
        getattr(self, f"_{act}")()

    def _some_shape(self):
        return self._draw(st.sampled_from(self._job.shapes))

    def _put(self, s):
        """As CVAT's page saves: delete by id, create with the same id."""
        self._job.shapes = [x for x in self._job.shapes if x["id"] != s["id"]] + [s]
        self.theirs[s["id"]] = copy.deepcopy(s)

    def _correct(self):
        s = self._some_shape()
        source = "semi-auto" if s["source"] in ("auto", "semi-auto") else "manual"
        points = [p + (i >= len(s["points"]) - 4) for i, p in enumerate(s["points"])]
        self._put({**s, "points": points, "source": source})

    def _attribute(self):
        """The page leaves the source as it is."""
        self._put({**self._some_shape(), "attributes": [{"spec_id": 31, "value": "blue"}]})

    def _delete(self):
        s = self._some_shape()
        self._job.shapes = [x for x in self._job.shapes if x["id"] != s["id"]]
        self.theirs[s["id"]] = None
        self.emptied |= held([s])

    def _new_shape(self, **more):
        frame = self._draw(st.sampled_from(FRAMES))
        y, group = self._draw(st.sampled_from([(20, 1), (30, 2)]))
        s = copy.deepcopy(self._job.shapes[0]) | {
            "type": "mask", "frame": frame, "points": mask_at(frame - 6, y), "group": group,
            "source": "manual", "score": 1.0, "label_id": 7, "attributes": [], "id": None,
        } | more  # fmt: skip
        self._server.rules.give_ids(s)
        self._put(s)

    def _other_run(self):
        """Another run of the same tool, which may have drawn the same number, writes a result."""
        numbers = [m.number for s in self._job.shapes if (m := mark(s))]
        if numbers:
            number = self._draw(st.sampled_from(numbers))
            frame = self._draw(st.sampled_from([*FRAMES]))
            run = self._draw(st.sampled_from([OTHER_RUN, OWN_RUN]))
            score = marked_score(0.9, Mark(number, run), frame)
            self._new_shape(source="auto", score=score, frame=frame)
            self.of_other_runs.add(self._job.shapes[-1]["id"])

    def _keyframe(self):
        inside = [
            (t, k["frame"])
            for t in self._job.tracks
            for k in t["shapes"]
            if k["frame"] in FRAMES and not k["outside"]
        ]
        if not inside:
            return
        held_track, frame = self._draw(st.sampled_from(inside))
        t = copy.deepcopy(held_track)
        (k,) = (k for k in t["shapes"] if k["frame"] == frame)
        k["points"] = [p + 0.25 for p in k["points"]]
        t["source"] = "semi-auto"
        self._job.tracks = [x for x in self._job.tracks if x["id"] != t["id"]] + [t]
        self.keyframes[t["id"], frame] = list(k["points"])


def signed_keyframes(t):
    return {(k["frame"], *k["points"]) for k in t["shapes"] if is_signed(k)}


def held(shapes):
    """(number, frame) of the marks."""
    return {(m.number, s["frame"]) for s in shapes if (m := mark(s))}


def check(world, before, plan, job):
    now = {s["id"]: s for s in job.shapes}
    replaced = {k.id for by in plan.earlier.values() for shapes in by.values() for k in shapes}
    converted = {s.wire["id"] for s in plan.seeds if s.type == "polygon" and not s.is_track}
    for s in before:
        if s["id"] not in replaced | converted | set(world.theirs):
            assert now.get(s["id"]) == s, "what nobody touched is as it was"
    for number, left in world.theirs.items():
        if left is None:
            assert number not in now, "what a person deleted stays deleted"
        elif number in world.of_other_runs and mark(left).run == OWN_RUN and number not in now:
            assert held([left]) <= held(job.shapes) | world.emptied, "of two results one stays"
        else:
            assert now.get(number) == left, "what a person or another run made is as they left it"
    for (number, frame), points in world.keyframes.items():
        t = next((t for t in job.tracks if t["id"] == number), None)
        assert t is not None
        found = [k["points"] for k in t["shapes"] if k["frame"] == frame]
        assert found == [points], "a keyframe that a person changed is as they left it"
    untouched = [s for s in job.shapes if s["id"] not in world.of_other_runs | set(world.theirs)]
    ours = Counter((m.number, s["frame"]) for s in untouched if (m := mark(s)) and m.run == OWN_RUN)
    assert not [key for key, n in ours.items() if n > 1], "nothing is doubled"
    corrected = held(s for s in job.shapes if s["source"] != "auto")
    tracked = {s.number for s in plan.seeds if s.wire["id"] in now}
    automatic = {
        key for key in held(s for s in untouched if s["source"] == "auto") if key[0] in tracked
    }
    assert not corrected & automatic, "no result lies beside a person's correction of it"
    edited = {number for number, _ in world.keyframes}
    for one, other in itertools.combinations(job.tracks, 2):
        duplicates = signed_keyframes(one) & signed_keyframes(other)
        assert not duplicates or {one["id"], other["id"]} <= edited, "no track is doubled"


def course(data, *, persons, faults):
    earlier = data.draw(st.booleans(), "an earlier run")
    job = new_job(earlier=earlier)
    server = DirectServer(job)
    before = copy.deepcopy(job.shapes)
    world = Events(data.draw, server, persons=persons, faults=faults)
    with TemporaryDirectory() as folder:
        plan, _ = run_until_done(server, Path(folder), world)
    check(world, before, plan, job)
    return earlier, job


@pytest.mark.slow
@pytest.mark.timeout(7200)
@COURSES_OF_EVENTS
@given(st.data())
def test_whatever_happens_nothing_of_a_persons_changes_and_nothing_is_doubled(short_stages, data):
    course(data, persons=True, faults=True)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@COURSES_OF_EVENTS
@given(data=st.data())
def test_a_resume_ends_where_the_undisturbed_run_ends(expected, data):
    earlier, job = course(data, persons=False, faults=True)
    assert contents(job) == expected[earlier]


def test_a_duplicate_is_deleted_even_beside_another_runs_result(short_stages):
    """Which drew the same number for the run and the object, and wrote first. Found by the property
    above with 10,000 examples."""
    job = new_job(earlier=False)
    plan = plan_of(job, replace=True)
    score = marked_score(0.75, Mark(plan.seeds[0].number, plan.run), 12)
    like = {**job.shapes[0], "frame": 12, "source": "auto", "score": score}
    for number, x in ((6000, 6), (6001, 7), (6002, 7)):
        job.shapes.append({**like, "id": number, "points": mask_at(x, 20)})
    snapshot = take_snapshot([("shapes", s) for s in job.shapes], lambda s: False)
    assert duplicate_shapes(plan, snapshot, Written(uncertain=True)) == [6002]
