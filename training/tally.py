# SPDX-License-Identifier: MIT
"""Scores of one method over many objects: J, F, found again, shown while hidden."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from training.metrics import boundary_f, jaccard

HIDDEN_RUN = 5  # frames of being fully hidden that make a re-find count
FOUND_WITHIN = 5  # frames after the return
FOUND_J = 0.5


@dataclass
class Tally:
    """What one method scored on one subset; a list per figure, one entry per case."""

    j: list[float] = field(default_factory=list)
    f: list[float] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)
    shown_while_hidden: list[bool] = field(default_factory=list)

    def add(self, masks: np.ndarray, truth: np.ndarray) -> None:
        """bool (T, H, W) of one object; frame 0 is the prompt's and does not count."""
        self.j.append(
            statistics.fmean(jaccard(m, t) for m, t in zip(masks[1:], truth[1:], strict=True))
        )
        self.f.append(
            statistics.fmean(boundary_f(m, t) for m, t in zip(masks[1:], truth[1:], strict=True))
        )
        hidden = np.asarray(truth.sum((1, 2)) == 0)
        self.shown_while_hidden += [bool(m.any()) for m in masks[1:][hidden[1:]]]
        self.found += [
            any(
                jaccard(masks[t], truth[t]) >= FOUND_J
                for t in range(back, min(back + FOUND_WITHIN, len(truth)))
            )
            for back in returns_after(hidden, HIDDEN_RUN)
        ]

    @property
    def j_and_f(self) -> float:
        return (statistics.fmean(self.j) + statistics.fmean(self.f)) / 2


def returns_after(hidden: np.ndarray, run: int) -> list[int]:
    """Frames in which something is seen again after at least `run` hidden frames in a row."""
    returns, length = [], 0
    for t, gone in enumerate(hidden):
        if not gone and length >= run:
            returns.append(t)
        length = length + 1 if gone else 0
    return returns


def merged(tallies: Sequence[Tally]) -> Tally:
    return Tally(
        *(
            sum((getattr(t, name) for t in tallies), [])
            for name in ("j", "f", "found", "shown_while_hidden")
        )
    )


def share(cases: list[bool]) -> str:
    return f"{sum(cases) / len(cases):7.1%} of {len(cases):3d}" if cases else "-".rjust(14)
