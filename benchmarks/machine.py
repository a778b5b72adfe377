# SPDX-License-Identifier: MIT
"""What this machine is, and how fast it multiplies matrices."""

import os
import platform
import re
import time
from pathlib import Path

import torch

SIDE = 4096
TRIES = 5


def describe_machine(device: torch.device) -> dict[str, object]:
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "amx": bool(torch.cpu._is_amx_tile_supported()),
        "avx512_bf16": bool(torch.cpu._is_avx512_bf16_supported()),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
    }


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a product of two 4096 x 4096 matrices, best of 5."""
    one = torch.randn(SIDE, SIDE, device=device).to(dtype)
    other = torch.randn(SIDE, SIDE, device=device).to(dtype)
    best = float("inf")
    repeats = 10 if device.type == "cuda" else 1
    for _ in range(TRIES + 1):  # the first warms up
        synchronise(device)
        begin = time.perf_counter()
        for _ in range(repeats):
            torch.mm(one, other)
        synchronise(device)
        best = min(best, (time.perf_counter() - begin) / repeats)
    return 2 * SIDE**3 / best


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(status: Path) -> int:
    """The largest resident size that a process had, in bytes, by its /proc/PID/status or a copy.

    Raises ValueError where the file does not say it: the process had ended.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{status} is of a process that had ended.")
    return int(found[1]) * 1024


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
