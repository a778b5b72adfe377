# SPDX-License-Identifier: MIT
"""What the tests share: quiet threads, a real Redis, a model."""

import logging
import os
import signal
import sys

# Before torch is imported: its threads wait politely where cores are shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
# A test that wants one of the function's settings sets it itself.
for _name in list(os.environ):
    if _name.startswith(("SAM2_", "CVAT_FUNCTIONS_REDIS_")):
        del os.environ[_name]

from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

import pytest  # noqa: E402
from hypothesis import HealthCheck, Phase, settings  # noqa: E402

if TYPE_CHECKING:  # the tests of protocol and geometry run without torch and Redis
    import PIL.Image

    from model_handler import ModelHandler
    from sam2_tracker.models import ModelFiles
    from tools.redis_server import RedisServer
    from tracker import Tracker

# A shell that starts us in the background has SIGINT ignored, and our children would inherit that:
# the tests of Ctrl+C could wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "project", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
# A fifth of the examples, in state machines too: for `make test-fast`.
settings.register_profile("fast", settings.get_profile("project"), max_examples=20)
# A few examples only: for a second run of the same tests in other surroundings.
settings.register_profile("quick", settings.get_profile("project"), max_examples=5)
# The first failure as it is found: enough where only its test's name counts (mutants.py).
settings.register_profile(
    "unshrunk", settings.get_profile("project"), phases=[Phase.explicit, Phase.generate]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "project"))


# Files and folders that `make test-fast` leaves out: HTTP servers, kills, long comparisons. Other
# slow tests are marked where they stand.
SLOW = (
    *("test_benchmarks", "test_demo", "test_efficienttam", "test_fidelity", "test_http"),
    *("test_inexact_options", "test_monitoring", "test_training_model"),
    *("test_ui_plugin_recording", "test_action_end_to_end", "deploy", "test_logs", "test_tls"),
)


def is_slow(path: Path) -> bool:
    return path.stem in SLOW or path.parent.name in SLOW


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What `make test-fast` leaves out is not even imported. None: pytest's own rules decide."""
    left_out = config.option.markexpr == "not slow" and is_slow(collection_path)
    return True if left_out else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_slow(item.path):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def what_a_test_changed() -> "Iterator[None]":
    """Puts torch's threads and the root logger back as they were before the test."""
    torch, root = sys.modules.get("torch"), logging.getLogger()
    threads = torch.get_num_threads() if torch else 0
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    if torch and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@pytest.fixture
def open_tracker() -> "Iterator[Callable[..., Tracker]]":
    """Opens trackers, with the embedded store or on a Redis; they are closed after the test."""
    from asking import opener

    with opener() as opened:
        yield opened


@pytest.fixture(scope="session")
def redis_server() -> "Iterator[RedisServer]":
    """A redis-server of our own; tests keep apart by their key prefix, or flush it."""
    from tools.redis_server import RedisServer

    with RedisServer() as server:
        yield server


@pytest.fixture
def empty_redis(redis_server: "RedisServer") -> "Iterator[RedisServer]":
    redis_server.client().flushall()
    yield redis_server
    redis_server.client().flushall()


@pytest.fixture(scope="session")
def micro_files() -> "ModelFiles":
    """The bundled model."""
    from tools import sam2_models

    return sam2_models.micro_files()


@pytest.fixture(scope="session")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> "ModelFiles":
    """The bundled model with an input of 192 x 192 pixels instead of 384 x 384: a quarter of the
    work. For tests in which it does not count how well an object is seen."""
    from tools import sam2_models

    return sam2_models.micro_files_at(192, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def small_model(small_files: "ModelFiles") -> "ModelHandler":
    from tools.sam2_models import load_model

    return load_model(small_files)


@pytest.fixture(scope="session")
def micro_model(micro_files: "ModelFiles") -> "ModelHandler":
    """The bundled model in the reference precision, without hole filling."""
    from tools.sam2_models import load_model

    return load_model(micro_files)


@pytest.fixture(scope="session")
def efficienttam_files(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> "ModelFiles":
    """An EfficientTAM that pools memory frames, at 128 px, with random weights."""
    from tools.sam2_models import random_model

    config = repository / "sam2_tracker" / "configs" / "efficienttam_ti_2.yaml"
    return random_model(config, tmp_path_factory.mktemp("efficienttam"), image_size=128)


@pytest.fixture(
    scope="session",
    params=["small_files", pytest.param("efficienttam_files", marks=pytest.mark.slow)],
)
def family_files(request: pytest.FixtureRequest) -> "ModelFiles":
    """A small model of each family: SAM 2 and EfficientTAM."""
    files: ModelFiles = request.getfixturevalue(request.param)
    return files


@pytest.fixture(scope="module")
def interactor_context(micro_files: "ModelFiles") -> Any:
    """Of a running interactor, without a Redis."""
    from running import environment, new_context

    import main

    with pytest.MonkeyPatch.context() as patched:
        for name, value in environment(micro_files, SAM2_FUNCTION="interactor").items():
            patched.setenv(name, value)
        context = new_context()
        main.init_context(context)
    return context


@pytest.fixture(scope="session")
def picture() -> "PIL.Image.Image":
    """Three drawn objects, to click on."""
    from clicking import pictures

    return pictures(1)[0]


@pytest.fixture
def ask(interactor_context: Any, picture: "PIL.Image.Image") -> "Callable[..., tuple[int, Any]]":
    """Asks the interactor about the picture: the keys of CVAT's body, and CVAT's version."""
    from clicking import NEW, body, call

    def ask(*, agent: str | None = NEW, **keys: Any) -> tuple[int, Any]:
        return call(interactor_context, body(picture, **keys), agent)

    return ask


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[1]
