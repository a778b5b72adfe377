# SPDX-License-Identifier: MIT
"""The second hour of work: a person looked and corrected, and the command runs again.

In the stand-in an object moves by one pixel per call.
"""

import pytest
from conftest import (
    LABELS,
    MASK,
    POLYGON,
    frame_picture,
    keyframe,
    shape,
    shifted,
    track,
)  # fmt: skip
from standin_cvat import Fault, StandinJob
from test_action_both_ways import Mover

from cvat_action.job import Job, Label
from cvat_action.journal import Journal, fill
from cvat_action.plan import Options, make_plan, plan_as_json
from cvat_action.shape_results import result_shape
from cvat_action.snapshot import Snapshot, take_snapshot
from cvat_action.tracking import Corrected, Tracked, TrackedObject
from cvat_action.tracking import track as track_frames

TRACK = ("track", "--job", 42, "--frame")
CONVERT = "--convert-polygon-shapes-to-tracks"
SIZE = (640, 48)


def mask(left):
    return [0, 3, 1, 4, left, 20, left + 3, 21]


def left_edges(job):
    """(frame, left edge, source) of each mask, in order."""
    return sorted((s["frame"], s["points"][-4], s["source"]) for s in job.shapes)


@pytest.fixture
def long_job(cvat):
    pictures = [frame_picture(n, SIZE) for n in range(256)]
    job = StandinJob(pictures, [SIZE], LABELS, start_frame=0, stop_frame=255)
    return cvat.add_job(job)


def drawn_in_the_middle(act, job):
    """Drawn on frame 12 and tracked from there to 14 and back to 10."""
    job.shapes = [shape("mask", MASK, id=900, frame=12)]
    assert act(*TRACK, 12, "--target-frame", 14).code == 0
    assert act(*TRACK, 12, "--target-frame", 10, "--backward").code == 0


def test_a_run_over_the_frame_that_the_object_was_drawn_on_starts_again_from_there(act, cvat, job):
    drawn_in_the_middle(act, job)
    ten = next(s for s in job.shapes if s["frame"] == 10)
    ten["points"], ten["source"] = mask(14), "semi-auto"
    assert act(*TRACK, 10, "--target-frame", 14, "--replace").code == 0
    assert left_edges(job) == [
        (10, 14, "semi-auto"), (11, 15, "auto"),
        (12, 4, "manual"), (13, 5, "auto"), (14, 6, "auto"),
    ]  # fmt: skip


def test_a_correction_goes_backwards_over_what_the_object_was_drawn_as(act, cvat, job):
    job.shapes = [shape("mask", MASK, id=900)]
    assert act(*TRACK, 10, "--target-frame", 13).code == 0
    twelve = next(s for s in job.shapes if s["frame"] == 12)
    twelve["points"], twelve["source"] = mask(20), "semi-auto"
    back = (*TRACK, 12, "--target-frame", 10, "--backward", "--object", twelve["id"])
    assert act(*back, "--replace").code == 0
    assert [edge for edge in left_edges(job) if edge[0] == 10] == [(10, 4, "manual")]


def test_all_seeds_take_an_object_and_what_it_was_drawn_as_for_one(act, cvat, job):
    drawn_in_the_middle(act, job)
    assert act(*TRACK, 10, "--target-frame", 14, "--replace", "--all-seeds").code == 0
    assert [frame for frame, _, _ in left_edges(job)] == [10, 11, 12, 13, 14]


@pytest.mark.slow
def test_both_ways_goes_on_from_what_was_drawn_on_frames_that_are_done(act, cvat, long_job):
    def draw():
        long_job.shapes = [
            shape("mask", mask(300), id=900, frame=0, group=3),
            shape("mask", mask(10), id=1050, frame=150, group=3),
        ]

    both_ways = (*TRACK, 0, "--target-frame", 240, "--object", 900, "--both-ways")
    draw()
    assert act(*both_ways).code == 0
    whole = left_edges(long_job)
    draw()
    cvat.faults = [Fault("PATCH", ".*", 503, "away", times=1)]  # the first 200 are not written
    ended = act(*both_ways, "--wait", 0)
    assert ended.code == 4
    assert "200 of 240 frames are tracked, and not all of it is written." in ended.log
    cvat.faults = []
    assert act("track", "--resume", ended.log.split("--resume ")[-1].split()[0]).code == 0
    assert left_edges(long_job) == whole


def test_both_ways_one_object_that_cannot_be_tracked_leaves_the_others_alone(
    act, cvat, job, function
):
    high, low = [0, 3, 1, 4, 4, 5, 7, 6], [0, 3, 1, 4, 8, 5, 11, 6]
    job.shapes = [
        *(shape("mask", MASK, id=900 + n, frame=f, group=1) for n, f in enumerate((10, 14))),
        shape("mask", high, id=910, group=2),
        shape("mask", low, id=911, frame=16, group=2),
    ]
    function.errors[20, 12] = [{"code": "state_gone", "message": "It is not known."}] * 9
    done = act(*TRACK, 10, "--target-frame", 18, "--both-ways")
    assert done.code == 3
    assert "lost its state twice on frame 12" in done.out
    other = sorted(s["frame"] for s in job.shapes if s["points"][-3] == 5)
    assert other == list(range(10, 19))


