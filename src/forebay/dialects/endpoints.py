"""What a caller can ask of the data plane, one row each; the path decides."""

from collections.abc import Callable

import msgspec

from forebay.dialects import asks
from forebay.exchange import Ask, Dialect
from forebay.wire.members import Members


class Endpoint(msgspec.Struct, frozen=True):
    name: str
    dialect: Dialect
    path: str  # as the SDKs of its dialect spell it below their base URL
    read: Callable[[Members], Ask]
    #: its answers may be kept and given again
    cacheable: bool = True


ENDPOINTS = {
    endpoint.name: endpoint
    for endpoint in (
        Endpoint("chat", "openai", "/v1/chat/completions", asks.read_chat),
        Endpoint("responses", "openai", "/v1/responses", asks.read_responses, cacheable=False),
        Endpoint("embeddings", "openai", "/v1/embeddings", asks.read_embeddings),
        Endpoint("messages", "anthropic", "/v1/messages", asks.read_messages),
        Endpoint(
            "count_tokens",
            "anthropic",
            "/v1/messages/count_tokens",
            asks.read_count_tokens,
            cacheable=False,
        ),
    )
}

BY_PATH = {endpoint.path: endpoint for endpoint in ENDPOINTS.values()}
