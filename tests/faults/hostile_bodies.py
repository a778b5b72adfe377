# SPDX-License-Identifier: MIT
"""Request bodies that are nearly right: a good one with a few changes anywhere in it.

Every choice is drawn from a `random.Random`: a seeded one for the thousands, hypothesis' own for
those that it shrinks.
"""

import base64
import copy
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from faults.hostile_images import EXPECTED, LARGE, damaged_image, encoded, hostile_image, noise

WIDTH, HEIGHT = 64, 48
NUMBERS = (
    *(10**9, 10**10, 10**30, 10**400, -(10**9), 2**63, 2**64, 1e9, -1e9, 1e308, -1e308, 5e-324),
    *(float("nan"), float("inf"), float("-inf"), 0, 1, -1, 0.5, 1.5, 2, 1 << 30),
)
STRANGE: tuple[Any, ...] = (
    *("", "0", "1.5", "NaN", "null", "\x00", "\ud800", "'; DROP", "../../etc/passwd", "%s%n"),
    *(True, False, None, [], {}, [[]], [None], {"type": "mask"}, [1, 2, 3], {"v": 1}, "ellipse"),
    *("points", "MASK", "!!!!", "AAAA\n", "data:image/png;base64,AAAA"),
)
HOSTILE_IDS: tuple[Any, ...] = (
    *("", "*", "?" * 43, "a" * 42, "a" * 44, "a" * 42 + "\n", "\r\nFLUSHALL\r\n", "a" * 1_000_000),
    *("cvat-sam2:*", ":1:media" + "a" * 35, "../" * 14 + "a", "a" * 20 + "\x00" + "a" * 22),
    *("ä" * 43, "a" * 21 + " " + "a" * 21, "[a-z]" * 8 + "aaa", None, 7, ["a" * 43], {"id": 1}),
)
KEYS = ("correction", "adopt", "memory", "tolerance", "rotation", "outside", "extra")


@dataclass(frozen=True, kw_only=True)
class Pool:
    """What is needed for a body that comes far: images and live tokens on them."""

    good: str
    """base64 of an image of WIDTH x HEIGHT."""
    other_size: str
    tokens: Sequence[Any]
    """Of objects that were started on the good image; the last stands on as many as it may."""
    large_images: bool = True


def live_pool(post: Callable[[Any], Any], *, large_images: bool = True) -> Pool:
    """post: sends a body, and gives a reply with the `body` of the answer."""
    good = base64.b64encode(encoded(noise(WIDTH, HEIGHT), "JPEG")).decode()
    shapes = [{"type": "rectangle", "points": [1, 1, 30, 30]}] * 4
    tokens = post({"image": good, "shapes": shapes}).body["states"]
    seven = {"adopt": [{"index": 1, "distance": number} for number in range(1, 8)]}
    full = post({"image": good, "shapes": [seven], "states": tokens[:2]}).body["states"][0]
    return Pool(
        good=good,
        other_size=base64.b64encode(encoded(noise(50, 50), "PNG")).decode(),
        tokens=[*tokens, full],
        large_images=large_images,
    )


def hostile_body(rng: random.Random, pool: Pool) -> bytes:
    """One body as it is sent."""
    starts = [_shape(rng) for _ in range(rng.choice((1, 1, 2, 3)))]
    body: Any = {"image": pool.good, "shapes": starts, "states": []}
    kind = rng.choices(("shapes", "tokens", "image", "many", "bytes"), (48, 28, 12, 3, 9))[0]
    if kind == "tokens":
        count = rng.choice((2, 3))
        body["states"] = [_state(rng, pool) for _ in range(count)]
        body["shapes"] = [_beside(rng, (own + 1) % count) for own in range(count)]
        body["image"] = rng.choice((pool.good, pool.good, pool.other_size))
    elif kind == "image":
        body["image"] = _image(rng, pool)
    elif kind == "many":
        body[rng.choice(("shapes", "states"))] = [None] * rng.choice((99, 100, 101, 20_000))
    body = copy.deepcopy(body)
    for _ in range(rng.choice((0, 1, 1, 2))):
        key = rng.choice(("shapes", "states"))
        if rng.random() < 0.2:
            body = _changed(rng, body)
        elif isinstance(body, dict) and body.get(key):
            body[key] = _changed(rng, body[key])
    # Python's json writes what JSON has no word for, as careless clients do.
    data = json.dumps(body, ensure_ascii=rng.random() < 0.9).encode(errors="surrogatepass")
    return _broken(rng, data) if kind == "bytes" else data


