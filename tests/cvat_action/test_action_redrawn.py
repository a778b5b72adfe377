# SPDX-License-Identifier: MIT
"""What a person draws has no group, may get another label, and may lie far from wrong results.

The plugin follows the same rules (docs/identity.md, cvat_ui_plugin/tests/redrawn.test.ts).
"""

from conftest import MASK, POLYGON, RECTANGLE, shape, shifted
from test_action_both_ways import Mover
from test_action_both_ways import run as run_both_ways
from test_action_second_hour import CONVERT, TRACK, journal_of, keyframes_of

from cvat_action.identity import Mark, mark_of, marked_score
from cvat_action.selection import position_among
from cvat_action.signature import is_signed

TO_14 = (*TRACK, 10, "--target-frame", 14)
GROUPED = {"group": 3}


def a_result(frame, points, number, **more):
    """Of an object that nobody drew: it was clicked on, or found by a detector."""
    score = marked_score(0.9, Mark(number, 5), frame)
    return shape(
        "rectangle", points, id=2000 + frame, frame=frame, source="auto", score=score, **more
    )


def frames_of(job):
    return sorted(s["frame"] for s in job.shapes)


# --- groups --------------------------------------------------------------------------------------


def redrawn(job):
    """A polygon with a group, and what a person drew of it on frame 12, which has none."""
    drawn = shape("polygon", shifted(POLYGON, 2), id=950, frame=12)
    job.shapes = [shape("polygon", POLYGON, id=900, **GROUPED), drawn]
    return drawn


def test_nothing_is_written_in_the_place_of_a_drawing_without_a_group(act, cvat, job):
    drawn = redrawn(job)
    done = act(*TO_14, "--object", 900)
    assert done.code == 3
    assert "Object 900, frame 12: a shape of this object is there" in done.log
    assert frames_of(job) == [10, 11, 12, 13, 14]
    assert drawn in job.shapes


def test_a_new_track_is_hidden_in_the_place_of_a_drawing_without_a_group(act, cvat, job):
    drawn = redrawn(job)
    assert act(*TO_14, "--object", 900, CONVERT).code == 3
    assert job.shapes == [drawn]
    held = keyframes_of(job.tracks[0])
    hidden = [position_among(held, f)["outside"] for f in range(10, 15)]
    assert hidden == [False, False, True, False, False]


def test_a_drawing_without_a_group_becomes_a_part_of_the_track_with_keyframes(act, cvat, job):
    redrawn(job)
    assert act(*TO_14, CONVERT, "--keyframes").code == 0
    assert job.shapes == []
    held = keyframes_of(job.tracks[0])
    assert not any(position_among(held, f)["outside"] for f in range(10, 15))


def test_a_drawing_without_a_group_may_be_of_two_groups(act, cvat, job):
    drawn = redrawn(job)
    job.shapes = [*job.shapes, shape("polygon", shifted(POLYGON, 3), id=901, group=4)]
    done = act(*TO_14, "--object", 900, "--keyframes")
    assert "Frame 12: more than one object could be object 900" in done.log
    assert drawn in job.shapes


def test_a_drawing_in_the_group_of_another_object_is_not_meant(act, cvat, job):
    drawn = shape("polygon", shifted(POLYGON, 30), id=950, frame=12, **GROUPED)
    grouped = shape("polygon", shifted(POLYGON, 28), id=901, **GROUPED)
    job.shapes = [shape("polygon", POLYGON, id=900), grouped, drawn]
    done = act(*TO_14, "--keyframes")
    assert done.code == 0
    assert "more than one object" not in done.log
    assert len(job.shapes) == 10


def test_a_drawing_without_a_group_is_asked_about_with_results_that_have_one(act, cvat, job):
    later = [a_result(frame, RECTANGLE, 77, **GROUPED) for frame in (11, 12, 13, 14)]
    job.shapes = [shape("rectangle", RECTANGLE, id=900), *later]
    stopped = act(*TO_14)
    assert stopped.code == 1
    assert "4 shapes on frames 11 to 14 are an earlier run's" in stopped.log
    assert act(*TO_14, "--replace").code == 0
    assert frames_of(job) == [10, 11, 12, 13, 14]


