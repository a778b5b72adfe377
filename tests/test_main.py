# SPDX-License-Identifier: MIT
"""Nuclio's two entry points, called with Nuclio's own objects."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nuclio_sdk
import nuclio_sdk.test
import pytest
import redis
from cvat_requests import follow, init
from nuclio_sdk.event import EventDeserializerKinds
from PIL import Image

import main
from sam2_tracker.errors import ConfigurationError
from sam2_tracker.models import ModelFiles
from tools.redis_server import RedisServer

FRAME = Image.effect_noise((96, 64), 80).convert("RGB")
POLYGON = {"type": "polygon", "points": [20, 10, 70, 12, 60, 50, 25, 45]}
MASK = {"type": "mask", "points": [0, 200, 10, 10, 29, 19]}
RECTANGLE = {"type": "rectangle", "points": [10.5, 10.25, 60.0, 40.0]}


class Log:
    """Nuclio's logger as the function sees it; keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        level = name.removesuffix("_with")

        def log(message: str, *args: object, **fields: Any) -> None:
            self.lines.append((level, message, fields))

        return log

    def text(self) -> str:
        return repr(self.lines)


def new_context(worker_id: int = 0) -> Any:
    return nuclio_sdk.Context(Log(), nuclio_sdk.Platform("local"), worker_id=worker_id)


@pytest.fixture(scope="module")
def model_environment(micro_files: ModelFiles) -> dict[str, str]:
    return {
        "SAM2_CONFIG": str(micro_files.config),
        "SAM2_CHECKPOINT": str(micro_files.checkpoint),
        "SAM2_DEVICE": "cpu",
        "SAM2_PRECISION": "float32",
        "SAM2_THREADS": "1",
        "SAM2_TIME_BUDGET_SECONDS": "3600",  # no answer depends on how busy the machine is
    }


@pytest.fixture
def environment(
    monkeypatch: pytest.MonkeyPatch, model_environment: dict[str, str]
) -> Callable[..., None]:
    def change(**variables: str) -> None:
        for name, value in {**model_environment, **variables}.items():
            monkeypatch.setenv(name, value)

    root = logging.getLogger()
    monkeypatch.setattr(root, "level", root.level)  # init_context changes it
    return change


@pytest.fixture(scope="module")
def context(model_environment: dict[str, str]) -> Iterator[Any]:
    """A running function with the embedded store."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {**model_environment, "SAM2_MAX_OBJECTS": "4"}.items():
            patched.setenv(name, value)
        root = logging.getLogger()
        patched.setattr(root, "level", root.level)
        started = new_context()
        main.init_context(started)
    yield started
    with pytest.raises(SystemExit, match="0"):
        started.platform._on_signal("termination")


def call(context: Any, body: object, method: str = "POST", **fields: object) -> tuple[int, Any]:
    """What comes back over Nuclio's wire: the status and the decoded body."""
    event = nuclio_sdk.Event(body=body, method=method, **fields)
    output = main.handler(context, event)
    response = nuclio_sdk.Response.from_entrypoint_output(json.dumps, output)
    assert response["content_type"] == "application/json"
    assert response["body_encoding"] == "text"
    assert "Traceback" not in response["body"]

    def refuse(word: str) -> None:
        pytest.fail(f"{word} is no JSON")

    return response["status_code"], json.loads(response["body"], parse_constant=refuse)


# ---- requests ----


def test_a_start_and_a_continuation_are_answered_as_cvat_expects(context: Any) -> None:
    status, answer = call(context, init(FRAME, [MASK, POLYGON, RECTANGLE]))
    assert status == 200
    assert set(answer) == {"shapes", "states", "scores", "errors"}
    assert [shape["type"] for shape in answer["shapes"]] == ["mask", "polygon", "rectangle"]
    assert answer["errors"] == [None] * 3
    assert all(0 <= score <= 1 for score in answer["scores"])
    assert all(state is not None and len(json.dumps(state)) < 200 for state in answer["states"])
    status, answer = call(context, follow(FRAME, answer["states"]))
    assert status == 200
    assert len(answer["shapes"]) == len(answer["states"]) == 3
    assert None not in answer["states"]


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


@pytest.mark.slow
def test_a_worker_whose_gpu_failed_ends_after_its_answer(repository: Path) -> None:
    program = "import main, time; main._end_after_the_answer(); print('answered', flush=True)"
    program += "; time.sleep(60)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.strip()) == (1, "answered")


def test_no_method_counts_as_post(context: Any) -> None:
    assert call(context, init(FRAME, [POLYGON]), method=None)[0] == 200  # type: ignore[arg-type]


def test_get_tells_what_is_running(context: Any, micro_files: ModelFiles) -> None:
    status, info = call(context, None, method="GET")
    assert status == 200
    assert info["version"] == main.VERSION
    assert info["model"] == micro_files.name
    assert (info["device"], info["precision"], info["threads"]) == ("cpu", "float32", 1)
    assert info["store"] == {"kind": "embedded", "answers": True}
    assert info["limits"]["objects"] == 4
    assert set(info["limits"]) >= {"image_megapixels", "points", "time_budget_seconds"}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "post", ""])
