# SPDX-License-Identifier: MIT
"""Calls of the store on a thread of its own, each with a deadline."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Generic, ParamSpec, TypeVar

import torch

from sam2_tracker.errors import StoreUnavailable

T = TypeVar("T")
P = ParamSpec("P")


class StoreCall(Generic[T]):
    """A store call in flight, and its deadline."""

    def __init__(self, future: Future[T], deadline: float, clock: Callable[[], float]) -> None:
        self._future: Future[T] | None = future
        self._deadline = deadline
        self._clock = clock

    def wait(self) -> T:
        """The result, once. Raises what the call raises, or StoreUnavailable at the deadline."""
        # Let go of the future: the traceback of an error in it holds the tensors of the request.
        future, self._future = self._future, None
        if future is None:
            raise RuntimeError("the result was taken already")
        try:
            return future.result(timeout=max(0.0, self._deadline - self._clock()))
        except FutureTimeoutError:
            future.cancel()
            raise StoreUnavailable(
                "The store of the tracks does not answer in time; try again in a moment."
            ) from None
        finally:
            del future


class StoreThread:
    """Runs store calls one after the other, while the request goes on with something else.

    A call that hangs (DNS, say) cannot exceed its deadline for the request that waits for it.

    The thread lets torch take one CPU thread and no more. With a second team of OpenMP threads
    there are more of them than cores, and then the runtime lets the model's team sleep between any
    two operations: on two cores every frame would take 1.4 times as long.
    """

    def __init__(self, seconds: float) -> None:
        """seconds: deadline of each call, counted from its submission."""
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        threads = torch.get_num_threads()
        self._thread.submit(_take_one_cpu_thread).result()
        torch.set_num_threads(threads)  # which threads that begin later take

    def submit(
        self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs
    ) -> StoreCall[T]:
        future = self._thread.submit(function, *arguments, **options)
        return StoreCall(future, time.monotonic() + self._seconds, time.monotonic)

    def close(self) -> None:
        """Waits for no call in flight."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _take_one_cpu_thread() -> None:
    """Of the calling thread; torch also keeps the number for threads that begin later."""
    torch.set_num_threads(1)
    torch.get_num_threads()  # from now on torch does not set this thread's number again
