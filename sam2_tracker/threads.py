# SPDX-License-Identifier: MIT
"""How many CPU threads the model uses."""

import contextlib
import logging
import math
import os
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

CGROUP = Path("/sys/fs/cgroup")


def set_threads(threads: int, workers: int) -> None:
    """Sets how many CPU threads the model uses.

    threads: 0 means this worker's share of the container's CPU quota, which torch does not see.
    """
    cores = available_cores()
    if threads > math.ceil(cores):
        logger.warning(
            "SAM2_THREADS is %d, and this process may use %g cores: with more threads than cores "
            "the model is much slower. 0 takes as many threads as there are cores.",
            threads,
            cores,
        )
    torch.set_num_threads(threads or max(1, int(cores / workers)))


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
