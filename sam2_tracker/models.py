# SPDX-License-Identifier: MIT
"""Model names, checkpoints, checksums, download.

    python weights.py sam2.1_hiera_small
    python weights.py facebook/sam2.1-hiera-small
    python weights.py sam2_hiera_large --sha256 HEX

Needs neither torch nor sam2 for the download. A mirror, a folder or a file instead of Meta's
server: SAM2_WEIGHTS_URL. The file goes to SAM2_WEIGHTS_DIR, `weights/` beside this file by default.
"""

import argparse
import fcntl
import hashlib
import importlib.util
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from sam2_tracker.errors import ConfigurationError
from sam2_tracker.settings import Settings, settings_from_environment

if TYPE_CHECKING:
    import torch
    from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
META_URL = "https://dl.fbaipublicfiles.com/segment_anything_2"
MAX_FILE_BYTES = 4 << 30
"""For files whose size the table does not know: four times Meta's largest."""
SOCKET_TIMEOUT_SECONDS = 30.0
STALL_WINDOW_SECONDS = 60.0
STALL_BYTES = 64 << 10
"""A server that sends less than this in one window counts as stalled."""
ATTEMPTS = 5
"""Attempts in a row that bring no new byte, before giving up."""
RETRY_SECONDS = 1.0
PASSING_STATUSES = (408, 416, 429, 500, 502, 503, 504)


@dataclass(frozen=True, kw_only=True)
class Model:
    """One row of the table. Bundled models have no URL: their file lies beside their config."""

    name: str
    hugging_face_id: str | None = None
    config: Path
    file_name: str
    url: str | None = None
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """A configuration and a checkpoint that are there; `sha256` is the checkpoint's, as read."""

    name: str
    config: Path
    checkpoint: Path
    sha256: str


def _sam2_configs() -> Path:
    # find_spec, not import: importing sam2 initialises hydra and takes seconds.
    spec = importlib.util.find_spec("sam2")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return Path(folders[0] if folders else "sam2-is-not-installed") / "configs"


