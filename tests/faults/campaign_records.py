# SPDX-License-Identifier: MIT
"""Stored bytes that were changed: damaged as a disk or an intruder would, and altered so that
digest and seal are right again, as only somebody who holds the token could."""

import hashlib
import json
import pickle
import random
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from faults.local import PREFIX, DictRecords, make_tracker
from faults.reference import Node, Reference, image_to_png, noise_images, random_shapes
from faults.standin_model import StandinModel
from sam2_tracker.errors import AllObjectsFailed
from sam2_tracker.protocol import Seed, Token, TrackRequest
from sam2_tracker.record_format import SEAL_BYTES, VERSION, hash_id, seal

WIDTH, HEIGHT, IMAGES = 40, 30, 8
PICKLE = pickle.dumps(print)


@dataclass(kw_only=True)
class RecordsTally:
    mutations: int = 0
    resealed: int = 0
    """Of these with digest and seal made right again."""
    gone: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def line(self) -> str:
        return (
            f"{self.mutations:,} changes of {len(self.kinds)} kinds ({self.resealed:,} with digest "
            f"and seal made right again); state_gone {self.gone:,} x"
        )


class Victim:
    """A track in a store whose bytes can be changed, another beside it, and what is right."""

    def __init__(self, rng: random.Random) -> None:
        images = noise_images(rng, IMAGES, width=WIDTH, height=HEIGHT)
        self._pictures = [image_to_png(image) for image in images]
        reference = Reference(StandinModel(), images)
        self.records = DictRecords()
        self._tracker = make_tracker(self.records)
        self._prefix = f"{PREFIX}:{StandinModel.fingerprint}"
        self.ids: list[str] = []
        """The tokens of the two tracks."""
        shapes = random_shapes(rng, 2, width=WIDTH, height=HEIGHT)
        nodes = [reference.start(0, shape) for shape in shapes]
        self._send(0, shapes=shapes)
        for _ in range(rng.choice((0, 1, 3, 9, 20))):
            image = rng.randrange(IMAGES)
            nodes = [reference.step(image, node) for node in nodes]
            self._send(image)
        self._right: list[Node] = [reference.step(1, node) for node in nodes]
        self._values = dict(self.records.values)

    def close(self) -> None:
        self._tracker.close()

    def restore(self) -> None:
        self.records.values = dict(self._values)

    def head_key(self, who: int) -> str:
        return f"{self._prefix}:h:{hash_id(self.ids[who])}"

    def frame_key(self, id_: str) -> str:
        return f"{self._prefix}:m:{id_}"

    def head(self, who: int) -> tuple[Any, torch.Tensor]:
        tensors = load(self._values[self.head_key(who)][SEAL_BYTES:])
        return json.loads(tensors["head"].numpy().tobytes()), tensors["pointers"]

    def frames_in_use(self, who: int) -> list[str]:
        content, _ = self.head(who)
        return [row[-3] for row in rows_with_frames(content)]

    def write_head(self, who: int, record: bytes) -> None:
        """With the right seal."""
        self.records.values[self.head_key(who)] = seal(self.ids[who], record) + record

    def verdict(self) -> str | None:
        """What is wrong with the answer about the two tracks, the first being damaged."""
        entries = tuple(Token(id=id_) for id_ in self.ids)
        answers = self._tracker.track(TrackRequest(image=self._pictures[1], entries=entries))
        first, second = answers
        if first.error is None or first.error.code != "state_gone":
            return f"{first.error and first.error.code}, a mask: {first.shape is not None}"
        right = self._right[1].answer
        if second.error or second.score != right["score"]:
            return "the other track suffered"
        shape = second.shape and {"type": second.shape.type, "points": second.shape.points}
        if second.shape is not None and second.shape.outside:
            shape = {**(shape or {}), "outside": True}
        if shape != right["shape"]:
            return "the other track's mask is wrong"
        # And by itself: then the whole request is refused.
        try:
            self._tracker.track(TrackRequest(image=self._pictures[1], entries=entries[:1]))
        except AllObjectsFailed as error:
            return None if error.status == 410 else f"status {error.status}"
        return "no error"

    def _send(self, image: int, shapes: Any = ()) -> None:
        entries: Any = [Seed(type=shape["type"], points=shape["points"]) for shape in shapes]
        entries = entries or [Token(id=id_) for id_ in self.ids]
        request = TrackRequest(image=self._pictures[image], entries=tuple(entries))
        self.ids = [answer.token.id for answer in self._tracker.track(request) if answer.token]


