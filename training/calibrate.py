# SPDX-License-Identifier: MIT
"""Set the threshold of visibility: `python -m training.calibrate`.

A training sees few hidden frames, so the score that says "not visible" comes out too timid. Adding
a constant to that score's last bias moves the threshold; this prints what several constants do on
clips that belong neither to the training nor to the evaluation, and `--apply` stores one.
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

from training.clips import draw_clip
from training.dataset import FIRST_SEED, SIDE
from training.model import WEIGHTS, build_predictor, load_weights, save_weights, weights_file
from training.predict import silence_bars, tracked
from training.tally import Tally, merged, share

BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
SHIFTS = (0.0, -0.8, -1.2, -1.6)
FIRST_CALIBRATION_SEED = 3 * FIRST_SEED


def tally_of(weights: Path, shift: float, number: int) -> Tally:
    torch.set_num_threads(1)
    silence_bars()
    predictor = build_predictor(weights=weights)
    with torch.no_grad():
        predictor.get_parameter(BIAS).add_(shift)
    clip = draw_clip(
        FIRST_CALIBRATION_SEED + number,
        frames=24,
        width=SIDE,
        height=SIDE,
        objects=2,
        hidden=6,
        motion=0.8,
    )
    with tempfile.TemporaryDirectory() as folder:
        masks = tracked(predictor, clip, "mask", Path(folder), [])
    tally = Tally()
    for index in range(clip.masks.shape[1]):
        tally.add(masks[:, index], clip.masks[:, index])
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=weights_file, help=f"default: {WEIGHTS}")
    parser.add_argument("--clips", type=int, default=9)
    parser.add_argument(
        "--apply", type=float, metavar="SHIFT", help="store this shift in --weights"
    )
    arguments = parser.parse_args()
    if arguments.apply is not None:
        if arguments.weights is None:
            parser.error("--apply changes a file: name it with --weights")
        stored = load_weights(arguments.weights)
        stored[BIAS] = stored[BIAS] + arguments.apply
        save_weights(stored, arguments.weights)
        return
    weights = arguments.weights or WEIGHTS
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
        for shift in SHIFTS:
            count = arguments.clips
            jobs = [weights] * count, [shift] * count, range(count)
            tally = merged(list(pool.map(tally_of, *jobs)))
            print(
                f"shift {shift:5.2f}: J {statistics.fmean(tally.j):.3f}, found again "
                f"{share(tally.found)}, shown if hidden {share(tally.shown_while_hidden)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