def _changed(rng: random.Random, value: Any) -> Any:
    """The value with something wrong, at any depth."""
    if isinstance(value, dict | list) and value and rng.random() < 0.97:
        place = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        match rng.randrange(20):
            case 0:
                del value[place]
            case 1 if isinstance(value, list):
                value.insert(place, _changed(rng, None))
            case 1:
                value[rng.choice(KEYS)] = _changed(rng, None)
            case _:
                value[place] = _changed(rng, value[place])
        return value
    if isinstance(value, int | float) and abs(value) < 1e300 and rng.random() < 0.5:
        return value + rng.choice((-100, -1, -0.5, 1e-3, 1, 100))
    return copy.deepcopy(rng.choice((*NUMBERS, *STRANGE)))


def _shape(rng: random.Random) -> dict[str, Any]:
    w, h = rng.randint(1, WIDTH - 1), rng.randint(1, HEIGHT - 1)
    x, y = rng.randint(0, WIDTH - w), rng.randint(0, HEIGHT - h)
    if rng.random() < 0.2:  # right in itself, and nothing of it inside the image
        x += rng.choice((-2 * WIDTH, WIDTH + 5))
    box, area = [x, y, x + w - 1, y + h - 1], w * h
    hole = rng.randint(0, area - 1)
    masks = (
        *([hole, area - hole], [area], [1.0] * area, [0, 2**64 + area, -(2**64)]),
        [hole, area - hole + rng.choice((-1, 1))],
    )
    many = random.Random(rng.randrange(1 << 30))
    polygons = (
        [x, y, x + w, y, x + w, y + h, x, y + h],
        [x, y] * rng.randint(1, 9),
        [x + 0.1, y + 0.1, x + 0.2, y + 0.1, x + 0.2, y + 0.2],
        [0, 0, 40, 30, 40, 0, 0, 30],
        [many.uniform(0, WIDTH) for _ in range(rng.choice((60, 60, 60, 2000, 20_000)))],
        [many.choice((many.uniform(-1e9, 1e9), 1e308, 0.5, 0)) for _ in range(40)],
    )
    points: list[Any]
    match kind := rng.choice(("mask", "polygon", "rectangle")):
        case "mask":
            points = [*(rng.choice(masks) if rng.random() < 0.5 else masks[0]), *box]
        case "polygon":
            points = rng.choice(polygons)
        case _:
            points = [x, y, x + w, y + h]
    if rng.random() < 0.25:
        points[rng.randrange(len(points))] = rng.choice(NUMBERS)
    return {"type": kind, "points": points}


def _beside(rng: random.Random, next_one: int) -> Any:
    """What stands beside a state: nothing, a correction, or an adoption from the next one."""
    if rng.random() < 0.4:
        return None
    if rng.random() < 0.5:
        return {**_shape(rng), "correction": rng.choice((0, 1, 1))}
    count, far = rng.choice((1, 1, 2, 7, 8)), rng.randint(-20, 20)
    return {"adopt": [{"index": next_one, "distance": far + number} for number in range(count)]}


def _state(rng: random.Random, pool: Pool) -> Any:
    forged = "".join(rng.choice("abcXYZ019-_") for _ in range(43))
    other = rng.choice((forged, forged, rng.choice(HOSTILE_IDS)))
    return rng.choice(pool.tokens) if rng.random() < 0.7 else {"v": 1, "id": other}


def _image(rng: random.Random, pool: Pool) -> str:
    if rng.random() < 0.2:
        return pool.good[: rng.randrange(len(pool.good))]
    if rng.random() < 0.4:
        return base64.b64encode(damaged_image(rng)).decode()
    name = rng.choice(sorted(EXPECTED))
    if name in LARGE and (not pool.large_images or rng.random() < 0.9):
        name = "one pixel"
    return base64.b64encode(hostile_image(name)).decode()


def _broken(rng: random.Random, good: bytes) -> bytes:
    place, depth = rng.randrange(len(good)), rng.choice((100, 1000, 100_000))
    return rng.choice(
        (
            b"[" * depth + b"]" * rng.choice((0, depth)),
            b'{"states": [' + b'{"a":' * depth + b"1" + b"}" * depth + b"]}",
            good[:place],
            good[:place] + rng.randbytes(rng.randint(1, 8)) + good[place:],
            rng.randbytes(rng.randint(0, 200)),
            good.replace(b'"shapes"', b'"\xff\xfe"'),
            rng.choice((b"", b"null", b"0", b'""', b"[]", b"{}", b"NaN", b"\xef\xbb\xbf{}")),
            b'{"image": ' + b"9" * 10_000 + b"}",
        )
    )
