# SPDX-License-Identifier: MIT
"""Waits that end, space that is bounded, requests that recover. The clocks are handed in."""

import socket
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import pytest
import redis.retry
from PIL import Image

from faults.campaign_leak import leak_campaign
from faults.local import DictRecords, make_tracker
from faults.proxy import Proxy
from faults.reference import image_to_png, noise_png
from faults.standin_model import StandinModel
from sam2_tracker.errors import EmptyShape, StoreUnavailable, TooLarge
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.protocol import Seed, TrackRequest
from sam2_tracker.records import RedisRecords
from sam2_tracker.settings import MIB, Settings
from sam2_tracker.store_call import StoreCall
from sam2_tracker.time_budget import TimeBudget
from tools.redis_server import RedisServer
from tracker import Tracker

SEED = Seed(type="rectangle", points=[2, 2, 20, 20])
SOON = 0.5  # the least that SAM2_REDIS_TIMEOUT_SECONDS allows
LATE = 20.0  # the most
START = TrackRequest(image=noise_png(), entries=(SEED,))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(persist=True) as redis_server:
        yield redis_server


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    with closing(Proxy(server.port)) as between:
        yield between


def connect(port: int, **more: Any) -> Tracker:
    settings: dict[str, Any] = {"redis_host": "127.0.0.1", "redis_port": port}
    settings["redis_timeout_seconds"] = LATE
    return make_tracker(RedisRecords(Settings(**settings)), **more, **settings)


@pytest.fixture
def patient(proxy: Proxy) -> Iterator[Tracker]:
    """Waits for the store as long as is allowed."""
    with closing(connect(proxy.port)) as tracker:
        yield tracker


def start(tracker: Tracker) -> TrackRequest:
    """A request that continues an object on the same image."""
    answer = tracker.track(START)[0]
    assert answer.token is not None
    return TrackRequest(image=START.image, entries=(answer.token,))


# ---- the store ----


def test_a_name_server_that_hangs_is_not_waited_for(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = threading.Event()
    look_up = socket.getaddrinfo

    def slow(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == "redis.test":
            hanging.wait()
            host = "127.0.0.1"
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    settings = Settings(redis_host="redis.test", redis_port=server.port)
    tracker = make_tracker(RedisRecords(settings), redis_timeout_seconds=SOON)
    for _ in range(2):  # the second waits behind the first
        with pytest.raises(StoreUnavailable, match="in time"):
            tracker.track(START)
    hanging.set()
    tracker.close()


def test_the_deadline_of_a_store_call_counts_from_its_submission() -> None:
    """The deadline is 3 s. After 2 s of decoding the store has 1 s left, and later none."""
    now, waits = [100.0], []

    class Hanging(Future[None]):
        def result(self, timeout: float | None = None) -> None:
            waits.append(timeout)
            raise TimeoutError

    for at in (102.0, 103.0, 110.0):
        call = StoreCall(Hanging(), 103.0, lambda: now[0])
        now[0] = at
        with pytest.raises(StoreUnavailable, match="in time"):
            call.wait()
    assert waits == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("attempts", [1, 6])
def test_a_restart_of_redis_is_not_seen(
    attempts: int, server: RedisServer, patient: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost connection is tried again 6 times in 2.2 s; here the server is back at one of them."""
    known = start(patient)
    expected = patient.track(known)[0]
    waits: list[float] = []
    own = patient._store_thread.submit(threading.get_ident).wait()

    def wait(seconds: float) -> None:
        if threading.get_ident() != own:
            return  # a call that an earlier test gave up
        waits.append(seconds)
        if len(waits) == attempts:
            server.start()

    monkeypatch.setattr(redis.retry, "sleep", wait)
    server.kill()
    answer = patient.track(known)[0]
    assert (answer.shape, answer.score) == (expected.shape, expected.score)
    assert len(waits) == attempts
    if attempts == 6:
        assert sum(waits) == pytest.approx(2.05, abs=0.2)


@pytest.mark.parametrize("objects", [1, 4])
@pytest.mark.parametrize("cached", [False, True])
def test_a_request_takes_three_round_trips_for_any_number_of_objects(
    proxy: Proxy, objects: int, cached: bool
) -> None:
    patient = connect(proxy.port, cache=MemoryCache(MIB if cached else 0))
    answers = patient.track(TrackRequest(image=START.image, entries=(SEED,) * objects))
    tokens = tuple(answer.token for answer in answers)
    proxy.delay_seconds = 0.05  # a client that asks twice without waiting is seen to do so
    before = proxy.round_trips
    patient.track(TrackRequest(image=START.image, entries=tokens))
    assert proxy.round_trips == before + 3
    patient.close()


# ---- memory ----


def masked(width: int, height: int, count: int) -> TrackRequest:
    """So many masks that cover all of an image of one colour."""
    everything = Seed(type="mask", points=[0, width * height, 0, 0, width - 1, height - 1])
    image = image_to_png(Image.new("RGB", (width, height)))
    return TrackRequest(image=image, entries=(everything,) * count)


def test_bitmaps_of_many_seeds_are_not_held_together() -> None:
    width, height = 2000, 1500
    request = masked(width, height, 40)
    tracker = make_tracker(DictRecords())
    tracemalloc.start()
    answers = tracker.track(request)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    tracker.close()
    assert all(answer.token for answer in answers)
    assert peak < 6 * width * height  # two or three while one mask is decoded


def test_more_seeds_than_a_large_image_allows_are_refused_with_the_number() -> None:
    tracker = make_tracker(DictRecords())
    with pytest.raises(TooLarge, match="27 masks and polygons .* send at most 26 at once"):
        tracker.track(masked(8000, 5000, 27))
    tracker.close()


@pytest.mark.slow
def test_nothing_leaks() -> None:
    tally = leak_campaign(300)
    print(tally.line())
    assert tally.mib < 20
    assert tally.handles <= 1  # a socket that is just being closed
    assert tally.connections <= 1


# ---- time ----


@pytest.mark.parametrize("fails", [False, True])
def test_shapes_that_take_too_long_to_prepare_are_refused(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the arrival of the request on, and also where each of them fails after a long time."""
    now, opening = [0.0], [0.5]

    class SlowModel(StandinModel):
        def scale_mask(self, mask: Any) -> Any:
            now[0] += 0.3
            if fails:
                raise EmptyShape("The polygon covers no pixel of the image.")
            return super().scale_mask(mask)

    tracker = make_tracker(DictRecords(), model=SlowModel())
    tracker.budget = TimeBudget(1.0, clock=lambda: now[0])
    open_frame = tracker._frames.open

    def open_slowly(image: bytes) -> Any:
        now[0] += opening[0]
        return open_frame(image)

    monkeypatch.setattr(tracker._frames, "open", open_slowly)
    seed = Seed(type="polygon", points=[1, 1, 30, 1, 30, 20])
    with pytest.raises(TooLarge, match=r"After 1 s only 2 of 100 new shapes are prepared"):
        tracker.track(TrackRequest(image=START.image, entries=(seed,) * 100))
    if not fails:
        for opening[0], count in ((0.5, 2), (26.0, 1)):  # one is always prepared
            answers = tracker.track(TrackRequest(image=START.image, entries=(seed,) * count))
            assert all(answer.token for answer in answers)
    tracker.close()
