# SPDX-License-Identifier: MIT
"""Environment variables: each is read, a wrong one is named at start, the README lists them all."""

import dataclasses
import re
from pathlib import Path

import pytest

from sam2_tracker.errors import ConfigurationError
from sam2_tracker.settings import Settings, settings_from_environment, unknown_variables

README = Path(__file__).resolve().parents[1] / "README.md"
# By field: its variable, a text other than the default, and the value that it stands for.
VARIABLES: dict[str, tuple[str, str, object]] = {
    "function": ("SAM2_FUNCTION", "interactor", "interactor"),
    "redis_host": ("CVAT_FUNCTIONS_REDIS_HOST", "cvat_redis_ondisk", "cvat_redis_ondisk"),
    "redis_port": ("CVAT_FUNCTIONS_REDIS_PORT", "6666", 6666),
    "redis_password": ("CVAT_FUNCTIONS_REDIS_PASSWORD", " p w ", " p w "),
    "redis_tls": ("SAM2_REDIS_TLS", "1", True),
    "redis_prefix": ("SAM2_REDIS_PREFIX", "my-sam_2", "my-sam_2"),
    "redis_timeout_seconds": ("SAM2_REDIS_TIMEOUT_SECONDS", "4.5", 4.5),
    "model": ("SAM2_MODEL", "sam2.1_hiera_large", "sam2.1_hiera_large"),
    "config": ("SAM2_CONFIG", "a/b.yaml", Path("a/b.yaml")),
    "checkpoint": ("SAM2_CHECKPOINT", "/c.pt", Path("/c.pt")),
    "weights_dir": ("SAM2_WEIGHTS_DIR", "/models", Path("/models")),
    "weights_url": ("SAM2_WEIGHTS_URL", "http://mirror/", "http://mirror/"),
    "device": ("SAM2_DEVICE", "cuda:1", "cuda:1"),
    "precision": ("SAM2_PRECISION", "bfloat16", "bfloat16"),
    "threads": ("SAM2_THREADS", "3", 3),
    "workers": ("SAM2_WORKERS", "2", 2),
    "fill_hole_area": ("SAM2_FILL_HOLE_AREA", "0", 0),
    "image_size": ("SAM2_IMAGE_SIZE", "512", 512),
    "memory_frames": ("SAM2_MEMORY_FRAMES", "4", 4),
    "polygon_tolerance": ("SAM2_POLYGON_TOLERANCE", "0.01", 0.01),
    "max_image_megapixels": ("SAM2_MAX_IMAGE_MEGAPIXELS", "0.5", 0.5),
    "max_objects": ("SAM2_MAX_OBJECTS", "7", 7),
    "max_points": ("SAM2_MAX_POINTS", "200000", 200_000),
    "time_budget_seconds": ("SAM2_TIME_BUDGET_SECONDS", "50", 50.0),
    "state_ttl_seconds": ("SAM2_STATE_TTL_SECONDS", "600", 600),
    "memory_cache_mib": ("SAM2_MEMORY_CACHE_MIB", "0", 0),
    "frame_cache_mib": ("SAM2_FRAME_CACHE_MIB", "5", 5),
    "memory_policy": ("SAM2_MEMORY_POLICY", "anchors", "anchors"),
    "search_region": ("SAM2_SEARCH_REGION", "2.5", 2.5),
    "conditioning_frames": ("SAM2_CONDITIONING_FRAMES", "3", 3),
    "embedded_store_mib": ("SAM2_EMBEDDED_STORE_MIB", "64", 64),
}


def test_these_examples_cover_every_setting() -> None:
    assert set(VARIABLES) == {field.name for field in dataclasses.fields(Settings)}


