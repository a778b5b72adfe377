# SPDX-License-Identifier: MIT
"""Receipts: `undo` takes a run back, `runs` lists, `discard` drops."""

from pathlib import Path

import pytest
from conftest import MASK, POLYGON, keyframe, shape, shifted, track
from standin_cvat import Fault

from cvat_action.snapshot import track_attributes

TO_13 = ("track", "--job", 42, "--frame", 10, "--target-frame", 13)
CONVERT = "--convert-polygon-shapes-to-tracks"


def plain(objects):
    """Without ids, which a restored shape has new."""
    return sorted(
        repr([o["label_id"], o["source"], [(k["frame"], k["points"], k["outside"])
              for k in o.get("shapes", [o])]])
        for o in objects
    )  # fmt: skip


def receipts(act):
    """Oldest first."""
    paths = [Path(r["receipt"]) for r in act("runs", "--json").json["receipts"]]
    return sorted(paths, key=lambda path: path.stat().st_mtime_ns)


def receipt(act):
    return receipts(act)[-1]


def test_undo_restores_what_was_there_before(cvat, job, act, function):
    job.shapes = [
        shape("mask", MASK, id=900, score=1.0),
        shape("polygon", POLYGON, id=901, score=1.0),
    ]
    job.tracks = [track(keyframe(8, shifted(POLYGON, 9)), keyframe(20, POLYGON), id=5)]
    before = plain(job.shapes), plain(job.tracks)
    assert act(*TO_13, CONVERT).code == 0
    assert len(job.shapes) == 1 + 3
    assert len(job.tracks) == 2
    assert receipt(act).stat().st_mode & 0o777 == 0o600
    undone = act("undo", receipt(act))
    assert undone.code == 0
    assert (plain(job.shapes), plain(job.tracks)) == before
    again = act("undo", receipt(act))
    assert (again.code, again.log) == (0, ""), "it takes nothing of its own for a person's"
    assert (plain(job.shapes), plain(job.tracks)) == before


def test_undo_knows_what_was_created_though_the_answer_was_lost(cvat, job, act):
    job.shapes = [
        shape("mask", MASK, id=900, score=1.0),
        shape("polygon", POLYGON, id=901, score=1.0),
    ]
    before = plain(job.shapes), []
    cvat.faults = [Fault("PATCH", ".*", 504, "<html>", after=True, skip=n) for n in (0, 1)]
    assert act(*TO_13, CONVERT).code == 0
    assert len(job.shapes) == 1 + 3
    assert act("undo", receipt(act)).code == 0
    assert (plain(job.shapes), plain(job.tracks)) == before


def test_undo_keeps_what_a_person_changed_since(cvat, job, act, function):
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    assert act(*TO_13).code == 0
    edited = next(s for s in job.shapes if s["frame"] == 12)
    edited["points"], edited["source"] = [0.0, 1.0, 3.0, 3.0, 3.0, 3.0], "semi-auto"
    undone = act("undo", receipt(act))
    assert undone.code == 3
    assert f"A person or a later run changed shape {edited['id']} since; it was kept." in undone.log
    assert sorted(s["frame"] for s in job.shapes) == [10, 12]


def test_runs_lists_what_waits_and_discard_drops_it(cvat, job, act, function):
    assert "There are no journals and no receipts." in act("runs").out
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    function.refuse = lambda frame, count: 503 if frame == 12 else None
    assert act(*TO_13, "--wait", 0).code == 4
    (waiting,) = act("runs", "--json").json["waiting"]
    assert (waiting["job"], waiting["frames"], waiting["tracked"]) == (42, 3, 1)
    assert not waiting["going_on"]
    function.refuse = lambda frame, count: None
    assert "was cut off" in act(*TO_13).log, "the journal that waits is named first"
    assert act("discard", waiting["journal"]).code == 0
    assert act("runs", "--json").json["waiting"] == []
    assert act(*TO_13, "--replace").code == 0
    assert sorted(s["frame"] for s in job.shapes) == [10, 11, 12, 13]


def test_undo_restores_nothing_beside_what_a_person_corrected(act, cvat, job, function):
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    assert act(*TO_13).code == 0
    elsewhere = {"type": "mask", "points": [0, 3, 1, 4, 9, 20, 12, 21]}
    function.answers = {(20, 12): elsewhere, (20, 13): elsewhere}
    assert act(*TO_13, "--replace").code == 0
    replacing = receipt(act)
    corrected = next(s for s in job.shapes if s["frame"] == 12)
    corrected["points"], corrected["source"] = [0, 3, 1, 4, 30, 20, 33, 21], "semi-auto"
    undone = act("undo", replacing)
    assert undone.code == 3
    assert f"A person or a later run changed shape {corrected['id']} since" in undone.log
    assert [s["frame"] for s in job.shapes].count(12) == 1
    assert corrected in job.shapes
    # on 13 nobody changed anything: what the run replaced is back
    assert [s["points"][-4] for s in job.shapes if s["frame"] == 13] == [7]


