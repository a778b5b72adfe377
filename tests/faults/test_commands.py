# SPDX-License-Identifier: MIT
"""Which commands really go to the store: those that every Kvrocks since 2.7 knows, on our keys."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from faults.local import BY_NO_CLOCK, make_store, make_tracker
from faults.proxy import Proxy
from faults.reference import noise_png
from faults.standin_model import StandinModel
from sam2_tracker.protocol import Seed, Token, TrackRequest
from sam2_tracker.records import RedisRecords
from sam2_tracker.settings import Settings
from tools.redis_server import RedisServer, free_port
from tracker import Tracker

# In the command tables of Kvrocks 2.7.0 and every release since, and of Redis since 4.0.
ALLOWED = {
    b"MGET": r"MGET( {key})+",
    b"EXISTS": r"EXISTS {key}",
    b"SET": r"SET ({key} VALUE EX \d+|{ready} VALUE EX 1)",
    b"EXPIRE": r"EXPIRE {key} \d+",
    b"UNLINK": r"UNLINK( {key})+",
    b"PING": r"PING",
    # What redis-py says when it connects; it goes on where CLIENT SETINFO is unknown.
    b"CLIENT": r"CLIENT SETINFO (LIB-NAME|LIB-VER) \S+",
}
KEY = r"cvat-sam2:standin-for-tests:[hm]:[A-Za-z0-9_-]{43}"
READY = "cvat-sam2:standin-for-tests:ready"


def commands(stream: bytes) -> Iterator[list[bytes]]:
    """The commands in what a client sent to Redis: RESP arrays of bulk strings."""
    while stream:
        header, _, stream = stream.partition(b"\r\n")
        assert header[:1] == b"*", header[:50]
        command = []
        for _ in range(int(header[1:])):
            size, _, stream = stream.partition(b"\r\n")
            command.append(stream[: int(size[1:])])
            stream = stream[int(size[1:]) + 2 :]
        yield command


def play(tracker: Tracker, frames: int, now: list[float] | None = None) -> list[Any]:
    """A track of two objects with a repeated, a branched and a refused request; all answers.

    now: the store's clock, which then moves so that frames in use are renewed.
    """
    seeds = tuple(Seed(type="rectangle", points=[2, 2, 9 + n, 20]) for n in range(2))
    answers = tracker.track(TrackRequest(image=noise_png(0), entries=seeds))
    seen = [answers]
    for number in range(frames):
        if now is not None:
            now[0] += 500
        entries = tuple(answer.token for answer in answers)
        request = TrackRequest(image=noise_png(number % 5), entries=entries)
        answers = tracker.track(request)
        seen += [answers, tracker.track(request)]
    entries = (answers[0].token, Token(id="x" * 43))
    seen.append(tracker.track(TrackRequest(image=noise_png(1), entries=entries)))
    return [[(a.shape, a.score, a.error and a.error.code) for a in answers] for answers in seen]


def test_only_known_commands_are_sent_and_only_for_our_keys(empty_redis: RedisServer) -> None:
    now = [1e9]
    with closing(Proxy(empty_redis.port)) as proxy:
        proxy.sent = []
        records = RedisRecords(Settings(redis_host="127.0.0.1", redis_port=proxy.port))
        tracker = Tracker(
            StandinModel(),  # type: ignore[arg-type]
            make_store(records, StandinModel().layout, clock=lambda: now[0]),
            Settings(threads=1, redis_timeout_seconds=BY_NO_CLOCK, time_budget_seconds=BY_NO_CLOCK),
        )
        with closing(tracker):
            play(tracker, 20, now)
            assert tracker.store_answers()
    met = set()
    for command in commands(b"".join(proxy.sent)):
        name = command[0].upper()
        met.add(name)
        shown = [part.decode() for part in command[:2]]
        shown += ["VALUE"] if name == b"SET" else []
        shown += [part.decode() for part in command[3 if name == b"SET" else 2 :]]
        pattern = ALLOWED.get(name, "not allowed").replace("{key}", KEY).replace("{ready}", READY)
        assert re.fullmatch(pattern, " ".join(shown)), " ".join(shown)[:200]
    assert met >= {b"MGET", b"SET", b"EXPIRE", b"UNLINK"}


# --- Kvrocks itself, where there is one


@pytest.fixture
def kvrocks(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """KVROCKS_ADDRESS=host:port, or the server named by KVROCKS (default: `kvrocks` in PATH)."""
    if address := os.environ.get("KVROCKS_ADDRESS"):
        host, _, port = address.rpartition(":")
        yield host, int(port)
        return
    executable = os.environ.get("KVROCKS") or shutil.which("kvrocks")
    if executable is None:
        pytest.skip("NOT RUN: no KVROCKS_ADDRESS=host:port and no kvrocks binary")
    own, config = free_port(), tmp_path / "kvrocks.conf"
    config.write_text(f"bind 127.0.0.1\nport {own}\ndir {tmp_path}\n")
    process = subprocess.Popen([executable, "-c", str(config)], stdout=subprocess.DEVNULL)
    redis.Redis(port=own, protocol=2, retry=Retry(ConstantBackoff(0.05), 600)).ping()
    yield "127.0.0.1", own
    process.terminate()
    process.wait(30)


def test_kvrocks_gives_what_redis_gives(kvrocks: tuple[str, int], empty_redis: RedisServer) -> None:
    host, port = kvrocks
    password = os.environ.get("KVROCKS_PASSWORD")
    found = _played(Settings(redis_host=host, redis_port=port, redis_password=password))
    assert found == _played(Settings(redis_host="127.0.0.1", redis_port=empty_redis.port))
    with closing(redis.Redis(host=host, port=port, password=password, protocol=2)) as client:
        keys = list(client.scan_iter(match="cvat-sam2:standin-for-tests:*", count=1000))
        assert keys
        assert all(0 < client.ttl(key) <= 30_000 for key in keys)


def _played(settings: Settings) -> list[Any]:
    with closing(make_tracker(RedisRecords(settings))) as tracker:
        return play(tracker, 20)
