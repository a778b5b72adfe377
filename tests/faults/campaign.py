# SPDX-License-Identifier: MIT
"""Tracks over HTTP while Redis and the workers are disturbed, compared frame by frame to what is
right. A run is one track of a few objects; a lane is a fleet that does one run after another."""

import base64
import collections
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from faults.fleet import Fleet, Reply
from faults.local_fleet import LocalFleet
from faults.proxy import LOADING
from faults.reference import (
    Node,
    Reference,
    image_to_png,
    noise_images,
    random_shapes,
)
from faults.standin_model import StandinModel
from faults.worker import KILL_POINTS
from sam2_tracker.shapes import mask_to_bitmap, polygon_to_bitmap

WIDTH, HEIGHT, IMAGES = 40, 30, 30
GIVE_UP_SECONDS = 30.0
# After a fault is over a request may still suffer: it began to wait before, or a worker starts.
AFTERMATH_SECONDS = 5.0
RETRY_SECONDS = 0.05
STALL_SECONDS = 2.0  # after which the function takes an answer of Redis for lost
LEAST_IOU = 0.999  # of a real model's masks; the stand-in's must be equal


@dataclass(kw_only=True)
class Tally:
    name: str
    seed: int
    runs: int = 0
    finished: int = 0
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    """Errors that no fault of the time accounts for."""
    stalls: int = 0
    """503 without a fault: the machine was so busy that the store's answer took 2 s."""
    errors: Counter[str] = field(default_factory=collections.Counter)
    faults: Counter[str] = field(default_factory=collections.Counter)
    met: Counter[str] = field(default_factory=collections.Counter)
    """Faults during which at least one request was under way."""
    seconds: float = 0.0

    def add(self, other: "Tally") -> None:
        self.runs += other.runs
        self.finished += other.finished
        self.right += other.right
        self.wrong += other.wrong
        self.unexplained += other.unexplained
        self.stalls += other.stalls
        self.errors += other.errors
        self.faults += other.faults
        self.met += other.met

    def line(self) -> str:
        errors = ", ".join(f"{name} x {n}" for name, n in sorted(self.errors.items())) or "none"
        text = (
            f"{self.name}: seed {self.seed}, {self.runs} runs, {self.finished} finished, "
            f"{self.right} right answers, errors {errors} ({self.stalls} of the 503 from a stalled "
            f"machine), {len(self.unexplained)} unexplained, {len(self.wrong)} wrong "
            f"answers, {self.seconds:.0f} s"
        )
        if self.faults:
            met = ", ".join(f"{name} {self.met[name]}/{n}" for name, n in self.faults.items())
            text += f"; faults met: {met}"
        return text


@dataclass(frozen=True, kw_only=True)
class Fault:
    name: str
    apply: Callable[[Fleet], None]
    heal: Callable[[Fleet], None] = lambda fleet: None
    longest: float = 0.6
    """Seconds until it is healed; one in ten lasts longer than the function waits."""
    loses: bool = False
    """Whether records may be lost by it."""


def _kill_redis_and_forget(fleet: Fleet) -> None:
    fleet.redis.kill()
    fleet.redis.forget()


def _cut(fleet: Fleet, rng: random.Random) -> None:
    fleet.proxy.cut_after = rng.randint(0, 4000)


def _delay(fleet: Fleet, seconds: float) -> None:
    fleet.proxy.delay_seconds = seconds


def _stub(fleet: Fleet, answer: bytes | None) -> None:
    fleet.proxy.stub_answer = answer


def _drop_connections(fleet: Fleet) -> None:
    with fleet.redis.client() as admin:
        admin.execute_command("CLIENT", "KILL", "TYPE", "normal")


def _evict(fleet: Fleet) -> None:
    with fleet.redis.client() as admin:
        if (key := admin.randomkey()) is not None:
            admin.delete(key)


def _corrupt(fleet: Fleet, rng: random.Random) -> None:
    with fleet.redis.client() as admin:
        key = admin.randomkey()
        if key is None or not (value := admin.get(key)):
            return
        damaged = bytearray(value)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        admin.set(key, bytes(damaged), keepttl=True)


