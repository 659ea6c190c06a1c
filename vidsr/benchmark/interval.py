"""How sure a few noisy rounds make us: intervals that suppose nothing about how the noise is distributed.

Around a median: the k-th smallest and the k-th largest of independent values enclose it with a probability that the
binomial distribution gives (W. R. Thompson, On confidence ranges for the median, 1936; the sign test turned round).
Between two samples: the same for all their quotients, by the distribution of Wilcoxon's rank sum (E. L. Lehmann,
Nonparametric confidence intervals for a shift parameter, 1963; here of logarithms). No bootstrap: from five values it
only ever draws the same five, and its intervals come out too narrow.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Interval", "median_interval", "ratio_interval"]

_ENOUGH = 0.9
"""How sure is sure: 5 rounds in turn are the fewest that can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """middle: the median. sure: with what probability, 0..1, the true one lies between low and high."""

    middle: float
    low: float
    high: float
    sure: float

    @property
    def enough(self) -> bool:
        """Whether there were values enough to say anything."""
        return self.sure >= _ENOUGH - 1e-9

    @property
    def turned(self) -> Interval:
        """The same of one divided by it."""
        return Interval(middle=1 / self.middle, low=1 / self.high, high=1 / self.low, sure=self.sure)


def median_interval(values: Sequence[float]) -> Interval:
    """Around the median of what the values are drawn from."""
    return _interval(values, [math.comb(len(values), count) for count in range(len(values) + 1)])


def ratio_interval(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Around how many times as large the second ones are, values > 0 that were not drawn in pairs."""
    return _interval((after / before for before in first for after in second), _rank_sums(len(first), len(second)))


def _interval(values: Iterable[float], ways: Sequence[int]) -> Interval:
    """The narrowest one that is sure enough, or all there is. ways: to have 0, 1, 2, ... of the values below what is
    looked for, of all ways equally likely."""
    ordered = sorted(values)
    total, below, cut = sum(ways), ways[0], 0
    while cut + 1 < len(ordered) / 2 and 1 - 2 * (below + ways[cut + 1]) / total >= _ENOUGH - 1e-9:
        cut += 1
        below += ways[cut]
    return Interval(
        middle=statistics.median(ordered),
        low=ordered[cut],
        high=ordered[-1 - cut],
        sure=max(0.0, 1 - 2 * below / total),
    )


def _rank_sums(first: int, second: int) -> list[int]:
    """How many orders of the two samples have 0, 1, 2, ... pairs in which the second's value is the smaller one."""
    ways = [1, *[0] * (first * second)]
    for size in range(1, first + 1):
        for pairs in range(first * second, second + size - 1, -1):
            ways[pairs] -= ways[pairs - second - size]
        for pairs in range(size, first * second + 1):
            ways[pairs] += ways[pairs - size]
    return ways
