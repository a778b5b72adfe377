# SPDX-License-Identifier: MIT
"""Drawings beside results, on the way through a server: what is written, said and asked.

Whose a shape is, is held by the table of test_whose.py. Here are the options that only the command
line has, and one way through a server for each rule.
"""

import pytest
from conftest import CONVERT
from look import frames_of, hidden, on_frame, places
from wire import MASK, POLYGON, RECTANGLE, mask_at, shape, shifted

from cvat_action.identity import Mark, mark_of, marked_score
from cvat_action.signature import is_signed

GROUPED = {"group": 3}


def polygon_at(by, number, frame=10, **more):
    return shape("polygon", shifted(POLYGON, by), id=number, frame=frame, **more)


# --- groups --------------------------------------------------------------------------------------


def redrawn(job):
    """A polygon with a group, and what a person drew of it on frame 12, which has none."""
    drawn = polygon_at(2, 950, 12)
    job.shapes = [polygon_at(0, 900, **GROUPED), drawn]
    return drawn


def test_nothing_is_written_in_the_place_of_a_drawing_without_a_group(job, track_to):
    drawn = redrawn(job)
    done = track_to(14, "--object", 900, code=3)
    assert "Object 900, frame 12: a shape of this object is there" in done.log
    assert frames_of(job.shapes) == [10, 11, 12, 13, 14]
    assert drawn in job.shapes


@pytest.mark.parametrize("more", [(), ("--sparse",)], ids=["dense", "sparse"])
@pytest.mark.parametrize("group", [0, 3])
def test_a_new_track_is_hidden_where_a_person_drew_a_polygon_in_its_place(
    job, track_to, group, more
):
    drawn = polygon_at(2, 950, 12)
    job.shapes = [polygon_at(0, 900, group=group), drawn]
    done = track_to(14, "--object", 900, CONVERT, *more, code=3)
    assert "Object 900, frame 12: a shape that this run did not write lies in its place" in done.log
    assert "--keyframes" in done.log
    assert job.shapes == [drawn]
    assert hidden(job.tracks[0], range(10, 15)) == [12]


@pytest.mark.parametrize("more", [(), ("--keyframes",), ("--both-ways",)])
def test_a_track_stays_hidden_where_a_person_drew_a_polygon_in_its_place(job, track_to, more):
    drawn = polygon_at(2, 950, 12)
    job.shapes = [polygon_at(0, 900), drawn]
    track_to(14, "--object", 900, CONVERT, code=3)
    done = track_to(14, "--object", f"track:{job.tracks[0]['id']}", *more, code=3)
    assert "frame 12: a drawing of this frame alone lies in its place and was kept" in done.log
    assert job.shapes == [drawn]
    assert hidden(job.tracks[0], range(10, 15)) == [12]


def test_a_drawing_without_a_group_becomes_a_part_of_the_track_with_keyframes(job, track_to):
    redrawn(job)
    track_to(14, CONVERT, "--keyframes")
    assert job.shapes == []
    assert hidden(job.tracks[0], range(10, 15)) == []


@pytest.mark.parametrize(("groups", "by"), [((0, 0), 30), ((3, 4), 3)])
def test_a_drawing_may_be_of_an_object_that_is_not_selected(job, track_to, groups, by):
    mine, others = polygon_at(0, 900, group=groups[0]), polygon_at(by, 901, group=groups[1])
    drawn = polygon_at(2, 950, 12)
    job.shapes = [mine, others, drawn]
    done = track_to(14, "--object", 900, "--keyframes", CONVERT, code=3)
    assert "Frame 12: more than one object could be object 900" in done.log
    assert others in job.shapes
    assert drawn in job.shapes


def test_a_drawing_in_the_group_of_another_object_counts_for_that_object_alone(job, track_to):
    drawn = polygon_at(30, 950, 12, **GROUPED)
    job.shapes = [polygon_at(0, 900), polygon_at(28, 901, **GROUPED), drawn]
    done = track_to(14, "--keyframes")
    assert "more than one object" not in done.log
    assert len(job.shapes) == 10


def test_far_away_a_shape_without_a_group_is_not_taken_for_a_correction(job, track_to):
    far = shape("mask", mask_at(50, 40), id=901, frame=12)
    job.shapes = [shape("mask", MASK, id=900), far]
    done = track_to(13, "--keyframes")
    assert "may be object 900 or another one" in done.log
    assert [s["points"][-4:] for s in job.shapes if s["frame"] == 13] == [[7, 20, 10, 21]]


# --- labels --------------------------------------------------------------------------------------


def relabelled(job, track_to, kind, points):
    """Tracked from frame 10 to 14; a person gave the result on frame 12 another label."""
    job.shapes = [shape(kind, points, id=900)]
    track_to(14)
    kept = on_frame(job, 12)
    kept.update(label_id=8, source="semi-auto")  # as CVAT's page saves it
    return dict(kept)


KEPT = "kept with another label on frame 12"


