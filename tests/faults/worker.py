# SPDX-License-Identifier: MIT
"""`serve.py` as it is, with the stand-in model put in from outside, and ways to die at a point.

    python -m faults.worker --port 8091 --port 8092 --control DIRECTORY < a pipe

One server with one worker per port; all end when the pipe is closed. Every second one
caches nothing, so that all is read from the store. A worker that finds the file `kill`
in the control directory and comes to the point named in it kills itself; its server starts it
again.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import main
import tracker
from faults.standin_model import StandinModel
from sam2_tracker import frame_cache
from sam2_tracker.records import RedisRecords
from tools import serve

KILL_POINTS = ("decoded", "loaded", "computed", "half saved", "saved")
KILL_FILE = "kill"
CACHES = ("SAM2_MEMORY_CACHE_MIB", "SAM2_FRAME_CACHE_MIB")


def use_standin_model() -> None:
    tracker.ModelHandler = StandinModel  # type: ignore[assignment, misc]
    tracker.model_files = lambda settings: None  # type: ignore[assignment, return-value]


def die_on_demand(control: Path) -> None:
    def passing(point: str) -> bool:
        """Whether this process is the one that is to die here."""
        order = control / KILL_FILE
        try:
            if order.read_text() != point:
                return False
            order.rename(control / f"killed.{os.getpid()}.{time.monotonic_ns()}")
        except FileNotFoundError:
            return False
        return True

    def after(owner: Any, name: str, point: str) -> None:
        original = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if passing(point):
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, wrapped)

    after(frame_cache, "decode_image", "decoded")
    after(tracker.Tracker, "_read_store", "loaded")
    after(StandinModel, "step", "computed")
    put = RedisRecords.put

    def put_half(self: RedisRecords, records: Any, **kwargs: Any) -> None:
        if passing("half saved"):
            frames = [record for record in records if ":m:" in record[0]]
            put(self, frames, ttl_seconds=kwargs["ttl_seconds"], extend=(), remove=())
            os.kill(os.getpid(), signal.SIGKILL)
        put(self, records, **kwargs)

    RedisRecords.put = put_half  # type: ignore[method-assign, assignment]
    after(RedisRecords, "put", "saved")


def tell_in_headers() -> None:
    """Who answered, at what cost, and whether the request came as far as the geometry."""
    reached = [False]
    prepare, handler = tracker.read_drawing, main.handler

    def noting(*args: Any, **options: Any) -> Any:
        reached[0] = True
        return prepare(*args, **options)

    def telling(context: Any, event: Any) -> Any:
        reached[0] = False
        begin = time.process_time()
        response = handler(context, event)
        response.headers = {
            "X-Worker": str(os.getpid()),
            "X-Geometry": str(int(reached[0])),
            "X-CPU-Seconds": f"{time.process_time() - begin:.4f}",
        }
        return response

    tracker.read_drawing = noting
    main.handler = telling


def fork(run: Callable[[], int]) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(run())
    return pid


def run_servers() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, action="append", required=True)
    parser.add_argument("--control", type=Path, required=True)
    options = parser.parse_args()
    use_standin_model()
    die_on_demand(options.control)
    tell_in_headers()

    def run(index: int, port: int) -> int:
        if index % 2:
            os.environ |= dict.fromkeys(CACHES, "0")
        return serve.serve(["--port", str(port)])

    servers = [
        fork(lambda index=index, port=port: run(index, port))  # type: ignore[misc]
        for index, port in enumerate(options.port)
    ]
    sys.stdin.read()
    for server in servers:
        os.kill(server, signal.SIGTERM)
    for server in servers:
        os.waitpid(server, 0)


if __name__ == "__main__":
    run_servers()
