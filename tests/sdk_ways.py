"""Either SDK by the name of its dialect, for tests that hold for both; and what such tests
expect of records."""

from collections.abc import Callable
from typing import Any

import anthropic
import openai

from forebay.observe.record import Record
from sdk_kit import Gateway
from sdk_stage import USER

ASK: Any = {"max_tokens": 100, "messages": USER}


def cacheable(label: str) -> Any:
    """A request that may be answered from the cache; each test asks something of its own.
    (Anthropic's SDK has no word for the temperature any more.)"""
    said = {"role": "user", "content": f"{label} [out:12]"}
    return {"messages": [said], "extra_body": {"temperature": 0}}


#: (the SDK's dialect, a model of a provider that speaks the same or the other)
WAYS = [
    ("openai", "openai/instant"),
    ("openai", "anthropic/instant"),
    ("anthropic", "anthropic/instant"),
    ("anthropic", "openai/instant"),
]
APIError = (openai.APIError, anthropic.APIError)
StatusError = (openai.APIStatusError, anthropic.APIStatusError)


def ask(gateway: Gateway, dialect: str, model: str, retries: int = 0, **more: Any) -> Any:
    """One answer by the SDK of a dialect; a stream is read to its end and given as a list."""
    if dialect == "openai":
        with gateway.openai(max_retries=retries) as sdk:
            got: Any = sdk.chat.completions.create(model=model, **{**ASK, **more})
            return list(got) if more.get("stream") else got
    with gateway.anthropic(max_retries=retries) as claude:
        got = claude.messages.create(model=model, **{**ASK, **more})
        return list(got) if more.get("stream") else got


def outcome(*names: str) -> Callable[[Record], bool]:
    return lambda record: record.outcome in names


def failed(record: Record) -> bool:
    return record.outcome not in ("ok", "cancelled", "open")
