# SPDX-License-Identifier: MIT
"""The function behind real HTTP: serve.py in a process of its own, and a client for it."""

import base64
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 200.0
ANSWER_SECONDS = 120.0
STOP_SECONDS = 90.0


class FunctionServer:
    """Runs from `with` on; its log is in `log`."""

    def __init__(
        self, environment: Mapping[str, str], *, workers: int = 1, wait: bool = True
    ) -> None:
        self.log: list[str] = []
        self._wait = wait
        self._workers = workers
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.serve", "--port", "0", "--workers", str(workers)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "FunctionServer":
        if self._wait:
            self.wait_for(r"worker \d+ is ready", times=self._workers)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # the workers as well
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def port(self) -> int:
        found = re.search(r"listening on http://[\d.]+:(\d+)", "".join(self.log))
        if found is None:
            raise RuntimeError("The server does not listen:\n" + "".join(self.log))
        return int(found[1])

    def wait_for(self, pattern: str, *, times: int = 1) -> None:
        """Returns when the log has it so often; raises RuntimeError if that does not come."""
        deadline = time.monotonic() + START_SECONDS
        while len(re.findall(pattern, "".join(self.log))) < times:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"No {pattern!r} in the log:\n" + "".join(self.log))
            time.sleep(0.05)

    def stop(self) -> int:
        """Asks the server to end, as a container's stop does, and returns its exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        return self._process.wait(STOP_SECONDS)

    def request(
        self,
        method: str,
        body: bytes | str | None = None,
        *,
        path: str = "/",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            return (
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read(),
            )
        finally:
            connection.close()

    def post(self, content: object) -> tuple[int, Any]:
        """Sends JSON as CVAT does; the status and the decoded answer."""
        status, _, body = self.request(
            "POST", json.dumps(content), headers={"Content-Type": "application/json"}
        )
        return status, json.loads(body)

    def get(self) -> Any:
        status, _, body = self.request("GET")
        assert status == 200
        return json.loads(body)

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self.log.append(line)


def image_to_base64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def init(image: Image.Image, shapes: Sequence[object]) -> dict[str, object]:
    """CVAT's request for objects that start on a frame."""
    return {"image": image_to_base64(image), "shapes": list(shapes), "states": []}


def follow(image: Image.Image, states: Sequence[object]) -> dict[str, object]:
    """CVAT's request for objects that go on: the shapes are filled up with null."""
    return {"image": image_to_base64(image), "shapes": [None] * len(states), "states": list(states)}
