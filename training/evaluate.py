# SPDX-License-Identifier: MIT
"""Judge the micro model with the official predictor: `python -m training.evaluate`."""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from sam2 import sam2_video_predictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.utils import misc
from tqdm import tqdm

from training.baselines import carry_by_flow, repeat_first
from training.clips import Clip
from training.evaluation_set import SUBSETS, Subset, parameters_hash
from training.metrics import boundary_f, jaccard
from training.model import CONFIG, WEIGHTS, build_predictor, digest_of

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
HIDDEN_RUN = 5  # frames of being fully hidden that make a re-find count
FOUND_WITHIN = 5  # frames after the return
FOUND_J = 0.5
METHODS = ("mask prompt", "box prompt", "first mask repeated", "first mask by flow")


@dataclass
class Tally:
    """What one method scored on one subset; a list per figure, one entry per case."""

    j: list[float] = field(default_factory=list)
    f: list[float] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)
    shown_while_hidden: list[bool] = field(default_factory=list)

    def add(self, masks: np.ndarray, truth: np.ndarray) -> None:
        """bool (T, H, W) of one object; frame 0 is the prompt's and does not count."""
        self.j.append(
            statistics.fmean(jaccard(m, t) for m, t in zip(masks[1:], truth[1:], strict=True))
        )
        self.f.append(
            statistics.fmean(boundary_f(m, t) for m, t in zip(masks[1:], truth[1:], strict=True))
        )
        hidden = np.asarray(truth.sum((1, 2)) == 0)
        self.shown_while_hidden += [bool(m.any()) for m in masks[1:][hidden[1:]]]
        self.found += [
            any(
                jaccard(masks[t], truth[t]) >= FOUND_J
                for t in range(back, min(back + FOUND_WITHIN, len(truth)))
            )
            for back in returns_after(hidden, HIDDEN_RUN)
        ]

    @property
    def j_and_f(self) -> float:
        return (statistics.fmean(self.j) + statistics.fmean(self.f)) / 2


def returns_after(hidden: np.ndarray, run: int) -> list[int]:
    """Frames in which something is seen again after at least `run` hidden frames in a row."""
    returns, length = [], 0
    for t, gone in enumerate(hidden):
        if not gone and length >= run:
            returns.append(t)
        length = length + 1 if gone else 0
    return returns


def state_of(predictor: SAM2VideoPredictor, frames: np.ndarray, folder: Path) -> dict[str, Any]:
    """init_state, with the frames handed over in memory instead of as JPEG files.

    frames: uint8 (T, H, W, 3), RGB, resized as load_video_frames does it. init_state itself builds
    the state from one black JPEG in `folder`.
    """
    size = predictor.image_size
    height, width = frames.shape[1:3]
    Image.new("RGB", (width, height)).save(folder / "0.jpg")
    state = predictor.init_state(str(folder))
    images = np.stack([np.asarray(Image.fromarray(frame).resize((size, size))) for frame in frames])
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    state["images"] = ((tensor - mean) / std).to(state["device"])
    state["num_frames"] = len(frames)
    state["cached_features"].clear()
    return state


def tracked(
    predictor: SAM2VideoPredictor, clip: Clip, prompt: str, folder: Path, seconds: list[float]
) -> np.ndarray:
    """Masks by the official predictor, bool (T, N, H, W); prompt: mask or box, in frame 0.

    seconds: gets the time per frame (encoding and all objects), frame 0 left out.
    """
    state = state_of(predictor, clip.frames, folder)
    for index, mask in enumerate(clip.masks[0]):
        if prompt == "mask":
            predictor.add_new_mask(state, 0, index, mask)
        else:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
            predictor.add_new_points_or_box(state, 0, index, box=box)
    masks = np.zeros_like(clip.masks)
    began = time.perf_counter()
    for t, _, logits in predictor.propagate_in_video(state):
        masks[t] = (logits[:, 0] > 0).cpu().numpy()
        now = time.perf_counter()
        if t > 0:
            seconds.append(now - began)
        began = now
    return masks


@dataclass(frozen=True)
class Job:
    """One clip for one process."""

    config: Path
    weights: Path
    device: str
    subset: Subset
    number: int


@lru_cache(maxsize=1)
def _predictor(config: Path, weights: Path, device: str) -> SAM2VideoPredictor:
    return build_predictor(config, weights, device)


def silence_bars() -> None:
    # Theirs, one per clip, would drown the table.
    sam2_video_predictor.tqdm = misc.tqdm = partial(tqdm, disable=True)


def tallies_of(job: Job) -> tuple[dict[str, Tally], bytes]:
    """What each method scores on one clip, and the digest of the clip's pixels and masks."""
    silence_bars()
    torch.set_num_threads(1)  # two processes are faster than one with two threads
    cv2.setNumThreads(1)
    predictor = _predictor(job.config, job.weights, job.device)
    clip = job.subset.draw(job.number)
    first = clip.masks[0]
    with tempfile.TemporaryDirectory() as folder:
        answers = {
            "mask prompt": tracked(predictor, clip, "mask", Path(folder), []),
            "box prompt": tracked(predictor, clip, "box", Path(folder), []),
            "first mask repeated": repeat_first(clip.frames, first),
            "first mask by flow": carry_by_flow(clip.frames, first),
        }
    tallies = {name: Tally() for name in METHODS}
    for name, masks in answers.items():
        for index in range(len(first)):
            tallies[name].add(masks[:, index], clip.masks[:, index])
    return tallies, hashlib.sha256(clip.frames.tobytes() + clip.masks.tobytes()).digest()


