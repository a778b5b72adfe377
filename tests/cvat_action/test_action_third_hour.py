# SPDX-License-Identifier: MIT
"""What was passed over without a word, and runs that one object ended for all."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import LABELS, MASK, POLYGON, RECTANGLE, keyframe, shape, shifted, track
from standin_cvat import Fault, StandinFunction
from standin_detector import ScriptedDetector
from test_action_newcomers import found

from cvat_action.journal import name_of_path
from cvat_action.server import OUR_DESCRIPTION

ROOT = Path(__file__).parents[2]
TRACK = ("track", "--job", 42, "--frame")
BOTH_WAYS = (*TRACK, 10, "--target-frame", 24, "--both-ways")
EMPTY = {"code": "empty_shape", "message": "The shape covers no pixel."}


def frames_of(shapes):
    return sorted(s["frame"] for s in shapes)


# --- one object that is refused ------------------------------------------------------------------


@pytest.fixture
def corrected(job, function):
    """Two tracks, of which a person drew one again on frame 13, where it covers no pixel."""
    lower = [4.0, 20.0, 10.0, 20.0, 10.0, 26.0, 4.0, 26.0]
    job.tracks = [
        track(keyframe(10, POLYGON), keyframe(13, shifted(POLYGON, 3)), id=1),
        track(keyframe(10, lower), id=2),
    ]
    return job


def refuse_the_drawing(function, frame):
    """The upper polygon can be stepped to this frame, but not be drawn on it."""
    answer = function.answer

    def answer_or_refuse(request):
        shapes = request["shapes"]
        if shapes and all(s and s["points"][1] == 2 for s in shapes):
            function.errors[2, frame] = [EMPTY]
        answered = answer(request)
        function.errors.clear()
        return answered

    function.answer = answer_or_refuse


def test_one_correction_that_covers_no_pixel_does_not_end_the_run_for_others(
    act, corrected, function
):
    refuse_the_drawing(function, 13)
    done = act(*TRACK, 10, "--target-frame", 16)
    assert done.code == 3
    assert "not started on frame 13: The function refused it" in done.out
    held = {t["id"]: frames_of(t["shapes"]) for t in corrected.tracks}
    assert held[2] == [10, 11, 12, 13, 14, 15, 16, 17]
    assert 13 in held[1]


def test_a_correction_that_cannot_be_joined_starts_the_object_anew(act, corrected, function):
    function.errors[2, 13] = [{"code": "too_many_keyframes", "message": "It holds 8 already."}]
    assert act(*TRACK, 10, "--target-frame", 16).code == 0
    assert ("start", 13, [2]) in function.calls
    assert frames_of(corrected.tracks[0]["shapes"]) == [10, 11, 12, 13, 14, 15, 16, 17]


def test_a_late_drawing_that_covers_no_pixel_does_not_end_the_run(act, job, function):
    job.shapes = [shape("mask", MASK, id=900), shape("polygon", POLYGON, id=901, frame=13)]
    refuse_the_drawing(function, 13)
    done = act(*TRACK, 10, "--target-frame", 16, "--all-seeds")
    assert done.code == 3
    assert frames_of(s for s in job.shapes if s["type"] == "mask") == list(range(10, 17))


def test_the_only_object_that_is_refused_may_be_refused_for_its_picture(act, job, function):
    job.shapes = [shape("mask", MASK, id=900)]
    function.refuse = lambda frame, count: 400
    ended = act(*TRACK, 10, "--target-frame", 16)
    assert ended.code == 1
    assert "picture of this frame cannot be decoded" in ended.log


def test_both_ways_a_lone_drawing_that_is_refused_leaves_the_rest(act, job, function):
    job.shapes = [
        shape("mask", MASK, id=900 + frame, frame=frame, group=1) for frame in (10, 14, 18)
    ]
    function.errors[20, 14] = [EMPTY]
    done = act(*BOTH_WAYS, "--object", 910)
    assert done.code == 3
    assert "every object was refused" not in done.log
    assert {11, 12, 13, 19, 24} <= set(frames_of(job.shapes))


def test_a_box_that_is_refused_alone_does_not_end_the_run(act, cvat, job, function):
    detector = ScriptedDetector()
    detector.on_frame = {12: [found([30.0, 10.0, 40.0, 20.0])]}
    cvat.functions["det"] = StandinFunction(detector.url, "det", "detector", labels=(LABELS[0],))
    job.shapes = [shape("mask", MASK, id=900)]
    function.errors[10, 12] = [EMPTY]
    find = ("--detect", "det", "--every", 2, "--boxes-to-masks")
    done = act(*TRACK, 10, "--target-frame", 16, *find)
    detector.close()
    assert done.code == 0
    assert "Frame 12: a box gives no mask: The function refused it" in done.log
    assert frames_of(job.shapes) == list(range(10, 17))


# --- functions that are not known ----------------------------------------------------------------


@pytest.fixture
def second(cvat, job, function):
    """Another tracker of the same CVAT; an object is drawn on two frames."""
    cvat.functions["sam2-large"] = StandinFunction(function.url, "sam2-large")
    job.shapes = [
        shape("rectangle", RECTANGLE, id=900, group=3),
        shape("rectangle", shifted(RECTANGLE, 9), id=901, frame=20, group=3),
    ]
    return cvat.functions["sam2-large"]


def test_both_ways_with_a_function_that_cannot_do_it_is_refused(act, job, second):
    refused = act(*BOTH_WAYS, "--function", "sam2-large")
    assert refused.code == 1
    assert "sam2-large is not known as this project's tracker" in refused.log
    assert len(job.shapes) == 2


def test_our_tracker_is_known_by_its_description_under_any_id(act, second, function):
    second.description = OUR_DESCRIPTION
    assert act(*BOTH_WAYS, "--function", "sam2-large", "--object", 900).code == 0
    assert "adopt" in str(function.bodies)


def test_a_function_that_starts_anew_from_corrections_is_told(act, second):
    options = ("--keyframes", "--object", 900, "--function", "sam2-large")
    done = act(*TRACK, 10, *options)
    assert done.code == 0
    assert "starts anew from every correction" in done.log


@pytest.mark.parametrize("name", ["function.yaml", "function-gpu.yaml"])
def test_the_description_is_that_of_the_function(name):
    said = re.findall("(?m)^  description: (.*)$", (ROOT / name).read_text())
    assert said == [OUR_DESCRIPTION]


# --- options that would be passed over -----------------------------------------------------------


def test_a_threshold_for_everything_names_the_parameter(act):
    said = act(*TRACK, 10, "--everything", "--threshold", 0.9)
    assert said.code == 2
    assert "pred_iou_thresh=0.9" in said.log


def test_step_by_step_and_both_ways_contradict_each_other(act):
    files = ("--video", "clip.mp4", "--annotations", "a.json", "--out", "b.json")
    said = act("local", *files, "--step", "--both-ways")
    assert said.code == 2
    assert "--step" in said.log.splitlines()[-1]


# --- what a person hides -------------------------------------------------------------------------


def test_an_object_that_a_person_hid_from_the_first_frame_on_is_told(act, job):
    hidden = keyframe(11, POLYGON, outside=True)
    job.tracks = [track(keyframe(10, POLYGON), hidden, id=5)]
    job.shapes = [shape("mask", MASK, id=900)]
    done = act(*TRACK, 10, "--target-frame", 14)
    assert done.code == 0
    assert "hidden (outside) from frame 11 on" in done.out
    told = {o["object"]: o for o in act(*TRACK, 10, "--replace", "--json").json["objects"]}
    assert (told["track:5"]["hidden_from"], told["900"]["hidden_from"]) == (11, None)


# --- names of journals ---------------------------------------------------------------------------


def test_paths_of_other_letters_have_names_of_their_own():
    tokyo, osaka = (Path(f"/data/{city}/o.json") for city in ("\u6771\u4eac", "\u5927\u962a"))
    others = [Path("/data/a b.json"), Path("/data/a_b.json")]
    assert len({name_of_path(p) for p in (tokyo, osaka, *others)}) == 4
    assert name_of_path(tokyo) == name_of_path(tokyo)
    assert len(name_of_path(Path("/" + "long/" * 100 + "o.json"))) < 120


# --- pictures ------------------------------------------------------------------------------------


def test_a_picture_that_cvat_is_still_making_is_waited_for(act, cvat, job, tmp_path):
    job.shapes = [shape("rectangle", RECTANGLE, id=900)]
    cvat.faults = [Fault("GET", "/api/jobs/42/data/?", 429, skip=1, retry_after="0")]
    sheet = tmp_path / "sheet.png"
    assert act(*TRACK, 10, "--target-frame", 13, "--contact-sheet", sheet).code == 0
    assert sheet.is_file()


def test_the_server_says_how_long_to_wait(act, cvat, job, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr("cvat_action.tracking.time.sleep", waited.append)
    job.shapes = [shape("rectangle", RECTANGLE, id=900)]
    cvat.faults = [Fault("GET", "/api/jobs/42/data/?", 429, retry_after="10")]
    sheet = tmp_path / "sheet.png"
    assert act(*TRACK, 10, "--target-frame", 13, "--contact-sheet", sheet).code == 0
    assert waited[-1] == 10


# --- tasks ---------------------------------------------------------------------------------------


def overlapping(cvat, job, **more):
    """A second job of the task, which holds the frames from 25 on too."""
    start = {"id": 43, "start_frame": 25, "shapes": [], "tracks": []}
    return cvat.add_job(replace(job, **{**start, **more}))


def test_an_overlapping_job_without_an_object_is_passed_over(act, cvat, job):
    job.shapes = [shape("rectangle", RECTANGLE, id=900, frame=26)]
    overlapping(cvat, job)
    done = act("track", "--task", 7, "--frame", 26)
    assert done.code == 0
    assert "Job 43 is passed over" in done.log
    assert frames_of(job.shapes) == [26, 27, 28, 29]


def test_an_overlapping_job_without_the_named_object_is_passed_over(act, cvat, job):
    job.shapes = [shape("rectangle", RECTANGLE, id=900, frame=26)]
    other = overlapping(cvat, job, shapes=[shape("rectangle", RECTANGLE, id=950, frame=26)])
    done = act("track", "--task", 7, "--frame", 26, "--object", 900, "--json")
    assert done.code == 0
    assert [entry["job"] for entry in done.json] == [42, 43]
    assert "There is no object 900" in done.json[1]["passed_over"]
    assert len(other.shapes) == 1


def test_a_task_of_which_no_job_has_an_object_fails(act, cvat, job):
    overlapping(cvat, job)
    done = act("track", "--task", 7, "--frame", 26)
    assert done.code == 1
    assert done.log.count("There is nothing to track on frame 26") == 2


def test_a_job_without_the_label_is_not_passed_over(act, cvat, job):
    job.shapes = [shape("rectangle", RECTANGLE, id=900, frame=26)]
    overlapping(cvat, job, labels=LABELS[1:])
    assert act("track", "--task", 7, "--frame", 26, "--label", "car").code == 1
