# SPDX-License-Identifier: MIT
"""Runs over what earlier runs and a person left, and runs that break and go on."""

import os
import re
import signal
import sys
import threading
from dataclasses import replace
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from conftest import LABELS, MASK, POLYGON, RECTANGLE, keyframe, shape, shifted, track
from standin_cvat import Fault
from test_action_again import left_edges, long_job, mask  # noqa: F401
from test_action_failures import WAIT, command
from test_action_newcomers import DETECT, detector  # noqa: F401

from cvat_action.identity import Mark, marked_score
from cvat_action.journal import Journal
from cvat_action.selection import position_among

TRACK = ("track", "--job", 42, "--frame")
CONVERT = "--convert-polygon-shapes-to-tracks"
TO_13 = (*TRACK, 10, "--target-frame", 13)


def journal_of(ended):
    return ended.log.split("--resume ")[-1].split()[0]


def waiting(act):
    return act("runs", "--json").json["waiting"]


def keyframes_of(t):
    return sorted(t["shapes"], key=lambda k: k["frame"])


def breaks_on(function, frame):
    function.refuse = lambda number, count: 503 if number == frame else None


def goes_on(function):
    function.refuse = lambda number, count: None


# --- the same object twice -----------------------------------------------------------------------


def test_a_track_replaces_the_shapes_of_an_earlier_run_also_where_they_are_equal(act, cvat, job):
    job.shapes = [shape("polygon", POLYGON, id=900)]
    assert act(*TO_13).code == 0
    assert act(*TO_13, CONVERT, "--replace").code == 0
    assert (len(job.tracks), job.shapes) == (1, [])


@pytest.mark.parametrize("options", [(), (CONVERT,)])
def test_the_result_beside_what_a_person_drew_is_replaced(act, cvat, job, options):
    job.shapes = [shape("polygon", POLYGON, id=900, group=3)]
    assert act(*TO_13).code == 0
    drawn = shape("polygon", shifted(POLYGON, 30), id=5000, frame=12, group=3)
    job.shapes = [*job.shapes, drawn]
    assert act(*TO_13, "--keyframes", "--replace", *options).code == 0
    on_12 = [s["id"] for s in job.shapes if s["frame"] == 12]
    assert on_12 == ([] if options else [5000])


def test_a_drawing_that_was_edited_is_still_the_objects_when_a_run_goes_over_it(act, cvat, job):
    job.shapes = [shape("mask", MASK, id=900, frame=12)]
    assert act(*TRACK, 12, "--target-frame", 14).code == 0
    assert act(*TRACK, 12, "--target-frame", 10, "--backward").code == 0
    drawing = next(s for s in job.shapes if s["id"] == 900)
    drawing["points"] = mask(30)
    assert act(*TRACK, 10, "--target-frame", 14, "--replace").code == 0
    assert [f for f, _, _ in left_edges(job)] == [10, 11, 12, 13, 14]
    assert (13, 31, "auto") in left_edges(job)


def converted_in_part(act, job):
    """Shapes to frame 16, of which a second run made a track to frame 12. How to track it on."""
    job.shapes = [shape("polygon", POLYGON, id=900)]
    assert act(*TRACK, 10, "--target-frame", 16).code == 0
    assert act(*TRACK, 10, "--target-frame", 12, CONVERT, "--replace").code == 0
    assert sorted(s["frame"] for s in job.shapes) == [13, 14, 15, 16]
    number = job.tracks[0]["id"]
    return (*TRACK, 12, "--target-frame", 16, "--object", f"track:{number}")


def test_a_track_replaces_the_shapes_of_its_object_only_when_asked(act, cvat, job):
    on = converted_in_part(act, job)
    stopped = act(*on)
    assert stopped.code == 1
    assert "4 shapes on frames 13 to 16 are an earlier run's" in stopped.log
    assert act(*on, "--replace").code == 0
    assert job.shapes == []
    assert not position_among(keyframes_of(job.tracks[0]), 16)["outside"]


def test_undo_restores_no_shapes_beside_their_track_that_a_person_corrected(act, cvat, job):
    assert act(*converted_in_part(act, job), "--replace").code == 0
    fifteen = next(k for k in job.tracks[0]["shapes"] if k["frame"] == 15)
    fifteen["points"] = shifted(POLYGON, 20)
    receipts = [Path(r["receipt"]) for r in act("runs", "--json").json["receipts"]]
    assert act("undo", max(receipts, key=lambda path: path.stat().st_mtime_ns)).code == 3
    assert job.shapes == []


