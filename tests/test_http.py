# SPDX-License-Identifier: MIT
"""The function over real HTTP, as CVAT calls it: one frame per request, tokens in between."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cvat_requests import follow, init, shape_to_bitmap
from cvat_sdk.masks import encode_mask
from running import FRAME, POLYGON, environment
from tracking import images, threads

from sam2_tracker.models import ModelFiles
from tools import serve
from tools.function_process import FunctionProcess
from tools.official import official_logits, official_predictor
from tools.redis_server import RedisServer
from training.clips import Clip, draw_clip

WIDTH, HEIGHT = 320, 240
# Nearer to 0 than this a logit's sign may be decided by rounding.
UNDECIDED = 1e-2


@pytest.fixture(scope="module")
def clip() -> Clip:
    """26 frames of three objects of different size; the last one leaves and returns."""
    return draw_clip(3, frames=26, width=WIDTH, height=HEIGHT, objects=3, leaving=True)


@pytest.fixture(scope="module")
def function(small_files: ModelFiles, redis_server: RedisServer) -> Iterator[FunctionProcess]:
    """With a Redis, and without hole filling."""
    with FunctionProcess(environment(small_files, redis_server, SAM2_FILL_HOLE_AREA="0")) as server:
        yield server


@pytest.fixture(scope="module")
def other_function(small_files: ModelFiles, redis_server: RedisServer) -> Iterator[FunctionProcess]:
    """A second one on the same Redis, whose caches keep nothing."""
    caches = {"SAM2_MEMORY_CACHE_MIB": "0", "SAM2_FRAME_CACHE_MIB": "0"}
    variables = environment(small_files, redis_server, SAM2_FILL_HOLE_AREA="0", **caches)
    with FunctionProcess(variables) as server:
        yield server


Shapes = list[list[dict[str, Any] | None]]


def mask_seeds(clip: Clip) -> list[dict[str, Any]]:
    return [{"type": "mask", "points": encode_mask(mask)} for mask in clip.masks[0]]


def track(servers: list[FunctionProcess], clip: Clip) -> Shapes:
    """The shapes by frame from the second frame on; the servers take turns."""
    frames, seeds = images(clip), mask_seeds(clip)
    status, answer = servers[0].post(init(frames[0], seeds))
    assert status == 200
    found = []
    for index, frame in enumerate(frames[1:]):
        status, answer = servers[(index + 1) % len(servers)].post(follow(frame, answer["states"]))
        assert status == 200
        assert answer["errors"] == [None] * len(seeds)
        found.append(answer["shapes"])
    return found


@pytest.fixture(scope="module")
def tracked(function: FunctionProcess, clip: Clip) -> Shapes:
    return track([function], clip)


def test_equal_to_the_official_predictor(
    tracked: Shapes, clip: Clip, small_files: ModelFiles, tmp_path: Path
) -> None:
    """HTTP, state in Redis, HTTP: over 25 steps of 3 objects."""
    predictor = official_predictor(small_files)
    with threads(1):  # as the server: rounding depends on it
        official = official_logits(predictor, images(clip), list(clip.masks[0]), tmp_path)
    overlaps, visible = [], []
    for number, by_frame in enumerate(official):
        for index in range(1, len(clip.frames)):
            logits = by_frame[index].numpy()
            ours, truth = shape_to_bitmap(tracked[index - 1][number], WIDTH, HEIGHT), logits > 0
            decided = np.abs(logits) > UNDECIDED
            assert (ours[decided] == truth[decided]).all()
            visible.append(truth.any())
            union = (ours | truth).sum()
            overlaps.append((ours & truth).sum() / union if union else 1.0)
    assert np.mean(visible) >= 0.8
    assert np.mean(overlaps) >= 0.9999
    print(f"lowest IoU over HTTP: {np.min(overlaps)}")
    assert np.min(overlaps) >= 0.999


def test_two_processes_in_turn_give_the_same_masks_as_one(
    function: FunctionProcess, other_function: FunctionProcess, tracked: Shapes, clip: Clip
) -> None:
    assert track([other_function, function], clip) == tracked


def test_head_has_no_body(function: FunctionProcess) -> None:
    status, headers, body = function.request("HEAD")
    assert status == 405
    assert int(headers["content-length"]) > 0
    assert body == b""


def raw(function: FunctionProcess, request: bytes) -> bytes:
    """What comes back for bytes that need not be HTTP, until the server closes."""
    with socket.create_connection(("127.0.0.1", function.port), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 268435457\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", b"4"),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", b"501"),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", b"505"),
        (b"nonsense\r\n\r\n", b""),
    ],
    ids=lambda value: repr(value)[-30:],
)
def test_requests_that_are_hardly_http(
    function: FunctionProcess, request_: bytes, status: bytes
) -> None:
    answer = raw(function, request_)
    assert status in answer.split(b"\r\n")[0]
    assert b"Traceback" not in answer
    assert function.get()["store"]["answers"] is True  # the worker goes on


def test_a_client_that_goes_away(function: FunctionProcess) -> None:
    for request in (b"", b"POST / HT", b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{"):
        with socket.create_connection(("127.0.0.1", function.port)) as connection:
            connection.sendall(request)
    assert function.get()["store"]["answers"] is True


def test_requests_wait_for_their_turn(function: FunctionProcess) -> None:
    """One at a time per worker, none refused."""
    request = init(FRAME, [POLYGON])
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: function.post(request)[0], range(24)))
    assert answers == [200] * 24


def test_a_connection_is_closed_after_its_answer(function: FunctionProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", function.port, timeout=30)
    connection.request("GET", "/")
    response = connection.getresponse()
    assert response.read()
    assert response.getheader("Connection") == "close"
    assert function.get()
    connection.close()


def test_a_stop_lets_the_running_request_finish(small_files: ModelFiles, clip: Clip) -> None:
    """Whose large body is read to its end."""
    with FunctionProcess(environment(small_files)) as server:
        body = init(images(clip)[0], mask_seeds(clip) * 20)
        # More than the sockets hold: when all of it is sent, the worker has taken it up.
        body["padding"] = "x" * (32 << 20)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        connection.request("POST", "/", json.dumps(body), {"Content-Type": "application/json"})
        assert server.stop() == 0
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        assert response.status == 200
        assert None not in answer["states"]
        assert "Traceback" not in server.log


def test_two_workers_share_a_redis_and_one_that_dies_is_replaced(
    small_files: ModelFiles, redis_server: RedisServer
) -> None:
    variables = environment(small_files, redis_server)
    with FunctionProcess(variables, workers=2) as server:
        status, answer = server.post(init(FRAME, [POLYGON]))
        assert status == 200
        for _ in range(6):
            status, answer = server.post(follow(FRAME, answer["states"]))
            assert status == 200
        os.kill(server.worker_pids[0], signal.SIGKILL)
        server.wait_for(r"worker \d died: starting it again")
        server.wait_for(r"worker \d+ is ready", times=3)
        for _ in range(4):
            status, answer = server.post(follow(FRAME, answer["states"]))
            assert status == 200
        assert server.stop() == 0  # it would be 1 if a worker had to be killed
        assert "Traceback" not in server.log


def test_a_worker_that_ended_by_itself_is_replaced(repository: Path, tmp_path: Path) -> None:
    """As one does whose GPU has failed: with the status of one that cannot start."""
    program = f"""
