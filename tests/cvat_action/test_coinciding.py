# SPDX-License-Identifier: MIT
"""Objects that end on the same thing: told with the frame to look at."""

from collections import Counter

import pytest
from conftest import CONVERT, recorded
from look import frames_of
from wire import POLYGON, mask_at, shape

from cvat_action.coinciding import coinciding

SAID = (
    "Objects 20 and 30 cover the same thing on {}, first on frame 12. If they are two things, one "
    "went over to the other: look there."
)


OVER = (
    "Object {} covers the same as another automatic shape on {}; that one stays. If both are "
    "one object, delete one of them there."
)


def goes_over(function, frames):
    """Object 30 is found where 20 is."""
    function.answers |= {
        (30, f): {"type": "mask", "points": mask_at(4 + f - 10, 20)} for f in frames
    }


@pytest.mark.parametrize("options", [(), (CONVERT,), ("--both-ways",)])
def test_objects_that_end_on_the_same_thing_are_told(track_to, masks, function, options):
    goes_over(function, (12, 13, 14))
    done = track_to(14, *options, "--json")
    assert SAID.format("3 frames") in done.log
    assert done.json["cover_the_same"] == [{"objects": ["20", "30"], "frames": [12, 13, 14]}]
    assert done.log.count("cover the same thing") == 1


def test_what_was_drawn_on_each_other_belongs_there(job, track_to, masks):
    job.shapes[1]["points"] = mask_at(4, 20)
    assert track_to(14, "--json").json["cover_the_same"] == []


def test_what_was_drawn_nearly_on_each_other_may_come_nearer(job, track_to, function):
    """A rider and a motorcycle as boxes: an IoU of 0.68 where they are drawn, then of 0.72."""
    rider, motorcycle = [10.0, 10.0, 20.0, 20.0], [10.0, 13.2, 20.0, 20.0]
    job.shapes = [
        shape("rectangle", rider, id=1),
        shape("rectangle", motorcycle, id=2, label_id=8),
    ]
    nearer = [13.0, 12.8, 23.0, 20.0]
    function.answers = {(13, 13): {"type": "rectangle", "points": nearer}}
    assert track_to(13, "--json").json["cover_the_same"] == []


def test_objects_whose_drawings_are_there_are_not_told_as_doubled(job, track_to):
    """Two polygons that were drawn on each other, tracked one after the other."""
    beside = [p + 0.3 for p in POLYGON]
    job.shapes = [shape("polygon", POLYGON, id=1), shape("polygon", beside, id=2)]
    track_to(14, "--object", 1)
    done = track_to(14, "--object", 2, "--replace", "--json")
    assert done.json["over_earlier_results"] == []


def test_a_resume_tells_of_the_frames_before_it_too(track_to, cut_off, resume, masks, function):
    goes_over(function, (12, 13, 14))
    ended = cut_off(13, 14)
    assert SAID.format("1 frame") in ended.log
    assert SAID.format("3 frames") in resume(ended).log


def test_the_pairs_on_most_frames_are_told(job, track_to, function):
    job.shapes = [shape("mask", mask_at(4, y), id=y, group=y) for y in range(10, 34, 6)]
    here = {"type": "mask", "points": mask_at(30, 40)}
    function.answers = {(y, f): here for y in range(10, 34, 6) for f in (13, 14)}
    log = track_to(14).log
    assert log.count(" cover the same thing on 2 frames, first on frame 13.") == 5
    assert "And 1 more pair of objects (--json names them)." in log


def test_an_object_that_is_written_over_its_earlier_results_is_told(
    job, track_to, one_mask, function
):
    """Drawn anew and tracked backwards first: nobody can tell whose the results ahead are."""
    track_to(14)
    job.shapes = [{**job.shapes[0], "id": 5000, "points": mask_at(5)}, *job.shapes[1:]]
    track_to(6, "--backward")
    places = {f: {"type": "mask", "points": mask_at(4 + f - 10)} for f in range(11, 15)}
    function.answers = {(20, f): place for f, place in places.items()}
    done = track_to(14, "--replace", "--json", start=6)
    doubled = [f for f, n in Counter(frames_of(job.shapes)).items() if n > 1]
    assert doubled == [11, 12, 13, 14]
    (told,) = done.json["over_earlier_results"]
    assert told["frames"] == doubled
    assert OVER.format(told["object"], "4 frames, first on frame 11") in done.log


def test_a_resume_beside_what_is_kept_does_not_tell_of_it(job, cut_off, resume, one_mask):
    job.shapes += [
        shape("mask", mask_at(4 + f - 10), id=1000 + f, frame=f, source="auto")
        for f in range(11, 15)
    ]
    ended = cut_off(13, 14, "--replace")
    assert "another automatic shape" not in resume(ended, "--keep-earlier").log


@pytest.mark.parametrize("options", [("--replace",), ("--keep-earlier",)])
def test_results_that_are_replaced_or_wanted_beside_are_not_told(track_to, masks, options):
    track_to(14)
    done = track_to(14, *options, "--json")
    assert done.json["over_earlier_results"] == []
    assert "another automatic shape" not in done.log


@pytest.mark.parametrize("case", recorded("coinciding"), ids=lambda case: case["why"])
def test_shapes_that_cover_the_same(case):
    one, other = ((case[name]["type"], case[name]["points"]) for name in ("one", "other"))
    assert coinciding([one, None, other]) == ([(0, 2)] if case["same"] else [])
    assert coinciding([other, one]) == ([(0, 1)] if case["same"] else [])
