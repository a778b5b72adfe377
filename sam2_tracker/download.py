# SPDX-License-Identifier: MIT
"""Fetches a model's checkpoint: when the image is built, or by hand.

    python -m sam2_tracker.download sam2.1_hiera_small
    python -m sam2_tracker.download facebook/sam2.1-hiera-small
    python -m sam2_tracker.download sam2_hiera_large --sha256 HEX

Needs neither torch nor sam2. SAM2_WEIGHTS_URL names a mirror, a folder or a file to take instead of
the authors' server. The file goes to SAM2_WEIGHTS_DIR.
"""

import argparse
import fcntl
import os
import sys
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import urlsplit

from tqdm import tqdm

from sam2_tracker import models
from sam2_tracker.errors import ConfigurationError
from sam2_tracker.settings import Settings, settings_from_environment

ATTEMPTS = 10
RETRY_SECONDS = 2.0
SILENCE_SECONDS = 30.0
"""A connection that brings nothing for so long is given up and resumed."""
ATTEMPT_SECONDS = 3 * 3600.0
MAX_FILE_BYTES = 4 << 30
"""Meta's largest file has 0.9 GB."""


def fetch(model: models.Model, settings: Settings, *, sha256: str | None = None) -> Path:
    """Puts a model's checkpoint into `settings.weights_dir`, checked, and returns its path.

    It comes from `settings.weights_url` (a base URL, the URL of the file, a folder or a file), else
    from its authors' server. A cut download is resumed, by this call and by the next one. The file
    gets its name only when its SHA-256 is right; `sha256` is needed where the table knows neither
    a checksum nor the size of the tensors. Raises ConfigurationError.
    """
    target = models.checkpoint_path(model, settings)
    expected = models.expected_sha256(model, target, given=sha256)
    if model.url is None:
        models.check_file(target, model, sha256=expected)
        return target
    if expected is None and model.tensor_bytes is None:
        raise ConfigurationError(
            f"No checksum of {model.name} is known here. Give one that you trust: "
            f"`python -m sam2_tracker.download {model.name} --sha256 HEX`."
        )
    try:
        if target.is_file():
            found = models.check_file(target, model, sha256=expected)
        else:
            found = _fetch_to(target, _source(model, settings), model, sha256=expected)
        models.remember_sha256(model, target, found)
    except BlockingIOError:
        raise ConfigurationError(f"Another process is fetching {target.name}.") from None
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be written: {error.strerror}.") from error
    return target


def _fetch_to(target: Path, url: str, model: models.Model, *, sha256: str | None) -> str:
    """Returns the SHA-256 of what came."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with open(part, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _download(url, file)
        try:
            cure = "It was deleted; try again, or choose another SAM2_WEIGHTS_URL."
            found = models.check_file(part, model, sha256=sha256, cure=cure)
        except ConfigurationError:
            part.unlink()  # the next call would resume the wrong file
            raise
        part.rename(target)
    return found


def _source(model: models.Model, settings: Settings) -> str:
    given = settings.weights_url or str(model.url)
    try:
        scheme, _, path, _, _ = urlsplit(given)
    except ValueError as error:
        raise ConfigurationError(f"SAM2_WEIGHTS_URL is {given!r}, no URL: {error}.") from error
    if scheme in ("http", "https"):
        is_file = path.endswith("/" + model.file_name)
        return given if is_file else f"{given.rstrip('/')}/{model.file_name}"
    place = Path(urllib.request.url2pathname(path) if scheme == "file" else given).absolute()
    file = place / model.file_name if place.is_dir() else place
    if not file.is_file():
        raise ConfigurationError(
            f"SAM2_WEIGHTS_URL is {given!r}; it must be an http(s) URL, or a folder or file that "
            f"exists. There is no {file}."
        )
    return file.as_uri()


def _download(url: str, part: BinaryIO) -> None:
    """Appends what is missing to `part`, with as many connections as it takes."""
    for attempt in range(1, ATTEMPTS + 1):
        refused = False
        try:
            _append(url, part)
            return
        except HTTPError as error:
            error.close()
            if error.code == 416:  # the range is empty: nothing is missing
                return
            reason, refused = str(error), error.code in (400, 401, 403, 404, 410)
        except (OSError, HTTPException) as error:
            reason = str(error)
        if refused or attempt == ATTEMPTS:
            raise ConfigurationError(
                f"{url} cannot be fetched: {reason}. What has arrived is kept; the same command "
                "continues from there."
            )
        time.sleep(RETRY_SECONDS)


def _append(url: str, part: BinaryIO) -> None:
    start, began = part.seek(0, os.SEEK_END), time.monotonic()
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=SILENCE_SECONDS) as response:  # noqa: S310
        if response.status != 206:  # not the missing part but the whole file
            start = part.truncate(0)
        length = response.headers.get("Content-Length")
        with tqdm(
            desc=url.rsplit("/", 1)[-1],
            initial=start,
            total=start + int(length) if length else None,
            unit="B",
            unit_scale=True,
            mininterval=0.1 if sys.stderr.isatty() else 10.0,  # a build log keeps every line
        ) as bar:
            while block := response.read1(1 << 18):
                bar.update(part.write(block))
                if bar.n > MAX_FILE_BYTES or time.monotonic() - began > ATTEMPT_SECONDS:
                    raise ConfigurationError(
                        f"{url} was given up: more than {MAX_FILE_BYTES >> 30} GiB, or more than "
                        f"{ATTEMPT_SECONDS / 3600:.0f} hours."
                    )
    part.flush()
    if bar.total and bar.n < bar.total:
        raise ConnectionError("the connection was cut")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m sam2_tracker.download",
        description="Fetches a model's checkpoint, or checks the one that is there.",
        epilog=f"Models: {', '.join(m.name for m in models.MODELS)}, or their Hugging Face ids.",
    )
    parser.add_argument("model", nargs="?", help="default: what the SAM2_ variables ask for")
    parser.add_argument("--sha256", metavar="HEX", help="needed for the files of SAM 2 (not 2.1)")
    options = parser.parse_args(arguments)
    try:
        settings = settings_from_environment(os.environ)
        if options.model is None and (settings.config or settings.checkpoint):
            path, known = models.model_files(settings).checkpoint, True  # one's own: only checked
        else:
            model = models.find_model(options.model or settings.model)
            path = models.checkpoint_path(model, settings)
            known = models.expected_sha256(model, path, given=options.sha256) is not None
            path = fetch(model, settings, sha256=options.sha256)
    except ConfigurationError as error:
        parser.exit(1, f"{parser.prog}: {error.message}\n")
    except KeyboardInterrupt:
        parser.exit(130, "Stopped. The same command continues from here.\n")
    print(f"{path} is there and checked ({path.stat().st_size:,} bytes).")
    if not known:
        print(
            "Nobody has published its SHA-256, so only its size was checked. The names and shapes "
            f"of its tensors are checked at every start. The SHA-256 is now in {path.name}.sha256."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