def test_other_methods(context: Any, method: str) -> None:
    status, answer = call(context, None, method=method)
    assert status == 405
    assert answer["error"]["code"] == "bad_method"


# ---- the log ----


def test_the_log_line_of_a_request_says_how_long_but_not_what(context: Any) -> None:
    context.logger.lines.clear()
    _, answer = call(context, init(FRAME, [POLYGON, MASK]))
    ((level, message, fields),) = context.logger.lines
    assert (level, message, fields["status"]) == ("info", "request", 200)
    assert (fields["objects"], fields["started"], fields["continued"]) == (2, 2, 0)
    assert fields["image_bytes"] > 0
    assert {"decode_ms", "encode_ms", "start_ms", "save_ms"} <= set(fields)
    assert answer["states"][0]["id"] not in context.logger.text()
    assert "points" not in context.logger.text()


# ---- start ----


def test_nuclios_own_test_platform(environment: Callable[..., None]) -> None:
    environment()
    platform = nuclio_sdk.test.Platform()
    response = platform.call_handler(main.handler, nuclio_sdk.Event(method="GET"))
    assert response.status_code == 200
    response = platform.call_handler(
        main.handler, nuclio_sdk.Event(body=init(FRAME, [POLYGON]), method="POST")
    )
    assert response.status_code == 200


@pytest.mark.parametrize(("workers", "worker_id"), [("2", 0), ("1", 1)])
def test_the_embedded_store_refuses_a_second_worker(
    environment: Callable[..., None], workers: str, worker_id: int
) -> None:
    environment(SAM2_WORKERS=workers)
    with pytest.raises(ConfigurationError, match="CVAT_FUNCTIONS_REDIS_HOST"):
        main.init_context(new_context(worker_id))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model:", "model: [1, 2"),
        ("sam2.modeling.memory_encoder.MemoryEncoder", "sam2.modeling.nothing.MemoryEncoder"),
        ("  num_maskmem:", "  no_such_option: 1\n  num_maskmem:"),
        ("model:", "another:"),
    ],
)
def test_a_file_that_configures_no_model_stops_the_start_with_a_sentence(
    environment: Callable[..., None], micro_files: ModelFiles, tmp_path: Path, old: str, new: str
) -> None:
    text = micro_files.config.read_text()
    assert old in text
    (tmp_path / "mine.yaml").write_text(text.replace(old, new, 1))
    environment(SAM2_CONFIG=str(tmp_path / "mine.yaml"))
    with pytest.raises(ConfigurationError, match="mine.yaml is not a configuration of a SAM 2"):
        main.init_context(new_context())


def test_an_option_that_is_not_supported_stops_the_start_with_a_sentence(
    environment: Callable[..., None], micro_files: ModelFiles, tmp_path: Path
) -> None:
    text, option = micro_files.config.read_text(), "directly_add_no_mem_embed"
    (tmp_path / "mine.yaml").write_text(text.replace(f"{option}: true", f"{option}: false"))
    environment(SAM2_CONFIG=str(tmp_path / "mine.yaml"))
    with pytest.raises(ConfigurationError, match=f"mine.yaml sets {option} to False"):
        main.init_context(new_context())


def test_a_redis_that_is_down_at_start(
    environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function is ready, says so, answers 503, and recovers by itself."""
    monkeypatch.setattr(redis.retry, "sleep", lambda seconds: None)
    server = RedisServer()
    environment(CVAT_FUNCTIONS_REDIS_HOST=server.host, CVAT_FUNCTIONS_REDIS_PORT=str(server.port))
    started = new_context()
    main.init_context(started)
    assert "Redis does not answer yet" in started.logger.text()
    assert call(started, None, method="GET")[1]["store"] == {"kind": "redis", "answers": False}
    encode, encoded = started.user_data.function._model.encode, []
    started.user_data.function._model.encode = lambda image: encoded.append(1) or encode(image)
    status, answer = call(started, init(FRAME, [POLYGON]))
    assert status == 503
    assert answer["error"]["code"] == "store_unavailable"
    status, _ = call(started, follow(FRAME, [{"v": 1, "id": "A" * 43}]))
    assert status == 503
    assert not encoded  # before any model work
    with server:
        assert call(started, None, method="GET")[1]["store"]["answers"] is True
        status, answer = call(started, init(FRAME, [POLYGON]))
        assert status == 200
        assert call(started, follow(FRAME, answer["states"]))[0] == 200
    assert call(started, follow(FRAME, answer["states"]))[0] == 503
    with pytest.raises(SystemExit, match="0"):
        started.platform._on_signal("termination")


def test_start_and_end_with_the_embedded_store(environment: Callable[..., None]) -> None:
    environment()
    started = new_context()
    main.init_context(started)
    warnings = [message for level, message, _ in started.logger.lines if level == "warn"]
    assert [text[:37] for text in warnings] == ["CVAT_FUNCTIONS_REDIS_HOST is not set:"]
    running = [fields for _, message, fields in started.logger.lines if message == "running"]
    assert running[0]["store"] == "embedded"
    closed: list[bool] = []
    store = started.user_data.function._store
    close = store.close
    store.close = lambda: closed.append(True) or close()
    with pytest.raises(SystemExit, match="0"):
        started.platform._on_signal("termination")
    assert closed == [True]
