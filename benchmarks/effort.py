# SPDX-License-Identifier: MIT
"""A person's effort: corrections until every frame is right.

    python -m benchmarks effort                       two clips of each drawn subset
    python -m benchmarks effort --clips 20            all of them
    python -m benchmarks effort --clip FOLDER         a real clip with masks instead
    python -m benchmarks effort --search-region 2     in a window of twice the object's size

A simulated person looks at the frame that the tool proposes, draws the true mask there if the IoU
is below 0.8, and runs again, until every frame holds or 10 corrections are spent. Four ways to use
the corrections are compared, and ways to propose the next frame:

    anew        each correction starts the object anew from its frame
    joined      corrections join the object's memory
    both ways   every gap between drawn frames is tracked from both ends, on all drawn frames
    carried     both ways, and the drawings are carried to the frames beside them by optical flow,
                where that is better: what the command line does with --both-ways

    eye         the first bad frame: a person who plays the clip from the start
    ahead       beyond it by as many frames as tracking held, but not beyond the middle of what is
                bad: tracking both ways fills the frames between
    score       the frame with the lowest score that was not looked at yet
    turn        the lowest score, or where the mask changes most from frame to frame

Frames on which the object is fully hidden are not judged. Intervals are a bootstrap of the objects,
with a confidence of 95 %. FOLDER has JPEGImages and Annotations,
one PNG per frame. Results go to benchmarks/results/effort.json, by set.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.out import add_out, write_json
from benchmarks.session import Found, Masks, Session, read_clip
from benchmarks.summary import share_interval
from model_handler import ModelHandler
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.settings import MIB, Settings
from sam2_tracker.shapes import Bitmap
from tools.sam2_models import micro_files
from training.evaluation_set import SUBSETS, parameters_hash
from training.metrics import jaccard
from training.model import WEIGHTS, digest_of

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "effort.json"
GOOD_IOU = 0.8
MOST_CORRECTIONS = 10
MOST_LOOKS = 40
CLIPS_PER_SUBSET = 2
TOLD_AFTER = (0, 1, 2, 4)
"""Corrections after which the mean J is reported."""

WAYS = ("anew", "joined", "both ways", "carried")
PROPOSALS = ("eye", "ahead", "score", "turn")


@dataclass
class Effort:
    """What one object took."""

    corrections: int
    looks: int
    frames: int
    finished: bool
    mean_j: list[float]
    """After 0, 1, 2, ... corrections."""


def track(session: Session, way: str, drawn: dict[int, Bitmap]) -> Found:
    ways: dict[str, Callable[[dict[int, Bitmap]], Found]] = {
        "anew": session.anew,
        "joined": session.joined,
        "both ways": session.both_ways,
        "carried": session.carried,
    }
    return ways[way](drawn)


def propose(
    proposal: str, found: Found, truth: Masks, looked: set[int], drawn: Mapping[int, Bitmap]
) -> int | None:
    """The frame to look at next, or None if every frame was looked at."""
    visible = [f for f in range(len(truth)) if truth[f].any()]
    if proposal in ("eye", "ahead"):
        bad = [f for f in visible if jaccard(found.masks[f], truth[f]) < GOOD_IOU]
        if not bad:
            return None
        return bad[0] if proposal == "eye" else _ahead(bad, drawn)
    left = [f for f in visible if f not in looked]
    if not left:
        return None
    doubt = {f: 1 - found.scores[f] for f in left}
    if proposal == "turn":
        doubt = {f: max(doubt[f], _change(found, f)) for f in left}
    return max(left, key=lambda f: doubt[f])


def _ahead(bad: list[int], drawn: Mapping[int, Bitmap]) -> int:
    """bad: the wrong frames in order, at least one. Those behind the next drawn frame wait."""
    before = max(frame for frame in drawn if frame < bad[0])
    after = min((frame for frame in drawn if frame > bad[0]), default=bad[-1] + 1)
    stretch = [frame for frame in bad if frame < after]
    middle = stretch[len(stretch) // 2]
    held = bad[0] - before
    farthest = max(frame for frame in stretch if frame <= bad[0] + held)
    return min(middle, farthest)


def _change(found: Found, frame: int) -> float:
    """How much the mask differs from those of the frames beside it: 1 - IoU, the smaller one."""
    beside = [found.masks[f] for f in (frame - 1, frame + 1) if f in found.masks]
    return min((1 - jaccard(found.masks[frame], mask) for mask in beside), default=0.0)


def simulate(session: Session, truth: Masks, way: str, proposal: str) -> Effort:
    drawn = {0: truth[0]}
    found = track(session, way, drawn)
    judged = [f for f in range(1, len(truth)) if truth[f].any()]
    means, looked, looks = [_mean_j(found, truth, judged)], {0}, 0
    while len(drawn) <= MOST_CORRECTIONS and looks < MOST_LOOKS:
        frame = propose(proposal, found, truth, looked, drawn)
        if frame is None:
            break
        looks += 1
        looked.add(frame)
        if jaccard(found.masks[frame], truth[frame]) >= GOOD_IOU:
            continue
        drawn[frame] = truth[frame]
        looked = set(drawn)  # the other frames have new results
        found = track(session, way, drawn)
        means.append(_mean_j(found, truth, judged))
    return Effort(
        corrections=len(drawn) - 1,
        looks=looks,
        frames=len(judged),
        finished=all(jaccard(found.masks[f], truth[f]) >= GOOD_IOU for f in judged),
        mean_j=means,
    )


def _mean_j(found: Found, truth: Masks, judged: list[int]) -> float:
    return statistics.fmean(jaccard(found.masks[f], truth[f]) for f in judged)


def sessions(
    model: ModelHandler, policy: str, search_region: float, real: Path | None, clips: int
) -> Iterator[tuple[str, Session, list[Masks]]]:
    """(name, session, the true masks of each object), clip by clip.

    clips: at most so many of each drawn subset.
    """
    if real is not None:
        clip = read_clip(real)
        session = Session(model, clip.frames, policy, search_region)
        yield real.name, session, [clip.masks[:, 0]]
        return
    for subset in SUBSETS:
        for number in range(min(clips, subset.clips)):
            drawn = subset.draw(number)
            truths = [drawn.masks[:, index] for index in range(drawn.masks.shape[1])]
            session = Session(model, drawn.frames, policy, search_region)
            yield f"{subset.name} {number}", session, truths


def row(way: str, proposal: str, efforts: list[Effort]) -> dict[str, Any]:
    after = {
        # Who needs no more corrections keeps what was reached.
        str(count): statistics.fmean(e.mean_j[min(count, len(e.mean_j) - 1)] for e in efforts)
        for count in TOLD_AFTER
    }
    corrections = sum(e.corrections for e in efforts)
    return {
        "way": way,
        "proposal": proposal,
        "objects": len(efforts),
        "corrections_per_object": corrections / len(efforts),
        "corrections": [e.corrections for e in efforts],
        "corrections_per_100_frames": 100 * corrections / sum(e.frames for e in efforts),
        "looks_per_object": statistics.fmean(e.looks for e in efforts),
        "finished": sum(e.finished for e in efforts),
        "mean_j_after": after,
    }


def show(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'way':<11}{'proposal':<10}{'corrections':>12}{'per 100':>9}{'looks':>7}{'finished':>10}"
        + "".join(f"{'J after ' + str(n):>11}" for n in TOLD_AFTER)
    )
    for each in rows:
        print(
            f"{each['way']:<11}{each['proposal']:<10}{each['corrections_per_object']:>12.2f}"
            f"{each['corrections_per_100_frames']:>9.1f}{each['looks_per_object']:>7.1f}"
            f"{each['finished']:>7} /{each['objects']:>2}"
            + "".join(f"{value:>11.3f}" for value in each["mean_j_after"].values())
        )


def shares(
    rows: Sequence[Mapping[str, Any]], proposal: str
) -> dict[tuple[str, str], tuple[float, float, float]]:
    """The corrections of each row as a share of those of "anew" at this proposal, with an interval.

    Rows that do not say how many each object took are left out. There are no shares without a row
    of "anew", and none for a single object.
    """
    counts = {(row["way"], row["proposal"]): row.get("corrections") or [] for row in rows}
    base = counts.get(("anew", proposal), [])
    if len(base) < 2:
        return {}
    return {key: share_interval(ours, base) for key, ours in counts.items() if ours}


def show_shares(rows: Sequence[Mapping[str, Any]]) -> None:
    for proposal in PROPOSALS:
        for (way, by), (share, low, high) in shares(rows, proposal).items():
            if proposal in ("eye", by):  # the goal counts from the first bad frame
                within = f"{low:.2f} to {high:.2f}"
                if math.isnan(low):
                    within = "too few objects for an interval"
                print(f"{way:<11}{by:<10}{share:>12.2f} of anew, {proposal} ({within})")


def _beside(
    known: Mapping[str, Any], about: Mapping[str, Any], rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The new rows, and of those that were measured under the same conditions the others."""
    if {"search_region": 0, **known, "rows": None} != {**about, "rows": None}:
        return rows
    measured = {(row["way"], row["proposal"]): row for row in [*known["rows"], *rows]}
    order = [(way, proposal) for way in WAYS for proposal in PROPOSALS]
    return sorted(measured.values(), key=lambda row: order.index((row["way"], row["proposal"])))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--clip", type=Path, help="a real clip with masks")
    parser.add_argument(
        "--clips", type=int, default=CLIPS_PER_SUBSET, metavar="N",
        help="of each drawn subset (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--policy", default=Settings().memory_policy)
    parser.add_argument(
        "--conditioning-frames", type=int, default=Settings().conditioning_frames, metavar="N"
    )
    parser.add_argument(
        "--search-region", type=float, default=0, metavar="SIZES",
        help="look for the object in a window of so many times its size",
    )  # fmt: skip
    parser.add_argument("--proposal", action="append", choices=PROPOSALS, help="only this one")
    parser.add_argument(
        "--way", action="append", choices=WAYS,
        help="only this one; what was measured of the others with the same weights stays",
    )  # fmt: skip
    add_out(parser, "effort.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = ModelHandler(
        micro_files(),
        conditioning_frames=options.conditioning_frames,
        cache=MemoryCache(256 * MIB),
    )
    proposals = options.proposal or list(PROPOSALS)
    ways = options.way or list(WAYS)
    efforts: dict[tuple[str, str], list[Effort]] = {(w, p): [] for w in ways for p in proposals}
    size = options.search_region
    for name, session, truths in sessions(model, options.policy, size, options.clip, options.clips):
        for (way, proposal), done in efforts.items():
            done += [simulate(session, truth, way, proposal) for truth in truths]
        print(f"{name} ", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    rows = [row(way, proposal, done) for (way, proposal), done in efforts.items()]
    about = {
        "weights": digest_of(WEIGHTS),
        "precision": model.precision,
        "policy": options.policy,
        "conditioning_frames": options.conditioning_frames,
        "search_region": size,
        "evaluation_set": parameters_hash(),
    }
    key = options.clip.name if options.clip else "drawn"
    if not options.clip and options.clips != CLIPS_PER_SUBSET:
        key += f", {options.clips} clips"
    key += f", {options.policy}, {options.conditioning_frames} conditioning frames"
    key += f", search region {size:g}" if size else ""
    out = options.out or RESULTS
    known = json.loads(out.read_text()) if out.exists() else {}
    rows = _beside(known.get(key, {}), about, rows)
    write_json(out, {**known, key: {**about, "rows": rows}})
    print(f"{key}; weights {about['weights']}, {model.precision}")
    show(rows)
    show_shares(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