def rows_with_frames(content: Any) -> list[Any]:
    """Rows that end in a reference: id, digest and expiry of a memory frame."""
    return [*content["conditioning"], *(row for row in content["tracked"] if len(row) > 3)]


# --- damage: the digest or the seal does not fit any more


def damage(rng: random.Random, victim: Victim) -> str:
    frames = [victim.frame_key(id_) for id_ in victim.frames_in_use(0)]
    key = rng.choice((victim.head_key(0), rng.choice(frames)))
    values = victim.records.values
    old = values[key]
    where = "head" if key == victim.head_key(0) else "frame"
    name, new = rng.choice(_DAMAGES)(rng, old, victim)
    if new is None:
        del values[key]
    else:
        values[key] = new
        if new == old:  # nothing was changed
            values[key] = old + b"\0"
    return f"{where}: {name}"


def _flip(rng: random.Random, old: bytes, _: Victim) -> tuple[str, bytes | None]:
    new = bytearray(old)
    for _i in range(rng.choice((1, 1, 2, 50))):
        new[rng.randrange(len(new))] ^= 1 << rng.randrange(8)
    return "bits flipped", bytes(new)


def _another(rng: random.Random, old: bytes, victim: Victim) -> tuple[str, bytes | None]:
    others = [value for value in victim.records.values.values() if value != old]
    return "another record", rng.choice(others)


_DAMAGES: list[Callable[[random.Random, bytes, Victim], tuple[str, bytes | None]]] = [
    _flip,
    lambda rng, old, _: ("cut", old[: rng.randrange(len(old))]),
    lambda rng, old, _: ("front cut", old[rng.randrange(1, len(old)) :]),
    lambda rng, old, _: ("longer", old + rng.randbytes(rng.randint(1, 100))),
    lambda rng, old, _: ("zeros", bytes(len(old))),
    lambda rng, old, _: ("noise", rng.randbytes(len(old))),
    lambda rng, old, _: ("pickle", PICKLE),
    lambda rng, old, _: ("gone", None),
    lambda rng, old, _: ("giant header", struct.pack("<Q", rng.choice(GIANTS)) + old[8:]),
    _another,
]

GIANTS = (2**63, 2**64 - 1, 100 << 20, (100 << 20) + 1, 1 << 32)


# --- alterations: digest and seal are made right again


def alter(rng: random.Random, victim: Victim) -> str:
    ways = (_alter_content, _alter_pointers, _alter_head_record, _alter_frame)
    return rng.choice(ways)(rng, victim)


def _write_content(victim: Victim, content: Any, pointers: torch.Tensor) -> None:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    victim.write_head(0, save({"head": _as_tensor(text), "pointers": pointers.contiguous()}))


def _as_tensor(text: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(text, dtype=np.uint8).copy())


NOT_WHOLE = (-1, 1.5, "3", True, None, [], 1 << 50, float("nan"))
BAD_IDS = ("", "*", "../x", "a" * 42, "a" * 43 + "\n", "a" * 42 + " ", 7, None, ["a" * 43])


def _bad_regions() -> list[Any]:
    """Search regions of which one part is wrong."""
    nan = float("nan")
    right: list[Any] = [2.0, 0.5, [0, 0, 20, 15], [10.0, 7.0], [0.0, 0.0], True]
    wrong: list[list[Any]] = [
        [1.0, 11.0, 2, nan, "2", None],
        [0.0, 1.5, 1, nan, None],
        [[0, 0, 0, 15], [5, 0, 4, 15], [0, 0, 20], [-1, 0, 20, 15], [0, 0, 1 << 20, 15], None],
        [[-1.0, 7.0], [1e9, 7.0], [10, 7.0], [nan, 7.0], [10.0], None],
        [[-1.0, 0.0], [0.0, 1e9], ["0", 0.0], [0.0], None],
        [1, None, "true"],
    ]
    ways = [(n, value) for n, values in enumerate(wrong) for value in values]
    return [right[:-1], *([*right[:n], value, *right[n + 1 :]] for n, value in ways)]


