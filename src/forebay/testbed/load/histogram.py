"""A histogram of durations: log-linear buckets, mergeable, quantiles to within 0.4 %.

As in HdrHistogram (Tene): each power of two is cut into 128 equal buckets, so a bucket is
never wider than 1/128 of its value and its middle never further off than 1/256. Values are
whole microseconds from 0 to 2^40 (12 days); larger ones count as the largest. Sum, count,
least and most are exact. Memory: only buckets that were hit.
"""

from collections.abc import Iterable
from typing import Self

_SUB_BITS = 7
_SUB = 1 << _SUB_BITS
MAX_US = 1 << 40


class Histogram:
    def __init__(self, values_us: Iterable[int] = ()) -> None:
        self.count = 0
        self.sum_us = 0
        self.least_us = 0
        self.most_us = 0
        self._buckets: dict[int, int] = {}
        for value in values_us:
            self.add(value)

    def add(self, value_us: int) -> None:
        """Sync, ~0.5 µs. Negative values count as 0."""
        value_us = min(max(value_us, 0), MAX_US)
        self.least_us = min(self.least_us, value_us) if self.count else value_us
        self.most_us = max(self.most_us, value_us)
        self.count += 1
        self.sum_us += value_us
        index = _index(value_us)
        self._buckets[index] = self._buckets.get(index, 0) + 1

    def merge(self, other: Self) -> None:
        """Add all values of another histogram."""
        if not other.count:
            return
        self.least_us = min(self.least_us, other.least_us) if self.count else other.least_us
        self.most_us = max(self.most_us, other.most_us)
        self.count += other.count
        self.sum_us += other.sum_us
        for index, count in other._buckets.items():
            self._buckets[index] = self._buckets.get(index, 0) + count

    @property
    def mean_us(self) -> float:
        """Exact; 0 where there are no values."""
        return self.sum_us / self.count if self.count else 0.0

    def quantile_us(self, share: float) -> float:
        """The value below which this share (0 to 1) of the values lies; 0 without values."""
        if not self.count:
            return 0.0
        rank = max(1, -(-int(share * self.count * 1_000_000) // 1_000_000))
        seen = 0
        for index in sorted(self._buckets):
            seen += self._buckets[index]
            if seen >= rank:
                return min(max(_middle(index), self.least_us), self.most_us)
        return float(self.most_us)

    def describe(self) -> str:
        p50, p99 = self.quantile_us(0.5), self.quantile_us(0.99)
        return (
            f"<{self.count} values, mean {self.mean_us / 1000:.1f} ms, "
            f"p50 {p50 / 1000:.1f}, p99 {p99 / 1000:.1f}, most {self.most_us / 1000:.1f}>"
        )


def _index(value: int) -> int:
    # Below 128 each value has its own bucket; above, the top eight bits name it.
    shift = max(0, value.bit_length() - _SUB_BITS - 1)
    return (shift << _SUB_BITS) + (value >> shift)


def _middle(index: int) -> float:
    shift = max(0, (index >> _SUB_BITS) - 1)
    low = (index - (shift << _SUB_BITS)) << shift
    return low + ((1 << shift) - 1) / 2
