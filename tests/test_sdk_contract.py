"""Every kind of body, event and error that the gateway answers, held against two descriptions
that others wrote: OpenAI's published API description, and the SDKs' own types in strict mode.

The SDKs read leniently: a missing member is None, a wrong type stays as it is. What an
application relies on breaks later, elsewhere. So here nothing is lenient.
"""

import json
from functools import cache
from typing import Any

import pytest
from anthropic.types import Message, MessageTokensCount, ModelInfo, RawMessageStreamEvent
from openai.types import CreateEmbeddingResponse, Model
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

import dialects_kit as grade
import sdk_kit
from forebay.testbed.twins.faults import Cut, Error, Status
from sdk_kit import Gateway, Reply
from sdk_stage import USER, Stage

gateway, guarded, stage = sdk_kit.gateway, sdk_kit.guarded, sdk_kit.stage

PROVIDERS = ["openai/instant", "azure/gpt-azure", "anthropic/instant"]
SCHEMA: Any = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
#: What is asked of a chat beside the question, by a word.
CHATS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cut by its limit": {"max_tokens": 3},
    "a tool": {
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
        "tool_choice": "required",
    },
    "cached": {"temperature": 0},
}
MESSAGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "cut by its limit": {"max_tokens": 3},
    "a tool": {
        "tools": [{"name": "weather", "input_schema": SCHEMA}],
        "tool_choice": {"type": "any"},
    },
    "cached": {"temperature": 0},
}


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def strict(kind: Any, value: Any) -> None:
    adapter(kind).validate_json(json.dumps(value), strict=True)


def described(name: str, value: Any) -> None:
    if grade.OPENAPI.is_file():
        grade._validator(name).validate(value)


def without_pings(stream: bytes) -> list[Any]:
    """A stream's events; pings, which the SDK skips and its types don't know, left out."""
    return [event for event in grade.events(stream) if event != {"type": "ping"}]


def ok(reply: Reply) -> Reply:
    assert reply.status == 200, reply.body
    return reply


# -- answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize("kind", CHATS)
def test_chat_completions(gateway: Gateway, model: str, kind: str) -> None:
    asked = CHATS[kind] | {"messages": [{"role": "user", "content": f"{kind} [out:9]"}]}
    usage = {"stream_options": {"include_usage": True}}
    for _ in range(2):  # the second time, perhaps, from the cache; in the other form, too
        grade.check_chat(ok(gateway.chat(model, **asked)).body)
        grade.check_chunks(ok(gateway.chat(model, **asked, stream=True)).body)
        grade.check_chunks(ok(gateway.chat(model, **asked, stream=True, **usage)).body)


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize("kind", CHATS)
def test_streams_that_enter_the_cache_first(gateway: Gateway, model: str, kind: str) -> None:
    asked = CHATS[kind] | {"messages": [{"role": "user", "content": f"stream, {kind} [out:9]"}]}
    on = {"x-forebay-cache": "on"}
    grade.check_chunks(ok(gateway.chat(model, **asked, stream=True, headers=on)).body)
    whole = ok(gateway.chat(model, **asked, headers=on))
    assert whole.headers["x-forebay-cache"] == "exact"
    grade.check_chat(whole.body)


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize("kind", MESSAGES)
def test_messages(gateway: Gateway, model: str, kind: str) -> None:
    asked = MESSAGES[kind] | {"messages": [{"role": "user", "content": f"{kind} [out:9]"}]}
    for _ in range(2):
        whole = ok(gateway.messages(model, **asked)).body
        stream = ok(gateway.messages(model, **asked, stream=True)).body
        if not model.startswith("anthropic"):
            grade.check_message(whole)
            grade.check_message_events(stream)
            continue
        # The twin's own answers pass: it leaves out members that the types allow to be absent.
        strict(Message, json.loads(whole))
        for event in without_pings(stream):
            strict(RawMessageStreamEvent, event)


def test_token_counts(gateway: Gateway) -> None:
    got = gateway.ask(
        "/v1/messages/count_tokens",
        {"model": "anthropic/instant", "messages": USER},
        anthropic_version="2023-06-01",
    )
    strict(MessageTokensCount, ok(got).json)


@pytest.mark.parametrize("more", [{}, {"max_output_tokens": 3}])
def test_responses(gateway: Gateway, more: dict[str, Any]) -> None:
    asked = {"model": "openai/instant", "input": "Hello [out:9]"} | more
    whole = ok(gateway.ask("/v1/responses", asked)).json
    strict(Response, whole)
    described("Response", whole)
    stream = ok(gateway.ask("/v1/responses", asked | {"stream": True}))
    for event in grade.events(stream.body):
        strict(ResponseStreamEvent, event)
        described("ResponseStreamEvent", event)


