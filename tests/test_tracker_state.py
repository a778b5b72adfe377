# SPDX-License-Identifier: MIT
"""States in a real Redis: what is written, what comes back, and what is refused."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from faults.standin_model import SAM2
from observations import SMALL, observation
from torch import Tensor

from sam2_tracker.errors import OutOfMemory, StateGone
from sam2_tracker.ids import ID
from sam2_tracker.memory_bank import (
    MemoryBank,
    MemoryLayout,
    adopt_keyframes,
    correct_bank,
    start_bank,
)
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.memory_policy import remember
from sam2_tracker.record_format import RETAINED, Track
from sam2_tracker.records import open_records
from sam2_tracker.search_region import start_region
from sam2_tracker.settings import MIB, Settings
from sam2_tracker.stopwatch import StoreTraffic
from tools.redis_server import RedisServer
from tracker_state import StateStore, TrackState, adopt_references

TRACK = Track(
    width=640,
    height=480,
    shape_type="rectangle",
    box=(1.5, 2.0, 30.25, 40.0),
    region=start_region(2.5, (10, 20, 301, 240), width=640, height=480),
)


def open_store(server: RedisServer | None, **changes: Any) -> StateStore:
    settings = Settings()
    if server is not None:
        settings = Settings(redis_host=server.host, redis_port=server.port)
    options: dict[str, Any] = {
        "layout": SMALL,
        "fingerprint": "f" * 16,
        "prefix": "cvat-sam2",
        "ttl_seconds": settings.state_ttl_seconds,
        "device": torch.device("cpu"),
        "cache": MemoryCache(0),
    }
    return StateStore(open_records(settings), **(options | changes))


@pytest.fixture
def store(empty_redis: RedisServer) -> Iterator[StateStore]:
    opened = open_store(empty_redis)
    yield opened
    opened.close()


@pytest.fixture(params=["redis", "embedded"])
def any_store(request: pytest.FixtureRequest) -> Iterator[StateStore]:
    server = request.getfixturevalue("empty_redis") if request.param == "redis" else None
    opened = open_store(server)
    yield opened
    opened.close()


def started(
    number: int, layout: MemoryLayout = SMALL, track: Track = TRACK, policy: str = "official"
) -> TrackState:
    return TrackState(track=track, bank=start_bank(policy, observation(number, layout)))


def stepped(
    state: TrackState, number: int, layout: MemoryLayout = SMALL, **options: Any
) -> TrackState:
    bank = remember(state.bank, observation(number, layout, **options), layout)
    return replace(state, bank=bank)


def load(store: StateStore, id_: str) -> TrackState:
    state = store.load([id_])[0]
    assert isinstance(state, TrackState)
    return state


def walk(
    store: StateStore, steps: int, layout: MemoryLayout = SMALL, seed: int = 0
) -> tuple[list[str], list[TrackState]]:
    """Tracks one object; the ids and the states as they were before they were saved."""
    states = [started(seed, layout)]
    ids = store.save(states)
    for step in range(1, steps + 1):
        states.append(stepped(load(store, ids[-1]), seed + step, layout))
        ids += store.save([states[-1]])
    return ids, states


def same(one: TrackState, other: TrackState) -> bool:
    """Whether both remember the same, bit for bit."""

    def described(bank: MemoryBank) -> list[object]:
        frames = [(f.step, f.good, f.anchor, f.memory is None) for f in bank.tracked]
        drawn = [frame.step for frame in bank.conditioning]
        return [bank.policy, bank.step, bank.areas, drawn, frames]

    def tensors(bank: MemoryBank) -> list[Tensor]:
        pointers = [frame.pointer for frame in (*bank.conditioning, *bank.tracked)]
        return [*(memory.features for memory in bank.memories), *pointers]

    pairs = zip(tensors(one.bank), tensors(other.bank), strict=True)
    return (
        one.track == other.track
        and described(one.bank) == described(other.bank)
        and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)
    )


def is_gone(store: StateStore, id_: str) -> bool:
    state = store.load([id_])[0]
    if isinstance(state, StateGone):
        assert "start it again" in state.message
        return True
    return False


def test_states_come_back_bit_for_bit(any_store: StateStore) -> None:
    ids, states = walk(any_store, 40)
    assert same(load(any_store, ids[-1]), states[-1])
    assert states[-1].bank.step == 40
    assert len(states[-1].bank.memories) == 7
    assert len(states[-1].bank.tracked) == 15


def test_ids_are_43_url_safe_characters_that_the_store_does_not_know(
    empty_redis: RedisServer, store: StateStore
) -> None:
    """Who reads Redis cannot continue a track by it."""
    ids = [*walk(store, 12)[0], *store.save([started(n) for n in range(50)])]
    assert len(set(ids)) == len(ids) == 63
    assert all(ID.fullmatch(id_) for id_ in ids)
    with empty_redis.client() as client:
        everything = b"".join(key + client.get(key) for key in client.keys("*"))
    assert not [id_ for id_ in ids if id_.encode() in everything]


def branch(store: StateStore, id_: str, steps: int, seed: int) -> str:
    for number in range(steps):
        (id_,) = store.save([stepped(load(store, id_), seed + number)])
    return id_


def test_adopted_frames_are_shared(any_store: StateStore) -> None:
    """That they outlive their first track, faults/machine.py holds."""
    ids = [any_store.save([started(number)])[0] for number in (1, 2, 3)]
    first, second, third = (load(any_store, id_) for id_ in ids)
    bank = adopt_keyframes(first.bank, [(second.bank, 30), (third.bank, -12)])
    adopted = adopt_references(first, bank, second, third)
    traffic = StoreTraffic()
    (id_,) = any_store.save([adopted], traffic)
    assert traffic.written_bytes < 24 * 1024
    assert same(load(any_store, id_), adopted)


def test_a_drawn_frame_that_another_one_replaces_stays_with_its_own_track(
    any_store: StateStore,
) -> None:
    """A keyframe is adopted in the place of another: the track that this one began goes on."""
    ids = [any_store.save([started(number)])[0] for number in (1, 2, 3)]
    first, second, third = (load(any_store, id_) for id_ in ids)
    id_ = ids[0]
    for other in (second, third):
        state = load(any_store, id_)
        bank = adopt_keyframes(state.bank, [(other.bank, 30)])
        (id_,) = any_store.save([adopt_references(state, bank, other)])
    branch(any_store, id_, 2 * RETAINED, 700)
    for other, state in zip(ids[1:], (second, third), strict=True):
        assert same(load(any_store, other), state)


def test_a_track_corrected_50_times_stays_bounded(
    empty_redis: RedisServer, store: StateStore
) -> None:
    (id_,) = store.save([started(0)])
    for number in range(1, 51):
        id_ = branch(store, id_, 3, 10 * number)
        state = load(store, id_)
        bank = correct_bank(state.bank, started(1000 + number).bank, distance=0)
        (id_,) = store.save([adopt_references(state, bank)])
    kinds = [kind for kind, _, _ in records_in(empty_redis)]
    assert len(load(store, id_).bank.conditioning) == 8
    # 8 drawn ones, 43 that were replaced and live to the end of their time, 6 recent, 8 retained.
    assert kinds.count(b"m") <= 8 + 43 + 6 + 8
    assert kinds.count(b"h") == 1 + 9  # the start, and the last ones


@pytest.mark.parametrize("side", [64, 32])  # at 1024 px, and EfficientTAM's at 512
def test_a_step_writes_one_memory_frame_and_a_small_head(
    side: int, empty_redis: RedisServer
) -> None:
    layout = replace(SAM2, tokens=side * side)
    store = open_store(empty_redis, layout=layout, cache=MemoryCache(64 * MIB))
    ids, _ = walk(store, 20, layout)
    with empty_redis.client() as client:
        before = client.info("stats")
        state = stepped(load(store, ids[-1]), 99, layout)
        store.save([state])
        after = client.info("stats")
    written = after["total_net_input_bytes"] - before["total_net_input_bytes"]
    read = after["total_net_output_bytes"] - before["total_net_output_bytes"]
    assert 0 < written - side * side * 64 * 2 < 48 * 1024
    assert read < 48 * 1024  # the head; the memory frames are cached
    store.close()


def records_in(server: RedisServer) -> list[tuple[bytes, int, int]]:
    """Of each record: h for a head or m for a memory frame, its bytes, its seconds to live."""
    with server.client() as client:
        return [(k.split(b":")[2], client.strlen(k), client.ttl(k)) for k in client.keys("*")]


@pytest.mark.parametrize(
    ("policy", "bound"),
    [
        ("quality", 8.0),
        pytest.param("official", 7.75, marks=pytest.mark.slow),
        pytest.param("anchors", 8.75, marks=pytest.mark.slow),
    ],
)
def test_no_policy_lets_a_track_grow(empty_redis: RedisServer, policy: str, bound: float) -> None:
    """With hidden stretches and look-alikes, at SAM 2's size at 1024 px."""
    store = open_store(empty_redis, layout=SAM2, cache=MemoryCache(64 * MIB))
    (id_,) = store.save([started(0, SAM2, policy=policy)])
    for number in range(1, 70):
        hidden = number % 23 in range(8, 20)
        state = load(store, id_)
        (id_,) = store.save([stepped(state, number, SAM2, seen=not hidden, distractor=not hidden)])
        assert sum(size for _, size, _ in records_in(empty_redis)) < bound * MIB
    kinds, _, lives = zip(*records_in(empty_redis), strict=True)
    assert 0 < min(lives) <= max(lives) <= Settings().state_ttl_seconds  # none without an end
    assert max(size for kind, size, _ in records_in(empty_redis) if kind == b"h") < 24 * 1024
    assert kinds.count(b"h") == 1 + 1 + 8  # the start, the newest, and those before it
    if policy == "official":
        assert kinds.count(b"m") == 7 + 8
    store.close()