def milliseconds_of(config: Path, weights: Path, device: str) -> float:
    """Median time to encode a frame and step one object, with all of the machine's cores."""
    subset = next(subset for subset in SUBSETS if subset.objects == 1)
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        predictor = build_predictor(config, weights, device)
        for number in range(2):
            tracked(predictor, subset.draw(number), "mask", Path(folder), seconds)
    return 1000 * statistics.median(seconds)


def merged(tallies: list[Tally]) -> Tally:
    return Tally(
        *(
            sum((getattr(t, name) for t in tallies), [])
            for name in ("j", "f", "found", "shown_while_hidden")
        )
    )


def share(cases: list[bool]) -> str:
    return f"{sum(cases) / len(cases):7.1%} of {len(cases):3d}" if cases else "-".rjust(14)


def lines_of(subset: str, tallies: dict[str, Tally]) -> Iterator[str]:
    for name, tally in tallies.items():
        j, f = statistics.fmean(tally.j), statistics.fmean(tally.f)
        yield (
            f"{subset:10s} {name:20s} {j:6.3f} {f:6.3f} {tally.j_and_f:6.3f} "
            f"{share(tally.found):>16s} {share(tally.shown_while_hidden):>16s}"
        )


@dataclass(frozen=True)
class Goal:
    text: str
    value: float
    reached: bool


def goals_of(by_subset: dict[str, dict[str, Tally]], milliseconds: float) -> list[Goal]:
    whole = {name: merged([by_subset[s][name] for s in by_subset]) for name in METHODS}
    ours = whole["mask prompt"].j_and_f
    baseline = max(whole["first mask repeated"].j_and_f, whole["first mask by flow"].j_and_f)
    apart = ours - whole["box prompt"].j_and_f
    found = by_subset["occlusion"]["mask prompt"].found
    shown = whole["mask prompt"].shown_while_hidden
    again, noise = sum(found) / len(found), sum(shown) / len(shown)
    return [
        Goal("J&F with mask prompts, at least 0.80", ours, ours >= 0.80),
        Goal("better baseline's J&F, at most 0.55", baseline, baseline <= 0.55),
        Goal(
            "J&F above the better baseline, at least 0.25", ours - baseline, ours - baseline >= 0.25
        ),
        Goal("J&F that box prompts lose, at most 0.05", apart, apart <= 0.05),
        Goal(f"found again after {HIDDEN_RUN} hidden frames, at least 0.70", again, again >= 0.70),
        Goal("mask shown in a fully hidden frame, below 0.10", noise, noise < 0.10),
        Goal(
            "ms to encode a frame and step one object, at most 60", milliseconds, milliseconds <= 60
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--processes", type=int, help="default: 1 with CUDA, else one per core")
    parser.add_argument(
        "--clips", type=int, help="only the first clips of each subset: a quick look"
    )
    arguments = parser.parse_args()
    config, weights, device = arguments.config, arguments.weights, arguments.device
    processes = arguments.processes or (1 if device == "cuda" else os.cpu_count() or 1)
    print(f"weights {digest_of(weights)[:16]}, evaluation set {parameters_hash()}")
    print(f"{'subset':10s} {'method':20s} {'J':>6s} {'F':>6s} {'J&F':>6s} {'found again':>16s} "
          f"{'shown if hidden':>16s}")  # fmt: skip
    by_subset, pixels = {}, hashlib.sha256()
    # For the processes of the pool; this one has read it already.
    os.environ["OMP_NUM_THREADS"] = "1"
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        for subset in SUBSETS:
            numbers = range(min(subset.clips, arguments.clips or subset.clips))
            jobs = [Job(config, weights, device, subset, number) for number in numbers]
            results = list(pool.map(tallies_of, jobs))
            for _, digest in results:
                pixels.update(digest)
            by_subset[subset.name] = {
                name: merged([tallies[name] for tallies, _ in results]) for name in METHODS
            }
            for line in lines_of(subset.name, by_subset[subset.name]):
                print(line, flush=True)
    whole = {name: merged([by_subset[s][name] for s in by_subset]) for name in METHODS}
    for line in lines_of("all", whole):
        print(line)
    print(f"pixels and masks of the clips {pixels.hexdigest()[:16]}")
    silence_bars()
    goals = goals_of(by_subset, milliseconds_of(config, weights, device))
    for goal in goals:
        print(f"{'reached' if goal.reached else 'MISSED':8s} {goal.text}: {goal.value:.3f}")
    return 0 if all(goal.reached for goal in goals) else 1


if __name__ == "__main__":
    raise SystemExit(main())
