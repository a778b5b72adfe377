# SPDX-License-Identifier: MIT
"""Store the running average of a training's checkpoint: `python -m training.export`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from training.dataset import FOLDER
from training.model import WEIGHTS, save_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=FOLDER / "checkpoint.pt")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    kept = torch.load(arguments.checkpoint, map_location="cpu", weights_only=True)
    save_weights(kept["average"], arguments.weights)
    print(f"{arguments.weights}: step {kept['step']}, {kept['progress']:.0%} of the schedule")


if __name__ == "__main__":
    main()
