# SPDX-License-Identifier: MIT
"""Nuclio's handler, called with Nuclio's own objects."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nuclio_sdk
import pytest
from cvat_requests import init
from nuclio_sdk.event import EventDeserializerKinds
from running import FRAME, POLYGON, environment, new_context

import main
from sam2_tracker.models import ModelFiles


@pytest.fixture(scope="module")
def variables(micro_files: ModelFiles) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for name, value in environment(micro_files, SAM2_MAX_OBJECTS="4").items():
            patched.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def context(variables: None) -> Iterator[Any]:
    """A running function with the embedded store."""
    started = new_context()
    main.init_context(started)
    yield started
    with pytest.raises(SystemExit, match="0"):
        started.platform._on_signal("termination")


def call(
    context: Any, body: object, method: str | None = "POST", path: str | bytes | None = None
) -> tuple[int, Any]:
    """What comes back over Nuclio's wire: the status and the decoded body."""
    output = main.handler(context, nuclio_sdk.Event(body=body, method=method, path=path))
    response = nuclio_sdk.Response.from_entrypoint_output(json.dumps, output)
    assert response["content_type"] == "application/json"
    assert response["body_encoding"] == "text"
    return response["status_code"], json.loads(response["body"])


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "text/plain", ""],
)
def test_any_content_type(context: Any, content_type: str) -> None:
    """Nuclio's SDK parses the body of the first one only."""
    raw = json.dumps(init(FRAME, [POLYGON])).encode()
    message = {"body": raw, "content_type": content_type, "trigger": {"kind": "http", "name": "t"}}
    message |= dict.fromkeys(["fields", "headers"], {}) | {"id": "1", "method": "POST", "path": "/"}
    message |= {"size": len(raw), "timestamp": 0, "url": "", "shard_id": 0, "num_shards": 1}
    message |= {"type": "", "type_version": "", "version": ""}
    event = nuclio_sdk.Event.deserialize(message, kind=EventDeserializerKinds.msgpack)
    assert isinstance(event.body, dict) == (content_type == "application/json")
    assert main.handler(context, event).status_code == 200


def test_no_method_counts_as_post(context: Any) -> None:
    assert call(context, init(FRAME, [POLYGON]), method=None)[0] == 200


def test_get_tells_what_is_running(context: Any, micro_files: ModelFiles) -> None:
    status, info = call(context, None, method="GET")
    assert status == 200
    assert info["version"] == main.VERSION
    assert info["model"] == micro_files.name
    assert (info["device"], info["precision"], info["threads"]) == ("cpu", "float32", 1)
    assert info["store"] == {"kind": "embedded", "answers": True}
    assert info["limits"]["objects"] == 4
    assert set(info["limits"]) >= {"image_megapixels", "points", "time_budget_seconds"}


@pytest.mark.parametrize("path", ["/ready", "/ready/", "/ready?now=1", b"/ready"])
def test_ready_may_be_asked_with_a_slash_or_a_query(context: Any, path: str | bytes) -> None:
    assert call(context, None, method="GET", path=path) == (200, {"ready": True})


def test_a_path_that_get_does_not_know_is_404(context: Any) -> None:
    status, answer = call(context, None, method="GET", path="/readyz")
    assert (status, answer["error"]["code"]) == (404, "not_found")


def test_an_error_of_get_has_no_traceback(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> bool:
        raise ValueError("a secret path")

    monkeypatch.setattr(context.user_data.function, "store_answers", fail)
    status, answer = call(context, None, method="GET", path="/ready")
    assert (status, answer["error"]["code"]) == (500, "internal")
    assert "secret" not in str(answer)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "post", ""])
def test_methods_other_than_get_and_post_are_refused(context: Any, method: str) -> None:
    status, answer = call(context, None, method=method)
    assert (status, answer["error"]["code"]) == (405, "bad_method")


@pytest.mark.slow
def test_a_worker_whose_gpu_failed_ends_after_its_answer(repository: Path) -> None:
    program = "import main, time; main._end_after_the_answer(); print('answered', flush=True)"
    program += "; time.sleep(60)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.strip()) == (1, "answered")
