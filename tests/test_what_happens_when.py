# SPDX-License-Identifier: MIT
"""README's table "What happens when": one test for each row, by Nuclio's handler.

The model is a stand-in where it does not matter, so that each answer takes no time.
"""

import base64
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import redis
import torch
from cvat_requests import image_to_base64
from faults.local import DictRecords, local_function, make_tracker
from faults.standin_model import HashedFrame, StandinModel
from PIL import Image

import main
from model_handler import ModelHandler
from sam2_tracker import record_format
from sam2_tracker.batches import Batches
from sam2_tracker.errors import ModelFailure, OutOfMemory
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.predictions import Prediction
from sam2_tracker.records import Records, RedisRecords
from sam2_tracker.settings import Settings
from sam2_tracker.time_budget import TimeBudget
from tools.redis_server import RedisServer

README = Path(__file__).resolve().parents[1] / "README.md"
WIDTH, HEIGHT = 60, 40
FRAMES = [Image.effect_noise((WIDTH, HEIGHT), 20 + n).convert("RGB") for n in range(40)]
MASK = {"type": "mask", "points": [0, 100, 10, 10, 19, 19]}
POLYGON = {"type": "polygon", "points": [5, 5, 40, 6, 35, 30, 8, 28]}
UNKNOWN = {"v": 1, "id": "A" * 43}


class Model(StandinModel):
    """Counts the frames that it encodes, and fails as a test wants it."""

    encoded = 0
    failure: Exception | None = None
    not_finite: Sequence[int] = ()
    """Objects of the next steps whose numbers are not finite."""

    def encode(self, image: Image.Image) -> HashedFrame:
        self.encoded += 1
        if self.failure:
            raise self.failure
        return super().encode(image)

    def step(self, frame: HashedFrame, banks: Any) -> list[Prediction]:
        found: list[Any] = super().step(frame, banks)
        for index in self.not_finite:
            found[index] = ModelFailure("The model gave values that are not finite.")
        return found


class OtherModel(Model):
    fingerprint = "another-standin"


class Worker:
    """One worker of the function."""

    def __init__(self, records: Records | None = None, model: Any = None, **options: Any) -> None:
        self.model = model or Model()
        self.tracker = make_tracker(records or DictRecords(), model=self.model, **options)
        self.log = io.StringIO()
        self.send = local_function(self.tracker, self.log)

    def ask(
        self,
        frame: int | Image.Image,
        shapes: Sequence[Any] = (),
        states: Sequence[Any] = (),
        *,
        status: int = 200,
    ) -> dict[str, Any]:
        """What is answered with this status: the lists, or the error."""
        image = FRAMES[frame] if isinstance(frame, int) else frame
        body = {"image": image_to_base64(image), "shapes": list(shapes), "states": list(states)}
        reply = self.send(body)
        assert reply.status == status, reply.body
        return reply.body if status == 200 else reply.body["error"]

    def start(self, *shapes: Any) -> list[Any]:
        states: list[Any] = self.ask(0, shapes or [MASK])["states"]
        return states

    def walk(self, steps: int) -> list[Any]:
        """The states of one object after its start and after each step."""
        states = self.start()
        for number in range(1, steps + 1):
            states += self.ask(number, states=states[-1:])["states"]
        return states


def codes(answer: dict[str, Any]) -> list[str | None]:
    """Of the errors beside the objects, which then have neither a shape nor a state nor a score."""
    for index, error in enumerate(answer["errors"]):
        others = [answer[name][index] for name in ("shapes", "states", "scores")]
        assert error is None or others == [None] * 3
    return [error and error["code"] for error in answer["errors"]]


ROWS: list[str] = []
Test = Callable[..., None]


def row(beginning: str) -> Callable[[Test], Test]:
    """The test holds what README's table says in the row that begins like this."""
    ROWS.append(beginning)
    return lambda test: test


def test_each_row_has_its_test() -> None:
    section = README.read_text().split("## What happens when")[1].split("\n## ")[0]
    rows = [row for row in re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE) if row.strip("- ")]
    assert [next((b for b in ROWS if row.startswith(b)), row) for row in rows] == ROWS


@row("an object leaves the picture or is covered")
def test_what_is_not_visible_is_null_and_found_again() -> None:
    worker = Worker()  # its model hides one object in four
    states, shown = worker.start(), []
    for number in range(1, 30):
        answer = worker.ask(number, states=states)
        states = answer["states"]
        assert codes(answer) == [None]
        assert states[0] is not None
        shown.append(answer["shapes"][0] is not None)
    assert True in shown[shown.index(False) :]


