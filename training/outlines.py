# SPDX-License-Identifier: MIT
"""Outlines of drawn objects: blobs, polygons, stars, rings, worms, jointed figures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

REACH = 1.5  # of an object's own plane, in each direction


@dataclass(frozen=True)
class Part:
    """Closed rings in the object's own plane (about the unit disc), filled even-odd."""

    rings: tuple[np.ndarray, ...]
    joint: tuple[float, float] = (0.0, 0.0)
    swing: float = 0.0
    swing_rate: float = 0.0
    swing_phase: float = 0.0


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


def draw_blob(rng: np.random.Generator, roughness: float) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(turn)
    for waves in range(2, 8):
        radius += roughness / waves * rng.normal() * np.cos(waves * turn + rng.uniform(0, 6.3))
    radius = np.clip(radius, 0.3, 1.5)
    return np.stack([np.cos(turn), np.sin(turn)], 1) * radius[:, None]


def dense(ring: np.ndarray, per_edge: int = 8) -> np.ndarray:
    """Points along the edges, so that a wobble bends them."""
    steps = np.linspace(0, 1, per_edge, endpoint=False)[:, None]
    return np.concatenate(
        [a + (b - a) * steps for a, b in zip(ring, np.roll(ring, -1, 0), strict=True)]
    )


def _solid_shape(rng: np.random.Generator) -> np.ndarray:
    kind = rng.choice(["blob", "ellipse", "polygon", "star", "box"], p=[0.4, 0.18, 0.17, 0.1, 0.15])
    if kind == "blob":
        return draw_blob(rng, rng.uniform(0.15, 0.9))
    if kind == "ellipse":
        return _circle() * [1, rng.uniform(0.35, 1.0)]
    if kind == "box":
        w, h = 1.0, rng.uniform(0.3, 1.0)
        return dense(np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) * 0.85)
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
    return dense(ring)


def draw_shape(rng: np.random.Generator) -> tuple[Part, ...]:
    kind = rng.choice(
        ["solid", "figure", "worm", "ring", "several"], p=[0.58, 0.2, 0.08, 0.06, 0.08]
    )
    if kind == "solid":
        return (Part((_solid_shape(rng),)),)
    if kind == "ring":
        return (Part((_circle() * [1, rng.uniform(0.7, 1)], _circle() * rng.uniform(0.35, 0.65))),)
    if kind == "several":
        count = int(rng.integers(2, 5))
        turns = np.linspace(0, 6.283, count, endpoint=False) + rng.uniform(0, 6.28)
        spread, size = rng.uniform(0.45, 0.8), rng.uniform(0.3, 0.5)
        return tuple(
            Part((_solid_shape(rng) * size + spread * np.array([np.cos(t), np.sin(t)]),))
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
        return (Part((np.concatenate([spine + normal * thick, (spine - normal * thick)[::-1]]),)),)
    body = _circle() * [rng.uniform(0.3, 0.5), rng.uniform(0.45, 0.7)]
    parts = [Part((body,))]
    rate = rng.uniform(0.15, 0.8)
    for _ in range(int(rng.integers(2, 6))):
        turn = rng.uniform(0, 2 * np.pi)
        joint = np.array([np.cos(turn) * 0.35, np.sin(turn) * 0.5])
        reach = rng.uniform(0.5, 0.95) * np.array([np.cos(turn), np.sin(turn)])
        limb = rng.uniform(0.1, 0.22)
        parts.append(
            Part((_capsule(joint, joint + reach, limb, limb * rng.uniform(0.5, 1)),),
                  (float(joint[0]), float(joint[1])), rng.uniform(0, 0.8),
                  rate * rng.choice([1.0, 1.0, 2.0]), rng.uniform(0, 6.3))
        )  # fmt: skip
    if rng.random() < 0.7:
        head = _circle(32) * rng.uniform(0.2, 0.35) + [0, -rng.uniform(0.7, 0.9)]
        parts.append(Part((head,), (0.0, -0.5), rng.uniform(0, 0.3), rate, rng.uniform(0, 6.3)))
    return tuple(parts)


def draw_shape_mask(rng: np.random.Generator, side: int) -> np.ndarray:
    """The outline of one of the drawn shapes, float32 (side, side), 0..1."""
    canvas = np.zeros((side, side), np.uint8)
    for part in draw_shape(rng):
        rings = [np.round((ring / REACH + 1) / 2 * side).astype(np.int32) for ring in part.rings]
        filled = np.zeros_like(canvas)
        cv2.fillPoly(filled, rings, 255)
        canvas = np.maximum(canvas, filled)
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), 0.7)).astype(np.float32) / 255