def test_a_good_frame_is_kept_as_long_as_the_object_hides(any_store: StateStore) -> None:
    (id_,) = any_store.save([started(0, policy="quality")])
    for number in range(1, 200):
        (id_,) = any_store.save([stepped(load(any_store, id_), number, seen=number < 10)])
    kept = [frame.step for frame in load(any_store, id_).bank.tracked if frame.memory]
    assert kept == [5, 6, 7, 8, 9, 199]


def test_expire_is_sent_only_for_frames_with_less_than_8_hours(empty_redis: RedisServer) -> None:
    clock = SimpleNamespace(seconds=1_700_000_000.0)
    store = open_store(empty_redis, clock=lambda: clock.seconds)

    def expired(pause: float) -> list[list[str]]:
        """The EXPIREs of one step after a pause."""
        nonlocal id_
        clock.seconds += pause
        with empty_redis.commands() as commands:
            id_ = store.save([stepped(load(store, id_), int(clock.seconds))])[0]
        return [command for command in commands if command[0] == "EXPIRE"]

    id_ = walk(store, 0)[0][-1]
    (conditioning,) = (reference.id for reference in load(store, id_).references.values())
    for _ in range(12):
        assert expired(100) == []  # 1200 s: just 8 h are left
    (only,) = expired(100)  # of the recent frames all have more
    assert conditioning in only[1]
    assert only[2] == str(Settings().state_ttl_seconds)
    for _ in range(12):
        assert expired(100) == []
    assert len(expired(3600)) == 6  # after an hour's pause: all that stay in use
    assert expired(10) == []
    store.close()


