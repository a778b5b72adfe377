# SPDX-License-Identifier: MIT
"""`--points`: an object begins where a person clicks, and is written once."""

import pytest
from conftest import CONVERT, objects_of
from look import course, ways
from standin_cvat import Fault
from wire import MASK, POLYGON, shape

from cvat_action.server import OURS

CLICKED = [0, 64, 6, 30, 13, 37]
"""the mask that the tracker finds for clicks whose topmost is at y = 31"""
POINTS = ("--wait", 0, "--points", "car 8,31 9.5,33 -20,40")
SQUARE = {("mask", -4.0, 30.0): list(range(10, 21))}


@pytest.fixture
def clickable(cvat, job, function):
    """Our tracker; each test below has it click on frame 10."""
    cvat.functions[OURS].shape_types = ("mask", "polygon", "rectangle", "points")
    function.answers[31, 10] = {"type": "mask", "points": CLICKED}
    return cvat.functions[OURS]


def test_what_is_clicked_on_is_tracked_written_once_and_taken_back(
    act, job, track_to, function, clickable, receipts
):
    job.shapes = [shape("mask", MASK, id=1)]
    shown = track_to(20, *POINTS, "--dry-run").out
    assert "new:1   car    mask  a mask shape per frame" in shown
    assert len(job.shapes) == 1
    track_to(20, *POINTS)
    assert function.bodies[0]["shapes"] == [
        {"type": "points", "points": [8, 31, 9.5, 33], "neg_points": [[20, 40]], "answer": "mask"}
    ]
    assert ways(job.shapes) == SQUARE | {("mask", -6.0, 20.0): list(range(10, 21))}
    again = track_to(20, *POINTS, "--replace", code=1)
    assert "object 1 (car) is already there on frame 10: object " in again.log
    (receipt,) = receipts()
    act("undo", receipt)
    assert [s["id"] for s in job.shapes] == [1]


@pytest.mark.parametrize("how", ["killed", "lost", "late"])
def test_a_run_that_breaks_writes_what_was_clicked_on_once(
    cvat, job, track_to, resume, function, clickable, how
):
    if how == "killed":
        function.refuse = lambda frame, count: 404 if frame == 18 else None
    else:
        write = r"/api/jobs/\d+/annotations/"
        cvat.faults.append(Fault("PATCH", write, 504, after=how == "late"))
    broken = track_to(20, *POINTS, code=4)
    function.refuse = lambda frame, count: None
    function.answers.clear()  # no click is asked for again
    resume(broken)
    assert ways(job.shapes) == SQUARE


def test_a_polygon_that_is_clicked_on_becomes_a_track(job, track_to, function, clickable):
    function.answers[31, 10] = {"type": "polygon", "points": POLYGON}
    track_to(20, *POINTS, "--points-as", "polygon", CONVERT, "--tolerance", 0.01)
    assert function.bodies[0]["shapes"][0]["tolerance"] == 0.01
    assert course(job.tracks[0]) == " ".join(f"{10 + n}:{n}" for n in range(11)) + " (21:10)"
    assert job.shapes == []


def test_what_a_detector_finds_of_what_is_clicked_on_is_not_doubled(
    job, track_to, clickable, detector
):
    found = {"label": "car", "type": "rectangle", "points": [6.0, 30.0, 14.0, 38.0]}
    detector.on_frame = {10: [found, {**found, "type": "polygon", "points": POLYGON}]}
    result = track_to(20, *POINTS, "--detect", "det", "--json")
    assert {way[0] for way in ways(job.shapes)} == {"mask", "polygon"}
    assert objects_of(result) == ["new:1", "new:2"]


def test_what_a_person_draws_meanwhile_where_was_clicked_stays(job, track_to, function, clickable):
    """It came between the plan and the writing, on two frames."""
    drawn = [shape("rectangle", [n - 4.0, 30.0, n + 4.0, 38.0], id=n, frame=n) for n in (10, 12)]
    function.meanwhile[20] = lambda: job.shapes.extend(drawn)
    track_to(20, *POINTS, code=3)
    masks = ways(s for s in job.shapes if s["type"] == "mask")
    assert masks == {("mask", -4.0, 30.0): [11, *range(13, 21)]}
    assert all(s in job.shapes for s in drawn)


MANY = "car" + " 8,31" * 5000


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (["car 99,5"], "object 1 (car): The click (99, 5) does not lie on the image of 64 x 48"),
        (["car 8,31", "car nan,5"], "object 2 (car): The points must be finite numbers."),
        (["car inf,5"], "The points must be finite numbers."),
        (["car -8,31"], "all clicks have a minus"),
        (["car"], "'car': it ends with no click. Write 'LABEL x,y x,y -x,y'"),
        (["8,31"], "it begins with no label"),
        (["car 8,31,4"], "it ends with no click"),
        ([""], "it ends with no click"),
        (["tram, red 8,31"], "There is no label 'tram, red' in job 42. Its labels: car, person."),
        ([MANY], "5000 clicks on one object; the limit is 64."),
        (["car 8,31", "car 9,31"], "object 2 (car) is already there on frame 10: --points, obj"),
        (["car 8,31", "car 9,7"], "object 2 (car): No such click. Click on more of it"),
        (["car 8,9"], "object 1 (car): the tracker sees nothing there. Click on more of it"),
    ],
)
def test_hostile_clicks_name_what_is_wrong_and_write_nothing(
    job, track_to, function, clickable, points, sentence
):
    function.errors[7, 10] = [{"code": "bad_shape", "message": "No such click."}]
    function.answers[9, 10] = None
    asked = [word for text in points for word in ("--points", text)]
    result = track_to(20, "--wait", 0, *asked, code=1)
    assert sentence in result.log
    assert job.shapes == []


def test_points_are_refused_if_the_tracker_takes_no_clicks(track_to, clickable):
    clickable.shape_types = ("mask",)
    assert "takes no clicks, which --points needs" in track_to(20, *POINTS, code=1).log
    assert "--points-as is for --points" in track_to(20, "--points-as", "mask", code=2).log
