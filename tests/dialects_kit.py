"""What the tests of the conversions share: streams, and how strictly an answer is checked.

Two independent graders: the official SDKs' own types, in pydantic's strict mode, and OpenAI's
API description, where it lies beside the checkout.
"""

import gzip
import itertools
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.message_create_params import (
    MessageCreateParamsNonStreaming,
    MessageCreateParamsStreaming,
)
from anthropic.types.shared import ErrorResponse
from jsonschema import Draft202012Validator
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from forebay.dialects.translation import StreamTranslation
from forebay.wire import members, sse

Json = dict[str, Any]

GOLDEN = Path(__file__).parent / "golden" / "dialects"
OPENAPI = Path(__file__).resolve().parents[2] / "shared" / "data" / "openai_openapi.json.gz"

needs_openapi = pytest.mark.skipif(
    not OPENAPI.is_file(), reason=f"{OPENAPI} is not here: OpenAI's API description"
)


def body(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def parsed(value: object) -> members.Members:
    return members.parse(body(value))


def chat_stream(*chunks: object) -> bytes:
    """Chunks as OpenAI sends them; a string is sent as it is (`[DONE]`)."""
    return b"".join(
        sse.event(chunk.encode() if isinstance(chunk, str) else body(chunk)) for chunk in chunks
    )


def messages_stream(*events: Json) -> bytes:
    """Events as Anthropic sends them: named after their type."""
    return b"".join(sse.event(body(event), str(event["type"])) for event in events)


def through(translation: StreamTranslation, stream: bytes, *cuts: int) -> bytes:
    """The whole stream through a translation, cut at these offsets, to its end."""
    bounds = [0, *sorted(cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(bounds)]
    return b"".join(translation.feed(piece) for piece in pieces if piece) + translation.finish()


def events(stream: bytes) -> list[Any]:
    """The data of a stream's events, parsed; what is not JSON as a string."""
    found: list[Any] = []
    splitter = sse.Splitter()
    for raw in splitter.feed(stream):
        event = sse.parse(raw)
        assert event.data is not None
        data = event.data.decode()
        found.append(json.loads(data) if data.startswith("{") else data)
        if event.name:
            assert event.name == found[-1]["type"], "an event's name must be its type"
    assert not splitter.close(), "a stream must end with a whole event"
    return found


# -- graders


def check_chat(answer: bytes) -> ChatCompletion:
    """A completion that OpenAI's SDK and description accept without leniency."""
    completion: ChatCompletion = _adapter(ChatCompletion).validate_json(answer, strict=True)
    _check_openapi("CreateChatCompletionResponse", json.loads(answer))
    return completion


def check_chunks(stream: bytes) -> list[ChatCompletionChunk]:
    chunks = []
    for data in events(stream):
        if data != "[DONE]":
            chunk = _adapter(ChatCompletionChunk).validate_json(body(data), strict=True)
            _check_openapi("CreateChatCompletionStreamResponse", data)
            chunks.append(chunk)
    return chunks


def check_chat_request(request: bytes) -> None:
    _check_openapi("CreateChatCompletionRequest", json.loads(request))


def check_message_request(request: bytes) -> None:
    """The SDK's types of parameters are typed dicts, lenient about extra members only."""
    sent = json.loads(request)
    streams = sent.get("stream", False)
    kind = MessageCreateParamsStreaming if streams else MessageCreateParamsNonStreaming
    checked = _adapter(kind).validate_python(sent)
    for message in checked["messages"]:  # pydantic checks an Iterable as it is read
        list(message["content"])
    list(checked.get("tools", ()))


def check_message(answer: bytes) -> Message:
    """A message that Anthropic's SDK accepts without leniency, with every member it knows."""
    message: Message = _adapter(Message).validate_json(answer, strict=True)
    sent = json.loads(answer)
    assert set(Message.model_fields) <= set(sent)
    assert set(type(message.usage).model_fields) <= set(sent["usage"])
    return message


def check_message_events(stream: bytes) -> list[RawMessageStreamEvent]:
    found = []
    for data in events(stream):
        found.append(_adapter(RawMessageStreamEvent).validate_json(body(data), strict=True))
        if data["type"] == "message_start":
            check_message(body(data["message"]))
        if data["type"] == "message_delta":
            # `Delta` has no public name; its members, as Anthropic's description requires them.
            assert {"container", "stop_reason", "stop_sequence", "stop_details"} == set(
                data["delta"]
            )
    return found


def check_anthropic_error(answer: bytes) -> ErrorResponse:
    error: ErrorResponse = _adapter(ErrorResponse).validate_json(answer, strict=True)
    return error


def check_openai_error(answer: bytes) -> None:
    _check_openapi("ErrorResponse", json.loads(answer))


def _check_openapi(name: str, value: object) -> None:
    if OPENAPI.is_file():
        _validator(name).validate(value)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    # Kept: what pydantic reads lazily dies with its adapter.
    return TypeAdapter(kind)


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": openapi()["components"]}
    )


@cache
def openapi() -> Json:
    """OpenAI's description with OpenAPI's own words made JSON Schema's."""
    described: Json = _plain(json.loads(gzip.decompress(OPENAPI.read_bytes())))
    return described


def _plain(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _plain(member) for name, member in schema.items()}
    # Its `oneOf`s overlap (a message with no discriminating member fits several).
    if "oneOf" in plain and "anyOf" not in plain:
        plain["anyOf"] = plain.pop("oneOf")
    # `default: null` stands beside schemas that would refuse null.
    if plain.pop("nullable", False) is True:
        return {"anyOf": [plain, {"type": "null"}]}
    return plain
