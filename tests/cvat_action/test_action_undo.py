# SPDX-License-Identifier: MIT
"""`undo` takes a run back by its receipt, except what a person changed since."""

import json

import pytest
from conftest import CONVERT, MOVING, ctrl_c
from look import by_frame, correct, frames_of, on_frame, places
from standin_cvat import Fault
from wire import POLYGON, keyframe, mask_at, shape, shifted, track

from cvat_action.snapshot import track_attributes

BLUE = [{"spec_id": 31, "value": "blue"}]


@pytest.fixture
def undo(act, receipts):
    """Takes back the run of a receipt, without one the last run."""
    return lambda path=None, code=0: act("undo", path or receipts()[-1], code=code)


def plain(objects):
    """Without ids, which a restored shape has new."""
    return sorted(
        repr([o["label_id"], o["source"], [(k["frame"], k["points"], k["outside"])
              for k in o.get("shapes", [o])]])
        for o in objects
    )  # fmt: skip


def test_undo_restores_what_was_there_before(job, track_to, undo, receipts, one_mask):
    job.shapes.append(shape("polygon", POLYGON, id=901, score=1.0))
    job.tracks = [track(keyframe(8, shifted(POLYGON, 9)), keyframe(20, POLYGON), id=5)]
    before = plain(job.shapes), plain(job.tracks)
    track_to(13, CONVERT)
    assert (len(job.shapes), len(job.tracks)) == (1 + 3, 2)
    assert receipts()[-1].stat().st_mode & 0o777 == 0o600
    for _ in range(2):
        assert undo().log == "", "it takes nothing of its own for a person's"
        assert (plain(job.shapes), plain(job.tracks)) == before


def test_undo_knows_what_was_created_though_the_answer_was_lost(
    cvat, job, track_to, undo, one_mask
):
    job.shapes.append(shape("polygon", POLYGON, id=901, score=1.0))
    before = plain(job.shapes), []
    cvat.faults = [Fault("PATCH", ".*", 504, "<html>", after=True, skip=n) for n in (0, 1)]
    track_to(13, CONVERT)
    assert len(job.shapes) == 1 + 3, "nothing is written twice"
    undo()
    assert (plain(job.shapes), plain(job.tracks)) == before


def test_half_a_line_in_a_receipt_does_not_spoil_the_next_one(
    job, cut_off, resume, undo, receipts, one_mask
):
    ended = cut_off(12, 13)
    with receipts()[-1].open("ab") as file:
        file.write(b'{"deleted": [{"type": "ma')  # the process was killed here
    resume(ended)
    undo()
    assert frames_of(job.shapes) == [10]


# --- what a person changed since -----------------------------------------------------------------


def moved(job):
    return correct(job, 12, [0.0, 1.0, 3.0, 3.0, 3.0, 3.0])


def named(job):
    on_frame(job, 12)["attributes"] = BLUE  # CVAT's page leaves the source
    return on_frame(job, 12)


@pytest.mark.parametrize("change", [moved, named])
def test_undo_keeps_what_a_person_changed_since(job, track_to, undo, one_mask, change):
    track_to(13)
    number = change(job)["id"]
    assert f"A person or a later run changed shape {number} since; it was kept." in undo(code=3).log
    assert frames_of(job.shapes) == [10, 12]


@pytest.mark.parametrize("made", [True, False], ids=["made by the run", "edited by it"])
def test_undo_leaves_a_track_of_which_a_person_set_an_attribute(
    job, track_to, undo, one_polygon, made
):
    if not made:
        job.shapes, job.tracks = [], [track(keyframe(10, POLYGON), id=5)]
    track_to(13, CONVERT)
    named = job.tracks[0] if made else job.tracks[0]["shapes"][1]
    named["attributes"] = BLUE if made else [MOVING]
    undo(code=3)
    assert frames_of(job.tracks[0]["shapes"]) == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("cut", [False, True], ids=["between two writes", "before it went on"])
@pytest.mark.parametrize("made", [True, False], ids=["made by the run", "edited by it"])
def test_undo_leaves_a_track_that_a_person_corrected_between_two_writes_of_the_run(
    job, track_to, cut_off, resume, undo, one_polygon, function, monkeypatch, made, cut
):
    monkeypatch.setattr("cvat_action.run.STAGE_FRAMES", 2)
    if not made:
        job.shapes, job.tracks = [], [track(keyframe(10, POLYGON), id=5)]

    def drag():
        job.tracks[0]["shapes"][1]["points"] = shifted(POLYGON, 3)

    if cut:
        ended = cut_off(13, 14, CONVERT)
        drag()
        resume(ended)
    else:
        function.meanwhile[13] = drag
        track_to(14, CONVERT)
    assert frames_of(job.tracks[0]["shapes"]) == [10, 11, 12, 13, 14, 15]
    written = plain(job.tracks)
    assert f"changed track {job.tracks[0]['id']} since; it was kept." in undo(code=3).log
    assert plain(job.tracks) == written
    assert places(job.tracks[0]["shapes"])[1] == (11, shifted(POLYGON, 3)[0])