def _table() -> tuple[Model, ...]:
    configs = _sam2_configs()
    # The checksums of SAM 2.1: several independent public repositories agree on them. Of SAM 2 we
    # know none that we could vouch for, so the person who fetches such a file brings it along.
    known = {
        "sam2.1_hiera_tiny": (
            156_008_466,
            "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
        ),
        "sam2.1_hiera_small": (
            184_416_285,
            "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
        ),
        "sam2.1_hiera_base_plus": (
            323_606_802,
            "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        ),
        "sam2.1_hiera_large": (
            898_083_611,
            "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        ),
    }
    models = [
        Model(
            name="sam2.1_hiera_micro",
            config=ROOT / "models" / "sam2.1_hiera_micro.yaml",
            file_name="sam2.1_hiera_micro.safetensors",
        )
    ]
    for version, folder in (("sam2.1", "092824"), ("sam2", "072824")):
        for size, letters in (("tiny", "t"), ("small", "s"), ("base_plus", "b+"), ("large", "l")):
            name = f"{version}_hiera_{size}"
            length, sha256 = known.get(name, (None, None))
            models.append(
                Model(
                    name=name,
                    hugging_face_id=f"facebook/{version}-hiera-{size.replace('_', '-')}",
                    config=configs / version / f"{version}_hiera_{letters}.yaml",
                    file_name=f"{name}.pt",
                    url=f"{META_URL}/{folder}/{name}.pt",
                    size=length,
                    sha256=sha256,
                )
            )
    return tuple(models)


MODELS = _table()


def find_model(name: str) -> Model:
    """Finds a model by our name or its Hugging Face id; raises ConfigurationError."""
    for model in MODELS:
        if name and name in (model.name, model.hugging_face_id):
            return model
    known = "; ".join(
        f"{m.name} ({m.hugging_face_id})" if m.hugging_face_id else m.name for m in MODELS
    )
    raise ConfigurationError(f"There is no model {name!r}. Known are: {known}.")


def model_files(settings: Settings) -> ModelFiles:
    """Names the files that the settings ask for, checked; never downloads.

    SAM2_CONFIG and SAM2_CHECKPOINT go before SAM2_MODEL. Raises ConfigurationError for a file that
    is missing, truncated or another one.
    """
    if settings.config or settings.checkpoint:
        if not (settings.config and settings.checkpoint):
            raise ConfigurationError(
                "SAM2_CONFIG and SAM2_CHECKPOINT belong together; only "
                f"{'SAM2_CONFIG' if settings.config else 'SAM2_CHECKPOINT'} is set."
            )
        config, checkpoint = settings.config.absolute(), settings.checkpoint.absolute()
        for variable, path in (("SAM2_CONFIG", config), ("SAM2_CHECKPOINT", checkpoint)):
            if not path.is_file():
                raise ConfigurationError(f"{variable} is {path}, but there is no such file.")
        return ModelFiles(
            name=checkpoint.stem, config=config, checkpoint=checkpoint, sha256=_sha256(checkpoint)
        )

    model = find_model(settings.model)
    checkpoint = checkpoint_path(model, settings)
    if not checkpoint.is_file():
        cure = (
            f"Fetch it with `python weights.py {model.name}`."
            if model.url
            else "It belongs to this repository: the copy of the repository is not complete."
        )
        raise ConfigurationError(f"The weights of {model.name} are not at {checkpoint}. {cure}")
    if not model.config.is_file():
        raise ConfigurationError(
            f"The configuration of {model.name} is not at {model.config}. Is sam2 installed "
            "(requirements-sam2.txt)?"
        )
    sha256 = _check_file(
        checkpoint, size=model.size, sha256=model.sha256 or _recorded_sha256(checkpoint)
    )
    return ModelFiles(name=model.name, config=model.config, checkpoint=checkpoint, sha256=sha256)


def checkpoint_path(model: Model, settings: Settings) -> Path:
    """Where the model's checkpoint is looked for and downloaded to."""
    if model.url is None:
        return model.config.with_name(model.file_name)
    return ROOT / settings.weights_dir / model.file_name


def load_weights(path: Path) -> dict[str, "torch.Tensor"]:
    """Reads a checkpoint into a state dict on the CPU: sam2's `.pt` or safetensors.

    Nothing is unpickled but tensors. Raises ConfigurationError for anything that is neither.
    """
    import torch  # here: the download must work where torch is not installed

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            if isinstance(content, dict) and isinstance(content.get("model"), dict):
                content = content["model"]
    except Exception as error:  # noqa: BLE001 - zip, pickle, safetensors and OS errors all mean this
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise ConfigurationError(
            f"The checkpoint {path} cannot be read: it is broken, or not a checkpoint ({reason})."
        ) from error
    if not (
        isinstance(content, dict)
        and content
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items())
    ):
        raise ConfigurationError(
            f"The checkpoint {path} holds no weights: expected is sam2's form, "
            '{"model": {name: tensor}}, or {name: tensor}.'
        )
    return content


def fetch(
    model: Model,
    settings: Settings,
    *,
    sha256: str | None = None,
    progress: bool = True,
) -> Path:
    """Brings a model's checkpoint to its place, checked, and returns that place.

    From `settings.weights_url` (a base URL, a URL of the file itself, a folder or a file), else
    from Meta's server. A broken download is resumed, here and by the next call; the file gets its
    name only when its SHA-256 is right. `sha256` is needed where the table has none.
    Raises ConfigurationError.
    """
    target = checkpoint_path(model, settings)
    if model.url is None:
        if not target.is_file():
            raise ConfigurationError(f"{model.name} belongs to this repository, but has no file.")
        return target
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise ConfigurationError(f"{sha256!r} is no SHA-256: that has 64 hexadecimal digits.")
    given = sha256.lower() if sha256 else None
    if given and model.sha256 and given != model.sha256:
        raise ConfigurationError(
            f"The SHA-256 of {model.name} is {model.sha256}; another one was asked for."
        )
    expected = model.sha256 or given or _recorded_sha256(target)
    if expected is None:
        raise ConfigurationError(
            f"No checksum of {model.name} is known here. Give the one that you trust: "
            f"`python weights.py {model.name} --sha256 HEX`."
        )
    if target.is_file():
        _check_file(target, size=model.size, sha256=expected)
    else:
        _fetch_to(target, model, settings, expected=expected, progress=progress)
    if model.sha256 is None:
        _record(target).write_text(f"{expected}  {target.name}\n", "ascii")
    return target


def _fetch_to(
    target: Path, model: Model, settings: Settings, *, expected: str, progress: bool
) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _part_file(target) as part:
            _fill(part, _source(model, settings), size=model.size, progress=progress)
            found = _sha256(Path(part.name))
            if found != expected:
                os.unlink(part.name)
                raise ConfigurationError(
                    f"What came for {model.file_name} is another file: its SHA-256 is {found}, "
                    f"expected is {expected}. It was deleted; try once more."
                )
            os.fsync(part.fileno())
            os.replace(part.name, target)
    except OSError as error:
        raise ConfigurationError(f"{target.name} cannot be put into place: {error}.") from error


@contextmanager
def _part_file(target: Path) -> Iterator[BinaryIO]:
    """The unfinished download, held by one process at a time."""
    with open(target.with_name(target.name + ".part"), "a+b") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"{target.name} is being fetched by another process."
            ) from None
        yield part


