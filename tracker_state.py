# SPDX-License-Identifier: MIT
"""What is remembered of tracked objects, saved and loaded.

Nothing stored is ever changed. A step writes one memory frame (under a random id) and one head: a
small record that names the memory frames it stands on. The token that goes to CVAT names the head.
So a repeated request, two requests from one token, several workers and a worker killed between two
writes are all correct without a lock.

    <prefix>:<fingerprint>:m:<id of the memory frame>     its features
    <prefix>:<fingerprint>:h:<hash of the token's id>     the head

A state is good as long as its head and every memory frame it names are in the store, also where a
worker has the frames in its cache: so all workers give the same answer. Where one track is
continued in two branches, the branch that runs ahead removes frames that the other one may still
need: a branch that is more than RETAINED steps behind can no longer be continued. The head of a
start and the frames that a person drew are never removed before their time: they may serve several
tracks.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sam2_tracker.errors import OutOfMemory, StateGone
from sam2_tracker.ids import new_id
from sam2_tracker.memory_bank import (
    ConditioningFrame,
    MemoryBank,
    MemoryFrame,
    MemoryLayout,
    TrackedFrame,
)
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.out_of_memory import memory_errors
from sam2_tracker.record_format import (
    RETAINED,
    ConditioningRow,
    FrameReference,
    Head,
    Leaving,
    Track,
    TrackedRow,
    hash_id,
    read_frame,
    read_head,
    write_frame,
    write_head,
)
from sam2_tracker.records import Records
from sam2_tracker.stopwatch import StoreTraffic

logger = logging.getLogger(__name__)

NO_MEMORY = "The device has too little memory for this request."
RENEW_BELOW = 0.96
"""The time to live of a memory frame in use is renewed when less than this share of it is left: 8 h
of 8 h 20 min, because CVAT's tokens live 8 h. Not on every step: Kvrocks rewrites the value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackState:
    """One object between two frames."""

    track: Track
    bank: MemoryBank
    references: Mapping[str, FrameReference] = field(default_factory=dict)
    """Of the bank's memory frames those that are stored already, by `MemoryFrame.id`."""
    leaving: tuple[Leaving, ...] = ()
    heads: tuple[str, ...] = ()
    """Hashed ids of the last heads of the track, oldest first; none: nothing is stored yet."""


