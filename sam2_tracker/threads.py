# SPDX-License-Identifier: MIT
"""How many CPU threads the model uses."""

import contextlib
import os
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")


def set_threads(threads: int, workers: int) -> None:
    """Sets how many CPU threads the model uses.

    threads: 0 means this worker's share of the container's CPU quota, which torch does not see.
    """
    torch.set_num_threads(threads or max(1, int(available_cores() / workers)))


def available_cores(cgroup: Path = CGROUP) -> float:
    """The cores of this process: by its affinity, or the container's quota if that is less."""
    cores = float(len(os.sched_getaffinity(0)))
    with contextlib.suppress(OSError, ValueError):
        quota, period = (cgroup / "cpu.max").read_text().split()
        return min(cores, int(quota) / int(period))
    with contextlib.suppress(OSError, ValueError):  # cgroup v1
        quota_us = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((cgroup / "cpu" / "cpu.cfs_period_us").read_text())
        if quota_us > 0:
            return min(cores, quota_us / period_us)
    return cores
