# SPDX-License-Identifier: MIT
"""Faults that were found by reading and provoking the action. Those that other files hold:

3, 7    test_second_writer.py: whatever_happens
6       test_action_selection.py: keyframes_of_shapes_go_by_label (and here)
9       test_action_failures.py: a_journal_of_another_run
10      test_second_writer.py; test_action_selection.py: of_two_runs_at_once
11      test_action_failures.py: a_frame_that_every_object_is_refused_on
12, 23  cvat_ui_plugin/tests: the plugin's
13      test_action_failures.py: a_write_whose_answer_was_lost; test_second_writer.py
14      test_action_formats.py: a_wrong_file_is_named; test_action_end_to_end.py: a_local_run
15      test_action_formats.py: frames_of_a_task, a_source_video, pictures_that_are_not
16      test_action_formats.py: two_images_of_equal_name, a_folder_is_no_video
17      test_action_formats.py: what_was_not_tracked_comes_back
25      test_action_failures.py: ctrl_c
26      test_action_failures.py: a_preview_that_fails, ctrl_c_while_drawing
28      test_action_failures.py: resuming_goes_on_replacing

The numbers of the others stand at the tests below.
"""

import io
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import MASK, POLYGON, RECTANGLE, keyframe, shape, shifted, track
from cvat_sdk.masks import encode_mask
from standin_cvat import Fault

from cvat_action import preview
from cvat_action.job import Job, Label
from cvat_action.selection import Seed
from cvat_action.stepper import Stepper
from cvat_action.tracking import Tracked, TrackedObject
from sam2_tracker.shapes import polygon_to_bitmap

TO_13 = ("track", "--job", 42, "--frame", 10, "--target-frame", 13)


def at(y, **more):
    return shape("mask", [0, 3, 1, 4, 4, y, 7, y + 1], group=y, **more)


def by_object(job):
    return {
        y: sorted((s["frame"], s["id"]) for s in job.shapes if s["group"] == y) for y in (20, 30)
    }


def test_replace_keeps_the_results_of_an_object_that_failed(cvat, job, act, function):  # 1
    job.shapes = [at(20, id=900), at(30, id=901)]
    assert act(*TO_13).code == 0
    before = by_object(job)
    function.errors = {(30, 10): [{"code": "empty_shape", "message": "It is empty."}]}
    assert act(*TO_13, "--replace").code == 3
    assert by_object(job)[30] == before[30]
    assert {frame for frame, _ in by_object(job)[20]} == {10, 11, 12, 13}


@pytest.mark.parametrize("after", [True, False], ids=["carried out", "not carried out"])
def test_a_lost_answer_in_a_rerun_loses_nothing(cvat, job, act, function, after):  # 2
    job.shapes = [at(20, id=900)]
    assert act(*TO_13).code == 0
    before = {s["id"] for s in job.shapes} - {900}
    other = {"type": "mask", "points": [0, 8, 40, 20, 43, 21]}
    function.answers = {(20, frame): other for frame in (11, 12)}
    cvat.faults = [Fault("PATCH", ".*", 503, "busy", after=after)]
    assert act(*TO_13, "--replace").code == 0
    assert sorted(s["frame"] for s in job.shapes) == [10, 11, 12, 13]
    found = {s["frame"]: (s["id"] in before, s["points"][-4]) for s in job.shapes}
    assert found == {10: (False, 4), 11: (False, 40), 12: (False, 40), 13: (True, 7)}


def test_a_first_run_leaves_automatic_shapes_beside_it_alone(cvat, job, act):  # 4
    beside = [at(20, id=f, frame=f, source="auto") for f in (11, 12, 13)]
    for s in beside:
        s["points"] = [0, 3, 1, 4, 40, 20, 43, 21]
    job.shapes = [at(20, id=900), shape("mask", beside[0]["points"], id=901, group=20), *beside]
    assert act(*TO_13, "--object", 900).code == 0
    assert [s for s in job.shapes if s["id"] in (11, 12, 13)] == beside
    assert len(job.shapes) == 5 + 3


def test_over_a_gap_another_objects_shapes_are_not_taken_for_earlier_ones(cvat, job, act):  # 5
    def unmarked(frame, x):
        points = [0, 3, 1, 4, x, 20, x + 3, 21]
        return shape("mask", points, id=100 * x + frame, frame=frame, source="auto")

    earlier = [unmarked(11, 4), unmarked(12, 5), unmarked(13, 40)]  # lost on frame 13
    job.shapes = [shape("mask", MASK, id=900), *earlier]
    asked = act(*TO_13, "--replace")
    assert asked.code == 1
    assert "Frame 13 holds 1 automatic shapes" in asked.log
    assert job.shapes[1:] == earlier


def test_an_object_that_is_not_selected_may_be_meant_by_a_drawing(cvat, job, act):  # 6
    job.shapes = [
        shape("polygon", POLYGON, id=900),
        shape("polygon", shifted(POLYGON, 30), id=901),
        shape("polygon", shifted(POLYGON, 3), id=902, frame=12),
    ]
    convert = "--convert-polygon-shapes-to-tracks"
    done = act(*TO_13, "--object", 900, "--keyframes", convert)
    assert "Frame 12: more than one object could be object 900" in done.log
    assert {901, 902} <= {s["id"] for s in job.shapes}


