# SPDX-License-Identifier: MIT
"""Requests in any order to several trackers on one store that fails, against what is right.

A hypothesis state machine. Each request names objects that start, go on, are corrected or take over
what was drawn elsewhere, from any token that was ever given out. The reference tells the answer and
the records that it needs. An object must be known exactly if the store still has these records: the
tracker that is asked, and what lies in its caches, must make no difference.

The store fails where records are read and written: it refuses, it loses its answer, it breaks off
in the middle of a save, it hangs and carries out the save later. Records are evicted, damaged and
expire. Another tracker's request can come between any two of them. A request that fails must fail
as a whole, and must succeed when it is repeated.
"""

import base64
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from faults.local import BY_NO_CLOCK, PREFIX, DictRecords, make_store
from faults.reference import (
    LIFE_SECONDS,
    POLICY,
    Node,
    Reference,
    World,
    image_to_png,
    noise_images,
    random_shapes,
)
from faults.standin_model import TINY, StandinModel
from sam2_tracker.errors import AllObjectsFailed, StoreUnavailable
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.memory_policy import POLICIES
from sam2_tracker.protocol import answers_to_json, body_to_request
from sam2_tracker.record_format import hash_id, read_head
from sam2_tracker.settings import Settings
from tracker import Tracker

WIDTH, HEIGHT, IMAGES = 40, 30, 5
_RANDOM = random.Random(20240607)
PICTURES = noise_images(_RANDOM, IMAGES, width=WIDTH, height=HEIGHT)
ENCODED = [base64.b64encode(image_to_png(image)).decode() for image in PICTURES]
SHAPES = random_shapes(_RANDOM, 12, width=WIDTH, height=HEIGHT)
REFERENCE = Reference(StandinModel(), PICTURES)

CACHES = (0, 400, 1 << 20)
"""Bytes of memory frames and of image features that a tracker keeps: none, a few, all."""
MOMENTS = ("get", "get_and_check", "put")
FAULTS = ("refuse", "lose the answer", "break off", "hang")

shapes = st.sampled_from(SHAPES)
regions = st.sampled_from((0, 1.5, 3))
"""Sizes of search regions; 0: the whole image."""
ages = st.one_of(st.just(0), st.integers(0, 30))
"""Which token is meant: 0 is the newest."""
entries = st.one_of(
    st.tuples(st.just("step"), ages),
    st.tuples(st.just("start"), shapes, st.sampled_from((None, *POLICIES)), regions),
    st.tuples(st.just("correct"), ages, shapes, st.integers(0, 1)),
    st.tuples(
        st.just("adopt"),
        ages,
        st.lists(st.tuples(ages, st.integers(-12, 12)), min_size=1, max_size=3),
    ),
    st.tuples(st.just("nothing")),
)
requests = st.lists(entries, min_size=1, max_size=4)
images = st.integers(0, IMAGES - 1)
trackers = st.integers(0, 3)


class Refused(AssertionError):
    """An answer that is not the right one."""


class Interposed(DictRecords):
    """One tracker's way to the store they share: tells what passes, and fails on demand."""

    def __init__(self, shared: DictRecords, passing: Callable[[str], None]) -> None:
        self._shared = shared
        self._passing = passing
        """Called with each of MOMENTS before it is carried out."""
        self.fault: tuple[str, str, int] | None = None
        """For one call: the fault, its moment, and the number of records that are still written."""
        self.late: Callable[[], None] | None = None
        """A save that hangs, to be carried out later."""
        self.written = False
        """Whether the last save was carried out, with or without an answer."""

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        self._passing("get")
        self._fail("get")
        return self._shared.get(keys)

    def get_and_check(
        self, keys: Sequence[str], check: Sequence[str]
    ) -> tuple[list[bytes | None], list[bool]]:
        self._passing("get_and_check")
        self._fail("get_and_check")
        return self._shared.get_and_check(keys, check)

    def put(self, records: Sequence[tuple[str, bytes]], **options: Any) -> None:
        self._passing("put")
        fault, moment, count = self.fault or ("", "", 0)
        if moment == "put" and fault == "break off" and records:
            kept = records[: count % len(records)]
            self._shared.put(kept, ttl_seconds=options["ttl_seconds"], extend=[], remove=[])
        if moment == "put" and fault == "hang":
            self.late = lambda: self._shared.put(records, **options)
        if moment == "put" and fault == "lose the answer":
            self._shared.put(records, **options)
            self.written = True
        self._fail("put")
        self._shared.put(records, **options)
        self.written = True

    def close(self) -> None:
        """The store is not this tracker's alone."""

    def _fail(self, moment: str) -> None:
        if self.fault is not None and self.fault[1] == moment:
            self.fault = None
            raise StoreUnavailable("The store of the tracks does not answer.")