def test_a_track_goes_not_over_shapes_of_its_object_that_a_person_corrected(act, cvat, job):
    on = converted_in_part(act, job)
    corrected = next(s for s in job.shapes if s["frame"] == 14)
    corrected["points"], corrected["source"] = shifted(POLYGON, 20), "semi-auto"
    stopped = act(*on, "--replace")
    assert stopped.code == 1
    assert "a person corrected results of it that are shapes, on frame 14" in stopped.log
    assert corrected in job.shapes


# --- whose a number is ---------------------------------------------------------------------------


def without_receipts(monkeypatch):
    """As on another machine."""
    monkeypatch.setattr("cvat_action.commands.numbers_of_seeds", lambda server, job: {})


def a_result(frame, points, number):
    score = marked_score(0.9, Mark(number, 5), frame)
    kind = "rectangle" if len(points) == 4 else "polygon"
    return shape(kind, points, id=2000 + frame, frame=frame, source="auto", score=score)


def edges_by_frame(job):
    return sorted((s["frame"], s["points"][0]) for s in job.shapes)


def passing(act, job, hidden, drawn):
    """A polygon tracked from frame 10 to 24 and hidden on some frames; another one is drawn."""
    job.shapes = [shape("polygon", POLYGON, id=900)]
    assert act(*TRACK, 10, "--target-frame", 24).code == 0
    job.shapes = [s for s in job.shapes if s["frame"] not in hidden] + [drawn]
    return [s for s in job.shapes if s["frame"] > drawn["frame"]]


def test_a_drawing_takes_over_no_number_of_an_object_that_passes_there_later(act, cvat, job):
    drawn = shape("polygon", shifted(POLYGON, 8), id=950, frame=14)
    passed = passing(act, job, range(12, 17), drawn)
    to_24 = (*TRACK, 14, "--target-frame", 24)
    assert act(*to_24).code == 0, "nothing of it is there yet"
    assert act(*to_24, "--replace").code == 0
    assert all(s in job.shapes for s in passed)
    from_10 = (*TRACK, 10, "--target-frame", 24, CONVERT, "--replace")
    assert act(*from_10).code == 0
    assert drawn in job.shapes
    assert len([s for s in job.shapes if s["frame"] > 14]) == 10


def test_a_drawing_takes_over_no_number_of_another_drawing_on_the_next_frame(act, cvat, job):
    drawn = shape("polygon", shifted(POLYGON, 4), id=950, frame=14)
    passed = passing(act, job, [14], drawn)
    done = act(*TRACK, 14, "--target-frame", 24, "--replace")
    assert done.code == 0
    assert all(s in job.shapes for s in passed)
    assert (
        "Object 950: on frame 15 it lies where results of object 900 (frame 10) are; these stay. "
        "If both are one object, track that one with --keyframes instead."
    ) in done.log


def test_a_result_that_is_drawn_anew_becomes_the_objects_with_keyframes(act, cvat, job):
    drawn = shape("polygon", shifted(POLYGON, 5), id=950, frame=14)
    passing(act, job, [14], drawn)
    to_24 = (*TRACK, 10, "--target-frame", 24, "--replace", "--keyframes", "--object", 900)
    assert act(*to_24).code == 0
    edges = dict(edges_by_frame(job))
    assert len(edges) == len(job.shapes) == 15
    assert (edges[13], edges[14], edges[15]) == (7, 9, 10)


def test_all_seeds_take_nothing_before_a_drawing_for_its_results(act, cvat, job):
    before = shape("mask", MASK, id=901, frame=11, source="auto")
    drawn = shape("mask", MASK, id=950, frame=12)
    job.shapes = [shape("rectangle", RECTANGLE, id=900), before, drawn]
    assert act(*TO_13, "--all-seeds").code == 0
    assert {901, 950} < {s["id"] for s in job.shapes}


def test_a_drawing_takes_over_no_number_of_a_track(act, cvat, job):
    converted_in_part(act, job)
    drawn = shape("polygon", shifted(POLYGON, 4), id=950, frame=12)
    job.shapes = [*job.shapes, drawn]
    left = [s for s in job.shapes if s["frame"] > 12]
    assert act(*TRACK, 12, "--target-frame", 16, "--object", 950, "--replace").code == 0
    assert all(s in job.shapes for s in left)


