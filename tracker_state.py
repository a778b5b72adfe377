# SPDX-License-Identifier: MIT
"""What is remembered of a tracked object, its bytes, and how they are written and read.

Nothing stored is ever changed. A step writes one memory frame (under a random id) and one head: a
small record that names the memory frames it stands on. The token that goes to CVAT names the head.
So a repeated request, two requests from one token, several workers and a worker killed between two
writes are all correct without a lock.

    <prefix>:<fingerprint>:m:<id of the memory frame>     features, bfloat16
    <prefix>:<fingerprint>:h:<hash of the token's id>     pointers, float32; everything else as JSON

The head is sealed with the token's id, which the store never sees, and holds the digest of each of
its memory frames: what was altered in the store does not come back as a mask.
"""

import base64
import hashlib
import hmac
import json
import logging
import math
import re
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from sam2_tracker.byte_cache import ByteCache
from sam2_tracker.errors import OutOfMemory, StateGone
from sam2_tracker.memory_bank import MemoryBank, MemoryLayout
from sam2_tracker.records import Records
from sam2_tracker.shapes import SHAPE_TYPES, Box

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
# Memory frames and heads kept beyond those in use: so many of the last tokens can be repeated or
# branched from.
RETAINED = 8
# A referenced memory frame gets a new full life when it has less than this part of one left: 8 of
# 8 h 20 min, what CVAT's tokens live. Rarely, because Kvrocks rewrites the value for it.
RENEW_BELOW = 0.96
SEAL_BYTES = 32
MAX_HEAD_BYTES = 1 << 20
MAX_SAFETENSORS_HEAD = 4096
ID = re.compile(r"[A-Za-z0-9_-]{43}")
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class FrameReference:
    """Names a stored memory frame."""

    id: str
    digest: str
    expires_at: int
    """Unix time in seconds, as far as the head knows."""

    @property
    def name(self) -> tuple[str, str]:
        """With the digest, so that what one head's digest proved is no proof for another's."""
        return self.id, self.digest


@dataclass(frozen=True, kw_only=True)
class History:
    """Where an object's memory lies in the store."""

    conditioning: FrameReference
    recent: tuple[FrameReference, ...] = ()
    """Oldest first: those in use and the retained ones."""
    heads: tuple[str, ...] = ()
    """The last heads of the track, oldest first, as hashed ids."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """What is told about an object when it starts; only the box changes on the way."""

    width: int
    height: int
    shape_type: str
    box: Box = (0.0, 0.0, 0.0, 0.0)
    """Where a rectangle was seen last; of other shapes all 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackState:
    track: Track
    bank: MemoryBank
    history: History | None = None
    """None: nothing of this track is stored yet."""


