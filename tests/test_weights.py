# SPDX-License-Identifier: MIT
"""Downloads from a real HTTP server that cuts, lies and delays; real files, real checkpoints."""

import dataclasses
import hashlib
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sam2_tracker import models as weights
from sam2_tracker.errors import ConfigurationError
from sam2_tracker.models import Model, fetch, find_model, load_weights, model_files
from sam2_tracker.settings import Settings

ROOT = Path(weights.__file__).parents[1]
CONTENT = bytes(range(256)) * 8192  # 2 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Request(BaseHTTPRequestHandler):
    server: "Server"

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        self.server.asked.append((self.path, span))
        start = int(re.fullmatch(r"bytes=(\d+)-", span)[1]) if span else 0
        self.server.behave(self, start)

    def whole(self, start: int, *, length: int | None = None, body: bytes | None = None) -> None:
        """What an honest server does."""
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(length or len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:] if body is None else body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.asked: list[tuple[str, str | None]] = []
        self.behave: Callable[[Request, int], None] = Request.whole
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        pass  # clients hang up on purpose here


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def model() -> Model:
    return dataclasses.replace(find_model("sam2.1_hiera_tiny"), size=len(CONTENT), sha256=SHA256)


@pytest.fixture
def settings(tmp_path: Path, server: Server) -> Settings:
    return Settings(weights_dir=tmp_path / "weights", weights_url=server.url)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SOCKET_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(weights, "STALL_WINDOW_SECONDS", 0.5)
    monkeypatch.setattr(weights, "RETRY_SECONDS", 0.01)


def part(settings: Settings, model: Model) -> Path:
    return settings.weights_dir / (model.file_name + ".part")


# --- the table


def test_names_are_metas_and_hugging_faces() -> None:
    for version in ("sam2", "sam2.1"):
        for size in ("tiny", "small", "base_plus", "large"):
            model = find_model(f"{version}_hiera_{size}")
            assert model is find_model(f"facebook/{version}-hiera-{size.replace('_', '-')}")
            assert model.file_name == f"{version}_hiera_{size}.pt"
            assert model.config.is_file()
            assert (model.sha256 is not None) == (version == "sam2.1")


def test_the_bundled_model_lies_beside_its_configuration() -> None:
    model = find_model("sam2.1_hiera_micro")
    assert weights.checkpoint_path(model, Settings()) == (
        ROOT / "models" / "sam2.1_hiera_micro.safetensors"
    )
    assert model.config == ROOT / "models" / "sam2.1_hiera_micro.yaml"


@pytest.mark.parametrize("name", ["", "tiny", "sam2.1_hiera_tiny.pt", "facebook/sam3"])
def test_an_unknown_name_lists_the_known(name: str) -> None:
    with pytest.raises(ConfigurationError, match="sam2.1_hiera_tiny.*facebook/sam2-hiera-large"):
        find_model(name)