def test_undo_takes_a_track_back_that_the_run_wrote_in_several_parts(
    cvat, job, track_to, undo, one_polygon, monkeypatch
):
    monkeypatch.setattr("cvat_action.run.STAGE_FRAMES", 2)
    job.tracks = [track(keyframe(10, shifted(POLYGON, 9)), id=5)]
    before = plain(job.shapes), plain(job.tracks)
    cvat.faults = [Fault("PATCH", ".*", 504, "<html>", after=n % 2 > 0, skip=n) for n in range(6)]
    track_to(16, CONVERT)
    cvat.faults = []
    assert undo().log == ""
    assert (plain(job.shapes), plain(job.tracks)) == before


def test_attributes_of_a_track_that_cvat_fills_up_are_no_change():
    first = keyframe(10, POLYGON, attributes=[{"spec_id": 32, "value": "true"}])
    sent = track(first, keyframe(11, POLYGON))
    filled = track(first, {**first, "frame": 11}, attributes=[{"spec_id": 31, "value": "red"}])
    assert track_attributes(sent, {31: "red", 32: "false"}) == track_attributes(filled)
    assert track_attributes(sent, {31: "blue"}) != track_attributes(filled)


def test_undo_restores_nothing_beside_what_a_person_corrected(
    job, track_to, undo, one_mask, function
):
    track_to(13)
    moves(function, 9, (12, 13))
    track_to(13, "--replace")
    corrected = correct(job, 12, mask_at(30))
    assert f"A person or a later run changed shape {corrected['id']} since" in undo(code=3).log
    # on 13 nobody changed anything: what the run replaced is back
    assert places(s for s in job.shapes if s["frame"] > 11) == [(12, 30), (13, 7)]


@pytest.mark.parametrize("also_drawn", [False, True], ids=["the polygon", "and a later drawing"])
def test_undo_restores_no_drawing_beside_its_track_that_a_person_corrected(
    job, track_to, undo, one_polygon, also_drawn
):
    if also_drawn:
        job.shapes.append(shape("polygon", shifted(POLYGON, 2), id=902, frame=12, score=1.0))
    track_to(14, "--keyframes", CONVERT, "--object", 900)
    assert job.shapes == []
    by_frame(job.tracks[0])[13]["points"] = shifted(POLYGON, 7)
    assert "0 shapes restored" in undo(code=3).out
    assert (len(job.tracks), job.shapes) == (1, [])


# --- several runs --------------------------------------------------------------------------------


def moves(function, left, frames=(11, 12, 13)):
    """Where the function finds the mask from now on."""
    function.answers = {(20, f): {"type": "mask", "points": mask_at(left)} for f in frames}


@pytest.mark.parametrize("scores", [True, False], ids=["scores", "a server that keeps no scores"])
def test_undo_restores_results_whose_place_is_that_of_the_new_ones(
    cvat, job, track_to, undo, one_mask, scores
):
    cvat.keeps_scores = scores
    track_to(13)
    if scores:
        job.shapes[0]["attributes"] = BLUE  # only the drawing's
    track_to(13, "--replace")
    undo()
    assert frames_of(job.shapes) == [10, 11, 12, 13]


@pytest.fixture
def two_runs(track_to, receipts, one_mask, function):
    """Their receipts; the second one replaced what the first one had written."""
    track_to(13)
    moves(function, 30)
    track_to(13, "--replace")
    return receipts()


FIRST = [(10, 4), (11, 5), (12, 6), (13, 7)]


@pytest.fixture
def both_are_undone(job, undo, two_runs):
    """Takes the second run back, and then the first one."""

    def both_are_undone():
        for path, left in zip(two_runs[::-1], (FIRST, FIRST[:1]), strict=True):
            undo(path)
            assert places(job.shapes) == left

    return both_are_undone


@pytest.mark.parametrize("how", ["refused half way", "stopped before it notes the new ids"])
def test_an_undo_that_breaks_off_can_be_repeated(
    cvat, undo, two_runs, both_are_undone, monkeypatch, how
):
    with monkeypatch.context() as patched:
        if how == "refused half way":
            cvat.faults = [Fault("PATCH", ".*", 403, "no", skip=1)]
        else:
            patched.setattr("cvat_action.undo.tell_restored", ctrl_c)
        undo(code=1 if cvat.faults else 130)
    both_are_undone()