@dataclass(frozen=True, kw_only=True)
class StoreTraffic:
    """What went to and from the store since it was opened."""

    read_bytes: int = 0
    written_bytes: int = 0
    cache_hits: int = 0
    """Memory frames that were in the device's cache."""
    cache_misses: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Head:
    """A stored state as it is read: its memory frames are still to be fetched."""

    track: Track
    step: int
    pointers: Tensor
    history: History


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
        cache_bytes: int,
    ) -> None:
        self._records = records
        self._layout = layout
        self._key_prefix = f"{prefix}:{fingerprint}"
        self._ttl_seconds = ttl_seconds
        self._device = device
        # Memory frames on the device, by id and digest.
        self._cache: ByteCache[tuple[str, str], Tensor] = ByteCache(cache_bytes)
        self.traffic = StoreTraffic()

    @property
    def name(self) -> str:
        return self._records.name

    def ping(self) -> None:
        """Raises StoreUnavailable."""
        self._records.ping()

    def close(self) -> None:
        self._records.close()

    def load(self, ids: Sequence[str]) -> list[TrackState | StateGone]:
        """Reads the states of tokens: all heads, then all memory frames that are not cached.

        Raises StoreUnavailable, OutOfMemory. A state that is unknown, expired, of another model or
        damaged comes back as StateGone.
        """
        found = self._records.get([self._head_key(_hash_id(id_)) for id_ in ids])
        heads = [self._read_head(id_, record) for id_, record in zip(ids, found, strict=True)]
        wanted = {
            reference.name: reference
            for head in heads
            if head is not None
            for reference in self._in_use(head.history)
        }
        frames = {name: frame for name in wanted if (frame := self._cache.get(name)) is not None}
        missing = [reference for name, reference in wanted.items() if name not in frames]
        records = self._records.get([self._frame_key(reference.id) for reference in missing])
        for reference, record in zip(missing, records, strict=True):
            if (frame := self._read_frame(reference, record)) is not None:
                frames[reference.name] = frame
        self.traffic = replace(
            self.traffic,
            read_bytes=self.traffic.read_bytes
            + sum(len(record) for record in (*found, *records) if record is not None),
            cache_hits=self.traffic.cache_hits + len(wanted) - len(missing),
            cache_misses=self.traffic.cache_misses + len(missing),
        )
        return [self._assemble(head, frames) for head in heads]

    def save(self, states: Sequence[TrackState]) -> list[str]:
        """Writes states in one round trip and returns the ids of their tokens.

        Of each the newest memory frame is new and the others are stored already. Raises
        StoreUnavailable; then nothing can be seen of it but records that expire.
        """
        expires_at = int(time.time()) + self._ttl_seconds
        frames, heads, ids = [], [], []
        extend: list[str] = []
        remove: list[str] = []
        for state in states:
            id_ = secrets.token_urlsafe(32)
            frame_id = secrets.token_urlsafe(32)
            record = save({"features": state.bank.newest.cpu().contiguous()})
            reference = FrameReference(
                id=frame_id, digest=hashlib.sha256(record).hexdigest(), expires_at=expires_at
            )
            history, stale = self._advance_history(state.history, reference, _hash_id(id_))
            history, renewed = self._renew(history, expires_at)
            frames.append((self._frame_key(frame_id), record))
            heads.append((self._head_key(_hash_id(id_)), self._write_head(id_, state, history)))
            extend += renewed
            remove += stale
            ids.append(id_)
            with suppress(torch.OutOfMemoryError):  # then the next step reads it from the store
                # A copy: a view would keep the whole batch alive that it was cut from.
                features = state.bank.newest.clone()
                self._cache.put(reference.name, features, features.nbytes)
        self._records.put(
            [*frames, *heads],
            ttl_seconds=self._ttl_seconds,
            extend=list(dict.fromkeys(extend)),
            remove=list(dict.fromkeys(remove)),
        )
        written = sum(len(record) for _, record in (*frames, *heads))
        self.traffic = replace(self.traffic, written_bytes=self.traffic.written_bytes + written)
        return ids

    def forget_frames(self) -> None:
        """Empties the device's cache of memory frames; they are read from the store again."""
        self._cache.clear()

    def _head_key(self, hashed_id: str) -> str:
        return f"{self._key_prefix}:h:{hashed_id}"

    def _frame_key(self, id_: str) -> str:
        return f"{self._key_prefix}:m:{id_}"

    def _in_use(self, history: History) -> tuple[FrameReference, ...]:
        return (history.conditioning, *history.recent[-self._layout.recent :])

    def _assemble(
        self, head: _Head | None, frames: dict[tuple[str, str], Tensor]
    ) -> TrackState | StateGone:
        gone = StateGone(
            "The track of this object is not known any more; start it again from its shape."
        )
        if head is None:
            return gone
        names = [reference.name for reference in self._in_use(head.history)]
        if not all(name in frames for name in names):
            return gone
        conditioning, *recent = (frames[name] for name in names)
        bank = MemoryBank(
            step=head.step,
            conditioning=conditioning,
            recent=tuple(recent),
            pointers=self._to_device(head.pointers),
        )
        return TrackState(track=head.track, bank=bank, history=head.history)

    def _advance_history(
        self, history: History | None, new: FrameReference, head: str
    ) -> tuple[History, list[str]]:
        """The history with a new memory frame and head, and the keys that are now too old."""
        if history is None:
            return History(conditioning=new, heads=(head,)), []
        recent, heads = (*history.recent, new), (*history.heads, head)
        kept = self._layout.recent + RETAINED
        stale = [self._frame_key(reference.id) for reference in recent[:-kept]]
        stale += [self._head_key(old) for old in heads[: -RETAINED - 1]]
        return replace(history, recent=recent[-kept:], heads=heads[-RETAINED - 1 :]), stale

    def _renew(self, history: History, expires_at: int) -> tuple[History, list[str]]:
        """The history after its frames in use were given a new life, and the keys of those."""
        due = expires_at - (1 - RENEW_BELOW) * self._ttl_seconds
        keys: list[str] = []

        def renewed(reference: FrameReference) -> FrameReference:
            if reference.expires_at >= due:
                return reference
            keys.append(self._frame_key(reference.id))
            return replace(reference, expires_at=expires_at)

        split = max(0, len(history.recent) - self._layout.recent)
        recent = (*history.recent[:split], *map(renewed, history.recent[split:]))
        return replace(history, conditioning=renewed(history.conditioning), recent=recent), keys

    def _write_head(self, id_: str, state: TrackState, history: History) -> bytes:
        text = json.dumps(
            {
                "version": FORMAT_VERSION,
                "step": state.bank.step,
                "width": state.track.width,
                "height": state.track.height,
                "shape_type": state.track.shape_type,
                "box": state.track.box,
                "conditioning": _reference_to_json(history.conditioning),
                "recent": [_reference_to_json(reference) for reference in history.recent],
                "heads": history.heads,
            },
            allow_nan=False,
        )
        record = save(
            {
                "head": torch.from_numpy(np.frombuffer(text.encode(), dtype=np.uint8).copy()),
                "pointers": state.bank.pointers.cpu().contiguous(),
            }
        )
        return _seal(id_, record) + record

    def _read_head(self, id_: str, record: bytes | None) -> _Head | None:
        if record is None:
            return None
        try:
            if len(record) > MAX_HEAD_BYTES:
                raise ValueError("it is too long")
            if not hmac.compare_digest(_seal(id_, record[SEAL_BYTES:]), record[:SEAL_BYTES]):
                raise ValueError("its seal is broken")
            tensors = load(record[SEAL_BYTES:])
            if set(tensors) != {"head", "pointers"} or tensors["head"].dtype != torch.uint8:
                raise ValueError("it holds something else")
            content = json.loads(tensors["head"].numpy().tobytes())
            return self._check_head(id_, content, tensors["pointers"])
        except Exception as error:  # whatever a hostile record provokes, it is no state
            logger.error("head %s is unusable: %s", _hash_id(id_)[:8], error)
            return None

    def _check_head(self, id_: str, content: Any, pointers: Tensor) -> _Head:
        layout = self._layout
        if content["version"] != FORMAT_VERSION:
            raise ValueError("it is of another version")
        step = _whole(content["step"], 0, 1 << 40)
        heads = tuple(_match(ID, head) for head in content["heads"])
        if len(heads) != min(step, RETAINED) + 1 or heads[-1] != _hash_id(id_):
            raise ValueError("it carries another id")
        recent = tuple(_json_to_reference(item) for item in content["recent"])
        if len(recent) != min(step, layout.recent + RETAINED):
            raise ValueError("its memory frames do not fit its step")
        _check_tensor(
            pointers, torch.float32, (1 + min(step, layout.pointers), layout.pointer_channels)
        )
        box = tuple(float(number) for number in content["box"])
        if len(box) != 4 or not all(map(math.isfinite, box)):
            raise ValueError("its box is not one")
        if content["shape_type"] not in SHAPE_TYPES:
            raise ValueError("its shape type is unknown")
        return _Head(
            track=Track(
                width=_whole(content["width"], 1, 1 << 20),
                height=_whole(content["height"], 1, 1 << 20),
                shape_type=content["shape_type"],
                box=(box[0], box[1], box[2], box[3]),
            ),
            step=step,
            pointers=pointers,
            history=History(
                conditioning=_json_to_reference(content["conditioning"]),
                recent=recent,
                heads=heads,
            ),
        )

    def _read_frame(self, reference: FrameReference, record: bytes | None) -> Tensor | None:
        if record is None:
            return None
        layout = self._layout
        try:
            if len(record) > layout.frame_bytes + MAX_SAFETENSORS_HEAD:
                raise ValueError("it is too long")
            if hashlib.sha256(record).hexdigest() != reference.digest:
                raise ValueError("its digest is wrong")
            tensors = load(record)
            if set(tensors) != {"features"}:
                raise ValueError("it holds something else")
            _check_tensor(
                tensors["features"], torch.bfloat16, (layout.channels, layout.height, layout.width)
            )
        except Exception as error:  # whatever a hostile record provokes, it is no memory
            logger.error("memory frame %s is unusable: %s", _hash_id(reference.id)[:8], error)
            return None
        features = self._to_device(tensors["features"])
        self._cache.put(reference.name, features, features.nbytes)
        return features

    def _to_device(self, tensor: Tensor) -> Tensor:
        # Not a fault of the record: the track goes on when there is room again.
        try:
            return tensor.to(self._device)
        except torch.OutOfMemoryError:
            raise OutOfMemory("The device has too little memory for this request.") from None


def _hash_id(id_: str) -> str:
    digest = hashlib.sha256(id_.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _seal(id_: str, record: bytes) -> bytes:
    return hashlib.blake2b(record, key=id_.encode(), digest_size=SEAL_BYTES).digest()


def _reference_to_json(reference: FrameReference) -> list[str | int]:
    return [reference.id, reference.digest, reference.expires_at]


def _json_to_reference(item: Any) -> FrameReference:
    id_, digest, expires_at = item
    return FrameReference(
        id=_match(ID, id_), digest=_match(DIGEST, digest), expires_at=_whole(expires_at, 0, 1 << 40)
    )


def _match(pattern: re.Pattern[str], text: Any) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ValueError("an id in it is none")
    return text


def _whole(number: Any, low: int, high: int) -> int:
    if type(number) is not int or not low <= number <= high:
        raise ValueError("a number in it is out of range")
    return number


def _check_tensor(tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if tensor.dtype != dtype or tensor.shape != shape:
        raise ValueError(f"a tensor in it is {tensor.dtype} {tuple(tensor.shape)}")
    if not tensor.isfinite().all():
        raise ValueError("a tensor in it has numbers that are not finite")