def test_results_with_a_group_of_another_drawing_are_told_and_stay(act, cvat, job):
    job.shapes = [shape("polygon", POLYGON, id=900, **GROUPED)]
    assert act(*TO_14).code == 0
    drawn = shape("polygon", shifted(POLYGON, 3), id=950, frame=12)
    job.shapes = [*(s for s in job.shapes if s["frame"] != 12), drawn]
    left = [s for s in job.shapes if s["frame"] > 12]
    done = act(*TRACK, 12, "--target-frame", 14, "--replace")
    assert "Object 950: on frame 13 it lies where results of object 900 (frame 10)" in done.log
    assert all(s in job.shapes for s in left)


def test_shapes_without_a_mark_and_with_a_group_are_followed_from_a_drawing(act, cvat, job):
    auto = {"source": "auto", "score": 1.0, **GROUPED}
    later = [shape("rectangle", RECTANGLE, id=2000 + f, frame=f, **auto) for f in (11, 12)]
    job.shapes = [shape("rectangle", RECTANGLE, id=900), *later]
    stopped = act(*TO_14)
    assert stopped.code == 1
    assert "2 shapes on frames 11 to 12 are an earlier run's, or look like it" in stopped.log


def test_automatic_shapes_of_another_group_are_not_asked_about(act, cvat, job):
    beside = [
        shape("rectangle", RECTANGLE, id=2000 + f, frame=f, source="auto", score=1.0)
        for f in (11, 12)
    ]
    job.shapes = [shape("rectangle", RECTANGLE, id=900, **GROUPED), *beside]
    assert act(*TO_14).code == 0
    assert all(s in job.shapes for s in beside)
    assert len(job.shapes) == 7


# --- labels --------------------------------------------------------------------------------------


def relabelled(act, job, kind, points):
    """Tracked from frame 10 to 14; a person gave the result on frame 12 another label."""
    job.shapes = [shape(kind, points, id=900)]
    assert act(*TO_14).code == 0
    twelve = next(s for s in job.shapes if s["frame"] == 12)
    kept = {**twelve, "label_id": 8, "source": "semi-auto"}  # as CVAT's page saves it
    job.shapes = [*(s for s in job.shapes if s is not twelve), kept]
    return kept


def test_the_run_starts_again_from_a_result_with_another_label(act, cvat, job, function):
    kept = relabelled(act, job, "mask", MASK)
    function.calls.clear()
    done = act(*TO_14, "--object", 900, "--replace")
    assert done.code == 0
    assert kept in job.shapes
    assert frames_of(job) == [10, 11, 12, 13, 14]
    # it is no drawing that the object stands on, so nothing joins
    assert [(kind, frame) for kind, frame, _ in function.calls] == [
        ("start", 10), ("step", 11), ("start", 12), ("step", 13), ("step", 14),
    ]  # fmt: skip
    assert "kept with another label on frame 12" in done.out
    assert [s["label_id"] for s in job.shapes if s["frame"] > 12] == [7, 7]


def test_a_result_with_another_label_is_not_made_a_part_of_a_track(act, cvat, job):
    kept = relabelled(act, job, "polygon", POLYGON)
    done = act(*TO_14, "--object", 900, "--replace", CONVERT)
    assert done.code == 0
    assert job.shapes == [kept]
    assert "kept with another label on frame 12" in done.out
    held = keyframes_of(job.tracks[0])
    assert [k["frame"] for k in held] == [10, 11, 12, 13, 14, 15]
    assert all(is_signed(k) and not k["outside"] for k in held[1:5])


def test_a_track_goes_over_a_result_of_its_object_with_another_label(act, cvat, job):
    kept = relabelled(act, job, "polygon", POLYGON)
    assert act(*TRACK, 10, "--target-frame", 11, CONVERT, "--object", 900, "--replace").code == 0
    number = job.tracks[0]["id"]
    done = act(*TRACK, 11, "--target-frame", 14, "--object", f"track:{number}", "--replace")
    assert done.code == 0
    assert job.shapes == [kept]
    assert not position_among(keyframes_of(job.tracks[0]), 14)["outside"]


def test_a_run_with_another_label_that_breaks_goes_on(act, cvat, job, function):
    kept = relabelled(act, job, "polygon", POLYGON)
    function.refuse = lambda frame, count: 503 if frame == 13 else None
    ended = act(*TO_14, "--object", 900, "--replace", CONVERT, "--wait", 0)
    assert ended.code == 4
    function.refuse = lambda frame, count: None
    done = act("track", "--resume", journal_of(ended))
    assert done.code == 0
    assert "kept with another label on frame 12" in done.out
    assert job.shapes == [kept]