def _alter_content(rng: random.Random, victim: Victim) -> str:
    content, pointers = victim.head(0)
    other, _ = victim.head(1)
    place = rng.choice(rows_with_frames(content))
    step, drawn, tracked = content["step"], content["conditioning"], content["tracked"]

    def value(key: str, *values: Any) -> Callable[[], Any]:
        return lambda: content.update({key: rng.choice(values)})

    def cell(index: int, *values: Any) -> Callable[[], Any]:
        return lambda: place.__setitem__(index, rng.choice(values))

    far = ["b" * 43, 1]
    kinds: dict[str, Callable[[], Any]] = {
        "version": value("version", 0, VERSION - 1, VERSION + 1, str(VERSION), None, [VERSION]),
        "a key missing": lambda: content.pop(rng.choice(sorted(content))),
        "step": value("step", *NOT_WHOLE),
        "policy": value("policy", "", "best", None, 1, []),
        "areas": value("areas", None, "1", [0], [-1], [1.5], [True], [1] * 11),
        "leaving": value("leaving", None, [1], [far[:1]], [["b" * 43, -1]], [["*", 1]], [far] * 33),
        "step of a frame": cell(0, *NOT_WHOLE[1:], 1 << 41),
        "a flag": lambda: tracked.append([step + 1, rng.choice((0, 1, None, "true")), False]),
        "frames out of order": lambda: tracked.extend([[step, True, False]] * 2),
        "no drawn frame": drawn.clear,
        "a frame drawn and tracked": lambda: tracked.append([drawn[0][0], True, False]),
        "size": value(rng.choice(("width", "height")), 0, *NOT_WHOLE),
        "shape type": value("shape_type", "ellipse", "", None, 1, [], {}),
        "box": value("box", [1, 2, 3], [1, 2, 3, float("nan")], "abcd", None, [1, 2, 3, 1e400]),
        "tolerance": value("tolerance", -0.1, 1.5, "0", True, [], float("nan")),
        "region": value("region", 0, "whole", {}, *_bad_regions()),
        "last head": lambda: content["heads"].__setitem__(-1, other["heads"][-1]),
        "head count": lambda: content.update(heads=other["heads"][:1] * 9 + content["heads"][-1:]),
        "head id": lambda: content["heads"].__setitem__(0, rng.choice(BAD_IDS)),
        "frame id": cell(-3, *BAD_IDS),
        "unknown frame": cell(-3, "b" * 43),
        "frame digest": cell(-2, *BAD_IDS, "0" * 64, "g" * 64),
        "frame expiry": cell(-1, *NOT_WHOLE),
        "another's frame": cell(-3, other["conditioning"][0][-3]),
        "reference": place.pop,
        "frame count": lambda: drawn.extend(drawn * 8),
    }
    name = rng.choice(list(kinds))
    kinds[name]()
    _write_content(victim, content, pointers)
    return f"content: {name}"


def _alter_pointers(rng: random.Random, victim: Victim) -> str:
    content, pointers = victim.head(0)
    broken = pointers.clone()
    broken[rng.randrange(len(broken)), rng.randrange(broken.shape[1])] = rng.choice(
        (float("nan"), float("inf"), float("-inf"))
    )
    kinds = {
        "double": pointers.double(),
        "half": pointers.half(),
        "int": pointers.to(torch.int32),
        "not finite": broken,
        "one more": torch.cat((pointers, pointers[:1])),
        "one less": pointers[1:],
        "flat": pointers.flatten(),
        "wide": torch.cat((pointers, pointers), dim=1),
        "deep": pointers[None],
        "empty": pointers[:0],
        "scalar": pointers.sum(),
    }
    name = rng.choice(list(kinds))
    _write_content(victim, content, kinds[name])
    return f"pointers: {name}"