def _source(model: Model, settings: Settings) -> str:
    """The URL to read, or the path of a local file."""
    given = settings.weights_url
    if given is None:
        return str(model.url)
    scheme = urllib.parse.urlsplit(given).scheme
    if scheme in ("http", "https"):
        whole = urllib.parse.urlsplit(given).path.endswith("/" + model.file_name)
        return given if whole else f"{given.rstrip('/')}/{model.file_name}"
    if scheme not in ("", "file"):
        raise ConfigurationError(
            f"SAM2_WEIGHTS_URL is {given!r}; it must be an http(s) URL, a folder or a file."
        )
    place = Path(
        urllib.request.url2pathname(urllib.parse.urlsplit(given).path) if scheme else given
    )
    file = place / model.file_name if place.is_dir() else place
    if not file.is_file():
        raise ConfigurationError(f"SAM2_WEIGHTS_URL leads to {file}, but there is no such file.")
    return str(file)


def _fill(part: BinaryIO, source: str, *, size: int | None, progress: bool) -> None:
    from tqdm import tqdm  # here: where the file is in place, nothing but Python is needed

    with tqdm(
        total=size,
        initial=part.seek(0, os.SEEK_END),
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        desc=source.rsplit("/", 1)[-1],
        disable=not progress,
        mininterval=0.1 if sys.stderr.isatty() else 10.0,  # a build log keeps every line
    ) as bar:
        if not source.startswith(("http://", "https://")):
            part.truncate(0)
            bar.reset(os.path.getsize(source))
            with open(source, "rb") as file:
                while block := file.read(1 << 20):
                    _write(part, block)
                    bar.update(len(block))
            part.flush()
            return

        failures = 0
        while True:
            before = part.seek(0, os.SEEK_END)
            try:
                if _download(part, source, size=size, bar=bar):
                    return
                reason = "the connection was cut"
            except (OSError, HTTPException) as error:
                reason = str(getattr(error, "reason", None) or error) or type(error).__name__
            failures = 0 if part.seek(0, os.SEEK_END) >= before + STALL_BYTES else failures + 1
            if failures >= ATTEMPTS:
                raise ConfigurationError(
                    f"{source} cannot be fetched: {reason}. What has come is kept; the same "
                    "command goes on from there."
                )
            time.sleep(RETRY_SECONDS)


