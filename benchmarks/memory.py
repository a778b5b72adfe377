# SPDX-License-Identifier: MIT
"""The memory policies side by side: J&F, found again, shown while hidden.

    python -m benchmarks memory                       the drawn sets
    python -m benchmarks memory --clip FOLDER         a real clip with masks as well

With the bundled model, mask prompts on the first frame, and the function's own code. Results are
kept by clip in out/memory.jsonl as they come, so that a run that was cut goes on; the table goes to
benchmarks/results/memory.json. FOLDER has JPEGImages and Annotations, one PNG per frame.
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
from numpy.typing import NDArray

from benchmarks.origin import commit
from benchmarks.out import add_out, write_json
from benchmarks.session import Session, read_clip
from benchmarks.summary import mean_interval
from model_handler import ModelHandler
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.memory_policy import POLICIES
from sam2_tracker.settings import MIB
from tools.sam2_models import micro_files
from training.clips import Clip
from training.evaluation_set import SUBSETS, Subset, parameters_hash
from training.model import WEIGHTS, digest_of
from training.tally import Tally, merged

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "memory.json"
# Hidden for 12 of 48 frames, with a look-alike. Fixed before any policy was tried on it.
LOOK_ALIKE = Subset("look-alike", 700, 12, 1, 12, 1, False, 1, 0.8, frames=48)
LOOK_ALIKE_HASH = "1da584a10b053b71"


def clips(real: Path | None) -> Iterator[tuple[str, str, Clip]]:
    """(set, name, clip), each set after the other."""
    filmed = read_clip(real) if real else None  # a folder that is no clip is told before the work
    for subset in (*SUBSETS, LOOK_ALIKE):
        for number in range(subset.clips):
            yield subset.name, f"{subset.name} {number}", subset.draw(number)
    if real and filmed:
        yield real.name, real.name, filmed


def judge(model: ModelHandler, clip: Clip, policy: str) -> dict[str, Any]:
    """What one policy scores on one clip, every object by itself."""
    session = Session(model, clip.frames, policy)
    tally = Tally()
    for truth in np.moveaxis(clip.masks, 1, 0):
        found = session.anew({0: truth[0]})
        masks: NDArray[np.bool_] = np.stack([found.masks[frame] for frame in range(len(truth))])
        tally.add(masks, truth)
    return vars(tally)


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per set and policy."""
    lines = []
    for name in dict.fromkeys(row["set"] for row in rows):
        for policy in POLICIES:
            mine = [row["tally"] for row in rows if (row["set"], row["policy"]) == (name, policy)]
            if not mine:
                continue
            tally = merged([Tally(**each) for each in mine])
            lines.append(
                {
                    "set": name,
                    "policy": policy,
                    "clips": len(mine),
                    "j": statistics.fmean(tally.j),
                    "j_and_f": tally.j_and_f,
                    "gain": None if policy == "official" else gain(rows, name, policy),
                    "found_again": [sum(tally.found), len(tally.found)],
                    "shown_while_hidden": [
                        sum(tally.shown_while_hidden),
                        len(tally.shown_while_hidden),
                    ],
                }
            )
    return lines


def gain(rows: list[dict[str, Any]], set_: str, policy: str) -> list[float] | None:
    """What J&F gains over `official`, clip by clip: the mean and its interval over the clips.

    None for a single clip.
    """
    by_clip: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["set"] == set_:
            by_clip.setdefault(row["name"], {})[row["policy"]] = Tally(**row["tally"]).j_and_f
    gains = [each[policy] - each["official"] for each in by_clip.values()]
    return list(mean_interval(gains)) if len(gains) > 1 else None


def show(lines: list[dict[str, Any]]) -> None:
    print(
        f"{'set':<12}{'policy':<10}{'J':>7}{'J&F':>7}{'found again':>14}{'shown if hidden':>18}"
        "  clip by clip, J&F over official (95 % interval)"
    )
    for line in lines:
        found, shown = ("{} of {}".format(*line[k]) for k in ("found_again", "shown_while_hidden"))
        print(
            f"{line['set']:<12}{line['policy']:<10}{line['j']:>7.3f}{line['j_and_f']:>7.3f}"
            f"{found:>14}{shown:>18}"
            + ("  {:+.3f} ({:+.3f} to {:+.3f})".format(*line["gain"]) if line["gain"] else "")
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--clip", type=Path, help="a real clip with masks")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    add_out(parser, "memory.json")
    options = parser.parse_args()
    if parameters_hash([LOOK_ALIKE]) != LOOK_ALIKE_HASH:
        parser.error("the look-alike set is not the frozen one")
    torch.set_num_threads(1)
    model = ModelHandler(
        micro_files(),
        precision=options.precision,
        cache=MemoryCache(256 * MIB),
    )
    about = {
        "weights": digest_of(WEIGHTS),
        "commit": commit(),
        "precision": model.precision,
        "sets": [parameters_hash(), LOOK_ALIKE_HASH],
    }
    log = ROOT / "out" / "memory.jsonl"
    log.parent.mkdir(exist_ok=True)
    known = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    rows = [row for row in known if row["about"] == about]
    done = {(row["name"], row["policy"]) for row in rows}
    with log.open("a") as file:
        for set_, name, clip in clips(options.clip):
            for policy in POLICIES:
                if (name, policy) in done:
                    continue
                row = {"about": about, "set": set_, "name": name, "policy": policy}
                row["tally"] = judge(model, clip, policy)
                rows.append(row)
                file.write(json.dumps(row) + "\n")
                file.flush()
            print(f"{name} ", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    lines = table(rows)
    write_json(options.out or RESULTS, {**about, "rows": lines})
    print(f"weights {about['weights']}, {about['precision']}")
    show(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
