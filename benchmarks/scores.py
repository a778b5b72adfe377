# SPDX-License-Identifier: MIT
"""Which cheap signal tells frames that went wrong from the others: AUROC by signal and set.

    python -m benchmarks scores
    python -m benchmarks scores --clip FOLDER         a real clip with masks as well

A frame went wrong where J is below 0.7; frames count on which the object is visible or is shown.
The function's default policy tracks with the bundled model, from a mask on the first frame. `drawn
anew` are clips of other seeds and textures than the evaluation set: a formula is chosen on them and
reported on the rest. FOLDER has JPEGImages and Annotations, one PNG per frame. The table goes to
benchmarks/results/scores.json and .md.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import rankdata

from benchmarks.origin import origin_of
from benchmarks.out import add_out, write_json
from benchmarks.report import table
from benchmarks.session import read_clip
from model_handler import ModelHandler
from sam2_tracker.mask_logits import stability
from sam2_tracker.memory_bank import start_bank
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.memory_policy import remember
from sam2_tracker.passes import Passes
from sam2_tracker.predictions import Result, prediction_of
from sam2_tracker.settings import MIB, Settings
from tools.sam2_models import micro_files
from training.clips import Clip
from training.evaluation_set import SUBSETS
from training.metrics import jaccard

RESULTS = Path(__file__).resolve().parent / "results"
WRONG_BELOW = 0.7
FIRST_SEED = 5000
"""Of the clips that are drawn anew; the evaluation set ends below 1000, training begins above."""
LAST_FRAMES = 5
"""The stability score is the IoU of the masks cut at this logit above and below 0."""
RESAMPLES = 200

Row = dict[str, Any]


class Listening(Passes):
    """Keeps what the mask decoder said last."""

    heads: Any = None

    def _results(self, heads: Any, *arguments: Any, **options: Any) -> list[Result]:
        self.heads = heads
        return super()._results(heads, *arguments, **options)


class Watched(ModelHandler):
    passes: Listening

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.passes = Listening(
            self.network, self.layout, device=self.device, fill_hole_area=self.fill_hole_area
        )


def signals_of(heads: Any, score: float, areas: Sequence[float], last: torch.Tensor | None) -> Row:
    """heads: of one object. areas, last: of the frames before on which it was visible."""
    logits, ious = heads.logits[0, 0].float(), heads.ious[0]
    mask = logits > 0
    area = float(mask.sum())
    found = {
        "score": score,
        "object_score": float(heads.object_scores[0, 0].sigmoid()),
        "predicted_iou": float(ious.max()),
        "stability": stability(logits),
    }
    candidates = heads.candidates[0] > 0
    best = int(ious.argmax())
    overlaps = [
        _iou(candidates[best], each) for number, each in enumerate(candidates) if number != best
    ]
    # With the candidate that is most like the chosen one.
    found["agreement"] = max(overlaps, default=1.0)
    usual = statistics.median(areas[-LAST_FRAMES:]) if areas else area
    found["area"] = _smaller_over_larger(area, usual)
    found["overlap"] = _iou(mask, last) if last is not None else 1.0
    return found


def follow(model: Watched, clip: Clip) -> list[Row]:
    """One row of signals, with J, for every object and frame that counts."""
    _, count, height, width = clip.masks.shape
    rows: list[Row] = []
    frame = model.encode(Image.fromarray(clip.frames[0]))
    started = model.start(frame, list(clip.masks[0]), width=width, height=height)
    banks = [start_bank(Settings().memory_policy, prediction_of(each).seen) for each in started]
    areas = [[float(prediction_of(each).seen.area)] for each in started]
    last: list[Any] = [prediction_of(each).logits > 0 for each in started]
    for number in range(1, len(clip.frames)):
        frame = model.encode(Image.fromarray(clip.frames[number]))
        for index in range(count):  # one by one, so that the heads are those of this object
            each = prediction_of(model.step(frame, [banks[index]])[0])
            (bitmap,) = model.logits_to_bitmaps([each.logits], width=width, height=height)
            truth = clip.masks[number, index]
            row = signals_of(model.passes.heads, each.score, areas[index], last[index])
            if each.seen.area:
                areas[index].append(float(each.seen.area))
                last[index] = each.logits > 0
            if truth.any() or bitmap.any():
                rows.append({**row, "j": float(jaccard(bitmap, truth))})
            banks[index] = remember(banks[index], each.seen, model.layout)
    return rows


def auroc(values: Sequence[float], wrong: Sequence[bool]) -> float:
    """The chance that a frame that went wrong has a lower value than one that did not."""
    ranks: NDArray[np.float64] = rankdata(values)
    bad = np.asarray(wrong)
    good = int((~bad).sum())
    if good in (0, len(bad)):
        return float("nan")
    above = ranks[~bad].sum() - good * (good + 1) / 2
    return float(above / (good * bad.sum()))


def clips(share: float, real: Path | None) -> Iterator[tuple[str, Clip]]:
    """(set, clip)"""
    filmed = read_clip(real) if real else None  # a folder that is no clip is told before the work
    for subset in SUBSETS:
        for number in range(max(1, round(share * subset.clips))):
            anew = replace(subset, first_seed=FIRST_SEED + subset.first_seed)
            yield "drawn anew", anew.draw(number, "training")
    for subset in SUBSETS:
        for number in range(max(1, round(share * subset.clips))):
            yield "evaluation", subset.draw(number)
    if real and filmed:
        yield real.name, filmed


FORMULAS: dict[str, Callable[[Row], float]] = {
    "the answer's score": lambda row: row["score"],
    "object score": lambda row: row["object_score"],
    "predicted IoU": lambda row: row["predicted_iou"],
    "stability score": lambda row: row["stability"],
    "agreement of the candidates": lambda row: row["agreement"],
    "area beside the last": lambda row: row["area"],
    "overlap with the last mask": lambda row: row["overlap"],
    "score x stability": lambda row: row["score"] * row["stability"],
    "score x agreement": lambda row: row["score"] * row["agreement"],
    "score x stability x agreement": lambda row: row["score"] * row["stability"] * row["agreement"],
    "score x area": lambda row: row["score"] * row["area"],
}


def judge(clips_of_set: Sequence[Sequence[Row]]) -> Row:
    """AUROC by formula; by a bootstrap over clips, its difference from the score's AUROC."""
    rows = [row for clip in clips_of_set for row in clip]
    wrong = [row["j"] < WRONG_BELOW for row in rows]
    found: Row = {"clips": len(clips_of_set), "frames": len(rows), "wrong": sum(wrong)}
    chance = np.random.default_rng(0)
    draws = [chance.integers(len(clips_of_set), size=len(clips_of_set)) for _ in range(RESAMPLES)]
    first = next(iter(FORMULAS.values()))
    found["formulas"] = {}
    for name, formula in FORMULAS.items():
        more = []
        for draw in draws if len(clips_of_set) > 1 else []:
            sample = [row for index in draw for row in clips_of_set[index]]
            bad = [row["j"] < WRONG_BELOW for row in sample]
            if 0 < sum(bad) < len(bad):
                values = (auroc([f(row) for row in sample], bad) for f in (formula, first))
                more.append(next(values) - next(values))
        found["formulas"][name] = {
            "auroc": auroc([formula(row) for row in rows], wrong),
            "more": np.percentile(more, (2.5, 97.5)).tolist() if more else None,
        }
    return found


