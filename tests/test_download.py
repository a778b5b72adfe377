# SPDX-License-Identifier: MIT
"""Checkpoints are fetched from a real HTTP server that cuts connections, or from a folder."""

import dataclasses
import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sam2_tracker import download
from sam2_tracker.download import fetch
from sam2_tracker.errors import ConfigurationError
from sam2_tracker.models import Model, find_model, model_files
from sam2_tracker.settings import Settings

ROOT = Path(download.__file__).parents[1]
CONTENT = bytes(range(256)) * 8192  # 2 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "sam2.1_hiera_tiny.pt"


class Request(BaseHTTPRequestHandler):
    server: "Server"

    def do_GET(self) -> None:
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
        self.server.asked.append((self.path, start))
        self.server.answer(self, start)

    def send(self, start: int, *, count: int = len(CONTENT)) -> None:
        """Announces all bytes from `start` on, and sends `count` of them."""
        if start >= len(CONTENT):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + count])
        return None

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.asked: list[tuple[str, int]] = []
        self.answer: Callable[[Request, int], None] = Request.send
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setattr(download, "RETRY_SECONDS", 0.01)
    return dataclasses.replace(find_model("sam2.1_hiera_tiny"), size=len(CONTENT), sha256=SHA256)


@pytest.fixture
def settings(tmp_path: Path, server: Server) -> Settings:
    return Settings(weights_dir=tmp_path / "weights", weights_url=server.url)


def error_of(model: Model, settings: Settings) -> str:
    """The message of a failed fetch, which leaves no file under the checkpoint's name."""
    with pytest.raises(ConfigurationError) as caught:
        fetch(model, settings)
    assert "\n" not in caught.value.message
    assert not (settings.weights_dir / model.file_name).exists()
    return caught.value.message


def test_the_file_arrives_checked_and_is_fetched_once(
    server: Server, settings: Settings, model: Model
) -> None:
    path = fetch(model, settings)
    assert path == settings.weights_dir / NAME
    assert path.read_bytes() == CONTENT
    assert fetch(model, settings) == path
    assert server.asked == [("/" + NAME, 0)]
    assert os.listdir(settings.weights_dir) == [NAME]


def test_a_file_whose_checksum_nobody_published_is_checked_by_its_size(
    server: Server, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "RETRY_SECONDS", 0.01)
    pooled = find_model("efficienttam_s_2")
    model = dataclasses.replace(pooled, tensor_bytes=len(CONTENT) - 1000)
    path = fetch(model, settings)
    assert path.read_bytes() == CONTENT
    # From now on it is known.
    assert path.with_name(path.name + ".sha256").read_text() == f"{SHA256}  {path.name}\n"
    path.unlink()
    path.with_name(path.name + ".sha256").unlink()
    model = dataclasses.replace(pooled, tensor_bytes=len(CONTENT) + 1)
    assert "it is truncated" in error_of(model, settings)


def test_a_cut_connection_is_resumed(server: Server, settings: Settings, model: Model) -> None:
    server.answer = lambda request, start: request.send(start, count=300_000)
    assert fetch(model, settings).read_bytes() == CONTENT
    assert [start for _, start in server.asked] == list(range(0, len(CONTENT), 300_000))


def leave_a_part(settings: Settings, content: bytes) -> None:
    settings.weights_dir.mkdir()
    (settings.weights_dir / (NAME + ".part")).write_bytes(content)


def test_the_next_call_resumes_what_an_earlier_one_left(
    server: Server, settings: Settings, model: Model
) -> None:
    server.answer = lambda request, start: request.send_error(503)
    leave_a_part(settings, CONTENT[:1_000_000])
    assert "503" in error_of(model, settings)
    assert len(server.asked) == download.ATTEMPTS
    server.answer = Request.send
    assert fetch(model, settings).read_bytes() == CONTENT
    assert server.asked[-1] == ("/" + NAME, 1_000_000)


def test_a_server_that_ignores_ranges_sends_the_whole_file(
    server: Server, settings: Settings, model: Model
) -> None:
    server.answer = lambda request, start: request.send(0)
    leave_a_part(settings, b"x" * 1000)
    assert fetch(model, settings).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT[::-1], CONTENT + b"x", b"<html>log in</html>"])
