# SPDX-License-Identifier: MIT
"""Clips of real things: cut-outs that move, bend and hide over photographs, with exact masks.

Everything is a function of the seed and of the pictures (training/pictures.py). No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from training.clips import Clip
from training.motion import draw_path, smooth_curve
from training.outlines import draw_shape_mask
from training.parts import draw_part
from training.pictures import FILMED, FOLDER, Side, any_cut_out, any_photograph, filmed

_TRIES = 40
_LEAST_SHARE = 0.004  # of the picture that every object covers in frame 0
_LEAST_PART_SHARE = 0.0025  # the same where objects may be parts of things
_SOLID = 0.5  # a pixel belongs to the object whose share of its light is at least this


@dataclass(frozen=True)
class _Sprite:
    """Colours float32 (h, w, 3), 0..255, that go on beyond the outline; alpha float32 (h, w).

    part: float32 (h, w), 0..1, what of it has the mask; None: all of it.
    """

    colour: np.ndarray
    alpha: np.ndarray
    part: np.ndarray | None = None


@dataclass(frozen=True)
class _Mover:
    """A sprite on its way. Its own plane reaches from -1 to 1 along the longer side."""

    sprite: _Sprite
    centre: np.ndarray  # (T, 2) pixels of the picture, before the camera
    radius: np.ndarray  # (T,) pixels: half of the longer side
    angle: np.ndarray  # (T,) radians
    tilt: np.ndarray  # (T, 2) perspective; 0.5 is strong
    stretch: np.ndarray  # (T, 2)
    handles: np.ndarray  # (K, 2) where it bends
    bends: np.ndarray  # (T, K, 2) by how much
    slide: np.ndarray  # (T, 2) the texture moves within the outline
    light: np.ndarray  # (T,)
    shadow: float
    softness: float


def _pseudo_sprite(rng: np.random.Generator, side: Side, folder: Path) -> _Sprite:
    """The outline of one thing, or a drawn one, filled with a piece of a photograph."""
    if rng.random() < 0.5:
        alpha = any_cut_out(rng, side, folder)[..., 3].astype(np.float32) / 255
    else:
        alpha = draw_shape_mask(rng, 240)
    height, width = alpha.shape
    return _Sprite(_piece(rng, any_photograph(rng, side, folder), height, width, 0.15, 0.8), alpha)


def _sprite(rng: np.random.Generator, side: Side, folder: Path, pseudo: float) -> _Sprite:
    if rng.random() < pseudo:
        return _pseudo_sprite(rng, side, folder)
    picture = any_cut_out(rng, side, folder).astype(np.float32)
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    return _Sprite(np.ascontiguousarray(picture[..., :3]), picture[..., 3] / 255)


def _piece(
    rng: np.random.Generator, picture: np.ndarray, height: int, width: int, least: float,
    most: float,
) -> np.ndarray:  # fmt: skip
    """A piece of a picture, float32 (height, width, 3): least..most of what would fit into it."""
    full_height, full_width = picture.shape[:2]
    fit = min(full_height / height, full_width / width) * rng.uniform(least, most)
    h, w = max(int(height * fit), 8), max(int(width * fit), 8)
    y = int(rng.integers(0, max(full_height - h, 0) + 1))
    x = int(rng.integers(0, max(full_width - w, 0) + 1))
    piece = picture[y : y + h, x : x + w]
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    how = cv2.INTER_AREA if h > height else cv2.INTER_CUBIC
    piece = cv2.resize(np.ascontiguousarray(piece), (width, height), interpolation=how)
    return np.asarray(piece).astype(np.float32)


def _like_the_background(
    rng: np.random.Generator, sprite: _Sprite, background: np.ndarray
) -> _Sprite:
    """Shift mean and spread of the colours towards the background's (Reinhard et al., 2001)."""
    share = float(
        rng.choice([0.0, rng.uniform(0.1, 0.5), rng.uniform(0.5, 0.9)], p=[0.5, 0.3, 0.2])
    )
    inside = sprite.colour[sprite.alpha >= 0.5]
    mean, spread = inside.mean(0), inside.std(0) + 1
    there = background.reshape(-1, 3)
    moved = (sprite.colour - mean) / spread * np.clip(there.std(0), 12, 70) + there.mean(0)
    colour = sprite.colour * (1 - share) + moved * share
    return _Sprite(np.clip(colour, 0, 255).astype(np.float32), sprite.alpha, sprite.part)


