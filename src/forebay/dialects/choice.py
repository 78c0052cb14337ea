"""Who can serve what: by passing through within a dialect, by conversion between two."""

from forebay.dialects import passthrough
from forebay.dialects.chat_to_messages import ChatToMessages
from forebay.dialects.endpoints import Endpoint
from forebay.dialects.messages_to_chat import MessagesToChat
from forebay.dialects.translation import Translation
from forebay.exchange import Dialect

_SAME: dict[str, Translation] = {
    "chat": passthrough.Chat(),
    "responses": passthrough.Responses(),
    "embeddings": passthrough.Embeddings(),
    "messages": passthrough.Messages(),
    "count_tokens": passthrough.CountTokens(),
}

_CONVERTED: dict[str, Translation] = {
    "chat": ChatToMessages(),
    "messages": MessagesToChat(),
}


def translate(endpoint: Endpoint, provider: Dialect) -> Translation | None:
    """How a provider of this dialect serves the endpoint; None where it cannot."""
    if endpoint.dialect == provider:
        return _SAME[endpoint.name]
    return _CONVERTED.get(endpoint.name)
