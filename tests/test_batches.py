# SPDX-License-Identifier: MIT
"""Objects in batches that fit into the device's memory."""

import pytest
import torch

from sam2_tracker.batches import Batches
from sam2_tracker.errors import OutOfMemory
from sam2_tracker.out_of_memory import memory_errors


class Device:
    """Doubles numbers, as long as there are few of them."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.batches: list[list[int]] = []

    def run(self, indexes: list[int]) -> list[int]:
        self.batches.append(indexes)
        with memory_errors("too many objects"):
            if len(indexes) > self.room:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return [2 * index for index in indexes]


def test_equal_keys_go_together_and_results_keep_their_order() -> None:
    device = Device(room=32)
    assert Batches(4).run("ababaaa", device.run) == [0, 2, 4, 6, 8, 10, 12]
    assert device.batches == [[0, 2, 4, 5], [6], [1, 3]]


def test_too_little_memory_halves_the_batch_and_that_is_remembered() -> None:
    device, batches = Device(room=2), Batches(32)
    assert batches.run("aaaaa", device.run) == [0, 2, 4, 6, 8]
    assert [len(each) for each in device.batches] == [5, 2, 2, 1]
    device.batches.clear()
    batches.run("aaaaa", device.run)
    assert [len(each) for each in device.batches] == [2, 2, 1]


def test_no_room_for_a_single_object_is_an_error() -> None:
    with pytest.raises(OutOfMemory, match="too many objects"):
        Batches(32).run("aaa", Device(room=0).run)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: not enough memory"
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_whoever_says_so_it_is_out_of_memory(error: Exception) -> None:
    with pytest.raises(OutOfMemory), memory_errors("no room"):
        raise error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("no room"):
        raise RuntimeError("shapes do not match")
