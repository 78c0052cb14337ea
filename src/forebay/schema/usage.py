"""Tokens and money, each in one unit.

Tokens: every provider's report is converted to one `Usage`, in which the input parts are
*disjoint*: OpenAI counts cached tokens inside `prompt_tokens`, Anthropic beside
`input_tokens`, and adding the one as if it were the other bills a prompt twice
(BerriAI/litellm#11364).

Money is an integer of nano-dollars, suffix `_nusd`: int64 then holds $9.2 billion, where
pico-dollars overflow SQLite at $9.2 million and micro-dollars round a cached token to
nothing. A rate is nano-dollars per million tokens, which makes $0.005/M an exact integer.
"""

import msgspec

NUSD_PER_USD = 1_000_000_000
TOKENS_PER_RATE = 1_000_000


class Usage(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Tokens of one attempt, as the provider reported them. Every count is ≥ 0.

    `input_tokens` excludes the cached and cache-written ones; `output_tokens` includes
    `reasoning_tokens`, which are billed as output everywhere.
    `estimated` is True where the provider said nothing and the count is ours.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    @property
    def prompt_tokens(self) -> int:
        """Everything that went in: uncached, read from and written to the prompt cache."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.output_tokens


class Rates(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a model costs, in nano-dollars per million tokens; 0 is free.

    `tiers` are dearer rates for long prompts: (over this many prompt tokens, rates for the
    whole attempt), ascending.
    """

    input_nusd: int = 0
    cache_read_nusd: int = 0
    cache_write_nusd: int = 0
    output_nusd: int = 0
    tiers: "tuple[tuple[int, Rates], ...]" = ()

    def cost_nusd(self, usage: Usage) -> int:
        """The price of one attempt, rounded up once. Sync, ~0.4 µs."""
        rates = self
        for threshold, dearer in self.tiers:
            if usage.prompt_tokens > threshold:
                rates = dearer
        total = (
            usage.input_tokens * rates.input_nusd
            + usage.cache_read_tokens * rates.cache_read_nusd
            + usage.cache_write_tokens * rates.cache_write_nusd
            + usage.output_tokens * rates.output_nusd
        )
        return -(-total // TOKENS_PER_RATE)


def usd(nusd: int) -> str:
    """Nano-dollars as people read them: no float on the way, no trailing zeros.

    >>> usd(1_250_000)
    '0.00125'
    """
    sign = "-" if nusd < 0 else ""
    whole, part = divmod(abs(nusd), NUSD_PER_USD)
    digits = f"{part:09d}".rstrip("0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"