def test_a_drawing_that_was_edited_takes_over_its_number_on_the_next_frame(
    act, cvat, job, monkeypatch
):
    without_receipts(monkeypatch)
    job.shapes = [shape("rectangle", RECTANGLE, id=900)]
    assert act(*TO_13).code == 0
    job.shapes[0]["points"] = shifted(RECTANGLE, 2)
    assert act(*TO_13, "--replace").code == 0
    assert edges_by_frame(job) == [(10, 6), (11, 7), (12, 8), (13, 9)]


def test_a_number_without_a_drawing_is_not_taken_over_at_a_distance(act, cvat, job):
    later = [a_result(frame, RECTANGLE, number=77) for frame in (12, 13)]
    job.shapes = [shape("rectangle", RECTANGLE, id=900), *later]
    assert act(*TO_13, "--replace").code == 0
    assert all(s in job.shapes for s in later)


def test_of_two_drawings_one_takes_over_a_number(act, cvat, job):
    left, right = [4.0, 30.0, 16.0, 38.0], [12.0, 31.0, 24.0, 39.0]
    job.shapes = [shape("rectangle", left, id=900), shape("rectangle", right, id=901)]
    job.shapes += [a_result(11, shifted(left, 1), number=77), a_result(12, right, number=77)]
    assert act(*TO_13, "--replace").code == 0
    assert edges_by_frame(job) == [
        (10, 4), (10, 12), (11, 5), (11, 13), (12, 6), (12, 14), (13, 7), (13, 15),
    ]  # fmt: skip


def labels_by_frame(job):
    return sorted((s["frame"], s["label_id"]) for s in job.shapes)


@pytest.mark.parametrize("receipts", [True, False], ids=["receipts", "no receipts"])
def test_one_outline_with_two_labels_is_two_objects_in_two_runs(
    act, cvat, job, monkeypatch, receipts
):
    if not receipts:
        without_receipts(monkeypatch)
    outline = [shape("rectangle", RECTANGLE, id=901 - n, label_id=8 - n) for n in (0, 1)]
    job.shapes = outline
    for label in ("person", "car"):
        assert act(*TO_13, "--label", label).code == 0
    both = [(frame, label) for frame in (10, 11, 12, 13) for label in (7, 8)]
    assert labels_by_frame(job) == both
    for label in ("person", "car"):
        assert act(*TO_13, "--label", label, "--replace").code == 0
    assert labels_by_frame(job) == both


def test_a_drawing_keeps_its_number_when_its_outline_is_drawn_again(act, cvat, job):
    job.shapes = [shape("rectangle", RECTANGLE, id=901)]
    assert act(*TO_13).code == 0
    first = [s for s in job.shapes if s["frame"] > 10]
    # an id that CVAT gave before; of the two only the later one has results
    job.shapes = [*job.shapes, shape("rectangle", RECTANGLE, id=900, label_id=8)]
    assert act(*TO_13, "--label", "person", "--replace").code == 0
    assert all(s in job.shapes for s in first)


def test_a_run_over_one_outline_with_two_labels_starts_each_again_from_its_own(
    act, cvat, job, monkeypatch
):
    without_receipts(monkeypatch)
    job.shapes = [shape("rectangle", RECTANGLE, id=900 + n, label_id=7 + n) for n in (0, 1)]
    assert act(*TRACK, 10, "--target-frame", 8, "--backward").code == 0
    assert act(*TRACK, 8, "--target-frame", 12, "--label", "person", "--replace").code == 0
    assert labels_by_frame(job) == [
        (8, 7), (8, 8), (9, 7), (9, 8), (10, 7), (10, 8), (11, 8), (12, 8),
    ]  # fmt: skip


def test_two_runs_at_once_convert_one_outline_with_two_labels(act, cvat, job, function):
    job.shapes = [shape("polygon", POLYGON, id=900 + n, label_id=7 + n) for n in (0, 1)]
    runs = []

    def another_run(frame, count):
        if frame == 12 and not runs:
            runs.append(frame)
            assert act(*TO_13, CONVERT, "--label", "car").code == 0

    function.refuse = another_run
    journal = Path(os.environ["XDG_STATE_HOME"]) / "second.jsonl"
    assert act(*TO_13, CONVERT, "--label", "person", "--journal", journal).code == 0
    assert sorted(t["label_id"] for t in job.tracks) == [7, 8]
    assert job.shapes == []


