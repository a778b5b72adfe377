# SPDX-License-Identifier: MIT
"""Every row of the table at the top of cvat_action/results.py, through a server."""

import json

import pytest
from conftest import COLOUR, CONVERT, MOVING
from look import course, frames_of
from result_cases import CASES, outcome
from wire import MASK, POLYGON, RECTANGLE, automatic, keyframe, shape, shifted, track

from cvat_action.errors import ActionError
from cvat_action.job import Job, Label
from cvat_action.plan import Options, Plan
from cvat_action.results import Written
from cvat_action.seeds import Seed
from cvat_action.snapshot import take_snapshot
from cvat_action.track_results import tracks_to_update
from cvat_action.tracked import Tracked, TrackedObject


@pytest.mark.parametrize("options", [(), (CONVERT, "--replace")], ids=["plain", "convert"])
def test_a_mask_gives_a_mask_per_frame_and_is_kept(job, track_to, options):
    said = {"group": 3, "z_order": 2, "occluded": True, "attributes": [COLOUR, MOVING]}
    seed = shape("mask", MASK, id=900, **said)
    job.shapes = [seed]
    track_to(13, *options)
    assert job.shapes[0] == seed
    new = job.shapes[1:]
    assert [(s["frame"], s["points"][-4:]) for s in new] == [
        (11, [5, 20, 8, 21]), (12, [6, 20, 9, 21]), (13, [7, 20, 10, 21]),
    ]  # fmt: skip
    said |= {"type": "mask", "label_id": 7, "outside": False, "source": "auto", "rotation": 0}
    assert all({name: s[name] for name in said} == said for s in new)
    assert job.tracks == []


@pytest.mark.parametrize(
    ("kind", "points", "options"),
    [("polygon", POLYGON, ()), ("rectangle", RECTANGLE, ()), ("rectangle", RECTANGLE, (CONVERT,))],
)
def test_a_polygon_and_a_rectangle_stay_what_they_are(job, track_to, kind, points, options):
    job.shapes = [shape(kind, points, id=900, group=4)]
    job.tracks = [track(keyframe(10, [24.0, 40.0, 40.0, 46.0]), id=5)]
    track_to(13, *options)
    assert [(s["type"], s["frame"], s["points"], s["group"]) for s in job.shapes] == [
        (kind, 10 + i, shifted(points, i), 4) for i in range(4)
    ]
    assert [frames_of(t["shapes"]) for t in job.tracks] == [[10, 11, 12, 13, 14]]


@pytest.mark.parametrize(
    ("target", "options", "lost", "becomes"),
    [
        (13, [], [], "10:0 11:1 12:2 13:3 (14:3)"),
        (13, ["--leave-open"], [], "10:0 11:1 12:2 13:3"),
        (29, [], [], " ".join(f"{10 + n}:{n}" for n in range(20))),  # the end of the job
        (13, [], [11], "10:0 (11:0) 12:2 13:3 (14:3)"),
        (7, [], [7], "8:2 9:1 10:0 (11:0)"),
    ],
)
def test_where_a_converted_polygon_begins_and_ends_and_what_it_keeps(
    job, track_to, function, target, options, lost, becomes
):
    said = {"group": 4, "z_order": 5, "attributes": [COLOUR, MOVING]}
    job.shapes = [shape("polygon", POLYGON, id=900, **said)]
    function.lost = {(2, frame) for frame in lost}
    track_to(target, CONVERT, *options)
    assert job.shapes == []
    (t,) = job.tracks
    assert course(t) == becomes
    first, *others = t["shapes"]
    about = (t["frame"], t["group"], t["source"], t["label_id"], t["attributes"])
    assert about == (first["frame"], 4, "auto", 7, [COLOUR])
    assert first["attributes"] == [MOVING]
    assert not any(k["attributes"] for k in others if k["frame"] != 10)  # where it was drawn
    assert {k["z_order"] for k in t["shapes"]} == {5}


def test_a_polygon_track_gets_its_start_and_results_and_keeps_later_keyframes(cvat, job, track_to):
    first = keyframe(8, POLYGON, attributes=[MOVING], z_order=3, occluded=True)
    drawn = keyframe(12, shifted(POLYGON, 8), z_order=3, occluded=True, id=77)
    last = keyframe(20, shifted(POLYGON, 8), id=78)
    job.tracks = [track(first, drawn, last, id=5, group=2, attributes=[COLOUR])]
    track_to(13)
    (t,) = job.tracks
    # frame 10 is half way from frame 8 to frame 12
    assert course(t) == "8:0 10:4 11:5 12:8 13:9 20:8"
    assert (t["id"], t["group"], t["attributes"], t["frame"]) == (5, 2, [COLOUR], 8)
    assert t["shapes"][0]["attributes"] == [MOVING]
    assert all(k["occluded"] and k["z_order"] == 3 for k in t["shapes"][:-1])
    sent = cvat.calls("PATCH", ".*")[0]["tracks"][0]
    assert all("id" not in k for k in sent["shapes"])


