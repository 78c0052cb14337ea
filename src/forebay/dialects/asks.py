"""What the pipeline needs to know of a request, read from its body, per endpoint.

One typed decode checks what every provider would refuse anyway (so that the caller gets the
error from us, at once, with a path) and leaves the rest alone: unknown fields are the
provider's business, and a field that ships tomorrow works tomorrow.

Token counts, both from the raw bytes. The *bound* is safe to reserve money against: no
tokenizer in use makes more tokens than UTF-8 bytes, JSON escapes only add bytes, and a
constant per message covers the template around it. The *estimate* is 4 bytes a token
(measured means are 3.6 to 4.7 for English prose and code), for pacing and display.
"""

import re
from typing import Annotated, Any

import msgspec

from forebay.errors import Failure
from forebay.exchange import Ask
from forebay.wire.members import Members

#: Template tokens around one message; OpenAI's guide counts 3 to 4, llama templates up to 12.
TOKENS_PER_MESSAGE = 16
BYTES_PER_TOKEN = 4

_PATH = re.compile(r"^(.*) - at `\$\.?([^`]*)`$")

NonEmpty = msgspec.Meta(min_length=1)
#: Names go into paths, headers and tables; the longest seen, ARNs and paths to fine-tuned
#: models, have about 200 characters.
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
#: The largest integer that every JSON parser reads exactly (RFC 8259, section 6).
_LARGEST = 2**53 - 1
Positive = Annotated[int, msgspec.Meta(ge=1, le=_LARGEST)]


class _Part(msgspec.Struct, gc=False):
    type: str


class _Message(msgspec.Struct, gc=False):
    role: str
    content: str | list[_Part] | None = None


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class _Chat(msgspec.Struct, gc=False):
    model: Name
    messages: Annotated[list[_Message], NonEmpty]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: float | None = None
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    n: Positive | None = None


class _Messages(msgspec.Struct, gc=False):
    model: Name
    messages: Annotated[list[_Message], NonEmpty]
    max_tokens: Annotated[int, msgspec.Meta(ge=0, le=_LARGEST)]
    system: str | list[_Part] | None = None
    stream: bool | None = None
    temperature: float | None = None


class _CountTokens(msgspec.Struct, gc=False):
    model: Name
    messages: Annotated[list[_Message], NonEmpty]


class _Responses(msgspec.Struct, gc=False):
    model: Name
    input: str | list[Any] | None = None
    stream: bool | None = None
    temperature: float | None = None
    max_output_tokens: Positive | None = None


class _Embeddings(msgspec.Struct, gc=False):
    model: Name
    input: str | list[Any]


_chat = msgspec.json.Decoder(_Chat).decode
_messages = msgspec.json.Decoder(_Messages).decode
_count_tokens = msgspec.json.Decoder(_CountTokens).decode
_responses = msgspec.json.Decoder(_Responses).decode
_embeddings = msgspec.json.Decoder(_Embeddings).decode


def read_chat(members: Members) -> Ask:
    """A Chat Completions request. Raises Failure(bad_request). Sync, ~4 µs for 5 KB."""
    try:
        body = _chat(members.body)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    size = _size(members, "messages", "tools", "functions", "response_format")
    return Ask(
        model=body.model,
        stream=bool(body.stream),
        include_usage=body.stream_options is not None and bool(body.stream_options.include_usage),
        deterministic=body.temperature == 0,
        images=_any_part(body.messages, "image_url"),
        max_output_tokens=body.max_completion_tokens or body.max_tokens,
        input_tokens_bound=size + TOKENS_PER_MESSAGE * len(body.messages),
        input_tokens_estimate=size // BYTES_PER_TOKEN,
    )


def read_messages(members: Members) -> Ask:
    """An Anthropic Messages request. Raises Failure(bad_request)."""
    try:
        body = _messages(members.body)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    size = _size(members, "messages", "tools", "system")
    return Ask(
        model=body.model,
        stream=bool(body.stream),
        deterministic=body.temperature == 0,
        images=_any_part(body.messages, "image"),
        max_output_tokens=body.max_tokens,
        input_tokens_bound=size + TOKENS_PER_MESSAGE * (len(body.messages) + 1),
        input_tokens_estimate=size // BYTES_PER_TOKEN,
    )


def read_count_tokens(members: Members) -> Ask:
    """A Messages request that is only to be counted: costs nothing, makes no output."""
    try:
        body = _count_tokens(members.body)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    return Ask(model=body.model, deterministic=True, max_output_tokens=0)


def read_responses(members: Members) -> Ask:
    """A Responses request. Raises Failure(bad_request)."""
    try:
        body = _responses(members.body)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    size = _size(members, "input", "instructions", "tools", "text")
    count = len(body.input) if isinstance(body.input, list) else 1
    return Ask(
        model=body.model,
        stream=bool(body.stream),
        max_output_tokens=body.max_output_tokens,
        input_tokens_bound=size + TOKENS_PER_MESSAGE * (count + 1),
        input_tokens_estimate=size // BYTES_PER_TOKEN,
    )


def read_embeddings(members: Members) -> Ask:
    """An Embeddings request: the same text has the same vector, so always deterministic."""
    try:
        body = _embeddings(members.body)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    if not body.input:
        raise Failure("bad_request", "`input` is empty.", param="input")
    size = _size(members, "input")
    return Ask(
        model=body.model,
        deterministic=True,
        max_output_tokens=0,
        input_tokens_bound=size + TOKENS_PER_MESSAGE,
        input_tokens_estimate=size // BYTES_PER_TOKEN,
    )


def invalid(error: msgspec.ValidationError) -> Failure:
    """msgspec's words as a Failure with the path apart: `messages[0].role`."""
    text = str(error)
    match = _PATH.match(text)
    if match is None:
        missing = re.search(r"missing required field `([^`]+)`", text)
        return Failure("bad_request", f"{text}.", param=missing[1] if missing else None)
    path = match[2]
    if missing := re.search(r"missing required field `([^`]+)`", match[1]):
        path = f"{path}.{missing[1]}" if path else missing[1]
    return Failure("bad_request", f"{match[1]} at `{path}`.", param=path)


def _any_part(messages: list[_Message], kind: str) -> bool:
    for message in messages:
        if isinstance(message.content, list):
            for part in message.content:
                if part.type == kind:
                    return True
    return False


def _size(members: Members, *names: str) -> int:
    raw = members.raw
    total = 0
    for name in names:
        if (value := raw.get(name)) is not None:
            total += len(value)
    return total