def test_far_away_a_shape_without_a_group_is_not_taken_for_a_correction(
    cvat, job, act, function
):  # 6
    far = [0, 3, 1, 4, 50, 40, 53, 41]
    job.shapes = [shape("mask", MASK, id=900), shape("mask", far, id=901, frame=12)]
    done = act(*TO_13, "--keyframes")
    assert "may be object 900 or another one" in done.log
    assert [s["points"][-4:] for s in job.shapes if s["frame"] == 13] == [[7, 20, 10, 21]]


def test_a_resume_that_fails_at_once_keeps_its_journal(cvat, job, act, function):  # 8
    job.shapes = [at(20, id=900)]
    function.refuse = lambda frame, count: 503 if frame == 13 else None
    arguments = TO_13
    for _ in range(3):
        ended = act(*arguments, "--wait", 0)
        assert ended.code == 4
        journal = Path(ended.log.split("--resume ")[-1].split()[0])
        assert journal.exists()
        arguments = ("track", "--resume", journal)
    function.refuse = lambda frame, count: None
    assert act("track", "--resume", journal).code == 0
    assert sorted(s["frame"] for s in job.shapes) == [10, 11, 12, 13]


def test_backwards_and_lost_at_the_end_nothing_before_moves(cvat, job, act, function):  # 18
    job.tracks = [track(keyframe(10, POLYGON), keyframe(19, shifted(POLYGON, 18)), id=5)]
    function.lost = {(2, 15)}
    assert act("track", "--job", 42, "--frame", 19, "--target-frame", 15, "--backward").code == 0
    found = {k["frame"]: k for k in job.tracks[0]["shapes"]}
    assert found[15]["outside"]
    assert [round(p) for p in found[15]["points"]] == shifted(POLYGON, 10)


def test_the_contact_sheet_has_the_least_certain_frame():  # 19
    one = Seed("1", "mask", 0, tuple(MASK), {"id": 1}, False, 0)
    results = {
        f: [Tracked(tuple(MASK), 0.16 if (f, n) == (50, 8) else 0.5 + n / 100) for n in range(9)]
        for f in range(1, 90)
    }
    assert 50 in preview._frames_worth_seeing([one] * 9, results)


def test_a_picture_of_many_objects_takes_little_memory():
    box = (10.0, 10.0, 60.0, 60.0)
    seeds = [Seed(str(n), "rectangle", 0, box, {"id": n}, False, 0) for n in range(40)]
    picture = np.zeros((1000, 1000, 3), np.uint8)
    tracemalloc.start()
    drawn = preview.draw(picture, 1, seeds, [Tracked(box, 0.9)] * len(seeds))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert drawn[30, 30].any()
    assert peak < 20 << 20  # one bitmap has 1 MB, the picture 3


def test_what_is_drawn_during_step_is_filled_exactly(tmp_path, monkeypatch):  # 20
    job = Job(1, 1, 0, 9, (Label(1, "thing"),), ((64, 48),))
    media = SimpleNamespace(picture=lambda frame: np.zeros((48, 64, 3), np.uint8))
    seed = Seed("1", "mask", 0, tuple(MASK), {"label_id": 1}, False, 0)
    monkeypatch.setattr("sys.stdin", io.StringIO("c 1 5.4,5.6 20.7,6.2 9.1,18.9\n\n"))
    (drawn,) = Stepper(job, media, tmp_path / "out.json").ask(1, [TrackedObject(seed)])
    ring = [5.4, 5.6, 20.7, 6.2, 9.1, 18.9]
    assert list(drawn.points) == encode_mask(polygon_to_bitmap(ring, width=64, height=48))


def test_a_rectangle_that_clamping_empties_is_not_written(cvat, job, act, function):  # 21
    job.shapes = [shape("rectangle", RECTANGLE, id=900), at(20, id=901)]
    function.answers = {(30, 12): {"type": "rectangle", "points": [-8.0, 30.0, 0.0, 38.0]}}
    done = act(*TO_13)
    assert done.code == 3
    assert "a rectangle smaller than a pixel inside the image on frame 12" in done.log
    assert [s["frame"] for s in job.shapes if s["type"] == "rectangle"] == [10, 11]


def test_flags_of_keyframes_on_deleted_frames_do_not_count(cvat, job, act):  # 22
    job.deleted_frames = [11]
    hidden = keyframe(11, POLYGON, occluded=True, z_order=3)
    job.tracks = [track(keyframe(10, POLYGON), hidden, id=5)]
    assert act(*TO_13).code == 0
    found = {k["frame"]: (k["occluded"], k["z_order"]) for k in job.tracks[0]["shapes"]}
    assert found[12] == found[13] == (False, 0)
    assert found[11] == (True, 3)


def test_dry_run_shows_a_plan_where_an_earlier_run_was(cvat, job, act):  # 24
    job.shapes = [at(20, id=900)]
    assert act(*TO_13).code == 0
    shown = act(*TO_13, "--dry-run")
    assert shown.code == 0
    assert "before it can run: 3 shapes on frames 11 to 13 are an earlier run's" in shown.out


def test_the_summary_ends_with_a_link_and_says_to_reload(cvat, job, act):  # 27
    job.shapes = [at(20, id=900)]
    assert f"{cvat.url}/tasks/7/jobs/42?frame=10\nReload the page" in act(*TO_13).out
