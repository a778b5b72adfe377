# SPDX-License-Identifier: MIT
"""Judge the micro model with the official predictor: `python -m training.evaluate`.

On frozen sets, the drawn, the covered, the semi-real one and parts of things: tracks from masks and
boxes beside two baselines, one and three clicks, and corrections that join a track against tracks
started anew.
`--clip FOLDER` measures a clip of your own that has masks.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor

from training import pictures
from training.baselines import carry_by_flow, repeat_first
from training.clips import Clip
from training.evaluation_set import (
    COVERED_SUBSETS,
    PARTS_SUBSETS,
    SEMI_REAL_SUBSETS,
    SUBSETS,
    SemiRealSubset,
    Subset,
    check_frozen,
    parameters_hash,
)
from training.metrics import boundary_f, jaccard
from training.model import CONFIG, WEIGHTS, build_predictor, digest_of, weights_file
from training.predict import clicked, corrected, silence_bars, tracked
from training.real_clip import NoClipError, RealClip, read_real_clip
from training.tally import HIDDEN_RUN, Tally, merged, share

METHODS = ("mask prompt", "box prompt", "first mask repeated", "first mask by flow")
CLICKS = (1, 3)
CORRECTIONS = (1, 2, 3)  # per track, evenly spaced


@dataclass(frozen=True)
class Job:
    """One clip for one process."""

    config: Path
    weights: Path
    device: str
    subset: Subset | SemiRealSubset
    number: int
    corrections: bool


@dataclass
class Scores:
    """What one or more clips of a set scored.

    clicks: IoU after so many clicks, one entry per object. joined, anew: J by the number of
    corrections, one entry per object. clips: J&F of mask prompts less that of the first mask
    repeated, one entry per clip.
    """

    tallies: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in METHODS})
    clicks: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in CLICKS})
    joined: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in CORRECTIONS})
    anew: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in CORRECTIONS})
    clips: list[float] = field(default_factory=list)
    digest: bytes = b""

    @staticmethod
    def merged(parts: Sequence[Scores]) -> Scores:
        def lists(name: str, keys: Sequence[int]) -> dict[int, list[float]]:
            return {key: sum((getattr(part, name)[key] for part in parts), []) for key in keys}

        return Scores(
            {name: merged([part.tallies[name] for part in parts]) for name in METHODS},
            lists("clicks", CLICKS),
            lists("joined", CORRECTIONS),
            lists("anew", CORRECTIONS),
            sum((part.clips for part in parts), []),
            b"".join(part.digest for part in parts),
        )


@lru_cache(maxsize=1)
def _predictor(config: Path, weights: Path, device: str) -> SAM2VideoPredictor:
    return build_predictor(config, weights, device)


def correction_scores(clip: Clip, masks: np.ndarray, frames: list[int]) -> list[float]:
    """J of every object, mean over the frames after the first correction that got no mask."""
    judged = [t for t in range(frames[0], len(masks)) if t not in frames]
    return [
        statistics.fmean(jaccard(masks[t, i], clip.masks[t, i]) for t in judged)
        for i in range(masks.shape[1])
    ]


def scores_of(job: Job) -> Scores:
    silence_bars()
    torch.set_num_threads(1)  # two processes are faster than one with two threads
    cv2.setNumThreads(1)
    predictor = _predictor(job.config, job.weights, job.device)
    clip = job.subset.draw(job.number)
    first = clip.masks[0]
    scores = Scores(digest=hashlib.sha256(clip.frames.tobytes() + clip.masks.tobytes()).digest())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        answers = {
            "mask prompt": tracked(predictor, clip, "mask", folder, []),
            "box prompt": tracked(predictor, clip, "box", folder, []),
            "first mask repeated": repeat_first(clip.frames, first),
            "first mask by flow": carry_by_flow(clip.frames, first),
        }
        for reached in clicked(predictor, clip, max(CLICKS), folder):
            for count in CLICKS:
                scores.clicks[count].append(reached[count - 1])
        for count in CORRECTIONS if job.corrections else ():
            frames = [len(clip.frames) * (i + 1) // (count + 1) for i in range(count)]
            for into, join in ((scores.joined, True), (scores.anew, False)):
                masks = corrected(predictor, clip, frames, join, folder)
                into[count] += correction_scores(clip, masks, frames)
    for method, masks in answers.items():
        for index in range(len(first)):
            scores.tallies[method].add(masks[:, index], clip.masks[:, index])
    ours, repeated = (scores.tallies[METHODS[i]].j_and_f for i in (0, 2))
    scores.clips.append(ours - repeated)
    return scores


def milliseconds_of(config: Path, weights: Path, device: str) -> float:
    """Median time to encode a frame and step one object, with all of the machine's cores."""
    subset = next(subset for subset in SUBSETS if subset.objects == 1)
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        predictor = build_predictor(config, weights, device)
        for number in range(2):
            tracked(predictor, subset.draw(number), "mask", Path(folder), seconds)
    return 1000 * statistics.median(seconds)


