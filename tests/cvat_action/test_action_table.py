# SPDX-License-Identifier: MIT
"""Every row of the table at the top of cvat_action/results.py, through a server."""

import json

import pytest
from conftest import (
    COLOUR,
    MASK,
    MOVING,
    POLYGON,
    RECTANGLE,
    automatic,
    keyframe,
    shape,
    shifted,
    track,
)
from result_cases import CASES, outcome

from cvat_action.errors import ActionError
from cvat_action.job import Job, Label
from cvat_action.plan import Options, Plan
from cvat_action.results import Written
from cvat_action.selection import Seed
from cvat_action.snapshot import take_snapshot
from cvat_action.track_results import tracks_to_update
from cvat_action.tracking import Tracked, TrackedObject

CONVERT = "--convert-polygon-shapes-to-tracks"
TO_13 = ("track", "--job", 42, "--frame", 10, "--target-frame", 13)


def keyframes_of(t):
    """(frame, points or None where outside) of a track, without the digits of signatures."""
    return [(k["frame"], None if k["outside"] else whole(k["points"])) for k in t["shapes"]]


def whole(points):
    return [float(round(p)) for p in points]


def test_a_mask_shape_gives_a_mask_shape_per_frame_and_is_kept(cvat, job, act):
    seed = shape(
        "mask", MASK, group=3, z_order=2, occluded=True, attributes=[COLOUR, MOVING], id=900
    )
    job.shapes = [seed]
    for arguments in (TO_13, (*TO_13, CONVERT, "--replace")):
        assert act(*arguments).code == 0
        assert seed in job.shapes
        new = [s for s in job.shapes if s is not seed]
        assert [s["frame"] for s in new] == [11, 12, 13]
        assert [s["points"][-4:] for s in new] == [
            [5, 20, 8, 21], [6, 20, 9, 21], [7, 20, 10, 21],
        ]  # fmt: skip
        for s in new:
            assert (s["type"], s["label_id"], s["group"], s["z_order"]) == ("mask", 7, 3, 2)
            assert (s["occluded"], s["outside"], s["source"], s["rotation"]) == (
                True,
                False,
                "auto",
                0,
            )
            assert s["attributes"] == [COLOUR, MOVING]
        assert job.tracks == []


def test_a_polygon_shape_gives_polygon_shapes_and_is_kept(cvat, job, act):
    job.shapes = [shape("polygon", POLYGON, id=900, group=4)]
    assert act(*TO_13).code == 0
    assert [(s["frame"], s["points"]) for s in job.shapes] == [
        (10, POLYGON), *((10 + i, shifted(POLYGON, i)) for i in (1, 2, 3)),
    ]  # fmt: skip
    assert job.shapes[1]["group"] == 4
    assert job.tracks == []


def test_a_converted_polygon_becomes_a_closed_track_with_its_attributes_split(cvat, job, act):
    job.shapes = [
        shape("polygon", POLYGON, id=900, group=4, z_order=5, attributes=[COLOUR, MOVING])
    ]
    assert act(*TO_13, CONVERT).code == 0
    assert job.shapes == []
    (t,) = job.tracks
    assert (t["frame"], t["group"], t["source"], t["label_id"]) == (10, 4, "auto", 7)
    assert keyframes_of(t) == [
        (10, POLYGON), *((10 + i, shifted(POLYGON, i)) for i in (1, 2, 3)), (14, None),
    ]  # fmt: skip
    assert whole(t["shapes"][-1]["points"]) == shifted(POLYGON, 3)
    assert t["attributes"] == [COLOUR]
    assert [k["attributes"] for k in t["shapes"]] == [[MOVING], [], [], [], []]
    assert {k["z_order"] for k in t["shapes"]} == {5}


def test_leave_open_and_the_end_of_the_job_close_nothing(cvat, job, act):
    job.shapes = [shape("polygon", POLYGON, id=900)]
    assert act(*TO_13, CONVERT, "--leave-open").code == 0
    assert [f for f, _ in keyframes_of(job.tracks[0])] == [10, 11, 12, 13]

    job.shapes, job.tracks = [shape("polygon", POLYGON, id=901)], []
    assert act("track", "--job", 42, "--frame", 10, CONVERT).code == 0
    assert [f for f, _ in keyframes_of(job.tracks[0])] == list(range(10, 30))


