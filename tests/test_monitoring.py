# SPDX-License-Identifier: MIT
"""What an operator watches: readiness, metrics, the alarms of docs/monitoring.md."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cvat_requests import follow, init
from prometheus_client.parser import text_string_to_metric_families
from running import FRAME, POLYGON, environment

import main
from sam2_tracker.metrics import Metrics
from sam2_tracker.models import ModelFiles
from tools.function_process import FunctionProcess
from tools.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def store() -> Iterator[RedisServer]:
    """A Redis that the tests start and kill; it keeps its port."""
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def function(micro_files: ModelFiles, store: RedisServer) -> Iterator[FunctionProcess]:
    waits_little = {"SAM2_REDIS_TIMEOUT_SECONDS": "1"}
    with FunctionProcess(environment(micro_files, store, **waits_little)) as server:
        yield server


def figures(function: FunctionProcess) -> dict[tuple[str, ...], float]:
    """GET /metrics as {(name, label values in the order of their names): value}."""
    status, headers, body = function.request("GET", path="/metrics")
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_ready_means_that_a_request_would_be_answered(
    function: FunctionProcess, store: RedisServer
) -> None:
    def ready() -> tuple[int, Any]:
        status, _, body = function.request("GET", path="/ready")
        return status, json.loads(body)

    reason = "The store of the tracks does not answer; the function's log says why."
    error = {"code": "store_unavailable", "message": reason, "indexes": []}
    down = (503, {"error": error})
    assert ready() == down
    assert function.post(init(FRAME, [POLYGON]))[0] == 503
    store.start()
    assert ready() == (200, {"ready": True})
    assert function.post(init(FRAME, [POLYGON]))[0] == 200
    store.kill()
    assert ready() == down
    assert function.get()["store"] == {"kind": "redis", "answers": False}, "GET / goes on"


def test_metrics_are_the_figures_of_the_log(function: FunctionProcess, store: RedisServer) -> None:
    before = figures(function)
    assert before["cvat_sam2_store_answers", "0"] == 0
    store.start()
    status, answer = function.post(init(FRAME, [POLYGON, POLYGON]))
    assert status == 200
    assert function.post(follow(FRAME, [answer["states"][0], None]))[0] == 200
    gone = {"v": 1, "id": "A" * 43}
    assert function.post(follow(FRAME, [answer["states"][0], gone]))[0] == 200
    assert function.post({"image": "no image"})[0] == 400
    assert function.request("PUT")[0] == 405
    after = figures(function)
    store.kill()
    assert function.post(init(FRAME, [POLYGON]))[0] == 503
    at_last = figures(function)

    def grown(name: str, *labels: str, since: Any = before, until: Any = after) -> float:
        key = (f"cvat_sam2_{name}", *labels)
        return float(until[key] - since.get(key, 0))

    assert grown("requests_total", "200", "0") == 3
    assert grown("requests_total", "400", "0") == 1
    assert grown("requests_total", "405", "0") == 1
    assert grown("requests_total", "503", "0", since=after, until=at_last) == 1
    assert grown("request_seconds_count", "0") == 5
    assert grown("objects_total", "started", "0") == 2
    assert grown("objects_total", "continued", "0") == 2
    assert grown("objects_total", "failed", "0") == 1
    assert grown("image_bytes_total", "0") > 0
    assert grown("store_bytes_total", "written", "0") > 0
    assert grown("cache_lookups_total", "hit", "0") > 0
    phases = ("decode", "encode", "start", "step", "save")
    seconds = [grown("phase_seconds_total", phase, "0") for phase in phases]
    assert all(second > 0 for second in seconds)
    assert sum(seconds) <= grown("request_seconds_sum", "0")
    assert after["cvat_sam2_store_answers", "0"] == 1
    running = next(key for key in after if key[0] == "cvat_sam2_running_info")
    assert {main.VERSION, "cpu", "float32", "redis"} <= set(running)
    assert after["cvat_sam2_process_resident_memory_bytes", "0"] > 100 << 20


def test_a_wrong_method_is_logged_as_a_warning(function: FunctionProcess) -> None:
    assert function.request("DELETE")[0] == 405
    function.wait_for(r"(?i)\[warning\] request failed.*status: 405|warn.*405")


def families_of(worker: int) -> list[Any]:
    text = Metrics(worker, {"version": main.VERSION}).text(store_answers=True)
    return list(text_string_to_metric_families(text))


def test_every_metric_of_the_documents_exists() -> None:
    families = families_of(0)
    names = {sample.name for family in families for sample in family.samples}
    types = {family.name: family.type for family in families}
    names |= {f"{name}_total" for name, kind in types.items() if kind == "counter"}
    names |= {f"{name}_bucket" for name, kind in types.items() if kind == "histogram"}
    document = (ROOT / "docs" / "monitoring.md").read_text()
    mentioned = set(re.findall(r"\bcvat_sam2_[a-z_]*[a-z]", document))
    assert mentioned
    assert mentioned <= names
    table = document.split("## Metrics")[1].split("## Prometheus")[0]
    listed = {f"cvat_sam2_{name}" for name in re.findall(r"^\| `(\w+)`", table, re.MULTILINE)}
    ours = {name for name in types if "_process_" not in name}
    assert {name.removesuffix("_total") for name in listed if "_process_" not in name} == (ours)


def test_no_alarm_mistakes_one_worker_for_another() -> None:
    """With several workers each scrape reaches another one: all series must say which.

    So a series of one worker is in some scrapes only, and `for` begins anew at each gap.
    """
    samples = [sample for family in families_of(7) for sample in family.samples]
    assert {sample.labels["worker"] for sample in samples} == {"7"}
    assert "cvat_sam2_process_start_time_seconds" in {sample.name for sample in samples}
    document = (ROOT / "docs" / "monitoring.md").read_text().split("```yaml")[-1].split("```")[0]
    for rule in yaml.safe_load(document)["groups"][0]["rules"]:
        lasts = "for" in rule and "cvat_sam2_" in rule["expr"]
        aggregated = re.match(
            r"max by \(job, instance\) |sum\(rate|histogram_quantile", rule["expr"]
        )
        assert not lasts or aggregated, rule["alert"]