def _shrunk(sprite: _Sprite, longest: float) -> _Sprite:
    """No larger than it is shown, so that sampling it does not flicker."""
    height, width = sprite.alpha.shape
    scale = longest / max(height, width)
    if scale >= 1:
        return sprite
    size = max(round(width * scale), 2), max(round(height * scale), 2)

    def shrunk(picture: np.ndarray) -> np.ndarray:
        return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))

    part = None if sprite.part is None else shrunk(sprite.part)
    return _Sprite(shrunk(sprite.colour), shrunk(sprite.alpha), part)


def _mover(
    rng: np.random.Generator, sprite: _Sprite, frames: int, width: int, height: int, motion: float,
    *, largest: float = 0.55, leaving: bool = False,
) -> _Mover:  # fmt: skip
    unit = min(width, height)
    radius = unit * np.exp(rng.uniform(np.log(0.09), np.log(largest)))
    speed = (
        motion * unit * rng.choice([0.002, 0.01, 0.025, 0.05, 0.1], p=[0.2, 0.3, 0.25, 0.15, 0.1])
    )
    grow = rng.uniform(0.0, 0.35) * motion
    growth = np.exp(
        np.clip(
            smooth_curve(rng, frames, grow)
            + rng.normal(0, 0.015) * motion * (np.arange(frames) - frames / 2),
            -0.8, 0.8,
        )
    )  # fmt: skip
    spin = float(rng.choice([0.0, 0.015, 0.05], p=[0.5, 0.35, 0.15])) * rng.normal() * motion
    angle = (
        rng.normal(0, 0.25) + spin * np.arange(frames) + smooth_curve(rng, frames, 0.12 * motion)
    )
    sprite = _shrunk(sprite, 2.4 * float((radius * growth).max()))
    tilt = np.stack([smooth_curve(rng, frames, rng.uniform(0, 0.35)) for _ in range(2)], 1)
    turning = np.exp(
        np.stack([smooth_curve(rng, frames, rng.uniform(0, 0.2)) for _ in range(2)], 1)
    )
    knots = int(rng.integers(2, 7))
    bend = float(rng.choice([0.0, 0.06, 0.14, 0.22], p=[0.25, 0.3, 0.3, 0.15])) * min(motion, 1.2)
    ratio = np.array(sprite.alpha.shape[::-1]) / max(sprite.alpha.shape)
    slides = float(rng.choice([0.0, 0.3], p=[0.75, 0.25]))
    path = draw_path(rng, frames, width, height, float(speed), leaving)
    handles = rng.uniform(-1, 1, (knots, 2)) * ratio
    swaying = [
        np.stack([smooth_curve(rng, frames, bend * rng.normal()) for _ in range(2)], 1)
        for _ in range(knots)
    ]
    sliding = [smooth_curve(rng, frames, slides * rng.uniform(0.3, 1)) for _ in range(2)]
    return _Mover(
        sprite=sprite,
        centre=path,
        radius=radius * growth,
        angle=angle,
        tilt=tilt,
        stretch=turning,
        handles=handles,
        bends=np.stack(swaying, 1),
        # A part is a place on the thing: its colours stay where they are.
        slide=np.stack(sliding, 1) * (sprite.part is None),
        light=1 + smooth_curve(rng, frames, float(rng.choice([0.0, 0.15], p=[0.6, 0.4]))),
        shadow=float(rng.choice([0.0, 0.25, 0.5], p=[0.4, 0.35, 0.25])),
        softness=float(rng.choice([0.0, 0.7, 1.2], p=[0.4, 0.4, 0.2])) * unit / 256,
    )  # fmt: skip