def default_text(value: object) -> str:
    """A default as the README writes it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_readme_lists_every_variable_with_its_default_and_its_range() -> None:
    section = README.read_text().split("## Settings")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    found = [tuple(cell.strip(" `") for cell in row[:3]) for row in rows]
    numbers = re.compile("^a (whole )?number from ")
    assert found == [
        (
            field.metadata["variable"],
            default_text(field.default),
            numbers.sub("", field.metadata["kind"].allowed),
        )
        for field in dataclasses.fields(Settings)
    ]


@pytest.mark.parametrize("field", VARIABLES)
def test_each_variable_sets_its_field_and_no_other(field: str) -> None:
    variable, text, value = VARIABLES[field]
    assert getattr(Settings(), field) != value
    found = settings_from_environment({variable: text, "PATH": "/bin", "SAM2_UNKNOWN": "x"})
    assert found == dataclasses.replace(Settings(), **{field: value})


def test_an_empty_value_counts_as_absent() -> None:
    assert settings_from_environment({variable: "" for variable, _, _ in VARIABLES.values()}) == (
        Settings()
    )
    assert settings_from_environment({"SAM2_THREADS": "  ", "SAM2_MODEL": " "}) == Settings()


WRONG = {
    "CVAT_FUNCTIONS_REDIS_HOST": [
        *("redis://cvat_redis_ondisk", "cvat_redis_ondisk:6666"),
        *("user@host", "two hosts", "redis..local", "a" * 64),
    ],
    "CVAT_FUNCTIONS_REDIS_PORT": ["redis", "0", "65536", "63.79"],
    "SAM2_REDIS_TLS": ["maybe"],
    "SAM2_REDIS_PREFIX": ["a:b", "a b", "*", "\u00e9"],
    "SAM2_REDIS_TIMEOUT_SECONDS": ["0", "nan", "inf"],
    "SAM2_DEVICE": ["gpu", "cuda:", "cuda:x", "cuda:-1", "0"],
    "SAM2_PRECISION": ["float16"],
    "SAM2_THREADS": ["-1", "9" * 400],
    "SAM2_WORKERS": ["0"],
    "SAM2_FILL_HOLE_AREA": ["-1", "4096"],
    "SAM2_MEMORY_POLICY": ["best"],
    "SAM2_IMAGE_SIZE": ["500", "32", "2048"],
    "SAM2_MEMORY_FRAMES": ["1", "-1", "8"],
    "SAM2_SEARCH_REGION": ["1", "11", "-0", "nan"],
    "SAM2_POLYGON_TOLERANCE": ["1", "-0.1"],
    "SAM2_MAX_IMAGE_MEGAPIXELS": ["0"],
    "SAM2_MAX_OBJECTS": ["0"],
    "SAM2_MAX_POINTS": ["99999"],
    "SAM2_TIME_BUDGET_SECONDS": ["zero"],
    "SAM2_STATE_TTL_SECONDS": ["0", "30001"],
    "SAM2_MEMORY_CACHE_MIB": ["-1"],
    "SAM2_EMBEDDED_STORE_MIB": ["7"],
}


def test_a_password_that_is_not_utf8_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings_from_environment({"CVAT_FUNCTIONS_REDIS_PASSWORD": "secret\udcff"})
    assert caught.value.message == "CVAT_FUNCTIONS_REDIS_PASSWORD is not text in UTF-8."


def test_a_misspelt_variable_is_told_with_the_one_that_is_meant() -> None:
    variables = {variable: text for variable, text, _ in VARIABLES.values()}
    others = dict.fromkeys(
        [
            *("PATH", "SAM2_BUILD_CUDA", "CVAT_FUNCTIONS_URL"),
            # What Kubernetes sets where a service is called sam2-tracker or cvat-functions-redis.
            *("SAM2_TRACKER_SERVICE_HOST", "SAM2_TRACKER_SERVICE_PORT_HTTP", "SAM2_TRACKER_PORT"),
            *("CVAT_FUNCTIONS_REDIS_SERVICE_PORT", "CVAT_FUNCTIONS_REDIS_PORT_6379_TCP_ADDR"),
        ],
        "x",
    )
    assert unknown_variables(variables | others) == []
    assert unknown_variables({"SAM2_MEMROY_POLICY": "anchors", "SAM2_ZZZ": "1"}) == [
        "SAM2_MEMROY_POLICY is no setting of the function. Is SAM2_MEMORY_POLICY meant?",
        "SAM2_ZZZ is no setting of the function.",
    ]


@pytest.mark.parametrize(
    ("variable", "text"), [(name, text) for name, texts in WRONG.items() for text in texts]
)
def test_the_error_names_the_variable_and_what_is_allowed(variable: str, text: str) -> None:
    """The README names it in the same words."""
    (kind,) = (
        field.metadata["kind"]
        for field in dataclasses.fields(Settings)
        if field.metadata["variable"] == variable
    )
    with pytest.raises(ConfigurationError) as caught:
        settings_from_environment({variable: text})
    assert caught.value.message.startswith(f"{variable} is {text!r}; it must be {kind.allowed}")


@pytest.mark.parametrize(
    "host",
    ["cvat_redis_ondisk", "redis.cvat.svc.cluster.local", "10.0.0.7", "::1", "fe80::1%eth0"],
)
def test_a_host_may_be_a_name_or_an_address(host: str) -> None:
    assert settings_from_environment({"CVAT_FUNCTIONS_REDIS_HOST": host}).redis_host == host