class StateStore:
    """Loads and saves the states of many objects, in round trips that do not grow with them."""

    def __init__(
        self,
        records: Records,
        *,
        layout: MemoryLayout,
        fingerprint: str,
        prefix: str,
        ttl_seconds: int,
        device: torch.device,
        cache: MemoryCache | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """cache: keeps memory frames on the device. clock: Unix time in seconds."""
        self._records = records
        self._layout = layout
        self._key_prefix = f"{prefix}:{fingerprint}"
        self._ttl_seconds = ttl_seconds
        self._device = device
        self._cache = cache or MemoryCache(0)
        self._clock = clock

    @property
    def name(self) -> str:
        return self._records.name

    def probe(self) -> None:
        """Raises StoreUnavailable where the store does not answer, or takes no record."""
        self._records.probe(f"{self._key_prefix}:ready")

    def close(self) -> None:
        self._records.close()

    def load(
        self, ids: Sequence[str], traffic: StoreTraffic | None = None
    ) -> list[TrackState | StateGone]:
        """Reads the states of tokens: all heads, then all memory frames that are not cached.

        Raises StoreUnavailable, OutOfMemory. A state that is unknown, expired, of another model or
        damaged comes back as StateGone.
        """
        traffic = traffic or StoreTraffic()
        self._cache.begin_request()
        found = self._records.get([self._head_key(hash_id(id_)) for id_ in ids])
        heads = [self._read_head(id_, record) for id_, record in zip(ids, found, strict=True)]
        wanted = {
            reference.name: reference
            for head in heads
            if head is not None
            for reference in _references(head)
        }
        cached = {name: frame for name in wanted if (frame := self._cache.get(name)) is not None}
        missing = [reference for name, reference in wanted.items() if name not in cached]
        records, present = self._records.get_and_check(
            [self._frame_key(reference.id) for reference in missing],
            [self._frame_key(wanted[name].id) for name in cached],
        )
        frames = {
            name: frame
            for (name, frame), there in zip(cached.items(), present, strict=True)
            if there
        }
        for reference, record in zip(missing, records, strict=True):
            if (frame := self._read_frame(reference, record)) is not None:
                frames[frame.id] = frame
        traffic.read_bytes += sum(len(r) for r in (*found, *records) if r is not None)
        traffic.cache_hits += len(cached)
        traffic.cache_misses += len(missing)
        return [self._assemble(head, frames) for head in heads]

    @memory_errors(NO_MEMORY)
    def save(self, states: Sequence[TrackState], traffic: StoreTraffic | None = None) -> list[str]:
        """Writes states in one round trip and returns the ids of their tokens.

        Memory frames that `TrackState.references` does not name are written too. Raises
        StoreUnavailable, OutOfMemory; then no token names what was written, and it expires.
        """
        expires_at = int(self._clock()) + self._ttl_seconds
        frames: dict[str, bytes] = {}
        heads: dict[str, bytes] = {}
        extend: dict[str, None] = {}
        remove: dict[str, None] = {}
        ids = []
        for state in states:
            id_ = new_id()
            references = dict(state.references)
            for memory in state.bank.memories:
                if memory.id not in references:
                    record = write_frame(memory.features)
                    references[memory.id] = self._cache_new(memory, record, expires_at)
                    frames[self._frame_key(memory.id)] = record
                elif self._is_due(references[memory.id], expires_at):
                    references[memory.id] = replace(references[memory.id], expires_at=expires_at)
                    extend[self._frame_key(references[memory.id].id)] = None
            leaving, stale = self._leave(state)
            chain = (*state.heads, hash_id(id_))
            head = _bank_to_head(state, references, leaving, chain[-RETAINED - 1 :])
            heads[self._head_key(hash_id(id_))] = write_head(id_, head)
            remove |= dict.fromkeys(map(self._frame_key, stale))
            remove |= dict.fromkeys(map(self._head_key, chain[: -RETAINED - 1]))
            ids.append(id_)
        self._records.put(
            [*frames.items(), *heads.items()],
            ttl_seconds=self._ttl_seconds,
            extend=list(extend),
            remove=list(remove),
        )
        if traffic is not None:
            traffic.written_bytes += sum(map(len, (*frames.values(), *heads.values())))
        return ids

    def _head_key(self, hashed_id: str) -> str:
        return f"{self._key_prefix}:h:{hashed_id}"

    def _frame_key(self, id_: str) -> str:
        return f"{self._key_prefix}:m:{id_}"

    def _is_due(self, reference: FrameReference, expires_at: int) -> bool:
        return reference.expires_at < expires_at - (1 - RENEW_BELOW) * self._ttl_seconds

    def _leave(self, state: TrackState) -> tuple[tuple[Leaving, ...], list[str]]:
        """The frames that have left use, and the ids of those that are now removed."""
        bank, used = state.bank, {memory.id for memory in state.bank.memories}
        left = [reference.id for name, reference in state.references.items() if name not in used]
        for name in state.references.keys() - used:
            self._cache.retire(name)
        leaving = (*state.leaving, *(Leaving(id=id_, step=bank.step) for id_ in left))
        stale = [item.id for item in leaving if item.step <= bank.step - RETAINED]
        return tuple(item for item in leaving if item.id not in stale), stale

    def _cache_new(self, memory: MemoryFrame, record: bytes, expires_at: int) -> FrameReference:
        reference = FrameReference(
            id=memory.id, digest=hashlib.sha256(record).hexdigest(), expires_at=expires_at
        )
        # Without room for it the next step reads it from the store.
        with suppress(OutOfMemory), memory_errors("no room for a memory frame in the cache"):
            # A copy: a view would keep the whole batch alive that it was cut from.
            self._cache.put(MemoryFrame(id=reference.name, features=memory.features.clone()))
        return reference

    def _assemble(
        self, head: Head | None, frames: Mapping[str, MemoryFrame]
    ) -> TrackState | StateGone:
        if head is None or not all(reference.name in frames for reference in _references(head)):
            return StateGone(
                "The track of this object is not known any more; start it again from its shape."
            )
        pointers = self._to_device(head.pointers)
        conditioning = tuple(
            ConditioningFrame(step=row.step, memory=frames[row.memory.name], pointer=pointer)
            for row, pointer in zip(head.conditioning, pointers, strict=False)
        )
        tracked = tuple(
            TrackedFrame(
                step=row.step,
                memory=frames[row.memory.name] if row.memory else None,
                pointer=pointer,
                good=row.good,
                anchor=row.anchor,
            )
            for row, pointer in zip(head.tracked, pointers[len(conditioning) :], strict=True)
        )
        return TrackState(
            track=head.track,
            bank=MemoryBank(
                policy=head.policy,
                step=head.step,
                conditioning=conditioning,
                tracked=tracked,
                areas=head.areas,
            ),
            references={reference.name: reference for reference in _references(head)},
            leaving=head.leaving,
            # Nothing that follows removes a start: its object can be tracked from there again.
            heads=head.heads if head.step else (),
        )

    def _read_head(self, id_: str, record: bytes | None) -> Head | None:
        if record is None:
            return None
        try:
            return read_head(id_, record, self._layout)
        except Exception as error:  # a corrupt or hostile record must not crash the worker
            logger.error("head %s is unusable: %s", hash_id(id_)[:8], error)
            return None

    def _read_frame(self, reference: FrameReference, record: bytes | None) -> MemoryFrame | None:
        if record is None:
            return None
        try:
            features = read_frame(record, reference, self._layout)
        except Exception as error:  # a corrupt or hostile record must not crash the worker
            logger.error("memory frame %s is unusable: %s", hash_id(reference.id)[:8], error)
            return None
        frame = MemoryFrame(id=reference.name, features=self._to_device(features))
        self._cache.put(frame)
        return frame

    def _to_device(self, tensor: Tensor) -> Tensor:
        # The record is sound: the track goes on when there is room again.
        with memory_errors(NO_MEMORY):
            return tensor.to(self._device)


def adopt_references(state: TrackState, bank: MemoryBank, *others: TrackState) -> TrackState:
    """The state with a bank that stands on conditioning frames of other states as well.

    A drawn frame that was replaced is not referred to any more, and not removed either: other
    tracks may stand on it.
    """
    replaced = {frame.memory.id for frame in state.bank.conditioning} - {
        frame.memory.id for frame in bank.conditioning
    }
    known = {
        name: reference for name, reference in state.references.items() if name not in replaced
    }
    for other in others:
        known |= {
            frame.memory.id: other.references[frame.memory.id]
            for frame in bank.conditioning
            if frame.memory.id in other.references
        }
    return replace(state, bank=bank, references=known)


def _references(head: Head) -> tuple[FrameReference, ...]:
    tracked = (row.memory for row in head.tracked)
    return (
        *(row.memory for row in head.conditioning),
        *(memory for memory in tracked if memory is not None),
    )


def _bank_to_head(
    state: TrackState,
    references: Mapping[str, FrameReference],
    leaving: tuple[Leaving, ...],
    heads: tuple[str, ...],
) -> Head:
    bank = state.bank
    return Head(
        track=state.track,
        policy=bank.policy,
        step=bank.step,
        conditioning=tuple(
            ConditioningRow(step=frame.step, memory=references[frame.memory.id])
            for frame in bank.conditioning
        ),
        tracked=tuple(
            TrackedRow(
                step=frame.step,
                memory=references[frame.memory.id] if frame.memory else None,
                good=frame.good,
                anchor=frame.anchor,
            )
            for frame in bank.tracked
        ),
        pointers=torch.stack(
            [f.pointer for f in bank.conditioning] + [f.pointer for f in bank.tracked]
        ),
        areas=bank.areas,
        leaving=leaving,
        heads=heads,
    )
