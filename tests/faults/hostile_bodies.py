# SPDX-License-Identifier: MIT
"""A grammar of request bodies: mostly nearly right ones, wrong in one or a few places.

Every choice is drawn from a `random.Random`: a seeded one for the thousands, hypothesis' own for
those that it shrinks.
"""

import base64
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from faults.hostile_images import EXPECTED, LARGE, damaged_image, encoded, hostile_image, noise

WIDTH, HEIGHT = 64, 48
HUGE = (10**9, 10**10, 10**30, 10**400, -(10**9), 2**63, 2**64, 1e9, -1e9, 1e308, -1e308, 5e-324)
NOT_FINITE = (float("nan"), float("inf"), float("-inf"))
STRANGE: tuple[Any, ...] = (
    *("", "0", "1.5", "NaN", "null", "\x00", "\ud800", "'; DROP", "../../etc/passwd", "%s%n"),
    *(True, False, 0, 1, -1, 0.5, [], {}, [[]], [None], {"type": "mask"}, [1, 2, 3], {"v": 1}),
)
HOSTILE_IDS: tuple[Any, ...] = (
    *("", "*", "?" * 43, "a" * 42, "a" * 44, "a" * 42 + "\n", "\r\nFLUSHALL\r\n", "a" * 1_000_000),
    *("cvat-sam2:*", ":1:media" + "a" * 35, "../" * 14 + "a", "a" * 20 + "\x00" + "a" * 22),
    *("ä" * 43, "a" * 21 + " " + "a" * 21, "[a-z]" * 8 + "aaa", None, 7, ["a" * 43], {"id": 1}),
)
TYPES = ("mask", "polygon", "rectangle")


@dataclass(frozen=True, kw_only=True)
class Pool:
    """What is needed for a body that comes far: images and live tokens on them."""

    good: str
    """base64 of an image of WIDTH x HEIGHT."""
    other_size: str
    tokens: Sequence[Any]
    """Of objects that were started on the good image."""
    large_images: bool = True


def make_pool(tokens: Sequence[Any], *, large_images: bool = True) -> Pool:
    return Pool(
        good=base64.b64encode(encoded(noise(WIDTH, HEIGHT), "JPEG")).decode(),
        other_size=base64.b64encode(encoded(noise(50, 50), "PNG")).decode(),
        tokens=tokens,
        large_images=large_images,
    )


