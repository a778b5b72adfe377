# SPDX-License-Identifier: MIT
"""Medians of interleaved measurements, and their ratios."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

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
    low, high = -np.inf, np.inf
    if len(values) > 1:
        low, high = bootstrap(
            (np.asarray(values),),
            np.median,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
    return Interval(
        median=statistics.median(values), low=float(low), high=float(high), rounds=len(values)
    )


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean, and where it lies with a confidence of 95 % (bootstrap, fixed seed)."""
    low, high = bootstrap(
        (np.asarray(values),),
        np.mean,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return statistics.fmean(values), float(low), float(high)


def share_interval(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Our sum by theirs, of pairs, and where it lies with a confidence of 95 % (bootstrap of the
    pairs, fixed seed). Raises ZeroDivisionError where all of theirs are 0."""
    low, high = bootstrap(
        (np.asarray(ours), np.asarray(theirs)),
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        paired=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return sum(ours) / sum(theirs), float(low), float(high)


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
