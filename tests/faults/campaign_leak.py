# SPDX-License-Identifier: MIT
"""Thousands of requests to one worker: does it grow?"""

import base64
import os
from dataclasses import dataclass
from typing import Any

from faults.fleet import Fleet, memory_mib
from faults.reference import noise_png

WARM_UP = 300  # requests in which caches fill and the allocator settles
TRACK_FRAMES = 50


@dataclass(frozen=True, kw_only=True)
class LeakTally:
    requests: int
    mib: float
    """Growth of the worker's resident memory."""
    handles: int
    """Growth of its open file handles."""
    connections: int
    """That Redis sees at the end."""

    def line(self) -> str:
        return (
            f"{self.requests:,} requests to one worker: memory {self.mib:+.1f} MiB, file handles "
            f"{self.handles:+d}, {self.connections} connection to Redis"
        )


def leak_campaign(requests: int) -> LeakTally:
    image = base64.b64encode(noise_png()).decode()
    shapes = [{"type": "rectangle", "points": [2, 2, 20, 20]}] * 3
    # The second worker of a fleet caches nothing. A cache is bounded by its tensors' bytes: as
    # small as the stand-in's are, it would go on filling for longer than this takes.
    with Fleet(workers=2) as fleet:

        def play(count: int) -> str:
            states: Any = []
            worker = ""
            for number in range(count):
                if number % TRACK_FRAMES == 0:
                    states = []
                body = {"image": image, "shapes": [] if states else shapes, "states": states}
                reply = fleet.post(body, worker=1)
                assert reply.status == 200, reply
                states, worker = reply.body["states"], reply.headers["X-Worker"]
                if number % 10 == 0:
                    assert fleet.post({"image": "!", "shapes": shapes}, worker=1).status == 400
                if number % 500 == 0:
                    with fleet.redis.client() as admin:
                        admin.execute_command("CLIENT", "KILL", "TYPE", "normal")
            return worker

        worker = play(WARM_UP)
        mib, handles = memory_mib(worker, "VmRSS"), _handles(worker)
        assert play(requests) == worker, "the worker died"
        with fleet.redis.client() as admin:
            connections = len(admin.client_list()) - 1
        return LeakTally(
            requests=requests,
            mib=memory_mib(worker, "VmRSS") - mib,
            handles=_handles(worker) - handles,
            connections=connections,
        )


def _handles(pid: str) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
