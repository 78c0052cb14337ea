"""Bytes of a request or an answer as the conversation they are, for people to read.

Everything in here was written by callers, models and tools, so it may be anything: whatever
does not have the shape it should have is shown as the JSON it is, and nothing raises. What a
page or terminal does with the texts (escape them) is its own business; the exact bytes are
shown elsewhere. Pure.

Shapes read: OpenAI Chat Completions, Responses and Embeddings, Anthropic Messages, each as a
request, as a whole answer and as a stream of events.
"""

from typing import Any

from forebay.console.said import (
    Part,
    Said,
    decoded,
    read_answer,
    read_item,
    read_message,
    read_parts,
    text_of,
)
from forebay.console.streams import streamed

__all__ = ["Part", "Said", "answered", "asked", "offered_tools", "question"]


def asked(body: bytes) -> list[Said]:
    """The messages of a request; [] where it holds none that can be read."""
    try:
        return _asked(decoded(body))
    except RecursionError:  # tool results in tool results in …
        return []


def answered(body: bytes) -> list[Said]:
    """The messages of an answer, whole or streamed; [] where there are none to read."""
    try:
        if body[:64].lstrip().startswith((b"data:", b"event:", b":")):
            return streamed(body)
        return read_answer(decoded(body))
    except RecursionError:
        return []


def question(body: bytes) -> str:
    """What was asked last, "" where nobody can say."""
    for said in reversed(asked(body)):
        if said.role in ("user", "tool", "input"):
            for part in said.parts:
                if part.text:
                    return part.text
    return ""


def offered_tools(body: bytes) -> list[str]:
    """Names of the tools a request offers."""
    request = decoded(body)
    if not isinstance(request, dict) or not isinstance(request.get("tools"), list):
        return []
    names = []
    for tool in request["tools"]:
        match tool:
            case {"function": {"name": str(name)}} | {"name": str(name)}:
                names.append(name)
            case {"type": str(kind)}:
                names.append(kind)
    return names


def _asked(request: Any) -> list[Said]:
    match request:
        case {"messages": list(messages)}:
            found = _system(request.get("system"))
            return found + [read_message(message) for message in messages]
        case {"input": wanted}:
            found = _system(request.get("instructions"))
            return found + _input(wanted)
        case {"prompt": prompt}:
            return [Said("user", read_parts(prompt))]
    return []


def _system(told: Any) -> list[Said]:
    return [Said("system", read_parts(told))] if told else []


def _input(wanted: Any) -> list[Said]:
    """Of Responses (items) and Embeddings (texts, or lists of token numbers)."""
    if isinstance(wanted, list) and all(isinstance(item, dict) for item in wanted):
        return [read_item(item) for item in wanted]
    texts = wanted if isinstance(wanted, list) else [wanted]
    return [Said("input", [Part("text", text_of(text)) for text in texts])]
