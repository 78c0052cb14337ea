import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.testbed.load.histogram import MAX_US, Histogram

VALUES = st.lists(st.integers(0, MAX_US), min_size=1, max_size=200)


@given(VALUES, st.floats(0, 1))
def test_a_quantile_is_within_half_a_percent_of_the_true_one(
    values: list[int], share: float
) -> None:
    histogram = Histogram(values)
    ordered = sorted(values)
    rank = max(1, -(-int(share * len(values) * 1_000_000) // 1_000_000))
    true = ordered[rank - 1]

    assert histogram.quantile_us(share) == pytest.approx(true, rel=0.004, abs=0.5)


@given(VALUES)
def test_sum_count_and_ends_are_exact(values: list[int]) -> None:
    histogram = Histogram(values)

    assert (histogram.count, histogram.sum_us) == (len(values), sum(values))
    assert histogram.mean_us == sum(values) / len(values)
    assert histogram.quantile_us(0) == pytest.approx(min(values), rel=0.004, abs=0.5)
    assert histogram.quantile_us(1) <= max(values)


@given(VALUES, VALUES)
def test_merging_is_as_if_all_had_been_added_to_one(one: list[int], other: list[int]) -> None:
    merged = Histogram(one)
    merged.merge(Histogram(other))
    merged.merge(Histogram())

    assert vars(merged) == vars(Histogram(one + other))


def test_small_values_are_exact_and_odd_ones_are_clamped() -> None:
    assert [Histogram([value]).quantile_us(0.5) for value in range(256)] == list(range(256))
    assert Histogram([-5]).most_us == 0
    assert Histogram([2 * MAX_US]).most_us == MAX_US
    assert Histogram().quantile_us(0.5) == Histogram().mean_us == 0.0


def test_it_prints_as_one_line() -> None:
    assert Histogram([1000, 3000]).describe() == (
        "<2 values, mean 2.0 ms, p50 1.0, p99 3.0, most 3.0>"
    )