def test_a_wrong_file_is_deleted_and_the_next_call_starts_anew(
    settings: Settings, model: Model, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / NAME).write_bytes(content)
    wrong = dataclasses.replace(settings, weights_url=str(tmp_path))
    assert "It was deleted" in error_of(model, wrong)
    assert fetch(model, settings).read_bytes() == CONTENT


def test_a_refusal_is_not_repeated(server: Server, settings: Settings, model: Model) -> None:
    server.answer = lambda request, start: request.send_error(404)
    assert f"{server.url}/{NAME} cannot be fetched: HTTP Error 404" in error_of(model, settings)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("{server}/mirror/", "/mirror/"),
        ("{server}/a/" + NAME, "/a/"),
        ("{folder}", None),
        ("file://{folder}", None),
        ("file://{folder}/other%20name", None),
    ],
)
def test_mirrors_folders_and_files(
    tmp_path: Path, server: Server, settings: Settings, model: Model, url: str, asked: str | None
) -> None:
    (tmp_path / ("other name" if "other" in url else NAME)).write_bytes(CONTENT)
    url = url.format(server=server.url, folder=tmp_path)
    path = fetch(model, dataclasses.replace(settings, weights_url=url))
    assert path.read_bytes() == CONTENT
    assert server.asked == ([(asked + NAME, 0)] if asked else [])


@pytest.mark.parametrize(
    "url", ["ftp://example.org/weights", "/nowhere/at/all", str(ROOT), "https://[mirror/weights"]
)
def test_a_source_that_does_not_exist_is_named(settings: Settings, model: Model, url: str) -> None:
    message = error_of(model, dataclasses.replace(settings, weights_url=url))
    assert message.startswith(f"SAM2_WEIGHTS_URL is {url!r}")


def test_a_checksum_that_the_table_lacks_is_given_once(settings: Settings) -> None:
    model = find_model("sam2_hiera_tiny")
    assert "--sha256" in error_of(model, settings)
    path = fetch(model, settings, sha256=SHA256.upper())
    assert fetch(model, settings) == path
    assert model_files(dataclasses.replace(settings, model=model.name)).sha256 == SHA256


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64, "0" * 64])
def test_a_checksum_that_cannot_be_right_is_refused(
    settings: Settings, model: Model, sha256: str
) -> None:
    with pytest.raises(ConfigurationError, match="SHA-256"):
        fetch(model, settings, sha256=sha256)


def command(*arguments: str, settings: Settings) -> subprocess.Popen[str]:
    place = {"SAM2_WEIGHTS_URL": str(settings.weights_url)}
    variables = {**os.environ, **place, "SAM2_WEIGHTS_DIR": str(settings.weights_dir)}
    words = [sys.executable, "-m", "sam2_tracker.download", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=ROOT, env=variables, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
def test_the_command_reports_progress_and_the_path(settings: Settings) -> None:
    process = command("sam2_hiera_tiny", "--sha256", SHA256, settings=settings)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    path = settings.weights_dir / "sam2_hiera_tiny.pt"
    assert out == f"{path} is there and checked (2,097,152 bytes).\n"
    assert "100%" in err


@pytest.mark.slow
def test_the_command_fails_with_one_line(settings: Settings) -> None:
    process = command("sam9", settings=settings)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.count("\n")) == (1, "", 1)
    assert "There is no model 'sam9'." in err


@pytest.mark.slow
def test_two_commands_at_once_do_not_disturb_each_other(server: Server, settings: Settings) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(request: Request, start: int) -> None:
        begun.set()
        go_on.wait(60)
        request.send(start)

    server.answer = wait
    first = command("sam2_hiera_tiny", "--sha256", SHA256, settings=settings)
    assert begun.wait(60)
    second = command("sam2_hiera_tiny", "--sha256", SHA256, settings=settings)
    assert "Another process is fetching sam2_hiera_tiny.pt" in second.communicate(timeout=60)[1]
    go_on.set()
    assert "is there and checked" in first.communicate(timeout=60)[0]
    assert (settings.weights_dir / "sam2_hiera_tiny.pt").read_bytes() == CONTENT