@row("a state is unknown, older than 8 steps, expired, of another model or version, or damaged")
def test_states_that_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    records = DictRecords(lambda: now[0])
    worker = Worker(records)
    (expired,) = worker.start()
    now[0] = Settings().state_ttl_seconds + 1
    walked = worker.walk(12)
    with monkeypatch.context() as patched:
        patched.setattr(record_format, "VERSION", record_format.VERSION + 1)
        (of_another_version,) = worker.start()
    (of_another_model,) = Worker(records, OtherModel()).start()
    before = set(records.values)
    (damaged,) = worker.start()
    for key in set(records.values) - before:
        records.values[key] = records.values[key][:-1] + b"?"
    gone = [UNKNOWN, walked[-10], expired, of_another_model, of_another_version, damaged]
    answer = worker.ask(13, states=[walked[-9], *gone])
    assert codes(answer) == [None] + ["state_gone"] * len(gone)
    error = worker.ask(13, states=gone, status=410)
    assert (error["code"], error["indexes"]) == ("state_gone", [*range(len(gone))])


@row("a frame has another size than the track's")
def test_a_frame_of_another_size() -> None:
    worker = Worker()
    answer = worker.ask(FRAMES[1].resize((50, 30)), [None, MASK], worker.start())
    assert codes(answer) == ["size_changed", None]
    message = answer["errors"][0]["message"]
    assert "Image sizes of the start frame and the current frame are different" in message
    assert "60 x 40, 50 x 30. Start the object anew on this frame." in message


@row("a shape is malformed / covers no pixel")
def test_shapes_that_cannot_start() -> None:
    kinds = {"polygon": [1, 2, 3], "ellipse": [1, 2, 3, 4], "mask": [0, 10**9, 0, 0, 1, 1]}
    bad = [{"type": kind, "points": points} for kind, points in kinds.items()]
    kinds = {"mask": [1, 0, 0, 0, 0], "polygon": [5, 5, 5, 5, 5, 5]}
    empty = [{"type": kind, "points": points} for kind, points in kinds.items()]
    worker = Worker()
    answer = worker.ask(0, [*bad, MASK, *empty])
    assert codes(answer) == ["bad_shape"] * 3 + [None] + ["empty_shape"] * 2
    for shapes, states, status, code in (  # the first of all objects that fail decides
        ([*empty, None], [None, None, UNKNOWN], 400, "empty_shape"),
        ([*bad, None], [None, None, None, UNKNOWN], 400, "bad_shape"),
        ([None, *empty], [UNKNOWN], 410, "state_gone"),
    ):
        error = worker.ask(0, shapes, states, status=status)
        assert (error["code"], error["indexes"]) == (code, [*range(len(shapes))])


@row("a token is malformed")
def test_malformed_tokens_send_no_command(empty_redis: RedisServer) -> None:
    settings = Settings(redis_host=empty_redis.host, redis_port=empty_redis.port)
    worker = Worker(RedisRecords(settings))
    hostile = [
        "x",
        {"v": 1},
        {"v": 1, "id": "*"},
        {"v": 1, "id": "../" * 14 + "a"},
        {"v": 1, "id": "*\r\nFLUSHALL\r\n" + "a" * 30},
        {"v": 2, "id": "A" * 43},
    ]
    worker.tracker.store_answers()
    with empty_redis.commands() as commands:
        assert worker.ask(0, states=hostile, status=400)["code"] == "bad_state"
    assert commands == []
    with empty_redis.commands() as commands:
        answer = worker.ask(0, [None] * 7 + [MASK], [*hostile, UNKNOWN])
    assert codes(answer) == ["bad_state"] * 6 + ["state_gone", None]
    (asked,) = [command for command in commands if command[0] == "MGET"]
    assert len(asked) == 2  # one key, of the one token that could be ours
    worker.tracker.close()


@row("an object would adopt more than 8 drawn frames")
def test_more_keyframes_than_an_object_can_stand_on() -> None:
    worker = Worker()
    drawn = worker.start(*[MASK] * 9)

    def adopting(*distances: int) -> dict[str, Any]:
        adopt = [{"index": n, "distance": distance} for n, distance in enumerate(distances, 1)]
        return {"type": "mask", "points": [], "adopt": adopt}

    answer = worker.ask(0, [adopting(*range(1, 8))], drawn[:8])
    assert codes(answer) == [None] * 8
    one_more = [adopting(8), None, MASK]
    answer = worker.ask(0, one_more, [answer["states"][0], drawn[8], None])
    assert codes(answer) == ["too_many_keyframes", None, None]


