# SPDX-License-Identifier: MIT
"""Objects that end on the same thing: told with the frame to look at."""

import pytest
from conftest import CONVERT
from wire import POLYGON, RECTANGLE, mask_at, shape, shifted

from cvat_action.coinciding import coinciding

SAID = (
    "Objects 20 and 30 cover the same on {}, first on frame 12. If they are two things, one went "
    "over to the other: look there."
)
FAR = 1_000_000


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
    assert "40" not in done.log


def test_objects_beside_each_other_are_not_told(track_to, masks):
    done = track_to(14, "--json")
    assert done.json["cover_the_same"] == []
    assert "cover the same" not in done.log


def test_what_was_drawn_on_each_other_belongs_there(job, track_to, masks):
    job.shapes[1]["points"] = mask_at(4, 20)
    assert track_to(14, "--json").json["cover_the_same"] == []


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
    assert log.count(" cover the same on 2 frames, first on frame 13.") == 5
    assert "1 more pair of objects cover the same somewhere (--json)." in log


def ring(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("mask", mask_at(4)), ("mask", mask_at(4)), True),
        (("mask", mask_at(4)), ("mask", mask_at(5)), True),  # 5 of 9 pixels
        (("mask", mask_at(4)), ("mask", mask_at(6)), False),
        (("mask", mask_at(FAR, FAR)), ("mask", mask_at(FAR, FAR)), True),
        (("polygon", POLYGON), ("polygon", shifted(POLYGON, 1)), True),
        (("polygon", POLYGON), ("polygon", shifted(POLYGON, 3)), False),
        (("polygon", ring(4, 20, 8, 22)), ("mask", mask_at(4)), True),
        (("polygon", ring(-9.5, -9.5, 20, 20)), ("polygon", ring(-9, -9, 20.5, 20)), True),
        # A ring around a thing: the boxes are alike, the outlines are not.
        (
            ("mask", [0, 11, 8, 2, 8, 2, 8, 11, 0, 0, 9, 4]),
            ("mask", [24, 2, 24, 0, 0, 9, 4]),
            False,
        ),
        (("rectangle", RECTANGLE), ("rectangle", shifted(RECTANGLE, 1)), True),
        (("rectangle", RECTANGLE), ("rectangle", shifted(RECTANGLE, 2)), False),
        (("rectangle", RECTANGLE), ("polygon", ring(*RECTANGLE)), True),
    ],
)
def test_shapes_that_cover_the_same(one, other, same):
    assert coinciding([one, None, other]) == ([(0, 2)] if same else [])
    assert coinciding([other, one]) == ([(0, 1)] if same else [])
