# SPDX-License-Identifier: MIT
"""Small objects: on the whole image, and each in a search region.

    python -m benchmarks small                        clips of the drawn evaluation set
    python -m benchmarks small --clip FOLDER          a real clip with masks instead

Each clip is shown as it is, and as a half and as a quarter of an image that is grey beside it. An
object is tracked from its mask on frame 0, by the default policy, without corrections. J&F and how
many of the objects' frames have a mask with an IoU of 0.5 or more go to
benchmarks/results/small.json, by set.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.effort import CLIPS_PER_SUBSET
from benchmarks.out import add_out, write_json
from benchmarks.session import Session, read_clip
from model_handler import ModelHandler
from sam2_tracker.settings import Settings
from tools.sam2_models import micro_files
from training.clips import Clip
from training.evaluation_set import SUBSETS, parameters_hash
from training.metrics import jaccard
from training.model import WEIGHTS, digest_of
from training.tally import Tally

RESULTS = Path(__file__).resolve().parent / "results" / "small.json"
FOUND_IOU = 0.5
GREY = 128
SHOWN_AT = (1, 2, 4)
"""The image is so many times as wide and high as the clip."""
SEARCH_REGIONS = (0, 2, 3, 4)


def surrounded(clip: Clip, times: int) -> Clip:
    """The clip in the middle of an image that is `times` as wide and high."""
    height, width = clip.frames.shape[1:3]
    rows, columns = (((times - 1) * side // 2,) * 2 for side in (height, width))
    around = ((0, 0), rows, columns)
    return Clip(
        np.pad(clip.frames, (*around, (0, 0)), constant_values=GREY),
        np.pad(clip.masks, ((0, 0), *around)),
    )


def clips(real: Path | None) -> Iterator[Clip]:
    if real is not None:
        yield read_clip(real)
        return
    for subset in SUBSETS:
        for number in range(CLIPS_PER_SUBSET):
            yield subset.draw(number)


def row(model: ModelHandler, chosen: list[Clip], times: int, size: float) -> dict[str, Any]:
    tally, found = Tally(), []
    for clip in chosen:
        shown = surrounded(clip, times)
        session = Session(model, shown.frames, Settings().memory_policy, size)
        for number in range(shown.masks.shape[1]):
            truth = shown.masks[:, number]
            masks = session.joined({0: truth[0]}).masks
            tracked = np.stack([masks[frame] for frame in range(session.count)])
            tally.add(tracked, truth)
            found += [
                jaccard(mask, wanted) >= FOUND_IOU
                for mask, wanted in zip(tracked[1:], truth[1:], strict=True)
                if wanted.any()
            ]
    return {
        "shown_at": times,
        "search_region": size,
        "objects": len(tally.j),
        "j_and_f": tally.j_and_f,
        "found": statistics.fmean(found),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--clip", type=Path, help="a real clip with masks")
    add_out(parser, "small.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = ModelHandler(
        micro_files(),
        conditioning_frames=Settings().conditioning_frames,
    )
    chosen = list(clips(options.clip))
    cases = [(times, size) for times in SHOWN_AT for size in SEARCH_REGIONS]
    rows = [row(model, chosen, *case) for case in tqdm(cases, mininterval=10)]
    about = {
        "weights": digest_of(WEIGHTS),
        "precision": model.precision,
        "evaluation_set": parameters_hash(),
        "rows": rows,
    }
    key = options.clip.name if options.clip else "drawn"
    out = options.out or RESULTS
    known = json.loads(out.read_text()) if out.exists() else {}
    write_json(out, {**known, key: about})
    print(f"{key}; weights {about['weights']}, {model.precision}")
    print("J&F; share of the frames on which the object was found")
    for each in rows:
        print(
            f"1/{each['shown_at']} of the image, search region {each['search_region']}: "
            f"{each['j_and_f']:.3f}; {each['found']:.0%}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