def test_the_run_starts_again_from_a_result_with_another_label(job, track_to, function):
    kept = relabelled(job, track_to, "mask", MASK)
    function.calls.clear()
    done = track_to(14, "--object", 900, "--replace")
    assert kept in job.shapes
    assert frames_of(job.shapes) == [10, 11, 12, 13, 14]
    # it is no drawing that the object stands on, so nothing joins
    assert [(kind, frame) for kind, frame, _ in function.calls] == [
        ("start", 10), ("step", 11), ("start", 12), ("step", 13), ("step", 14),
    ]  # fmt: skip
    assert KEPT in done.out
    assert [s["label_id"] for s in job.shapes if s["frame"] > 12] == [7, 7]


def test_a_result_with_another_label_is_not_made_a_part_of_a_track_also_by_a_resume(
    job, track_to, cut_off, resume
):
    kept = relabelled(job, track_to, "polygon", POLYGON)
    ended = cut_off(13, 14, "--object", 900, "--replace", CONVERT)
    assert KEPT in resume(ended).out
    assert job.shapes == [kept]
    made = job.tracks[0]["shapes"]
    assert frames_of(made) == [10, 11, 12, 13, 14, 15]
    assert all(is_signed(k) and not k["outside"] for k in made[1:5])


# --- far from wrong results ----------------------------------------------------------------------

FAR = [44.0, 4.0, 52.0, 12.0]
STOPPED = "2 shapes on frames 13 to 14 are an earlier run's"


def drifted(job):
    """Results of frames 10 to 14, of which a person deleted that of frame 12 and drew one anew.

    They are of an object that nobody drew.
    """
    results = [
        shape("rectangle", RECTANGLE, id=2000 + frame, frame=frame, source="auto")
        | {"score": marked_score(0.9, Mark(77, 5), frame)}
        for frame in (10, 11, 13, 14)
    ]
    job.shapes = [*results, shape("rectangle", FAR, id=950, frame=12)]
    return results


def test_a_drawing_far_from_the_results_that_may_be_its_own_stops_the_run(job, track_to):
    drifted(job)
    stopped = track_to(14, start=12, code=1)
    assert "Object 950 lies far from the results on frame 13. It is taken for" in stopped.log
    assert STOPPED in stopped.log
    track_to(14, "--replace", start=12)
    assert places(s for s in job.shapes if s["frame"] > 11) == [(12, 44), (13, 45), (14, 46)]
    assert STOPPED in track_to(14, start=12, code=1).log, "it is known again"


@pytest.mark.parametrize(("start", "seed"), [(10, 2010), (14, 2014)])
def test_a_drawing_on_the_last_frame_is_told_where_results_go_on_behind_it(
    job, track_to, start, seed
):
    drifted(job)
    told = f"Shape 950 is drawn on frame 12, where object {seed} has no result."
    assert told in track_to(12, "--replace", "--dry-run", start=start).log
    job.deleted_frames = [11, 13]
    assert told in track_to(12, "--replace", "--dry-run", start=start).log
    job.shapes = [s for s in job.shapes if s["frame"] in (start, 12)]
    assert told not in track_to(12, "--replace", "--dry-run", start=start).log


@pytest.mark.parametrize("deleted", [(), (11, 13)])
def test_a_drawing_far_from_results_that_were_deleted_is_told_on_the_way(job, track_to, deleted):
    drifted(job)
    gone = {2000 + frame for frame in deleted}
    job.shapes = [s for s in job.shapes if s["id"] not in gone]
    told = "Shape 950 is drawn on frame 12, where object 2010 has no result."
    assert told in track_to(15, "--replace", "--dry-run").log
    assert told in track_to(15, "--replace").log
    assert 950 in {s["id"] for s in job.shapes}


@pytest.mark.parametrize("more", ["results of its own", "an overlap", "another label"])
def test_a_drawing_that_is_known_to_be_another_object_is_not_told(job, track_to, more):
    drifted(job)
    (drawn,) = (s for s in job.shapes if s["id"] == 950)
    if more == "results of its own":
        track_to(14, "--keep-earlier", "--object", 950, start=12)
    elif more == "an overlap":
        drawn["points"] = shifted(RECTANGLE, 1)
    else:
        drawn["label_id"] = 8
    code = 3 if more == "an overlap" else 0  # then nothing is written in its place
    done = track_to(15, "--replace", "--object", 2010, code=code)
    assert "is drawn on frame" not in done.log


def test_a_drawing_beside_a_corrected_result_is_told(job, track_to):
    results = drifted(job)
    results[1]["source"] = "semi-auto"  # frame 11
    assert "Shape 950 is drawn on frame 12" in track_to(15, "--replace", "--dry-run").log


