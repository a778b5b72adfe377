# SPDX-License-Identifier: MIT
"""Bytes under keys: the same rules in a real Redis and in this process's memory."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from sam2_tracker import records as records_module
from sam2_tracker.errors import StoreUnavailable
from sam2_tracker.records import EmbeddedRecords, Records, RedisRecords, open_records
from sam2_tracker.settings import MIB, Settings
from tools.redis_server import RedisServer, free_port


def redis_settings(server: RedisServer, **changes: object) -> Settings:
    return Settings(redis_host=server.host, redis_port=server.port, **changes)


@pytest.fixture(params=["redis", "embedded"])
def records(request: pytest.FixtureRequest) -> Iterator[Records]:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("empty_redis")
        opened = open_records(redis_settings(server))
    else:
        opened = open_records(Settings())
    assert opened.name == request.param
    yield opened
    opened.close()


def put(records: Records, *pairs: tuple[str, bytes], ttl: int = 100, **changes: list[str]) -> None:
    records.put(pairs, ttl_seconds=ttl, **{"extend": [], "remove": [], **changes})


def test_what_was_put_comes_back_in_the_order_asked_for(records: Records) -> None:
    put(records, ("a", b"1"), ("b", b"\x00\xff" * 300_000), ("c", b""))
    assert records.get(["c", "unknown", "b", "a", "a"]) == [
        b"",
        None,
        b"\x00\xff" * 300_000,
        b"1",
        b"1",
    ]
    assert records.get([]) == []
    records.ping()


def test_removing_and_writing_again(records: Records) -> None:
    put(records, ("a", b"1"), ("b", b"2"))
    put(records, ("c", b"3"), remove=["a", "unknown"], extend=["b", "unknown"])
    assert records.get(["a", "b", "c", "unknown"]) == [None, b"2", b"3", None]
    put(records, ("b", b"4"))
    assert records.get(["b"]) == [b"4"]


def test_a_record_lives_as_long_as_it_was_given(records: Records) -> None:
    put(records, ("short", b"1"), ("extended", b"2"), ttl=1)
    put(records, ("long", b"3"), extend=["extended"])
    time.sleep(1.2)
    assert records.get(["short", "extended", "long"]) == [None, b"2", b"3"]


def test_redis_gets_a_life_on_every_key_and_one_pipeline(empty_redis: RedisServer) -> None:
    opened = RedisRecords(redis_settings(empty_redis))
    opened.ping()  # a new connection begins with a PING of its own
    with empty_redis.commands() as commands:
        put(opened, ("a", b"1"), ("b", b"2"), ttl=77, extend=["c"], remove=["d", "e"])
    assert commands == [
        ["SET", "a", "1", "EX", "77"],
        ["SET", "b", "2", "EX", "77"],
        ["EXPIRE", "c", "77"],
        ["UNLINK", "d", "e"],
    ]
    opened.close()


# ---- Redis that is not there, or not ours ----


def test_a_closed_port_is_an_error_within_bounds(caplog: pytest.LogCaptureFixture) -> None:
    opened = RedisRecords(Settings(redis_host="127.0.0.1", redis_port=free_port()))
    for call in (
        opened.ping,
        lambda: opened.get(["a"]),
        lambda: put(opened, ("a", b"1")),
    ):
        with pytest.raises(StoreUnavailable, match="try again"):
            call()
    assert "Redis failed: ConnectionError" in caplog.text
    opened.close()


def test_a_server_that_comes_back_is_found_again(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        opened = RedisRecords(redis_settings(server))
        put(opened, ("a", b"1"))
        server.stop()
        with pytest.raises(StoreUnavailable):
            opened.get(["a"])
        server.start()
        assert opened.get(["a"]) == [None]  # it came back empty
        put(opened, ("a", b"2"))
        assert opened.get(["a"]) == [b"2"]
        opened.close()


def connections(server: RedisServer) -> int:
    with server.client() as client:
        received: int = client.info("stats")["total_connections_received"]
        return received


@pytest.mark.parametrize("password", [None, "wrong"])
def test_a_password_that_is_missing_or_wrong_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, password: str | None
) -> None:
    with RedisServer(tmp_path, password="right") as server:
        opened = RedisRecords(redis_settings(server, redis_password=password))
        before = connections(server)
        with pytest.raises(StoreUnavailable) as caught:
            opened.get(["a"])
        assert connections(server) - before <= 2  # of them one to count: nothing is repeated
        assert "check CVAT_FUNCTIONS_REDIS_PASSWORD" in caplog.text
        assert "PASSWORD" not in caught.value.message  # nothing for the client
        opened.close()
        opened = RedisRecords(redis_settings(server, redis_password="right"))
        assert opened.get(["a"]) == [None]
        opened.close()


def test_a_full_redis_is_unavailable(empty_redis: RedisServer) -> None:
    opened = RedisRecords(redis_settings(empty_redis))
    with empty_redis.client() as client:
        client.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(StoreUnavailable):
                put(opened, *((f"k{i}", b"x" * 500_000) for i in range(5)))
        finally:
            client.config_set("maxmemory", "0")
    put(opened, ("a", b"1"))
    assert opened.get(["a"]) == [b"1"]
    opened.close()


# ---- this process's memory ----


def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(records_module, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def test_embedded_records_are_bounded_and_the_oldest_goes(caplog: pytest.LogCaptureFixture) -> None:
    opened = EmbeddedRecords(MIB)
    for number in range(30):
        put(opened, (f"k{number}", bytes(100_000)), extend=["k0"])
    found = opened.get([f"k{number}" for number in range(30)])
    kept = [number for number, record in enumerate(found) if record is not None]
    assert kept == [0, *range(21, 30)]  # 10 x 100,000 bytes; k0 was given a new life every time
    assert "full" in caplog.text


def test_embedded_records_that_never_fit_are_refused_and_nothing_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    records = EmbeddedRecords(max_bytes=100)
    records.put([("a", b"x" * 60)], ttl_seconds=60, extend=[], remove=[])
    with pytest.raises(StoreUnavailable):
        records.put([(key, b"x" * 60) for key in "bc"], ttl_seconds=60, extend=[], remove=["a"])
    assert "SAM2_EMBEDDED_STORE_MIB" in caplog.text
    assert records.get(["a", "b", "c"]) == [b"x" * 60, None, None]


def test_embedded_records_that_expired_make_room_first(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = clock(monkeypatch)
    opened = EmbeddedRecords(MIB)
    put(opened, *((f"old{i}", bytes(100_000)) for i in range(10)), ttl=10)
    now.seconds += 11
    put(opened, *((f"new{i}", bytes(100_000)) for i in range(10)), ttl=10)
    assert opened.get(["old0", "old9"]) == [None, None]
    assert None not in opened.get([f"new{i}" for i in range(10)])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_record_that_is_written_again_counts_once() -> None:
    opened = EmbeddedRecords(MIB)
    for _ in range(50):
        put(opened, ("a", bytes(100_000)))
    put(opened, *((f"k{i}", bytes(100_000)) for i in range(9)))
    assert opened.get(["a", "k8"]) == [bytes(100_000)] * 2
