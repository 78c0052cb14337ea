"""Tokens in one unit and money in integers, rounded up once."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.schema.usage import NUSD_PER_USD, TOKENS_PER_RATE, Rates, Usage, usd

COUNTS = st.integers(0, 10**9)
RATE = st.integers(0, 10**12)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
FLAT = st.builds(Rates, RATE, RATE, RATE, RATE)


def test_parts_of_a_prompt_are_disjoint() -> None:
    usage = Usage(1, 20, 300, 4000, 1000)
    assert usage.prompt_tokens == 321
    assert usage.total_tokens == 4321  # reasoning is within the output


@given(USAGES, FLAT)
def test_a_cost_is_the_exact_price_rounded_up_once(usage: Usage, rates: Rates) -> None:
    """Not once a part: four roundings would make four nano-dollars of nothing."""
    exact = (
        Fraction(usage.input_tokens * rates.input_nusd, TOKENS_PER_RATE)
        + Fraction(usage.cache_read_tokens * rates.cache_read_nusd, TOKENS_PER_RATE)
        + Fraction(usage.cache_write_tokens * rates.cache_write_nusd, TOKENS_PER_RATE)
        + Fraction(usage.output_tokens * rates.output_nusd, TOKENS_PER_RATE)
    )
    cost = rates.cost_nusd(usage)
    assert isinstance(cost, int)
    assert cost - 1 < exact <= cost


def test_a_single_token_is_not_for_free() -> None:
    assert Rates(input_nusd=1).cost_nusd(Usage(1)) == 1
    assert Rates(input_nusd=1, output_nusd=1).cost_nusd(Usage(1, 0, 0, 1)) == 1
    assert Rates().cost_nusd(Usage(10**9, 10**9, 10**9, 10**9)) == 0


def test_prices_that_floats_get_wrong() -> None:
    # $0.075 in, $0.30 out a million, 1,234,567 and 89 tokens
    rates = Rates(75_000_000, 0, 0, 300_000_000)
    assert rates.cost_nusd(Usage(1_234_567, 0, 0, 89)) == 92_592_525 + 26_700


@pytest.mark.parametrize(
    ("prompt", "cost"),
    [
        (Usage(200_000), 200_000 * 1),
        (Usage(200_001), 200_001 * 2),
        (Usage(1, 200_000), 2 + 200_000 * 20),  # what was read from a cache counts, too
        (Usage(1, 0, 500_000), 3 + 500_000 * 300),
    ],
)
def test_a_long_prompt_is_dearer_as_a_whole(prompt: Usage, cost: int) -> None:
    million = TOKENS_PER_RATE
    rates = Rates(
        million,
        10 * million,
        100 * million,
        tiers=(
            (200_000, Rates(2 * million, 20 * million, 200 * million)),
            (400_000, Rates(3 * million, 30 * million, 300 * million)),
        ),
    )
    assert rates.cost_nusd(prompt) == cost


@given(usage=USAGES, rates=FLAT, dearer=FLAT, start=st.integers(0, 3 * 10**9))
def test_a_tier_is_all_or_nothing(usage: Usage, rates: Rates, dearer: Rates, start: int) -> None:
    tiered = Rates(
        rates.input_nusd,
        rates.cache_read_nusd,
        rates.cache_write_nusd,
        rates.output_nusd,
        ((start, dearer),),
    )
    applies = dearer if usage.prompt_tokens > start else rates
    assert tiered.cost_nusd(usage) == applies.cost_nusd(usage)


@pytest.mark.parametrize(
    ("nusd", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (-1, "-0.000000001"),
        (1_250_000, "0.00125"),
        (NUSD_PER_USD, "1"),
        (-NUSD_PER_USD, "-1"),
        (10 * NUSD_PER_USD, "10"),
        (2**63 - 1, "9223372036.854775807"),
    ],
)
def test_money_as_people_read_it(nusd: int, text: str) -> None:
    assert usd(nusd) == text


@given(st.integers(-(2**63), 2**63 - 1))
def test_money_is_written_exactly(nusd: int) -> None:
    assert Fraction(usd(nusd)) * NUSD_PER_USD == nusd
    assert "e" not in usd(nusd).lower()
