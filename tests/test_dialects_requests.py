"""What a request may say in the other dialect: nothing is forgotten, and a round trip keeps it."""

import json
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParamsBase
from hypothesis import given
from hypothesis import strategies as st

from dialects_kit import (
    Json,
    check_chat_request,
    check_message_request,
    needs_openapi,
    openapi,
    parsed,
)
from forebay.dialects import chat_to_messages, messages_to_chat
from forebay.dialects.chat_to_messages import ChatToMessages
from forebay.dialects.messages_to_chat import MessagesToChat
from forebay.errors import Failure
from forebay.exchange import Ask
from forebay.schema import chat, messages

ASK = Ask(model="asked")
USER = [{"role": "user", "content": "Hello"}]


def to_messages(request: Json, model: str = "claude-opus-5") -> Json:
    converted = ChatToMessages().request(parsed(request), ASK, model)
    check_message_request(converted)
    body: Json = json.loads(converted)
    return body


def to_chat(request: Json, model: str = "gpt-5.2", **facts: Any) -> Json:
    converted = MessagesToChat(**facts).request(parsed(request), ASK, model)
    body: Json = json.loads(converted)
    return body


# -- no member is forgotten


@needs_openapi
def test_every_member_of_openais_request_has_one_place() -> None:
    schemas = openapi()["components"]["schemas"]
    described: set[str] = set()
    for name in (
        "CreateChatCompletionRequest",
        "CreateModelResponseProperties",
        "ModelResponseProperties",
    ):
        for part in schemas[name].get("allOf", [schemas[name]]):
            described |= set(part.get("properties", {}))
    assert len(described) > 30, "the description was not read"
    places = [
        set(chat.Request.__struct_fields__) | {"model"},
        set(chat_to_messages.DROPPED),
        set(chat_to_messages.REFUSED),
    ]
    _in_one_place_each(described, places)


def test_every_member_of_anthropics_request_has_one_place() -> None:
    # Sampling left the SDK with API version 2026-10-21; the older version still has it.
    described = set(MessageCreateParamsBase.__annotations__)
    described |= {"stream", "temperature", "top_p", "top_k"}
    places = [
        set(messages.Request.__struct_fields__) | {"model"},
        set(messages_to_chat.DROPPED),
        set(messages_to_chat.REFUSED),
    ]
    _in_one_place_each(described, places)


def _in_one_place_each(described: set[str], places: list[set[str]]) -> None:
    for name in described:
        assert sum(name in place for place in places) == 1, f"{name} is in none or several places"
    for at, place in enumerate(places):
        for other in places[at + 1 :]:
            assert not place & other


@pytest.mark.parametrize("name", chat_to_messages.REFUSED)
def test_a_chat_member_without_counterpart_is_refused_unless_it_asks_for_nothing(
    name: str,
) -> None:
    harmless, instead = chat_to_messages.REFUSED[name]
    for value in harmless:
        assert to_messages({"messages": USER, name: value})["messages"] == USER
    with pytest.raises(Failure) as refused:
        to_messages({"messages": USER, name: {"some": "value"}})
    assert (refused.value.code.name, refused.value.param) == ("unsupported", name)
    assert refused.value.hint == instead


@pytest.mark.parametrize("name", messages_to_chat.REFUSED)
def test_a_messages_member_without_counterpart_is_refused_unless_it_asks_for_nothing(
    name: str,
) -> None:
    harmless, instead = messages_to_chat.REFUSED[name]
    for value in harmless:
        assert to_chat({"max_tokens": 9, "messages": USER, name: value})["messages"] == USER
    with pytest.raises(Failure) as refused:
        to_chat({"max_tokens": 9, "messages": USER, name: {"some": "value"}})
    assert (refused.value.code.name, refused.value.param) == ("unsupported", name)
    assert refused.value.hint == instead


def test_what_is_dropped_or_unknown_changes_nothing() -> None:
    plain = to_messages({"messages": USER})
    extra: Json = {name: {"some": "value"} for name in chat_to_messages.DROPPED}
    assert to_messages({"messages": USER, **extra, "brand_new": 1}) == plain
    plain = to_chat({"max_tokens": 9, "messages": USER})
    extra = {name: {"some": "value"} for name in messages_to_chat.DROPPED}
    assert to_chat({"max_tokens": 9, "messages": USER, **extra, "brand_new": 1}) == plain


# -- parameters