# --- tracks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--sparse",)])
def test_a_new_track_is_hidden_where_a_person_drew_a_polygon_in_its_place(act, cvat, job, more):
    drawn = shape("polygon", shifted(POLYGON, 2), id=901, frame=12)
    job.shapes = [shape("polygon", POLYGON, id=900), drawn]
    done = act(*TRACK, 10, "--target-frame", 14, CONVERT, *more)
    assert done.code == 3
    assert "Object 900, frame 12: a shape that this run did not write lies in its place" in done.log
    assert "--keyframes" in done.log
    assert job.shapes == [drawn]
    held = keyframes_of(job.tracks[0])
    hidden = [position_among(held, f)["outside"] for f in range(10, 15)]
    assert hidden == [False, False, True, False, False]


def test_a_new_track_is_hidden_where_a_person_corrects_its_earlier_result_meanwhile(
    act, cvat, job, function
):
    job.shapes = [shape("polygon", POLYGON, id=900)]
    assert act(*TO_13).code == 0
    twelve = next(s for s in job.shapes if s["frame"] == 12)

    def correct(frame, count):
        if frame == 12:
            twelve["points"], twelve["source"] = shifted(POLYGON, 7), "semi-auto"

    function.refuse = correct
    done = act(*TO_13, CONVERT, "--replace")
    assert done.code == 3
    assert "frame 12: changed by a person while it was tracked; it was kept" in done.log
    assert job.shapes == [twelve]
    assert position_among(keyframes_of(job.tracks[0]), 12)["outside"]


def test_what_a_person_hides_while_it_is_tracked_stays_hidden(act, cvat, job, function):
    job.tracks = [track(keyframe(10, POLYGON), id=5)]

    def hide(frame, count):
        """As the page does: the new keyframe has the points that held there."""
        if frame == 12:
            (held,) = job.tracks
            hidden = keyframe(11, POLYGON, outside=True)
            job.tracks = [{**held, "source": "semi-auto", "shapes": [*held["shapes"], hidden]}]

    function.refuse = hide
    act(*TO_13)
    assert position_among(keyframes_of(job.tracks[0]), 11)["outside"]


def test_backwards_an_object_that_is_lost_where_a_run_broke_is_not_shown(act, cvat, job, function):
    job.shapes = [shape("polygon", POLYGON, id=900, frame=20)]
    function.lost = {(2, 15)}
    breaks_on(function, 14)
    ended = act(*TRACK, 20, "--target-frame", 10, "--backward", CONVERT, "--wait", 0)
    assert ended.code == 4
    goes_on(function)
    assert act("track", "--resume", journal_of(ended)).code == 0
    hidden = [position_among(keyframes_of(job.tracks[0]), f)["outside"] for f in (14, 15, 16)]
    assert hidden == [False, True, False]


def test_backwards_an_object_that_is_lost_where_a_stage_ends_is_not_shown(
    act, cvat, long_job, function  # noqa: F811
):  # fmt: skip
    long_job.shapes = [shape("polygon", POLYGON, id=900, frame=255)]
    function.lost = {(2, 55)}
    assert act(*TRACK, 255, "--target-frame", 20, "--backward", CONVERT).code == 0
    assert position_among(keyframes_of(long_job.tracks[0]), 55)["outside"]


def test_a_run_over_nothing_but_deleted_keyframes_changes_nothing(act, cvat, job):
    job.tracks = [track(keyframe(10, POLYGON), id=5)]
    assert act(*TRACK, 10, "--target-frame", 20).code == 0
    (made,) = job.tracks
    made["shapes"] = [k for k in made["shapes"] if k["frame"] not in (13, 14)]
    assert act(*TRACK, 12, "--target-frame", 14).code == 0
    assert not {k["frame"] for k in job.tracks[0]["shapes"]} & {13, 14}


def test_sparse_keyframes_turn_no_box_beside_one_that_a_person_turned(act, cvat, job):
    box = [10.0, 20.0, 40.0, 26.0]
    job.tracks = [track(keyframe(10, box), keyframe(16, shifted(box, 6), rotation=90.0), id=5)]
    assert act(*TRACK, 10, "--target-frame", 20, "--sparse").code == 0
    held = keyframes_of(job.tracks[0])
    assert [position_among(held, f)["rotation"] for f in (11, 15, 16, 17)] == [0, 0, 90, 0]


