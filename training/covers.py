# SPDX-License-Identifier: MIT
"""Plain rectangles that lie over an object for a while, as a person or a censor bar does.

Behind a textured cover a tracker sees that something else is there. A plain one has nothing to
recognise, and a model that never saw one goes on showing its mask on it. No torch here.
"""

from __future__ import annotations

import numpy as np

MARGIN = 0.15  # of the object's box, that a cover is larger on every side


def lay_cover(
    frames: np.ndarray, masks: np.ndarray, index: int, first: int, count: int, colour: np.ndarray
) -> None:
    """Cover object `index` from frame `first` on for `count` frames, in place.

    frames: uint8 (T, H, W, 3), RGB. masks: bool (N, T, H, W). colour: 3 values, 0..255. The
    rectangle stands still over everything that the object covers in these frames.
    """
    span = slice(first, first + count)
    rows = np.flatnonzero(masks[index, span].any((0, 2)))
    columns = np.flatnonzero(masks[index, span].any((0, 1)))
    if not len(rows):
        return
    places = []
    for used in (rows, columns):
        margin = round(MARGIN * (used[-1] - used[0] + 1)) + 2
        places.append(slice(max(int(used[0]) - margin, 0), int(used[-1]) + margin + 1))
    frames[span, places[0], places[1]] = np.asarray(colour, np.uint8)
    masks[:, span, places[0], places[1]] = False


def cover_by_chance(rng: np.random.Generator, frames: np.ndarray, masks: np.ndarray) -> None:
    """Cover one object that is seen in the first frame, in place; never in the first frame."""
    length = len(frames)
    seen = np.flatnonzero(masks[:, 0].any((1, 2)))
    if length < 4 or not len(seen):
        return
    first = int(rng.integers(1, length - 1))
    count = int(rng.integers(1, length - first + 1))
    grey = rng.random() < 0.5
    colour = np.full(3, rng.integers(0, 256)) if grey else rng.integers(0, 256, 3)
    lay_cover(frames, masks, int(rng.choice(seen)), first, count, colour)