def test_a_seed_that_is_deleted_meanwhile_leaves_its_earlier_results_alone(
    act, cvat, job, function
):
    job.shapes = [shape("mask", MASK, id=900)]
    assert act(*TRACK, 10, "--target-frame", 13).code == 0
    before = [s for s in job.shapes if s["id"] != 900]

    def delete(frame, count):
        job.shapes = [s for s in job.shapes if s["id"] != 900]

    function.answers[20, 12] = {"type": "mask", "points": mask(9)}
    function.refuse = delete
    again = act(*TRACK, 10, "--target-frame", 13, "--replace")
    assert "deleted in CVAT while it was tracked" in again.out
    assert job.shapes == before


def test_from_a_box_that_was_turned_the_object_goes_on_in_the_box_around_it(
    act, cvat, job, function
):
    job.shapes = [shape("rectangle", [10.0, 10.0, 40.0, 16.0], id=900)]
    assert act(*TRACK, 10, "--target-frame", 13).code == 0
    turned = next(s for s in job.shapes if s["frame"] == 12)
    turned["rotation"], turned["source"] = 90.0, "semi-auto"
    as_turned = dict(turned)
    function.bodies.clear()
    assert act(*TRACK, 10, "--target-frame", 13, "--replace").code == 0
    prompts = [s["points"] for body in function.bodies for s in body["shapes"] if s]
    assert pytest.approx([24.0, -2.0, 30.0, 28.0]) in prompts  # the tracked box moved by 2
    assert as_turned in job.shapes


def test_nothing_is_written_in_the_place_of_a_drawing_that_is_turned(act, cvat, job):
    """Of two objects, so that neither takes it for its own."""
    turned = {"frame": 12, "rotation": 45.0, "source": "manual", "id": 902}
    job.shapes = [
        shape("rectangle", [4.0, 20.0, 12.0, 28.0], id=900),
        shape("rectangle", [60.0, 20.0, 68.0, 28.0], id=901),
        shape("rectangle", [4.85, 23.5, 15.15, 24.5], **turned),
    ]
    assert act(*TRACK, 10, "--target-frame", 13).code == 3
    assert [round(s["points"][0]) for s in job.shapes if s["frame"] == 12] == [5, 62]


def test_the_box_of_a_keyframe_that_was_turned_is_upright_too(act, cvat, job, function):
    box = [10.0, 10.0, 40.0, 16.0]
    turned = keyframe(12, box, type="rectangle", rotation=90.0)
    job.tracks = [track(keyframe(10, box, type="rectangle"), turned, id=5)]
    assert act(*TRACK, 10, "--target-frame", 13).code == 0
    prompts = [s["points"] for body in function.bodies for s in body["shapes"] if s]
    assert pytest.approx([22.0, -2.0, 28.0, 28.0]) in prompts
    kept = next(k for k in job.tracks[0]["shapes"] if k["frame"] == 12)
    assert (kept["points"], kept["rotation"]) == (box, 90.0)


@pytest.mark.parametrize("target", [100, 240])
def test_a_track_that_ends_on_a_drawn_frame_is_closed_however_long_it_is(
    act, cvat, long_job, target
):
    long_job.shapes = [
        shape("polygon", POLYGON, id=900, frame=0, group=3),
        shape("polygon", shifted(POLYGON, 5), id=901, frame=target, group=3),
    ]
    run = (*TRACK, 0, "--target-frame", target, "--object", 900, "--keyframes", CONVERT)
    assert act(*run).code == 0
    last, end = long_job.tracks[0]["shapes"][-2:]
    assert [(k["frame"], k["outside"]) for k in (last, end)] == [
        (target, False),
        (target + 1, True),
    ]


def stepping(folder):
    """A plan of one mask from frame 0 to 8, and its journal."""
    job = Job(1, 1, 0, 10, (Label(7, "car"),), (SIZE,))
    seed = shape("mask", mask(100), id=5, frame=0)
    plan = make_plan(job, take_snapshot([("shapes", seed)], lambda s: True), Options(0, 8))
    return job, seed, plan, Journal.begin(folder / "journal", plan_as_json(plan))


def test_what_is_drawn_while_stepping_is_a_persons_in_the_next_run(tmp_path):
    job, seed, plan, journal = stepping(tmp_path)
    journal.close()
    drawn = result_shape(plan, plan.seeds[0], 4, Tracked(mask(300), drawn=True), Snapshot())
    both = [("shapes", s) for s in (seed, {**drawn, "id": 9})]
    again = make_plan(job, take_snapshot(both, lambda s: True), Options(0, 8, replace=True))
    assert [(c.frame, list(c.points)) for c in again.seeds[0].corrections] == [(4, mask(300))]
    assert not any(again.earlier.values())  # nothing of it is to be replaced


def test_what_is_hidden_while_stepping_is_still_hidden_when_the_run_goes_on(tmp_path):
    job, _, plan, journal = stepping(tmp_path)

    def ask(frame, objects):
        return [Corrected(0, None)] if frame == 3 else None

    def keep(frame):
        journal.frame(frame, objects)
        if frame == 5:
            raise KeyboardInterrupt

    objects = [TrackedObject(s) for s in plan.seeds]
    track_frames(Mover(), job, objects, plan.frames, on_frame=ask, keep=keep)
    journal.close()
    journal, record = Journal.go_on(tmp_path / "journal")
    objects = [TrackedObject(s) for s in plan.seeds]
    record.states = [None] * len(record.states)  # as without a server
    fill(record, tmp_path / "journal", objects, TrackedObject)
    track_frames(Mover(), job, objects, plan.frames[len(record.done) :])
    journal.close()
    assert {f for f, t in objects[0].frames.items() if t.points is not None} == {1, 2}
