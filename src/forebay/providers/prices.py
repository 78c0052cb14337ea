"""What models cost: genai-prices read in the back office, multiplied in the workers.

The price list is good and slow: importing it takes 0.6 s and a call 62 µs, more than the
whole request path, and some prices depend on the hour of day. So the back office looks a
model up once an hour and sends the workers `Rates`; a worker multiplies integers.

A worker knows the models in use, not all 2,330: the first request for a model finds no rates
and asks for them (`PriceTable.wanted`); they are there before the answer is.
"""

import datetime
from decimal import Decimal
from typing import Any

from forebay.schema.usage import NUSD_PER_USD, Rates

FREE = Rates()
#: Callers choose the names of models, and some servers answer to any.
MAX_MODELS = 10_000

Model = tuple[str, str]
"""(provider in the price list, the provider's name of a model)"""


class PriceTable:
    """A worker's rates: what it was sent, and what it would like to be sent."""

    def __init__(self) -> None:
        self._rates: dict[Model, Rates | None] = {}
        self.wanted: set[Model] = set()

    def rates(self, provider: str, model: str) -> Rates | None:
        """None where the price is unknown (yet). Sync, ~0.2 µs."""
        if not provider:
            return FREE
        try:
            return self._rates[provider, model]
        except KeyError:
            if len(self._rates) + len(self.wanted) < MAX_MODELS:
                self.wanted.add((provider, model))
            return None

    def known(self) -> set[Model]:
        """Those it has been told of."""
        return set(self._rates)

    def load(self, rates: dict[Model, Rates | None]) -> None:
        self._rates.update(rates)
        self.wanted -= rates.keys()


def look_up(provider: str, model: str, at: datetime.datetime) -> Rates | None:
    """A model's rates at an hour; None where the list has none. ~100 µs, first call 0.6 s."""
    from genai_prices import data_snapshot  # 0.6 s to import: only where it is needed

    try:
        found = data_snapshot.get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    price: Any = found[1].get_prices(at)
    base = {field: _base(getattr(price, name, None)) for field, name in _FIELDS.items()}
    thresholds = sorted(
        {
            tier.start
            for name in _FIELDS.values()
            for tier in getattr(getattr(price, name, None), "tiers", None) or ()
        }
    )
    tiers = tuple(
        (start, _rates({f: _above(getattr(price, n, None), start) for f, n in _FIELDS.items()}))
        for start in thresholds
    )
    rates = _rates(base)
    return Rates(
        rates.input_nusd, rates.cache_read_nusd, rates.cache_write_nusd, rates.output_nusd, tiers
    )


def known_models(provider: str) -> list[str]:
    """The models of a provider that the list prices by a name of their own."""
    from genai_prices import data_snapshot

    for candidate in data_snapshot.get_snapshot().providers:
        if candidate.id == provider:
            return [model.id for model in candidate.models]
    return []


_FIELDS = {
    "input": "input_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "output": "output_mtok",
}


def _base(price: Any) -> Decimal | None:
    base: Decimal | None = getattr(price, "base", price)
    return base


def _above(price: Any, start: int) -> Decimal | None:
    value = _base(price)
    for tier in getattr(price, "tiers", None) or ():
        if tier.start <= start:
            value = tier.price
    return value


def _rates(usd: dict[str, Decimal | None]) -> Rates:
    # A cached or written token without a price of its own costs what an input token costs.
    entry = usd["input"] or Decimal(0)
    return Rates(
        _nusd(entry),
        _nusd(usd["cache_read"] if usd["cache_read"] is not None else entry),
        _nusd(usd["cache_write"] if usd["cache_write"] is not None else entry),
        _nusd(usd["output"] or Decimal(0)),
    )


def _nusd(usd_per_mtok: Decimal) -> int:
    """Dollars per million tokens as nano-dollars per million tokens, rounded up."""
    return -int(-(usd_per_mtok * NUSD_PER_USD) // 1)
