# SPDX-License-Identifier: MIT
"""What a day of tracking writes: Kvrocks gives the disk of expired and removed values back only
when it compacts, in CVAT's deployment every night at 3."""

import random
from dataclasses import replace

from faults.local import DictRecords, make_store
from faults.reference import noise_images
from faults.standin_model import SAM2, StandinModel
from sam2_tracker.memory_bank import start_bank
from sam2_tracker.memory_policy import remember
from sam2_tracker.record_format import Track
from tracker_state import TrackState

STEPS = 40
# A full working day of ten annotators: objects times frames.
OBJECT_STEPS_OF_A_DAY = 100_000
GIB = 1 << 30


def bytes_per_object_step() -> float:
    """Of values and keys, once the memory bank is full, at the sizes of SAM 2.1."""

    class CountingRecords(DictRecords):
        written = 0

        def put(self, records, **options):  # type: ignore[no-untyped-def]
            self.written += sum(len(key) + len(value) for key, value in records)
            super().put(records, **options)

    records = CountingRecords()
    store = make_store(records, SAM2, cache_bytes=64 << 20)
    model = StandinModel(layout=SAM2)
    frame = model.encode(noise_images(random.Random(0), 1, width=8, height=8)[0])
    start = model.start(frame, [(0.0, 0.0, 8.0, 8.0)], width=8, height=8)[0]
    track = Track(width=1920, height=1080, shape_type="mask")
    ids = store.save([TrackState(track=track, bank=start_bank("quality", start.seen))])
    for step in range(2 * STEPS):
        if step == STEPS:
            records.written = 0
        state = store.load(ids)[0]
        assert isinstance(state, TrackState)
        seen = model.step(frame, [state.bank])[0].seen
        ids = store.save([replace(state, bank=remember(state.bank, seen, SAM2))])
    return records.written / STEPS


def disk_line() -> str:
    each = bytes_per_object_step()
    return (
        f"{each / (1 << 20):.3f} MiB written per object and frame at the sizes of SAM 2.1; a "
        f"day of {OBJECT_STEPS_OF_A_DAY:,} objects x frames takes "
        f"{each * OBJECT_STEPS_OF_A_DAY / GIB:.0f} GiB until Kvrocks compacts"
    )
