# SPDX-License-Identifier: MIT
"""Which object a drawing is taken for: by its group, its label, its place, and its number.

The plugin follows the same rules (docs/identity.md, cvat_ui_plugin/tests/redrawn.test.ts).
"""

import pytest
from conftest import CONVERT
from look import frames_of, hidden, on_frame, places
from wire import MASK, POLYGON, RECTANGLE, mask_at, shape, shifted

from cvat_action.identity import Mark, mark_of, marked_score, number_of_drawing
from cvat_action.signature import is_signed

GROUPED = {"group": 3}
UNMARKED = {"source": "auto", "score": 1.0}


def a_result(frame, points, number, **more):
    """Of an object that nobody drew: it was clicked on, or found by a detector."""
    more = {"id": 2000 + frame, "source": "auto", **more}
    score = marked_score(0.9, Mark(number, 5), frame)
    return shape("rectangle", points, frame=frame, score=score, **more)


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


def test_nothing_is_written_in_the_place_of_a_drawing_that_is_turned(job, track_to):
    """Of two objects, so that neither takes it for its own."""
    turned = {"frame": 12, "rotation": 45.0, "source": "manual", "id": 902}
    job.shapes = [
        shape("rectangle", [4.0, 20.0, 12.0, 28.0], id=900),
        shape("rectangle", [60.0, 20.0, 68.0, 28.0], id=901),
        shape("rectangle", [4.85, 23.5, 15.15, 24.5], **turned),
    ]
    track_to(13, code=3)
    assert [round(s["points"][0]) for s in job.shapes if s["frame"] == 12] == [5, 62]


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


def test_a_drawing_in_the_group_of_another_object_is_not_meant(job, track_to):
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


@pytest.mark.parametrize(
    ("score", "said"), [({}, "are an earlier run's"), ({"score": 1.0}, "or look like it")]
)
def test_a_drawing_without_a_group_is_asked_about_with_results_that_have_one(
    job, track_to, score, said
):
    """Those without a mark are followed from the drawing."""
    later = [a_result(f, RECTANGLE, 77) | GROUPED | score for f in (11, 12, 13, 14)]
    job.shapes = [shape("rectangle", RECTANGLE, id=900), *later]
    stopped = track_to(14, code=1)
    assert "4 shapes on frames 11 to 14 are an earlier run's" in stopped.log
    assert said in stopped.log
    track_to(14, "--replace")
    assert frames_of(job.shapes) == [10, 11, 12, 13, 14]


def test_automatic_shapes_of_another_group_are_not_asked_about(job, track_to):
    beside = [shape("rectangle", RECTANGLE, id=2000 + f, frame=f, **UNMARKED) for f in (11, 12)]
    job.shapes = [shape("rectangle", RECTANGLE, id=900, **GROUPED), *beside]
    track_to(14)
    assert all(s in job.shapes for s in beside)
    assert len(job.shapes) == 7


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


def test_a_track_goes_over_a_result_of_its_object_with_another_label(job, track_to):
    kept = relabelled(job, track_to, "polygon", POLYGON)
    track_to(11, CONVERT, "--object", 900, "--replace")
    track_to(14, "--object", f"track:{job.tracks[0]['id']}", "--replace", start=11)
    assert job.shapes == [kept]
    assert hidden(job.tracks[0], [14]) == []


# --- far from wrong results ----------------------------------------------------------------------

FAR = [44.0, 4.0, 52.0, 12.0]
STOPPED = "2 shapes on frames 13 to 14 are an earlier run's"


def drifted(job, *numbers):
    """Results of frames 10 to 14, of which a person deleted those of frame 12 and drew one anew.

    They are of objects that nobody drew.
    """
    drawn = shape("rectangle", FAR, id=950, frame=12)
    results = [
        a_result(frame, shifted(RECTANGLE, 20 * n), number, id=2000 + 100 * n + frame)
        for n, number in enumerate(numbers)
        for frame in (10, 11, 13, 14)
    ]
    job.shapes = [*results, drawn]
    return results


def test_far_from_the_results_the_command_asks_about_those_of_the_one_object(job, track_to):
    drifted(job, 77)
    stopped = track_to(14, start=12, code=1)
    assert "Object 950 lies far from the results on frame 13. It is taken for" in stopped.log
    assert STOPPED in stopped.log
    track_to(14, "--replace", start=12)
    later = [s for s in job.shapes if s["frame"] > 11]
    assert places(later) == [(12, 44), (13, 45), (14, 46)]
    assert {mark_of(s["score"], s["frame"]).number for s in later if s["frame"] > 12} == {77}
    assert STOPPED in track_to(14, start=12, code=1).log, "it is known again"
    drifted(job, 77)  # backwards the frame after is the one before
    stopped = track_to(10, start=12, code=1)
    assert "2 shapes on frames 10 to 11 are an earlier run's" in stopped.log


