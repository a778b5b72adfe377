# SPDX-License-Identifier: MIT
"""Medians of interleaved measurements, and their ratios."""

import math
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A median of ratios, and where it lies with a confidence of 95 %."""

    median: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def paired_ratio(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Interval:
    """The median of the ratios within each round: what slows down a whole round cancels out.

    ours, theirs: by the number of the round. The interval is a bootstrap of the rounds (percentile
    method, fixed seed); with one round it is the whole line. Raises ValueError if there is no round
    in which both were measured.
    """
    return median_interval([ours[number] / theirs[number] for number in ours if number in theirs])


def median_interval(values: Sequence[float]) -> Interval:
    """Raises ValueError if there are none."""
    if not values:
        raise ValueError("There is no round in which both were measured.")
    low, high = _bootstrapped(np.median, values) if len(values) > 1 else (-math.inf, math.inf)
    return Interval(median=statistics.median(values), low=low, high=high, rounds=len(values))


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean, and where it lies with a confidence of 95 % (bootstrap, fixed seed)."""
    return statistics.fmean(values), *_bootstrapped(np.mean, values)


def share_interval(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Our sum by theirs, of pairs, and where it lies with a confidence of 95 % (bootstrap of the
    pairs, fixed seed). The limits are NaN where so many of theirs are 0 that a sample may hold
    nothing else. Raises ZeroDivisionError where all of theirs are 0."""
    with (
        np.errstate(all="ignore"),
        warnings.catch_warnings(action="ignore", category=DegenerateDataWarning),
    ):
        interval = _bootstrapped(lambda a, b, axis: a.sum(axis) / b.sum(axis), ours, theirs)
    return sum(ours) / sum(theirs), *interval


def _bootstrapped(statistic: Callable[..., Any], *samples: Sequence[float]) -> tuple[float, float]:
    """Where a statistic of the samples lies (percentile method, fixed seed). Several are paired."""
    low, high = bootstrap(
        tuple(np.asarray(values) for values in samples),
        statistic,
        paired=len(samples) > 1,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(low), float(high)


def spread(values: Sequence[float]) -> Interval:
    """For a handful of runs: their median, the least and the greatest."""
    return Interval(
        median=statistics.median(values), low=min(values), high=max(values), rounds=len(values)
    )


def slope(counts: Sequence[float], values: Sequence[float]) -> float:
    """What each further unit costs: the least-squares slope. Raises ValueError below 2 points."""
    if len(counts) < 2:
        raise ValueError("A slope needs two points.")
    return statistics.linear_regression(counts, values).slope