def test_importing_needs_no_model_library() -> None:
    code = (
        "import sys, sam2_tracker.models; "
        "heavy = {'torch', 'sam2', 'hydra', 'safetensors', 'tqdm'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# --- fetching


def test_fetches_checks_and_renames(server: Server, settings: Settings, model: Model) -> None:
    path = fetch(model, settings)
    assert path == settings.weights_dir / "sam2.1_hiera_tiny.pt"
    assert path.read_bytes() == CONTENT
    assert [p.name for p in settings.weights_dir.iterdir()] == [path.name]
    assert server.asked == [("/sam2.1_hiera_tiny.pt", None)]
    fetch(model, settings)
    assert len(server.asked) == 1, "a file that is there is not fetched again"


def test_a_cut_connection_is_resumed(server: Server, settings: Settings, model: Model) -> None:
    def cut(request: Request, start: int) -> None:
        request.whole(start, body=CONTENT[start : start + 300_000])
        request.close_connection = True

    server.behave = cut
    assert fetch(model, settings).read_bytes() == CONTENT
    starts = [int(span[6:-1]) if span else 0 for _, span in server.asked]
    assert starts == list(range(0, len(CONTENT), 300_000))


def test_the_next_call_resumes(server: Server, settings: Settings, model: Model) -> None:
    settings.weights_dir.mkdir()
    part(settings, model).write_bytes(CONTENT[:1_000_000])
    fetch(model, settings)
    assert server.asked == [("/sam2.1_hiera_tiny.pt", "bytes=1000000-")]


def test_a_complete_part_needs_no_network(server: Server, settings: Settings, model: Model) -> None:
    settings.weights_dir.mkdir()
    part(settings, model).write_bytes(CONTENT)
    assert fetch(model, settings).read_bytes() == CONTENT
    assert server.asked == []


def test_a_server_that_knows_no_range(server: Server, settings: Settings, model: Model) -> None:
    server.behave = lambda request, start: request.whole(0)
    settings.weights_dir.mkdir()
    part(settings, model).write_bytes(b"x" * 1000)
    assert fetch(model, settings).read_bytes() == CONTENT


def test_a_part_longer_than_the_file(server: Server, settings: Settings, model: Model) -> None:
    settings.weights_dir.mkdir()
    part(settings, model).write_bytes(CONTENT + b"x")
    assert fetch(model, settings).read_bytes() == CONTENT


def test_range_not_satisfiable_starts_again(
    server: Server, settings: Settings, model: Model
) -> None:
    def refuse(request: Request, start: int) -> None:
        request.send_error(416) if start else request.whole(0)

    server.behave = refuse
    settings.weights_dir.mkdir()
    part(settings, model).write_bytes(CONTENT[:5000])
    assert fetch(model, settings).read_bytes() == CONTENT


def test_a_passing_fault_is_retried(server: Server, settings: Settings, model: Model) -> None:
    def busy_twice(request: Request, start: int) -> None:
        request.send_error(503) if len(server.asked) < 3 else request.whole(start)

    server.behave = busy_twice
    assert fetch(model, settings).read_bytes() == CONTENT


def fails(model: Model, settings: Settings, sentence: str) -> None:
    """The failure is one sentence, and no file carries the model's name."""
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        fetch(model, settings, progress=False)
    assert "\n" not in caught.value.message
    assert not (settings.weights_dir / model.file_name).exists()


def test_other_bytes_of_the_right_length(server: Server, settings: Settings, model: Model) -> None:
    server.behave = lambda request, start: request.whole(start, body=CONTENT[::-1])
    fails(model, settings, f"its SHA-256 is .*, expected is {SHA256}")
    assert not part(settings, model).exists(), "or the next call would fail for ever"
    server.behave = Request.whole
    fetch(model, settings)


def test_an_error_page_with_status_200(server: Server, settings: Settings, model: Model) -> None:
    page = b"<html>log in</html>"
    server.behave = lambda request, start: request.whole(0, length=len(page), body=page)
    fails(model, settings, "offers 19 bytes, expected are 2,097,152")


def test_an_endless_answer(server: Server, settings: Settings, model: Model) -> None:
    def endless(request: Request, start: int) -> None:
        request.send_response(200)
        request.end_headers()  # no length: the end of the connection is the end of the file
        for _ in range(64):
            request.wfile.write(CONTENT)

    server.behave = endless
    fails(model, settings, "longer than 2,097,152 bytes")


def test_a_length_that_is_a_lie(server: Server, settings: Settings, model: Model) -> None:
    unknown = dataclasses.replace(model, size=None)
    server.behave = lambda request, start: request.whole(0, length=10 << 40)
    fails(unknown, settings, "offers 10,995,116,277,760 bytes, expected are .* at most")


def test_a_range_from_another_place(server: Server, settings: Settings, model: Model) -> None:
    def elsewhere(request: Request, start: int) -> None:
        request.whole(start // 2)

    server.behave = elsewhere
    settings.weights_dir.mkdir()
    part(settings, model).write_bytes(CONTENT[:1_000_000])
    fails(model, settings, "resumes at another place")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_repeated(
    server: Server, settings: Settings, model: Model, status: int
) -> None:
    server.behave = lambda request, start: request.send_error(status)
    fails(model, settings, f"the server answers {status}")
    assert len(server.asked) == 1


def test_a_server_that_always_cuts_at_once(
    server: Server, settings: Settings, model: Model
) -> None:
    server.behave = lambda request, start: request.whole(start, body=b"")
    fails(model, settings, "the connection was cut. What has come is kept")
    assert len(server.asked) == weights.ATTEMPTS


def test_a_server_that_never_answers(server: Server, settings: Settings, model: Model) -> None:
    server.behave = lambda request, start: time.sleep(1)
    fails(model, settings, "timed out")
    assert len(server.asked) == weights.ATTEMPTS


def test_a_server_that_drips(server: Server, settings: Settings, model: Model) -> None:
    def drip(request: Request, start: int) -> None:
        request.whole(start, body=b"")
        for byte in CONTENT[start : start + 100]:
            request.wfile.write(bytes([byte]))
            time.sleep(0.05)

    server.behave = drip
    fails(model, settings, "next to nothing")


def test_nobody_listens(settings: Settings, model: Model) -> None:
    nobody = dataclasses.replace(settings, weights_url="http://127.0.0.1:9")
    fails(model, nobody, "cannot be fetched: .*refused")


def test_a_folder_that_cannot_be(tmp_path: Path, settings: Settings, model: Model) -> None:
    (tmp_path / "file").write_text("")
    impossible = dataclasses.replace(settings, weights_dir=tmp_path / "file" / "weights")
    with pytest.raises(ConfigurationError, match="cannot be put into place"):
        fetch(model, impossible)


# --- other sources


def test_mirrors_and_files(
    tmp_path: Path, server: Server, settings: Settings, model: Model
) -> None:
    (tmp_path / "sam2.1_hiera_tiny.pt").write_bytes(CONTENT)
    other = tmp_path / "renamed.bin"
    other.write_bytes(CONTENT)
    places = {
        f"{server.url}/mirror/": "/mirror/sam2.1_hiera_tiny.pt",
        f"{server.url}/a/sam2.1_hiera_tiny.pt": "/a/sam2.1_hiera_tiny.pt",
        str(tmp_path): None,
        tmp_path.as_uri(): None,
        str(other): None,
    }
    for number, (url, asked) in enumerate(places.items()):
        server.asked.clear()
        folder = tmp_path / str(number)
        path = fetch(model, dataclasses.replace(settings, weights_dir=folder, weights_url=url))
        assert path.read_bytes() == CONTENT
        assert [a for a, _ in server.asked] == ([asked] if asked else [])


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("ftp://example.org/weights", "must be an http.s. URL, a folder or a file"),
        ("/nowhere/at/all", "leads to /nowhere/at/all, but there is no such file"),
        (str(ROOT), "no such file"),
    ],
)
def test_bad_sources(settings: Settings, model: Model, url: str, sentence: str) -> None:
    fails(model, dataclasses.replace(settings, weights_url=url), sentence)