@dataclass(frozen=True)
class _Patch:
    """A mover as it stands in one frame: a window of the picture, colours times alpha, alpha."""

    top: int
    left: int
    light: np.ndarray  # float32 (h, w, 3), already multiplied by alpha
    alpha: np.ndarray  # float32 (h, w)
    marked: np.ndarray  # float32 (h, w): alpha of the part that has the mask


def _at(values: np.ndarray, time: float) -> np.ndarray:
    """Linear between the frames, constant beyond them."""
    time = min(max(time, 0), len(values) - 1)
    low = int(time)
    high = min(low + 1, len(values) - 1)
    return values[low] + (time - low) * (values[high] - values[low])


def _render(
    mover: _Mover, time: float, camera: np.ndarray, width: int, height: int, exposure: float
) -> _Patch | None:
    """None where nothing of it lies in the picture. exposure: frames that the shutter is open."""
    moments = [time] if not exposure else [time - exposure / 2, time, time + exposure / 2]
    poses = []
    for moment in moments:
        x, y = _at(mover.centre, moment)
        spot = camera @ [x, y, 1]
        beside = camera @ [x + 1, y, 1]
        along = beside[:2] / beside[2] - spot[:2] / spot[2]
        turn = float(_at(mover.angle, moment)) + np.arctan2(along[1], along[0])
        size = float(_at(mover.radius, moment)) * float(np.hypot(*along))
        poses.append((spot[:2] / spot[2], turn, size))
    reach = 1.5
    low = np.min([spot - size * reach for spot, _, size in poses], 0)
    high = np.max([spot + size * reach for spot, _, size in poses], 0)
    left, top = np.maximum(np.floor(low), 0).astype(int)
    right, bottom = np.minimum(np.ceil(high), [width, height]).astype(int)
    if right - left < 2 or bottom - top < 2:
        return None
    light = np.zeros((bottom - top, right - left, 3), np.float32)
    alpha = np.zeros((bottom - top, right - left), np.float32)
    marked = np.zeros_like(alpha)
    gy, gx = np.mgrid[top:bottom, left:right].astype(np.float32) + np.float32(0.5)
    sprite, half = mover.sprite, max(mover.sprite.alpha.shape) / 2
    for moment, (spot, turn, size) in zip(moments, poses, strict=True):
        x, y = _sprite_places(mover, moment, gx, gy, spot, turn, size)
        shown = np.asarray(cv2.remap(sprite.alpha, x, y, cv2.INTER_LINEAR, borderValue=0))
        slide = (_at(mover.slide, moment) * half).astype(np.float32)
        colour = cv2.remap(
            sprite.colour, x + slide[0], y + slide[1], cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )  # fmt: skip
        alpha += shown / len(moments)
        if sprite.part is not None:
            part = cv2.remap(sprite.part, x, y, cv2.INTER_LINEAR, borderValue=0)
            marked += shown * np.asarray(part) / len(moments)
        light += np.asarray(colour) * shown[..., None] / len(moments)
    light *= np.float32(_at(mover.light, time))

    def softened(picture: np.ndarray) -> np.ndarray:
        if not mover.softness:
            return picture
        return np.asarray(cv2.GaussianBlur(picture, (0, 0), mover.softness))

    alpha = softened(alpha)
    marked = alpha if sprite.part is None else softened(marked)
    return _Patch(int(top), int(left), softened(light), alpha, marked)