def redis_faults(rng: random.Random) -> list[Fault]:
    return [
        Fault(
            name="killed",
            apply=lambda fleet: fleet.redis.kill(),
            heal=lambda fleet: fleet.redis.start(),
        ),
        Fault(
            name="killed without data",
            apply=_kill_redis_and_forget,
            heal=lambda fleet: fleet.redis.start(),
            loses=True,
        ),
        Fault(
            name="frozen",
            apply=lambda fleet: fleet.redis.freeze(),
            heal=lambda fleet: fleet.redis.thaw(),
        ),
        Fault(
            name="slow",
            apply=lambda fleet: _delay(fleet, rng.uniform(0.01, 0.2)),
            heal=lambda fleet: _delay(fleet, 0.0),
        ),
        Fault(name="cut", apply=lambda fleet: _cut(fleet, rng)),
        Fault(name="idle connections dropped", apply=_drop_connections),
        Fault(
            name="full",
            apply=lambda fleet: fleet.redis.fill(),
            heal=lambda fleet: fleet.redis.empty(),
        ),
        Fault(
            name="read-only",
            apply=lambda fleet: fleet.redis.make_read_only(),
            heal=lambda fleet: fleet.redis.make_writable(),
        ),
        Fault(
            name="asks for a password",
            apply=lambda fleet: fleet.redis.lock(),
            heal=lambda fleet: fleet.redis.unlock(),
        ),
        Fault(
            name="loading",
            apply=lambda fleet: _stub(fleet, LOADING),
            heal=lambda fleet: _stub(fleet, None),
        ),
        Fault(name="a record evicted", apply=_evict, loses=True),
        Fault(name="a record damaged", apply=lambda fleet: _corrupt(fleet, rng), loses=True),
    ]


def worker_faults() -> list[Fault]:
    return [
        Fault(
            name=f"worker killed: {point}",
            apply=lambda fleet, point=point: fleet.order_kill(point),  # type: ignore[misc]
            heal=lambda fleet: fleet.withdraw_kill(),
        )
        for point in KILL_POINTS
    ]


class Lane:
    def __init__(
        self, fleet: Fleet | LocalFleet, *, seed: int, model: Any = None, images: int = IMAGES
    ) -> None:
        self.fleet = fleet
        self.seed = seed
        rng = random.Random(seed)
        images = noise_images(rng, images, width=WIDTH, height=HEIGHT)
        self.pictures = [base64.b64encode(image_to_png(image)).decode() for image in images]
        self.exact = model is None
        self.reference = Reference(model or StandinModel(), images)

    def campaign(
        self,
        name: str,
        runs: int,
        *,
        faults: Callable[[random.Random], Sequence[Fault]] = lambda rng: (),
        workers: int | None = None,
        frames: int = 30,
        fault_rate: float = 0.06,
        walk: bool = True,
    ) -> Tally:
        tally = Tally(name=name, seed=self.seed)
        begin = time.monotonic()
        for number in range(runs):
            rng = random.Random(f"{self.seed}/{name}/{number}")
            run = Run(
                self,
                rng,
                tally,
                faults=faults(rng),
                workers=workers or len(self.fleet.ports),
                fault_rate=fault_rate,
                walk=walk,
                label=f"{name} run {number} of seed {self.seed}",
            )
            tally.runs += 1
            tally.finished += run.track(frames)
        tally.seconds = time.monotonic() - begin
        return tally


class GaveUp(Exception):
    pass


