# SPDX-License-Identifier: MIT
"""Draw short video clips with exact masks: the data of the bundled micro model.

Everything is a function of the seed. Textures are procedural or cut from the pictures that the
scikit-image wheel carries; nothing is downloaded. No torch here: tests and the demo use it too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import as_file, files
from typing import Literal, get_args

import cv2
import numpy as np

Pictures = Literal["training", "held_out", "none", "mottled"]

# The pictures of one scene stay on one side, so the held-out side is really unseen.
PICTURES: dict[str, tuple[str, ...]] = {
    "training": (
        "astronaut.png", "brick.png", "camera.png", "coffee.png", "color.png", "grass.png",
        "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png",
        "motorcycle_right.png", "page.png", "retina.jpg", "text.png",
    ),
    "held_out": ("cell.png", "chelsea.png", "coins.png", "gravel.png", "rocket.jpg"),
}  # fmt: skip
_TEXTURE_SIDE = 160  # pixels of an object's texture; covers [-_REACH, _REACH] of its own plane
_REACH = 1.5
_SUPERSAMPLING = 2
_TRIES = 60


@dataclass(frozen=True)
class Clip:
    """A drawn clip.

    frames: uint8 (T, H, W, 3), RGB.
    masks: bool (T, N, H, W), the visible pixels of each object; no pixel belongs to two objects.
    """

    frames: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True)
class _Part:
    """Closed rings in the object's own plane (about the unit disc), filled even-odd."""

    rings: tuple[np.ndarray, ...]
    joint: tuple[float, float] = (0.0, 0.0)
    swing: float = 0.0
    swing_rate: float = 0.0
    swing_phase: float = 0.0


@dataclass(frozen=True)
class _Thing:
    """Something that moves through the picture; radius and path are in pixels."""

    parts: tuple[_Part, ...]
    texture: np.ndarray  # float32 (S, S, 3), 0..255
    path: np.ndarray  # float64 (T, 2), x and y of the centre
    angle: np.ndarray  # (T,), radians
    radius: np.ndarray  # (T,)
    stretch: np.ndarray  # (T, 2), along the object's own axes
    wobble: tuple[float, float, float, float]  # amplitude, waves, rate, phase
    softness: float  # sigma of the edge, pixels
    shadow: float
    light: np.ndarray  # (T,)


@lru_cache(maxsize=32)
def _picture(name: str) -> np.ndarray:
    with as_file(files("skimage") / "data" / name) as path:
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise FileNotFoundError(f"scikit-image carries no picture {name}")
    return picture[..., ::-1].copy()


def _colour(rng: np.random.Generator) -> np.ndarray:
    hue, saturation = rng.uniform(0, 180), 255 * rng.beta(1.2, 1.0)
    value = rng.uniform(15, 255)
    pixel = np.array([[[hue, saturation, value]]], np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)


def _noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Fractal noise, float32 (height, width), about 0..1."""
    total = np.zeros((height, width), np.float32)
    cells, weight = int(rng.integers(2, 7)), 1.0
    decay = rng.uniform(0.4, 0.75)
    for _ in range(int(rng.integers(2, 5))):
        grid = rng.random((cells + 1, cells + 1), np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight * decay
    total -= total.min()
    return total / max(float(total.max()), 1e-6)


def _pattern(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A procedural texture, float32 (height, width, 3), 0..255."""
    kind = rng.choice(["flat", "gradient", "stripes", "checks", "dots", "noise", "marble"],
                      p=[0.14, 0.12, 0.12, 0.1, 0.1, 0.26, 0.16])  # fmt: skip
    a, b = _colour(rng), _colour(rng)
    if rng.random() < 0.35:  # low contrast within the texture
        b = np.clip(a + rng.normal(0, 25, 3), 0, 255).astype(np.float32)
    if kind == "flat":
        return np.broadcast_to(a, (height, width, 3)).copy()
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(height, width)
    turn = rng.uniform(0, np.pi)
    u = x * np.cos(turn) + y * np.sin(turn)
    v = -x * np.sin(turn) + y * np.cos(turn)
    rate = rng.uniform(3, 14)
    if kind == "gradient":
        mix = (u - u.min()) / max(float(u.max() - u.min()), 1e-6)
    elif kind == "stripes":
        mix = (np.sin(u * rate * 2 * np.pi + rng.uniform(0, 6)) > rng.uniform(-0.6, 0.6)) * 1.0
    elif kind == "checks":
        mix = (np.floor(u * rate) + np.floor(v * rate)) % 2
    elif kind == "dots":
        mix = (
            (u * rate % 1 - 0.5) ** 2 + (v * rate % 1 - 0.5) ** 2 < rng.uniform(0.04, 0.16)
        ) * 1.0
    else:
        mix = _noise(rng, height, width)
        if kind == "marble":
            mix = 0.5 + 0.5 * np.sin((u * rate + 3 * mix) * 2 * np.pi)
    mix = mix[..., None].astype(np.float32)
    texture = a * (1 - mix) + b * mix
    if kind == "noise" and rng.random() < 0.5:
        texture += (_noise(rng, height, width)[..., None] - 0.5) * (_colour(rng) - 128)
    return np.clip(texture, 0, 255).astype(np.float32)


