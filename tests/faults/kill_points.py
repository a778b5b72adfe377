# SPDX-License-Identifier: MIT
"""A worker killed in the middle of a request: what it leaves in the store, what the client has."""

import base64
import random
import time

from faults.fleet import Fleet
from faults.local import PREFIX
from faults.reference import Node, Reference, World, image_to_png, noise_images, random_shapes
from faults.standin_model import TINY, StandinModel
from sam2_tracker.record_format import hash_id, read_head

WIDTH, HEIGHT, IMAGES = 40, 30, 10
COME_BACK_SECONDS = 120.0


def kill_run(fleet: Fleet, seed: str, point: str) -> list[str]:
    """Kills a worker at this point; all that was not as it must be.

    Four objects are tracked; then one request steps one, corrects one and lets one adopt another.
    """
    rng = random.Random(seed)
    images = noise_images(rng, IMAGES, width=WIDTH, height=HEIGHT)
    pictures = [base64.b64encode(image_to_png(image)).decode() for image in images]
    reference, world = Reference(StandinModel(), images), World()

    shapes = random_shapes(rng, 4, width=WIDTH, height=HEIGHT)
    nodes = [world.save(reference.start(0, shape)) for shape in shapes]
    states = fleet.post({"image": pictures[0], "shapes": shapes}).body["states"]
    for _ in range(rng.randrange(10)):
        image = rng.randrange(IMAGES)
        nodes = [world.save(reference.step(image, node)) for node in nodes]
        states = fleet.post({"image": pictures[image], "states": states}).body["states"]

    image = rng.randrange(IMAGES)
    (shape,) = random_shapes(rng, 1, width=WIDTH, height=HEIGHT)
    adopt = {"adopt": [{"index": 3, "distance": rng.randint(-20, 20)}]}
    body = {
        "image": pictures[image],
        "shapes": [None, {**shape, "correction": 1}, adopt, None],
        "states": states,
    }
    expected = [
        reference.step(image, nodes[0]),
        reference.correct(image, nodes[1], shape, 1),
        reference.adopt(nodes[2], [(nodes[3], adopt["adopt"][0]["distance"])]),
    ]
    kills, last = fleet.kills(), len(fleet.ports) - 1
    fleet.order_kill(point)
    status = fleet.post(body, worker=last).status
    fleet.withdraw_kill()
    if status != 0 or fleet.kills() != kills + 1:
        return [f"the worker did not die: status {status}"]
    deadline = time.monotonic() + COME_BACK_SECONDS
    while (reply := fleet.post(body, worker=last)).status == 0:
        if time.monotonic() > deadline:
            return ["the worker did not come back"]
        time.sleep(0.05)
    if reply.status != 200 or any(reply.body["errors"]):
        return [f"status {reply.status}: {reply.body}"]
    troubles = []
    for index, node in enumerate(expected):
        answer = {"shape": reply.body["shapes"][index], "score": reply.body["scores"][index]}
        if not isinstance(node, Node) or answer != node.answer:
            troubles.append(f"object {index}: {answer} is not {node}")
    given = [*reply.body["states"], states[3]]  # the one that was adopted keeps its state
    return troubles + _untidy(fleet, [state["id"] for state in given if state])


def _untidy(fleet: Fleet, tokens: list[str]) -> list[str]:
    """Keys that would stay for ever; heads that are given out and name frames that are missing."""
    prefix = f"{PREFIX}:{StandinModel.fingerprint}"
    with fleet.redis.client() as admin:
        keys = {key.decode() for key in admin.scan_iter(count=1000)}
        # -2: it came to its end since
        found = [f"{key} has no time to live" for key in sorted(keys) if admin.ttl(key) == -1]
        for token in tokens:
            record = admin.get(f"{prefix}:h:{hash_id(token)}")
            head = read_head(token, record, TINY) if isinstance(record, bytes) else None
            rows = [*head.conditioning, *head.tracked] if head else []
            for row in rows:
                if row.memory is not None and f"{prefix}:m:{row.memory.id}" not in keys:
                    found.append("a head names a memory frame that is not there")
    return found
