# SPDX-License-Identifier: MIT
"""Set what a training leaves too timid: `python -m training.calibrate`.

Two numbers that trained weights get afterwards. Without options this prints what several values of
each do, on clips that belong neither to the training nor to the evaluation; with `--shift` and
`--sharpen` it stores the chosen ones.

shift     is added to the last bias of the score that says whether an object is visible. A training
          sees few hidden frames, so that score is too high.
sharpen   multiplies the logits of the single mask, which answers boxes and several clicks. The mask
          stays the same. But SAM 2 takes it only if few of its logits lie near 0, and many of a
          small model's do (`dynamic_multimask_via_stability`). Otherwise it takes one of the three
          other masks, which are worse after several clicks. A frame without a prompt is always
          answered with one of those three.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from training.clips import Clip, draw_clip
from training.dataset import FIRST_SEED, SIDE
from training.model import CONFIG, WEIGHTS, build_predictor, load_weights, save_weights
from training.predict import clicked, silence_bars, tracked
from training.tally import Tally, merged, share

VISIBILITY = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
SINGLE_MASK = "sam_mask_decoder.output_hypernetworks_mlps.0.layers.2"
SHIFTS = (0.0, -0.8, -1.2, -1.6)
FACTORS = (1.0, 3.0, 10.0, 30.0)
CLICKS = 3
FIRST_CALIBRATION_SEED = 3 * FIRST_SEED


def calibrated(
    weights: dict[str, torch.Tensor], shift: float, factor: float
) -> dict[str, torch.Tensor]:
    """A copy of the weights, with both numbers carried out; shift 0 and factor 1 change nothing."""
    changed = {name: weights[f"{SINGLE_MASK}.{name}"] * factor for name in ("weight", "bias")}
    return {
        **weights,
        VISIBILITY: weights[VISIBILITY] + shift,
        **{f"{SINGLE_MASK}.{name}": tensor for name, tensor in changed.items()},
    }


def clip_of(number: int) -> Clip:
    return draw_clip(
        FIRST_CALIBRATION_SEED + number,
        frames=24,
        width=SIDE,
        height=SIDE,
        objects=2,
        hidden=6,
        motion=0.8,
    )


def tally_of(weights: Path, shift: float, number: int) -> Tally:
    """What tracking scores on one clip."""
    torch.set_num_threads(1)
    silence_bars()
    clip, predictor = clip_of(number), build_predictor(CONFIG, None)
    predictor.load_state_dict(calibrated(load_weights(weights), shift, 1.0))
    with tempfile.TemporaryDirectory() as folder:
        masks = tracked(predictor, clip, "mask", Path(folder), [])
    tally = Tally()
    for index in range(clip.masks.shape[1]):
        tally.add(masks[:, index], clip.masks[:, index])
    return tally


def ious_of(weights: Path, factor: float, number: int) -> list[list[float]]:
    """IoU after 1, 2 and 3 clicks in the first frame of one clip, for every object."""
    torch.set_num_threads(1)
    silence_bars()
    predictor = build_predictor(CONFIG, None)
    predictor.load_state_dict(calibrated(load_weights(weights), 0.0, factor))
    with tempfile.TemporaryDirectory() as folder:
        return clicked(predictor, clip_of(number), CLICKS, Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--clips", type=int, default=30)
    parser.add_argument("--shift", type=float, default=0.0, help="store this one")
    parser.add_argument("--sharpen", type=float, default=1.0, metavar="FACTOR", help="likewise")
    arguments = parser.parse_args()
    if arguments.sharpen <= 0 or arguments.clips < 1:
        parser.error("--sharpen and --clips have to be above 0")
    if (arguments.shift, arguments.sharpen) != (0.0, 1.0):
        stored = load_weights(arguments.weights)
        stored = calibrated(stored, arguments.shift, arguments.sharpen)
        save_weights(stored, arguments.weights)
        return
    count = arguments.clips
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
        for shift in SHIFTS:
            jobs = [arguments.weights] * count, [shift] * count, range(count)
            tally = merged(list(pool.map(tally_of, *jobs)))
            print(
                f"shift {shift:5.2f}: J {statistics.fmean(tally.j):.3f}, found again "
                f"{share(tally.found)}, shown if hidden {share(tally.shown_while_hidden)}",
                flush=True,
            )
        for factor in FACTORS:
            jobs = [arguments.weights] * count, [factor] * count, range(count)
            objects = [ious for clip in pool.map(ious_of, *jobs) for ious in clip]
            means = [statistics.fmean(each) for each in zip(*objects, strict=True)]
            print(
                f"sharpen {factor:4.1f}: IoU after 1, 2 and 3 clicks "
                + ", ".join(f"{mean:.3f}" for mean in means),
                flush=True,
            )


if __name__ == "__main__":
    main()