def test_a_lost_track_has_one_outside_keyframe_per_gap(job, track_to, function):
    job.tracks = [track(keyframe(10, POLYGON), automatic(14, POLYGON), id=5)]
    function.lost = {(2, 12), (2, 13), (2, 14), (2, 16)}
    track_to(16)
    assert course(job.tracks[0]) == "10:0 11:1 (12:1) 15:5 (16:5)"


def test_a_lost_object_leaves_no_shape_and_comes_back(job, track_to, function):
    job.shapes = [shape("mask", MASK, id=900), shape("rectangle", RECTANGLE, id=901)]
    function.lost = {(20, 11), (20, 12), (30, 12)}
    track_to(13)
    frames = {
        kind: frames_of(s for s in job.shapes if s["type"] == kind)
        for kind in ("mask", "rectangle")
    }
    assert frames == {"mask": [10, 13], "rectangle": [10, 11, 13]}


def test_deleted_frames_are_neither_called_nor_written(job, track_to, function):
    job.deleted_frames = [11, 14]
    job.shapes = [shape("mask", MASK, id=900), shape("polygon", POLYGON, id=901)]
    track_to(13, CONVERT)
    assert [f for _, f, _ in function.calls] == [10, 12, 13]
    assert frames_of(job.shapes) == [10, 12, 13]
    assert frames_of(job.tracks[0]["shapes"]) == [10, 12, 13, 15]


@pytest.mark.parametrize("target", [10, 12])
def test_where_no_frame_is_left_to_track_it_says_so(job, track_to, one_mask, function, target):
    job.deleted_frames = [11, 12]
    done = track_to(target, "--json")
    assert "Nothing to do: there is no frame to track after frame 10." in done.log
    assert done.json == {"job": 42, "frames": [], "complete": True, "written": {}}
    assert function.calls == []


def test_frame_step_and_job_range_count_relative_frames(job, act, function, one_polygon):
    job.source_start, job.frame_step, job.source = 4, 2, job.source * 3
    job.stop_frame = 12
    act("track", "--job", 42, "--frame", 10, CONVERT)
    # relative frame 10 is source frame 4 + 2 * 10
    assert [f for _, f, _ in function.calls] == [24, 26, 28]
    assert frames_of(job.tracks[0]["shapes"]) == [10, 11, 12]


def test_a_rectangle_that_clamping_empties_is_not_written(job, track_to, function):
    job.shapes = [shape("rectangle", RECTANGLE, id=900), shape("mask", MASK, id=901)]
    function.answers = {(30, 12): {"type": "rectangle", "points": [-8.0, 30.0, 0.0, 38.0]}}
    done = track_to(13, code=3)
    assert "a rectangle smaller than a pixel inside the image on frame 12" in done.log
    assert frames_of(s for s in job.shapes if s["type"] == "rectangle") == [10, 11]


def test_a_polygon_takes_over_the_start_and_direction_of_the_drawn_one(job, track_to, function):
    drawn = [4.0, 2.0, 8.0, 2.0, 12.0, 5.0, 12.0, 8.0, 8.0, 10.0, 4.0, 8.0]
    turned = shifted(drawn, 1)
    function.answers[2, 11] = {"type": "polygon", "points": turned[4:] + turned[:4]}
    backwards = [v for i in (5, 4, 3, 2, 1, 0) for v in turned[2 * i : 2 * i + 2]]
    function.answers[2, 12] = {"type": "polygon", "points": shifted(backwards, 1)}
    job.shapes = [shape("polygon", drawn, id=900)]
    track_to(12)
    assert [s["points"] for s in job.shapes] == [shifted(drawn, n) for n in range(3)]


@pytest.mark.parametrize(
    ("options", "tolerances"),
    [
        (["--tolerance", 0.05], [0.05, 0.05]),
        (["--sparse"], [None, 0.0]),  # only tracks have keyframes to leave out
        ([], [None, None]),
    ],
)
def test_the_tolerance_goes_to_the_function(
    job, track_to, one_polygon, function, options, tolerances
):
    job.tracks = [track(keyframe(10, shifted(POLYGON, 20)), id=5)]
    track_to(11, *options)
    assert [s.get("tolerance") for s in function.bodies[0]["shapes"]] == tolerances


def test_a_track_of_masks_is_never_written():
    seed_track = track({**keyframe(10, []), "type": "mask", "points": MASK}, id=5)
    seed = Seed("track:5", "mask", 10, tuple(MASK), seed_track, False, 0)
    job = Job(42, 7, 5, 29, (Label(7, "car"),), ((64, 48),))
    tracked = TrackedObject(seed, {11: Tracked(tuple(MASK))})
    plan = Plan("", job, "", Options(10), (11,), (seed,), 0, (0, 5))
    snapshot = take_snapshot([("tracks", seed_track)], lambda shape: True)
    with pytest.raises(ActionError, match="track of masks"):
        list(tracks_to_update(plan, [tracked], [11], snapshot, Written()))


@pytest.mark.parametrize("case", json.loads(CASES.read_text()), ids=lambda case: case["why"])
def test_what_a_run_makes_of_a_track(case):
    """The plugin makes the same of it."""
    assert outcome(case) == case["becomes"]
