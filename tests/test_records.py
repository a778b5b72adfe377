# SPDX-License-Identifier: MIT
"""Records under keys: the same rules in a real Redis and in this process's memory."""

import contextlib
import logging
from collections.abc import Iterator

import pytest
import redis
from faults.proxy import Proxy

from sam2_tracker.errors import StoreUnavailable
from sam2_tracker.records import EmbeddedRecords, Records, RedisRecords, open_records
from sam2_tracker.settings import MIB, Settings
from tools.redis_server import RedisServer


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


@pytest.fixture
def in_redis(empty_redis: RedisServer) -> Iterator[Records]:
    with contextlib.closing(RedisRecords(redis_settings(empty_redis))) as opened:
        yield opened


def put(records: Records, *pairs: tuple[str, bytes], ttl: int = 100, **changes: list[str]) -> None:
    records.put(pairs, ttl_seconds=ttl, **{"extend": [], "remove": [], **changes})


def test_records_come_back_in_the_order_of_the_keys(records: Records) -> None:
    large = b"\x00\xff" * 300_000
    put(records, ("a", b"1"), ("b", large), ("c", b""))
    assert records.get(["c", "unknown", "b", "a", "a"]) == [b"", None, large, b"1", b"1"]
    assert records.get([]) == []
    records.probe("ready")


def test_records_are_removed_and_overwritten(records: Records) -> None:
    put(records, ("a", b"1"), ("b", b"2"))
    put(records, ("c", b"3"), remove=["a", "unknown"], extend=["b", "unknown"])
    assert records.get(["a", "b", "c", "unknown"]) == [None, b"2", b"3", None]
    put(records, ("b", b"4"))
    assert records.get(["b"]) == [b"4"]


def test_a_record_lives_for_its_time_and_no_longer(empty_redis: RedisServer) -> None:
    now = [0.0]
    for records in (
        EmbeddedRecords(MIB, lambda: now[0]),
        RedisRecords(redis_settings(empty_redis)),
    ):
        put(records, ("short", b"1"), ("extended", b"2"), ttl=500)
        put(records, ("long", b"3"), ttl=9000, extend=["extended"])
        if records.name == "embedded":
            now[0] += 501
            assert records.get(["short", "extended", "long"]) == [None, b"2", b"3"]
        records.close()
    with empty_redis.client() as client:
        assert 0 < client.ttl("short") <= 500 < client.ttl("extended") <= 9000


def test_one_pipeline_gives_every_key_a_time_to_live(
    empty_redis: RedisServer, in_redis: Records
) -> None:
    in_redis.probe("ready")  # a new connection begins with a PING of its own
    with empty_redis.commands() as commands:
        put(in_redis, ("a", b"1"), ("b", b"2"), ttl=77, extend=["c"], remove=["d", "e"])
    assert commands == [
        ["SET", "a", "1", "EX", "77"],
        ["SET", "b", "2", "EX", "77"],
        ["EXPIRE", "c", "77"],
        ["UNLINK", "d", "e"],
    ]


def test_a_server_that_is_gone_is_an_error_of_every_call_until_it_is_back(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis.retry, "sleep", lambda seconds: None)
    server = RedisServer()
    opened = RedisRecords(redis_settings(server))

    def fail() -> None:
        for call in (
            lambda: opened.probe("ready"),
            lambda: opened.get(["a"]),
            lambda: put(opened, ("a", b"1")),
        ):
            with pytest.raises(StoreUnavailable, match="try again"):
                call()

    fail()
    assert "Redis failed: ConnectionError" in caplog.text
    with server:
        put(opened, ("a", b"1"))
        server.kill()
        fail()
        server.start()
        assert opened.get(["a"]) == [None]  # it keeps nothing on disk
    opened.close()


def connections(server: RedisServer) -> int:
    with server.client() as client:
        received: int = client.info("stats")["total_connections_received"]
        return received