class Request:
    """What is asked of one tracker, what must come back, and what happens on the way."""

    def __init__(self, machine: "TrackersOnOneStore", image: int, wanted: Sequence[Any]) -> None:
        self._machine = machine
        self._image = image
        self.entries: list[tuple[Any, ...]] = []
        """As `entries`, with nodes in place of ages."""
        self._loaded: set[Node] = set()
        self.expected: list[Node | str | None] | None = None
        """Of each entry the node that it becomes, the code of its error, or None."""
        shapes: list[Any] = []
        states: list[Any] = []
        for what, *more in wanted:
            if what == "start":
                shape, policy, region = more
                shape = {**shape, "search_region": region}
                shape = {**shape, "memory": policy} if policy else shape
                self._add("start", shape, shape=shape, to=(shapes, states))
            elif what == "nothing" or not machine.nodes:
                self._add("nothing", to=(shapes, states))
            elif what == "step":
                self._add("step", machine.node(more[0]), to=(shapes, states))
            elif what == "correct":
                age, shape, distance = more
                distance = 1 if shape["type"] == "rectangle" else distance
                told = {**shape, "correction": distance}
                self._add(
                    "correct", machine.node(age), shape, distance, shape=told, to=(shapes, states)
                )
            else:
                age, keyframes = more
                others = [(machine.node(other), distance) for other, distance in keyframes]
                first = len(shapes) + 1
                named = [
                    {"index": first + number, "distance": distance}
                    for number, (_, distance) in enumerate(others)
                ]
                self._add(
                    "adopt", machine.node(age), others, shape={"adopt": named}, to=(shapes, states)
                )
                for other, _ in others:
                    self._add("lend", other, to=(shapes, states))
        self.body = {"image": ENCODED[image], "shapes": shapes, "states": states}

    def passing(self, moment: str) -> None:
        """The tracker is about to read heads, to read memory frames, or to save."""
        world = self._machine.world
        if moment == "get":
            self._loaded = {node for node in self._nodes() if world.knows_head(node)}
        elif moment == "get_and_check":
            self._loaded = {node for node in self._loaded if world.knows_frames(node)}
        else:
            self.expect()

    def expect(self) -> list[Node | str | None]:
        if self.expected is None:
            self.expected = [self._expect(*entry) for entry in self.entries]
        return self.expected

    def saved(self) -> None:
        """The save was carried out."""
        self.expected = [
            self._machine.world.save(node) if isinstance(node, Node) else node
            for node in self.expect()
        ]

    def _expect(self, what: str, *more: Any) -> Node | str | None:
        if what == "nothing" or what == "lend":
            return None
        if what == "start":
            return REFERENCE.start(self._image, more[0])
        if more[0] not in self._loaded:
            return "state_gone"
        if what == "step":
            return REFERENCE.step(self._image, more[0])
        if what == "correct":
            return REFERENCE.correct(self._image, *more)
        if any(other not in self._loaded for other, _ in more[1]):
            return "state_gone"
        return REFERENCE.adopt(*more)

    def _nodes(self) -> list[Node]:
        return [more[0] for what, *more in self.entries if what not in ("nothing", "start")]

    def _add(self, what: str, *more: Any, shape: Any = None, to: tuple[Any, Any]) -> None:
        self.entries.append((what, *more))
        known = what not in ("nothing", "start")
        to[0].append(shape)
        to[1].append({"v": 1, "id": self._machine.tokens[more[0]]} if known else None)


