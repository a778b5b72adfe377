# SPDX-License-Identifier: MIT
"""The function's settings: one field each, with its environment variable and the allowed values."""

import dataclasses
import difflib
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from sam2_tracker.errors import ConfigurationError
from sam2_tracker.memory_policy import POLICIES
from sam2_tracker.search_region import LARGEST_SIZE, SMALLEST_SIZE

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MIB = 1 << 20
OF_OTHERS = re.compile(
    r"SAM2_BUILD_\w+"  # of sam2's own build
    r"|\w+_SERVICE_(HOST|PORT)(_\w+)?|\w+_PORT(_\d+_(TCP|UDP)(_\w+)?)?"  # of Kubernetes' services
)
"""Variables that are named like settings and are meant for others."""


@dataclass(frozen=True)
class Kind(Generic[T_co]):
    """The values that a variable may have."""

    parse: Callable[[str], T_co]
    """The text, without spaces around it, to the value. Raises ValueError for any other text."""
    allowed: str
    """The end of the sentence "it must be ...", and the README's column `allowed`."""


def setting(variable: str, default: T, kind: Kind[T]) -> T:
    """Declares a field of Settings that is read from an environment variable."""
    field: T = dataclasses.field(default=default, metadata={"variable": variable, "kind": kind})
    return field


def _between(value: T, low: float, high: float) -> T:
    if not low <= value <= high:  # type: ignore[operator]
        raise ValueError
    return value


def _whole(low: int, high: int, unit: str = "") -> Kind[int]:
    allowed = f"a whole number from {low} to {high} {unit}".strip()
    return Kind(lambda text: _between(int(text), low, high), allowed)


def _number(low: float, high: float, unit: str) -> Kind[float]:
    allowed = f"a number from {low:g} to {high:g} {unit}"
    return Kind(lambda text: _between(float(text), low, high), allowed)


def _zero_or(kind: Kind[T], zero: str = "0") -> Kind[T | int]:
    """zero: a pattern of what is read as 0."""

    def parse(text: str) -> T | int:
        return 0 if re.fullmatch(zero, text) else kind.parse(text)

    return Kind(parse, f"0 or {kind.allowed}")


def _multiple_of_32(text: str) -> int:
    size = _between(int(text), 64, 1024)
    if size % 32:  # the stride of the image encoder's coarsest level
        raise ValueError
    return size


