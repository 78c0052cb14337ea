"""Given bytes of a request or an answer in any shape we know, then its messages are read, the
same whether it was streamed or whole."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.console.conversation import Part, Said, answered, asked, offered_tools, question
from forebay.observe import restore
from records import chat, chat_stream, dumps, messages, messages_stream


def text(role: str, *texts: str, finish: str = "") -> Said:
    return Said(role, [Part("text", t) for t in texts], finish)


REQUESTS: dict[str, tuple[Any, list[Said]]] = {
    "chat": (
        {"messages": [{"role": "developer", "content": "Be brief."},
                      {"role": "user", "content": "Hi"}]},
        [text("developer", "Be brief."), text("user", "Hi")],
    ),
    "chat with parts": (
        {"messages": [{"role": "user", "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAAAAAA"}},
        ]}]},
        [Said("user", [Part("text", "What is this?"),
                       Part("media", "", "image/png, 6 bytes, inline")])],
    ),
    "chat with a tool's result": (
        {"messages": [
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "c1", "type": "function",
                 "function": {"name": "weather", "arguments": '{"city":"Bern"}'}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        ]},
        [Said("assistant", [Part("call", '{"city":"Bern"}', "weather")]),
         Said("tool", [Part("result", "rain", "c1")])],
    ),
    "messages": (
        {"system": [{"type": "text", "text": "Be brief."}],
         "messages": [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1",
             "content": [{"type": "text", "text": "rain"}]},
            {"type": "document", "source": {"media_type": "application/pdf", "data": "AAAA"}}]}]},
        [text("system", "Be brief."),
         Said("user", [Part("result", "rain", "t1"),
                       Part("media", "", "application/pdf, 3 bytes, inline")])],
    ),
    "responses": (
        {"instructions": "Be brief.", "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "function_call", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "42"}]},
        [text("system", "Be brief."), text("user", "Hi"),
         Said("assistant", [Part("call", "{}", "f")]), Said("tool", [Part("result", "42", "c")])],
    ),
    "embeddings": ({"input": ["one", "two"]}, [text("input", "one", "two")]),
    "tokens to embed": ({"input": [[1, 2]]}, [text("input", "[1,2]")]),
    "completions": ({"prompt": "Once"}, [text("user", "Once")]),
    "nothing we know": ({"audio": 1}, []),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_read(name: str) -> None:
    body, expected = REQUESTS[name]

    assert asked(dumps(body)) == expected


ANSWERS: dict[str, tuple[bytes, list[Said]]] = {
    "chat": (
        chat().attempts[0].body.data,
        [text("assistant", "The pool in front of a turbine house.", finish="stop")],
    ),
    "chat, streamed": (
        restore.reply(chat_stream()).data,
        [text("assistant", "Still water waits — then turns.", finish="stop")],
    ),
    "messages": (
        messages().attempts[0].body.data,
        [text("assistant", "A Pelton wheel.", finish="end_turn")],
    ),
    "messages, streamed": (
        messages_stream().attempts[0].body.data,
        [Said("assistant", [Part("text", "I will look it up."),
                            Part("call", '{"city": "Bern"}', "weather")], "tool_use")],
    ),
    "an error": (dumps({"error": {"message": "No."}}), [text("error", "No.")]),
    "vectors": (
        dumps({"data": [{"embedding": [0.1] * 384}, {"embedding": [0.2] * 384}]}),
        [text("embeddings", "2 vectors, 384 dimensions")],
    ),
    "a count": (dumps({"input_tokens": 1234}), [text("count", "1,234 input tokens")]),
    "responses": (
        dumps({"status": "completed", "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
            {"type": "message", "role": "assistant",
             "content": [{"type": "output_text", "text": "Hello."}]}]}),
        [Said("assistant", [Part("reasoning", "Hm.")]),
         text("assistant", "Hello.", finish="completed")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_read(name: str) -> None:
    body, expected = ANSWERS[name]

    assert answered(body) == expected


def stream(*events: Any) -> bytes:
    return b"".join(b"data: " + dumps(event) + b"\n\n" for event in events) + b"data: [DONE]\n\n"


def test_tool_calls_in_pieces_become_whole() -> None:
    def call(index: int, **function: str) -> dict[str, Any]:
        delta = {"tool_calls": [{"index": index, "function": function}]}
        return {"choices": [{"index": 0, "delta": delta}]}

    body = stream(
        {"choices": [{"index": 0, "delta": {"role": "assistant", "reasoning_content": "Hm. "}}]},
        {"choices": [{"index": 0, "delta": {"reasoning_content": "Two."}}]},
        call(0, name="add", arguments='{"a":'),
        call(1, name="sub", arguments="{"),
        call(0, arguments="1}"),
        call(1, arguments="}"),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    )

    assert answered(body) == [
        Said(
            "assistant",
            [
                Part("reasoning", "Hm. Two."),
                Part("call", '{"a":1}', "add"),
                Part("call", "{}", "sub"),
            ],
            "tool_calls",
        )
    ]


def test_several_choices_are_told_apart() -> None:
    body = stream(
        {"choices": [{"index": 1, "delta": {"content": "two"}}]},
        {"choices": [{"index": 0, "delta": {"content": "one"}}]},
    )

    assert answered(body) == [text("assistant", "one"), text("assistant", "two")]


def test_what_came_before_an_error_is_there_and_the_error_too() -> None:
    body = stream(
        {"choices": [{"index": 0, "delta": {"content": "The answer"}}]},
        {"error": {"message": "cut"}},
    )

    assert answered(body) == [text("assistant", "The answer"), text("error", "cut")]


def test_a_completed_response_stands_for_its_deltas() -> None:
    whole = {"status": "completed", "output": [{"role": "assistant", "content": "Hello."}]}
    body = stream(
        {"type": "response.output_text.delta", "output_index": 0, "delta": "Hel"},
        {"type": "response.completed", "response": whole},
    )

    assert answered(body) == [text("assistant", "Hello.", finish="completed")]
    assert answered(stream({"type": "response.output_text.delta", "delta": "Hel"})) == [
        text("assistant", "Hel")
    ]


def test_thinking_is_reasoning() -> None:
    body = stream(
        {"type": "content_block_start", "index": 0,
         "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0,
         "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_start", "index": 1,
         "content_block": {"type": "redacted_thinking", "data": "xyz"}},
    )  # fmt: skip

    assert answered(body) == [
        Said("assistant", [Part("reasoning", "Hm."),
                           Part("reasoning", "", "encrypted by the provider")])
    ]  # fmt: skip


def test_the_question_is_what_was_asked_last() -> None:
    assert question(chat(prompt="Why?").body.data) == "Why?"
    assert question(messages_stream(prompt="Weather?").body.data) == "Weather?"
    assert question(dumps({"input": "embed me"})) == "embed me"
    assert question(b"{") == ""


def test_tools_that_were_offered_are_named() -> None:
    body = {"tools": [{"type": "function", "function": {"name": "a"}}, {"name": "b"},
                      {"type": "web_search"}, 3]}  # fmt: skip

    assert offered_tools(dumps(body)) == ["a", "b", "web_search"]
    assert offered_tools(b"[]") == offered_tools(b'{"tools": 1}') == []


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["messages", "content", "role", "type", "text", "tool_calls", "function", "name",
             "choices", "delta", "message", "index", "source", "data", "url", "error", "input",
             "output", "system", "content_block", "response", "tool_use", "image_url"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(anything, max_size=4))
def test_nothing_that_is_json_raises(values: list[Any]) -> None:
    for value in values:
        body = json.dumps(value).encode()
        asked(body)
        answered(body)
        question(body)
        offered_tools(body)
    answered(stream(*values))


@given(st.binary(max_size=200))
def test_nothing_at_all_raises(data: bytes) -> None:
    for body in (data, b"data: " + data, b"event: " + data):
        asked(body)
        answered(body)
