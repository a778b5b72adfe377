# SPDX-License-Identifier: MIT
"""Textures of drawn objects and backgrounds: procedural, or cut from pictures.

The pictures are those that the scikit-image wheel carries; nothing is downloaded.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import as_file, files
from typing import Literal

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


@lru_cache(maxsize=32)
def packaged_picture(name: str) -> np.ndarray:
    """One of scikit-image's own pictures, uint8 (H, W, 3), RGB.

    Raises FileNotFoundError where the wheel does not carry it.
    """
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
    picture = packaged_picture(str(rng.choice(PICTURES[pictures])))
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


def draw_texture(
    rng: np.random.Generator, height: int, width: int, pictures: Pictures, share: float
) -> np.ndarray:
    """share: probability that the texture is cut from a picture."""
    if pictures == "mottled":
        return _mottle(rng, height, width) if rng.random() < 0.6 else _pattern(rng, height, width)
    if pictures != "none" and rng.random() < share:
        return _cutout(rng, height, width, pictures)
    return _pattern(rng, height, width)