def test_a_turned_box_that_is_lost_at_the_end_is_shown_again_as_it_was(act, cvat, job, function):
    function.lost = {(20, 14)}
    box = [10.0, 20.0, 40.0, 26.0]
    job.tracks = [track(keyframe(10, box), keyframe(20, box, rotation=50.0), id=5)]
    before = position_among(job.tracks[0]["shapes"], 15)
    assert before["rotation"] == 25
    assert act(*TRACK, 10, "--target-frame", 14).code == 0
    after = position_among(keyframes_of(job.tracks[0]), 15)
    assert (after["rotation"], after["outside"]) == (25, False)


# --- both ways -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_resume_with_both_ways_that_fails_keeps_its_journal(
    act, cvat, long_job, function  # noqa: F811
):  # fmt: skip
    long_job.shapes = [
        shape("mask", mask(300), id=900, frame=0, group=3),
        shape("mask", mask(10), id=1050, frame=150, group=3),
    ]
    cvat.faults = [Fault("PATCH", ".*", 503, "away", times=1)]
    both_ways = (*TRACK, 0, "--target-frame", 240, "--object", 900, "--both-ways")
    ended = act(*both_ways, "--wait", 0)
    assert ended.code == 4
    function.refuse = lambda frame, count: 503
    act("track", "--resume", journal_of(ended), "--wait", 0)
    assert Path(journal_of(ended)).is_file()


def test_both_ways_a_drawing_that_cannot_be_started_is_told(act, cvat, job, function):
    job.shapes = [shape("mask", MASK, id=900 + f, frame=f, group=1) for f in (10, 14)]
    function.errors[20, 14] = [{"code": "bad_shape", "message": "It cannot be read."}]
    done = act(*TRACK, 10, "--target-frame", 18, "--both-ways", "--object", 910)
    assert done.code == 3
    assert "not started on frame 14: The function refused it: " in done.out


@pytest.mark.slow
def test_both_ways_an_object_that_stopped_in_one_gap_goes_on_in_the_next_after_a_resume(
    act, cvat, long_job, function  # noqa: F811
):  # fmt: skip
    long_job.shapes = [shape("mask", mask(9), id=900 + f, frame=f, group=3) for f in (0, 150, 220)]
    function.errors[20, 150] = [{"code": "bad_shape", "message": "It cannot be read."}] * 2
    cvat.faults = [Fault("PATCH", ".*", 503, "away", times=1)]
    both_ways = (*TRACK, 0, "--target-frame", 240, "--object", 900, "--both-ways")
    ended = act(*both_ways, "--wait", 0)
    assert ended.code == 4
    assert act("track", "--resume", journal_of(ended)).code == 3
    assert {f for f, _, _ in left_edges(long_job)} == {*range(151), *range(220, 241)}


# --- a run that goes on --------------------------------------------------------------------------


def test_a_resume_goes_on_though_only_the_last_look_failed(
    act, cvat, job, detector, monkeypatch  # noqa: F811
):  # fmt: skip
    stage = Journal.stage

    def then_away(self, *told):
        stage(self, *told)
        cvat.faults = [Fault("GET", ".*/annotations/", 503, "away", times=99)]

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "stage", then_away)
        ended = act(*DETECT)
    assert ended.code == 4
    cvat.faults = []
    assert act("track", "--resume", journal_of(ended)).code == 0


def test_a_resume_leaves_what_would_be_written_again_as_it_is(act, cvat, job, function):
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    assert act(*TO_13).code == 0
    ids = sorted(s["id"] for s in job.shapes)
    breaks_on(function, 12)
    ended = act(*TO_13, "--replace", "--wait", 0)
    assert ended.code == 4
    goes_on(function)
    assert act("track", "--resume", journal_of(ended)).code == 0
    assert sorted(s["id"] for s in job.shapes) == ids