def lines_of(subset: str, tallies: dict[str, Tally]) -> Iterator[str]:
    for name, tally in tallies.items():
        j, f = statistics.fmean(tally.j), statistics.fmean(tally.f)
        yield (
            f"{subset:10s} {name:20s} {j:6.3f} {f:6.3f} {tally.j_and_f:6.3f} "
            f"{share(tally.found):>16s} {share(tally.shown_while_hidden):>16s}"
        )


def print_rest(scores: Scores) -> None:
    """Clicks, corrections and the clips on which repeating the first mask is better."""
    for count, values in scores.clicks.items():
        print(
            f"IoU after {count} click{'s' * (count > 1)} in frame 0: {statistics.fmean(values):.3f}"
        )
    for count in CORRECTIONS if scores.joined[CORRECTIONS[0]] else ():
        joined, anew = (statistics.fmean(s[count]) for s in (scores.joined, scores.anew))
        print(f"J after {count} correction{'s' * (count > 1)}: joined {joined:.3f}, started anew "
              f"{anew:.3f}")  # fmt: skip
    worse = sum(difference < 0 for difference in scores.clips)
    print(
        f"clips on which the first mask repeated has a higher J&F: {worse} of {len(scores.clips)}"
    )


def run_set(
    title: str, subsets: Sequence[Subset | SemiRealSubset], arguments: argparse.Namespace,
    corrections: bool,
) -> tuple[dict[str, Scores], Scores]:  # fmt: skip
    """Print the table of a set; give the scores by subset and together."""
    print(f"{title}, {parameters_hash(subsets)}")
    print(f"{'subset':10s} {'method':20s} {'J':>6s} {'F':>6s} {'J&F':>6s} {'found again':>16s} "
          f"{'shown if hidden':>16s}")  # fmt: skip
    by_subset: dict[str, Scores] = {}
    processes = arguments.processes or (1 if arguments.device == "cuda" else os.cpu_count() or 1)
    # For the processes of the pool; this one has read it already.
    os.environ["OMP_NUM_THREADS"] = "1"
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        for subset in subsets:
            jobs = [
                Job(arguments.config, arguments.weights, arguments.device, subset, number,
                    corrections)
                for number in range(min(subset.clips, arguments.clips or subset.clips))
            ]  # fmt: skip
            by_subset[subset.name] = Scores.merged(list(pool.map(scores_of, jobs)))
            for line in lines_of(subset.name, by_subset[subset.name].tallies):
                print(line, flush=True)
    whole = Scores.merged(list(by_subset.values()))
    for line in lines_of("all", whole.tallies):
        print(line)
    print_rest(whole)
    print(f"pixels and masks of the clips {hashlib.sha256(whole.digest).hexdigest()[:16]}\n",
          flush=True)  # fmt: skip
    return by_subset, whole


@dataclass(frozen=True)
class Goal:
    text: str
    value: float
    reached: bool


def at_least(text: str, value: float, limit: float) -> Goal:
    return Goal(f"{text}, at least {limit:.2f}", value, value >= limit)


def at_most(text: str, value: float, limit: float) -> Goal:
    return Goal(f"{text}, at most {limit:.2f}", value, value <= limit)


def goals_of(
    by_subset: dict[str, Scores], whole: Scores, covered: Scores, milliseconds: float
) -> list[Goal]:
    """For the drawn set, frozen since the first training, and the covered one."""
    ours = whole.tallies["mask prompt"].j_and_f
    baseline = max(whole.tallies[name].j_and_f for name in METHODS[2:])
    apart = ours - whole.tallies["box prompt"].j_and_f
    found = by_subset["occlusion"].tallies["mask prompt"].found
    shown = whole.tallies["mask prompt"].shown_while_hidden
    behind = covered.tallies["mask prompt"].shown_while_hidden
    gains = [
        statistics.fmean(whole.joined[count]) - statistics.fmean(whole.anew[count])
        for count in CORRECTIONS
    ]
    return [
        at_least("drawn J&F with mask prompts", ours, 0.83),
        at_most("better baseline's drawn J&F", baseline, 0.55),
        at_most("drawn J&F that box prompts lose", apart, 0.05),
        at_least(f"found again after {HIDDEN_RUN} hidden frames", sum(found) / len(found), 0.80),
        at_most("mask shown in a fully hidden frame", sum(shown) / len(shown), 0.05),
        at_most("mask shown behind a plain cover", sum(behind) / len(behind), 0.05),
        at_least("drawn IoU after 1 click", statistics.fmean(whole.clicks[1]), 0.70),
        at_least("drawn IoU after 3 clicks", statistics.fmean(whole.clicks[3]), 0.80),
        Goal("least gain in J of joined corrections, above 0", min(gains), min(gains) > 0),
        at_most("ms to encode a frame and step one object", milliseconds, 60),
    ]


