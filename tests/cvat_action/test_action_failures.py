# SPDX-License-Identifier: MIT
"""Broken and slow answers, cut runs, permissions: what is kept, what is said, how it goes on."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import MASK, POLYGON, RECTANGLE, keyframe, shape, shifted, track
from standin_cvat import Fault
from urllib3.util.retry import Retry

from cvat_action import tracking
from cvat_action.errors import ActionError
from cvat_action.job import Job
from cvat_action.journal import Journal, read
from cvat_action.selection import Seed

CALL = r"/api/lambda/functions/.*"
WRITE = r"/api/jobs/42/annotations/"
TO_14 = ("track", "--job", 42, "--frame", 10, "--target-frame", 14)
CONVERT = "--convert-polygon-shapes-to-tracks"
ROOT = Path(__file__).parents[2]
WAIT = 200
"""seconds at most, for processes on a busy machine"""


def frames(shapes):
    return sorted(s["frame"] for s in shapes)


def journal_of(result):
    return result.log.split("--resume ")[-1].split()[0]


@pytest.fixture
def masks(job):
    """Three masks that the scripted function calls 20, 30 and 40."""
    job.shapes = [shape("mask", [0, 3, 1, 4, 4, y, 7, y + 1], id=y, group=y) for y in (20, 30, 40)]
    return job.shapes


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503, "body": "503 Server Error: Service Unavailable for url: http://x/"},
        {"status": 500, "body": "<h1>Server Error (500)</h1>"},
        {"status": 500, "body": '"500 Server Error: Internal Server Error for url: http://x/"'},
        {"status": 502, "body": "<html>bad gateway</html>"},
        {"drop": True},
    ],
)
def test_a_call_that_may_succeed_later_is_repeated(cvat, job, act, masks, function, fault):
    cvat.faults = [Fault("POST", CALL, times=2, **fault)]
    result = act(*TO_14)
    assert result.code == 0
    assert result.log.count("Trying again") == 2
    assert len(job.shapes) == 3 + 3 * 4
    assert [c for _, _, c in function.calls] == [[20, 30, 40]] * 5


def test_a_call_is_not_repeated_for_ever_and_what_is_done_is_kept(cvat, job, act, masks, function):
    function.refuse = lambda frame, count: 503 if frame == 13 else None
    result = act(*TO_14, "--wait", 0.025)
    assert result.code == 4
    assert result.log.count("Trying again") == 3
    assert result.log.count("CRITICAL") == 1
    assert "2 of 4 frames are tracked and written" in result.log
    assert frames(job.shapes) == [10] * 3 + [11] * 3 + [12] * 3

    function.refuse = lambda frame, count: None
    again = act("track", "--resume", journal_of(result))
    assert again.code == 0
    assert frames(job.shapes) == sorted([10, 11, 12, 13, 14] * 3)
    assert [s["points"][-4] for s in job.shapes if s["group"] == 20] == [4, 5, 6, 7, 8]
    assert not Path(journal_of(result)).exists()


@pytest.mark.parametrize("status", [408, 413, 504])
def test_too_much_for_one_call_is_sent_in_halves(cvat, job, act, masks, function, status):
    function.refuse = lambda frame, count: status if count > 2 else None
    result = act(*TO_14)
    assert result.code == 0
    assert len(job.shapes) == 3 + 3 * 4
    assert all(len(objects) <= 2 for _, _, objects in function.calls)


def test_a_frame_that_every_object_is_refused_on_ends_the_run_and_names_the_frame(
    cvat, job, act, masks, function
):
    """A picture that cannot be decoded must not stop all objects for good (A11)."""
    function.refuse = lambda frame, count: 400 if frame == 13 else None
    result = act(*TO_14)
    assert result.code == 4
    assert "Frame 13: every object was refused, each one alone." in result.log
    assert frames(job.shapes) == [10] * 3 + [11] * 3 + [12] * 3
    function.refuse = lambda frame, count: None
    assert act("track", "--resume", journal_of(result)).code == 0
    assert frames(job.shapes) == sorted([10, 11, 12, 13, 14] * 3)


def test_an_object_too_large_for_any_call_is_dropped_with_the_reason(
    cvat, job, act, masks, function
):
    answer = function.answer
    function.answer = lambda request: (
        (413, {})
        if len(request["shapes"]) == 3 or 30 in map(top, request["shapes"])
        else answer(request)
    )
    top = lambda s: s["points"][-3] if s else 0  # noqa: E731
    result = act(*TO_14)
    assert result.code == 3
    assert "Object 30: not started on frame 10: The function refused it: too many" in result.log
    assert frames(s for s in job.shapes if s["group"] == 30) == [10]
    assert frames(s for s in job.shapes if s["group"] == 40) == [10, 11, 12, 13, 14]


def test_a_body_over_nuclios_limit_is_sent_in_parts(cvat, job, act, masks, function):
    function.refuse = lambda frame, count: 400 if count > 1 else None
    assert act(*TO_14).code == 0
    assert len(job.shapes) == 3 + 3 * 4


def test_slow_calls_are_split_and_joined_again(cvat, job, act, masks, function, monkeypatch):
    clock = SimpleNamespace(now=0.0, sleep=time.sleep)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("cvat_action.tracking.time", clock)

    def takes(frame, count):
        clock.now += 9.0 * count if frame == 11 else 1.0
        return 0.0

    function.seconds = takes
    assert act(*TO_14, "--seconds-per-call", 25).code == 0
    sizes = [(frame, len(objects)) for _, frame, objects in function.calls]
    assert sizes[:2] == [(10, 3), (11, 3)]
    assert sizes[2:5] == [(12, 1), (12, 2), (13, 3)]
    assert len(job.shapes) == 3 + 3 * 4


def test_an_object_without_a_state_is_told_and_the_others_go_on(cvat, job, act, masks, function):
    """A function that knows no `errors` gives null, which CVAT signs as `null:...`."""
    answer = function.answer

    def without_state(request):
        status, columns = answer(request)
        del columns["errors"], columns["scores"]
        if not request["states"]:
            columns["states"][1] = None
        return status, columns

    function.answer = without_state
    result = act(*TO_14)
    assert result.code == 3
    assert "Object 30: not started on frame 10: the function gave no state for it" in result.log
    assert frames(job.shapes) == sorted([10] * 3 + [11, 12, 13, 14] * 2)


def test_objects_per_call_is_kept_to(cvat, job, act, masks, function):
    assert act(*TO_14, "--objects-per-call", 2).code == 0
    assert [len(objects) for _, _, objects in function.calls] == [2, 1] * 5


def test_an_object_that_lost_its_state_starts_again_from_its_last_good_result(
    cvat, job, act, masks, function
):
    gone = {"code": "state_gone", "message": "The state is no longer known."}
    function.errors = {(30, 13): [gone]}
    result = act(*TO_14)
    assert result.code == 0
    assert "Frame 13, object 30: The state is no longer known." in result.log
    assert ("start", 12, [30]) in function.calls
    assert [s["points"][-4] for s in job.shapes if s["group"] == 30] == [4, 5, 6, 7, 8]


def test_an_object_that_fails_twice_is_stopped_and_the_others_go_on(
    cvat, job, act, masks, function
):
    gone = {"code": "state_gone", "message": "The state is no longer known."}
    function.errors = {(30, 13): [gone, gone]}
    result = act(*TO_14, "--json")
    assert result.code == 3
    by_ref = {o["object"]: o for o in result.json["objects"]}
    assert by_ref["30"]["frames"] == 2
    assert "frame 13" in by_ref["30"]["stopped"]
    assert by_ref["20"]["frames"] == by_ref["40"]["frames"] == 4
    assert frames(s for s in job.shapes if s["group"] == 30) == [10, 11, 12]


def test_an_object_refused_at_the_start_is_told_and_the_others_go_on(
    cvat, job, act, masks, function
):
    function.errors = {(30, 10): [{"code": "empty_shape", "message": "The shape is empty."}]}
    result = act(*TO_14)
    assert result.code == 3
    assert "Object 30: not started on frame 10: The shape is empty." in result.log
    assert frames(s for s in job.shapes if s["group"] == 30) == [10]
    assert frames(s for s in job.shapes if s["group"] == 20) == [10, 11, 12, 13, 14]


def test_expired_states_start_all_objects_again(cvat, job, act, masks, function):
    sign = cvat._call_function
    expired = []

    def once_expired(function_id, query, body):
        if body["frame"] == 13 and not expired:
            expired.append(True)
            cvat.state_age = 8 * 3600 + 1
        answer = None
        try:
            answer = sign(function_id, query, body)
        finally:
            cvat.state_age = 0
        return answer

    cvat._call_function = once_expired
    result = act(*TO_14)
    assert result.code == 0
    assert "expired" in result.log
    assert ("start", 12, [20, 30, 40]) in function.calls
    assert [s["points"][-4] for s in job.shapes if s["group"] == 30] == [4, 5, 6, 7, 8]


def test_410_starts_all_objects_again(cvat, job, act, masks, function):
    refused = []
    function.refuse = lambda frame, count: (
        410 if frame == 13 and len(refused) < 1 and not refused.append(1) else None
    )
    assert act(*TO_14).code == 0
    assert ("start", 12, [20, 30, 40]) in function.calls
    assert len(job.shapes) == 3 + 3 * 4


@pytest.mark.parametrize(
    ("answered", "said"),
    [
        ({"type": "mask", "points": [0, 9, 4, 20, 7, 21]}, "whose runs do not fill its box"),
        ({"type": "mask", "points": [0, 8, 62, 20, 65, 21]}, "in a 64x48 image"),
        ({"type": "polygon", "points": POLYGON}, "a polygon for a mask"),
        ({"type": "mask", "points": "no"}, "not a list of numbers"),
    ],
)
def test_a_broken_result_is_never_written(cvat, job, act, masks, function, answered, said):
    function.answers = {(30, 12): answered}
    result = act(*TO_14)
    assert result.code == 3
    assert said in result.log
    assert frames(s for s in job.shapes if s["group"] == 30) == [10, 11]
    assert frames(s for s in job.shapes if s["group"] == 40) == [10, 11, 12, 13, 14]


def test_lists_of_another_length_end_the_run(cvat, job, act, masks, function):
    answer = function.answer
    function.answer = lambda request: (200, {**answer(request)[1], "states": [1]})
    result = act(*TO_14)
    assert result.code == 1
    assert "The function answered 1 states for 3 objects" in result.log
    assert frames(job.shapes) == [10, 10, 10]


def test_another_image_size_ends_the_run_with_what_is_done(cvat, job, act, masks):
    job.sizes = [(64, 48)] * 8 + [(32, 48)] * 17
    result = act(*TO_14)
    assert result.code == 1
    assert "Frame 13 is 32x48, the frames before it 64x48" in result.log
    assert frames(job.shapes) == [10] * 3 + [11] * 3 + [12] * 3


def test_a_function_that_is_being_built_says_so(cvat, job, act, masks):
    next(iter(cvat.functions.values())).url = None
    result = act(*TO_14, "--wait", 0.01)
    assert result.code == 1
    assert "still being built" in result.log


# --- permissions -----------------------------------------------------------------------------


def test_a_read_only_token_is_explained(cvat, job, act, masks, monkeypatch):
    monkeypatch.setenv("CVAT_ACCESS_TOKEN", "read-only")
    result = act(*TO_14)
    assert result.code == 1
    assert "read-only" in result.log
    assert "make one that may write" in result.log
    assert ".." not in result.log
    assert len(job.shapes) == 3


def test_a_wrong_login_is_explained(cvat, job, act, masks, monkeypatch):
    monkeypatch.setenv("CVAT_ACCESS_TOKEN", "unknown")
    result = act(*TO_14)
    assert result.code == 1
    assert "check --auth or CVAT_ACCESS_TOKEN" in result.log
    monkeypatch.delenv("CVAT_ACCESS_TOKEN")
    wrong = act(*TO_14, "--auth", "annotator:wrong")
    assert wrong.code == 1
    assert "check --auth or CVAT_ACCESS_TOKEN" in wrong.log
    assert "Traceback" not in wrong.log


def test_a_password_and_an_organisation(cvat, job, act, masks, monkeypatch):
    monkeypatch.delenv("CVAT_ACCESS_TOKEN")
    assert act(*TO_14, "--auth", "annotator:secret", "--org", "team").code == 0
    assert len(job.shapes) == 3 + 3 * 4
    assert {h.get("X-Organization") for h in cvat.headers[-5:]} == {"team"}


@pytest.mark.parametrize("host", ["http://127.0.0.1:9", "127.0.0.1:9"])
def test_no_server_is_one_line(act, host, monkeypatch):
    monkeypatch.setattr(Retry, "sleep", lambda *_, **__: None)
    result = act("--auth", "annotator:secret", "--server-host", host, "functions")
    assert result.code == 1
    assert "Check --server-host" in result.log
    assert result.log.count("WARNING") == 0


def test_without_a_login_and_a_terminal_there_is_one_line(cvat, tmp_path):
    run = command(cvat, tmp_path, "functions", token=None, start_new_session=True)
    said = run.communicate(timeout=WAIT)[1]
    assert run.returncode == 1
    assert "There is no login" in said
    assert said.count("\n") == 1


def test_a_login_at_another_server_is_one_line(cvat, act, monkeypatch):
    monkeypatch.delenv("CVAT_ACCESS_TOKEN")
    cvat.faults = [Fault("POST", "/api/auth/login", 200, '{"status": "ok"}')]
    result = act("functions", "--auth", "annotator:secret")
    assert result.code == 1
    assert "is this really a CVAT server?" in result.log
    assert "Traceback" not in result.log


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 502}, {"drop": True}])
def test_a_server_that_restarts_is_waited_for_at_the_start(cvat, job, act, masks, fault):
    cvat.faults = [Fault("GET", WRITE, times=2, **fault)]
    result = act(*TO_14)
    assert result.code == 0
    assert result.log.count("Trying again") == 2
    assert len(job.shapes) == 3 + 3 * 4


def test_nuclios_dashboard_is_told_from_the_function(cvat, job, act, masks):
    body = (
        "\"HTTPConnectionPool(host='nuclio', port=8070): Max retries exceeded with url: "
        "/api/functions/x (Caused by NewConnectionError('Connection refused'))\""
    )
    cvat.faults = [Fault("POST", CALL, 503, body)]
    result = act(*TO_14)
    assert result.code == 0
    assert "CVAT does not reach Nuclio's dashboard (503)" in result.log


def test_a_server_without_functions_is_explained(cvat, act):
    cvat.faults = [Fault("GET", "/api/lambda/functions/?", 404, "<h1>Not found</h1>")]
    result = act("functions")
    assert result.code == 1
    assert "docker-compose.serverless.yml" in result.log


def test_an_old_server_is_warned_about(cvat, act):
    cvat.version = "2.31.0"
    result = act("functions")
    assert result.code == 0
    assert "This is CVAT 2.31" in result.log


# --- writing ---------------------------------------------------------------------------------


def test_a_write_whose_answer_was_lost_is_not_written_twice(cvat, job, act, masks):
    cvat.faults = [Fault("PATCH", WRITE, 504, "<html>", after=True)]
    assert act(*TO_14).code == 0
    assert len(job.shapes) == 3 + 3 * 4


def test_writing_in_batches_says_how_much_is_written_and_goes_on(
    cvat, job, act, masks, monkeypatch
):
    monkeypatch.setattr("cvat_action.sinks.MOST_OBJECTS", 5)
    cvat.faults = [Fault("PATCH", WRITE, 503, "busy", times=100, skip=2, after=True)]
    result = act(*TO_14, "--wait", 0)
    assert result.code == 4
    assert "not all of it is written" in result.log
    assert "written: 10 shapes created" in result.out

    cvat.faults = []
    again = act("track", "--resume", journal_of(result))
    assert again.code == 0
    assert len(job.shapes) == 3 + 3 * 4
    assert len({(s["frame"], s["group"]) for s in job.shapes}) == 15


def test_what_others_changed_meanwhile_is_kept(cvat, job, act, function):
    job.tracks = [track(keyframe(10, POLYGON), id=5), track(keyframe(10, RECTANGLE), id=6)]
    step = function.answer

    def meanwhile(request):
        job.tracks = [track(keyframe(8, POLYGON), keyframe(10, POLYGON), id=5, group=9)]
        return step(request)

    function.answer = meanwhile
    result = act(*TO_14)
    assert result.code == 3
    assert "deleted in CVAT while it was tracked" in result.out
    (t,) = job.tracks
    assert (t["group"], t["frame"]) == (9, 8)
    assert [k["frame"] for k in t["shapes"]] == [8, 10, 11, 12, 13, 14, 15]


def broken(t):
    """CVAT answers 500 to every update of such a track."""
    return {**t, "shapes": [*t["shapes"], t["shapes"][-1]]}


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_track_that_cvat_cannot_change_is_told_and_the_others_are_written(
    cvat, job, act, function, when
):
    job.shapes = [shape("rectangle", RECTANGLE, id=900)]
    job.tracks = [track(keyframe(10, POLYGON), id=5), track(keyframe(10, RECTANGLE), id=6)]
    assert act(*TO_14).code == 0
    step = function.answer
    as_it_was, other = sorted(job.tracks, key=lambda t: t["group"] != 5 and t["id"])

    def breaks(request):
        job.tracks = [broken(as_it_was), other]
        return step(request)

    if when == "before":
        job.tracks = [broken(as_it_was), other]
    else:
        function.answer = breaks
    result = act(*TO_14, "--replace", "--wait", 0.025)
    assert result.code == (0 if when == "before" else 3)
    assert "two keyframes on frame 15" in result.log + result.out
    assert frames(job.shapes) == [10, 11, 12, 13, 14]
    assert job.tracks[0] == broken(as_it_was)


def test_nothing_is_doubled_where_cvat_takes_no_tracks(cvat, job, act, function):
    """--replace deletes the old shapes though the tracks cannot be written."""
    job.shapes = [shape("rectangle", RECTANGLE, id=900)]
    job.tracks = [track(keyframe(10, POLYGON), id=5)]
    assert act(*TO_14).code == 0
    ids = {s["id"] for s in job.shapes if s["frame"] > 10}
    for s in job.shapes[1:]:
        s["points"] = shifted(s["points"], 0.5)  # another model's results
    job.tracks[0]["shapes"] = job.tracks[0]["shapes"][:1]
    cvat.refused_actions = frozenset({"update"})
    result = act(*TO_14, "--replace", "--wait", 0.025)
    assert result.code == 4
    assert frames(job.shapes) == [10, 11, 12, 13, 14]
    assert not ids & {s["id"] for s in job.shapes}

    cvat.refused_actions = frozenset()
    assert act("track", "--resume", journal_of(result)).code == 0
    assert frames(job.shapes) == [10, 11, 12, 13, 14]
    assert [k["frame"] for k in job.tracks[0]["shapes"]] == [10, 11, 12, 13, 14, 15]


def test_a_polygon_that_became_a_track_goes_though_cvat_takes_no_changes(cvat, job, act):
    """What CVAT refuses is another track; a polygon and its track beside each other were one
    object twice."""
    job.shapes = [shape("polygon", POLYGON, id=900)]
    job.tracks = [track(keyframe(10, RECTANGLE), id=5)]
    cvat.refused_actions = frozenset({"update"})
    convert = "--convert-polygon-shapes-to-tracks"
    result = act(*TO_14, convert, "--wait", 0.025)
    assert result.code == 4
    assert job.shapes == []
    _, made = job.tracks
    assert made["shapes"][0]["points"] == POLYGON
    cvat.refused_actions = frozenset()
    assert act("track", "--resume", journal_of(result)).code == 0
    assert [[k["frame"] for k in t["shapes"]] for t in job.tracks] == [[10, 11, 12, 13, 14, 15]] * 2


# --- runs that are cut off -------------------------------------------------------------------


def test_resuming_goes_on_with_tracks_made_by_the_first_part(cvat, job, act, function):
    job.shapes = [shape("polygon", POLYGON, id=900)]
    job.tracks = [track(keyframe(10, RECTANGLE), id=5)]
    function.refuse = lambda frame, count: 503 if frame == 13 else None
    result = act(*TO_14, CONVERT, "--wait", 0)
    assert result.code == 4
    made = next(t for t in job.tracks if t["id"] != 5)
    assert [(k["frame"], k["outside"]) for k in made["shapes"]] == [
        (10, False), (11, False), (12, False), (13, True),
    ]  # fmt: skip
    assert job.shapes == []
    function.refuse = lambda frame, count: None
    assert act("track", "--resume", journal_of(result)).code == 0
    assert {t["id"] for t in job.tracks} == {5, made["id"]}
    for t, points in ((0, POLYGON), (1, RECTANGLE)):
        found = next(x for x in job.tracks if (x["id"] == 5) == bool(t))
        assert [
            (k["frame"], k["outside"], [float(round(p)) for p in k["points"]])
            for k in found["shapes"]
        ] == [
            *((10 + i, False, shifted(points, i)) for i in range(5)),
            (15, True, shifted(points, 4)),
        ]


def test_resuming_goes_on_replacing(cvat, job, act, masks, function):
    assert act(*TO_14).code == 0
    job.shapes = [s if s["id"] != 20 else {**s, "points": [0, 8, 4, 20, 7, 21]} for s in job.shapes]
    function.refuse = lambda frame, count: 503 if frame == 13 else None
    result = act(*TO_14, "--replace", "--object", "20", "--wait", 0)
    assert result.code == 4
    function.refuse = lambda frame, count: None
    assert act("track", "--resume", journal_of(result)).code == 0
    assert frames(job.shapes) == sorted([10, 11, 12, 13, 14] * 3)
    assert {tuple(s["points"][:2]) for s in job.shapes if s["group"] == 20} == {(0, 8)}


def test_nothing_is_written_for_a_seed_that_was_deleted_meanwhile(cvat, job, act, function):
    job.shapes = [shape("polygon", POLYGON, id=900)]
    answer = function.answer

    def meanwhile(request):
        job.shapes = []
        return answer(request)

    function.answer = meanwhile
    for arguments in ((), (CONVERT,)):
        job.shapes = [shape("polygon", POLYGON, id=900)]
        result = act(*TO_14, *arguments)
        assert result.code == 3
        assert "deleted in CVAT while it was tracked" in result.out
        assert (job.shapes, job.tracks) == ([], [])


def test_resuming_on_another_server_or_from_no_journal_is_refused(cvat, job, act, tmp_path):
    assert "cannot be read" in act("track", "--resume", tmp_path / "none").log
    (tmp_path / "other").write_text('{"hello": 1}\n')
    assert "is not a journal" in act("track", "--resume", tmp_path / "other").log


def test_what_a_resumed_run_would_pass_over_is_refused(cvat, job, act, masks, function):
    function.refuse = lambda frame, count: 503 if frame == 13 else None
    journal = journal_of(act(*TO_14, "--wait", 0))
    kept = Path(journal).read_bytes()
    function.refuse = lambda frame, count: None
    for more in (["--dry-run"], ["--job", 42, "--frame", 0], ["--replace"]):
        result = act("track", "--resume", journal, *more)
        assert result.code == 2
        assert f"leave out {', '.join(str(m) for m in more if str(m)[0] == '-')}." in result.log
    assert Path(journal).read_bytes() == kept
    assert frames(job.shapes) == [10] * 3 + [11] * 3 + [12] * 3
    assert act("track", "--resume", journal, "--json").json["complete"] is True


def test_a_journal_of_another_run_is_never_written_over(
    cvat, job, masks, at_frame_13, tmp_path, act
):
    """Neither of one that is still going on nor of one that was killed."""
    process = command(cvat, tmp_path / "state", *TO_14, "--object", 20)
    assert at_frame_13.wait(WAIT)
    second = act(*TO_14, "--object", 30)
    assert second.code == 1
    journal = second.log.split("with the journal ")[1].split(". Wait")[0]
    held = act("track", "--resume", journal)
    assert held.code == 1
    assert "is still going on in another process" in held.log
    assert act("discard", journal).code == 1
    assert "still going on in another process" in second.log
    process.kill()
    process.communicate(timeout=WAIT)
    at_frame_13.go_on()
    third = act(*TO_14, "--object", 20)
    assert third.code == 1
    assert "Such a run was cut off before" in third.log
    assert act("track", "--resume", journal).code == 0
    assert [s["group"] for s in job.shapes if s["frame"] == 14] == [20]
    assert act(*TO_14, "--object", 30).code == 0


def test_a_resumed_run_with_nothing_left_is_told_as_json(cvat, job, act, masks, function, tmp_path):
    journal = tmp_path / "run.jsonl"
    cvat.faults = [Fault("PATCH", ".*", status=500, times=9)]
    assert act(*TO_14, "--journal", journal, "--wait", 0).code == 4
    cvat.faults = []
    told = act("track", "--resume", journal, "--json").json
    assert (told["complete"], told["frames"]) == (True, [11, 12, 13, 14])
    assert told["written"] == {"shapes_created": 12}
    assert len(job.shapes) == 3 + 3 * 4


PLAN = {"seeds": [], "frames": []}


def test_a_full_disk_leaves_a_journal_that_can_be_read(tmp_path):
    path = tmp_path / "run.jsonl"
    journal = Journal.begin(path, PLAN)
    journal.frame(1, [])
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, unlimited[1]))
    try:
        with pytest.raises(ActionError, match="cannot be written"):
            journal.frame(2, [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    journal.frame(3, [])
    journal.close()
    assert read(path).done == [1, 3]


def test_a_full_disk_at_the_start_leaves_things_as_they_were(tmp_path):
    path = tmp_path / "run.jsonl"
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, unlimited[1]))
    try:
        with pytest.raises(ActionError, match="cannot be written"):
            Journal.begin(path, PLAN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert not path.exists()
    Journal.begin(path, PLAN).close()
    assert read(path).done == []


def test_only_its_owner_may_read_a_journal(tmp_path):
    path = tmp_path / "run.jsonl"
    Journal.begin(path, PLAN).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_journal_where_a_folder_is_wanted_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "run.jsonl", tmp_path):
        with pytest.raises(ActionError, match="cannot be written .* name another place"):
            Journal.begin(path, PLAN)


def test_where_nothing_can_be_read_any_more_what_is_done_comes_back():
    class Disappearing:
        def start(self, frame, shapes):
            return tracking.Answer([None], ["state"], [1.0], [None])

        def step(self, frame, states):
            if frame == 12:
                raise ActionError("pic_12.png cannot be read: No such file or directory.")
            shape = {"type": "rectangle", "points": [1, 2, 3, 4]}
            return tracking.Answer([shape], ["state"], [0.5], [None])

    one = Seed("1", "rectangle", 9, (1, 2, 3, 4), {"id": 1}, False, 0)
    here = Job(1, 1, 0, 20, (), ((40, 30),))
    objects = [tracking.TrackedObject(one)]
    run = tracking.track(Disappearing(), here, objects, [10, 11, 12, 13])
    assert run.done == (10, 11)
    assert run.broken == "pic_12.png cannot be read: No such file or directory."

    def keep(frame):
        if frame == 11:
            raise tracking.NotOnRecord("The journal cannot be written.")

    objects = [tracking.TrackedObject(one)]
    run = tracking.track(Disappearing(), here, objects, [10, 11, 12, 13], keep=keep)
    assert run.done == (10,)  # else a frame that is on no record would be written, and again
    assert [*run.objects[0].frames] == [10]


def command(cvat, tmp_path, *arguments, token="may-write", **more):
    """`token` None: no login."""
    environment = {
        **{k: v for k, v in os.environ.items() if k != "CVAT_ACCESS_TOKEN"},
        **({"CVAT_ACCESS_TOKEN": token} if token else {}),
        "XDG_STATE_HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "cvat_action", "--server-host", cvat.url, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


@pytest.fixture
def at_frame_13(function):
    """Set when the function is asked for frame 13; it answers when `go_on` is called."""
    reached, released = threading.Event(), threading.Event()

    def seconds(frame, count):
        if frame == 13:
            reached.set()
            released.wait(WAIT)
        return 0.0

    function.seconds = seconds
    reached.go_on = released.set
    yield reached
    released.set()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ctrl_c_keeps_what_is_done(cvat, job, masks, at_frame_13, tmp_path, act, name):
    process = command(cvat, tmp_path, *TO_14, "--json")
    assert at_frame_13.wait(WAIT)
    process.send_signal(getattr(signal, name))
    out, log = process.communicate(timeout=WAIT)
    assert process.returncode == 130
    assert "Stopped by Ctrl+C. 2 of 4 frames are tracked and written" in log
    assert "Traceback" not in log
    assert frames(job.shapes) == [10] * 3 + [11] * 3 + [12] * 3
    assert json.loads(out)["complete"] is False
    at_frame_13.go_on()
    assert act("track", "--resume", json.loads(out)["resume"].split()[-1]).code == 0
    assert len(job.shapes) == 3 + 3 * 4


@pytest.mark.slow
def test_a_killed_run_is_written_and_goes_on_with_resume(
    cvat, job, masks, at_frame_13, tmp_path, act
):
    journal = tmp_path / "run.jsonl"
    process = command(cvat, tmp_path, *TO_14, "--journal", journal)
    assert at_frame_13.wait(WAIT)
    process.kill()
    process.communicate(timeout=WAIT)
    assert len(job.shapes) == 3
    with journal.open("a") as file:
        file.write('{"frame": 13, "resul')  # the last line may be cut short
    at_frame_13.go_on()
    assert act("track", "--resume", journal).code == 0
    assert frames(job.shapes) == sorted([10, 11, 12, 13, 14] * 3)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_while_writing_still_writes_and_a_second_one_stops(
    cvat, job, act, masks, tmp_path, times
):
    hold = threading.Event()
    cvat.faults = [Fault("PATCH", WRITE, 503, "busy", hold=hold)]
    process = command(cvat, tmp_path, *TO_14)
    assert cvat.faults[0].reached.wait(WAIT)
    process.send_signal(signal.SIGINT)
    said = ""
    while "Writing what is done" not in said:
        said += process.stderr.readline()
    if times == 2:
        process.send_signal(signal.SIGINT)
        process.wait(WAIT)
    hold.set()
    _, log = process.communicate(timeout=WAIT)
    assert process.returncode == (0 if times == 1 else 130)
    if times == 2:
        assert "4 of 4 frames are tracked, and not all of it is written" in log
        journal = log.split("--resume ")[-1].split()[0]
        assert act("track", "--resume", journal).code == 0
    assert len(job.shapes) == 3 + 3 * 4


def test_the_summary_names_the_frame_to_look_at_first(cvat, job, act, masks, function):
    function.lost = {(30, 12), (30, 13)}
    function.scores = {(20, 13): 0.31, (30, 12): 0.05}
    result = act(*TO_14)
    rows = {line.split()[0]: line for line in result.out.splitlines()}
    assert "0.31 on frame 13" in rows["20"]
    assert rows["30"].split()[3:5] == ["4", "2"]
    assert "written: 10 shapes created\n" in result.out


def test_a_preview_that_fails_does_not_hide_what_is_written(cvat, job, act, masks, tmp_path):
    cvat.faults = [Fault("GET", "/api/jobs/42/data", 200, "not a picture")]
    result = act(*TO_14, "--contact-sheet", tmp_path / "out.png")
    assert result.code == 1
    assert "could not be decoded as a picture. The annotations are complete." in result.log
    assert "written: 12 shapes created" in result.out
    assert len(job.shapes) == 3 + 3 * 4


def test_ctrl_c_while_drawing_hides_nothing_of_what_is_written(
    cvat, job, act, masks, tmp_path, monkeypatch
):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("cvat_action.preview.decode_picture", stop)
    result = act(*TO_14, "--contact-sheet", tmp_path / "out.png", "--json")
    assert result.code == 130
    assert "Stopped by Ctrl+C while drawing. The annotations are complete." in result.log
    assert (result.json["complete"], result.json["resume"]) == (True, None)
    assert len(job.shapes) == 3 + 3 * 4


def test_a_video_and_a_sheet_show_the_objects(cvat, job, act, tmp_path):
    import cv2

    job.shapes = [shape("mask", MASK, id=900)]
    video, sheet = tmp_path / "out.mp4", tmp_path / "out.png"
    assert act(*TO_14, "--preview", video, "--contact-sheet", sheet).code == 0
    capture = cv2.VideoCapture(str(video))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 5
    capture.release()
    picture = cv2.imread(str(sheet))
    assert picture.shape == (600, 1600, 3)
    # the last frame's mask, rows 20 and 21 at x 8 to 11, in a cell 400 px wide, in the second row
    inside, beside = picture[300 + 131, 62], picture[300 + 131, 150]
    assert int(inside.max()) - int(inside.min()) > 60
    assert int(beside.max()) - int(beside.min()) < 10


def test_pictures_of_half_the_size_show_the_objects_in_their_place(cvat, job, act, tmp_path):
    """CVAT halves what its page shows of some videos."""
    import cv2
    import numpy as np

    def halved(data):
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return cv2.imencode(".png", cv2.resize(picture, None, fx=0.5, fy=0.5))[1].tobytes()

    job.shapes = [shape("mask", MASK, id=900)]
    whole, half = tmp_path / "whole.png", tmp_path / "half.png"
    assert act(*TO_14, "--contact-sheet", whole).code == 0
    job.shapes = [shape("mask", MASK, id=900)]
    job.page_pictures = [halved(data) for data in job.source]
    assert act(*TO_14, "--contact-sheet", half).code == 0
    expected, found = cv2.imread(str(whole)), cv2.imread(str(half))
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 10