def test_undo_restores_no_polygon_beside_its_track_that_a_person_corrected(act, cvat, job):
    job.shapes = [shape("polygon", POLYGON, id=901, score=1.0)]
    assert act(*TO_13, CONVERT).code == 0
    job.tracks[0]["shapes"][2]["points"] = shifted(POLYGON, 7)
    undone = act("undo", receipt(act))
    assert undone.code == 3
    assert "0 shapes restored" in undone.out
    assert job.shapes == []
    assert len(job.tracks) == 1


def test_undo_keeps_a_result_of_which_a_person_set_an_attribute(act, cvat, job):
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    assert act(*TO_13).code == 0
    named = next(s for s in job.shapes if s["frame"] == 12)
    named["attributes"] = [{"spec_id": 31, "value": "blue"}]  # CVAT's page leaves the source
    assert act("undo", receipt(act)).code == 3
    assert sorted(s["frame"] for s in job.shapes) == [10, 12]


def test_undo_restores_results_whose_place_is_that_of_the_new_ones(act, cvat, job):
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    assert act(*TO_13).code == 0
    job.shapes[0]["attributes"] = [{"spec_id": 31, "value": "blue"}]  # only the drawing's
    assert act(*TO_13, "--replace").code == 0
    assert act("undo", receipt(act)).code == 0
    assert sorted(s["frame"] for s in job.shapes) == [10, 11, 12, 13]


def test_undo_restores_results_on_a_server_that_keeps_no_scores(act, cvat, job):
    cvat.keeps_scores = False
    job.shapes = [shape("mask", MASK, id=900)]
    assert act(*TO_13).code == 0
    assert act(*TO_13, "--replace").code == 0
    assert act("undo", receipt(act)).code == 0
    assert sorted(s["frame"] for s in job.shapes) == [10, 11, 12, 13]


def test_two_runs_are_taken_back_one_after_the_other(act, cvat, job, function):
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    assert act(*TO_13).code == 0
    elsewhere = {"type": "mask", "points": [0, 3, 1, 4, 9, 20, 12, 21]}
    function.answers = {(20, f): elsewhere for f in (11, 12, 13)}
    assert act(*TO_13, "--replace").code == 0
    first, second = receipts(act)
    for path, left in ((second, [10, 11, 12, 13]), (first, [10])):
        assert act("undo", path).code == 0
        assert sorted(s["frame"] for s in job.shapes) == left


def test_undo_keeps_a_track_of_which_a_person_set_an_attribute(act, cvat, job):
    job.shapes = [shape("polygon", POLYGON, id=901, score=1.0)]
    assert act(*TO_13, CONVERT).code == 0
    job.tracks[0]["attributes"] = [{"spec_id": 31, "value": "blue"}]
    assert act("undo", receipt(act)).code == 3
    assert len(job.tracks) == 1


def test_undo_leaves_a_track_as_it_is_of_which_a_person_set_an_attribute(act, cvat, job):
    job.tracks = [track(keyframe(10, POLYGON), id=5)]
    assert act(*TO_13).code == 0
    job.tracks[0]["shapes"][1]["attributes"] = [{"spec_id": 32, "value": "true"}]
    assert act("undo", receipt(act)).code == 3
    assert len(job.tracks[0]["shapes"]) == 5


def test_attributes_of_a_track_that_cvat_fills_up_are_no_change():
    first = keyframe(10, POLYGON, attributes=[{"spec_id": 32, "value": "true"}])
    sent = track(first, keyframe(11, POLYGON))
    filled = track(first, {**first, "frame": 11}, attributes=[{"spec_id": 31, "value": "red"}])
    assert track_attributes(sent, {31: "red", 32: "false"}) == track_attributes(filled)
    assert track_attributes(sent, {31: "blue"}) != track_attributes(filled)


def test_undo_restores_no_drawing_beside_the_track_that_holds_it(act, cvat, job):
    job.shapes = [
        shape("polygon", POLYGON, id=901, group=3, score=1.0),
        shape("polygon", shifted(POLYGON, 2), id=902, frame=12, group=3, score=1.0),
    ]
    run = ("track", "--job", 42, "--frame", 10, "--target-frame", 14, "--object", 901)
    assert act(*run, "--keyframes", CONVERT).code == 0
    assert job.shapes == []
    thirteen = next(k for k in job.tracks[0]["shapes"] if k["frame"] == 13)
    thirteen["points"] = shifted(POLYGON, 7)
    assert act("undo", receipt(act)).code == 3
    assert (len(job.tracks), job.shapes) == (1, [])


def test_half_a_line_in_a_receipt_does_not_spoil_the_next_one(act, cvat, job, function):
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    function.refuse = lambda frame, count: 503 if frame == 12 else None
    ended = act(*TO_13, "--wait", 0)
    assert ended.code == 4
    with receipt(act).open("ab") as file:
        file.write(b'{"deleted": [{"type": "ma')  # the process was killed here
    function.refuse = lambda frame, count: None
    assert act("track", "--resume", ended.log.split("--resume ")[-1].split()[0]).code == 0
    assert act("undo", receipt(act)).code == 0
    assert [s["frame"] for s in job.shapes] == [10]