def test_states_of_another_layout_are_gone(empty_redis: RedisServer, store: StateStore) -> None:
    """Should two models ever share a fingerprint."""
    ids, _ = walk(store, 3)
    for change in ({"channels": 5}, {"tokens": 20}, {"pointer_channels": 9}):
        other = open_store(empty_redis, layout=replace(SMALL, **change))
        assert is_gone(other, ids[-1]), change
        other.close()


def change_a_bit(client: Any, key: bytes, place: int) -> None:
    value = bytearray(client.get(key))
    value[place] ^= 1
    client.set(key, bytes(value))


def change_the_type(client: Any, key: bytes) -> None:
    client.delete(key)
    client.lpush(key, "a")


@pytest.mark.parametrize(
    ("kind", "damage", "said"),
    [
        (b"h", lambda client, key: change_a_bit(client, key, 0), "unusable"),  # its seal
        (b"h", change_the_type, ""),
        (b"m", lambda client, key: change_a_bit(client, key, -5), "unusable"),  # a feature
        (b"m", lambda client, key: client.append(key, bytes(5000)), "it is too long"),
    ],
    ids=["head", "type of a head", "memory frame", "long memory frame"],
)
def test_a_damaged_record_is_gone_and_in_the_log(
    empty_redis: RedisServer, store: StateStore, caplog: pytest.LogCaptureFixture,
    kind: bytes, damage: Callable[..., None], said: str,
) -> None:  # fmt: skip
    """faults/campaign_records.py has many more kinds of damage."""
    (good,) = walk(store, 8, seed=500)[0][-1:]
    with empty_redis.client() as client:
        ours = set(client.keys("*"))
        ids, _ = walk(store, 8)
        for key in set(client.keys("*")) - ours:
            if key.split(b":")[2] == kind:
                damage(client, key)
    assert is_gone(store, ids[-1])
    assert said in caplog.text
    assert ids[-1] not in caplog.text
    assert not is_gone(store, good)


def short_of_memory(*_: object, **__: object) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_device_without_room_loses_no_track(empty_redis: RedisServer) -> None:
    store = open_store(empty_redis, cache=MemoryCache(1 << 20))
    with mock.patch.object(torch, "stack", short_of_memory), pytest.raises(OutOfMemory):
        store.save([started(7)])
    with mock.patch.object(torch.Tensor, "clone", short_of_memory):
        (id_,) = store.save([started(7)])  # stored, if not cached
    with mock.patch.object(torch.Tensor, "to", short_of_memory), pytest.raises(OutOfMemory):
        store.load([id_])
    assert same(load(store, id_), started(7))
    store.close()