def run_real_clip(clip: RealClip, predictor: SAM2VideoPredictor) -> None:
    """Print J and F on the annotated frames after the first, and IoU after clicks."""
    whole = Clip(clip.frames, np.stack([clip.masks[0]] * len(clip.frames)))
    with tempfile.TemporaryDirectory() as name:
        answers = {
            "mask prompt": tracked(predictor, whole, "mask", Path(name), []),
            "box prompt": tracked(predictor, whole, "box", Path(name), []),
            "first mask repeated": repeat_first(clip.frames, clip.masks[0]),
            "first mask by flow": carry_by_flow(clip.frames, clip.masks[0]),
        }
        reached = clicked(predictor, whole, max(CLICKS), Path(name))
    judged = {t: truth for t, truth in clip.masks.items() if t > 0}
    print(f"{clip.name}: {len(clip.frames)} frames, {clip.masks[0].shape[0]} objects, masks on "
          f"{len(judged)} frames after the first")  # fmt: skip

    def mean(measure: Callable[[np.ndarray, np.ndarray], float], masks: np.ndarray) -> float:
        return statistics.fmean(
            measure(masks[t, i], truth[i]) for t, truth in judged.items() for i in range(len(truth))
        )

    for method, masks in answers.items():
        j, f = mean(jaccard, masks), mean(boundary_f, masks)
        print(f"{'':10s} {method:20s} {j:6.3f} {f:6.3f} {(j + f) / 2:6.3f}")
    for count in CLICKS:
        value = statistics.fmean(scores[count - 1] for scores in reached)
        print(f"{'':10s} IoU after {count} click{'s' * (count > 1)}: {value:.3f}", flush=True)


def main() -> int:
    """Returns 1 where a goal is missed, or where the sets of --only could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--weights", type=weights_file, default=WEIGHTS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--processes", type=int, help="default: 1 with CUDA, else one per core")
    parser.add_argument(
        "--clips", type=int, help="only the first clips of each subset: a quick look"
    )
    parser.add_argument(
        "--clip", type=Path, action="append", metavar="FOLDER",
        help="measure this clip and not the sets: JPEGImages/*.jpg, Annotations/*.png with object "
        "numbers, for two frames or more (may be repeated)",
    )  # fmt: skip
    parser.add_argument("--only", choices=("drawn", "semi-real"), help="only these sets; no goals")
    arguments = parser.parse_args()
    print(f"weights {digest_of(arguments.weights)[:16]}")
    if arguments.clip:
        silence_bars()
        predictor = build_predictor(arguments.config, arguments.weights, arguments.device)
        for folder in arguments.clip:
            try:
                clip = read_real_clip(folder)
            except NoClipError as error:
                raise SystemExit(str(error)) from error
            run_real_clip(clip, predictor)
        return 0
    check_frozen(None)
    if arguments.only != "drawn":
        try:
            pictures.fetch()
            check_frozen()
        except (pictures.NoPicturesError, ValueError) as error:
            print(f"NOT MEASURED: the semi-real set and parts of things. {error}\n")
            if arguments.only:  # nothing else was asked for
                return 1
        else:
            run_set("semi-real set", SEMI_REAL_SUBSETS, arguments, corrections=False)
            run_set("parts of things", PARTS_SUBSETS, arguments, corrections=False)
    if arguments.only == "semi-real":
        return 0
    _, covered = run_set("drawn set with plain covers", COVERED_SUBSETS, arguments, False)
    by_subset, whole = run_set("drawn set", SUBSETS, arguments, corrections=not arguments.only)
    if arguments.only:
        return 0
    silence_bars()
    milliseconds = milliseconds_of(arguments.config, arguments.weights, arguments.device)
    goals = goals_of(by_subset, whole, covered, milliseconds)
    for goal in goals:
        print(f"{'reached' if goal.reached else 'MISSED':8s} {goal.text}: {goal.value:.3f}")
    return 0 if all(goal.reached for goal in goals) else 1


if __name__ == "__main__":
    raise SystemExit(main())
