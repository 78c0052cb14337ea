"""What is true of a provider or a model whoever asks: data, with its source.

Every field answers a question the control layer has. Where nothing is known the careful
answer is the default: no prefill, and closing the connection ends the billing.
"""

from typing import Literal

import msgspec


class PromptCache(msgspec.Struct, frozen=True):
    """How a provider caches prompt prefixes (shared: cache-routing.md, section 2).

    `trigger`: automatic, or by `cache_control` marks in the request. `minimum_tokens` below
    which nothing is cached, `step_tokens` the granularity of hits. Prices as factors of the
    input rate are the price table's business, not ours.
    """

    trigger: Literal["automatic", "marks"]
    minimum_tokens: int
    step_tokens: int = 1
    ttl_s: int = 300


class Facts(msgspec.Struct, frozen=True):
    #: continues an assistant message that the request ends with
    prefill: bool = False
    #: what cancelling does to the bill: `close` ends it, `drain` means the provider bills the
    #: whole answer anyway, so it is read to its end for its usage (Bedrock: litellm PR#36008)
    on_cancel: Literal["close", "drain"] = "close"
    prompt_cache: PromptCache | None = None
    #: what it calls the limit on a chat answer's tokens; OpenAI's reasoning models refuse the
    #: older `max_tokens`, most servers of its dialect know nothing else
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    #: its list of models is complete: other names are refused, not forwarded
    closed: bool = False
    #: endpoints (names in dialects.ENDPOINTS) it has in its own dialect
    endpoints: frozenset[str] = frozenset()


class ModelFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one model can take and give; unset (None) where nobody said."""

    #: most tokens of a request and its answer; noted, nothing acts on it yet
    context_tokens: int | None = None
    #: most tokens of an answer; noted, nothing acts on it yet
    max_output_tokens: int | None = None
    #: whether it continues an assistant message that the request ends with; unset: as its
    #: provider; noted, nothing acts on it yet
    prefill: bool | None = None
    #: whether it takes tools; false: a request with tools is refused
    tools: bool | None = None
    #: whether it takes images; false: a request with images is refused
    images: bool | None = None


OPENAI = Facts(
    limit_name="max_completion_tokens",
    prompt_cache=PromptCache("automatic", minimum_tokens=1024, step_tokens=128, ttl_s=300),
    endpoints=frozenset({"chat", "responses", "embeddings"}),
)
#: Everything that speaks the dialect without being OpenAI: prefix caches are automatic in
#: vLLM, SGLang and llama.cpp, in blocks of 16 tokens or finer; Responses is a coin toss.
OPENAI_COMPATIBLE = Facts(
    prompt_cache=PromptCache("automatic", minimum_tokens=0, step_tokens=16),
    endpoints=frozenset({"chat", "responses", "embeddings"}),
)
ANTHROPIC = Facts(
    # Models since Claude Opus 4.6 answer a prefilled request with 400; older ones continue it.
    # The careful answer stands until a model's own facts say otherwise.
    prefill=False,
    prompt_cache=PromptCache("marks", minimum_tokens=1024, ttl_s=300),
    endpoints=frozenset({"messages", "count_tokens"}),
)
