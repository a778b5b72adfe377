# SPDX-License-Identifier: MIT
"""Objects in batches that fit into the device's memory."""

import weakref
from dataclasses import replace

import pytest
import torch

from benchmarks.accuracy import tracked
from sam2_tracker.batches import GROW_AFTER, Batches
from sam2_tracker.errors import OutOfMemory
from sam2_tracker.out_of_memory import memory_errors
from tools.sam2_models import load_model, micro_files
from training.clips import draw_clip


class Device:
    """Doubles numbers, as long as there are few of them."""

    def __init__(self, room: int, held: int = 0) -> None:
        """held: room that is taken until it is released."""
        self.room = room - held
        self._held = held
        self.batches: list[list[int]] = []

    def release(self) -> None:
        self.room += self._held
        self._held = 0

    def run(self, indexes: list[int]) -> list[int]:
        self.batches.append(indexes)
        with memory_errors("too many objects"):
            if len(indexes) > self.room:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return [2 * index for index in indexes]


def test_equal_keys_go_together_and_results_keep_their_order() -> None:
    device = Device(room=32)
    assert Batches(4, device.release).run("ababaaa", device.run) == [0, 2, 4, 6, 8, 10, 12]
    assert device.batches == [[0, 2, 4, 5], [6], [1, 3]]


def test_too_little_memory_halves_the_batch_and_that_is_remembered() -> None:
    device = Device(room=2)
    batches = Batches(32, device.release)
    assert batches.run("aaaaa", device.run) == [0, 2, 4, 6, 8]
    assert [len(each) for each in device.batches] == [5, 2, 2, 1]
    device.batches.clear()
    batches.run("aaaaa", device.run)
    assert [len(each) for each in device.batches] == [2, 2, 1]


def test_caches_are_given_back_before_batches_become_tiny() -> None:
    device = Device(room=8, held=7)
    assert Batches(32, device.release).run("a" * 16, device.run) == [2 * n for n in range(16)]
    assert [len(each) for each in device.batches] == [16, 8, 4, 4, 4, 4, 4]


def test_batches_grow_again_when_others_have_left_the_device() -> None:
    device = Device(room=2)
    batches = Batches(32, device.release)
    batches.run("aaaaa", device.run)
    device.room = 32
    for _ in range(5 * GROW_AFTER):
        batches.run("a" * 32, device.run)
    assert len(device.batches[-1]) == 32


def test_no_room_for_a_single_object_is_an_error() -> None:
    device = Device(room=0)
    with pytest.raises(OutOfMemory, match="too many objects"):
        Batches(32, device.release).run("aaa", device.run)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("FIND was unable to find an engine to execute this computation"),
    ],
)
def test_every_librarys_error_for_missing_memory_becomes_out_of_memory(error: Exception) -> None:
    with pytest.raises(OutOfMemory), memory_errors("no room"):
        raise error


def test_a_batch_that_failed_holds_no_memory_while_smaller_ones_run() -> None:
    tensors: list[weakref.ref[torch.Tensor]] = []

    def compute(count: int) -> list[int]:
        tensor = torch.zeros(count)
        tensors.append(weakref.ref(tensor))
        if count > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [0] * count

    def run(indexes: list[int]) -> list[int]:
        assert [each() for each in tensors] == [None] * len(tensors)
        with memory_errors("too many objects"):
            return compute(len(indexes))

    assert Batches(32, lambda: None).run("aaaa", run) == [0] * 4
    assert len(tensors) > 4


def test_errors_that_are_not_about_memory_are_raised_unchanged() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("no room"):
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize(("precision", "least"), [("float32", 0.9999), ("bfloat16", 0.99)])
@pytest.mark.slow
def test_what_an_object_is_batched_with_changes_its_masks_by_rounding_alone(
    precision: str, least: float
) -> None:
    clip = draw_clip(5, frames=6, width=320, height=256, objects=3)
    model = load_model(micro_files(), precision=precision)
    together = tracked(model, clip)[:, 0]
    alone = tracked(model, replace(clip, masks=clip.masks[:, :1]))[:, 0]
    ious = [(a & b).sum() / (a | b).sum() for a, b in zip(together, alone, strict=True)]
    assert min(ious) >= least
    other = sum(iou < 1 for iou in ious[1:])
    print(f"{precision}: {other} of 5 masks differ, least IoU {min(ious):.4f}")
