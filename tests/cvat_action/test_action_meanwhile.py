# SPDX-License-Identifier: MIT
"""Writing to a job that persons and other runs change at the same time, and to a CVAT that refuses.

test_second_writer.py tries this at random.
"""

import pytest
from conftest import CONVERT
from look import correct, course, frames_of, hidden, on_frame, places
from standin_cvat import Fault
from wire import MASK, POLYGON, RECTANGLE, keyframe, mask_at, shape, shifted, track

from cvat_action.identity import Mark, mark_of, marked_score

WRITE = "/api/jobs/42/annotations/"


# --- answers that are lost, and what CVAT refuses ------------------------------------------------


@pytest.mark.parametrize("after", [True, False], ids=["carried out", "not carried out"])
def test_a_lost_answer_in_a_rerun_loses_nothing(cvat, job, track_to, one_mask, function, after):
    track_to(13)
    before = {s["id"] for s in job.shapes} - {900}
    other = {"type": "mask", "points": [0, 8, 40, 20, 43, 21]}
    function.answers = {(20, frame): other for frame in (11, 12)}
    cvat.faults = [Fault("PATCH", ".*", 503, "busy", after=after)]
    track_to(13, "--replace")
    assert places(job.shapes) == [(10, 4), (11, 40), (12, 40), (13, 7)]
    assert [s["frame"] for s in job.shapes if s["id"] in before] == [13]


@pytest.mark.parametrize(
    "body", ['{"shapes": [1]}', '{"shapes": 1}', '{"shapes": [{}]}', "[" * 9999]
)
def test_an_answer_that_names_no_ids_counts_as_lost(cvat, job, track_to, act, receipts, body):
    job.shapes = [shape("polygon", POLYGON, id=900)]
    cvat.faults = [Fault("PATCH", WRITE, 200, body, after=True)]
    track_to(13, "--convert-polygon-shapes-to-tracks")
    assert [o["frame"] for o in (*job.shapes, *job.tracks)] == [10]
    cvat.faults = [Fault("PATCH", WRITE, 200, body, after=True)]
    act("undo", receipts()[-1])
    assert [(s["points"], job.tracks) for s in job.shapes] == [(POLYGON, [])]


def test_a_job_that_another_request_holds_is_waited_for(cvat, job, track_to, one_mask):
    busy = '{"detail": "This resource is currently busy with another operation."}'
    cvat.faults = [Fault("PATCH", WRITE, 409, busy, times=2)]
    assert "busy with another operation" in track_to(13).log
    assert places(job.shapes) == [(10, 4), (11, 5), (12, 6), (13, 7)]


def test_writing_in_batches_says_how_much_is_written_and_goes_on(
    cvat, job, track_to, resume, masks, monkeypatch
):
    monkeypatch.setattr("cvat_action.cvat_sink.MOST_OBJECTS", 5)
    cvat.faults = [Fault("PATCH", WRITE, 503, "busy", times=100, skip=2, after=True)]
    ended = track_to(14, "--wait", 0, code=4)
    assert "not all of it is written" in ended.log
    assert "written: 10 shapes created" in ended.out

    cvat.faults = []
    resume(ended)
    assert len(job.shapes) == 3 + 3 * 4
    assert len({(s["frame"], s["group"]) for s in job.shapes}) == 15


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_track_that_cvat_cannot_change_is_told_and_the_others_are_written(
    job, track_to, function, when
):
    job.shapes = [shape("rectangle", RECTANGLE, id=900)]
    job.tracks = [track(keyframe(10, POLYGON), id=5), track(keyframe(10, RECTANGLE), id=6)]
    track_to(14)
    first, other = job.tracks
    # CVAT answers 500 to every update of a track with two keyframes on one frame
    broken = {**first, "shapes": [*first["shapes"], first["shapes"][-1]]}
    if when == "before":
        job.tracks = [broken, other]
    else:
        function.meanwhile[12] = lambda: setattr(job, "tracks", [broken, other])
    result = track_to(14, "--replace", "--wait", 0.025, code=0 if when == "before" else 3)
    assert "two keyframes on frame 15" in result.log + result.out
    assert frames_of(job.shapes) == [10, 11, 12, 13, 14]
    assert job.tracks[0] == broken