def test_far_from_the_results_they_stay_where_they_are_kept(job, track_to):
    results = drifted(job, 77)
    track_to(14, "--keep-earlier", start=12)
    assert all(s in job.shapes for s in results)
    assert frames_of(job.shapes) == [10, 11, 12, 13, 13, 14, 14]
    marks = [mark_of(s["score"], 13) for s in job.shapes if s["frame"] == 13]
    assert len({mark.number for mark in marks}) == 2


def two_objects(job):
    return drifted(job, 77, 78)


def two_drawings(job):
    results = drifted(job, 77)
    job.shapes = [*job.shapes, shape("rectangle", shifted(FAR, -20), id=951, frame=12)]
    return results


def all_are_there(job):
    there = a_result(12, RECTANGLE, 77)
    results = drifted(job, 77)
    job.shapes = [*job.shapes, there]
    return [*results, there]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (two_objects, "More than one object there has no shape on frame 12"),
        (two_drawings, "more than one drawing may be meant"),
        (all_are_there, None),  # then it is a new object
    ],
)
def test_far_from_the_results_nothing_is_guessed(job, track_to, make, said):
    results = make(job)
    done = track_to(14, "--object", 950, "--replace", start=12)
    assert said in done.log if said else "lies far" not in done.log
    assert all(s in job.shapes for s in results)


def test_far_from_the_results_of_another_drawing_these_are_told_and_stay(job, track_to):
    job.shapes = [shape("rectangle", RECTANGLE, id=900)]
    track_to(14)
    left = [s for s in job.shapes if s["frame"] != 12]
    job.shapes = [*left, shape("rectangle", FAR, id=950, frame=12)]
    done = track_to(14, "--replace", start=12)
    assert "Those of object 900 (frame 10) stay, which has no shape on frame 12" in done.log
    assert all(s in job.shapes for s in left)


# --- whose a number is ---------------------------------------------------------------------------


@pytest.fixture
def without_receipts(monkeypatch):
    """As on another machine."""
    monkeypatch.setattr("cvat_action.commands.numbers_of_seeds", lambda server, job: {})


def passing(job, track_to, gone, drawn, **more):
    """A polygon tracked from frame 10 to 24, without results on some frames; one is drawn."""
    job.shapes = [polygon_at(0, 900, **more)]
    track_to(24)
    job.shapes = [s for s in job.shapes if s["frame"] not in gone] + [drawn]
    return [s for s in job.shapes if s["frame"] > drawn["frame"]]


def test_a_drawing_takes_over_no_number_of_an_object_that_passes_there_later(job, track_to):
    drawn = polygon_at(8, 950, 14)
    passed = passing(job, track_to, range(12, 17), drawn)
    track_to(24, start=14)  # nothing of it is there yet
    track_to(24, "--replace", start=14)
    assert all(s in job.shapes for s in passed)
    track_to(24, CONVERT, "--replace")
    assert drawn in job.shapes
    assert len([s for s in job.shapes if s["frame"] > 14]) == 10


@pytest.mark.parametrize("group", [0, 3])
def test_a_drawing_takes_over_no_number_of_another_drawing_on_the_next_frame(job, track_to, group):
    passed = passing(job, track_to, [14], polygon_at(4, 950, 14), group=group)
    done = track_to(24, "--replace", start=14)
    assert all(s in job.shapes for s in passed)
    assert (
        "Object 950: on frame 15 it lies where results of object 900 (frame 10) are; these stay. "
        "If both are one object, track that one with --keyframes instead."
    ) in done.log


def test_a_result_that_is_drawn_anew_becomes_the_objects_with_keyframes(job, track_to):
    passing(job, track_to, [14], polygon_at(5, 950, 14))
    track_to(24, "--replace", "--keyframes", "--object", 900)
    edges = dict(places(job.shapes))
    assert len(edges) == len(job.shapes) == 15
    assert (edges[13], edges[14], edges[15]) == (7, 9, 10)


def test_all_seeds_take_nothing_before_a_drawing_for_its_results(job, track_to):
    before = shape("mask", MASK, id=901, frame=11, source="auto")
    drawn = shape("mask", MASK, id=950, frame=12)
    job.shapes = [shape("rectangle", RECTANGLE, id=900), before, drawn]
    track_to(13, "--all-seeds")
    assert {901, 950} < {s["id"] for s in job.shapes}


def test_a_drawing_that_was_edited_takes_over_its_number_on_the_next_frame(
    job, track_to, without_receipts
):
    job.shapes = [shape("rectangle", RECTANGLE, id=900)]
    track_to(13)
    job.shapes[0]["points"] = shifted(RECTANGLE, 2)
    track_to(13, "--replace")
    assert places(job.shapes) == [(10, 6), (11, 7), (12, 8), (13, 9)]