def test_without_a_mirror_it_is_metas_server(model: Model) -> None:
    assert weights._source(find_model("sam2.1_hiera_small"), Settings()) == (
        "https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_small.pt"
    )
    assert "/072824/sam2_hiera_large.pt" in weights._source(
        find_model("sam2_hiera_large"), Settings()
    )


# --- SAM 2 (not 2.1): the person brings the checksum along


def test_sam2_needs_a_checksum_once(server: Server, settings: Settings) -> None:
    model = find_model("sam2_hiera_tiny")
    fails(model, settings, "--sha256")
    path = fetch(model, settings, sha256=SHA256.upper())
    assert fetch(model, settings) == path, "remembered beside the file"
    files = model_files(dataclasses.replace(settings, model="facebook/sam2-hiera-tiny"))
    assert files.sha256 == SHA256
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(ConfigurationError, match="damaged or another file"):
        model_files(dataclasses.replace(settings, model="sam2_hiera_tiny"))


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64, "a" * 63])
def test_what_is_no_checksum(settings: Settings, sha256: str) -> None:
    fails_with = "is no SHA-256" if sha256 else "--sha256"
    with pytest.raises(ConfigurationError, match=fails_with):
        fetch(find_model("sam2_hiera_tiny"), settings, sha256=sha256 or None)


def test_another_checksum_than_the_tables(settings: Settings, model: Model) -> None:
    with pytest.raises(ConfigurationError, match="another one was asked for"):
        fetch(model, settings, sha256="0" * 64)


# --- the command


