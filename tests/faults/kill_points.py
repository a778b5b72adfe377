# SPDX-License-Identifier: MIT
"""A worker killed at each point of a step: what it leaves in the store, and what the client has."""

import json
import random
import time

from safetensors.torch import load

from faults.campaign import HEIGHT, IMAGES, WIDTH, Lane, Tally
from faults.fleet import Fleet
from faults.reference import random_shapes
from faults.worker import KILL_POINTS
from tracker_state import SEAL_BYTES


def kill_campaign(lane: Lane, times: int) -> Tally:
    """Each point so many times: the last token must give the right answer afterwards."""
    tally = Tally(name="workers killed at five points", seed=lane.seed)
    begin = time.monotonic()
    for number in range(times):
        for point in KILL_POINTS:
            tally.runs += 1
            rng = random.Random(f"{lane.seed}/{point}/{number}")
            trouble = _one(lane, point, rng, tally)
            if trouble is None:
                tally.finished += 1
                tally.right += 1
            else:
                tally.wrong.append(f"killed when {point}, seed {lane.seed}, {number}: {trouble}")
    tally.wrong += untidy(lane.fleet)
    tally.seconds = time.monotonic() - begin
    return tally


def _one(lane: Lane, point: str, rng: random.Random, tally: Tally) -> str | None:
    fleet, reference = lane.fleet, lane.reference
    shapes = random_shapes(rng, 3, width=WIDTH, height=HEIGHT)
    first = rng.randrange(IMAGES)
    nodes = reference.start(first, shapes)
    states = fleet.post({"image": lane.pictures[first], "shapes": shapes}).body["states"]
    for _ in range(rng.randrange(10)):
        image = rng.randrange(IMAGES)
        nodes = reference.step(image, nodes)
        states = fleet.post({"image": lane.pictures[image], "states": states}).body["states"]

    image = rng.randrange(IMAGES)
    body = {"image": lane.pictures[image], "states": states}
    kills = fleet.kills()
    fleet.order_kill(point)
    status = fleet.post(body, worker=len(fleet.ports) - 1).status
    fleet.withdraw_kill()
    tally.faults[point] += 1
    if status != 0 or fleet.kills() != kills + 1:
        return f"the worker did not die: status {status}"
    tally.met[point] += 1
    tally.errors["connection lost"] += 1
    deadline = time.monotonic() + 30
    while (reply := fleet.post(body, worker=len(fleet.ports) - 1)).status == 0:
        if time.monotonic() > deadline:
            return "the worker did not come back"
        time.sleep(0.05)
    if reply.status != 200:
        return f"status {reply.status}: {reply.body}"
    for index, node in enumerate(reference.step(image, nodes)):
        answer = {"shape": reply.body["shapes"][index], "score": reply.body["scores"][index]}
        if answer != node.answer:
            return f"object {index}: {answer} is not {node.answer}"
    return None


def untidy(fleet: Fleet) -> list[str]:
    """Keys that would stay for ever, heads whose memory frames are missing."""
    found = []
    with fleet.redis.client() as admin:
        keys = {key.decode() for key in admin.scan_iter(count=1000)}
        for key in sorted(keys):
            if admin.ttl(key) < 0:
                found.append(f"{key} has no time to live")
            if ":h:" not in key:
                continue
            record = admin.get(key)
            assert isinstance(record, bytes)
            content = json.loads(load(record[SEAL_BYTES:])["head"].numpy().tobytes())
            for reference in (content["conditioning"], *content["recent"][-6:]):
                if key.replace(":h:", ":m:")[: key.index(":h:") + 3] + reference[0] not in keys:
                    found.append(f"{key} names a memory frame that is not there")
    return found