def _download(part: BinaryIO, url: str, *, size: int | None, bar: "tqdm[NoReturn]") -> bool:
    """One attempt, from the end of `part` on; True where the file is complete."""
    offset = part.seek(0, os.SEEK_END)
    if size is not None and offset == size:
        return True
    if offset > (size or MAX_FILE_BYTES):
        part.truncate(0)
        offset = 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})  # noqa: S310
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=SOCKET_TIMEOUT_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.truncate(0)
        elif error.code not in PASSING_STATUSES:
            raise ConfigurationError(
                f"{url} cannot be fetched: the server answers {error.code} {error.reason}."
            ) from error
        raise
    with response:
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            part.truncate(0)  # the server sends the whole file, whatever was asked for
            offset = 0
        total = _announced_size(response, offset)
        if total is not None and total != (size or total) or (total or 0) > MAX_FILE_BYTES:
            raise ConfigurationError(
                f"{url} is another file: the server offers {total:,} bytes, "
                f"expected are {size or MAX_FILE_BYTES:,}{'' if size else ' at most'}."
            )
        end = total or size
        bar.reset(end)
        bar.update(offset)
        window, in_window = time.monotonic(), 0
        while block := response.read1(1 << 18):
            offset += len(block)
            if offset > (end or MAX_FILE_BYTES):
                part.truncate(0)
                raise ConfigurationError(f"{url} is another file: it is longer than {end:,} bytes.")
            _write(part, block)
            bar.update(len(block))
            in_window += len(block)
            if time.monotonic() - window > STALL_WINDOW_SECONDS:
                if in_window < STALL_BYTES:
                    raise TimeoutError("the server sends next to nothing")
                window, in_window = time.monotonic(), 0
    part.flush()
    return end is None or offset == end


def _announced_size(response: HTTPResponse, offset: int) -> int | None:
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        content_range = re.fullmatch(
            r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", response.headers.get("Content-Range", "")
        )
        if not content_range or int(content_range[1]) != offset:
            raise HTTPException("the server resumes at another place than it was asked to")
        return None if content_range[3] == "*" else int(content_range[3])
    return response.length


def _write(part: BinaryIO, block: bytes) -> None:
    try:
        part.write(block)
    except OSError as error:  # not a matter of the network: no further attempt would help
        raise ConfigurationError(
            f"{part.name} cannot be written: {error.strerror}. What has come is kept."
        ) from error


def _check_file(path: Path, *, size: int | None, sha256: str | None) -> str:
    length = path.stat().st_size
    if size is not None and length != size:
        raise ConfigurationError(
            f"{path} has {length:,} bytes, expected are {size:,}: the file is "
            f"{'truncated' if length < size else 'another one'}. Delete it and fetch it again."
        )
    found = _sha256(path)
    if sha256 is not None and found != sha256:
        raise ConfigurationError(
            f"{path} is damaged or another file: its SHA-256 is {found}, expected is {sha256}. "
            "Delete it and fetch it again."
        )
    return found


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error


def _recorded_sha256(checkpoint: Path) -> str | None:
    """What `fetch` was told once, for the files whose checksum the table does not know."""
    try:
        words = _record(checkpoint).read_text("ascii", errors="replace").split()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"{_record(checkpoint)} cannot be read: {error.strerror}."
        ) from error
    if not words or not re.fullmatch("[0-9a-f]{64}", words[0]):
        raise ConfigurationError(f"{_record(checkpoint)} holds no SHA-256. Delete it.")
    return words[0]


def _record(checkpoint: Path) -> Path:
    return checkpoint.with_name(checkpoint.name + ".sha256")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="weights.py",
        description="Fetches a model's checkpoint, or checks the one that is there.",
        epilog="Models: " + ", ".join(m.name for m in MODELS) + ", or their Hugging Face ids.",
    )
    parser.add_argument("model", nargs="?", help="default: what the SAM2_ variables ask for")
    parser.add_argument("--sha256", metavar="HEX", help="needed for the files of SAM 2 (not 2.1)")
    options = parser.parse_args(arguments)
    try:
        settings = settings_from_environment(os.environ)
        if options.model is None and (settings.config or settings.checkpoint):
            files = model_files(settings)  # one's own checkpoint: nothing to fetch, much to check
            name, path = files.name, files.checkpoint
        else:
            model = find_model(options.model or settings.model)
            name, path = model.name, fetch(model, settings, sha256=options.sha256)
    except ConfigurationError as error:
        print(f"weights.py: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("weights.py: stopped; the same command goes on from here.", file=sys.stderr)
        return 130
    print(f"{name} is at {path} ({path.stat().st_size:,} bytes, checked).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
