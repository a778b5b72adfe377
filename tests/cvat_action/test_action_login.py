# SPDX-License-Identifier: MIT
"""Login, permissions, and servers that are away, old or no CVAT: what is said in one line."""

import pytest
from processes import WAIT, command
from standin_cvat import Fault
from urllib3.util.retry import Retry

CALL = r"/api/lambda/functions/.*"
AS_USER = ("--auth", "annotator:secret")


def test_a_read_only_token_is_explained(job, track_to, masks, monkeypatch):
    monkeypatch.setenv("CVAT_ACCESS_TOKEN", "read-only")
    result = track_to(14, code=1)
    assert "read-only" in result.log
    assert "make one that may write" in result.log
    assert ".." not in result.log
    assert len(job.shapes) == 3


@pytest.mark.parametrize("auth", [(), ("--auth", "annotator:wrong")], ids=["token", "password"])
def test_a_wrong_login_is_explained(track_to, masks, monkeypatch, auth):
    if auth:
        monkeypatch.delenv("CVAT_ACCESS_TOKEN")
    else:
        monkeypatch.setenv("CVAT_ACCESS_TOKEN", "unknown")
    result = track_to(14, *auth, code=1)
    assert "check --auth or CVAT_ACCESS_TOKEN" in result.log


def test_a_password_and_an_organisation(cvat, job, track_to, masks, monkeypatch):
    monkeypatch.delenv("CVAT_ACCESS_TOKEN")
    track_to(14, *AS_USER, "--org", "team")
    assert len(job.shapes) == 3 + 3 * 4
    assert {h.get("X-Organization") for h in cvat.headers[-5:]} == {"team"}


def test_without_a_login_and_a_terminal_there_is_one_line(cvat, tmp_path):
    run = command(cvat, tmp_path, "functions", token=None, start_new_session=True)
    said = run.communicate(timeout=WAIT)[1]
    assert run.returncode == 1
    assert "There is no login" in said
    assert said.count("\n") == 1


def test_a_login_at_another_server_is_one_line(cvat, act, monkeypatch):
    monkeypatch.delenv("CVAT_ACCESS_TOKEN")
    cvat.faults = [Fault("POST", "/api/auth/login", 200, '{"status": "ok"}')]
    result = act("functions", *AS_USER, code=1)
    assert "is this really a CVAT server?" in result.log


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/jobs/42/annotations/", '{"shapes": [1], "tracks": []}'),
        ("/api/jobs/42/annotations/", '{"shapes": [{"id": "x"}], "tracks": []}'),
        ("/api/jobs/42/annotations/", '{"shapes": [], "tracks": [{"id": 1}]}'),
        ("/api/jobs", '{"results": [1]}'),
        ("/api/jobs", '{"results": [{"id": 1}]}'),
        ("/api/labels", "[" * 9999),
    ],
)
def test_json_of_another_kind_is_one_line(cvat, act, one_mask, path, body):
    cvat.faults = [Fault("GET", path, 200, body, times=100)]
    of = ("--task", 7) if path == "/api/jobs" else ("--job", 42)
    result = act("track", *of, "--frame", 10, "--target-frame", 12, "--wait", 0, code=1)
    assert "is this really a CVAT server?" in result.log


@pytest.mark.parametrize("host", ["http://127.0.0.1:9", "127.0.0.1:9"])
def test_no_server_is_one_line(act, host, monkeypatch):
    monkeypatch.setattr(Retry, "sleep", lambda *_, **__: None)
    result = act(*AS_USER, "--server-host", host, "functions", code=1)
    assert "Check --server-host" in result.log
    assert result.log.count("WARNING") == 0


def test_a_server_without_functions_is_explained(cvat, act):
    cvat.faults = [Fault("GET", "/api/lambda/functions/?", 404, "<h1>Not found</h1>")]
    assert "docker-compose.serverless.yml" in act("functions", code=1).log


def test_an_old_server_is_warned_about(cvat, act):
    cvat.version = "2.31.0"
    assert "This is CVAT 2.31" in act("functions").log


def test_a_function_that_is_being_built_says_so(cvat, track_to, masks):
    next(iter(cvat.functions.values())).url = None
    assert "still being built" in track_to(14, "--wait", 0.01, code=1).log


def test_nuclios_dashboard_is_told_from_the_function(cvat, track_to, masks):
    body = (
        "\"HTTPConnectionPool(host='nuclio', port=8070): Max retries exceeded with url: "
        "/api/functions/x (Caused by NewConnectionError('Connection refused'))\""
    )
    cvat.faults = [Fault("POST", CALL, 503, body)]
    assert "CVAT does not reach Nuclio's dashboard (503)" in track_to(14).log