@row("the model's numbers for an object are not finite")
def test_numbers_that_are_not_finite() -> None:
    worker = Worker()
    states = worker.start(MASK, POLYGON)
    worker.model.not_finite = [1]
    assert codes(worker.ask(1, states=states)) == [None, "model_failure"]


@row("not JSON, no image, neither shapes nor states, or not a")
def test_bodies_and_files_that_are_no_request() -> None:
    worker = Worker()
    none = (None, "", b"", b"{", "no json", [], 3, b"\xff\xfe", {"shapes": []}, {"image": "!"},
            {"image": image_to_base64(FRAMES[0])})  # fmt: skip
    for body in none:
        reply = worker.send(body)
        error = reply.body["error"]
        assert (reply.status, error["code"], error["indexes"]) == (400, "bad_request", []), body
        assert error["message"].endswith(".")
    row = next(r for r in README.read_text().splitlines() if "| not JSON, no image" in r)
    named = re.findall(r"[A-Z]\w+(?: 2000)?", row.split("not a ")[1].split(" file")[0])
    assert len(named) == 9
    for kind in [*(name.upper().replace(" ", "") for name in named), "PDF", "ICO"]:
        body = {"image": image_to_base64(FRAMES[0], kind), "shapes": [MASK], "states": []}
        assert worker.send(body).status == (400 if kind in ("PDF", "ICO") else 200), kind


@row("the image or the number of objects exceeds a limit, or the time budget")
def test_requests_that_are_too_large() -> None:
    worker = Worker(max_image_megapixels=WIDTH * HEIGHT / 1e6, max_objects=5)
    worker.tracker.budget = TimeBudget(1.0)
    worker.tracker.budget.remember("start", 0.3)
    larger = FRAMES[0].resize((WIDTH, HEIGHT + 1))
    for frame, count, fits in ((larger, 1, "0.0024 megapixels"), (0, 6, "5"), (0, 5, "at most 3")):
        error = worker.ask(frame, [MASK] * count, status=413)
        assert error["code"] == "too_large"
        assert fits in error["message"]
    not_decoded = base64.b64encode(b"no picture").decode()
    assert worker.send({"image": not_decoded, "shapes": [MASK] * 5}).status == 413
    assert worker.model.encoded == 0
    assert codes(worker.ask(0, [MASK] * 3)) == [None] * 3
    worker.tracker.budget.remember("start", 2.0)
    assert codes(worker.ask(0, [MASK])) == [None]  # one always goes


def test_the_time_is_spent_while_shapes_are_made() -> None:
    """The row on the time budget, where it cannot be known before the model runs."""
    now = [0.0]

    class SlowShapes(Model):
        def step(self, *given: Any) -> Any:
            now[0] += 30  # a stall of the model alone is no reason
            return super().step(*given)

        def logits_to_bitmaps(self, logits: Any, **size: int) -> Any:
            for bitmap in super().logits_to_bitmaps(logits, **size):
                now[0] += 10
                yield bitmap

    records = DictRecords()
    worker = Worker(records, SlowShapes())
    worker.tracker.budget = TimeBudget(25.0, clock=lambda: now[0])
    states = worker.start(*[POLYGON] * 4)  # answered as they were drawn
    saved = dict(records.values)
    error = worker.ask(1, states=states, status=413)
    assert error["code"] == "too_large"
    assert "After 25 s only 3 of 4 shapes are made; send at most 3 " in error["message"]
    assert records.values == saved
    assert codes(worker.ask(1, states=states[:3])) == [None] * 3


@row("Redis does not answer")
def test_a_redis_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """That a wait ends after SAM2_REDIS_TIMEOUT_SECONDS, test_bounds.py and test_wiring.py hold."""
    assert Settings().redis_timeout_seconds == 3
    monkeypatch.setattr(redis.retry, "sleep", lambda seconds: None)
    with RedisServer(persist=True) as server:
        settings = Settings(redis_host=server.host, redis_port=server.port)
        worker = Worker(RedisRecords(settings))
        states = worker.start()
        expected = worker.ask(1, states=states)
        before = worker.model.encoded
        server.kill()
        for request in ({"shapes": [MASK]}, {"states": states}):
            assert worker.ask(2, **request, status=503)["code"] == "store_unavailable"
        no_picture = {"image": base64.b64encode(b"no picture").decode(), "states": states}
        assert worker.send(no_picture).status == 400  # is told, though the store is dead
        assert worker.model.encoded == before
        server.start()
        assert worker.ask(1, states=states)["shapes"] == expected["shapes"]
        worker.tracker.close()


