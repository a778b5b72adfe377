# SPDX-License-Identifier: MIT
"""Paths of drawn objects and of the camera."""

from __future__ import annotations

import numpy as np


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


def draw_camera(rng: np.random.Generator, frames: int, width: int, height: int) -> np.ndarray:
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