def _mottle(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise of its own in every colour, coarse or fine, float32 (height, width, 3), 0..255."""
    cells = int(np.exp(rng.uniform(np.log(3), np.log(60))))
    grid = rng.uniform(0, 255, (cells, cells, 3)).astype(np.float32)
    share = rng.uniform(0.15, 1.0)
    texture = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(share * texture + (1 - share) * _colour(rng), 0, 255).astype(np.float32)


def _cutout(rng: np.random.Generator, height: int, width: int, pictures: Pictures) -> np.ndarray:
    """A piece of a packaged picture with its colours changed, float32 (height, width, 3)."""
    picture = _picture(str(rng.choice(PICTURES[pictures])))
    full_height, full_width = picture.shape[:2]
    share = rng.uniform(0.25, 1.0)
    fit = min(full_height / height, full_width / width) * share
    h, w = max(int(height * fit), 8), max(int(width * fit), 8)
    y = int(rng.integers(0, max(full_height - h, 0) + 1))
    x = int(rng.integers(0, max(full_width - w, 0) + 1))
    piece = cv2.resize(picture[y : y + h, x : x + w], (width, height), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    if rng.random() < 0.25:
        piece = piece[::-1]
    texture = piece.astype(np.float32)
    if rng.random() < 0.35:
        texture = texture[..., rng.permutation(3)]
    if rng.random() < 0.15:
        texture = 255 - texture
    mixing = np.eye(3, dtype=np.float32) + rng.normal(0, 0.2, (3, 3)).astype(np.float32)
    texture = (texture - 128) @ mixing * np.float32(rng.uniform(0.5, 1.2))
    return np.clip(texture + 128 + rng.normal(0, 30), 0, 255).astype(np.float32)


def _texture(
    rng: np.random.Generator, height: int, width: int, pictures: Pictures, share: float
) -> np.ndarray:
    """share: probability that the texture is cut from a picture."""
    if pictures == "mottled":
        return _mottle(rng, height, width) if rng.random() < 0.6 else _pattern(rng, height, width)
    if pictures != "none" and rng.random() < share:
        return _cutout(rng, height, width, pictures)
    return _pattern(rng, height, width)


def _circle(count: int = 48) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(turn), np.sin(turn)], 1)


def _capsule(start: np.ndarray, end: np.ndarray, thick: float, thin: float) -> np.ndarray:
    along = end - start
    direction = along / max(float(np.linalg.norm(along)), 1e-6)
    turn = np.arctan2(direction[1], direction[0])
    half = np.linspace(-np.pi / 2, np.pi / 2, 9)
    cap = np.stack([np.cos(turn + half), np.sin(turn + half)], 1)
    return np.concatenate([end + cap * thin, start - cap * thick])


def _blob(rng: np.random.Generator, roughness: float) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(turn)
    for waves in range(2, 8):
        radius += roughness / waves * rng.normal() * np.cos(waves * turn + rng.uniform(0, 6.3))
    radius = np.clip(radius, 0.3, 1.5)
    return np.stack([np.cos(turn), np.sin(turn)], 1) * radius[:, None]


def _dense(ring: np.ndarray, per_edge: int = 8) -> np.ndarray:
    """Points along the edges, so that a wobble bends them."""
    steps = np.linspace(0, 1, per_edge, endpoint=False)[:, None]
    return np.concatenate(
        [a + (b - a) * steps for a, b in zip(ring, np.roll(ring, -1, 0), strict=True)]
    )


def _solid_shape(rng: np.random.Generator) -> np.ndarray:
    kind = rng.choice(["blob", "ellipse", "polygon", "star", "box"], p=[0.4, 0.18, 0.17, 0.1, 0.15])
    if kind == "blob":
        return _blob(rng, rng.uniform(0.15, 0.9))
    if kind == "ellipse":
        return _circle() * [1, rng.uniform(0.35, 1.0)]
    if kind == "box":
        w, h = 1.0, rng.uniform(0.3, 1.0)
        return _dense(np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) * 0.85)
    corners = int(rng.integers(3, 9))
    turn = np.sort(
        np.linspace(0, 2 * np.pi, corners, endpoint=False) + rng.normal(0, 0.15, corners)
    )
    radius = rng.uniform(0.7, 1.2, corners)
    ring = np.stack([np.cos(turn), np.sin(turn)], 1) * radius[:, None]
    if kind == "star":
        between = turn + np.pi / corners
        inner = np.stack([np.cos(between), np.sin(between)], 1) * rng.uniform(0.35, 0.65)
        ring = np.stack([ring, inner], 1).reshape(-1, 2)
    return _dense(ring)


def _shape(rng: np.random.Generator) -> tuple[_Part, ...]:
    kind = rng.choice(
        ["solid", "figure", "worm", "ring", "several"], p=[0.58, 0.2, 0.08, 0.06, 0.08]
    )
    if kind == "solid":
        return (_Part((_solid_shape(rng),)),)
    if kind == "ring":
        return (_Part((_circle() * [1, rng.uniform(0.7, 1)], _circle() * rng.uniform(0.35, 0.65))),)
    if kind == "several":
        count = int(rng.integers(2, 5))
        turns = np.linspace(0, 6.283, count, endpoint=False) + rng.uniform(0, 6.28)
        spread, size = rng.uniform(0.45, 0.8), rng.uniform(0.3, 0.5)
        return tuple(
            _Part((_solid_shape(rng) * size + spread * np.array([np.cos(t), np.sin(t)]),))
            for t in turns
        )
    if kind == "worm":
        steps = np.linspace(-1, 1, 24)
        bend, waves = rng.uniform(0.1, 0.5), rng.uniform(0.5, 1.5)
        spine = np.stack([steps * 1.2, bend * np.sin(steps * np.pi * waves)], 1)
        slope = np.gradient(spine, axis=0)
        normal = np.stack([-slope[:, 1], slope[:, 0]], 1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        thick = rng.uniform(0.1, 0.25) * np.sqrt(np.clip(1.05 - steps**2, 0.05, 1))[:, None]
        return (_Part((np.concatenate([spine + normal * thick, (spine - normal * thick)[::-1]]),)),)
    body = _circle() * [rng.uniform(0.3, 0.5), rng.uniform(0.45, 0.7)]
    parts = [_Part((body,))]
    rate = rng.uniform(0.15, 0.8)
    for _ in range(int(rng.integers(2, 6))):
        turn = rng.uniform(0, 2 * np.pi)
        joint = np.array([np.cos(turn) * 0.35, np.sin(turn) * 0.5])
        reach = rng.uniform(0.5, 0.95) * np.array([np.cos(turn), np.sin(turn)])
        limb = rng.uniform(0.1, 0.22)
        parts.append(
            _Part((_capsule(joint, joint + reach, limb, limb * rng.uniform(0.5, 1)),),
                  (float(joint[0]), float(joint[1])), rng.uniform(0, 0.8),
                  rate * rng.choice([1.0, 1.0, 2.0]), rng.uniform(0, 6.3))
        )  # fmt: skip
    if rng.random() < 0.7:
        head = _circle(32) * rng.uniform(0.2, 0.35) + [0, -rng.uniform(0.7, 0.9)]
        parts.append(_Part((head,), (0.0, -0.5), rng.uniform(0, 0.3), rate, rng.uniform(0, 6.3)))
    return tuple(parts)


def draw_shape_mask(rng: np.random.Generator, side: int) -> np.ndarray:
    """The outline of one of the drawn shapes, float32 (side, side), 0..1."""
    canvas = np.zeros((side, side), np.uint8)
    for part in _shape(rng):
        rings = [np.round((ring / _REACH + 1) / 2 * side).astype(np.int32) for ring in part.rings]
        filled = np.zeros_like(canvas)
        cv2.fillPoly(filled, rings, 255)
        canvas = np.maximum(canvas, filled)
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), 0.7)).astype(np.float32) / 255


def _fold(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Reflect a straight path at two walls."""
    span = max(high - low, 1e-6)
    return low + span - np.abs((values - low) % (2 * span) - span)


def draw_path(
    rng: np.random.Generator, frames: int, width: int, height: int, speed: float, leaving: bool
) -> np.ndarray:
    """Centres, float64 (T, 2). speed: pixels per frame, about."""
    time = np.arange(frames, dtype=np.float64)
    unit = min(width, height)
    start = rng.uniform([0.12 * width, 0.12 * height], [0.88 * width, 0.88 * height])
    heading = rng.uniform(0, 2 * np.pi)
    if leaving:
        # Out over the nearest-by border and back along another line.
        side = np.array([rng.choice([-1.0, 1.0]), 0.0]) if rng.random() < 0.6 else np.array(
            [0.0, rng.choice([-1.0, 1.0])])  # fmt: skip
        distance = np.where(side > 0, [width, height] - start, start) @ np.abs(side)
        peak = rng.uniform(0.35, 0.75) * frames
        half = rng.uniform(0.3, 0.5) * frames
        lift = np.clip(1 - np.abs(time - peak) / half, 0, 1)
        lift = np.sin(lift * np.pi / 2)
        lift -= lift[0]
        gone = (distance + unit * rng.uniform(0.2, 0.4)) * lift / max(float(lift.max()), 1e-6)
        drift = np.array([-side[1], side[0]]) * rng.normal(0, 0.5) * speed
        return start + side * gone[:, None] + drift * time[:, None]
    turn = heading + np.cumsum(rng.normal(0, 0.25) + rng.normal(0, 0.12, frames))
    pace = speed * np.clip(1 + 0.5 * np.sin(time * rng.uniform(0.1, 0.6) + rng.uniform(0, 6)), 0, 2)
    line = start + np.cumsum(np.stack([np.cos(turn), np.sin(turn)], 1) * pace[:, None], 0)
    inset = rng.uniform(-0.1, 0.15) * unit
    return np.stack(
        [_fold(line[:, 0], inset, width - inset), _fold(line[:, 1], inset, height - inset)], 1
    )


def smooth_curve(rng: np.random.Generator, frames: int, amplitude: float) -> np.ndarray:
    """A smooth curve around 0, (T,)."""
    time = np.arange(frames)
    curve = np.sin(time * rng.uniform(0.05, 0.45) + rng.uniform(0, 6.3))
    curve += 0.5 * np.sin(time * rng.uniform(0.1, 0.9) + rng.uniform(0, 6.3))
    return amplitude * curve / 1.5


def _thing(
    rng: np.random.Generator,
    frames: int,
    width: int,
    height: int,
    pictures: Pictures,
    motion: float,
    leaving: bool,
) -> _Thing:
    unit = min(width, height)
    radius = unit * np.exp(rng.uniform(np.log(0.07), np.log(0.26)))
    speed = motion * unit * rng.choice([0.004, 0.014, 0.03, 0.05], p=[0.15, 0.35, 0.35, 0.15])
    texture = _texture(rng, _TEXTURE_SIDE, _TEXTURE_SIDE, pictures, 0.45)
    if rng.random() < 0.4:  # shading over the object, as a lamp makes it
        y, x = np.mgrid[-1 : 1 : 1j * _TEXTURE_SIDE, -1 : 1 : 1j * _TEXTURE_SIDE]
        turn = rng.uniform(0, 6.3)
        shade = 1 + rng.uniform(0.1, 0.5) * (x * np.cos(turn) + y * np.sin(turn))
        texture = np.clip(texture * shade[..., None], 0, 255).astype(np.float32)
    deforms = rng.random() < 0.55
    spin = rng.choice([0.0, 0.02, 0.07], p=[0.35, 0.4, 0.25]) * rng.normal() * motion
    return _Thing(
        parts=_shape(rng),
        texture=texture,
        path=draw_path(rng, frames, width, height, float(speed), leaving),
        angle=(
            rng.uniform(0, 2 * np.pi)
            + spin * np.arange(frames)
            + smooth_curve(rng, frames, 0.15)
        ),
        radius=radius * np.exp(smooth_curve(rng, frames, rng.uniform(0, 0.25))),
        stretch=1 + np.stack([smooth_curve(rng, frames, 0.15 * deforms) for _ in range(2)], 1),
        wobble=(
            float(rng.uniform(0.02, 0.12)) * deforms, float(rng.integers(2, 5)),
            float(rng.uniform(0.1, 0.7)), float(rng.uniform(0, 6.3)),
        ),
        softness=float(rng.choice([0.0, 0.6, 1.2], p=[0.7, 0.2, 0.1])) * unit / 256,
        shadow=float(rng.choice([0.0, 0.35], p=[0.8, 0.2])),
        light=1 + smooth_curve(rng, frames, rng.uniform(0, 0.12)),
    )  # fmt: skip


def _lookalike(
    rng: np.random.Generator, thing: _Thing, frames: int, width: int, height: int, motion: float
) -> _Thing:
    """The same kind of thing elsewhere; now and then in another shape or slightly other colours."""
    other = _thing(rng, frames, width, height, "none", motion, leaving=False)
    texture = thing.texture
    if rng.random() < 0.5:
        texture = np.clip(texture + rng.normal(0, 14, 3), 0, 255).astype(np.float32)
    ratio = float(thing.radius.mean() / other.radius.mean()) * rng.uniform(0.85, 1.15)
    return replace(
        other,
        parts=thing.parts if rng.random() < 0.75 else other.parts,
        texture=texture,
        radius=other.radius * ratio,
        softness=thing.softness,
    )


def _extent(thing: _Thing, frame: int) -> float:
    """No pixel of the thing lies farther from its centre than this."""
    reach = max(
        float(np.linalg.norm(ring, axis=1).max())
        + 2 * abs(np.sin(part.swing / 2)) * float(np.linalg.norm(ring - part.joint, axis=1).max())
        for part in thing.parts
        for ring in part.rings
    )
    stretch = float(np.abs(thing.stretch[frame]).max())
    return float(thing.radius[frame]) * reach * stretch * (1 + thing.wobble[0]) + 2 * thing.softness


def _hide(
    rng: np.random.Generator, thing: _Thing, first: int, hidden: int, width: int, height: int,
    pictures: Pictures, motion: float,
) -> tuple[_Thing, _Thing]:  # fmt: skip
    """The thing and a cover that hides it from frame `first` on for `hidden` frames."""
    frames = len(thing.path)
    unit = min(width, height)
    reach = max(_extent(thing, t) for t in range(frames)) + 2
    cover = _thing(rng, frames, width, height, pictures, motion * 0.5, leaving=False)
    if rng.random() < 0.5:
        w, h = 1.0, rng.uniform(1.0, 2.5)
        ring = _dense(np.array([[-w, -h], [w, -h], [w, h], [-w, h]]))
    else:
        blob = _blob(rng, 0.3)
        ring = blob / np.linalg.norm(blob, axis=1).min()
    cover = replace(
        cover,
        parts=(_Part((ring,)),),
        radius=np.full(frames, reach * rng.uniform(1.05, 1.3)),
        stretch=np.ones((frames, 2)),
        wobble=(0.0, 2.0, 0.1, 0.0),
        angle=cover.angle[0] + rng.normal(0, 0.01) * np.arange(frames),
        softness=0.0,
    )
    apart = reach + max(_extent(cover, t) for t in range(frames)) + 2
    time = np.arange(frames)
    pace = rng.uniform(0.25, 0.6) * apart  # so it takes a few frames to slide over
    before = np.clip(first - time, 0, None) * pace
    after = np.clip(time - (first + hidden - 1), 0, None) * pace
    heading = rng.uniform(0, 2 * np.pi)
    way_in = np.array([np.cos(heading), np.sin(heading)])
    turn = heading + rng.choice([np.pi, rng.uniform(0, 2 * np.pi)])
    way_out = np.array([np.cos(turn), np.sin(turn)])
    far = max(width, height) * 1.6
    if rng.random() < 0.5:  # the cover comes and goes
        apart_by = (
            np.minimum(before, far)[:, None] * way_in + np.minimum(after, far)[:, None] * way_out
        )
        return thing, replace(cover, path=thing.path + apart_by)
    # The thing goes behind a cover that stands (nearly) still.
    centre = rng.uniform([0.3 * width, 0.3 * height], [0.7 * width, 0.7 * height])
    still = centre + 0.15 * (cover.path - cover.path[0])
    sway = np.stack([smooth_curve(rng, frames, 0.05 * unit) for _ in range(2)], 1)
    room = apart * rng.uniform(1.05, 1.3)
    moved = np.minimum(before, room)[:, None] * way_in + np.minimum(after, room)[:, None] * way_out
    calm = ((time >= first) & (time < first + hidden))[:, None]
    sway = np.where(calm, 0, sway * np.minimum(1, (before + after) / room)[:, None])
    return replace(thing, path=still + moved + sway), replace(cover, path=still)


def _camera(rng: np.random.Generator, frames: int, width: int, height: int) -> np.ndarray:
    """World to picture, float64 (T, 2, 3)."""
    unit = min(width, height)
    moving = rng.random() < 0.65
    strength = float(rng.uniform(0.2, 1.0)) * moving
    shift = np.stack([smooth_curve(rng, frames, 0.10 * unit * strength) for _ in range(2)], 1)
    shift += rng.normal(0, 0.004 * unit * strength, (1, 2)) * np.arange(frames)[:, None]
    shift += rng.normal(0, 0.002 * unit, (frames, 2)) * (rng.random() < 0.2)
    angle = smooth_curve(rng, frames, 0.08 * strength)
    zoom = np.exp(smooth_curve(rng, frames, 0.1 * strength))
    centre = np.array([width / 2, height / 2])
    matrices = np.zeros((frames, 2, 3))
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    matrices[:, 0, 0], matrices[:, 0, 1] = cos, -sin
    matrices[:, 1, 0], matrices[:, 1, 1] = sin, cos
    matrices[:, :, 2] = (
        centre + shift - shift[0] - np.einsum("tij,j->ti", matrices[:, :, :2], centre)
    )
    return matrices


def _thing_matrix(thing: _Thing, frame: int, camera: np.ndarray) -> np.ndarray:
    """The object's own plane to the picture, (2, 3)."""
    cos, sin = np.cos(thing.angle[frame]), np.sin(thing.angle[frame])
    own = np.array([[cos, -sin], [sin, cos]]) * thing.stretch[frame] * thing.radius[frame]
    return np.concatenate(
        [camera[:, :2] @ own, (camera[:, :2] @ thing.path[frame] + camera[:, 2])[:, None]], 1
    )


def _rings_at(thing: _Thing, frame: int, matrix: np.ndarray) -> list[list[np.ndarray]]:
    """The outlines in picture coordinates, one list of rings per part."""
    amplitude, waves, rate, phase = thing.wobble
    placed = []
    for part in thing.parts:
        swing = part.swing * np.sin(frame * part.swing_rate + part.swing_phase)
        cos, sin = np.cos(swing), np.sin(swing)
        rotation = np.array([[cos, sin], [-sin, cos]])
        rings = []
        for ring in part.rings:
            points = (ring - part.joint) @ rotation + part.joint
            if amplitude:
                turn = np.arctan2(points[:, 1], points[:, 0])
                points = (
                    points * (1 + amplitude * np.sin(waves * turn + rate * frame + phase))[:, None]
                )
            rings.append(points @ matrix[:, :2].T + matrix[:, 2])
        placed.append(rings)
    return placed


@dataclass(frozen=True)
class _Patch:
    """A thing as it stands in one frame: a window of the picture, its opacity and its colours."""

    top: int
    left: int
    alpha: np.ndarray  # float32 (h, w)
    colour: np.ndarray  # float32 (h, w, 3)


def _render(
    thing: _Thing, frame: int, camera: np.ndarray, width: int, height: int
) -> _Patch | None:
    """None where nothing of it lies in the picture."""
    matrix = _thing_matrix(thing, frame, camera)
    parts = _rings_at(thing, frame, matrix)
    points = np.concatenate([ring for rings in parts for ring in rings])
    margin = 2 + 3 * thing.softness
    left, top = np.maximum(np.floor(points.min(0) - margin), 0).astype(int)
    right, bottom = np.minimum(np.ceil(points.max(0) + margin), [width, height]).astype(int)
    if right <= left or bottom <= top:
        return None
    w, h = int(right - left), int(bottom - top)
    canvas = np.zeros((h * _SUPERSAMPLING, w * _SUPERSAMPLING), np.uint8)
    for rings in parts:
        # Pixel i of the picture covers [i, i+1); cv2 puts a pixel's centre at its index.
        scaled = [
            np.round(((ring - [left, top]) * _SUPERSAMPLING - 0.5) * 16).astype(np.int32)
            for ring in rings
        ]
        cv2.fillPoly(canvas, scaled, 255, shift=4)
    alpha = cv2.resize(canvas, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    if thing.softness:
        alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), thing.softness))
    own_per_texel = 2 * _REACH / _TEXTURE_SIDE
    place = np.empty((2, 3))
    place[:, :2] = matrix[:, :2] * own_per_texel
    place[:, 2] = matrix[:, 2] - matrix[:, :2] @ [_REACH, _REACH] - [left, top]
    colour = cv2.warpAffine(
        thing.texture, place, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return _Patch(int(top), int(left), alpha, colour * np.float32(thing.light[frame]))


def _background(
    rng: np.random.Generator, width: int, height: int, pictures: Pictures
) -> np.ndarray:
    """The still world behind everything, clutter on it: float32, 1.5 times the picture."""
    wide, tall = int(width * 1.5), int(height * 1.5)
    world = _texture(rng, tall, wide, pictures, 0.7)
    camera = np.eye(2, 3)
    for _ in range(int(rng.choice([0, 2, 5, 10], p=[0.4, 0.25, 0.2, 0.15]))):
        thing = _thing(rng, 1, wide, tall, pictures, 0.0, leaving=False)
        thing = replace(thing, radius=thing.radius * rng.uniform(0.4, 1.2))
        patch = _render(thing, 0, camera, wide, tall)
        if patch is not None:
            _lay(world, patch)
    return world


def _lay(picture: np.ndarray, patch: _Patch) -> None:
    h, w = patch.alpha.shape
    window = picture[patch.top : patch.top + h, patch.left : patch.left + w]
    window += patch.alpha[..., None] * (patch.colour - window)


def _lay_shadow(picture: np.ndarray, patch: _Patch, strength: float, offset: int) -> None:
    h, w = patch.alpha.shape
    top, left = patch.top + offset, patch.left + offset
    bottom, right = min(top + h, picture.shape[0]), min(left + w, picture.shape[1])
    if bottom > top and right > left:
        shade = cv2.blur(patch.alpha, (offset + 1, offset + 1))[: bottom - top, : right - left]
        picture[top:bottom, left:right] *= 1 - strength * shade[..., None]


def _scene(
    rng: np.random.Generator, frames: int, width: int, height: int, objects: int, hidden: int,
    distractors: int, leaving: bool, clutter: int, pictures: Pictures, motion: float,
) -> tuple[list[tuple[_Thing, int]], np.ndarray]:  # fmt: skip
    """Things from back to front, each with its object's index (-1: not asked for); camera."""
    things = [
        _thing(rng, frames, width, height, pictures, motion, leaving and i == objects - 1)
        for i in range(objects)
    ]
    covers = []
    if hidden:
        first = int(rng.integers(2, frames - hidden - 1))
        things[0], cover = _hide(rng, things[0], first, hidden, width, height, pictures, motion)
        covers.append((cover, -1))
    order = [(thing, i) for i, thing in enumerate(things)]
    for i in range(distractors):
        order.append((_lookalike(rng, things[i % objects], frames, width, height, motion), -1))
    for _ in range(clutter):
        order.append((_thing(rng, frames, width, height, pictures, motion, leaving=False), -1))
    order = [order[i] for i in rng.permutation(len(order))]
    return order + covers, _camera(rng, frames, width, height)


def _visible(
    order: list[tuple[_Thing, int]], patches: list[_Patch | None], objects: int, width: int,
    height: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Visible pixels, bool (N, H, W), and the pixels in the picture before covering, (N,)."""
    owner = np.full((height, width), -1, np.int16)
    whole = np.zeros(objects, np.int64)
    for (_, index), patch in zip(order, patches, strict=True):
        if patch is None:
            continue
        h, w = patch.alpha.shape
        solid = patch.alpha >= 0.5
        owner[patch.top : patch.top + h, patch.left : patch.left + w][solid] = index
        if index >= 0:
            whole[index] = solid.sum()
    return owner == np.arange(objects, dtype=np.int16)[:, None, None], whole


def draw_clip(
    seed: int,
    *,
    frames: int,
    width: int,
    height: int,
    objects: int,
    hidden: int = 0,
    distractors: int = 0,
    leaving: bool = False,
    clutter: int = 1,
    pictures: Pictures = "training",
    motion: float = 1.0,
) -> Clip:
    """Draw a clip; the same arguments give the same clip.

    objects: how many things have masks; every one is well visible in frame 0.
    hidden: object 0 is fully covered for at least this many frames in a row, and is visible again
        afterwards (0: only what chance brings).
    distractors: look-alikes of the objects that move on their own and have no mask.
    leaving: the last object leaves the picture and, if the clip is long enough, returns.
    clutter: further things that move and have no mask.
    pictures: which of the packaged pictures serve as textures; "none" draws procedural ones only
        and needs no scikit-image, "mottled" noise in all colours for most of them.
    motion: 0 stands nearly still, 1 is what the model was trained on.

    Raises ValueError for counts and sizes that make no clip.
    """
    if frames < 1 or objects < 1 or min(width, height) < 32 or min(distractors, clutter) < 0:
        raise ValueError(
            f"no clip of {frames} frames, {objects} objects, {width}x{height} pixels, "
            f"{distractors} distractors, {clutter} clutter"
        )
    if hidden < 0 or (hidden and frames < hidden + 4):
        raise ValueError(
            f"{hidden} hidden frames need a clip of at least {hidden + 4}, not {frames}"
        )
    if pictures not in get_args(Pictures):
        raise ValueError(f"pictures: {', '.join(get_args(Pictures))}, not {pictures!r}")
    for attempt in range(_TRIES):
        rng = np.random.default_rng((seed, attempt))
        order, camera = _scene(
            rng, frames, width, height, objects, hidden, distractors, leaving, clutter, pictures,
            motion,
        )  # fmt: skip
        if _good_start(order, camera, objects, width, height) and (
            not hidden or _hides(order, camera, hidden, objects, width, height)
        ):
            return _shoot(rng, order, camera, objects, frames, width, height, pictures)
    raise ValueError(
        f"{objects} objects of {width}x{height} find no place in {_TRIES} tries (seed {seed})"
    )


def _masks_at(
    order: list[tuple[_Thing, int]], camera: np.ndarray, t: int, objects: int, width: int,
    height: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    patches = [_render(thing, t, camera[t], width, height) for thing, _ in order]
    return _visible(order, patches, objects, width, height)


def _good_start(
    order: list[tuple[_Thing, int]], camera: np.ndarray, objects: int, width: int, height: int
) -> bool:
    masks, whole = _masks_at(order, camera, 0, objects, width, height)
    area = masks.sum((1, 2))
    return bool(np.all(area >= 0.003 * width * height) and np.all(area >= 0.5 * whole))


def _hides(
    order: list[tuple[_Thing, int]], camera: np.ndarray, hidden: int, objects: int, width: int,
    height: int,
) -> bool:  # fmt: skip
    """Object 0 vanishes for long enough and is well visible again within the clip."""
    area = [
        int(_masks_at(order, camera, t, objects, width, height)[0][0].sum())
        for t in range(len(camera))
    ]
    run, back = 0, False
    for pixels in area:
        if run >= hidden and pixels > 0.002 * width * height:
            back = True
        run = run + 1 if pixels == 0 else (run if run >= hidden else 0)
    return back


def _shoot(
    rng: np.random.Generator, order: list[tuple[_Thing, int]], camera: np.ndarray, objects: int,
    frames: int, width: int, height: int, pictures: Pictures,
) -> Clip:  # fmt: skip
    world = _background(rng, width, height, pictures)
    corner = np.array([width, height]) * 0.25
    gain = 1 + smooth_curve(rng, frames, float(rng.choice([0.0, 0.1, 0.3], p=[0.5, 0.3, 0.2])))
    cast = np.stack([smooth_curve(rng, frames, float(rng.choice([0.0, 8.0]))) for _ in range(3)], 1)
    blur = float(rng.choice([0.0, 0.6, 1.1], p=[0.55, 0.3, 0.15])) * min(width, height) / 256
    grain = float(rng.choice([0.0, 3.0, 8.0], p=[0.4, 0.4, 0.2]))
    quality = int(rng.choice([0, 40, 75, 92], p=[0.4, 0.1, 0.25, 0.25]))
    offset = max(int(min(width, height) * 0.02), 1)
    shots = np.empty((frames, height, width, 3), np.uint8)
    masks = np.empty((frames, objects, height, width), bool)
    for t in range(frames):
        view = camera[t].copy()
        view[:, 2] -= view[:, :2] @ corner
        shot = cv2.warpAffine(
            world, view, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        patches = [_render(thing, t, camera[t], width, height) for thing, _ in order]
        for (thing, _), patch in zip(order, patches, strict=True):
            if patch is None:
                continue
            if thing.shadow:
                _lay_shadow(shot, patch, thing.shadow, offset)
            _lay(shot, patch)
        masks[t], _ = _visible(order, patches, objects, width, height)
        if blur:
            shot = cv2.GaussianBlur(shot, (0, 0), blur)
        shot = shot * np.float32(gain[t]) + cast[t].astype(np.float32)
        if grain:
            shot += rng.standard_normal(shot.shape, np.float32) * np.float32(grain)
        shots[t] = np.clip(shot, 0, 255)
        if quality:
            _, packed = cv2.imencode(
                ".jpg", shots[t][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality]
            )
            shots[t] = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))[..., ::-1]
    return Clip(shots, masks)
