# SPDX-License-Identifier: MIT
"""A function's start and its end: what stops the start, what it says, and what is closed."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import redis
import torch
from running import environment, new_context

import main
from sam2_tracker import build_model
from sam2_tracker.errors import ConfigurationError, OutOfMemory
from sam2_tracker.models import ModelFiles
from sam2_tracker.passes import Passes
from tools.redis_server import RedisServer

Set = Callable[..., None]


@pytest.fixture
def set_variables(monkeypatch: pytest.MonkeyPatch, micro_files: ModelFiles) -> Set:
    def change(server: RedisServer | None = None, **variables: str) -> None:
        for name, value in environment(micro_files, server, **variables).items():
            monkeypatch.setenv(name, value)

    return change


def started() -> Any:
    context = new_context()
    main.init_context(context)
    return context


def end(context: Any) -> None:
    with pytest.raises(SystemExit, match="0"):
        context.platform._on_signal("termination")


def error_of_start(worker_id: int = 0) -> str:
    """What is raised and logged: Nuclio does not log what the function raises."""
    context = new_context(worker_id)
    with pytest.raises(ConfigurationError) as caught:
        main.init_context(context)
    message = caught.value.message
    assert context.logger.messages("error") == [f"The function cannot start: {message}"]
    return message


@pytest.mark.parametrize(
    ("variables", "worker_id", "sentence"),
    [
        ({"SAM2_THREADS": "four"}, 0, "SAM2_THREADS is 'four'; it must be a whole number from 0"),
        ({"SAM2_WORKERS": "2"}, 0, "Several workers need a Redis: set CVAT_FUNCTIONS_REDIS_HOST"),
        ({}, 1, "Several workers need a Redis: set CVAT_FUNCTIONS_REDIS_HOST"),
        ({"SAM2_CHECKPOINT": "/none.pt"}, 0, "SAM2_CHECKPOINT is /none.pt"),
        ({"SAM2_CONFIG": "", "SAM2_CHECKPOINT": "", "SAM2_MODEL": "sam3"}, 0, "sam3"),
        ({"SAM2_DEVICE": "cuda:99"}, 0, "cuda:99"),
    ],
)
def test_a_start_that_fails_is_one_sentence(
    set_variables: Set, variables: dict[str, str], worker_id: int, sentence: str
) -> None:
    set_variables(**variables)
    message = error_of_start(worker_id)
    assert sentence in message
    assert "\n" not in message


TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040)."
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device\nSearch for\nit"


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize("place", ["setting the device", "a convolution"])
@pytest.mark.parametrize("error", [TOO_OLD, NO_KERNEL, "CUDA error: out of memory\nSearch for\nit"])
def test_a_gpu_that_cannot_be_used_is_told_as_that(
    set_variables: Set, monkeypatch: pytest.MonkeyPatch, device: str, place: str, error: str
) -> None:
    """NVML counts a GPU though its driver or the GPU itself is too old, or its memory is full."""
    fails, works = mock.Mock(side_effect=RuntimeError(error)), mock.Mock()
    set_variables(SAM2_DEVICE=device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", works if place == "a convolution" else fails)
    monkeypatch.setattr(build_model, "_convolve", fails if place == "a convolution" else works)
    said = error.split("\n")[0].rstrip(".")
    assert error_of_start() == (
        f"The GPU cannot be used: {said}. Free its memory, update its driver, or take an older "
        "CUDA with --torch-index (docs/deploy.md)."
    )


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError("CUDA error: unknown\nSearch for it"), "RuntimeError: CUDA error: unknown S"),
        (KeyError("x"), "KeyError: 'x'"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_start_that_fails_for_whatever_reason_is_in_the_log(
    set_variables: Set, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    set_variables()
    context = new_context()
    monkeypatch.setattr(main, "build_tracker", mock.Mock(side_effect=error))
    with pytest.raises(type(error)):
        main.init_context(context)
    ((level, message, fields),) = context.logger.lines[1:]
    assert level == "error"
    assert message.startswith(f"The function cannot start: {sentence}")
    assert "\n" not in message
    assert "Traceback" in fields["traceback"]


def test_a_first_run_without_memory_is_logged_with_the_words_of_the_device(
    set_variables: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For those of a convolution have two causes: cuDNN may also not know the GPU."""
    no_engine = "GET was unable to find an engine to execute this computation"
    set_variables()
    context = new_context()
    monkeypatch.setattr(Passes, "start", mock.Mock(side_effect=RuntimeError(no_engine)))
    with pytest.raises(OutOfMemory):
        main.init_context(context)
    (message,) = context.logger.messages("error")
    assert "too little memory" in message
    assert no_engine in message