def report(results: Row) -> str:
    sets = results["sets"]
    rows = []
    for name in FORMULAS:
        row = [name]
        for each in sets.values():
            found = each["formulas"][name]
            low_high = found["more"]
            text = f"{found['auroc']:.3f}"
            if low_high and name != next(iter(FORMULAS)):
                text += f" ({low_high[0]:+.3f} to {low_high[1]:+.3f})"
            row.append(text)
        rows.append(row)
    heads = [
        f"{name} ({each['clips']} clips, {each['wrong']} of {each['frames']} wrong)"
        for name, each in sets.items()
    ]
    origin = results["origin"]
    lines = [
        f"AUROC; in brackets its difference from the score's, 95 % interval over clips. "
        f"{origin['date']}, commit {origin['commit']}, weights {origin['weights_digest']}, "
        f"`{origin['command']}`.",
        "",
        *table(["", *heads], rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--clip", type=Path, help="a real clip with masks")
    parser.add_argument("--share", type=float, default=1 / 3, help="of each set's clips")
    add_out(parser, "scores.json")
    options = parser.parse_args()
    model = Watched(micro_files(), cache=MemoryCache(256 * MIB))
    sets: dict[str, list[list[Row]]] = {}
    for number, (name, clip) in enumerate(clips(options.share, options.clip)):
        sets.setdefault(name, []).append(follow(model, clip))
        print(f"{number} ", end="", flush=True, file=sys.stderr)
    origin = origin_of("scores", *sys.argv[1:])
    results = {"origin": origin, "sets": {name: judge(each) for name, each in sets.items()}}
    out = options.out or RESULTS / "scores.json"
    write_json(out, results)
    out.with_suffix(".md").write_text(report(results))
    print("\n" + report(results))
    return 0


def _iou(one: Any, other: Any) -> float:
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


def _smaller_over_larger(one: float, other: float) -> float:
    return min(one, other) / max(one, other) if one and other else 0.0


if __name__ == "__main__":
    sys.exit(main())