def command(*arguments: str, server: Server, folder: Path, **more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sam2_tracker.models", *arguments],
        env={**os.environ, "SAM2_WEIGHTS_URL": server.url, "SAM2_WEIGHTS_DIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,  # type: ignore[call-overload]
    )


def test_the_command(server: Server, tmp_path: Path) -> None:
    process = command("sam2_hiera_tiny", "--sha256", SHA256, server=server, folder=tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert (
        out == f"sam2_hiera_tiny is at {tmp_path}/sam2_hiera_tiny.pt (2,097,152 bytes, checked).\n"
    )
    assert "2.00M/2.00M" in err


def test_the_command_fails_in_one_line(server: Server, tmp_path: Path) -> None:
    process = command("sam9", server=server, folder=tmp_path)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("weights.py: There is no model 'sam9'.")


def test_stopped_and_started_again(server: Server, tmp_path: Path) -> None:
    sent = threading.Event()

    def half(request: Request, start: int) -> None:
        if start:
            request.whole(start)
            return
        request.whole(0, body=CONTENT[:1_500_000])
        sent.set()
        time.sleep(20)

    server.behave = half
    arguments = ("sam2_hiera_tiny", "--sha256", SHA256)
    first = command(*arguments, server=server, folder=tmp_path)
    assert sent.wait(30)
    unfinished = tmp_path / "sam2_hiera_tiny.pt.part"
    deadline = time.monotonic() + 30
    while not (unfinished.exists() and unfinished.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    second = command(*arguments, server=server, folder=tmp_path)
    assert "being fetched by another process" in second.communicate(timeout=60)[1]
    first.send_signal(signal.SIGINT)
    assert "the same command goes on from here" in first.communicate(timeout=60)[1]
    assert first.returncode == 130

    third = command(*arguments, server=server, folder=tmp_path)
    assert third.communicate(timeout=60)[0].startswith("sam2_hiera_tiny is at")
    assert server.asked[-1][1], "only the rest was asked for"
    assert (tmp_path / "sam2_hiera_tiny.pt").read_bytes() == CONTENT


def test_a_full_disk(server: Server, tmp_path: Path) -> None:
    process = command(
        "sam2_hiera_tiny",
        "--sha256",
        SHA256,
        server=server,
        folder=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "File too large" in err
    assert "Traceback" not in err
    assert len(server.asked) == 1


# --- what the function asks for at its start


def test_missing_weights_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"python weights\.py sam2\.1_hiera_large"):
        model_files(Settings(model="facebook/sam2.1-hiera-large", weights_dir=tmp_path))


@pytest.mark.parametrize(
    ("length", "sentence"), [(0, "truncated"), (999, "truncated"), (1001, "another one")]
)
def test_files_of_another_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, sentence: str
) -> None:
    model = dataclasses.replace(find_model("sam2.1_hiera_tiny"), size=1000)
    monkeypatch.setattr(weights, "MODELS", (model,))
    (tmp_path / model.file_name).write_bytes(bytes(length))
    with pytest.raises(ConfigurationError, match=f"has {length:,} bytes.*{sentence}"):
        model_files(Settings(weights_dir=tmp_path))


def test_one_flipped_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    monkeypatch.setattr(weights, "MODELS", (model,))
    (tmp_path / model.file_name).write_bytes(CONTENT)
    assert model_files(Settings(weights_dir=tmp_path)).sha256 == SHA256
    (tmp_path / model.file_name).write_bytes(bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
    with pytest.raises(ConfigurationError, match="damaged or another file"):
        model_files(Settings(weights_dir=tmp_path))


def test_paths_go_before_the_table(tmp_path: Path) -> None:
    config, checkpoint = tmp_path / "mine.yaml", tmp_path / "mine.pt"
    config.write_text("model: {}\n")
    checkpoint.write_bytes(CONTENT)
    files = model_files(Settings(model="nonsense", config=config, checkpoint=checkpoint))
    assert files == weights.ModelFiles(
        name="mine", config=config, checkpoint=checkpoint, sha256=SHA256
    )


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("")
    nowhere = tmp_path / "nowhere"
    with pytest.raises(ConfigurationError, match="SAM2_CONFIG is .*nowhere"):
        model_files(Settings(config=nowhere, checkpoint=there))
    with pytest.raises(ConfigurationError, match="SAM2_CHECKPOINT is .*nowhere"):
        model_files(Settings(config=there, checkpoint=nowhere))
    with pytest.raises(ConfigurationError, match="belong together; only SAM2_CONFIG is set"):
        model_files(Settings(config=there))


# --- reading checkpoints


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("evil-was-here"),))


def test_checkpoints_of_either_form(tmp_path: Path) -> None:
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1, dtype=torch.bfloat16)}
    torch.save({"model": state}, tmp_path / "meta.pt")
    torch.save(state, tmp_path / "flat.pt")
    save_file(state, tmp_path / "safe.safetensors")
    for name in ("meta.pt", "flat.pt", "safe.safetensors"):
        read = load_weights(tmp_path / name)
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], state[key]) for key in state)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "folder"])
def test_broken_checkpoints(tmp_path: Path, damage: str, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    if damage == "folder":
        path.mkdir()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("<html>404</html>" * 100)
    elif damage == "cut":
        state = {"a": torch.ones(100, 100)}
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
        path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ConfigurationError, match="cannot be read: it is broken"):
        load_weights(path)


def test_nothing_else_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_weights(tmp_path / "evil.pt")
    assert not Path("evil-was-here").exists()


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"model": {"a": 1}}, {"a": [1]}, [1, 2]])
def test_files_without_weights(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(ConfigurationError, match="holds no weights"):
        load_weights(tmp_path / "odd.pt")