NO_MODEL = "mine.yaml is not a configuration of a SAM 2"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("model:", "model: [1, 2", NO_MODEL),
        ("sam2.modeling.memory_encoder.MemoryEncoder", "sam2.nothing.MemoryEncoder", NO_MODEL),
        ("  num_maskmem:", "  no_such_option: 1\n  num_maskmem:", NO_MODEL),
        ("model:", "another:", NO_MODEL),
        (
            "directly_add_no_mem_embed: true",
            "directly_add_no_mem_embed: false",
            "mine.yaml sets directly_add_no_mem_embed to False",
        ),
    ],
)
def test_a_file_that_configures_no_model_for_us_stops_the_start(
    set_variables: Set, micro_files: ModelFiles, tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    text = micro_files.config.read_text()
    assert old in text
    (tmp_path / "mine.yaml").write_text(text.replace(old, new, 1))
    set_variables(SAM2_CONFIG=str(tmp_path / "mine.yaml"))
    message = error_of_start()
    assert sentence in message
    assert "\n" not in message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({}, ""),
        ({"SAM2_WORKERS": "2", "CVAT_FUNCTIONS_REDIS_HOST": "redis"}, ""),
        ({"SAM2_WORKERS": "2"}, "Several workers need a Redis: set CVAT_FUNCTIONS_REDIS_HOST, or"),
        ({"SAM2_REDIS_TLS": "maybe"}, "SAM2_REDIS_TLS is 'maybe'; it must be 0 or 1."),
        ({"SAM2_THREAD": "2"}, "SAM2_THREAD is no setting of the function. Is SAM2_THREADS meant?"),
        ({"SAM2_THREAD": "2", "SAM2_ZZZ": "1"},
         "SAM2_THREAD is no setting of the function. Is SAM2_THREADS meant?\n"
         "SAM2_ZZZ is no setting of the function."),
    ],
)  # fmt: skip
def test_settings_are_checked_without_any_package(
    repository: Path, variables: dict[str, str], sentence: str
) -> None:
    """On the machine that deploys, where nothing of ours is installed."""
    words = [sys.executable, "-S", "-E", "-m", "sam2_tracker.check_settings"]
    done = subprocess.run(words, cwd=repository, env=variables, capture_output=True, text=True)
    assert done.returncode == bool(sentence)
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == len(sentence.splitlines())


def test_a_function_starts_without_its_redis_and_says_so(
    set_variables: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it answers as soon as the Redis does, test_monitoring.py holds."""
    monkeypatch.setattr(redis.retry, "sleep", lambda seconds: None)
    set_variables(RedisServer())
    context = started()
    assert context.logger.messages("warn") == [
        "Redis does not answer yet: requests get 503 until it does."
    ]
    end(context)


def test_start_and_end_with_the_embedded_store(
    set_variables: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables()
    context = started()
    (warning,) = context.logger.messages("warn")
    assert warning.startswith("CVAT_FUNCTIONS_REDIS_HOST is not set:")
    (running,) = [fields for _, message, fields in context.logger.lines if message == "running"]
    assert running["store"] == "embedded"
    store, closed = context.user_data.function._store, []
    close = store.close
    monkeypatch.setattr(store, "close", lambda: closed.append(True) or close())
    end(context)
    assert closed == [True]