class TrackersOnOneStore(RuleBasedStateMachine):
    met: Counter[str] = Counter()
    """What happened in all runs of all machines: for the report of `make faults`."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.tokens: dict[Node, str] = {}
        self.nodes: list[Node] = []
        """All whose token was given out, the oldest first."""
        self._shared = DictRecords(clock=lambda: self.world.now)
        self._doors: list[Interposed] = []
        self._trackers: list[Tracker] = []
        self._caches: list[MemoryCache] = []
        self._running: list[Request | None] = []
        self._between: tuple[str, int, Callable[[], None]] | None = None
        self._late: list[Callable[[], None]] = []
        self._last: tuple[int, Sequence[Any]] | None = None

    @initialize(caches=st.lists(st.sampled_from(CACHES), min_size=2, max_size=4))
    def open(self, caches: list[int]) -> None:
        for number, size in enumerate(caches):
            door = Interposed(self._shared, lambda moment, who=number: self._pass(who, moment))  # type: ignore[misc]
            cache = MemoryCache(size)
            store = make_store(
                door, TINY, ttl_seconds=LIFE_SECONDS, cache=cache, clock=lambda: self.world.now
            )
            settings = Settings(
                threads=1,
                memory_policy=POLICY,
                frame_cache_mib=512 if size else 0,
                redis_timeout_seconds=BY_NO_CLOCK,
                time_budget_seconds=BY_NO_CLOCK,
            )
            self._doors.append(door)
            self._caches.append(cache)
            self._trackers.append(Tracker(StandinModel(), store, settings))  # type: ignore[arg-type]
            self._running.append(None)

    def node(self, age: int) -> Node:
        return self.nodes[-1 - age % len(self.nodes)]

    # ---- what is done ----

    @rule(who=trackers, image=images, wanted=requests)
    def ask(self, who: int, image: int, wanted: Sequence[Any]) -> None:
        self._last = image, wanted
        self._ask(who, Request(self, image, wanted))

    @rule(order=st.lists(st.tuples(trackers, images), min_size=2, max_size=16), age=ages)
    def track(self, order: list[tuple[int, int]], age: int) -> None:
        """One object over many frames."""
        for number, (who, image) in enumerate(order):
            self.ask(who, image, [("step", 0 if number else age)])

    @rule(one=trackers, other=trackers)
    def repeat(self, one: int, other: int) -> None:
        """The last request again, by two trackers."""
        if self._last is not None:
            image, wanted = self._last
            for who in (one, other):
                self._ask(who, Request(self, image, wanted))

    @rule(
        who=trackers,
        image=images,
        wanted=requests,
        fault=st.sampled_from(FAULTS),
        moment=st.sampled_from(MOMENTS),
        count=st.integers(0, 9),
    )
    def fail(
        self, who: int, image: int, wanted: Sequence[Any], fault: str, moment: str, count: int
    ) -> None:
        """The store fails once during a request, which is then sent again."""
        door = self._doors[who % len(self._doors)]
        door.fault = fault, moment, count
        request = Request(self, image, wanted)
        met = self._ask(who, request, may_fail=True)
        door.fault = None
        if met:
            self.met[f"{fault}: {moment}"] += 1
            if (save := door.late) is not None:
                door.late = None
                self._late.append(lambda: (save(), request.saved())[0])
            self._ask(who, Request(self, image, wanted))

    @precondition(lambda self: self._late)
    @rule()
    def arrive(self) -> None:
        """A save that hung is carried out after all."""
        self.met["late save"] += 1
        self._late.pop(0)()

    @rule(
        who=trackers,
        image=images,
        wanted=requests,
        moment=st.sampled_from(MOMENTS),
        others=st.lists(st.tuples(images, requests), min_size=1, max_size=12),
    )
    def together(
        self, who: int, image: int, wanted: Sequence[Any], moment: str, others: list[Any]
    ) -> None:
        """Requests of another tracker come between two calls of the store."""
        one = who % len(self._trackers)
        built = Request(self, image, wanted)

        def between() -> None:
            self.met[f"together: before {moment}"] += 1
            for other_image, other_wanted in others:
                self._ask(one + 1, Request(self, other_image, other_wanted))

        self._between = moment, one, between
        self._ask(one, built)
        self._between = None

    @precondition(lambda self: self.nodes)
    @rule(age=ages, place=st.integers(0, 20), damage=st.sampled_from((None, "cut", "flip", "swap")))
    def lose(self, age: int, place: int, damage: str | None) -> None:
        """A record is evicted or damaged: a token's head, or a memory frame that it stands on."""
        node = self.node(age)
        if not self.world.knows_head(node):
            return
        token, prefix = self.tokens[node], f"{PREFIX}:{StandinModel.fingerprint}"
        key = f"{prefix}:h:{hash_id(token)}"
        head = read_head(token, self._shared.values[key], TINY)
        place %= len(node.bank.memories) + 1
        if place:
            rows = [*head.conditioning, *head.tracked]
            names = [row.memory.id for row in rows if row.memory is not None]
            key = f"{prefix}:m:{names[place - 1]}"
            if self.world.frames.pop(node.bank.memories[place - 1].id, None) is None:
                return  # lost before: a bit that flips twice would be right again
        else:
            self.world.heads.pop(node)
        record = self._shared.values.pop(key, None)
        self.met[f"{'damage: ' + damage if damage else 'eviction'}"] += 1
        if damage is None or record is None:
            return
        self._shared.values[key] = {
            "cut": record[: len(record) // 2],
            "flip": record[:-1] + bytes([record[-1] ^ 1]),
            "swap": next((each for each in self._shared.values.values() if each != record), b""),
        }[damage]
        for cache in self._caches:  # what is cached is not read, and would still be right
            cache.clear()

    @rule(seconds=st.integers(1, LIFE_SECONDS // 3))
    def wait(self, seconds: int) -> None:
        self.world.now += seconds

    def teardown(self) -> None:
        """Each token is asked for once more, of each tracker in turn."""
        try:
            for number in range(0, len(self.nodes), 4):
                wanted = [("step", number + more) for more in range(4)]
                self._ask(number // 4, Request(self, 0, wanted))
        finally:
            for tracker in self._trackers:
                tracker.close()

    # ---- what must come of it ----

    def _pass(self, who: int, moment: str) -> None:
        if self._between is not None and self._between[:2] == (moment, who):
            between, self._between = self._between[2], None
            between()
        request = self._running[who]
        if request is not None:
            request.passing(moment)

    def _ask(self, who: int, request: Request, *, may_fail: bool = False) -> bool:
        """Whether the store failed; raises unless everything is as it must be."""
        who %= len(self._trackers)
        self._running[who] = request
        door = self._doors[who]
        door.written = False
        body = body_to_request(json.dumps(request.body), max_objects=100, max_points=100_000)
        answer: dict[str, Any] = {}
        failure: AllObjectsFailed | StoreUnavailable | None = None
        try:
            answer = json.loads(answers_to_json(self._trackers[who].track(body)))
        except (AllObjectsFailed, StoreUnavailable) as error:
            failure = error
        finally:
            self._running[who] = None
        if door.written:
            request.saved()
        if isinstance(failure, StoreUnavailable):
            self.met["503"] += 1
            if not may_fail:
                raise Refused("the store did not fail") from failure
            return True
        expected = request.expect()
        codes = {index: each for index, each in enumerate(expected) if isinstance(each, str)}
        if failure is not None:
            if failure.indexes != list(codes) or failure.code != next(iter(codes.values())):
                raise Refused(f"{failure.code} at {failure.indexes}, not {codes}")
            self.met["every object failed"] += 1
            return False
        if codes and not any(isinstance(each, Node) for each in expected):
            raise Refused(f"an answer where every object fails: {codes}")
        for index, node in enumerate(expected):
            self._check(node, *(answer[n][index] for n in ("shapes", "scores", "states", "errors")))
        return False

    def _check(
        self, node: Node | str | None, shape: Any, score: Any, state: Any, error: Any
    ) -> None:
        found = {"shape": shape, "score": score}
        if not isinstance(node, Node):
            nothing = {"shape": None, "score": None}
            if (error and error["code"]) != node or found != nothing or state is not None:
                raise Refused(f"{error}, {found}, {state}, not {node}")
            self.met[node or "nothing to do"] += 1
            return
        if error is not None or found != node.answer:
            raise Refused(f"{error}, {found}, not {node.answer}")
        self.met[f"right answer under policy {node.bank.policy}"] += 1
        self.met["right answer in a search region"] += bool(node.region and node.region.share < 1)
        self.tokens[node] = state["id"]
        self.nodes.append(node)