def _sprite_places(
    mover: _Mover, moment: float, gx: np.ndarray, gy: np.ndarray, spot: np.ndarray, turn: float,
    size: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Which places of its sprite, float32 x and y, stand on the pixels gx and gy of the picture.

    spot, turn, size: where the mover is then, in the picture.
    """
    u, v = (gx - spot[0]) / size, (gy - spot[1]) / size
    cos, sin = np.cos(turn), np.sin(turn)
    stretch = _at(mover.stretch, moment)
    u, v = (u * cos + v * sin) / stretch[0], (v * cos - u * sin) / stretch[1]
    tilt = _at(mover.tilt, moment)
    depth = np.maximum(1 + tilt[0] * u + tilt[1] * v, 0.3)
    u, v = u / depth, v / depth
    du, dv = np.zeros_like(u), np.zeros_like(v)
    for (hu, hv), (bu, bv) in zip(mover.handles, _at(mover.bends, moment), strict=True):
        near = np.exp(-((u - hu) ** 2 + (v - hv) ** 2) / 0.35)
        du += bu * near
        dv += bv * near
    tall, wide = mover.sprite.alpha.shape
    half = max(tall, wide) / 2
    x = ((u - du) * half + wide / 2 - 0.5).astype(np.float32)
    y = ((v - dv) * half + tall / 2 - 0.5).astype(np.float32)
    return x, y


def _shade(picture: np.ndarray, patch: _Patch, strength: float, offset: int) -> None:
    h, w = patch.alpha.shape
    top, left = patch.top + offset, patch.left + offset // 2
    bottom, right = min(top + h, picture.shape[0]), min(left + w, picture.shape[1])
    if bottom > top and right > left:
        shade = np.asarray(cv2.blur(patch.alpha, (2 * offset + 1, 2 * offset + 1)))
        shade = shade[: bottom - top, : right - left, None]
        picture[top:bottom, left:right] *= 1 - strength * shade


def _camera(
    rng: np.random.Generator, frames: int, width: int, height: int, motion: float
) -> np.ndarray:
    """World to picture, float64 (T, 3, 3): the corners drift smoothly, so it may tilt too."""
    unit = min(width, height)
    strength = motion * float(rng.choice([0.0, 0.3, 1.0], p=[0.25, 0.4, 0.35]))
    shift = np.stack([smooth_curve(rng, frames, 0.11 * unit * strength) for _ in range(2)], 1)
    shift += rng.normal(0, 0.006 * unit * strength, (1, 2)) * np.arange(frames)[:, None]
    shift += rng.normal(0, 0.004 * unit, (frames, 2)) * (rng.random() < 0.25)  # a hand
    zoom = np.exp(smooth_curve(rng, frames, 0.12 * strength))
    angle = smooth_curve(rng, frames, 0.06 * strength)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    centre = np.array([width / 2, height / 2])
    sway = np.stack(
        [np.stack([smooth_curve(rng, frames, 0.03 * unit * strength) for _ in range(2)], 1)
         for _ in range(4)], 1,
    )  # fmt: skip
    matrices = []
    for t in range(frames):
        turn = np.array(
            [[np.cos(angle[t]), -np.sin(angle[t])], [np.sin(angle[t]), np.cos(angle[t])]]
        )
        moved = (corners - centre) @ turn.T * zoom[t] + centre + shift[t] - shift[0] + sway[t]
        matrices.append(cv2.getPerspectiveTransform(corners, moved.astype(np.float32)))
    return np.stack(matrices)


def _cover(
    rng: np.random.Generator, mover: _Mover, hidden: int, unit: int, side: Side, folder: Path
) -> _Mover:
    """Something as large as the mover that lies over it for `hidden` frames."""
    frames = len(mover.radius)
    first = int(rng.integers(2, max(frames - hidden - 1, 3)))
    sprite = _pseudo_sprite(rng, side, folder)
    time = np.arange(frames)
    height, width = sprite.alpha.shape
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    solid = np.maximum(abs(rows) ** 4 + abs(columns) ** 4, 0)
    alpha = np.clip((1 - solid) * 12, 0, 1).astype(np.float32)
    ratio = np.array([width, height]) / max(width, height)
    size = mover.radius.max() * rng.uniform(1.35, 1.7) / ratio.min()
    size = min(size, 3 * unit)
    apart = size * 1.1 + mover.radius.max() * 1.3
    pace = rng.uniform(0.12, 0.4) * apart
    before = np.minimum(np.clip(first - time, 0, None) * pace, 3 * unit)
    after = np.minimum(np.clip(time - (first + hidden - 1), 0, None) * pace, 3 * unit)
    heading = rng.uniform(0, 2 * np.pi)
    turn = heading + float(rng.choice([np.pi, rng.uniform(0, 2 * np.pi)]))
    away = before[:, None] * [np.cos(heading), np.sin(heading)] + after[:, None] * [
        np.cos(turn), np.sin(turn)
    ]  # fmt: skip
    still = np.zeros((frames, 2))
    return _Mover(
        sprite=_Sprite(sprite.colour, alpha),
        centre=mover.centre + away,
        radius=np.full(frames, size),
        angle=np.full(frames, rng.normal(0, 0.3)),
        tilt=still,
        stretch=np.ones((frames, 2)),
        handles=np.zeros((0, 2)),
        bends=np.zeros((frames, 0, 2)),
        slide=still,
        light=np.ones(frames),
        shadow=0.3,
        softness=0.7,
    )


def _world(
    rng: np.random.Generator, frames: int, width: int, height: int, side: Side, folder: Path,
    use_film: bool,
) -> np.ndarray:  # fmt: skip
    """float32 (1 or T, 1.6 h, 1.6 w, 3): what the camera moves over."""
    wide, tall = int(width * 1.6), int(height * 1.6)
    if use_film:
        film = filmed(folder / FILMED[int(rng.random() < 0.25)])
        start = int(rng.integers(0, max(len(film) - frames, 0) + 1))
        crop = np.random.default_rng(int(rng.integers(1 << 31)))
        state = crop.bit_generator.state
        pieces = []
        for t in range(frames):
            crop.bit_generator.state = state
            pieces.append(_piece(crop, film[min(start + t, len(film) - 1)], tall, wide, 0.6, 1.0))
        return np.stack(pieces)
    return _piece(rng, any_photograph(rng, side, folder), tall, wide, 0.4, 1.0)[None]


def draw_composite(
    seed: int,
    *,
    frames: int,
    width: int,
    height: int,
    objects: int,
    side: Side,
    hidden: int = 0,
    twins: bool = False,
    leaving: bool = False,
    clutter: int = 1,
    pseudo: float = 0.3,
    motion: float = 1.0,
    use_film: bool = False,
    parts: float = 0.0,
    folder: Path = FOLDER,
) -> Clip:
    """Draw a clip of cut-outs over photographs; the same arguments give the same clip.

    objects: how many things have masks; every one is visible in frame 0.
    side: "training" or "held_out", which pictures are used.
    hidden: object 0 is covered for about this many frames (0: only what chance brings).
    twins: all objects and half of the clutter are instances of one picture.
    leaving: the last object leaves the picture and may return.
    clutter: further things that move and have no mask.
    pseudo: share of the things that are an outline filled with a piece of a photograph.
    use_film: a filmed background (held-out side only).
    parts: share of the objects of which only a part has the mask (training/parts.py).

    Raises ValueError where no arrangement shows every object, NoPicturesError without pictures.
    """
    for attempt in range(_TRIES):
        rng = np.random.default_rng((seed, attempt))
        choice = np.random.default_rng((seed, attempt, 1))  # parts move as their things do
        world = _world(rng, frames, width, height, side, folder, use_film)
        shared = _sprite(rng, side, folder, pseudo) if twins else None
        movers: list[tuple[_Mover, int]] = []
        for index in range(objects + clutter):
            own = shared is None or (index >= objects and rng.random() < 0.5)
            sprite = _sprite(rng, side, folder, pseudo) if own or shared is None else shared
            sprite = _like_the_background(rng, sprite, world[0])
            if index < objects and choice.random() < parts:
                sprite = replace(sprite, part=draw_part(choice, sprite.colour, sprite.alpha))
            mover = _mover(
                rng, sprite, frames, width, height, motion,
                largest=0.55 if index < objects else 0.35,
                leaving=leaving and index == objects - 1,
            )  # fmt: skip
            movers.append((mover, index if index < objects else -1))
        unit = min(width, height)
        covers = [(_cover(rng, movers[0][0], hidden, unit, side, folder), -1)] if hidden else []
        movers = [movers[i] for i in rng.permutation(len(movers))] + covers
        camera = _camera(rng, frames, width, height, motion)
        first_masks = _shoot_frame(movers, camera, 0, world, width, height, objects, 0.0)[1]
        least = _LEAST_PART_SHARE if parts else _LEAST_SHARE
        if (first_masks.sum((1, 2)) >= least * width * height).all():
            return _shoot(rng, movers, camera, world, frames, width, height, objects)
    raise ValueError(f"no arrangement shows {objects} objects (seed {seed})")


def _shoot_frame(
    movers: list[tuple[_Mover, int]], camera: np.ndarray, t: int, world: np.ndarray, width: int,
    height: int, objects: int, exposure: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The picture, float32 (H, W, 3), and the visible masks, bool (N, H, W)."""
    tall, wide = world.shape[1:3]
    to_world = np.array([[1, 0, (width - wide) / 2], [0, 1, (height - tall) / 2], [0, 0, 1.0]])
    shot = np.asarray(
        cv2.warpPerspective(
            world[min(t, len(world) - 1)], camera[t] @ to_world, (width, height),
            flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT,
        )
    )  # fmt: skip
    share = np.zeros((objects, height, width), np.float32)
    offset = max(int(min(width, height) * 0.02), 1)
    for mover, index in movers:
        patch = _render(mover, t, camera[t], width, height, exposure)
        if patch is None:
            continue
        if mover.shadow:
            _shade(shot, patch, mover.shadow, offset)
        h, w = patch.alpha.shape
        rows, columns = slice(patch.top, patch.top + h), slice(patch.left, patch.left + w)
        shot[rows, columns] *= 1 - patch.alpha[..., None]
        shot[rows, columns] += patch.light
        share[:, rows, columns] *= 1 - patch.alpha
        if index >= 0:
            share[index, rows, columns] += patch.marked
    return shot, share >= _SOLID


def _shoot(
    rng: np.random.Generator, movers: list[tuple[_Mover, int]], camera: np.ndarray,
    world: np.ndarray, frames: int, width: int, height: int, objects: int,
) -> Clip:  # fmt: skip
    exposure = float(rng.choice([0.0, 0.4, 0.8], p=[0.4, 0.35, 0.25]))
    gain = 1 + smooth_curve(rng, frames, float(rng.choice([0.0, 0.1, 0.25], p=[0.5, 0.35, 0.15])))
    blur = float(rng.choice([0.0, 0.6, 1.0], p=[0.5, 0.35, 0.15])) * min(width, height) / 256
    grain = float(rng.choice([0.0, 3.0, 7.0], p=[0.4, 0.4, 0.2]))
    shots = np.empty((frames, height, width, 3), np.uint8)
    masks = np.empty((frames, objects, height, width), bool)
    for t in range(frames):
        shot, masks[t] = _shoot_frame(movers, camera, t, world, width, height, objects, exposure)
        if blur:
            shot = np.asarray(cv2.GaussianBlur(shot, (0, 0), blur))
        shot = shot * np.float32(gain[t])
        if grain:
            shot += rng.standard_normal(shot.shape, np.float32) * np.float32(grain)
        shots[t] = np.clip(shot, 0, 255)
    return Clip(shots, masks)
