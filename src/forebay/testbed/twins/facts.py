"""What a simulated model and its provider are like, as data, and the presets.

Two kinds. A `Hosted` model is somebody else's fleet: time to first token is log-normal, grows
with the uncached prompt and with how much of the rate limits is used, then tokens come at a
steady pace; requests above the limits get 429. A `SelfHosted` model is one inference server
of one's own: nobody refuses, everybody slows everybody down, and when the KV pool overflows
running answers are thrown out and computed again (see `engine`).

Sources of the numbers, with what is measured, said by others or assumed:
docs/decisions/0007-testbed.md.
"""

from typing import Literal

import msgspec

from forebay.schema.usage import NUSD_PER_USD, Rates


def usd_per_million(
    input: float, cache_read: float, cache_write: float, output: float
) -> Rates:  # the price lists' own order
    """Rates from dollars per million tokens as price lists print them."""
    return Rates(
        input_nusd=round(input * NUSD_PER_USD),
        cache_read_nusd=round(cache_read * NUSD_PER_USD),
        cache_write_nusd=round(cache_write * NUSD_PER_USD),
        output_nusd=round(output * NUSD_PER_USD),
    )


class Hosted(msgspec.Struct, frozen=True, kw_only=True, tag="hosted", tag_field="kind"):
    """A model behind a provider's API."""

    rates: Rates = Rates()
    #: time to first token of an idle provider, without the prompt's share: log-normal
    ttft_median_s: float = 0.9
    ttft_sigma: float = 0.45
    #: time to read 1,000 tokens of prompt that are not in the prompt cache
    prefill_ms_per_1k: float = 50.0
    #: what a cached token costs in time, as a share of an uncached one
    cached_prefill_share: float = 0.1
    #: decoding: normal with this relative spread, drawn once per answer
    tokens_per_s: float = 60.0
    tokens_spread: float = 0.15
    #: how often an answer's stream sends an event; tokens per event follow from it
    events_per_s: float = 20.0
    #: limits per minute; 0 is none
    rpm: int = 0
    tpm: int = 0
    #: Anthropic counts input and output apart: `tpm` is then the input's limit
    output_tpm: int = 0
    #: how many seconds' worth of a limit may be used at once
    burst_s: float = 10.0
    #: a refused request uses up one request of the limit all the same
    refused_count: bool = True
    #: length of an answer where nobody says: log-normal
    output_median: float = 129.0
    output_sigma: float = 1.0
    #: most tokens in and out together
    context: int = 200_000
    #: seconds that a prompt's prefix stays in the prompt cache after its last use
    prompt_cache_s: float = 300.0


class SelfHosted(msgspec.Struct, frozen=True, kw_only=True, tag="self_hosted", tag_field="kind"):
    """One inference server: a KV pool, continuous batching, preemption with recompute.

    A decode step of the whole batch takes
    `step_ms + step_ms_per_request · batch + step_ms_per_1k_kv · kv_tokens / 1000`.
    """

    rates: Rates = Rates()
    kv_tokens: int = 65_536
    batch_max: int = 256
    prefill_ms_per_1k: float = 125.0
    step_ms: float = 12.0
    step_ms_per_request: float = 0.12
    step_ms_per_1k_kv: float = 0.15
    #: the engine is simulated in steps of this size, and events come as often
    events_per_s: float = 20.0
    output_median: float = 129.0
    output_sigma: float = 1.0
    context: int = 32_768


Model = Hosted | SelfHosted

# Calibration A of the workload: $5 in, $25 out; cached and write rates of the model that has
# this price (claude-opus-5, price lists of 24 Nov 2026).
FRONTIER_RATES = usd_per_million(5, 0.5, 6.25, 25)
SMALL_RATES = usd_per_million(0.1, 0.01, 0.125, 0.5)

PRESETS: dict[str, Model] = {
    # Tier 4 of the first provider's published limits.
    "frontier": Hosted(rates=FRONTIER_RATES, rpm=10_000, tpm=4_000_000),
    "small": Hosted(
        rates=SMALL_RATES,
        ttft_median_s=0.45,
        ttft_sigma=0.35,
        prefill_ms_per_1k=12.0,
        tokens_per_s=130.0,
        rpm=30_000,
        tpm=150_000_000,
    ),
    # The same model at a second host: slower, less steady, limits of its own.
    "second": Hosted(
        rates=FRONTIER_RATES,
        ttft_median_s=1.2,
        ttft_sigma=0.6,
        tokens_per_s=45.0,
        rpm=10_000,
        tpm=4_000_000,
    ),
    "self_hosted": SelfHosted(),
    # Answers at once and refuses nobody: for tests of something else.
    "instant": Hosted(
        rates=FRONTIER_RATES,
        ttft_median_s=0.0,
        prefill_ms_per_1k=0.0,
        tokens_per_s=1_000_000.0,
        tokens_spread=0.0,
        events_per_s=1_000_000.0,
        output_median=8.0,
        output_sigma=0.0,
    ),
}


class TwinConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One simulated provider."""

    dialect: Literal["openai", "anthropic"] = "openai"
    #: by the name that callers ask for
    models: dict[str, Model] = msgspec.field(
        default_factory=lambda: {"frontier": PRESETS["frontier"]}
    )
    #: accepted API keys; empty: any key, but one must be sent
    keys: tuple[str, ...] = ("twin-key",)
    #: all luck of this twin; None: drawn from the World
    seed: int | None = None
    #: embeddings, by name; OpenAI dialect only
    embeddings: dict[str, Rates] = msgspec.field(
        default_factory=lambda: {"embedding": usd_per_million(0.02, 0, 0, 0)}
    )
    embedding_dimensions: int = 256
    #: what an answer costs whose caller left: the tokens made until then, or all
    bill_when_gone: Literal["produced", "whole"] = "produced"
    #: bytes per second to each connection; None: as fast as it takes them
    bytes_per_s: int | None = None
    #: keep bodies in the log (tests), or their digests only (load)
    keep_bodies: bool = True
    log_limit: int = 10_000


#: Largest request body a twin accepts, in bytes.
MAX_BODY = 64 * 1024 * 1024
