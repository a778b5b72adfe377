# SPDX-License-Identifier: MIT
"""Medians of interleaved measurements, and their ratios."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Summary:
    median: float
    fastest: float
    slowest: float
    count: int


def summarise(values: Sequence[float]) -> Summary:
    """Raises ValueError if there are none."""
    if not values:
        raise ValueError("There is nothing to summarise.")
    return Summary(
        median=statistics.median(values),
        fastest=min(values),
        slowest=max(values),
        count=len(values),
    )


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios within each round: what slows down a whole round cancels out.

    Values of the same index were measured in the same round; the longer list is cut. Raises
    ValueError if there is no round in which both were.
    """
    ratios = [one / other for one, other in zip(ours, theirs, strict=False)]
    if not ratios:
        raise ValueError("There is no round in which both were measured.")
    return statistics.median(ratios)


def slope(counts: Sequence[float], values: Sequence[float]) -> float:
    """What each further unit costs: the least-squares slope. Raises ValueError below 2 points."""
    if len(counts) < 2:
        raise ValueError("A slope needs two points.")
    return statistics.linear_regression(counts, values).slope
