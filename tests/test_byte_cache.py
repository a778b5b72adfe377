# SPDX-License-Identifier: MIT
"""The cache keeps its limit, and drops the least recently used entry first."""

from hypothesis import given
from hypothesis import strategies as st

from sam2_tracker.byte_cache import ByteCache

PUTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40) | st.just(101)), max_size=60)


@given(puts=PUTS)
def test_the_cache_keeps_the_newest_entry_and_its_limit(puts: list[tuple[int, int]]) -> None:
    """What is larger than the limit is not kept."""
    cache: ByteCache[int, int] = ByteCache(100)
    last: dict[int, tuple[int, int]] = {}
    for number, (key, size) in enumerate(puts):
        cache.put(key, number, size)
        last[key] = (number, size)
        assert cache.get(key) == (number if size <= 100 else None)
        kept = {k: value for k in range(10) if (value := cache.get(k)) is not None}
        assert all(value == last[k][0] for k, value in kept.items())
        assert sum(last[k][1] for k in kept) <= 100


def test_the_least_recently_used_entry_is_dropped() -> None:
    cache: ByteCache[str, int] = ByteCache(2)
    cache.put("a", 1, 1)
    cache.put("b", 2, 1)
    assert cache.get("a") == 1
    cache.put("c", 3, 1)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_after_clearing_there_is_room_again() -> None:
    cache: ByteCache[str, int] = ByteCache(2)
    cache.put("a", 1, 2)
    cache.clear()
    assert cache.get("a") is None
    cache.put("b", 2, 1)
    cache.put("c", 3, 1)
    assert (cache.get("b"), cache.get("c")) == (2, 3)
