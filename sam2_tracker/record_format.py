# SPDX-License-Identifier: MIT
"""The bytes of what is remembered: memory frames, and the heads that name them.

A memory frame is one safetensors record: `features`, bfloat16 (channels, tokens). A head is
a seal of 32 bytes and a safetensors record: `pointers`, float32 (frames, channels), and `head`, all
the rest as JSON. The seal is made with the token's id, which the store never sees, and the head
holds the digest of each of its memory frames. So what was altered in the store is not accepted.

Every function that reads raises ValueError for bytes that are not exactly what is expected.
"""

import base64
import hashlib
import hmac
import json
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from sam2_tracker.ids import ID
from sam2_tracker.memory_bank import MAX_CONDITIONING, MemoryLayout
from sam2_tracker.memory_policy import ANCHOR_AREAS, MAX_ANCHORS, POLICIES
from sam2_tracker.search_region import LARGEST_SIZE, LEAST_SHARE, SMALLEST_SIZE, SearchRegion
from sam2_tracker.shapes import ANSWER_TYPES, Box

VERSION = 3
"""Part of every fingerprint, so tracks of another version are not continued."""
RETAINED = 8
"""So many of the last tokens of a track can be repeated or branched from."""
SEAL_BYTES = 32
MAX_HEAD_BYTES = 1 << 20
MAX_SAFETENSORS_HEAD = 4096
MAX_STEP = 1 << 40
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class FrameReference:
    """Names a stored memory frame."""

    id: str
    digest: str
    """SHA-256 of the record."""
    expires_at: int
    """Unix time in seconds, as far as the head knows."""

    @property
    def name(self) -> str:
        """The frame's name in caches. It includes the digest, so that a frame is verified again
        for a head that expects another digest."""
        return f"{self.id}.{self.digest}"


@dataclass(frozen=True, kw_only=True)
class ConditioningRow:
    step: int
    memory: FrameReference


