# SPDX-License-Identifier: MIT
"""What a training does at which step: learning rate, sizes, mixture of the clips.

Everything counts steps, so a busy machine trains the same, only later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.dataset import DRAWN_KINDS, SIDE

# The last part of the steps, in which the rate falls to 0: from nothing, and of trained weights,
# which a constant rate only shakes.
DECAY_SHARE, CONTINUED_DECAY_SHARE = 0.3, 0.8
SMALL_UNTIL, LONG_FROM = 0.35, 0.6  # shares of a training from nothing
# Share of the batches in which every frame is segmented by itself, from clicks and boxes. It is
# larger for a decoder trained alone: clicks are learned from many steps with few frames each.
ALONE_SHARE, DECODER_ALONE_SHARE = 0.25, 0.5
# Stocks by share of the batches.
MIXTURE = {
    "composite": 0.42,
    "composite_long": 0.26,
    "drawn": 0.13,
    "drawn_long": 0.14,
    "mottled": 0.05,
}


@dataclass(frozen=True)
class Serving:
    """What one batch is made of. alone: every frame by itself, without memory."""

    stock: str
    clips: int
    frames: int
    objects: int
    widest_stride: int
    side: int
    alone: bool = False
    clicks: bool = True


def rate_at(step: int, steps: int, warm_up: int, decay_share: float = DECAY_SHARE) -> float:
    """Share of the peak learning rate: a linear start, constant, a linear end."""
    decay = max(round(decay_share * steps), 1)
    return max(min((step + 1) / max(warm_up, 1), 1.0, (steps - step) / decay), 0.0)


def stock_at(rng: np.random.Generator, drawn_only: bool, long: bool | None = None) -> str:
    """One stock by the mixture. long: only long ones, or only short ones."""
    names = [name for name in MIXTURE if not drawn_only or name in DRAWN_KINDS]
    if long is not None:
        names = [name for name in names if name.endswith("_long") == long]
    shares = np.array([MIXTURE[name] for name in names])
    return str(rng.choice(names, p=shares / shares.sum()))


def serving_at(
    progress: float, continued: bool, rng: np.random.Generator, drawn_only: bool = False,
    decoder_only: bool = False,
) -> Serving:  # fmt: skip
    """progress: 0..1 of the steps. continued: the weights could track already at the start.
    decoder_only: nothing but the mask decoder and the prompt encoder is trained, with more frames
    segmented by themselves.

    A training from nothing begins with small pictures, at a quarter of the cost, and without
    clicks.
    """
    if not continued and progress < SMALL_UNTIL:
        stock = stock_at(rng, drawn_only, long=False)
        if rng.random() < 0.3:
            return Serving(stock, 4, 4, 2, 2, SIDE // 2, alone=True, clicks=progress > 0.2)
        return Serving(stock, 4, 4, 2, 2, SIDE // 2, clicks=progress > 0.2)
    if rng.random() < (DECODER_ALONE_SHARE if decoder_only else ALONE_SHARE):
        return Serving(stock_at(rng, drawn_only, long=False), 4, 2, 3, 3, SIDE, alone=True)
    stock = stock_at(rng, drawn_only)
    if stock.endswith("_long"):
        frames = 10 if continued or progress > LONG_FROM else 8
        return Serving(stock, 1, frames, 3, 2, SIDE)
    if rng.random() < 0.5:
        return Serving(stock, 1, 8, 3, 1, SIDE)
    return Serving(stock, 2, 4, 3, 3, SIDE)
