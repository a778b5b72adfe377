# SPDX-License-Identifier: MIT
"""Where the benchmarks with options of their own write their numbers."""

import argparse
import json
from pathlib import Path
from typing import Any


def add_out(parser: argparse.ArgumentParser, name: str) -> None:
    """name: of the file in benchmarks/results/ that is written without this option."""
    parser.add_argument(
        "--out", type=Path, help=f"JSON file; default: {name} in benchmarks/results/"
    )


def write_json(path: Path, content: Any) -> None:
    """Makes the folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