# --- an undo that breaks off, and the order of several -------------------------------------------


def moves(function, by):
    """What the function answers from now on, `by` pixels to the right."""
    points = [0, 3, 1, 4, by, 20, by + 3, 21]
    function.answers = {(20, f): {"type": "mask", "points": points} for f in (11, 12, 13)}


def two_runs(act, job, function):
    """Their receipts; the second one replaced what the first one had written."""
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    assert act(*TO_13).code == 0
    moves(function, 30)
    assert act(*TO_13, "--replace").code == 0
    return receipts(act)


def left_edges(job):
    return sorted((s["frame"], s["points"][-4]) for s in job.shapes)


FIRST = [(10, 4), (11, 5), (12, 6), (13, 7)]


def assert_both_are_undone(act, job, first, second):
    """The second run can be taken back, and then the first one."""
    assert act("undo", second).code == 0
    assert left_edges(job) == FIRST
    assert act("undo", first).code == 0
    assert left_edges(job) == FIRST[:1]


def test_an_undo_that_is_refused_half_way_and_repeated_leaves_the_earlier_one_possible(
    act, cvat, job, function
):
    first, second = two_runs(act, job, function)
    cvat.faults = [Fault("PATCH", ".*", 403, "no", skip=1)]
    assert act("undo", second).code == 1
    assert_both_are_undone(act, job, first, second)


def test_an_undo_that_is_stopped_before_it_notes_the_new_ids_can_be_repeated(
    act, cvat, job, function, monkeypatch
):
    first, second = two_runs(act, job, function)

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("cvat_action.undo.tell_restored", stopped)
        assert act("undo", second).code == 130
    assert_both_are_undone(act, job, first, second)


@pytest.mark.parametrize("after", [True, False], ids=["carried out", "not carried out"])
@pytest.mark.parametrize("skip", [0, 1])
def test_undo_waits_for_a_cvat_that_restarts(act, cvat, job, function, skip, after):
    first, second = two_runs(act, job, function)
    cvat.faults = [Fault("PATCH", ".*", 502, "<html>", skip=skip, after=after)]
    assert_both_are_undone(act, job, first, second)


def test_an_undo_that_breaks_off_between_two_requests_restores_all_when_repeated(
    act, cvat, job, function, monkeypatch
):
    monkeypatch.setattr("cvat_action.undo.MOST_OBJECTS", 1)
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    assert act(*TO_13).code == 0
    moves(function, 20)
    assert act(*TO_13, "--keep-earlier").code == 0
    both = left_edges(job)
    function.answers = {}
    function.lost = {(20, f) for f in (11, 12, 13)}
    assert act(*TO_13, "--replace").code == 0
    assert left_edges(job) == FIRST[:1]
    cvat.faults = [Fault("PATCH", ".*", 403, "no", skip=2)]
    last = receipt(act)
    assert act("undo", last).code == 1
    assert act("undo", last).code == 0
    assert left_edges(job) == both


def test_undo_restores_nothing_beside_the_results_of_a_later_run(act, cvat, job, function):
    first, second = two_runs(act, job, function)
    moves(function, 40)
    assert act(*TO_13, "--replace").code == 0
    third = receipt(act)
    before = left_edges(job)
    undone = act("undo", second)
    assert undone.code == 3
    assert "on frame 11, 12, 13 is not restored: a later run's results are there" in undone.log
    assert f"undo {third}" in undone.log
    assert left_edges(job) == before
    for path, left in ((third, (11, 30)), (second, (11, 5)), (first, None)):
        assert act("undo", path).code == 0
        assert [edge for edge in left_edges(job) if edge[0] == 11] == ([left] if left else [])
    assert left_edges(job) == FIRST[:1]


def test_undo_restores_nothing_beside_the_track_of_a_later_run(act, cvat, job, function):
    job.shapes = [shape("polygon", POLYGON, id=901, score=1.0)]
    assert act(*TO_13).code == 0
    moved = {"type": "polygon", "points": shifted(POLYGON, 20)}
    function.answers = {(2, f): moved for f in (11, 12, 13)}
    assert act(*TO_13, "--replace").code == 0
    second = receipt(act)
    assert act(*TO_13, CONVERT, "--replace").code == 0
    assert act("undo", second).code == 3
    assert job.shapes == []
    assert len(job.tracks) == 1
    for path in receipts(act)[::-1]:
        assert act("undo", path).code == 0
    assert [s["frame"] for s in job.shapes] == [10]
    assert job.tracks == []


def test_undo_once_more_restores_nothing_that_a_person_deleted_since(act, job, function):
    first, second = two_runs(act, job, function)
    assert act("undo", second).code == 0
    job.shapes = [s for s in job.shapes if s["frame"] in (10, 11)]
    assert act("undo", second).code == 0
    assert left_edges(job) == FIRST[:2]
    assert act("undo", first).code == 0
    assert left_edges(job) == FIRST[:1]