@dataclass(frozen=True, kw_only=True)
class TrackedRow:
    step: int
    memory: FrameReference | None
    """None: only the pointer is remembered."""
    good: bool
    anchor: bool


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """A memory frame that left use; it is removed RETAINED steps later."""

    id: str
    step: int
    """The step after which it was not in use any more."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """What else is known of an object. The box and the region may change with each frame, the
    tolerance with a correction."""

    width: int
    height: int
    shape_type: str
    box: Box = (0.0, 0.0, 0.0, 0.0)
    """In pixels: where a rectangle was seen last; of other types, where it was drawn last."""
    tolerance: float | None = None
    """Of the track's polygons, 1 - IoU; None: the function's setting."""
    region: SearchRegion | None = None
    """Where the object is searched on the next frame; None: on the whole image, always."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """A state as it is stored: everything but the features of its memory frames."""

    track: Track
    policy: str
    step: int
    conditioning: tuple[ConditioningRow, ...]
    """In the order in which they were given."""
    tracked: tuple[TrackedRow, ...]
    """Oldest first."""
    pointers: Tensor
    """float32 (conditioning + tracked frames, channels), in the order of both."""
    areas: tuple[int, ...]
    leaving: tuple[Leaving, ...]
    """Oldest first."""
    heads: tuple[str, ...]
    """The last heads of the track, oldest first, as hashed ids; the last is this one."""


def hash_id(id_: str) -> str:
    """The name of a head in the store: the SHA-256 of its token's id, 43 url-safe characters."""
    digest = hashlib.sha256(id_.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def write_frame(features: Tensor) -> bytes:
    """features: bfloat16 (channels, tokens), on any device. Returns one safetensors record."""
    return save({"features": features.cpu().contiguous()})


def read_frame(record: bytes, reference: FrameReference, layout: MemoryLayout) -> Tensor:
    """Features, bfloat16 (channels, tokens), on the CPU."""
    if len(record) > layout.frame_bytes + MAX_SAFETENSORS_HEAD:
        raise ValueError("it is too long")
    if hashlib.sha256(record).hexdigest() != reference.digest:
        raise ValueError("its digest is wrong")
    tensors = load(record)
    if set(tensors) != {"features"}:
        raise ValueError("it holds something else")
    shape = (layout.channels, layout.tokens)
    _check_tensor(tensors["features"], torch.bfloat16, shape)
    return tensors["features"]


def write_head(id_: str, head: Head) -> bytes:
    """id_: the token's id, which seals the record."""
    text = json.dumps(
        {
            "version": VERSION,
            "policy": head.policy,
            "step": head.step,
            "width": head.track.width,
            "height": head.track.height,
            "shape_type": head.track.shape_type,
            "box": head.track.box,
            "tolerance": head.track.tolerance,
            "region": head.track.region and _region_to_json(head.track.region),
            "conditioning": [
                [row.step, *_reference_to_json(row.memory)] for row in head.conditioning
            ],
            "tracked": [
                [row.step, row.good, row.anchor, *_reference_to_json(row.memory)]
                for row in head.tracked
            ],
            "areas": head.areas,
            "leaving": [[item.id, item.step] for item in head.leaving],
            "heads": head.heads,
        },
        allow_nan=False,
    )
    record = save(
        {
            "head": torch.from_numpy(np.frombuffer(text.encode(), dtype=np.uint8).copy()),
            "pointers": head.pointers.cpu().contiguous(),
        }
    )
    return seal(id_, record) + record


def read_head(id_: str, record: bytes, layout: MemoryLayout) -> Head:
    """id_: the token's id, which must be the one that sealed the record."""
    if len(record) > MAX_HEAD_BYTES:
        raise ValueError("it is too long")
    if not hmac.compare_digest(seal(id_, record[SEAL_BYTES:]), record[:SEAL_BYTES]):
        raise ValueError("its seal is broken")
    tensors = load(record[SEAL_BYTES:])
    if set(tensors) != {"head", "pointers"} or tensors["head"].dtype != torch.uint8:
        raise ValueError("it holds something else")
    content = json.loads(tensors["head"].numpy().tobytes())
    if content["version"] != VERSION:
        raise ValueError("it has another version")
    step = _whole(content["step"], 0, MAX_STEP)
    heads = tuple(_match(ID, head) for head in _at_most(content["heads"], RETAINED + 1))
    if not heads or heads[-1] != hash_id(id_):
        raise ValueError("it carries another id")
    conditioning = _json_to_conditioning(content["conditioning"])
    tracked = _json_to_tracked(content["tracked"], step, layout)
    steps = [row.step for row in tracked]
    if steps != sorted(set(steps)) or set(steps) & {row.step for row in conditioning}:
        raise ValueError("its frames are out of order")
    if content["policy"] not in POLICIES:
        raise ValueError("its memory policy is unknown")
    if content["shape_type"] not in ANSWER_TYPES:
        raise ValueError("its shape type is unknown")
    _check_tensor(
        tensors["pointers"],
        torch.float32,
        (len(conditioning) + len(tracked), layout.pointer_channels),
    )
    width, height = (_whole(content[name], 1, 1 << 20) for name in ("width", "height"))
    return Head(
        track=Track(
            width=width,
            height=height,
            shape_type=content["shape_type"],
            box=_json_to_box(content["box"]),
            tolerance=_json_to_tolerance(content["tolerance"]),
            region=_json_to_region(content["region"], width, height),
        ),
        policy=content["policy"],
        step=step,
        conditioning=conditioning,
        tracked=tracked,
        pointers=tensors["pointers"],
        areas=tuple(_whole(area, 1, 1 << 40) for area in _at_most(content["areas"], ANCHOR_AREAS)),
        leaving=tuple(
            Leaving(id=_match(ID, frame), step=_whole(at, 0, MAX_STEP))
            for frame, at in _at_most(content["leaving"], 4 * RETAINED)
        ),
        heads=heads,
    )


def seal(id_: str, record: bytes) -> bytes:
    """Keyed with the token's id: who has no token can make no head."""
    return hashlib.blake2b(record, key=id_.encode(), digest_size=SEAL_BYTES).digest()


def _reference_to_json(reference: FrameReference | None) -> list[str | int]:
    return [reference.id, reference.digest, reference.expires_at] if reference else []


def _json_to_reference(item: Any) -> FrameReference:
    id_, digest, expires_at = item
    return FrameReference(
        id=_match(ID, id_), digest=_match(DIGEST, digest), expires_at=_whole(expires_at, 0, 1 << 40)
    )


def _json_to_conditioning(items: Any) -> tuple[ConditioningRow, ...]:
    rows = tuple(
        ConditioningRow(step=_whole(at, -MAX_STEP, MAX_STEP), memory=_json_to_reference(reference))
        for at, *reference in _at_most(items, MAX_CONDITIONING)
    )
    if not rows:
        raise ValueError("it has no conditioning frame")
    return rows


def _json_to_tracked(items: Any, step: int, layout: MemoryLayout) -> tuple[TrackedRow, ...]:
    """step: of the head; no tracked frame is later."""
    return tuple(
        TrackedRow(
            step=_whole(at, 1 - MAX_STEP, step),
            good=_flag(good),
            anchor=_flag(anchor),
            memory=_json_to_reference(reference) if reference else None,
        )
        for at, good, anchor, *reference in _at_most(
            items, layout.pointers + layout.recent + MAX_ANCHORS + 2
        )
    )


def _json_to_box(numbers: Any) -> Box:
    left, top, right, bottom = (float(number) for number in numbers)
    if not all(map(math.isfinite, (left, top, right, bottom))):
        raise ValueError("its box is not finite")
    return left, top, right, bottom


def _json_to_tolerance(number: Any) -> float | None:
    return None if number is None else _real(number, 0, 1)


def _region_to_json(region: SearchRegion) -> list[Any]:
    return [region.size, region.share, region.window, region.centre, region.speed, region.seen]


def _json_to_region(item: Any, width: int, height: int) -> SearchRegion | None:
    if item is None:
        return None
    size, share, (x0, y0, x1, y1), (x, y), (across, down), seen = item
    left, top = _whole(x0, 0, width - 1), _whole(y0, 0, height - 1)
    return SearchRegion(
        size=_real(size, SMALLEST_SIZE, LARGEST_SIZE),
        share=_real(share, LEAST_SHARE, 1),
        window=(left, top, _whole(x1, left + 1, width), _whole(y1, top + 1, height)),
        centre=(_real(x, 0, width), _real(y, 0, height)),
        speed=(_real(across, 0, width), _real(down, 0, height)),
        seen=_flag(seen),
    )


def _at_most(items: Any, most: int) -> list[Any]:
    if not isinstance(items, list) or len(items) > most:
        raise ValueError("a list in it is malformed")
    return items


def _match(pattern: re.Pattern[str], text: Any) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ValueError("it has a malformed id")
    return text


def _whole(number: Any, low: int, high: int) -> int:
    if type(number) is not int or not low <= number <= high:
        raise ValueError("a number in it is out of range")
    return number


def _real(number: Any, low: float, high: float) -> float:
    if type(number) is not float or not low <= number <= high:
        raise ValueError("a number in it is out of range")
    return number


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("a flag in it is malformed")
    return value


def _check_tensor(tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if tensor.dtype != dtype or tensor.shape != shape:
        raise ValueError(f"a tensor in it is {tensor.dtype} {tuple(tensor.shape)}")
    if not tensor.isfinite().all():
        raise ValueError("a tensor in it has numbers that are not finite")