import os, pathlib, signal, sys
from tools import serve

def work(listener, worker_id, *ready):
    for each in ready:
        each.set()
    lives = pathlib.Path({str(tmp_path)!r})
    (lives / str(os.getpid())).touch()
    if len(list(lives.iterdir())) == 1:
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getppid(), signal.SIGTERM)
    signal.pause()

serve.run_worker = work
sys.exit(serve._run_workers(None, 1))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "worker 0 died: starting it again\n")


def test_waiting_for_requests_takes_no_cpu(function: FunctionProcess) -> None:
    """Looked at 50 times, an idle worker hardly ever runs, and one in a loop always does."""
    assert function.get()["model"]
    (worker,) = function.worker_pids
    states = []
    for _ in range(50):
        time.sleep(0.02)
        states.append(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0])
    assert states.count("R") < 25


def test_workers_end_with_a_server_that_was_killed(small_files: ModelFiles) -> None:
    with FunctionProcess(environment(small_files)) as server:
        (worker,) = server.worker_pids
        os.kill(server.pid, signal.SIGKILL)
        while Path(f"/proc/{worker}").exists():  # at most until pytest's timeout
            time.sleep(0.1)


def test_a_server_ends_with_the_process_that_started_it(
    small_files: ModelFiles, repository: Path
) -> None:
    program = """
import os, signal
from tools.function_process import FunctionProcess

with FunctionProcess(os.environ) as server:
    print(server.pid, *server.worker_pids, flush=True)
    signal.pause()
"""
    starter = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=repository,
        env=environment(small_files),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout
    with starter.stdout:
        pids = starter.stdout.readline().split()
    starter.kill()
    starter.wait()
    assert len(pids) == 2
    while any(Path(f"/proc/{pid}").exists() for pid in pids):  # at most until pytest's timeout
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("workers", "variables", "sentence"),
    [(2, {}, "Several workers need a Redis"), (1, {"SAM2_DEVICE": "cuda:99"}, "SAM2_DEVICE")],
)
def test_a_start_that_fails_ends_with_a_sentence(
    small_files: ModelFiles, workers: int, variables: dict[str, str], sentence: str
) -> None:
    more = environment(small_files, **variables)
    with FunctionProcess(more, workers=workers, wait=False) as server:
        assert server.wait() == 1
        assert "The function cannot start: " in server.log
        assert sentence in server.log
        assert "Traceback" not in server.log


@pytest.mark.parametrize("port", ["99999", "65536", "-1", "http"])
def test_a_port_that_there_is_not_is_named(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        serve.serve(["--port", port])
    assert f"{port} is not a whole number from 0 to 65535" in capsys.readouterr().err