def test_nothing_is_doubled_where_cvat_takes_no_tracks(cvat, job, track_to, resume):
    """--replace deletes the old shapes though the tracks cannot be written."""
    job.shapes = [shape("rectangle", RECTANGLE, id=900)]
    job.tracks = [track(keyframe(10, POLYGON), id=5)]
    track_to(14)
    ids = {s["id"] for s in job.shapes if s["frame"] > 10}
    for s in job.shapes[1:]:
        s["points"] = shifted(s["points"], 0.5)  # another model's results
    job.tracks[0]["shapes"] = job.tracks[0]["shapes"][:1]
    cvat.refused_actions = frozenset({"update"})
    ended = track_to(14, "--replace", "--wait", 0.025, code=4)
    assert frames_of(job.shapes) == [10, 11, 12, 13, 14]
    assert not ids & {s["id"] for s in job.shapes}

    cvat.refused_actions = frozenset()
    resume(ended)
    assert frames_of(job.shapes) == [10, 11, 12, 13, 14]
    assert frames_of(job.tracks[0]["shapes"]) == [10, 11, 12, 13, 14, 15]


def test_a_polygon_that_became_a_track_goes_though_cvat_takes_no_changes(
    cvat, job, track_to, resume, one_polygon
):
    """What CVAT refuses is another track; a polygon and its track beside each other were one
    object twice."""
    job.tracks = [track(keyframe(10, RECTANGLE), id=5)]
    cvat.refused_actions = frozenset({"update"})
    ended = track_to(14, CONVERT, "--wait", 0.025, code=4)
    assert job.shapes == []
    assert job.tracks[1]["shapes"][0]["points"] == POLYGON
    cvat.refused_actions = frozenset()
    resume(ended)
    assert [frames_of(t["shapes"]) for t in job.tracks] == [[10, 11, 12, 13, 14, 15]] * 2


# --- what a person does --------------------------------------------------------------------------