def test_a_polygon_track_gets_its_start_and_results_and_keeps_later_keyframes(cvat, job, act):
    other = shifted(POLYGON, 8)
    job.tracks = [
        track(
            keyframe(8, POLYGON, attributes=[MOVING], z_order=3, occluded=True),
            keyframe(12, other, occluded=True, z_order=3, id=77),
            keyframe(20, other, id=78),
            id=5,
            group=2,
            attributes=[COLOUR],
        )
    ]
    assert act(*TO_13).code == 0
    (t,) = job.tracks
    start = shifted(POLYGON, 4)  # half way from frame 8 to frame 12
    assert keyframes_of(t) == [
        (8, POLYGON), (10, start), (11, shifted(start, 1)),
        (12, other), (13, shifted(other, 1)), (20, other),
    ]  # fmt: skip
    assert (t["id"], t["group"], t["attributes"], t["frame"]) == (5, 2, [COLOUR], 8)
    assert t["shapes"][0]["attributes"] == [MOVING]
    assert all(k["occluded"] and k["z_order"] == 3 for k in t["shapes"][:-1])
    sent = cvat.calls("PATCH", ".*")[0]["tracks"][0]
    assert all("id" not in k for k in sent["shapes"])


def test_a_track_without_later_keyframes_is_closed(cvat, job, act):
    job.tracks = [track(keyframe(10, POLYGON), id=5)]
    assert act(*TO_13).code == 0
    assert keyframes_of(job.tracks[0])[-1] == (14, None)


def test_rectangles_stay_what_they_are(cvat, job, act):
    job.shapes = [shape("rectangle", RECTANGLE, id=900)]
    job.tracks = [track(keyframe(10, shifted(RECTANGLE, 20)[:1] + [40.0, 40.0, 46.0]), id=5)]
    assert act(*TO_13, CONVERT).code == 0
    assert [(s["frame"], s["points"]) for s in job.shapes] == [
        (10 + i, shifted(RECTANGLE, i)) for i in range(4)
    ]
    (t,) = job.tracks
    assert [f for f, _ in keyframes_of(t)] == [10, 11, 12, 13, 14]


def test_all_objects_go_in_one_call_per_frame(cvat, job, act, function):
    job.shapes = [shape("mask", MASK, id=900), shape("rectangle", RECTANGLE, id=901)]
    job.tracks = [track(keyframe(10, POLYGON), id=5)]
    assert act(*TO_13).code == 0
    assert function.calls == [
        ("start", 10, [20, 30, 2]), *(("step", f, [20, 30, 2]) for f in (11, 12, 13)),
    ]  # fmt: skip


def test_a_lost_object_leaves_no_shape_and_comes_back(cvat, job, act, function):
    job.shapes = [shape("mask", MASK, id=900), shape("rectangle", RECTANGLE, id=901)]
    function.lost = {(20, 11), (20, 12), (30, 12)}
    assert act(*TO_13).code == 0
    frames = {
        k: sorted(s["frame"] for s in job.shapes if s["type"] == k) for k in ("mask", "rectangle")
    }
    assert frames == {"mask": [10, 13], "rectangle": [10, 11, 13]}


def test_a_lost_track_has_one_outside_keyframe_per_gap(cvat, job, act, function):
    job.tracks = [track(keyframe(10, POLYGON), automatic(14, POLYGON), id=5)]
    function.lost = {(2, 12), (2, 13), (2, 14), (2, 16)}
    assert act("track", "--job", 42, "--frame", 10, "--target-frame", 16).code == 0
    assert keyframes_of(job.tracks[0]) == [
        (10, POLYGON), (11, shifted(POLYGON, 1)), (12, None), (15, shifted(POLYGON, 5)), (16, None),
    ]  # fmt: skip
    assert whole(job.tracks[0]["shapes"][2]["points"]) == shifted(POLYGON, 1)


def test_a_polygon_lost_on_the_first_frame_is_outside_with_the_seeds_points(
    cvat, job, act, function
):
    job.shapes = [shape("polygon", POLYGON, id=900)]
    function.lost = {(2, 11)}
    assert act(*TO_13, CONVERT).code == 0
    t = job.tracks[0]
    assert keyframes_of(t)[:3] == [(10, POLYGON), (11, None), (12, shifted(POLYGON, 2))]
    assert whole(t["shapes"][1]["points"]) == POLYGON


