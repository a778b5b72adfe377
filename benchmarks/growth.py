# SPDX-License-Identifier: MIT
"""Memory and time of the command line by the length of a job.

    python -m benchmarks growth                        1,000 to 10,000 frames, 50 objects
    python -m benchmarks growth --frames 500 1000 --objects 10

The command runs as a process of its own against a small stand-in for CVAT and its function
(growth_server.py), so no model is part of what is measured: 40 masks of 200 runs, 5 rectangles and
5 polygons that become tracks, of every 50 objects. The time is the processor time of the command,
so that a busy machine counts little. Writes benchmarks/results/growth.json, or --out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import peak_memory
from benchmarks.origin import origin_of
from benchmarks.out import add_out, write_json

RESULTS = Path(__file__).resolve().parent / "results" / "growth.json"
LIMIT_GIB = 2.0
# The kernel's ru_maxrss counts what the process was before it became the command; VmHWM does not.
COMMAND = """
import sys
from pathlib import Path
from cvat_action.cli import main
code = main(sys.argv[2:])
Path(sys.argv[1]).write_text(Path("/proc/self/status").read_text())
sys.exit(code)
"""


def measure(frames: int, objects: int) -> dict[str, Any]:
    """One run over `frames` frames (on Linux). Raises RuntimeError if it fails."""
    serve = [sys.executable, "-m", "benchmarks.growth_server", str(frames), str(objects)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server,  # noqa: S603
    ):
        try:
            url = (server.stdout.readline() if server.stdout else "").strip()
            environment = {
                **os.environ,
                "CVAT_ACCESS_TOKEN": "any",
                "NO_PROXY": "127.0.0.1",
                "XDG_STATE_HOME": folder,
                "XDG_CONFIG_HOME": folder,
            }
            track = [
                sys.executable, "-c", COMMAND, str(Path(folder) / "status"),
                "--server-host", url, "--quiet", "track", "--job", "1", "--frame", "0",
                "--convert-polygon-shapes-to-tracks", "--json",
            ]  # fmt: skip
            began = time.monotonic()
            command = subprocess.Popen(  # noqa: S603
                track, env=environment, stdout=subprocess.PIPE
            )
            told = command.stdout.read() if command.stdout else b""
            _, status, used = os.wait4(command.pid, 0)
            command.returncode = os.waitstatus_to_exitcode(status)
            if command.returncode:
                raise RuntimeError(f"{frames} frames: the command ended with {command.returncode}.")
            return {
                "frames": frames,
                "objects": objects,
                "written": json.loads(told)["written"],
                "peak_gib": peak_memory(Path(folder) / "status") / (1 << 30),
                "processor_s": used.ru_utime + used.ru_stime,
                "wall_s": time.monotonic() - began,
            }
        finally:
            server.terminate()


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| frames | objects | peak memory, GiB | processor time, s | ms per frame | "
        "time per frame against the first row |",
        "|---|---|---|---|---|---|",
    ]
    first = rows[0]["processor_s"] / rows[0]["frames"]
    for row in rows:
        each = row["processor_s"] / row["frames"]
        lines.append(
            f"| {row['frames']} | {row['objects']} | {row['peak_gib']:.2f} | "
            f"{row['processor_s']:.0f} | {1000 * each:.0f} | {each / first:.2f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Returns 1 where a run took more memory than the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--frames", type=int, nargs="+", default=[1000, 2000, 5000, 10000])
    parser.add_argument("--objects", type=int, default=50)
    add_out(parser, "growth.json")
    options = parser.parse_args()
    rows = []
    for frames in options.frames:
        rows.append(measure(frames, options.objects))
        print(f"{frames} frames: {rows[-1]}", file=sys.stderr, flush=True)
        result = {**origin_of("growth", *sys.argv[1:]), "rows": rows}
        write_json(options.out or RESULTS, result)
    print(table(rows))
    return int(max(row["peak_gib"] for row in rows) > LIMIT_GIB)


if __name__ == "__main__":
    raise SystemExit(main())