def hostile_body(rng: random.Random, pool: Pool) -> bytes:
    """One body as it is sent."""
    kind = rng.choices(
        ("shapes", "tokens", "image", "structure", "bytes", "many"), (40, 18, 14, 16, 10, 2)
    )[0]
    if kind == "bytes":
        return _broken_bytes(rng, pool)
    body: Any = {"image": pool.good, "shapes": [], "states": []}
    if kind == "shapes":
        body["shapes"] = [_shape(rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    elif kind == "tokens":
        body["states"] = [_state(rng, pool) for _ in range(rng.choice((1, 1, 2, 3)))]
        body["shapes"] = [_mark(rng) for _ in body["states"]]
        body["image"] = rng.choice((pool.good, pool.good, pool.other_size))
    elif kind == "image":
        body["image"] = _image(rng, pool)
        body["shapes"] = [{"type": "rectangle", "points": [0, 0, 9, 9]}]
    elif kind == "structure":
        body["shapes"] = [_good_shape(rng)]
        body = _restructured(rng, body)
    else:
        count = rng.choice((99, 100, 101, 1000, 20_000))
        body[rng.choice(("shapes", "states"))] = [None] * count
    # Python's json writes what JSON has no word for, as careless clients do.
    return json.dumps(body, ensure_ascii=rng.random() < 0.9, skipkeys=True).encode(
        errors="surrogatepass"
    )


def _good_shape(rng: random.Random) -> dict[str, Any]:
    w, h = rng.randint(1, WIDTH - 1), rng.randint(1, HEIGHT - 1)
    x, y = rng.randint(0, WIDTH - w), rng.randint(0, HEIGHT - h)
    type_ = rng.choice(TYPES)
    if type_ == "mask":
        hole = rng.randint(0, w * h - 1)
        return {"type": type_, "points": [hole, w * h - hole, x, y, x + w - 1, y + h - 1]}
    if type_ == "polygon":
        return {"type": type_, "points": [x, y, x + w, y, x + w, y + h, x, y + h]}
    return {"type": type_, "points": [x, y, x + w, y + h]}


def _shape(rng: random.Random) -> Any:
    maker: Callable[[random.Random], Any] = rng.choices(
        (
            _good_shape,
            _wild_polygon,
            _wild_mask,
            _wild_rectangle,
            _strange_points,
            _strange_shape,
            _off_image,
        ),
        (10, 25, 25, 12, 14, 8, 8),
    )[0]
    return maker(rng)


def _mark(rng: random.Random) -> Any:
    """A shape beside a state: nothing, a correction, an adoption, or nearly one of these."""
    numbers = (*HUGE, *NOT_FINITE, *STRANGE, 0, 1, 1, 2, -1)
    match rng.randrange(6):
        case 0 | 1:
            return None
        case 2:
            return {**_good_shape(rng), "correction": rng.choice((0, 1, 1))}
        case 3:
            return {**_shape_object(rng), "correction": rng.choice(numbers)}
        case 4:
            far = rng.choice((1, -5, 30, 1 << 30, *numbers))
            keyframe = {"index": rng.choice((0, 1, 1, 2, *numbers)), "distance": far}
            return {"adopt": [keyframe] * rng.choice((1, 1, 2, 7, 8))}
        case _:
            return {rng.choice(("adopt", "correction", "memory")): rng.choice(STRANGE)}


def _shape_object(rng: random.Random) -> dict[str, Any]:
    shape = _shape(rng)
    return shape if isinstance(shape, dict) else {}


def _number(rng: random.Random) -> Any:
    match rng.randrange(12):
        case 0:
            return rng.choice(HUGE)
        case 1:
            return rng.choice(NOT_FINITE)
        case 2:
            return rng.choice(STRANGE)
        case 3:
            return rng.uniform(-1e6, 1e6)
        case 4 | 5:
            return rng.randint(-5, 100)
        case _:
            return rng.uniform(-10, WIDTH + 10)


def _finite(rng: random.Random) -> float:
    return rng.choice(
        (rng.uniform(-10, WIDTH + 10), rng.uniform(-1e9, 1e9), rng.choice((1e308, -1e308, 0.5, 0)))
    )


def _wild_polygon(rng: random.Random) -> Any:
    match rng.randrange(8):
        case 0:  # any numbers
            points = [_number(rng) for _ in range(rng.randint(0, 20))]
        case 1 | 2:  # finite and far out
            points = [_finite(rng) for _ in range(2 * rng.randint(3, 30))]
        case 3:  # all on one line, or one point
            x, y = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
            points = [x, y] * rng.randint(1, 9)
        case 4:  # a bow-tie
            points = [0, 0, 40, 30, 40, 0, 0, 30]
        case 5:
            count = rng.choice((100, 1000, 10_000)) if rng.random() < 0.05 else 60
            jitter = random.Random(rng.randrange(1 << 30))
            points = [jitter.uniform(0, WIDTH) for _ in range(2 * count)]
        case 6:  # an odd count
            points = [rng.uniform(0, WIDTH) for _ in range(7)]
        case _:  # thinner than a pixel
            x, y = rng.randint(0, WIDTH - 1), rng.randint(0, HEIGHT - 1)
            points = [x + 0.1, y + 0.1, x + 0.2, y + 0.1, x + 0.2, y + 0.2]
    return {"type": "polygon", "points": points}


def _wild_mask(rng: random.Random) -> Any:
    shape = {"type": "mask", "points": []}
    w, h = rng.randint(1, 20), rng.randint(1, 20)
    x, y = rng.randint(0, WIDTH - w), rng.randint(0, HEIGHT - h)
    box: list[Any] = [x, y, x + w - 1, y + h - 1]
    runs: list[Any] = [0, w * h]
    match rng.randrange(9):
        case 0:  # a run of any size
            runs = [0, rng.choice(HUGE)]
        case 1:  # a sum that is off by a little
            runs = [0, w * h + rng.choice((-1, 1))]
        case 2:  # runs that overflow to the right sum
            runs = [0, 2**64 + w * h, -(2**64)]
        case 3:  # a box outside
            box[rng.randrange(4)] += rng.choice((-100, 100, 0.5, 10**9))
        case 4:  # nothing set
            runs = [w * h]
        case 5:
            return {"type": "mask", "points": rng.choice(([0] * 5, [1, 0, 0, 0, 0], [0] * 4, []))}
        case 6:  # pixel by pixel, in floats
            runs = [1.0] * (w * h)
        case 7:
            runs[rng.randrange(2)] = _number(rng)
        case _:
            box[rng.randrange(4)] = _number(rng)
    shape["points"] = [*runs, *box]
    return shape


def _wild_rectangle(rng: random.Random) -> Any:
    shape: dict[str, Any] = {"type": "rectangle"}
    match rng.randrange(4):
        case 0:
            shape["points"] = [_number(rng) for _ in range(rng.choice((0, 2, 3, 4, 4, 4, 5)))]
        case 1:
            shape["points"] = [_finite(rng) for _ in range(4)]
        case 2:
            shape |= {"points": [1, 1, 9, 9], "rotation": rng.choice((30, "x", [1], 0, None))}
        case _:
            x, y = rng.uniform(0, WIDTH - 1), rng.uniform(0, HEIGHT - 1)
            shape["points"] = [x, y, x + rng.choice((0, 0.01)), y + rng.choice((0, 0.01))]
    return shape


def _off_image(rng: random.Random) -> Any:
    """Right in itself, and nothing of it inside the image."""
    x, y = rng.choice(((WIDTH + 5, 0), (-50, 0), (0, HEIGHT + 5), (0, -50)))
    if rng.random() < 0.5:
        return {"type": "polygon", "points": [x, y, x + 20, y, x + 20, y + 20]}
    return {"type": "rectangle", "points": [x, y, x + 20, y + 20]}


def _strange_points(rng: random.Random) -> Any:
    shape = _good_shape(rng)
    shape["points"][rng.randrange(len(shape["points"]))] = _number(rng)
    return shape


def _strange_shape(rng: random.Random) -> Any:
    shape: Any = _good_shape(rng)
    match rng.randrange(5):
        case 0:
            return rng.choice(STRANGE)
        case 1:
            shape[rng.choice(("type", "points"))] = rng.choice(STRANGE)
        case 2:
            del shape[rng.choice(("type", "points"))]
        case 3:
            shape["type"] = rng.choice(("ellipse", "cuboid", "MASK", "points", "mask\x00"))
        case _:
            shape[rng.choice(("extra", "memory"))] = rng.choice(STRANGE)
    return shape


def _state(rng: random.Random, pool: Pool) -> Any:
    match rng.randrange(8):
        case 0 | 1 | 2:
            return rng.choice(pool.tokens)
        case 3 | 4:  # looks right, and nobody gave it out
            alphabet = "abcXYZ019-_"
            return {"v": 1, "id": "".join(rng.choice(alphabet) for _ in range(43))}
        case 5:
            return {"v": 1, "id": rng.choice(HOSTILE_IDS)}
        case 6:
            return {"v": rng.choice((0, 2, "1", 1.0, True, None, [1])), "id": "a" * 43}
        case _:
            return rng.choice(STRANGE)


def _image(rng: random.Random, pool: Pool) -> Any:
    match rng.randrange(6):
        case 0:
            return rng.choice((None, "", "!!!!", "AAA", "AAAA\n", "data:image/png;base64,AAAA", 7))
        case 1:
            return pool.good[: rng.randrange(len(pool.good))]
        case 2 | 3:
            return base64.b64encode(damaged_image(rng)).decode()
        case _:
            names = sorted(EXPECTED)
            name = rng.choice(names)
            if name in LARGE and (not pool.large_images or rng.random() < 0.9):
                name = "one pixel"
            return base64.b64encode(hostile_image(name)).decode()


def _restructured(rng: random.Random, body: dict[str, Any]) -> Any:
    match rng.randrange(6):
        case 0:
            return rng.choice(STRANGE)
        case 1:
            body[rng.choice(("image", "shapes", "states"))] = rng.choice(STRANGE)
        case 2:
            del body[rng.choice(("image", "shapes", "states"))]
        case 3:
            body["states"] = [rng.choice((None, *STRANGE)) for _ in range(rng.randint(0, 4))]
        case 4:
            body["shapes"] += [rng.choice((None, *STRANGE)) for _ in range(rng.randint(0, 4))]
        case _:
            body["extra"] = {"deep": rng.choice(STRANGE)}
    return body


def _broken_bytes(rng: random.Random, pool: Pool) -> bytes:
    good = json.dumps({"image": pool.good, "shapes": [_good_shape(rng)], "states": []}).encode()
    match rng.randrange(8):
        case 0:
            depth = rng.choice((100, 1000, 100_000))
            return b"[" * depth + b"]" * rng.choice((0, depth))
        case 1:
            return b'{"states": [' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"]}"
        case 2:
            return good[: rng.randrange(len(good))]
        case 3:
            return rng.randbytes(rng.randint(0, 200))
        case 4:
            return good.replace(b'"shapes"', b'"\xff\xfe"')
        case 5:
            return rng.choice((b"", b"null", b"0", b'""', b"[]", b"{}", b"NaN", b"\xef\xbb\xbf{}"))
        case 6:
            return b'{"image": ' + b"9" * 10_000 + b"}"
        case _:
            place = rng.randrange(len(good))
            return good[:place] + rng.randbytes(rng.randint(1, 8)) + good[place:]