def test_deleted_frames_are_neither_called_nor_written(cvat, job, act, function):
    job.deleted_frames = [11, 14]
    job.shapes = [shape("mask", MASK, id=900), shape("polygon", POLYGON, id=901)]
    assert act(*TO_13, CONVERT).code == 0
    assert [f for _, f, _ in function.calls] == [10, 12, 13]
    assert [s["frame"] for s in job.shapes] == [10, 12, 13]
    assert [f for f, _ in keyframes_of(job.tracks[0])] == [10, 12, 13, 15]


def test_a_keyframe_on_a_deleted_frame_does_not_count(cvat, job, act):
    job.deleted_frames = [9, 20]
    job.tracks = [
        track(keyframe(8, POLYGON), keyframe(9, shifted(POLYGON, 9)), keyframe(20, POLYGON), id=5)
    ]
    assert act(*TO_13).code == 0
    assert (10, POLYGON) in keyframes_of(job.tracks[0])
    assert (14, None) in keyframes_of(job.tracks[0])


def test_backward_converts_into_a_track_closed_after_its_start(cvat, job, act, function):
    job.shapes = [shape("polygon", POLYGON, id=900, attributes=[MOVING])]
    arguments = ("track", "--job", 42, "--frame", 10, "--target-frame", 7, CONVERT)
    refused = act(*arguments)
    assert refused.code == 1
    assert "--backward" in refused.log
    function.lost = {(2, 7)}
    assert act(*arguments, "--backward").code == 0
    (t,) = job.tracks
    assert keyframes_of(t) == [
        (8, shifted(POLYGON, 2)), (9, shifted(POLYGON, 1)), (10, POLYGON), (11, None),
    ]  # fmt: skip
    assert t["frame"] == 8
    assert t["shapes"][0]["attributes"] == [MOVING]


def test_backward_extends_a_track_to_the_front_with_its_attributes(cvat, job, act):
    job.tracks = [track(keyframe(10, POLYGON, attributes=[MOVING]), id=5)]
    assert act("track", "--job", 42, "--frame", 12, "--target-frame", 9, "--backward").code == 0
    (t,) = job.tracks
    assert keyframes_of(t) == [
        (9, shifted(POLYGON, 1)), (10, POLYGON), (11, shifted(POLYGON, 1)), (12, POLYGON),
    ]  # fmt: skip
    assert t["frame"] == 9
    assert [k["attributes"] for k in t["shapes"]] == [[MOVING], [MOVING], [], []]


def test_attributes_of_overwritten_keyframes_hold_from_the_same_frame_on(cvat, job, act, function):
    still = {"spec_id": 32, "value": "false"}
    job.tracks = [
        track(
            keyframe(10, POLYGON, attributes=[MOVING]),
            automatic(12, POLYGON, attributes=[still]),
            keyframe(20, POLYGON),
            id=5,
        )
    ]
    function.lost = {(2, 11), (2, 12), (2, 13)}
    assert act(*TO_13).code == 0
    assert [(k["frame"], k["attributes"]) for k in job.tracks[0]["shapes"]] == [
        (10, [MOVING]), (11, []), (14, [still]), (20, []),
    ]  # fmt: skip


def test_occluded_and_z_order_of_a_track_hold_as_before(cvat, job, act):
    job.tracks = [
        track(
            keyframe(10, POLYGON, z_order=1),
            keyframe(12, POLYGON, occluded=True, z_order=2),
            id=5,
        )
    ]
    assert act(*TO_13).code == 0
    assert [(k["occluded"], k["z_order"]) for k in job.tracks[0]["shapes"]] == [
        (False, 1), (False, 1), (True, 2), (True, 2), (True, 2),
    ]  # fmt: skip


def test_running_a_track_twice_changes_nothing(cvat, job, act):
    job.tracks = [track(keyframe(10, POLYGON), id=5)]
    assert act(*TO_13).code == 0
    first = [k | {"id": 0} for k in job.tracks[0]["shapes"]]
    assert act(*TO_13).code == 0
    assert [k | {"id": 0} for k in job.tracks[0]["shapes"]] == first
    assert len(job.tracks) == 1


def test_frame_step_and_job_range_count_relative_frames(cvat, job, act, function):
    job.source_start, job.frame_step, job.source = 4, 2, job.source * 3
    job.start_frame, job.stop_frame = 5, 12
    job.shapes = [shape("polygon", POLYGON, id=900)]
    assert act("track", "--job", 42, "--frame", 10, CONVERT).code == 0
    # relative frame 10 is source frame 4 + 2 * 10
    assert [f for _, f, _ in function.calls] == [24, 26, 28]
    assert [f for f, _ in keyframes_of(job.tracks[0])] == [10, 11, 12]


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