@pytest.mark.parametrize("more", [{"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_embeddings(gateway: Gateway, more: dict[str, Any]) -> None:
    asked = {"model": "openai/embedding", "input": ["a", "b"]} | more
    got = ok(gateway.ask("/v1/embeddings", asked)).json
    if more["encoding_format"] == "float":  # the description knows no other form of a vector
        strict(CreateEmbeddingResponse, got)
        described("CreateEmbeddingResponse", got)
    assert [one["index"] for one in got["data"]] == [0, 1]


def test_models(gateway: Gateway) -> None:
    listed = ok(gateway.ask("/v1/models")).json
    described("ListModelsResponse", listed)
    for card in listed["data"]:
        strict(Model, card)
    described("Model", ok(gateway.ask("/v1/models/fast")).json)

    claude = {"anthropic_version": "2023-06-01"}
    page = ok(gateway.ask("/v1/models", **claude)).json
    assert page["has_more"] is False
    assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
    for card in [*page["data"], ok(gateway.ask("/v1/models/fast", **claude)).json]:
        strict(ModelInfo, card)
        assert set(card) == set(ModelInfo.model_fields)


# -- errors ----------------------------------------------------------------------------------

#: (status, path, body) of requests that are refused here.
REFUSED: list[tuple[int, str, Any]] = [
    (400, "chat/completions", b"{"),
    (400, "chat/completions", b"[]"),
    (400, "chat/completions", b'{"model":"fast","messages":[],"model":"fast"}'),
    (400, "chat/completions", b'{"model":"\xff"}'),
    (400, "chat/completions", b'{"a":' * 3000 + b"1" + b"}" * 3000),
    (400, "chat/completions", {"model": "fast"}),
    (400, "chat/completions", {"model": "fast", "messages": "no"}),
    (400, "chat/completions", {"model": "fast", "messages": USER, "max_tokens": -1}),
    (400, "chat/completions", {"model": "fast", "messages": USER, "stream": "yes"}),
    (400, "chat/completions", {"model": "claude", "messages": USER, "n": 2}),
    (404, "chat/completions", {"model": "nobody", "messages": USER}),
    (404, "chat/completions", {"model": "openai/nobody", "messages": USER}),
    (502, "chat/completions", {"model": "closed/any", "messages": USER}),
    (400, "responses", {"model": "claude", "input": "x"}),
    (404, "responses", {"model": "nobody", "input": "x"}),
    (400, "embeddings", {"model": "fast", "input": []}),
    (404, "embeddings", {"model": "openai/nobody", "input": "x"}),
    (404, "models/nobody", None),
    (404, "nowhere", None),
    (405, "chat/completions", None),
    (405, "models", {}),
    (400, "messages", b"{"),
    (400, "messages", {"model": "fast", "messages": USER}),
    (404, "messages", {"model": "nobody", "messages": USER, "max_tokens": 9}),
    (404, "messages", {"model": "openai/nobody", "messages": USER, "max_tokens": 9}),
    (502, "messages", {"model": "closed/any", "messages": USER, "max_tokens": 9}),
    (400, "messages/count_tokens", {"model": "fast", "messages": USER}),
    (404, "messages/nowhere", {}),
]


def error(reply: Reply, anthropic: bool) -> Any:
    assert reply.headers["content-type"] == "application/json"
    if not anthropic:
        grade.check_openai_error(reply.body)
        return reply.json["error"]
    grade.check_anthropic_error(reply.body)
    assert reply.json["request_id"] == reply.headers["request-id"]
    return reply.json["error"]


@pytest.mark.parametrize(("status", "path", "body"), REFUSED)
def test_refusals(gateway: Gateway, status: int, path: str, body: Any) -> None:
    reply = gateway.ask(f"/v1/{path}", body)
    assert reply.status == status, reply.body
    said = error(reply, anthropic=path.startswith("messages"))
    assert said["message"]
    assert "Traceback" not in said["message"]
    assert reply.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("anthropic", [False, True])
def test_refusals_at_the_door(gateway: Gateway, guarded: Gateway, anthropic: bool) -> None:
    ask = Gateway.messages if anthropic else Gateway.chat
    assert error(ask(guarded, "fast"), anthropic)["message"]
    elsewhere = {"origin": "https://example.com"}
    assert error(ask(gateway, "fast", headers=elsewhere), anthropic)["message"]
    plain = {"content-type": "text/plain"}
    reply = ask(gateway, "fast", headers=plain)
    assert reply.status == 415
    error(reply, anthropic)


@pytest.mark.parametrize("model", ["openai/instant", "azure/gpt-azure", "anthropic/instant"])
@pytest.mark.parametrize("anthropic", [False, True])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 422, 429, 500, 502, 503, 529])
def test_a_providers_errors(
    gateway: Gateway, stage: Stage, model: str, anthropic: bool, status: int
) -> None:
    stage.fault(model, Status(status=status))
    reply = (Gateway.messages if anthropic else Gateway.chat)(gateway, model)
    assert reply.status >= 400
    own = model.startswith("anthropic") == anthropic
    if own and anthropic and status not in (401, 403):
        assert reply.json["type"] == "error"  # the provider's own words pass
    else:
        error(reply, anthropic)


@pytest.mark.parametrize("model", ["openai/instant", "anthropic/instant"])
@pytest.mark.parametrize("what", [Cut(how="complete"), Error(message="The moon is full.")])
def test_errors_inside_of_streams(gateway: Gateway, stage: Stage, model: str, what: Any) -> None:
    stage.fault(model, what, where="event", after=2)
    *before, last = grade.events(gateway.chat(model, stream=True).body)
    described("ErrorResponse", last)
    for chunk in before:
        described("CreateChatCompletionStreamResponse", chunk)

    *events, last = without_pings(gateway.messages(model, stream=True).body)
    if not (model.startswith("anthropic") and isinstance(what, Error)):
        grade.check_anthropic_error(json.dumps(last).encode())
    assert last["type"] == "error"
    for event in events:
        strict(RawMessageStreamEvent, event)


@pytest.mark.parametrize("what", [Cut(how="complete"), Error(message="The moon is full.")])
def test_errors_inside_of_response_streams(gateway: Gateway, stage: Stage, what: Any) -> None:
    stage.fault("openai/", what, where="event", after=2)
    asked = {"model": "openai/instant", "input": "Hello [out:9]", "stream": True}
    events = grade.events(gateway.ask("/v1/responses", asked).body)
    assert events[-1]["type"] == "error"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        described("ResponseStreamEvent", event)
