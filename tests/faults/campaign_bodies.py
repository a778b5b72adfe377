# SPDX-License-Identifier: MIT
"""Hostile bodies thrown at a running server: what comes back, how long it takes, what it costs."""

import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from faults.fleet import Fleet, Reply, memory_mib
from faults.hostile_bodies import hostile_body, live_pool

# What a body alone can provoke; the others need a fault of the store or of the model.
CODES = (
    *("bad_request", "too_large", "bad_shape", "empty_shape"),
    *("bad_state", "size_changed", "state_gone", "too_many_keyframes"),
)


@dataclass(kw_only=True)
class BodiesTally:
    bodies: int = 0
    geometry: int = 0
    """Bodies that came as far as a shape being rasterised or checked against the image."""
    statuses: Counter[int] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Answers that no body may get: a 5xx, a broken connection, a traceback, other lengths."""
    slowest_cpu: float = 0.0
    slowest_body: bytes = b""
    growth_mib: float = 0.0
    workers: set[str] = field(default_factory=set)
    deaths: int = 0

    def add(self, other: "BodiesTally") -> None:
        self.bodies += other.bodies
        self.geometry += other.geometry
        self.statuses += other.statuses
        self.codes += other.codes
        self.wrong += other.wrong
        if other.slowest_cpu > self.slowest_cpu:
            self.slowest_cpu, self.slowest_body = other.slowest_cpu, other.slowest_body
        self.growth_mib = max(self.growth_mib, other.growth_mib)
        self.deaths += other.deaths

    def line(self) -> str:
        statuses = ", ".join(f"{status} {n:,} x" for status, n in sorted(self.statuses.items()))
        codes = ", ".join(f"{code} {self.codes[code]:,} x" for code in CODES)
        return (
            f"{self.bodies:,} bodies, {self.geometry:,} of them as far as a shape; {statuses}; "
            f"{codes}; at most {self.slowest_cpu:.2f} s of CPU, memory +{self.growth_mib:.0f} MiB, "
            f"{self.deaths} workers died"
        )


def throw(
    fleet: Fleet, body: bytes, tally: BodiesTally, rng: random.Random, *, worker: int
) -> None:
    """Sends one body and judges the answer."""
    content_type = rng.choice(("application/json", "application/json; charset=utf-8", ""))
    reply = fleet.send("POST", body, content_type=content_type, worker=worker)
    tally.bodies += 1
    tally.statuses[reply.status] += 1
    if (trouble := judge(reply)) is not None:
        tally.wrong.append(f"{trouble}: status {reply.status} for {body[-300:]!r}")
    if reply.status == 0:
        return
    tally.workers.add(reply.headers["X-Worker"])
    tally.geometry += int(reply.headers["X-Geometry"])
    if (cpu := float(reply.headers["X-CPU-Seconds"])) > tally.slowest_cpu:
        tally.slowest_cpu, tally.slowest_body = cpu, body
    if reply.status == 200:
        tally.codes.update(error["code"] for error in reply.body["errors"] if error)
    else:
        tally.codes[reply.body["error"]["code"]] += 1


def judge(reply: Reply) -> str | None:
    """What is wrong with an answer; None: nothing."""
    if reply.status not in (200, 400, 410, 413):
        return "a status that no body may get"
    if "Traceback" in json.dumps(reply.body):
        return "a traceback"
    if reply.status != 200:
        error = reply.body["error"]
        return None if error["code"] in CODES and error["message"] else "an error without a name"
    lengths = {len(reply.body[name]) for name in ("shapes", "states", "scores", "errors")}
    if len(lengths) != 1:
        return "lists of different length"
    for shape, state, error in zip(
        reply.body["shapes"], reply.body["states"], reply.body["errors"], strict=True
    ):
        if error is not None and (shape, state) != (None, None):
            return "an error beside an answer"
        if error is not None and error["code"] not in CODES:
            return "an error that no body may get"
    return None


def bodies_campaign(fleet: Fleet, count: int, *, seed: int, large_images: bool) -> BodiesTally:
    """Splits the bodies over the workers of the fleet; worker n gets those of seed `seed` + n."""
    workers = len(fleet.ports)

    def one(worker: int) -> BodiesTally:
        share = count // workers + (worker < count % workers)
        return _throw_all(
            fleet, share, worker=worker, seed=seed + worker, large_images=large_images
        )

    with ThreadPoolExecutor(workers) as pool:
        tallies = list(pool.map(one, range(workers)))
    whole = tallies[0]
    for tally in tallies[1:]:
        whole.add(tally)
    return whole


def _throw_all(
    fleet: Fleet, count: int, *, worker: int, seed: int, large_images: bool
) -> BodiesTally:
    rng = random.Random(seed)
    tally = BodiesTally()
    pool = live_pool(partial(fleet.post, worker=worker), large_images=large_images)
    pid = fleet.send("GET", worker=worker).headers["X-Worker"]
    tally.workers.add(pid)
    before = memory_mib(pid, "VmHWM")
    for _ in range(count):
        throw(fleet, hostile_body(rng, pool), tally, rng, worker=worker)
    tally.deaths = len(tally.workers) - 1
    if tally.deaths == 0:
        tally.growth_mib = memory_mib(pid, "VmHWM") - before
    return tally