@pytest.mark.slow
def test_the_exit_code_of_a_resume_knows_what_was_left_out_before(
    act, cvat, long_job, function  # noqa: F811
):  # fmt: skip
    long_job.shapes = [shape("mask", mask(10), id=900, frame=0)]

    def person_draws(frame, count):
        if frame == 100 and len(long_job.shapes) == 1:
            drawn = shape("mask", mask(160), id=5000, frame=150)
            long_job.shapes = [*long_job.shapes, drawn]
        return 503 if frame == 230 else None

    function.refuse = person_draws
    ended = act(*TRACK, 0, "--target-frame", 240, "--wait", 0)
    assert ended.code == 4
    goes_on(function)
    done = act("track", "--resume", journal_of(ended), "--json")
    assert done.code == 3
    assert [left["frames"] for left in done.json["left_out"]] == [[150]]


def test_a_journal_of_another_version_can_be_dropped(act, cvat, job, function):
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    breaks_on(function, 12)
    journal = Path(journal_of(act(*TO_13, "--wait", 0)))
    journal.write_text(re.sub(r'"journal": \d+', '"journal": 1', journal.read_text(), count=1))
    assert f"drop it: discard {journal}" in act("track", "--resume", journal).log
    assert act("discard", journal).code == 0
    assert not journal.exists()


def test_a_file_that_is_no_journal_is_not_dropped(act, tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text('{"title": "On tracks"}\n')
    assert act("discard", path).code == 1
    assert path.is_file()


def test_nothing_can_fail_between_the_journal_and_the_first_frame(act, cvat, job):
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    cvat.faults = [Fault("GET", "/api/lambda/functions", 503, "away", skip=1)]
    assert act(*TO_13, "--wait", 0).code == 0
    assert waiting(act) == []


# --- what is told --------------------------------------------------------------------------------


def test_a_label_that_the_terminal_cannot_show_ends_no_run(act, cvat, job, monkeypatch):
    cvat.jobs[42].labels = [{**LABELS[0], "name": "車"}, LABELS[1]]
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    shown = BytesIO()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", TextIOWrapper(shown, encoding="iso-8859-1"))
        assert act(*TO_13).code == 0
        assert rb"\u8eca" in shown.getvalue()
    assert waiting(act) == []


@pytest.mark.slow
def test_a_pipe_that_was_closed_leaves_no_journal(cvat, job, tmp_path):
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    process = command(cvat, tmp_path, *TO_13)
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(WAIT) == 0
    assert "The summary could not be printed: Broken pipe." in said
    assert "Traceback" not in said
    assert len(job.shapes) == 4
    assert list(tmp_path.glob("cvat-action/*.jsonl")) == []


def test_an_object_that_is_named_and_left_alone_counts_by_any_of_its_names(act, cvat, job):
    job.shapes = [
        shape("mask", MASK, id=900, score=1.0),
        shape("ellipse", RECTANGLE, id=901, score=1.0),
    ]
    assert act(*TO_13, "--object", "900", "--object", "shape:901").code == 3


# --- tasks ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_while_the_last_frames_of_a_job_are_written_ends_the_task(cvat, job, tmp_path):
    job.shapes = [shape("mask", MASK, id=900)]
    other = cvat.add_job(replace(job, id=44, shapes=[shape("mask", MASK, id=944)], tracks=[]))
    hold = threading.Event()
    cvat.faults = [Fault("PATCH", ".*", 503, "busy", hold=hold)]
    process = command(cvat, tmp_path, "track", "--task", 7, "--frame", 10, "--target-frame", 12)
    assert cvat.faults[0].reached.wait(WAIT)
    process.send_signal(signal.SIGINT)
    said = ""
    while "Writing what is done" not in said:
        said += process.stderr.readline()
    hold.set()
    _, rest = process.communicate(timeout=WAIT)
    assert process.returncode == 130
    assert "Stopped by Ctrl+C." in rest
    assert (len(job.shapes), len(other.shapes)) == (3, 1)


def test_a_job_that_cannot_be_read_does_not_stop_the_others_of_its_task(act, cvat, job):
    first = replace(job, id=41, shapes=[shape("mask", MASK, id=944)], tracks=[])
    cvat.add_job(first)
    job.shapes = [shape("mask", MASK, id=900)]
    cvat.faults = [Fault("GET", "/api/jobs/41/data/meta", 500, "x", times=99)]
    done = act("track", "--task", 7, "--frame", 10, "--target-frame", 12, "--wait", 0, "--json")
    assert done.code == 1
    assert [entry["job"] for entry in done.json] == [41, 42]
    assert len(job.shapes) == 3
