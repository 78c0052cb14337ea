"""One cache entry for both kinds of caller: whole from streamed, streamed from whole."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialects_kit import (
    Json,
    body,
    chat_stream,
    check_chat,
    check_chunks,
    check_message,
    check_message_events,
    events,
    messages_stream,
)
from forebay.dialects.stitch import (
    assemble_chat,
    assemble_messages,
    unstitch_chat,
    unstitch_messages,
    with_id,
)
from forebay.errors import Failure

texts = st.text(max_size=15)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
inputs = st.dictionaries(texts, values, max_size=3)
tokens = st.fixed_dictionaries(
    {"token": texts, "logprob": st.floats(-9, 0), "bytes": st.none(), "top_logprobs": st.just([])}
)


@st.composite
def choices(draw: st.DrawFn) -> Json:
    said: Json = {
        "role": "assistant",
        "content": draw(st.none() | texts),
        "refusal": draw(st.none() | texts),
    }
    if draw(st.booleans()):
        said["reasoning_content"] = draw(texts)
    if draw(st.booleans()):
        said["annotations"] = []
    if draw(st.booleans()):
        said["a_new_member"] = draw(values)
    if draw(st.booleans()):
        said["tool_calls"] = [
            {
                "id": f"call_{at}",
                "type": "function",
                "function": {"name": draw(texts), "arguments": json.dumps(given)},
            }
            for at, given in enumerate(draw(st.lists(inputs, max_size=3)))
        ]
    logprobs = draw(st.none() | st.lists(tokens, min_size=1, max_size=2))
    return {
        "message": said,
        "logprobs": None if logprobs is None else {"content": logprobs, "refusal": None},
        "finish_reason": draw(st.sampled_from(["stop", "length", "tool_calls"])),
    }


@st.composite
def completions(draw: st.DrawFn) -> Json:
    whole: Json = {
        "id": draw(st.text(min_size=1, max_size=9)),
        "object": "chat.completion",
        "created": draw(st.integers(1, 10**9)),
        "model": "gpt-5.2",
        "choices": [
            {"index": at, **choice}
            for at, choice in enumerate(draw(st.lists(choices(), min_size=1, max_size=3)))
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }
    if draw(st.booleans()):
        whole |= {"system_fingerprint": "fp_1", "service_tier": "default"}
    return whole


@given(completions())
def test_a_completion_taken_apart_and_put_together_is_itself(whole: Json) -> None:
    stream = unstitch_chat(body(whole), include_usage=True)
    check_chunks(stream)
    assert json.loads(assemble_chat(stream)) == whole


@given(completions())
def test_usage_goes_only_to_whom_it_is_meant(whole: Json) -> None:
    stream = unstitch_chat(body(whole), include_usage=False)
    assert all("usage" not in chunk for chunk in events(stream)[:-1])
    del whole["usage"]
    assert json.loads(assemble_chat(stream)) == whole


texts_cited = st.lists(st.fixed_dictionaries({"type": st.just("char_location"), "x": texts}))
blocks: st.SearchStrategy[Json] = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("text"), "text": texts, "citations": st.none() | texts_cited}
    ),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": texts, "signature": texts}),
    st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": texts}),
    st.fixed_dictionaries(
        {"type": st.just("tool_use"), "id": texts, "name": texts, "input": inputs}
    ),
    st.fixed_dictionaries({"type": st.just("something_new"), "content": values}),
)


@st.composite
def answered(draw: st.DrawFn) -> Json:
    counts = st.integers(0, 10**6)
    return {
        "id": draw(texts),
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5",
        "content": draw(st.lists(blocks, max_size=5)),
        "container": None,
        "stop_reason": draw(st.sampled_from(["end_turn", "tool_use", "refusal"])),
        "stop_sequence": draw(st.none() | texts),
        "stop_details": draw(st.none() | st.just({"type": "refusal", "explanation": "no"})),
        "usage": {
            "input_tokens": draw(counts),
            "output_tokens": draw(counts),
            "cache_read_input_tokens": draw(counts),
            "a_new_count": draw(counts),
            "output_tokens_details": draw(st.none() | st.just({"thinking_tokens": 1})),
        },
    }


@given(answered())
def test_a_message_taken_apart_and_put_together_is_itself(whole: Json) -> None:
    assert json.loads(assemble_messages(unstitch_messages(body(whole)))) == whole


def test_what_is_taken_apart_satisfies_the_sdk() -> None:
    whole = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "text", "text": "So", "citations": None},
            {
                "type": "tool_use",
                "id": "t",
                "name": "f",
                "input": {"a": 1},
                "caller": {"type": "direct"},
            },
        ],
        "container": None,
        "diagnostics": None,
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            "cache_creation": None,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "inference_geo": None,
            "input_tokens": 1,
            "output_tokens": 2,
            "output_tokens_details": None,
            "server_tool_use": None,
            "service_tier": "standard",
            "speed": None,
        },
    }
    check_message_events(unstitch_messages(body(whole)))
    check_message(assemble_messages(unstitch_messages(body(whole))))


# -- streams as providers send them


def chunk(delta: Json, finish_reason: str | None = None, index: int = 0, **more: Any) -> Json:
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return head | {"choices": [choice]} | more


def test_choices_calls_and_probabilities_join_by_index() -> None:
    def call(at: int, arguments: str, **more: str) -> Json:
        function = {"arguments": arguments} | ({"name": more.pop("name")} if more else {})
        return {"tool_calls": [{"index": at, "function": function, **more}]}

    token = {"token": "a", "logprob": -1.0, "bytes": None, "top_logprobs": []}
    probable = {"content": [token], "refusal": None}
    first = chunk({"role": "assistant", "content": "a"})
    first["choices"][0]["logprobs"] = probable
    second = chunk({"content": "b"})
    second["choices"][0]["logprobs"] = probable
    stream = chat_stream(
        {"id": "", "choices": [], "model": "", "created": 0, "object": ""},  # Azure's first
        chunk({"role": "assistant", "content": None}, index=1),
        first,
        chunk(call(1, "{", id="y", type="function", name="g"), index=1),
        chunk(call(0, "[", id="x", type="function", name="f"), index=1),
        second,
        chunk(call(0, "]", id="x", type="function", name="f"), index=1),  # said again
        chunk(call(1, "}"), index=1),
        chunk({}, "tool_calls", index=1),
        chunk({}, "stop", usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}),
        "[DONE]",
        "[DONE]",
    )
    whole = json.loads(assemble_chat(stream))
    check_chat(body(whole))
    assert (whole["id"], whole["model"], whole["created"]) == ("c", "m", 1)
    text, calls = whole["choices"]
    assert text["message"] == {"role": "assistant", "content": "ab", "refusal": None}
    assert text["logprobs"] == {"content": [token, token], "refusal": None}
    assert calls["message"]["tool_calls"] == [
        {"id": "x", "type": "function", "function": {"name": "f", "arguments": "[]"}},
        {"id": "y", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert whole["usage"]["total_tokens"] == 2


def test_a_stream_without_an_end_is_no_answer() -> None:
    with pytest.raises(Failure) as cut:
        assemble_chat(chat_stream(chunk({"content": "Hi"}), "[DONE]"))
    assert cut.value.code.name == "truncated"
    start = {"type": "message_start", "message": {"id": "m"}}
    with pytest.raises(Failure) as cut:
        assemble_messages(messages_stream(start, {"type": "message_stop"}))
    assert cut.value.code.name == "truncated"


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"data: [DONE]\n\n",
        chat_stream(chunk({"content": "Hi"}), {"error": {"message": "no"}}),
        chat_stream({"choices": 5}),
        chat_stream({"choices": [{"index": "x", "delta": {}}]}),
        chat_stream({"choices": [{"delta": []}]}),
        b"data: nonsense\n\n",
    ],
)
def test_what_is_no_stream_of_chunks_is_a_bad_answer(stream: bytes) -> None:
    with pytest.raises(Failure) as caught:
        assemble_chat(stream)
    assert caught.value.code.name == "bad_answer"


def test_what_nests_too_deep_is_a_bad_answer() -> None:
    for depth in (600, 900, 100_000):
        deep = b"[" * depth + b"]" * depth
        whole = b'{"content": [{"type": "something_new", "deep": ' + deep + b"}]}"
        with pytest.raises(Failure) as caught:
            unstitch_messages(whole)
        assert caught.value.code.name == "bad_answer"


# -- identifiers


@given(completions(), st.text(min_size=1, max_size=20))
def test_only_the_identifier_of_a_completion_changes(whole: Json, new_id: str) -> None:
    old_id = whole["id"]
    whole["choices"][0]["message"]["content"] = f'{old_id} "id":"{old_id}" {{"id": 1}}'
    expected = whole | {"id": new_id}
    assert json.loads(with_id(body(whole), new_id)) == expected
    stream = unstitch_chat(body(whole), include_usage=True)
    renamed = with_id(stream, new_id)
    assert renamed == unstitch_chat(body(expected), include_usage=True)


@given(answered(), st.text(min_size=1, max_size=20))
def test_only_the_identifier_of_a_message_changes(whole: Json, new_id: str) -> None:
    said = f'{whole["id"]} "id":"{whole["id"]}" "type":"message_start"'
    whole["content"].append({"type": "text", "text": said, "citations": None})
    expected = whole | {"id": new_id}
    assert json.loads(with_id(body(whole), new_id)) == expected
    renamed = with_id(unstitch_messages(body(whole)), new_id)
    assert renamed == unstitch_messages(body(expected))


def test_everything_but_the_identifier_stays_byte_for_byte() -> None:
    given_ = b' {"b" : 1.0,  "id":"old", "text": "old \\u0041 \\"id\\":\\"old\\""}\n'
    assert with_id(given_, "new") == given_.replace(b'"id":"old",', b'"id":"new",')
    stream = (
        b': comment "id"\r\n\r\nevent: x\r\ndata:{"id": "old" }\r\nretry: 1\r\n\r\n'
        b'data: {"a":\ndata: "id"}\n\ndata: "id"\n\ndata: [DONE]\n\n'
    )
    assert with_id(stream, "new") == stream.replace(b'"old"', b'"new"')
    assert with_id(b'{"no": "identifier"}', "new") == b'{"no": "identifier"}'
    assert with_id(b"", "new") == b""
