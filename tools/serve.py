# SPDX-License-Identifier: MIT
"""Serves `main.py` over HTTP as Nuclio does, without Docker.

    python -m tools.serve --port 8090 --workers 2

Each worker is a process with its own model and takes one request at a time; other requests wait in
the queue of the listening socket. A worker that dies is started again. If neither SAM2_MODEL nor
SAM2_CONFIG is set, it runs the bundled micro model, which is for trying and testing.
"""

import argparse
import datetime
import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any

MICRO_MODEL = "sam2.1_hiera_micro"
MAX_BODY_BYTES = 192 << 20  # as in function.yaml
QUEUED_REQUESTS = 128
SOCKET_TIMEOUT_SECONDS = 60
POLL_SECONDS = 0.2
STOP_TIMEOUT_SECONDS = 60


class Stop:
    """`wanted` after SIGTERM or SIGINT. The request in progress is still answered."""

    def __init__(self) -> None:
        self.wanted = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._set)

    def _set(self, number: int, frame: object) -> None:
        self.wanted = True


class NuclioHandler(BaseHTTPRequestHandler):
    """Hands one HTTP request to the function as Nuclio's Python wrapper does."""

    protocol_version = "HTTP/1.1"
    timeout = SOCKET_TIMEOUT_SECONDS
    context: Any
    entry_point: Any

    def handle_one_request(self) -> None:
        super().handle_one_request()
        self.close_connection = True  # a connection kept open would block all other clients

    def do_any(self) -> None:
        import nuclio_sdk

        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or self.headers.get("Transfer-Encoding"):
            return self._answer(411, "text/plain", b"Send a Content-Length.")
        if len(length) > 18 or int(length) > MAX_BODY_BYTES:
            return self._answer(400, "text/plain", b"body size exceeds the given limit")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            return None  # the client has hung up
        event = nuclio_sdk.Event.deserialize(
            self._message(body), kind=nuclio_sdk.event.EventDeserializerKinds.msgpack
        )
        try:
            output = type(self).entry_point(self.context, event)
            response = nuclio_sdk.Response.from_entrypoint_output(json.dumps, output)
        except Exception:
            return self._answer(500, "text/plain", traceback.format_exc().encode())
        return self._answer(
            response["status_code"],
            response["content_type"],
            response["body"].encode(),
            response["headers"],
        )

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_any

    def log_message(self, format: str, *args: object) -> None:
        pass  # the function logs its requests itself

    def _message(self, body: bytes) -> dict[str, Any]:
        return {
            "body": body,
            "content_type": self.headers.get("Content-Type", ""),
            "trigger": {"kind": "http", "name": "serve"},
            "fields": {},
            "headers": dict(self.headers.items()),
            "id": str(uuid.uuid4()),
            "method": self.command,
            "path": self.path,
            "size": len(body),
            "timestamp": datetime.datetime.now(datetime.UTC).timestamp(),
            "url": self.path,
            "shard_id": 0,
            "num_shards": 1,
            "type": "",
            "type_version": "",
            "version": "",
        }

    def _answer(
        self, status: int, content_type: str, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def run_worker(listener: socket.socket, worker_id: int, ready: Event) -> None:
    """Loads the model and answers requests until the server stops or is gone.

    ready: set once the model is loaded.
    """
    stop, parent = Stop(), os.getppid()
    import nuclio_sdk

    import main
    from sam2_tracker.errors import ConfigurationError

    logger = nuclio_sdk.Logger(logging.INFO, f"worker-{worker_id}")
    logger.set_handler("default", sys.stderr, nuclio_sdk.logger.HumanReadableFormatter())
    platform = nuclio_sdk.Platform("local")
    context = nuclio_sdk.Context(logger, platform, worker_id=worker_id)
    try:
        main.init_context(context)
    except ConfigurationError:
        sys.exit(1)  # it has logged why

    NuclioHandler.context, NuclioHandler.entry_point = context, main.handler
    server = HTTPServer(listener.getsockname()[:2], NuclioHandler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.timeout = POLL_SECONDS
    ready.set()
    print(f"worker {worker_id} is ready", file=sys.stderr, flush=True)
    while not stop.wanted and os.getppid() == parent:  # a server that was killed cannot stop it
        server.handle_request()
    platform._on_signal("termination")


def serve(arguments: list[str] | None = None) -> int:
    """Runs the workers until SIGTERM, or until the process of --parent is gone.

    Returns 1 if one of the workers cannot start or end, else 0.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.serve", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; default: %(default)s"
    )
    parser.add_argument(
        "--port", type=_port, default=8090, help="default: %(default)s; 0: any free one"
    )
    parser.add_argument("--workers", type=int, default=1, help="number of worker processes")
    parser.add_argument(
        "--parent", type=int, metavar="PID", help="of what started it: it ends when that is gone"
    )
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error("--workers must be at least 1")
    os.environ["SAM2_WORKERS"] = str(options.workers)
    if not os.environ.get("SAM2_MODEL") and not os.environ.get("SAM2_CONFIG"):
        os.environ["SAM2_MODEL"] = MICRO_MODEL
        print(
            "SAM2_MODEL is not set: running the bundled micro model, which is for trying and "
            "testing. To annotate, set SAM2_MODEL to one of Meta's models.",
            file=sys.stderr,
        )
    try:
        listener = _listen(options.host, options.port)
    except OSError as error:
        parser.exit(1, f"Cannot listen on {options.host}:{options.port}: {error.strerror}.\n")
    return _run_workers(listener, options.workers, options.parent)


def _port(text: str) -> int:
    if not (text.isdecimal() and len(text) < 6 and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to 65535")
    return int(text)


def _listen(host: str, port: int) -> socket.socket:
    """Raises OSError."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(QUEUED_REQUESTS)
    # All idle workers wake up for a connection, and one gets it. The others try again after this
    # time. It cannot be 0, because handle_request would then loop without a pause.
    listener.settimeout(POLL_SECONDS)
    host, port = listener.getsockname()
    print(f"listening on http://{host}:{port}", file=sys.stderr, flush=True)
    return listener


def _run_workers(listener: socket.socket, count: int, parent: int | None = None) -> int:
    """Returns 1 if one of them cannot start or end, else 0.

    parent: the process that started this one, whose end ends it; None: no process's end does.
    """
    stop = Stop()
    context = multiprocessing.get_context("fork")

    def start(worker_id: int) -> tuple[BaseProcess, Event]:
        ready = context.Event()
        process = context.Process(target=run_worker, args=(listener, worker_id, ready))
        process.start()
        return process, ready

    workers = [start(worker_id) for worker_id in range(count)]
    failed = False
    while not stop.wanted and not failed and parent in (None, os.getppid()):
        time.sleep(0.1)
        for worker_id, (worker, ready) in enumerate(workers):
            if worker.exitcode is None:
                continue
            if worker.exitcode > 0 and not ready.is_set():  # it has printed why it cannot start
                failed = True
            else:
                print(f"worker {worker_id} died: starting it again", file=sys.stderr, flush=True)
                workers[worker_id] = start(worker_id)
    for worker, _ in workers:
        worker.terminate()
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    for worker, _ in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.exitcode is None:
            worker.kill()
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(serve())