@pytest.mark.parametrize("change", ["corrected", "deleted"])
def test_nothing_is_doubled_after_a_drawing_was_edited_and_its_first_result(
    job, track_to, without_receipts, change
):
    job.shapes = [shape("rectangle", RECTANGLE, id=900)]
    track_to(14)
    if change == "corrected":
        on_frame(job, 11).update(points=shifted(RECTANGLE, 2), source="semi-auto")
    else:
        job.shapes = [s for s in job.shapes if s["frame"] != 11]
    kept = [dict(s) for s in job.shapes if s["source"] == "semi-auto"]
    job.shapes[0]["points"] = shifted(RECTANGLE, 2)
    before = frames_of(job.shapes)
    assert "--replace replaces them" in track_to(14, code=1).log
    track_to(14, "--replace")
    assert frames_of(job.shapes) == sorted({*before, 11})
    assert all(s in job.shapes for s in kept)


def test_an_object_that_was_found_later_stays_where_another_one_was_drawn(job, track_to):
    number = number_of_drawing("rectangle", 12, RECTANGLE)
    later = [a_result(frame, RECTANGLE, number) for frame in (12, 13)]
    job.shapes = [shape("rectangle", RECTANGLE, id=900), *later]
    track_to(13, "--replace")
    assert all(s in job.shapes for s in later)


def test_of_two_drawings_one_takes_over_a_number(job, track_to):
    left, right = [4.0, 30.0, 16.0, 38.0], [12.0, 31.0, 24.0, 39.0]
    job.shapes = [shape("rectangle", left, id=900), shape("rectangle", right, id=901)]
    job.shapes += [a_result(11, shifted(left, 1), number=77), a_result(12, right, number=77)]
    track_to(13, "--replace")
    assert places(job.shapes) == [(10 + n, x + n) for n in range(4) for x in (4, 12)]


BY_CHANCE = [45.5, 10.25, 54.5, 16.25]
"""on frame 12 it has the number of RECTANGLE on frame 10"""


@pytest.mark.parametrize("more", [(), ("--all-seeds",)])
def test_a_drawing_of_another_frame_with_the_same_number_is_another_object(job, track_to, more):
    drawn = shape("rectangle", BY_CHANCE, id=950, frame=12)
    job.shapes = [shape("rectangle", RECTANGLE, id=900), drawn]
    for options in (more, (*more, "--replace")):
        track_to(14, *options)
        assert drawn in job.shapes
        own = [s for s in job.shapes if s["points"][1] == RECTANGLE[1]]
        assert places(own) == [(10, 4), (11, 5), (12, 6), (13, 7), (14, 8)]
        assert len(job.shapes) == (8 if more else 6)


def test_after_the_twin_of_a_drawing_was_deleted_it_keeps_its_own_results(
    job, track_to, without_receipts
):
    job.shapes = [shape("rectangle", RECTANGLE, id=900 + n, label_id=7 + n) for n in (0, 1)]
    track_to(13)
    job.shapes = [s for s in job.shapes if s["id"] != 900]
    cars = [s for s in job.shapes if s["label_id"] == 7]
    before = labels_by_frame(job)
    track_to(13, "--replace")
    assert labels_by_frame(job) == before
    assert all(s in job.shapes for s in cars)


def labels_by_frame(job):
    return sorted((s["frame"], s["label_id"]) for s in job.shapes)


@pytest.mark.parametrize("receipts", [True, False], ids=["receipts", "no receipts"])
def test_one_outline_with_two_labels_is_two_objects_in_two_runs(job, track_to, request, receipts):
    if not receipts:
        request.getfixturevalue("without_receipts")
    job.shapes = [shape("rectangle", RECTANGLE, id=901 - n, label_id=8 - n) for n in (0, 1)]
    for options in ((), ("--replace",)):
        for label in ("person", "car"):
            track_to(13, "--label", label, *options)
        both = [(frame, label) for frame in (10, 11, 12, 13) for label in (7, 8)]
        assert labels_by_frame(job) == both


def test_a_run_over_one_outline_with_two_labels_starts_each_again_from_its_own(
    job, track_to, without_receipts
):
    job.shapes = [shape("rectangle", RECTANGLE, id=900 + n, label_id=7 + n) for n in (0, 1)]
    track_to(8)
    track_to(12, "--label", "person", "--replace", start=8)
    assert labels_by_frame(job) == [
        (8, 7), (8, 8), (9, 7), (9, 8), (10, 7), (10, 8), (11, 8), (12, 8),
    ]  # fmt: skip
