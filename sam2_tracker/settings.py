# SPDX-License-Identifier: MIT
"""Environment variables into one frozen dataclass. The README's table is this file in words."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sam2_tracker.errors import ConfigurationError

T = TypeVar("T")

PRECISIONS = ("auto", "float32", "bfloat16")
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Settings:
    redis_host: str | None = None
    """None: the embedded store, this process's memory."""
    redis_port: int = 6379
    redis_password: str | None = None
    redis_tls: bool = False
    redis_prefix: str = "cvat-sam2"
    redis_timeout_seconds: float = 3.0
    """Deadline of all reading of one request, and again of its save."""

    model: str = "sam2.1_hiera_tiny"
    """A name or Hugging Face id from the table in weights.py; unused where `config` is given."""
    config: Path | None = None
    checkpoint: Path | None = None
    weights_dir: Path = Path("weights")
    weights_url: str | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    """CPU threads of this worker; 0: the container's CPU quota, or all cores."""
    workers: int = 1
    """Workers that share this container, as numWorkers in function.yaml."""
    fill_hole_area: int = 8
    """Low-resolution pixels; 0 fills nothing."""
    image_size: int = 0
    """Side of the model's input; 0: the model's own. Smaller is faster and less exact."""
    memory_frames: int = 0
    """That an object is remembered by; 0: the model's own. Fewer is faster and less exact."""
    polygon_tolerance: float = 0.02
    """How much a polygon's IoU with its mask may be short of 1; 0: exact, with all points."""

    max_image_megapixels: float = 40.0
    max_objects: int = 100
    max_points: int = 1_000_000
    time_budget_seconds: float = 25.0

    state_ttl_seconds: int = 30_000
    """CVAT's tokens live 28,800 s; a shorter life here would lose tracks that CVAT still holds."""
    memory_cache_mib: int = 1024
    """Memory frames kept on the device: 0.5 MiB each at 1024 px."""
    attention_cache_mib: int = 1024
    """Their keys: 8.5 MiB each at 1024 px. Only bfloat16 keeps them."""
    frame_cache_mib: int = 512
    """Features of the last images: about 10 MiB each at 1024 px."""
    embedded_store_mib: int = 2048


def with_model(environ: Mapping[str, str], model: str) -> dict[str, str]:
    """The environment with this model, whatever configuration of its own it had."""
    kept = {k: v for k, v in environ.items() if k not in ("SAM2_CONFIG", "SAM2_CHECKPOINT")}
    return {**kept, "SAM2_MODEL": model}