def test_both_ways_no_drawing_stands_on_a_result_with_another_label():
    tracker = Mover()
    run_both_ways(tracker, {0: 0, 2: 20, 8: 80}, range(1, 10), relabelled=frozenset({2}))
    assert tracker.adopted == [
        (0, {8: 8}),
        (2, {0: 2, 8: -6}),  # backwards
        (2, {0: -2, 8: 6}),
        (8, {0: 8}),  # backwards
        (8, {0: -8}),
    ]


# --- far from wrong results ----------------------------------------------------------------------

FAR = [44.0, 4.0, 52.0, 12.0]


def drifted(job, *numbers):
    """Results of frames 10 to 14, of which a person deleted those of frame 12 and drew one anew.

    They are of objects that nobody drew.
    """
    drawn = shape("rectangle", FAR, id=950, frame=12)
    results = [
        {**a_result(frame, shifted(RECTANGLE, 20 * n), number), "id": 2000 + 100 * n + frame}
        for n, number in enumerate(numbers)
        for frame in (10, 11, 13, 14)
    ]
    job.shapes = [*results, drawn]
    return results


FROM_12 = (*TRACK, 12, "--target-frame", 14)
STOPPED = "2 shapes on frames 13 to 14 are an earlier run's"


def test_far_from_the_results_the_command_asks_about_those_of_the_one_object(act, cvat, job):
    drifted(job, 77)
    stopped = act(*FROM_12)
    assert stopped.code == 1
    assert "Object 950 lies far from the results on frame 13. It is taken for" in stopped.log
    assert STOPPED in stopped.log
    assert act(*FROM_12, "--replace").code == 0
    assert [(s["frame"], s["points"][0]) for s in job.shapes if s["frame"] > 11] == [
        (12, 44), (13, 45), (14, 46),
    ]  # fmt: skip
    numbers = {mark_of(s["score"], s["frame"]).number for s in job.shapes if s["frame"] > 12}
    assert numbers == {77}
    assert STOPPED in act(*FROM_12).log, "it is known again"


def test_far_from_the_results_they_stay_where_they_are_kept(act, cvat, job):
    results = drifted(job, 77)
    assert act(*FROM_12, "--keep-earlier").code == 0
    assert all(s in job.shapes for s in results)
    assert frames_of(job) == [10, 11, 12, 13, 13, 14, 14]
    scores = [mark_of(s["score"], 13) for s in job.shapes if s["frame"] == 13]
    assert len({mark.number for mark in scores}) == 2


def test_backwards_the_frame_after_is_the_one_before(act, cvat, job):
    drifted(job, 77)
    stopped = act(*TRACK, 12, "--target-frame", 10, "--backward")
    assert "2 shapes on frames 10 to 11 are an earlier run's" in stopped.log


def test_far_from_the_results_of_two_objects_all_stay(act, cvat, job):
    results = drifted(job, 77, 78)
    done = act(*FROM_12, "--replace")
    assert done.code == 0
    assert "More than one object there has no shape on frame 12" in done.log
    assert all(s in job.shapes for s in results)


def test_of_two_drawings_far_from_the_results_neither_is_taken_for_the_object(act, cvat, job):
    results = drifted(job, 77)
    job.shapes = [*job.shapes, shape("rectangle", shifted(FAR, -20), id=951, frame=12)]
    done = act(*FROM_12, "--object", 950, "--replace")
    assert done.code == 0
    assert "more than one drawing may be meant" in done.log
    assert all(s in job.shapes for s in results)


def test_far_from_the_results_of_another_drawing_these_are_told_and_stay(act, cvat, job):
    job.shapes = [shape("rectangle", RECTANGLE, id=900)]
    assert act(*TO_14).code == 0
    left = [s for s in job.shapes if s["frame"] != 12]
    job.shapes = [*left, shape("rectangle", FAR, id=950, frame=12)]
    done = act(*FROM_12, "--replace")
    assert done.code == 0
    assert "Those of object 900 (frame 10) stay, which has no shape on frame 12" in done.log
    assert all(s in job.shapes for s in left)


def test_a_drawing_beside_objects_that_are_all_there_is_a_new_one(act, cvat, job):
    results = drifted(job, 77)
    there = a_result(12, RECTANGLE, 77)
    job.shapes = [*job.shapes, there]
    done = act(*FROM_12, "--object", 950)
    assert done.code == 0
    assert "lies far" not in done.log
    assert all(s in job.shapes for s in (*results, there))