def test_a_frozen_server_costs_one_timeout(
    empty_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A second attempt would multiply the time that a request waits."""
    opened = RedisRecords(redis_settings(empty_redis, redis_timeout_seconds=0.5))
    before = connections(empty_redis)
    empty_redis.freeze()
    try:
        with pytest.raises(StoreUnavailable):
            opened.get(["a"])
    finally:
        empty_redis.thaw()
    assert "Redis failed: TimeoutError" in caplog.text
    assert connections(empty_redis) == before + 2  # one is that of this count
    opened.close()


@pytest.mark.parametrize("answer", [b":abc\r\n", b"$abc\r\n", b"*1\r\n" * 3000, b"SSH-2.0\r\n"])
def test_what_is_no_redis_is_a_store_that_does_not_answer(
    empty_redis: RedisServer, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    with contextlib.closing(Proxy(empty_redis.port)) as proxy:
        proxy.stub_answer = answer
        server = Settings(redis_host=empty_redis.host, redis_port=proxy.port)
        with contextlib.closing(RedisRecords(server)) as opened:
            for call in (
                lambda: opened.get(["a"]),
                lambda: opened.get_and_check(["a"], ["b"]),
                lambda: put(opened, ("a", b"x")),
                lambda: opened.probe("a"),
            ):
                with pytest.raises(StoreUnavailable):
                    call()
            assert "Redis failed: " in caplog.text
            proxy.stub_answer = None
            put(opened, ("a", b"x"))
            assert opened.get(["a"]) == [b"x"]


@pytest.mark.parametrize(
    ("password", "sentence"),
    [(None, "Redis asks for a password: set"), ("wrong", "Redis refuses the password: check")],
)
def test_the_log_names_a_missing_or_wrong_password(
    empty_redis: RedisServer, caplog: pytest.LogCaptureFixture, password: str | None, sentence: str
) -> None:
    empty_redis.lock()
    try:
        opened = RedisRecords(redis_settings(empty_redis, redis_password=password))
        before = connections(empty_redis)
        with pytest.raises(StoreUnavailable) as caught:
            opened.get(["a"])
        assert connections(empty_redis) - before <= 2  # one of them counts: nothing is repeated
        assert f"{sentence} CVAT_FUNCTIONS_REDIS_PASSWORD" in caplog.text
        assert "PASSWORD" not in caught.value.message  # the client cannot do anything about it
        opened.close()
        opened = RedisRecords(redis_settings(empty_redis, redis_password=empty_redis.password))
        assert opened.get(["a"]) == [None]
        opened.close()
    finally:
        empty_redis.unlock()


def test_a_store_that_answers_and_takes_nothing_is_not_ready(
    empty_redis: RedisServer, in_redis: Records, caplog: pytest.LogCaptureFixture
) -> None:
    with empty_redis.client() as client:
        try:
            client.config_set("maxmemory", 1)
            client.config_set("maxmemory-policy", "noeviction")
            with pytest.raises(StoreUnavailable):
                in_redis.probe("ready")
            with pytest.raises(StoreUnavailable):
                put(in_redis, ("a", b"1"))
            client.config_set("maxmemory", 0)
            in_redis.probe("ready")
            put(in_redis, ("a", b"1"))
            client.acl_setuser("default", commands=["-SET"], enabled=True, nopass=True, keys=["*"])
            with pytest.raises(StoreUnavailable):
                in_redis.probe("ready")
            assert "Redis does not allow a command: allow MGET, EXISTS, SET" in caplog.text
        finally:
            client.config_set("maxmemory", 0)
            client.acl_setuser("default", commands=["+SET"], enabled=True, nopass=True, keys=["*"])


def test_after_a_failover_the_address_is_asked_for_the_new_primary(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The open connection leads to a replica by then, which answers reads and refuses writes."""
    with RedisServer() as old, RedisServer() as new:
        with contextlib.closing(Proxy(old.port)) as address:
            opened = RedisRecords(Settings(redis_host="127.0.0.1", redis_port=address.port))
            put(opened, ("a", b"1"))
            with old.client() as client:
                client.replicaof(new.host, new.port)
            address.lead_to(new.port)
            with pytest.raises(StoreUnavailable, match="try again"):
                put(opened, ("a", b"2"))
            assert "Redis is a read-only replica" in caplog.text
            put(opened, ("a", b"2"))
            opened.close()
        with new.client() as client:
            assert client.get("a") == b"2"


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
    put(records, ("a", b"x" * 60))
    with pytest.raises(StoreUnavailable):
        put(records, ("b", b"x" * 60), ("c", b"x" * 60), remove=["a"])
    assert "SAM2_EMBEDDED_STORE_MIB" in caplog.text
    assert records.get(["a", "b", "c"]) == [b"x" * 60, None, None]


def test_expired_embedded_records_make_room_first(caplog: pytest.LogCaptureFixture) -> None:
    now = [1000.0]
    opened = EmbeddedRecords(MIB, lambda: now[0])
    put(opened, *((f"old{i}", bytes(100_000)) for i in range(10)), ttl=10)
    now[0] += 11
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