def _alter_head_record(rng: random.Random, victim: Victim) -> str:
    content, pointers = victim.head(0)
    text, pointers = json.dumps(content).encode(), pointers.contiguous()
    head = _as_tensor(text)
    whole = save({"head": head, "pointers": pointers})
    size = int.from_bytes(whole[:8], "little")
    lying = whole[8 : 8 + size].replace(b'"data_offsets":[0,', b'"data_offsets":[1,')

    def told(text: bytes) -> bytes:
        return save({"head": _as_tensor(text), "pointers": pointers})

    records = {
        "not json": told(text[:-1]),
        "deep json": told(b"[" * 100_000),
        "a list": told(b"[1]"),
        "a long number": told(b'{"version":' + b"1" * 10_000 + b"}"),
        "latin": told(text.replace(b"version", b"\xff\xfe")),
        "another's head": victim.records.values[victim.head_key(1)][SEAL_BYTES:],
        "a frame": victim.records.values[victim.frame_key(victim.frames_in_use(0)[0])],
        "pickle": PICKLE,
        "nothing": b"",
        "giant header": struct.pack("<Q", rng.choice(GIANTS)) + whole[8:],
        "names": save({"head": head, "pointer": pointers}),
        "one more": save({"head": head, "pointers": pointers, "x": head.clone()}),
        "signed bytes": save({"head": head.view(torch.int8), "pointers": pointers}),
        "too long": save({"head": head, "pointers": pointers}, metadata={"x": "x" * (1 << 20)}),
        "cut": whole[: rng.randrange(len(whole))],
        "longer": whole + rng.randbytes(rng.randint(1, 9)),
        "lying offsets": whole[:8] + lying + whole[8 + size :],
    }
    name = rng.choice(list(records))
    victim.write_head(0, records[name])
    return f"head: {name}"


def _alter_frame(rng: random.Random, victim: Victim) -> str:
    """A memory frame in use, and its new digest in the head."""
    content, pointers = victim.head(0)
    place = rng.choice(rows_with_frames(content))
    key = victim.frame_key(place[-3])
    old = victim.records.values[key]
    features = load(old)["features"]
    broken = features.clone()
    broken.flatten()[rng.randrange(features.numel())] = rng.choice((float("nan"), float("inf")))
    kinds = {
        "float32": save({"features": features.float()}),
        "half": save({"features": features.half()}),
        "int16": save({"features": features.view(torch.int16)}),
        "not finite": save({"features": broken}),
        "another name": save({"feature": features}),
        "one more": save({"features": features, "x": features.clone()}),
        "flat": save({"features": features.flatten()}),
        "deep": save({"features": features[None].clone()}),
        "empty": save({"features": features[:0]}),
        "wide": save({"features": torch.cat((features, features), dim=-1)}),
        "no tensor": save({}),
        "pickle": PICKLE,
        "nothing": b"",
        "cut": old[: rng.randrange(len(old))],
        "longer": old + rng.randbytes(rng.randint(1, 9)),
        "giant header": struct.pack("<Q", rng.choice(GIANTS)) + old[8:],
        "a head": victim.records.values[victim.head_key(1)],
    }
    name = rng.choice(list(kinds))
    victim.records.values[key] = kinds[name]
    place[-2] = hashlib.sha256(kinds[name]).hexdigest()
    _write_content(victim, content, pointers)
    return f"frame: {name}, digest right"


def records_campaign(count: int, *, seed: int, per_victim: int = 50) -> RecordsTally:
    rng = random.Random(seed)
    tally = RecordsTally()
    while tally.mutations < count:
        victim = Victim(rng)
        for number in range(min(per_victim, count - tally.mutations)):
            victim.restore()
            change = alter if number % 2 else damage
            kind = change(rng, victim)
            tally.kinds[kind] += 1
            tally.mutations += 1
            tally.resealed += change is alter
            try:
                trouble = victim.verdict()
            except Exception as error:  # the very thing that is looked for
                trouble = f"{type(error).__name__}: {error}"
            if trouble is None:
                tally.gone += 1
            else:
                tally.wrong.append(f"{kind}: {trouble}")
        victim.close()
    return tally
