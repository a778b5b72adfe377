# SPDX-License-Identifier: MIT
"""Several fleets side by side: most of a fault is waiting."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from faults.campaign import Lane, Tally
from faults.fleet import Fleet
from faults.local_fleet import LocalFleet


def in_lanes(
    campaign: Callable[[Lane, int], Tally],
    runs: int,
    *,
    seed: int,
    lanes: int,
    make_fleet: Callable[[], Fleet | LocalFleet],
) -> Tally:
    """Splits runs over lanes; lane n has the seed `seed` + n."""
    begin = time.monotonic()

    one_at_a_time = threading.Lock()  # a start is all work and no waiting

    def one(number: int) -> Tally:
        share = runs // lanes + (number < runs % lanes)
        with one_at_a_time:
            fleet = make_fleet()
        with fleet:
            return campaign(Lane(fleet, seed=seed + number), share)

    with ThreadPoolExecutor(lanes) as pool:
        tallies = list(pool.map(one, range(lanes)))
    whole = tallies[0]
    for tally in tallies[1:]:
        whole.add(tally)
    whole.seconds = time.monotonic() - begin
    return whole
