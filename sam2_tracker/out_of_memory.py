# SPDX-License-Identifier: MIT
"""Recognises the out-of-memory errors of torch, cuBLAS, cuDNN and Python."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from sam2_tracker.errors import OutOfMemory

T = TypeVar("T")

# torch has an exception of its own for its CUDA allocator only. Its CPU allocator, cuBLAS and cuDNN
# raise a plain RuntimeError with one of these in its text.
SIGNS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # cuBLAS found no room for its workspace
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
    )


@contextlib.contextmanager
def memory_errors(message: str) -> Iterator[None]:
    """Raises OutOfMemory with this message in place of any error that means it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return
    # Not while the error is handled: its traceback holds the tensors of the call that failed.
    raise OutOfMemory(message)


def retry_after_release(run: Callable[[], T], release: Callable[[], None]) -> T:
    """Calls run(). After an OutOfMemory, calls release() and then run() once more.

    If that fails too, calls release() again, for the next request. Raises OutOfMemory.
    """
    failures: list[OutOfMemory] = []
    for _ in range(2):
        try:
            return run()
        except OutOfMemory as failure:
            failures.append(failure.with_traceback(None))  # which holds the request's tensors
        release()
    raise failures[-1]