@pytest.mark.parametrize(
    ("model", "sampling", "effort"),
    [
        ("claude-3-7-sonnet-20250219", True, False),
        ("claude-sonnet-4-20250514", True, False),
        ("claude-haiku-4-5", True, False),
        ("anthropic.claude-opus-4-1-20250805-v1:0", True, False),
        ("claude-opus-4-5-20251101", True, True),
        ("claude-sonnet-4-6", True, True),
        ("claude-opus-4-7", False, True),
        ("eu.anthropic.claude-sonnet-5-5", False, True),
        ("claude-fable-5", False, True),
        ("claude-of-the-future-9", False, True),
        ("deepseek-chat", True, True),
    ],
)
def test_a_model_is_sent_only_what_it_takes(model: str, sampling: bool, effort: bool) -> None:
    request = {"messages": USER, "temperature": 0.5, "reasoning_effort": "high"}
    converted = to_messages(request, model)
    assert ("temperature" in converted) is sampling
    assert ("output_config" in converted) is effort


def test_the_limit_of_tokens_goes_by_the_name_that_the_provider_knows() -> None:
    request = {"max_tokens": 9, "messages": USER}
    assert to_chat(request)["max_completion_tokens"] == 9
    assert to_chat(request, limit_name="max_tokens")["max_tokens"] == 9


def test_the_newer_limit_of_a_chat_request_wins() -> None:
    request = {"messages": USER, "max_tokens": 5, "max_completion_tokens": 7}
    assert to_messages(request)["max_tokens"] == 7
    assert to_messages({"messages": USER})["max_tokens"] == chat_to_messages.DEFAULT_MAX_TOKENS
    with pytest.raises(Failure, match="max_tokens is 0"):
        to_messages({"messages": USER, "max_tokens": 0})


def test_instructions_between_results_do_not_part_them() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = [
        *USER,
        {"role": "assistant", "tool_calls": [{"id": "a", **call}, {"id": "b", **call}]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "system", "content": "Hurry."},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
    ]
    turns = to_messages({"messages": said})["messages"]
    assert [block["tool_use_id"] for block in turns[-1]["content"]] == ["a", "b"]


@given(st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=6, unique=True))
def test_call_ids_that_differ_still_do_when_respelled(ids: list[str]) -> None:
    function = {"name": "f", "arguments": "{}"}
    calls = [{"id": call_id, "type": "function", "function": function} for call_id in ids]
    said = [*USER, {"role": "assistant", "tool_calls": calls}]
    said += [{"role": "tool", "tool_call_id": call_id, "content": "1"} for call_id in ids]
    turns = to_messages({"messages": said})["messages"]
    used = [block["id"] for block in turns[1]["content"]]
    answered = [block["tool_use_id"] for block in turns[2]["content"]]
    assert used == answered
    assert all(set(name) <= _ID_CHARACTERS for name in used)


_ID_CHARACTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


# -- round trips

texts = st.text(min_size=1, max_size=30)
ids = st.from_regex(r"call_[a-zA-Z0-9]{1,8}", fullmatch=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
inputs = st.dictionaries(texts, values, max_size=3)


@st.composite
def exchanges(draw: st.DrawFn) -> list[Json]:
    """A question, and an answer that may call tools, with their results."""
    parts = st.lists(texts, min_size=1, max_size=3).map(
        lambda said: [{"type": "text", "text": text} for text in said]
    )
    said: list[Json] = [{"role": "user", "content": draw(texts | parts)}]
    calls = [
        {
            "id": f"{draw(ids)}_{at}",
            "type": "function",
            "function": {"name": draw(st.sampled_from("fgh")), "arguments": json.dumps(given)},
        }
        for at, given in enumerate(draw(st.lists(inputs, max_size=3)))
    ]
    answer: Json = {"role": "assistant", "content": draw(texts | st.none() if calls else texts)}
    said.append(answer)
    if calls:
        answer["tool_calls"] = calls
        results = ({"role": "tool", "tool_call_id": c["id"], "content": draw(texts)} for c in calls)
        said += results
    return said


@given(st.lists(texts, max_size=2), st.lists(exchanges(), min_size=1, max_size=3))
def test_a_conversation_there_and_back_keeps_roles_texts_calls_and_ids(
    instructions: list[str], said: list[list[Json]]
) -> None:
    system = [{"role": "system", "content": text} for text in instructions]
    conversation = [message for exchange in said for message in exchange]
    there = to_messages({"messages": system + conversation})
    back = to_chat({"max_tokens": 9, **{n: there[n] for n in ("system", "messages") if n in there}})
    expected: list[Essence] = []
    if instructions:
        expected.append(("system", "\n\n".join(instructions), None, []))
    expected += [_essence(message) for message in conversation]
    assert [_essence(message) for message in back["messages"]] == expected
    check_chat_request(json.dumps(back).encode())


Essence = tuple[str, str, str | None, list[Any]]


def _essence(message: Json) -> Essence:
    content = message.get("content") or ""
    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
    calls = [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in message.get("tool_calls", ())
    ]
    return message["role"], text, message.get("tool_call_id"), calls
