"""Prices: a list that is read rarely and integers that are multiplied often."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.providers.prices import (
    FREE,
    MAX_MODELS,
    PriceTable,
    known_models,
    look_up,
)
from forebay.schema.usage import Rates, Usage

NOON = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)
RATES = Rates(1, 2, 3, 4)


# -- the table of a worker -------------------------------------------------------------------


def test_what_is_unknown_is_asked_for_once_and_known_afterwards() -> None:
    table = PriceTable()
    assert table.rates("openai", "m") is None
    assert table.rates("openai", "m") is None
    assert table.wanted == {("openai", "m")}
    table.load({("openai", "m"): RATES, ("openai", "other"): None})
    assert table.wanted == set()
    assert table.rates("openai", "m") is RATES
    assert table.rates("openai", "other") is None  # it has no price: not asked for again
    assert table.wanted == set()
    assert table.known() == {("openai", "m"), ("openai", "other")}


def test_a_server_of_ones_own_is_free() -> None:
    table = PriceTable()
    assert table.rates("", "anything") is FREE
    assert table.wanted == set()
    assert FREE.cost_nusd(Usage(10**9, 0, 0, 10**9)) == 0


def test_a_newer_price_replaces_an_older_one() -> None:
    table = PriceTable()
    table.load({("openai", "m"): RATES})
    table.load({("openai", "m"): Rates(9)})
    assert table.rates("openai", "m") == Rates(9)


def test_names_that_callers_make_up_do_not_fill_the_memory() -> None:
    table = PriceTable()
    for number in range(2 * MAX_MODELS):
        table.rates("openai", f"made-up-{number}")
    assert len(table.wanted) == MAX_MODELS
    table.load({model: None for model in list(table.wanted)})
    table.rates("openai", "one more")
    assert len(table.known()) + len(table.wanted) == MAX_MODELS


# -- the list --------------------------------------------------------------------------------


def test_a_price_of_the_list() -> None:
    """Against the dollars that the provider's page names."""
    rates = look_up("openai", "gpt-4o", NOON)
    assert rates is not None
    assert (rates.input_nusd, rates.output_nusd) == (2_500_000_000, 10_000_000_000)
    assert rates.cache_read_nusd == 1_250_000_000
    assert rates.cache_write_nusd == rates.input_nusd  # no price of its own


def test_a_price_with_what_the_cache_costs() -> None:
    rates = look_up("anthropic", "claude-sonnet-4-5", NOON)
    assert rates is not None
    assert rates.input_nusd == 3_000_000_000
    assert rates.cache_read_nusd == 300_000_000
    assert rates.cache_write_nusd == 3_750_000_000
    assert rates.output_nusd == 15_000_000_000


def test_a_long_prompt_has_its_tier() -> None:
    rates = look_up("google", "gemini-2.5-pro", NOON)
    assert rates is not None
    ((start, dearer),) = rates.tiers
    assert start == 200_000
    assert dearer.input_nusd == 2 * rates.input_nusd == 2_500_000_000
    assert dearer.output_nusd > rates.output_nusd


@pytest.mark.parametrize(
    ("provider", "model"),
    [("openai", "gpt-of-tomorrow-9000"), ("nobody", "gpt-4o"), ("", ""), ("openai", "x" * 5000)],
)
def test_what_the_list_does_not_have(provider: str, model: str) -> None:
    assert look_up(provider, model, NOON) is None


@given(st.text(max_size=30))
def test_any_name_has_a_price_or_none(model: str) -> None:
    rates = look_up("openai", model, NOON)
    assert rates is None or rates.input_nusd >= 0


def test_every_price_of_the_big_lists_is_an_exact_integer() -> None:
    for provider in ("openai", "anthropic", "google", "groq", "mistral"):
        models = known_models(provider)
        assert len(models) > 5
        for model in models[:40]:
            rates = look_up(provider, model, NOON)
            if rates is not None:
                assert min(rates.input_nusd, rates.output_nusd, rates.cache_read_nusd) >= 0
                assert rates.input_nusd < 10**12  # $1,000 a million


def test_nobodys_models() -> None:
    assert known_models("nobody") == []
    assert known_models("") == []