class Run:
    """One track: its objects, the disturbances, and a client that tries again after an error."""

    def __init__(
        self,
        lane: Lane,
        rng: random.Random,
        tally: Tally,
        *,
        faults: Sequence[Fault],
        workers: int,
        fault_rate: float,
        walk: bool,
        label: str,
    ) -> None:
        self._lane = lane
        self._fleet = lane.fleet
        self._rng = rng
        self._tally = tally
        self._faults = faults
        self._workers = workers
        self._fault_rate = fault_rate
        self._walk = walk
        self._label = label
        self._nodes: list[Node] = []  # of each object the newest
        self._saved: list[Node] = []  # all of the run
        self._disturbed: list[tuple[str, float, float]] = []  # name, begin, end
        self._requests: list[tuple[float, float]] = []
        self._healing: threading.Thread | None = None

    def track(self, frames: int) -> bool:
        """Whether every frame was answered."""
        shapes = random_shapes(self._rng, self._rng.randint(1, 4), width=WIDTH, height=HEIGHT)
        try:
            self._nodes = self._start(self._rng.randrange(len(self._lane.pictures)), shapes)
            for _ in range(frames - 1):
                if self._faults and self._rng.random() < self._fault_rate:
                    self._disturb()
                self._advance()
                if self._walk and self._rng.random() < 0.15:
                    self._wander()
            return True
        except GaveUp as failure:
            self._tally.unexplained.append(f"{self._label}: {failure}")
            return False
        finally:
            self._settle()

    def _start(self, image: int, shapes: list[Any]) -> list[Node]:
        expected = self._lane.reference.start(image, shapes)
        reply = self._ask(image, shapes=shapes)
        for index, node in enumerate(expected):
            self._check(reply, index, node)
        return expected

    def _advance(self) -> None:
        """All objects to a random next image; those that the store lost are started again."""
        image = self._rng.randrange(len(self._lane.pictures))
        order = self._rng.sample(range(len(self._nodes)), len(self._nodes))
        reached = self._step(image, [self._nodes[index] for index in order])
        for index, node in zip(order, reached, strict=True):
            if node is not None:
                self._nodes[index] = node
                continue
            shapes = random_shapes(self._rng, 1, width=WIDTH, height=HEIGHT)
            self._nodes[index] = self._start(image, shapes)[0]

    def _wander(self) -> None:
        """What impatient, forgetful and busy clients do; the track itself does not notice."""
        image = self._rng.randrange(len(self._lane.pictures))
        what = self._rng.choice(("again", "branch", "together", "old and new"))
        if what == "again":  # the same request twice, the second perhaps to another worker
            self._step(image, self._nodes)
            self._step(image, self._nodes)
        elif what == "branch":  # from any token of the run, also one that may be gone
            some = self._rng.sample(self._saved, min(len(self._saved), 3))
            self._step(self._rng.randrange(len(self._lane.pictures)), some)
        elif what == "together":  # two at the same time from the same tokens
            choices = [self._rng.randrange(self._workers) for _ in range(2)]
            expected = self._lane.reference.step(image, self._nodes)
            for node in self._nodes:
                node.note_attempt()
            with ThreadPoolExecutor(2) as pool:
                replies = list(
                    pool.map(
                        lambda worker: self._ask(
                            image, states=[node.token for node in self._nodes], worker=worker
                        ),
                        choices,
                    )
                )
            for reply in replies:
                for index, (parent, node) in enumerate(zip(self._nodes, expected, strict=True)):
                    self._check(reply, index, node, parent)
        else:  # a new object among known ones
            shapes = random_shapes(self._rng, 1, width=WIDTH, height=HEIGHT)
            new = self._lane.reference.start(image, shapes)[0]
            known = self._lane.reference.step(image, self._nodes)
            for node in self._nodes:
                node.note_attempt()
            states = [node.token for node in self._nodes]
            padding: list[Any] = [None] * len(states)
            reply = self._ask(image, shapes=padding + shapes, states=states)
            for index, (parent, node) in enumerate(zip(self._nodes, known, strict=True)):
                self._check(reply, index, node, parent)
            self._check(reply, len(known), new)

    def _step(self, image: int, parents: Sequence[Node]) -> list[Node | None]:
        """The nodes reached; None: the store had lost it, and was allowed to."""
        for parent in parents:
            parent.note_attempt()
        # A batch of the real model holds only those whose state is still there.
        reply = self._ask(image, states=[parent.token for parent in parents])
        expected = self._lane.reference.step(image, parents)
        return [
            node if self._check(reply, index, node, parent) else None
            for index, (parent, node) in enumerate(zip(parents, expected, strict=True))
        ]

    def _ask(
        self,
        image: int,
        *,
        shapes: Sequence[Any] = (),
        states: Sequence[Any] = (),
        worker: int | None = None,
    ) -> Reply:
        """Sends until there is an answer, 200 or that the states are gone."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        body = {"image": self._lane.pictures[image], "shapes": [*shapes], "states": [*states]}
        while True:
            chosen = self._rng.randrange(self._workers) if worker is None else worker
            reply = self._fleet.post(body, worker=chosen)
            self._requests.append((reply.begin, reply.end))
            if reply.status in (200, 410):
                if reply.status == 410:
                    self._tally.errors["410"] += 1
                return reply
            self._tally.errors[str(reply.status or "connection lost")] += 1
            self._explain(reply)
            if time.monotonic() > deadline:
                raise GaveUp(f"status {reply.status}: {reply.body}")
            time.sleep(RETRY_SECONDS)

    def _explain(self, reply: Reply) -> None:
        """A 503 or a lost connection needs a fault that was there at the time; others have none."""
        wanted = {0: "worker killed", 503: ""}.get(reply.status)
        for name, begin, end in self._disturbed:
            if (
                wanted is not None
                and name.startswith(wanted)
                and begin <= reply.end
                and reply.begin <= end + AFTERMATH_SECONDS
            ):
                return
        if reply.status == 503 and reply.end - reply.begin >= STALL_SECONDS:
            self._tally.stalls += 1
        else:
            self._tally.unexplained.append(
                f"{self._label}: status {reply.status} after {reply.end - reply.begin:.2f} s: "
                f"{reply.body}"
            )

    def _check(self, reply: Reply, index: int, node: Node, parent: Node | None = None) -> bool:
        """Whether the answer to one object is there (right or wrong); False: its state is gone."""
        if reply.status == 410:
            code, count = reply.body["error"]["code"], None
        else:
            error = reply.body["errors"][index]
            code, count = error and error["code"], len(reply.body["states"])
        if code is not None:
            if reply.status == 200:
                self._tally.errors[code] += 1
            if code != "state_gone" or parent is None:
                self._tally.wrong.append(f"{self._label}: {code} for object {index}")
            elif parent.promised():
                self._tally.unexplained.append(
                    f"{self._label}: step {parent.bank.step} is gone, newest {parent.newest}"
                )
            return False
        node.token = reply.body["states"][index]
        answer = {"shape": reply.body["shapes"][index], "score": reply.body["scores"][index]}
        if count is None or not node.token or not self._alike(answer, node.answer):
            self._tally.wrong.append(
                f"{self._label}: object {index}, step {node.bank.step}: {answer} is not "
                f"{node.answer}"
            )
        else:
            self._tally.right += 1
        node.may_be_gone = self._may_be_lost(reply)
        self._saved.append(node)
        return True

    def _alike(self, answer: dict[str, Any], right: dict[str, Any]) -> bool:
        if self._lane.exact or answer == right:
            return answer == right
        return (
            abs(answer["score"] - right["score"]) < 1e-3
            and _iou(answer["shape"], right["shape"]) >= LEAST_IOU
        )

    def _may_be_lost(self, reply: Reply) -> bool:
        """Whether a fault that loses records was there since the request began."""
        lossy = {fault.name for fault in self._faults if fault.loses}
        return any(name in lossy and end >= reply.begin for name, _, end in self._disturbed)

    def _disturb(self) -> None:
        self._settle()
        fault = self._rng.choice(self._faults)
        longest = 4.0 if self._rng.random() < 0.1 else fault.longest
        seconds = self._rng.uniform(0.05, longest)
        begin = time.monotonic()
        self._disturbed.append((fault.name, begin, begin + 1e9))
        self._tally.faults[fault.name] += 1
        kills, cuts = self._fleet.kills(), self._fleet.proxy.cuts

        def pass_by() -> None:
            fault.apply(self._fleet)
            if fault.loses:
                self._forget()
            if fault.name == "cut" or fault.name.startswith("worker killed"):
                # It happens when it happens; only then it is over.
                limit = time.monotonic() + 3
                while time.monotonic() < limit and (
                    (self._fleet.kills(), self._fleet.proxy.cuts) == (kills, cuts)
                ):
                    time.sleep(0.01)
            else:
                time.sleep(seconds)
            fault.heal(self._fleet)
            if fault.loses:
                self._forget()
            self._disturbed[-1] = (fault.name, begin, time.monotonic())

        self._healing = threading.Thread(target=pass_by)
        self._healing.start()

    def _forget(self) -> None:
        for node in list(self._saved):
            for each in node.lineage:
                each.may_be_gone = True

    def _settle(self) -> None:
        """Waits for the end of a fault, and sees whether any request met it."""
        if self._healing is None:
            return
        self._healing.join()
        self._healing = None
        self._fleet.proxy.cut_after = None
        name, begin, end = self._disturbed[-1]
        if any(first <= end and last >= begin for first, last in self._requests):
            self._tally.met[name] += 1


def _iou(one: Any, other: Any) -> float:
    if one is None or other is None:
        return float(one is other)
    first, second = _bitmap(one), _bitmap(other)
    return float((first & second).sum() / (first | second).sum())


def _bitmap(shape: Any) -> Any:
    if shape["type"] == "rectangle":
        left, top, right, bottom = (int(number) for number in shape["points"])
        bitmap = np.zeros((HEIGHT, WIDTH), dtype=bool)
        bitmap[top:bottom, left:right] = True
        return bitmap
    decode = mask_to_bitmap if shape["type"] == "mask" else polygon_to_bitmap
    return decode(shape["points"], width=WIDTH, height=HEIGHT)
