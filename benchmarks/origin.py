# SPDX-License-Identifier: MIT
"""Where a number comes from: command, date, commit, digest of the bundled weights.

The other models are measured with random weights, which are always the same.
"""

import datetime
import shlex
import subprocess
from pathlib import Path

from sam2_tracker.models import model_files
from sam2_tracker.settings import Settings

BUNDLED = "sam2.1_hiera_micro"
ROOT = Path(__file__).resolve().parents[1]


def origin_of(*words: str) -> dict[str, str]:
    """words: the command, after `python -m benchmarks`."""
    return {
        "command": shlex.join(["python", "-m", "benchmarks", *words]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "weights_digest": model_files(Settings(model=BUNDLED)).sha256[:12],
    }


def commit() -> str:
    """Of the checkout, with a + where files differ from it; "unknown" outside of git."""

    def git(*arguments: str) -> str:
        return subprocess.run(  # noqa: S603
            ["git",  # noqa: S607
             "-C", str(ROOT), *arguments],
            capture_output=True, text=True, check=True, timeout=30,
        ).stdout.strip()  # fmt: skip

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