class Killed(BaseException):
    pass


@row("the same request twice, two requests from one token, two workers in turn, a worker killed")
def test_nothing_that_is_stored_is_ever_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    records = DictRecords()
    one, other = Worker(records), Worker(records)
    states = one.start(MASK, POLYGON)
    stored = dict(records.values)
    with monkeypatch.context() as patched:
        patched.setattr(records, "put", kill)
        with pytest.raises(Killed):
            one.ask(1, states=states)
    first = one.ask(1, states=states)
    aside = one.ask(7, states=states)  # two requests from one token
    again = other.ask(1, states=states)  # the same request twice, by two workers in turn
    assert (again["shapes"], again["scores"]) == (first["shapes"], first["scores"])
    assert aside["scores"] != first["scores"]
    following = [other.ask(2, states=each["states"]) for each in (first, again)]
    assert following[0]["scores"] == following[1]["scores"]
    assert stored.items() <= records.values.items()


@row("out of memory")
def test_too_little_memory(small_model: ModelHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(model=small_model, cache=MemoryCache(1 << 20))
    states = worker.start(*[MASK] * 4)
    step, room, tried = small_model.passes.step, [4], []

    def step_batch(frame: Any, recalls: Any, with_candidates: bool) -> Any:
        tried.append(len(recalls))
        if len(recalls) > room[-1]:
            if len(room) > 1:
                room.pop()
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(frame, recalls, with_candidates)

    released, encoded, encode = [], [], small_model.encode
    monkeypatch.setattr(small_model, "encode", lambda image: encoded.append(1) or encode(image))
    monkeypatch.setattr(small_model, "_batches", Batches(32, lambda: None))
    monkeypatch.setattr(small_model.passes, "step", step_batch)
    monkeypatch.setattr(small_model, "release_memory", lambda: released.append(1))
    room[:] = [2]
    answer = worker.ask(1, states=states)
    assert codes(answer) == [None] * 4
    assert (tried, released, len(encoded)) == ([4, 4, 2, 2], [], 1)  # smaller batches
    room[:] = [1, 0, 0, 0]
    again = worker.ask(1, states=states)
    assert (again["shapes"], again["errors"]) == (answer["shapes"], [None] * 4)
    assert (released, len(encoded)) == ([1], 2)  # once more without the caches
    room[:] = [0]
    assert worker.ask(1, states=states, status=503)["code"] == "out_of_memory"
    assert len(released) == 3  # after the second failure too: for the next request
    assert "OutOfMemoryError: CUDA out of memory." in worker.log.getvalue()
    worker.tracker.close()


@row("the GPU refuses all further work")
def test_a_gpu_that_failed_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, ended = Worker(), []
    monkeypatch.setattr(main, "_end_after_the_answer", lambda: ended.append(True))
    worker.model.failure = RuntimeError("CUDA error: an illegal memory access was encountered")
    assert worker.ask(0, [MASK], status=500)["code"] == "internal"  # the device still answers
    assert not ended
    monkeypatch.setattr(worker.model, "device_failed", lambda: True)
    assert worker.ask(0, [MASK], status=503)["code"] == "device_failed"
    assert ended


def test_a_gpu_that_failed_is_not_taken_for_a_full_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution says "unable to find an engine" in both cases."""
    worker, ended = Worker(), []
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr(main, "_end_after_the_answer", lambda: ended.append(True))
    monkeypatch.setattr(torch.cuda, "synchronize", mock.Mock(side_effect=error))
    monkeypatch.setattr(worker.model, "device", torch.device("cuda"))
    monkeypatch.setattr(worker.model, "_cache", MemoryCache(0), raising=False)
    monkeypatch.setattr(Model, "release_memory", ModelHandler.release_memory)
    worker.model.failure = OutOfMemory("The device has too little memory for this frame.")
    assert worker.ask(0, [MASK], status=503)["code"] == "device_failed"
    assert ended


@row("anything else")
def test_details_of_an_unexpected_error_are_in_the_log_and_not_in_the_answer() -> None:
    worker = Worker()
    for error in (RuntimeError("secret/path"), RecursionError(), KeyError("x")):
        worker.model.failure = error
        answer = worker.ask(0, [MASK], status=500)
        assert answer["code"] == "internal"
        assert not re.search("secret|Traceback", repr(answer))
        assert type(error).__name__ in worker.log.getvalue().splitlines()[-1]
        assert "Traceback" in worker.log.getvalue().splitlines()[-1]
