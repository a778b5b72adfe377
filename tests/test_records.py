# SPDX-License-Identifier: MIT
"""Records under keys: the same rules in a real Redis and in this process's memory."""

import logging
import time
from collections.abc import Iterator
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


def test_records_come_back_in_the_order_of_the_keys(records: Records) -> None:
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


def test_records_are_removed_and_overwritten(records: Records) -> None:
    put(records, ("a", b"1"), ("b", b"2"))
    put(records, ("c", b"3"), remove=["a", "unknown"], extend=["b", "unknown"])
    assert records.get(["a", "b", "c", "unknown"]) == [None, b"2", b"3", None]
    put(records, ("b", b"4"))
    assert records.get(["b"]) == [b"4"]


def test_a_record_lives_for_its_time_and_no_longer(records: Records) -> None:
    put(records, ("short", b"1"), ("extended", b"2"), ttl=1)
    put(records, ("long", b"3"), extend=["extended"])
    time.sleep(1.2)
    assert records.get(["short", "extended", "long"]) == [None, b"2", b"3"]


def test_one_pipeline_gives_every_key_a_time_to_live(empty_redis: RedisServer) -> None:
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


# ---- Redis fails, or refuses ----


def test_a_closed_port_is_an_error_of_every_call(caplog: pytest.LogCaptureFixture) -> None:
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


def test_an_answer_that_takes_longer_than_the_timeout_is_an_error(
    empty_redis: RedisServer,
) -> None:
    """The same delay of 1.2 s fails under a timeout of 0.9 s and passes under one of 9 s."""
    with empty_redis.client() as client:
        for seconds in (0.9, 9.0):
            opened = RedisRecords(redis_settings(empty_redis, redis_timeout_seconds=seconds))
            put(opened, ("a", b"1"))
            client.client_pause(1200)
            if seconds < 1.2:
                with pytest.raises(StoreUnavailable):
                    opened.get(["a"])
            else:
                assert opened.get(["a"]) == [b"1"]
            opened.close()
            client.client_unpause()


def test_a_frozen_server_costs_one_timeout(caplog: pytest.LogCaptureFixture) -> None:
    """A second attempt would multiply the time that a request waits."""
    with RedisServer() as server:
        opened = RedisRecords(redis_settings(server, redis_timeout_seconds=0.5))
        put(opened, ("a", b"1"))
        before = connections(server)
        server.freeze()
        with pytest.raises(StoreUnavailable):
            opened.get(["a"])
        server.thaw()
        assert "Redis failed: TimeoutError" in caplog.text
        assert connections(server) == before + 1  # the connection of this count
        assert opened.get(["a"]) == [b"1"]
        opened.close()


def test_a_server_that_comes_back_is_found_again() -> None:
    with RedisServer() as server:
        opened = RedisRecords(redis_settings(server))
        put(opened, ("a", b"1"))
        server.kill()
        with pytest.raises(StoreUnavailable):
            opened.get(["a"])
        server.start()
        assert opened.get(["a"]) == [None]  # it keeps nothing on disk
        put(opened, ("a", b"2"))
        assert opened.get(["a"]) == [b"2"]
        opened.close()


def connections(server: RedisServer) -> int:
    with server.client() as client:
        received: int = client.info("stats")["total_connections_received"]
        return received


@pytest.mark.parametrize("password", [None, "wrong"])
def test_the_log_names_a_missing_or_wrong_password(
    caplog: pytest.LogCaptureFixture, password: str | None
) -> None:
    with RedisServer(password="right") as server:
        opened = RedisRecords(redis_settings(server, redis_password=password))
        before = connections(server)
        with pytest.raises(StoreUnavailable) as caught:
            opened.get(["a"])
        assert connections(server) - before <= 2  # one of them counts: nothing is repeated
        assert "check CVAT_FUNCTIONS_REDIS_PASSWORD" in caplog.text
        assert "PASSWORD" not in caught.value.message  # the client cannot do anything about it
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


def test_a_full_embedded_store_drops_its_oldest_records(caplog: pytest.LogCaptureFixture) -> None:
    opened = EmbeddedRecords(MIB)
    for number in range(30):
        put(opened, (f"k{number}", bytes(100_000)), extend=["k0"])
    found = opened.get([f"k{number}" for number in range(30)])
    kept = [number for number, record in enumerate(found) if record is not None]
    assert kept == [0, *range(21, 30)]  # 10 x 100,000 bytes; k0 was extended every time
    assert "full" in caplog.text


def test_records_too_large_for_the_embedded_store_are_refused_and_nothing_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    records = EmbeddedRecords(max_bytes=100)
    records.put([("a", b"x" * 60)], ttl_seconds=60, extend=[], remove=[])
    with pytest.raises(StoreUnavailable):
        records.put([(key, b"x" * 60) for key in "bc"], ttl_seconds=60, extend=[], remove=["a"])
    assert "SAM2_EMBEDDED_STORE_MIB" in caplog.text
    assert records.get(["a", "b", "c"]) == [b"x" * 60, None, None]


def test_expired_embedded_records_make_room_first(
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


def test_an_overwritten_embedded_record_counts_once() -> None:
    opened = EmbeddedRecords(MIB)
    for _ in range(50):
        put(opened, ("a", bytes(100_000)))
    put(opened, *((f"k{i}", bytes(100_000)) for i in range(9)))
    assert opened.get(["a", "k8"]) == [bytes(100_000)] * 2