@pytest.mark.parametrize("after", [True, False], ids=["carried out", "not carried out"])
@pytest.mark.parametrize("skip", [0, 1])
def test_undo_waits_for_a_cvat_that_restarts(cvat, two_runs, both_are_undone, skip, after):
    cvat.faults = [Fault("PATCH", ".*", 502, "<html>", skip=skip, after=after)]
    both_are_undone()


def test_an_undo_that_breaks_off_between_two_requests_restores_all_when_repeated(
    cvat, job, track_to, undo, one_mask, function, monkeypatch
):
    monkeypatch.setattr("cvat_action.cvat_sink.MOST_OBJECTS", 1)
    track_to(13)
    moves(function, 20)
    track_to(13, "--keep-earlier")
    both = places(job.shapes)
    function.answers = {}
    function.lost = {(20, f) for f in (11, 12, 13)}
    track_to(13, "--replace")
    assert places(job.shapes) == FIRST[:1]
    cvat.faults = [Fault("PATCH", ".*", 403, "no", skip=2)]
    undo(code=1)
    undo()
    assert places(job.shapes) == both


def test_a_request_of_undo_is_no_larger_than_one_of_the_run(
    cvat, track_to, undo, masks, monkeypatch
):
    monkeypatch.setattr("cvat_action.cvat_sink.MOST_BYTES", 1500)
    track_to(14)
    undo()
    patches = [(query["action"], body) for m, _, query, body in cvat.requests if m == "PATCH"]
    assert {action for action, _ in patches} == {"create", "delete"}
    assert max(len(json.dumps(body)) for _, body in patches) < 1700


def test_undo_restores_nothing_beside_the_results_of_a_later_run(
    job, track_to, undo, receipts, two_runs, function
):
    moves(function, 40)
    track_to(13, "--replace")
    first, second, third = receipts()
    before = places(job.shapes)
    undone = undo(second, code=3)
    assert "on frame 11, 12, 13 is not restored: a later run's results are there" in undone.log
    assert f"undo {third}" in undone.log
    assert places(job.shapes) == before
    for path, left in ((third, [(11, 30)]), (second, [(11, 5)]), (first, [])):
        undo(path)
        assert places(s for s in job.shapes if s["frame"] == 11) == left
    assert places(job.shapes) == FIRST[:1]


def test_undo_restores_a_result_though_another_object_has_an_equal_one(
    job, track_to, undo, function
):
    job.shapes = [shape("mask", mask_at(4, y), id=y) for y in (20, 30)]
    equal = {"type": "mask", "points": mask_at(8, 20)}
    function.answers = {(y, frame): equal for y in (20, 30) for frame in (11, 12)}
    track_to(12)
    before = plain(job.shapes)
    function.answers = {}
    track_to(12, "--replace", "--object", 20)
    undo()
    assert plain(job.shapes) == before


def test_undo_restores_nothing_beside_the_track_of_a_later_run(
    job, track_to, undo, receipts, one_polygon, function
):
    track_to(13)
    elsewhere = {"type": "polygon", "points": shifted(POLYGON, 20)}
    function.answers = {(2, f): elsewhere for f in (11, 12, 13)}
    track_to(13, "--replace")
    track_to(13, CONVERT, "--replace")
    undo(receipts()[1], code=3)
    assert (len(job.tracks), job.shapes) == (1, [])
    for path in receipts()[::-1]:
        undo(path)
    assert frames_of(job.shapes) == [10]
    assert job.tracks == []


def test_undo_once_more_restores_nothing_that_a_person_deleted_since(job, undo, two_runs):
    first, second = two_runs
    undo(second)
    job.shapes = [s for s in job.shapes if s["frame"] in (10, 11)]
    undo(second)
    assert places(job.shapes) == FIRST[:2]
    undo(first)
    assert places(job.shapes) == FIRST[:1]


def test_a_run_that_was_taken_back_does_not_go_on(act, job, cut_off, resume, undo, track_to):
    """It would leave the frames empty that it had written."""
    job.shapes = [shape("mask", mask_at(4), id=900)]
    ended = cut_off(15, 20)
    undo()
    told = resume(ended, code=1).log
    assert f"discard {ended.journal}; then track anew" in told
    assert frames_of(job.shapes) == [10]
    assert "was cut off, and taken back with undo" in act("runs").out
    assert "was taken back with undo: drop it: " in track_to(20, code=1).log
    act("discard", ended.journal)
    track_to(20)
    assert frames_of(job.shapes) == list(range(10, 21))


def test_a_run_goes_on_after_an_undo_that_cvat_refused(cvat, job, cut_off, resume, undo):
    job.shapes = [shape("mask", mask_at(4), id=900)]
    ended = cut_off(15, 20)
    cvat.faults = [Fault("PATCH", ".*", 403, "You may only read.", times=1)]
    undo(code=1)
    resume(ended)
    assert frames_of(job.shapes) == list(range(10, 21))
