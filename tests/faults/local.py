# SPDX-License-Identifier: MIT
"""A tracker in this process: the stand-in model, any store."""

from collections.abc import Sequence
from typing import Any

from faults.standin_model import StandinModel
from sam2_tracker.memory_bank import MemoryLayout
from sam2_tracker.records import Records
from sam2_tracker.settings import Settings
from tracker import Tracker
from tracker_state import StateStore


class DictRecords:
    """Records in a dict that a test may change behind the function's back."""

    name = "dict"

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def ping(self) -> None:
        pass

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self.values.get(key) for key in keys]

    def put(
        self,
        records: Sequence[tuple[str, bytes]],
        *,
        ttl_seconds: int,
        extend: Sequence[str],
        remove: Sequence[str],
    ) -> None:
        self.values.update(records)
        for key in remove:
            self.values.pop(key, None)

    def close(self) -> None:
        self.values.clear()


def make_store(
    records: Records,
    layout: MemoryLayout,
    *,
    ttl_seconds: int = 30_000,
    cache_bytes: int = 0,
    fingerprint: str = StandinModel.fingerprint,
) -> StateStore:
    return StateStore(
        records,
        layout=layout,
        fingerprint=fingerprint,
        prefix="cvat-sam2",
        ttl_seconds=ttl_seconds,
        device=StandinModel.device,
        cache_bytes=cache_bytes,
    )


def make_tracker(records: Records, *, model: Any = None, **settings: Any) -> Tracker:
    model = model or StandinModel()
    return Tracker(model, make_store(records, model.layout), Settings(threads=1, **settings))