def _matching(pattern: str, allowed: str) -> Kind[str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return Kind(parse, allowed)


def _host(text: str) -> str:
    if ":" in text:
        ipaddress.IPv6Address(text)
    elif not re.fullmatch(r"[^\s/@]+", text):
        raise ValueError
    text.encode("idna")  # the resolver would refuse this name on every request
    return text


def _switch(text: str) -> bool:
    if text.lower() not in ("0", "1", "false", "true"):
        raise ValueError
    return text.lower() in ("1", "true")


TEXT = Kind(str, "text")
PATH = Kind(Path, "a path")
SWITCH = Kind(_switch, "0 or 1")


@dataclass(frozen=True, kw_only=True)
class Settings:
    function: str = setting(
        "SAM2_FUNCTION", "tracker", _matching("tracker|interactor", "tracker or interactor")
    )
    """What the function is to CVAT."""
    redis_host: str | None = setting(
        "CVAT_FUNCTIONS_REDIS_HOST",
        None,
        Kind(_host, "a host name or an address, without scheme and port"),
    )
    """None: the embedded store, this process's memory."""
    redis_port: int = setting("CVAT_FUNCTIONS_REDIS_PORT", 6379, _whole(1, 65535))
    redis_password: str | None = setting("CVAT_FUNCTIONS_REDIS_PASSWORD", None, TEXT)
    redis_tls: bool = setting("SAM2_REDIS_TLS", False, SWITCH)
    redis_prefix: str = setting(
        "SAM2_REDIS_PREFIX", "cvat-sam2", _matching("[A-Za-z0-9_-]+", "letters, digits, '-', '_'")
    )
    redis_timeout_seconds: float = setting("SAM2_REDIS_TIMEOUT_SECONDS", 3.0, _number(0.5, 20, "s"))
    """The deadline for all reading of one request, and again for its save."""

    model: str = setting("SAM2_MODEL", "sam2.1_hiera_tiny", TEXT)
    """A name or Hugging Face id from the table in models.py; unused if `config` is given."""
    config: Path | None = setting("SAM2_CONFIG", None, PATH)
    checkpoint: Path | None = setting("SAM2_CHECKPOINT", None, PATH)
    weights_dir: Path = setting("SAM2_WEIGHTS_DIR", Path("weights"), PATH)
    weights_url: str | None = setting("SAM2_WEIGHTS_URL", None, TEXT)
    device: str = setting(
        "SAM2_DEVICE", "auto", _matching("auto|cpu|cuda(:[0-9]+)?", "auto, cpu, cuda or cuda:N")
    )
    precision: str = setting(
        "SAM2_PRECISION",
        "auto",
        _matching("auto|float32|bfloat16", "auto, float32 or bfloat16"),
    )
    threads: int = setting("SAM2_THREADS", 0, _whole(0, 1024))
    """CPU threads of this worker; 0: its share of the container's CPU quota, or of all cores."""
    workers: int = setting("SAM2_WORKERS", 1, _whole(1, 256))
    """The workers that share this container: `numWorkers` in function.yaml."""
    fill_hole_area: int = setting("SAM2_FILL_HOLE_AREA", 8, _whole(0, 4095, "pixels"))
    """Holes in a mask up to this many low-resolution pixels are filled; 0: none.

    With a SAM2_IMAGE_SIZE below 256 the model may refuse it: it is smaller than a whole mask.
    """
    image_size: int = setting(
        "SAM2_IMAGE_SIZE", 0, _zero_or(Kind(_multiple_of_32, "a multiple of 32 from 64 to 1024"))
    )
    """Side of the model's input in pixels; 0: the model's own. Smaller: faster and less exact."""
    memory_frames: int = setting("SAM2_MEMORY_FRAMES", 0, _zero_or(_whole(2, 7)))
    """Memory frames that the model reads per object; 0: the model's own `num_maskmem`."""
    memory_policy: str = setting(
        "SAM2_MEMORY_POLICY",
        "quality",
        _matching("|".join(POLICIES), "one of " + ", ".join(POLICIES)),
    )
    """Which frames an object is remembered by (memory_policy.py), unless its shape says it."""
    conditioning_frames: int = setting("SAM2_CONDITIONING_FRAMES", 2, _zero_or(_whole(2, 8)))
    """Drawn frames of an object that a step attends to, the nearest ones; 0: all of them."""
    search_region: float = setting(
        "SAM2_SEARCH_REGION",
        0.0,
        _zero_or(_number(SMALLEST_SIZE, LARGEST_SIZE, "object sizes"), zero=r"0(\.0*)?"),
    )
    """Side of the window in which an object is searched (search_region.py), unless its shape says
    it; 0: the whole image."""
    polygon_tolerance: float = setting("SAM2_POLYGON_TOLERANCE", 0.02, _number(0, 0.1, "(1 - IoU)"))
    """How much a polygon's IoU with its mask may be short of 1; 0: exact, with all points."""

    max_image_megapixels: float = setting(
        "SAM2_MAX_IMAGE_MEGAPIXELS", 40.0, _number(0.0001, 178, "megapixels")
    )
    max_objects: int = setting("SAM2_MAX_OBJECTS", 100, _whole(1, 10_000))
    max_points: int = setting("SAM2_MAX_POINTS", 1_000_000, _whole(100_000, 100_000_000))
    time_budget_seconds: float = setting("SAM2_TIME_BUDGET_SECONDS", 25.0, _number(1, 3600, "s"))

    state_ttl_seconds: int = setting("SAM2_STATE_TTL_SECONDS", 30_000, _whole(1, 30_000, "s"))
    """CVAT's tokens live 28,800 s; a shorter life here would lose tracks that CVAT still holds."""
    memory_cache_mib: int = setting("SAM2_MEMORY_CACHE_MIB", 2048, _whole(0, 1 << 20, "MiB"))
    """Memory frames on the device, 0.5 MiB each at 1024 px, and, in bfloat16 only, their attention
    keys, 8.5 MiB each. 2048 MiB hold both for about 30 objects."""
    frame_cache_mib: int = setting("SAM2_FRAME_CACHE_MIB", 512, _whole(0, 1 << 20, "MiB"))
    """Features of the last images: about 10 MiB each at 1024 px."""
    embedded_store_mib: int = setting("SAM2_EMBEDDED_STORE_MIB", 2048, _whole(8, 1 << 20, "MiB"))


def with_model(environ: Mapping[str, str], model: str) -> dict[str, str]:
    """Returns the environment with this model, and without a configuration of its own."""
    kept = {k: v for k, v in environ.items() if k not in ("SAM2_CONFIG", "SAM2_CHECKPOINT")}
    return {**kept, "SAM2_MODEL": model}


def settings_from_environment(environ: Mapping[str, str]) -> Settings:
    """Reads the settings, e.g. from `os.environ`; an empty value counts as absent.

    Raises ConfigurationError naming the variable, its value and what is allowed.
    """
    values = {}
    for field in dataclasses.fields(Settings):
        variable, kind = field.metadata["variable"], field.metadata["kind"]
        text = environ.get(variable, "")
        if field.name != "redis_password":  # a password may begin or end with a space
            text = text.strip()
        if not text:
            continue
        if re.search("[\ud800-\udfff]", text):  # Python's stand-ins for bytes that are not UTF-8
            raise ConfigurationError(f"{variable} is not text in UTF-8.")
        try:
            values[field.name] = kind.parse(text)
        except ValueError:
            raise ConfigurationError(
                f"{variable} is {text!r}; it must be {kind.allowed}."
            ) from None
    return Settings(**values)


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each variable whose name looks like a setting's but is not one."""
    known = [field.metadata["variable"] for field in dataclasses.fields(Settings)]
    prefixes = ("SAM2_", "CVAT_FUNCTIONS_REDIS_")
    sentences = []
    for name in sorted(environ.keys() - set(known)):
        if name.startswith(prefixes) and not OF_OTHERS.fullmatch(name):
            nearest = difflib.get_close_matches(name, known, 1)
            meant = f" Is {nearest[0]} meant?" if nearest else ""
            sentences.append(f"{name} is no setting of the function.{meant}")
    return sentences


def check_workers(settings: Settings, worker_id: int = 0) -> None:
    """Raises ConfigurationError if several workers would each remember other tracks.

    worker_id: the number of this worker, from 0 on.
    """
    if settings.function == "interactor":
        return  # it remembers none
    if settings.redis_host is None and (settings.workers > 1 or worker_id > 0):
        raise ConfigurationError(
            "Several workers need a Redis: set CVAT_FUNCTIONS_REDIS_HOST, or use one worker."
        )
