# SPDX-License-Identifier: MIT
"""What bfloat16 and the inexact options cost in accuracy: the micro model on its evaluation set."""

import multiprocessing
import os
import statistics
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.models import MICRO, benchmark_files
from benchmarks.plan import Clock, Plan, Report
from model_handler import ModelHandler
from sam2_tracker.memory_bank import MemoryBank, start_bank
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.memory_policy import remember
from sam2_tracker.models import ModelFiles
from sam2_tracker.predictions import prediction_of
from sam2_tracker.settings import MIB, Settings
from training.clips import Clip
from training.evaluation_set import SUBSETS, Subset, parameters_hash
from training.metrics import jaccard
from training.tally import Tally, merged

Judged = tuple[dict[str, Tally], dict[str, list[float]]]

EXACT = "float32"
POLICY = Settings().memory_policy


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to run the micro model, whose own input has 384 px and memory 7 frames."""

    name: str
    precision: str = "float32"
    image_size: int = 0
    memory_frames: int = 0


VARIANTS = (
    Variant(name=EXACT),
    Variant(name="bfloat16", precision="bfloat16"),
    Variant(name="half the input (SAM2_IMAGE_SIZE)", image_size=192),
    Variant(name="three quarters of the input", image_size=288),
    Variant(name="4 memory frames (SAM2_MEMORY_FRAMES)", memory_frames=4),
    Variant(name="2 memory frames", memory_frames=2),
)


@dataclass(frozen=True)
class Job:
    """One clip for one process."""

    files: ModelFiles
    device: str
    subset: Subset
    number: int
    variants: tuple[Variant, ...]


def accuracy_of(
    files: ModelFiles,
    *,
    device: str,
    clips: int | None,
    clock: Clock,
    report: Report,
    variants: tuple[Variant, ...] = VARIANTS,
    subsets: tuple[Subset, ...] = SUBSETS,
) -> dict[str, Any]:
    """J&F against the truth and mean IoU with float32, over all object-frames but the first.

    clips: at most so many of each subset. Where the time runs out, fewer were judged; the result
    says how many.
    """
    most = max(min(subset.clips, clips or subset.clips) for subset in subsets)
    # One of each subset after the other, so that any number of them is a fair sample.
    jobs = [
        Job(files, device, subset, number, variants)
        for number in range(most)
        for subset in subsets
        if number < min(subset.clips, clips or subset.clips)
    ]
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the pool's processes
    spawn = multiprocessing.get_context("spawn")
    count = len(os.sched_getaffinity(0)) if device == "cpu" else 1
    count = min(count, len(jobs))
    done = []
    with ProcessPoolExecutor(count, mp_context=spawn) as pool:
        futures = [pool.submit(judge, job) for job in jobs]
        for future in as_completed(futures):
            if future.cancelled():
                continue
            done.append(future.result())
            report(f"accuracy, clip {len(done)} of {len(jobs)}")
            if clock.is_over():
                for other in futures:
                    other.cancel()
    return {
        "model": MICRO,
        "evaluation_set": parameters_hash(),
        "clips": len(done),
        "of": sum(subset.clips for subset in subsets),
        "frames": subsets[0].frames,
        "rows": [_row(variant.name, done) for variant in variants],
    }


def _row(name: str, done: list[Judged]) -> dict[str, Any]:
    """What one variant scored on all clips."""
    tally = merged([tallies[name] for tallies, _ in done])
    ious = [iou for _, each in done for iou in each[name]]
    return {
        "name": name,
        "j": statistics.fmean(tally.j),
        "f": statistics.fmean(tally.f),
        "j_and_f": tally.j_and_f,
        "found_again": statistics.fmean(tally.found) if tally.found else None,
        "iou_with_float32": statistics.fmean(ious),
        "object_frames": len(ious),
    }


def judge(job: Job) -> Judged:
    """By variant: what it scores on one clip, and IoUs with float32 by object and frame."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clip = job.subset.draw(job.number)
    tallies, ious = {}, {}
    exact: NDArray[np.bool_] | None = None
    for variant in job.variants:
        masks = tracked(_model(job.files, job.device, variant), clip)
        if exact is None:
            exact = masks
        tally = Tally()
        for index in range(masks.shape[1]):
            tally.add(masks[:, index], clip.masks[:, index])
        tallies[variant.name] = tally
        ious[variant.name] = [
            jaccard(one, other)
            for ours, theirs in zip(masks[1:], exact[1:], strict=True)
            for one, other in zip(ours, theirs, strict=True)
        ]
    return tallies, ious


def tracked(model: ModelHandler, clip: Clip) -> NDArray[np.bool_]:
    """Masks of all objects from mask prompts on the first frame, bool (T, N, H, W)."""
    frames, count, height, width = clip.masks.shape
    masks = np.zeros((frames, count, height, width), np.bool_)
    banks: list[MemoryBank] = []
    for index, pixels in enumerate(clip.frames):
        frame = model.encode(Image.fromarray(pixels))
        if banks:
            found = [prediction_of(result) for result in model.step(frame, banks)]
            banks = [
                remember(bank, each.seen, model.layout)
                for bank, each in zip(banks, found, strict=True)
            ]
        else:
            started = model.start(frame, list(clip.masks[0]), width=width, height=height)
            found = [prediction_of(result) for result in started]
            banks = [start_bank(POLICY, each.seen) for each in found]
        logits = [each.logits for each in found]
        masks[index] = list(model.logits_to_bitmaps(logits, width=width, height=height))
    return masks


@cache
def _model(files: ModelFiles, device: str, variant: Variant) -> ModelHandler:
    return ModelHandler(
        files,
        device=device,
        precision=variant.precision,
        image_size=variant.image_size,
        memory_frames=variant.memory_frames,
        cache=MemoryCache(64 * MIB),
    )


def accuracy(plan: Plan, clock: Clock, folder: Path, report: Report) -> dict[str, Any]:
    return accuracy_of(
        benchmark_files(MICRO, folder),
        device=plan.device,
        clips=plan.accuracy_clips,
        clock=clock,
        report=report,
    )