def settings_from_environment(environ: Mapping[str, str]) -> Settings:
    """Reads the settings, e.g. from `os.environ`; an empty value counts as absent.

    Raises ConfigurationError naming the variable, its value and what is allowed.
    """
    defaults = Settings()

    def read(name: str, default: T, parse: Callable[[str], T], allowed: str) -> T:
        text = environ.get(name, "").strip()
        if not text:
            return default
        try:
            return parse(text)
        except ValueError:
            raise ConfigurationError(f"{name} is {text!r}; it must be {allowed}.") from None

    def whole(name: str, default: int, low: int, high: int) -> int:
        return read(name, default, _parser(int, low, high), f"a whole number from {low} to {high}")

    def real(name: str, default: float, low: float, high: float) -> float:
        return read(name, default, _parser(float, low, high), f"a number from {low:g} to {high:g}")

    return Settings(
        redis_host=read(
            "CVAT_FUNCTIONS_REDIS_HOST",
            defaults.redis_host,
            _host,
            "a host name or an address, without scheme and port",
        ),
        redis_port=whole("CVAT_FUNCTIONS_REDIS_PORT", defaults.redis_port, 1, 65535),
        redis_password=environ.get("CVAT_FUNCTIONS_REDIS_PASSWORD") or None,
        redis_tls=read("SAM2_REDIS_TLS", defaults.redis_tls, _switch, "0 or 1"),
        redis_prefix=read(
            "SAM2_REDIS_PREFIX", defaults.redis_prefix, _prefix, "letters, digits, '-', '_'"
        ),
        redis_timeout_seconds=real(
            "SAM2_REDIS_TIMEOUT_SECONDS", defaults.redis_timeout_seconds, 0.5, 20
        ),
        model=environ.get("SAM2_MODEL", "").strip() or defaults.model,
        config=read("SAM2_CONFIG", defaults.config, Path, "a path"),
        checkpoint=read("SAM2_CHECKPOINT", defaults.checkpoint, Path, "a path"),
        weights_dir=read("SAM2_WEIGHTS_DIR", defaults.weights_dir, Path, "a path"),
        weights_url=environ.get("SAM2_WEIGHTS_URL", "").strip() or None,
        device=read("SAM2_DEVICE", defaults.device, _device, "auto, cpu, cuda or cuda:N"),
        precision=read(
            "SAM2_PRECISION",
            defaults.precision,
            _one_of(PRECISIONS),
            "one of " + ", ".join(PRECISIONS),
        ),
        threads=whole("SAM2_THREADS", defaults.threads, 0, 1024),
        workers=whole("SAM2_WORKERS", defaults.workers, 1, 256),
        fill_hole_area=whole("SAM2_FILL_HOLE_AREA", defaults.fill_hole_area, 0, 65536),
        image_size=read(
            "SAM2_IMAGE_SIZE",
            defaults.image_size,
            _zero_or(_image_size),
            "0 or a multiple of 32 from 64 to 1024",
        ),
        memory_frames=read(
            "SAM2_MEMORY_FRAMES",
            defaults.memory_frames,
            _zero_or(_parser(int, 2, 32)),
            "0 or a whole number from 2 to 32",
        ),
        polygon_tolerance=real("SAM2_POLYGON_TOLERANCE", defaults.polygon_tolerance, 0, 0.1),
        max_image_megapixels=real(
            "SAM2_MAX_IMAGE_MEGAPIXELS", defaults.max_image_megapixels, 0.0001, 178
        ),
        max_objects=whole("SAM2_MAX_OBJECTS", defaults.max_objects, 1, 10_000),
        max_points=whole("SAM2_MAX_POINTS", defaults.max_points, 100_000, 100_000_000),
        time_budget_seconds=real("SAM2_TIME_BUDGET_SECONDS", defaults.time_budget_seconds, 1, 3600),
        state_ttl_seconds=whole("SAM2_STATE_TTL_SECONDS", defaults.state_ttl_seconds, 1, 30_000),
        memory_cache_mib=whole("SAM2_MEMORY_CACHE_MIB", defaults.memory_cache_mib, 0, 1 << 20),
        attention_cache_mib=whole(
            "SAM2_ATTENTION_CACHE_MIB", defaults.attention_cache_mib, 0, 1 << 20
        ),
        frame_cache_mib=whole("SAM2_FRAME_CACHE_MIB", defaults.frame_cache_mib, 0, 1 << 20),
        embedded_store_mib=whole(
            "SAM2_EMBEDDED_STORE_MIB", defaults.embedded_store_mib, 8, 1 << 20
        ),
    )


def _parser(kind: type[T], low: float, high: float) -> Callable[[str], T]:
    def parse(text: str) -> T:
        value = kind(text)  # type: ignore[call-arg]
        if not low <= value <= high:  # type: ignore[operator]
            raise ValueError
        return value

    return parse


def _zero_or(parse: Callable[[str], int]) -> Callable[[str], int]:
    return lambda text: 0 if text == "0" else parse(text)


def _image_size(text: str) -> int:
    size = _parser(int, 64, 1024)(text)
    if size % 32:  # the encoder's coarsest level, and its windows
        raise ValueError
    return size


def _host(text: str) -> str:
    if ":" in text:
        ipaddress.IPv6Address(text)
    elif not re.fullmatch(r"[^\s/@]+", text):
        raise ValueError
    text.encode("idna")  # as the resolver does, which would refuse it on every request
    return text


def _switch(text: str) -> bool:
    if text.lower() not in ("0", "1", "false", "true"):
        raise ValueError
    return text.lower() in ("1", "true")


def _prefix(text: str) -> str:
    if not all(c.isascii() and (c.isalnum() or c in "-_") for c in text):
        raise ValueError
    return text


def _device(text: str) -> str:
    index = text.removeprefix("cuda:")
    if text in ("auto", "cpu", "cuda") or (text != index and index.isdecimal()):
        return text
    raise ValueError


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return parse
