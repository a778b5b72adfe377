# SPDX-License-Identifier: MIT
"""Every setting does something: each one is observed on a function that was built with it.

The model is the stand-in, so what is seen of the model's own options is what ModelHandler is given;
test_fidelity.py and test_inexact_options.py have what it does with them.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nuclio_sdk
import pytest
import redis
import torch
from cvat_requests import image_to_base64
from faults.standin_model import SAM2, HashedFrame, StandinModel
from PIL import Image
from running import new_context

import interactor as interactor_module
import main
import tracker as tracker_module
from sam2_tracker import records as records_module
from sam2_tracker import stopwatch, threads
from sam2_tracker.errors import ConfigurationError, TooLarge
from sam2_tracker.models import model_files
from sam2_tracker.predictions import Candidates, Prediction
from sam2_tracker.settings import MIB, Settings
from sam2_tracker.store_call import StoreThread
from sam2_tracker.time_budget import TimeBudget
from tools.redis_server import RedisServer

IMAGE = Image.effect_noise((90, 60), 80).convert("RGB")
BODY = {"image": image_to_base64(IMAGE), "states": []}
BOX = {"type": "rectangle", "points": [10, 10, 60, 40]}
POLYGON: dict[str, Any] = {"type": "polygon", "points": [10, 10, 60, 12, 50, 40, 20, 45]}


class RecordingModel(StandinModel):
    """Keeps what it is built with and what it is asked."""

    def __init__(self, files: Any, **options: Any) -> None:
        super().__init__(layout=SAM2)
        self.files = files
        self.options = options
        self.encoded = self.started = self.stepped = 0
        self.policies: set[str] = set()
        self.on_start: Callable[[int], None] = lambda count: None
        self.on_step: Callable[[int], None] = lambda count: None

    def encode(self, image: Image.Image, *, single: bool = False) -> HashedFrame:
        self.encoded += 1
        return super().encode(image)

    def decode(self, frame: Any, prompts: Any, **options: Any) -> list[Candidates]:
        return [Candidates(logits=torch.zeros(1, 8, 8), ious=(0.5,)) for _ in prompts]

    def start(self, frame: Any, prompts: Any, **size: int) -> list[Prediction]:
        self.started += len(prompts)
        self.on_start(len(prompts))
        return super().start(frame, prompts, **size)

    def step(self, frame: HashedFrame, banks: Any) -> list[Prediction]:
        self.stepped += len(banks)
        self.policies |= {bank.policy for bank in banks}
        self.on_step(len(banks))
        return super().step(frame, banks)


class Function:
    """The function as Nuclio runs it, started with these settings."""

    def __init__(self, **settings: Any) -> None:
        names = {field.name: field.metadata["variable"] for field in dataclasses.fields(Settings)}
        self.models: list[RecordingModel] = []
        with pytest.MonkeyPatch.context() as patched:
            for module in (tracker_module, interactor_module):
                patched.setattr(module, "ModelHandler", self._model)
            settings = {"model": "sam2.1_hiera_micro", "threads": 1, **settings}
            for name, value in settings.items():
                patched.setenv(names[name], str(value))
            self.context = new_context()
            main.init_context(self.context)
        self.tracker = self.context.user_data.function
        (self.model,) = self.models

    def _model(self, files: Any, **options: Any) -> RecordingModel:
        self.models.append(RecordingModel(files, **options))
        return self.models[-1]

    def ask(self, **body: Any) -> tuple[int, Any]:
        event = nuclio_sdk.Event(body={**BODY, **body}, method="POST")
        response = main.handler(self.context, event)
        return response.status_code, json.loads(response.body)

    def get(self) -> Any:
        response = main.handler(self.context, nuclio_sdk.Event(method="GET"))
        return json.loads(response.body)

    def code(self, **body: Any) -> str | None:
        """Of the error that a request gets."""
        _, answer = self.ask(**body)
        return answer["error"]["code"] if "error" in answer else None


@pytest.fixture
def start() -> Iterator[Callable[..., Function]]:
    functions: list[Function] = []

    def start(**settings: Any) -> Function:
        functions.append(Function(**settings))
        return functions[-1]

    yield start
    for function in functions:
        function.tracker.close()


Start = Callable[..., Function]
CHECKS: dict[str, Callable[..., None]] = {}


def check(*settings: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def enter(function: Callable[..., None]) -> Callable[..., None]:
        CHECKS.update(dict.fromkeys(settings, function))
        return function

    return enter


def test_every_setting_is_observed() -> None:
    assert set(CHECKS) == {field.name for field in dataclasses.fields(Settings)}


# ---- the model ----


OPTIONS = {"device": "cuda:1", "precision": "bfloat16", "fill_hole_area": 5}
OPTIONS |= {"image_size": 512, "memory_frames": 3, "conditioning_frames": 4}


@check(*OPTIONS)
def test_the_options_of_the_model(start: Start) -> None:
    options = start(**OPTIONS).model.options
    assert {name: value for name, value in options.items() if name != "cache"} == OPTIONS


@check("function")
def test_what_the_function_is(start: Start) -> None:
    assert start().get()["store"] == {"kind": "embedded", "answers": True}
    assert start(function="interactor").get()["store"] == {"kind": "none", "answers": True}


@check("model", "config", "checkpoint")
def test_the_files_of_the_model(start: Start) -> None:
    bundled = model_files(Settings(model="sam2.1_hiera_micro"))
    assert start(model="sam2.1_hiera_micro").model.files == bundled
    own = start(model="unused", config=bundled.config, checkpoint=bundled.checkpoint)
    assert own.model.files.checkpoint == bundled.checkpoint


@check("weights_dir", "weights_url")
def test_the_place_of_the_weights(start: Start, tmp_path: Path) -> None:
    """The URL is for whoever fetches weights (test_download.py); the function never does."""
    place = tmp_path / "here"
    with pytest.raises(ConfigurationError, match=str(place)):
        start(model="sam2.1_hiera_tiny", weights_dir=place, weights_url="http://127.0.0.1:1/")


@check("threads", "workers")
def test_threads_are_shared_among_workers(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: 2.0)
    given: list[int] = []
    set_num_threads = torch.set_num_threads
    monkeypatch.setattr(torch, "set_num_threads", lambda n: (given.append(n), set_num_threads(n)))
    assert start(threads=0).tracker.info().threads == 2
    assert given == [2, 1, 2]  # the model, the thread of the store alone, threads that begin later
    assert start(threads=1).tracker.info().threads == 1
    threads.set_threads(0, 2)
    assert torch.get_num_threads() == 1
    with pytest.raises(ConfigurationError, match="Several workers"):
        start(threads=0, workers=2)


@pytest.mark.parametrize(
    ("given", "cores", "warns"), [(0, 1.5, False), (2, 1.5, False), (3, 1.5, True), (99, 64, True)]
)
def test_more_threads_than_cores_are_told(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    given: int,
    cores: float,
    warns: bool,
) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: cores)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    threads.set_threads(given, 1)
    assert (f"SAM2_THREADS is {given}" in caplog.text) is warns


def test_calls_of_the_store_take_no_threads_from_the_model() -> None:
    """With a second team of OpenMP threads every frame takes 1.4 times as long on two cores."""
    torch.set_num_threads(2)
    with contextlib.closing(StoreThread(60.0)) as thread:
        assert thread.submit(torch.get_num_threads).wait() == 1
        assert torch.get_num_threads() == 2
        with ThreadPoolExecutor(1) as later:  # as `local --both-ways` has one
            assert later.submit(torch.get_num_threads).result() == 2
        work = torch.ones(1 << 20)
        thread.submit(lambda: work.sum()).wait()  # torch looks at the number of threads here
        assert thread.submit(torch.get_num_threads).wait() == 1


@check("memory_policy")
def test_the_memory_policy_of_objects_that_name_none(start: Start) -> None:
    function = start(memory_policy="anchors")
    function.model.policies.clear()  # the warm-up has its own
    shapes = [BOX, {**BOX, "memory": "official"}]
    _, answer = function.ask(shapes=shapes)
    function.ask(shapes=[], states=answer["states"])
    assert function.model.policies == {"anchors", "official"}


# ---- Redis ----


@check("redis_host", "redis_port", "redis_password", "redis_tls", "redis_timeout_seconds")
def test_the_connection_to_redis(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    waits: list[float] = []

    class Client(redis.Redis):
        def __init__(self, **options: Any) -> None:
            given.update(options)
            super().__init__(**{**options, "ssl": False})

    class StoreThread(tracker_module.StoreThread):
        def __init__(self, seconds: float) -> None:
            waits.append(seconds)
            super().__init__(seconds)

    monkeypatch.setattr(records_module.redis, "Redis", Client)
    monkeypatch.setattr(tracker_module, "StoreThread", StoreThread)
    monkeypatch.setattr(redis.retry, "sleep", lambda seconds: None)
    address = {"redis_host": "127.0.0.1", "redis_port": 1, "redis_password": " secret "}
    start(**address, redis_tls=1, redis_timeout_seconds=2.5)
    assert (given["host"], given["port"], given["password"]) == ("127.0.0.1", 1, " secret ")
    assert given["ssl"] is True
    assert waits == [2.5]
    assert 2.3 < given["socket_connect_timeout"] + given["socket_timeout"] < 2.5
    assert given["health_check_interval"] > 0  # else a stale connection would cost a request


@check("redis_prefix", "state_ttl_seconds")
def test_the_keys_in_redis(start: Start, empty_redis: RedisServer) -> None:
    redis_settings = {"redis_host": empty_redis.host, "redis_port": empty_redis.port}
    function = start(**redis_settings, redis_prefix="mine", state_ttl_seconds=900)
    assert function.ask(shapes=[BOX])[0] == 200
    with empty_redis.client() as client:
        keys = [key for key in client.keys("*") if not key.endswith(b":ready")]  # of a second
        assert len(keys) == 2
        for key in keys:
            assert key.startswith(b"mine:standin-for-tests:")
            assert 0 < client.ttl(key) <= 900


# ---- limits ----


@check("max_image_megapixels")
def test_the_limit_of_an_image(start: Start) -> None:
    assert start(max_image_megapixels=0.0054).code(shapes=[BOX]) is None
    assert start(max_image_megapixels=0.0053).code(shapes=[BOX]) == "too_large"


@check("max_objects")
def test_the_limit_of_objects(start: Start) -> None:
    function = start(max_objects=3)
    assert function.code(shapes=[BOX] * 3) is None
    assert function.code(shapes=[BOX] * 4) == "too_large"


@check("max_points")
def test_the_limit_of_points(start: Start) -> None:
    function = start(max_points=100_000)
    points = POLYGON["points"] + [20, 45] * 49_996
    assert function.code(shapes=[{**POLYGON, "points": points}]) is None
    assert function.code(shapes=[{**POLYGON, "points": [*points, 20, 45]}]) == "bad_shape"


@check("time_budget_seconds")
def test_the_time_budget(start: Start) -> None:
    function = start(time_budget_seconds=7)
    assert function.tracker.budget.seconds == 7


@check("polygon_tolerance")
def test_the_tolerance_of_polygons(start: Start) -> None:
    counts = []
    for tolerance in (0, 0.1):
        function = start(polygon_tolerance=tolerance)
        moved = [[number + by for number in POLYGON["points"]] for by in range(9)]
        _, answer = function.ask(shapes=[{**POLYGON, "points": points} for points in moved])
        _, answer = function.ask(shapes=[], states=answer["states"])
        counts.append(sum(len(shape["points"]) for shape in answer["shapes"] if shape))
    assert 0 < counts[1] < counts[0]


# ---- memory ----


@check("memory_cache_mib")
@pytest.mark.parametrize("mib", [0, 64])
def test_the_cache_of_memory_frames(start: Start, mib: int) -> None:
    function = start(memory_cache_mib=mib)
    _, answer = function.ask(shapes=[BOX])
    function.ask(states=answer["states"])
    fields = function.context.logger.lines[-1][2]
    assert (fields["cache_hits"], fields["cache_misses"]) == ((1, 0) if mib else (0, 1))
    frame = function.model.options["cache"]
    assert frame is function.tracker._store._cache  # attention and store share one


@check("frame_cache_mib")
@pytest.mark.parametrize("mib", [0, 64])
def test_the_cache_of_encoded_frames(start: Start, mib: int) -> None:
    function = start(frame_cache_mib=mib)
    before = function.model.encoded
    for _ in range(2):
        function.ask(shapes=[BOX] * 3)
    assert function.model.encoded - before == (1 if mib else 2)


@check("search_region")
@pytest.mark.parametrize(("size", "views"), [(0, 1), (1.5, 2)])
def test_the_search_region(start: Start, size: float, views: int) -> None:
    """Two objects in different places: each is looked for in a window of its own."""
    function = start(search_region=size)
    before = function.model.encoded
    function.ask(shapes=[{**BOX, "points": [left, 10, left + 20, 20]} for left in (0, 60)])
    assert function.model.encoded - before == views
    assert function.get()["search_region"] == size


@check("embedded_store_mib")
def test_the_size_of_the_embedded_store(start: Start) -> None:
    """A memory frame at 1024 px takes 0.5 MiB: 8 MiB hold 15 of them with their heads."""
    function = start(embedded_store_mib=8)
    assert function.code(shapes=[BOX] * 15) is None
    assert function.code(shapes=[BOX] * 17) == "store_unavailable"
    assert SAM2.frame_bytes * 17 > 8 * MIB


# ---- the start, and what requests cost ----


def test_the_function_is_warm_before_its_first_request(start: Start) -> None:
    function = start()
    assert function.model.encoded > 0
    assert function.model.started > 0
    assert function.model.stepped > 0
    for count in ({"starts": 10**12, "steps": 0}, {"starts": 0, "steps": 10**12}):
        with pytest.raises(TooLarge):  # so it knows what its parts cost
            function.tracker.budget.check(**count)


def test_a_request_of_many_objects_teaches_the_cost_of_one(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start takes 0.1 s and each step 0.2 s, so 250 and 125 objects fit into 25 s."""
    now = [0.0]
    function = start()
    function.tracker.budget = TimeBudget(25.0)  # without what the warm-up really took
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])

    def pass_time(seconds: float) -> Callable[[int], None]:
        return lambda count: now.__setitem__(0, now[0] + seconds * count)

    function.model.on_start, function.model.on_step = pass_time(0.1), pass_time(0.2)
    _, answer = function.ask(shapes=[BOX] * 20)
    for _ in range(25):  # until the memory is full: hidden frames do not count
        _, answer = function.ask(shapes=[], states=answer["states"][:4])
    for kind, other, fits in (("starts", "steps", 250), ("steps", "starts", 125)):
        function.tracker.budget.check(**{kind: fits - 1, other: 0})
        with pytest.raises(TooLarge):
            function.tracker.budget.check(**{kind: fits + 1, other: 0})