def test_what_others_changed_meanwhile_is_kept(job, track_to, function):
    """One track gets a keyframe and another group, the other one is deleted."""
    job.tracks = [track(keyframe(10, POLYGON), id=5), track(keyframe(10, RECTANGLE), id=6)]
    changed = track(keyframe(8, POLYGON), keyframe(10, POLYGON), id=5, group=9)
    function.meanwhile[11] = lambda: setattr(job, "tracks", [changed])
    assert "deleted in CVAT while it was tracked" in track_to(14, code=3).out
    (t,) = job.tracks
    assert (t["group"], t["frame"]) == (9, 8)
    assert frames_of(t["shapes"]) == [8, 10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize("options", [(), (CONVERT,)], ids=["plain", "convert"])
def test_nothing_is_written_for_an_object_that_is_deleted_meanwhile(
    job, track_to, one_polygon, function, options
):
    function.meanwhile[12] = lambda: setattr(job, "shapes", [])
    assert "deleted in CVAT while it was tracked" in track_to(14, *options, code=3).out
    assert (job.shapes, job.tracks) == ([], [])


def test_earlier_results_of_an_object_that_is_deleted_meanwhile_stay(
    job, track_to, one_mask, function
):
    track_to(13)
    before = job.shapes[1:]
    function.answers[20, 12] = {"type": "mask", "points": mask_at(9)}
    function.meanwhile[12] = lambda: setattr(job, "shapes", before)
    assert "deleted in CVAT while it was tracked" in track_to(13, "--replace", code=3).out
    assert job.shapes == before


def test_a_result_that_a_person_edits_meanwhile_stays_and_is_told_once(
    job, track_to, one_mask, function
):
    track_to(12)
    function.answers = {(20, f): {"type": "mask", "points": mask_at(30)} for f in (11, 12)}
    function.meanwhile[11] = lambda: correct(job, 11, mask_at(7))
    result = track_to(12, "--replace", "--json", code=3)
    assert [(x["frames"], x["reason"][:7]) for x in result.json["left_out"]] == [([11], "changed")]
    assert places(job.shapes) == [(10, 4), (11, 7), (12, 30)]


def test_a_new_track_is_hidden_where_a_person_corrects_its_earlier_result_meanwhile(
    job, track_to, one_polygon, function
):
    track_to(13)
    twelve = on_frame(job, 12)
    function.meanwhile[12] = lambda: correct(job, 12, shifted(POLYGON, 7))
    done = track_to(13, CONVERT, "--replace", code=3)
    assert "frame 12: changed by a person while it was tracked; it was kept" in done.log
    assert job.shapes == [twelve]
    assert hidden(job.tracks[0], [12]) == [12]


def test_what_a_person_hides_while_it_is_tracked_stays_hidden(job, track_to, function):
    held = track(keyframe(10, POLYGON), id=5)
    job.tracks = [held]
    # as the page does: the new keyframe has the points that held there
    hiding = [*held["shapes"], keyframe(11, POLYGON, outside=True)]
    hidden_track = {**held, "source": "semi-auto", "shapes": hiding}
    function.meanwhile[12] = lambda: setattr(job, "tracks", [hidden_track])
    track_to(13, code=3)
    assert hidden(job.tracks[0], [11]) == [11]


def test_a_later_polygon_that_is_edited_meanwhile_stays_beside_its_track(job, track_to, function):
    edited = shape("polygon", shifted(POLYGON, 9), id=901, frame=12, source="manual")
    drawn = shape("mask", MASK, id=900)
    job.shapes = [drawn, shape("polygon", POLYGON, id=901, frame=12)]
    function.meanwhile[13] = lambda: setattr(job, "shapes", [drawn, edited])
    track_to(14, "--all-seeds", CONVERT, code=3)
    assert edited in job.shapes
    assert course(job.tracks[0]) == "13:1 14:2 (15:2)"


# --- another run ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [True, False], ids=["", "looking again before each step"])
def test_of_two_runs_at_once_the_first_results_stay(cvat, job, track_to, monkeypatch, fresh):
    """The other run writes between our snapshot and our request, and may have drawn our number."""
    monkeypatch.setattr("cvat_action.cvat_sink.CvatSink._is_fresh", lambda sink: fresh)
    job.shapes = [shape("mask", MASK, id=900)]
    patch = cvat._patch

    def both(number, query, body):
        if query["action"] == "create" and len(job.shapes) == 1:
            mine = mark_of(body["shapes"][0]["score"], 11)
            for frame, run in ((11, mine.run), (12, (mine.run + 1) % 100)):
                score = marked_score(0.5, Mark(mine.number, run), frame)
                there = shape("mask", mask_at(frame - 6), frame=frame, source="auto", score=score)
                patch(number, {"action": "create"}, {"shapes": [there]})
        return patch(number, query, body)

    cvat._patch = both
    track_to(13)
    confidence = {s["frame"]: round(s["score"], 2) for s in job.shapes[1:]}
    assert confidence == {11: 0.5, 12: 0.5, 13: 0.9}
    assert len(job.shapes) == 4


def test_two_runs_at_once_convert_one_outline_with_two_labels(job, track_to, function, tmp_path):
    job.shapes = [shape("polygon", POLYGON, id=900 + n, label_id=7 + n) for n in (0, 1)]
    function.meanwhile[12] = lambda: track_to(13, CONVERT, "--label", "car")
    track_to(13, CONVERT, "--label", "person", "--journal", tmp_path / "second.jsonl")
    assert sorted(t["label_id"] for t in job.tracks) == [7, 8]
    assert job.shapes == []
