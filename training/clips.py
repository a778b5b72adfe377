# SPDX-License-Identifier: MIT
"""Draw short video clips with exact masks: the data of the bundled micro model.

Everything is a function of the seed. Textures are procedural or cut from the pictures that the
scikit-image wheel carries; nothing is downloaded. No torch here: tests and the demo use it too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

import cv2
import numpy as np

from training.motion import draw_camera, draw_path, smooth_curve
from training.outlines import REACH, Part, dense, draw_blob, draw_shape
from training.textures import Pictures, draw_texture

_TEXTURE_SIDE = 160  # pixels of an object's texture, which covers its plane
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
class _Thing:
    """Something that moves through the picture; radius and path are in pixels."""

    parts: tuple[Part, ...]
    texture: np.ndarray  # float32 (S, S, 3), 0..255
    path: np.ndarray  # float64 (T, 2), x and y of the centre
    angle: np.ndarray  # (T,), radians
    radius: np.ndarray  # (T,)
    stretch: np.ndarray  # (T, 2), along the object's own axes
    wobble: tuple[float, float, float, float]  # amplitude, waves, rate, phase
    softness: float  # sigma of the edge, pixels
    shadow: float
    light: np.ndarray  # (T,)


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
    texture = draw_texture(rng, _TEXTURE_SIDE, _TEXTURE_SIDE, pictures, 0.45)
    if rng.random() < 0.4:  # shading over the object, as a lamp makes it
        y, x = np.mgrid[-1 : 1 : 1j * _TEXTURE_SIDE, -1 : 1 : 1j * _TEXTURE_SIDE]
        turn = rng.uniform(0, 6.3)
        shade = 1 + rng.uniform(0.1, 0.5) * (x * np.cos(turn) + y * np.sin(turn))
        texture = np.clip(texture * shade[..., None], 0, 255).astype(np.float32)
    deforms = rng.random() < 0.55
    spin = rng.choice([0.0, 0.02, 0.07], p=[0.35, 0.4, 0.25]) * rng.normal() * motion
    return _Thing(
        parts=draw_shape(rng),
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
        ring = dense(np.array([[-w, -h], [w, -h], [w, h], [-w, h]]))
    else:
        blob = draw_blob(rng, 0.3)
        ring = blob / np.linalg.norm(blob, axis=1).min()
    cover = replace(
        cover,
        parts=(Part((ring,)),),
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
    own_per_texel = 2 * REACH / _TEXTURE_SIDE
    place = np.empty((2, 3))
    place[:, :2] = matrix[:, :2] * own_per_texel
    place[:, 2] = matrix[:, 2] - matrix[:, :2] @ [REACH, REACH] - [left, top]
    colour = cv2.warpAffine(
        thing.texture, place, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return _Patch(int(top), int(left), alpha, colour * np.float32(thing.light[frame]))


def _background(
    rng: np.random.Generator, width: int, height: int, pictures: Pictures
) -> np.ndarray:
    """The still world behind everything, clutter on it: float32, 1.5 times the picture."""
    wide, tall = int(width * 1.5), int(height * 1.5)
    world = draw_texture(rng, tall, wide, pictures, 0.7)
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
    return order + covers, draw_camera(rng, frames, width, height)


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
