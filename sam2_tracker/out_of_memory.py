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
    "ALLOCATION_FAILED",  # cuDNN 9: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_..., ..._HOST_...
    # A convolution found no room for its workspace. A GPU that cuDNN does not know says the same,
    # but not to a request: choose_device() in build_model.py tries a convolution at the start.
    "unable to find an engine to execute",
)


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
    )


@contextlib.contextmanager
def memory_errors(message: str) -> Iterator[None]:
    """Raises OutOfMemory with this message in place of any error that means it.

    That error is its __cause__, without its traceback, which holds the tensors of what failed.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(message) from error.with_traceback(None)


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
