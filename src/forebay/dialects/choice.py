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


def translate(
    endpoint: Endpoint, provider: Dialect, answer_id: str, wall_ns: int, limit_name: str
) -> Translation | None:
    """How a provider of this dialect serves the endpoint; None where it cannot.

    A converted answer may need an id and a time that its provider didn't give; `limit_name`
    is what the provider calls the limit on output tokens. Sync, ~0.2 µs.
    """
    if endpoint.dialect == provider:
        return _SAME[endpoint.name]
    if endpoint.name == "chat":
        return ChatToMessages(answer_id, wall_ns // 1_000_000_000)
    if endpoint.name == "messages":
        return MessagesToChat(answer_id, limit_name)
    return None
