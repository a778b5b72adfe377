# SPDX-License-Identifier: MIT
"""The real redis-server that tests and benchmarks start."""

import pytest
import redis

from tools import redis_server
from tools.redis_server import RedisServer


def test_a_server_that_does_not_answer_in_time_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    server = RedisServer()
    started = []

    def refused(self: RedisServer) -> redis.Redis:
        started.append(self._process)
        raise redis.exceptions.ConnectionError

    monkeypatch.setattr(redis_server, "START_SECONDS", 0.0)
    monkeypatch.setattr(RedisServer, "client", refused)
    with pytest.raises(redis.exceptions.ConnectionError), server:
        pass
    assert started
    assert all(process and process.poll() is not None for process in started)
    assert not server._folder.exists()