@pytest.mark.parametrize("why", ["corrected", "all seeds", "keyframes", "of another"])
def test_a_drawing_of_which_it_is_known_whose_it_is_is_not_told(job, track_to, why):
    drifted(job)
    options = {"all seeds": ["--all-seeds"], "keyframes": ["--keyframes"]}.get(why, [])
    if why == "corrected":  # the object has a result there, which a person corrected
        corrected = shape("rectangle", shifted(RECTANGLE, 1), id=2012, frame=12)
        job.shapes.append(corrected | {"score": marked_score(0.9, Mark(77, 5), 12)})
    if why == "keyframes":  # its group says that it is the object's
        job.shapes = [{**s, **GROUPED} for s in job.shapes]
    if why == "of another":  # it lies near the results of an object that is not tracked
        job.shapes += [
            shape("rectangle", FAR, id=3000 + frame, frame=frame, source="auto")
            | {"score": marked_score(0.9, Mark(78, 5), frame)}
            for frame in (10, 11, 13, 14)
        ]
        options = ["--object", 2010]
    done = track_to(15, "--replace", "--dry-run", *options)
    assert "is drawn on frame" not in done.log


def test_keep_earlier_keeps_results_that_lie_far_from_the_new_drawing(job, track_to):
    results = drifted(job)
    track_to(14, "--keep-earlier", start=12)
    assert all(s in job.shapes for s in results)
    assert frames_of(job.shapes) == [10, 11, 12, 13, 13, 14, 14]
    marks = [mark_of(s["score"], 13) for s in job.shapes if s["frame"] == 13]
    assert len({mark.number for mark in marks}) == 2


# --- whose a number is ---------------------------------------------------------------------------


def test_a_result_that_is_drawn_anew_becomes_the_objects_with_keyframes(job, track_to):
    job.shapes = [polygon_at(0, 900)]
    track_to(16)
    drawn = polygon_at(5, 950, 14)
    job.shapes = [s for s in job.shapes if s["frame"] != 14] + [drawn]
    track_to(16, "--replace", "--keyframes", "--object", 900)
    assert places(job.shapes) == [(10 + n, x) for n, x in enumerate((4, 5, 6, 7, 9, 10, 11))]


def test_all_seeds_take_nothing_before_a_drawing_for_its_results(job, track_to):
    before = shape("mask", MASK, id=901, frame=11, source="auto")
    drawn = shape("mask", MASK, id=950, frame=12)
    job.shapes = [shape("rectangle", RECTANGLE, id=900), before, drawn]
    track_to(13, "--all-seeds")
    assert {901, 950} < {s["id"] for s in job.shapes}


def test_all_seeds_take_two_drawings_with_one_number_for_two_objects(job, track_to):
    by_chance = shape("rectangle", [45.5, 10.25, 54.5, 16.25], id=950, frame=12)
    job.shapes = [shape("rectangle", RECTANGLE, id=900), by_chance]
    for options in ((), ("--replace",)):
        track_to(14, "--all-seeds", *options)
        own = [s for s in job.shapes if s["points"][1] == RECTANGLE[1]]
        assert places(own) == [(10, 4), (11, 5), (12, 6), (13, 7), (14, 8)]
        assert len(job.shapes) == 8


@pytest.mark.parametrize("corrected", [False, True])
def test_all_seeds_replace_the_results_of_a_drawing_that_was_made_anew(job, track_to, corrected):
    """Another object begins later, in the midst of these results."""
    job.shapes = [polygon_at(0, 900), polygon_at(40, 901, frame=14)]
    track_to(18, "--all-seeds")
    before = places(job.shapes)
    if corrected:
        by_hand = next(s for s in job.shapes if s["frame"] == 14 and s["id"] != 901)
        by_hand["source"] = "semi-auto"
    job.shapes = [s for s in job.shapes if s["id"] != 900] + [polygon_at(0, 5000)]
    track_to(18, "--all-seeds", "--replace")
    assert places(job.shapes) == before
    if corrected:
        assert by_hand in job.shapes


@pytest.mark.parametrize("options", [(), ("--all-seeds",)])
def test_nothing_is_written_over_a_corrected_result_of_an_object_that_was_drawn_anew(
    job, track_to, options
):
    job.shapes = [polygon_at(0, 900)]
    track_to(20)
    job.shapes = [s for s in job.shapes if s["frame"] != 14] + [polygon_at(4, 5000, frame=14)]
    on_frame(job, 17)["source"] = "semi-auto"
    done = track_to(18, *options, "--replace", start=14, code=3)
    assert "it lies where results of object 900 (frame 10) are; these stay" in done.log
    assert "frame 17: a shape of this object is there" in done.log
    assert [s["source"] for s in job.shapes if s["frame"] == 17] == ["semi-auto"]


def test_a_corrected_result_of_a_drawing_of_the_frame_is_not_in_the_way_of_its_neighbour(
    job, track_to
):
    """The drawing has results on both sides, and is in the run or not."""
    job.shapes = [polygon_at(0, 900), polygon_at(1, 901)]
    for target in (6, 14):
        track_to(target)
    first = polygon_at(2, 0)["points"]
    corrected = next(s for s in job.shapes if s["frame"] == 12 and s["points"] == first)
    corrected["source"] = "semi-auto"
    before = frames_of(job.shapes)
    for options in ((), ("--object", 901)):
        for s in job.shapes:
            if s["source"] == "auto":  # as another model had it
                s["points"] = shifted(s["points"], 0.5)
        track_to(14, "--replace", *options)
        assert frames_of(job.shapes) == before
