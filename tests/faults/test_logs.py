# SPDX-License-Identifier: MIT
"""What the log says of a request, and what it must never say."""

import base64
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from faults.fleet import Fleet
from faults.reference import noise_png
from tools.redis_server import RedisServer

MARKER = 1234.5678
"""A coordinate that no other number of a log line resembles."""
FIELDS = (
    *("status", "objects", "started", "continued", "failed", "failed_codes", "image_bytes"),
    *("store_read_bytes", "store_written_bytes", "cache_hits", "cache_misses"),
)
IMAGE = base64.b64encode(noise_png()).decode()
PHASES = ("read_ms", "decode_ms", "load_ms", "encode_ms", "start_ms", "step_ms", "save_ms")


@pytest.fixture(scope="module")
def fleet(redis_server: RedisServer) -> Iterator[Fleet]:
    with Fleet(workers=1, redis=redis_server) as one:
        yield one


def lines_of(fleet: Fleet, send: Any) -> tuple[Any, list[str]]:
    """What a request got, and what was logged meanwhile."""
    before = len(fleet.log.read_text())
    reply = send()
    return reply, logged_since(fleet, before).splitlines()


def logged_since(fleet: Fleet, before: int) -> str:
    """What was logged until now. The log is a pipe's end: a last line tells that all is there."""
    mark = fleet.log.read_text().count("'status': 405")
    fleet.send("PUT", b"{}")
    while True:
        log = fleet.log.read_text()
        if log.count("'status': 405") > mark and log.endswith("\n"):
            lines = log[before:].splitlines(keepends=True)
            return "".join(line for line in lines if "'status': 405" not in line)
        time.sleep(0.01)


def polygon(*points: float) -> dict[str, Any]:
    return {"type": "polygon", "points": [*points]}


GOOD = polygon(0, 0, 20, 0, 20, 20)


def test_the_start_is_described(fleet: Fleet) -> None:
    line = next(line for line in fleet.log.read_text().splitlines() if "running" in line)
    for word in ("model", "device", "precision", "store", "threads", "image_megapixels", "objects"):
        assert f"'{word}'" in line


def test_one_structured_line_per_request(fleet: Fleet) -> None:
    first, lines = lines_of(fleet, lambda: fleet.post({"image": IMAGE, "shapes": [GOOD, GOOD]}))
    assert len(lines) == 1
    assert "'objects': 2, 'started': 2, 'continued': 0, 'failed': 0" in lines[0]
    assert re.search(r"'store_written_bytes': [1-9]", lines[0])
    _, lines = lines_of(fleet, lambda: fleet.post({"image": IMAGE, "states": first.body["states"]}))
    assert len(lines) == 1
    for name in (*FIELDS, *PHASES):
        assert f"'{name}'" in lines[0]
    assert "'status': 200" in lines[0]
    assert "'cache_hits': 2, 'cache_misses': 0" in lines[0]
    assert re.search(r"'store_read_bytes': [1-9]", lines[0])


def test_the_log_has_the_error_code_of_each_object_that_failed(fleet: Fleet) -> None:
    body = {"image": IMAGE, "shapes": [GOOD, polygon(1, 2)], "states": [None, None, {"v": 2}]}
    _, lines = lines_of(fleet, lambda: fleet.post(body))
    assert "'failed': 2, 'failed_codes': 'bad_shape,bad_state'" in lines[0]


def test_the_cause_of_a_503_is_logged(fleet: Fleet) -> None:
    fleet.redis.fill()
    try:
        reply, lines = lines_of(fleet, lambda: fleet.post({"image": IMAGE, "shapes": [GOOD]}))
    finally:
        fleet.redis.empty()
    assert reply.status == 503
    assert any("'status': 503" in line and "maxmemory" in line for line in lines)


def test_no_token_no_point_and_no_image_byte_is_logged(fleet: Fleet) -> None:
    number = int(MARKER)
    before = len(fleet.log.read_text())
    shapes: list[Any] = [
        polygon(MARKER, 2, 3, MARKER, 0, 0),
        polygon(MARKER, 2, 3),
        polygon(MARKER, MARKER, MARKER, MARKER, MARKER, MARKER),
        {"type": "rectangle", "points": [0, 0, MARKER, MARKER]},
        {"type": "rectangle", "points": [MARKER, MARKER, 0, 0]},
        {"type": "mask", "points": [0, number, 0, 0, number, number]},
        {"type": "mask", "points": [0, 4, number, number, number + 1, number + 1]},
        {"type": "mask", "points": [MARKER] * 6},
        {"type": f"{MARKER}", "points": [MARKER] * 6},
    ]
    for shape in shapes:
        fleet.post({"image": IMAGE, "shapes": [shape]})
        fleet.post({"image": IMAGE, "shapes": [shape, GOOD]})
    states = fleet.post({"image": IMAGE, "shapes": [GOOD] * 2}).body["states"]
    forged = {"v": 1, "id": "MARKER" + "a" * 37}
    fleet.post({"image": IMAGE, "states": states})
    fleet.post({"image": IMAGE, "states": [*states, forged]})
    fleet.post({"image": IMAGE, "states": [forged]})
    fleet.post({"image": IMAGE, "states": [{"v": 1, "id": "MARKER"}]})
    fleet.post({"image": IMAGE, "shapes": GOOD, "states": states})
    marked = b"MARKER-of-an-image" * 10
    fleet.post({"image": base64.b64encode(marked).decode(), "shapes": [GOOD]})
    picture = bytearray(base64.b64decode(IMAGE))
    place = picture.index(b"IDAT")
    picture[place + 40 : place + 46] = b"MARKER"
    picture[place : place + 4] = b"MARK"
    fleet.post({"image": base64.b64encode(picture).decode(), "shapes": [GOOD]})
    fleet.post(json.dumps({"image": IMAGE, "MARKER": 1}).encode()[:-1])
    fleet.redis.fill()
    fleet.post({"image": IMAGE, "states": states})
    fleet.redis.empty()
    with fleet.redis.client() as admin:
        for key in admin.scan_iter(match="*:h:*"):
            admin.set(key, b"MARKER", keepttl=True)
    fleet.post({"image": IMAGE, "states": states})
    log = logged_since(fleet, before)
    assert log.count("'status': 4") >= 12
    assert "'status': 503" in log
    assert "'status': 200" in log
    assert "MARK" not in log
    assert str(number) not in log
    assert all(state["id"] not in log for state in states)
    assert IMAGE[:24] not in log
