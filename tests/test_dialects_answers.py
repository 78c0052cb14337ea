"""Answers in the other dialect, as properties: streamed and whole agree, cuts don't matter."""

import itertools
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
    through,
)
from forebay.dialects.answers_as_chat import FINISH_REASONS
from forebay.dialects.answers_as_messages import STOP_REASONS
from forebay.dialects.chat_to_messages import ChatToMessages
from forebay.dialects.decoding import encode
from forebay.dialects.messages_to_chat import MessagesToChat
from forebay.dialects.stitch import (
    assemble_chat,
    assemble_messages,
    unstitch_chat,
    unstitch_messages,
)
from forebay.dialects.translation import StreamTranslation
from forebay.errors import Failure
from forebay.exchange import Ask

ASK = Ask(model="asked", stream=True, include_usage=True)

texts = st.text(max_size=20)
counts = st.integers(0, 10**6)
inputs = st.dictionaries(texts, st.none() | st.booleans() | st.integers(-9, 9) | texts, max_size=3)


def message(content: list[Json], stop_reason: str = "end_turn", **usage: int) -> Json:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5",
        "content": content,
        "container": None,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "stop_details": None,
        "usage": {"input_tokens": 1, "output_tokens": 1, **usage},
    }


def completion(said: Json, finish_reason: str = "stop", **usage: int) -> Json:
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": finish_reason}
    total = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, **usage}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-5.2",
        "choices": [choice],
        "usage": total,
    }


text_blocks = texts.map(lambda text: {"type": "text", "text": text, "citations": None})
thinking_blocks = texts.map(lambda text: {"type": "thinking", "thinking": text, "signature": "s"})
call_blocks = st.builds(
    lambda n, given: {"type": "tool_use", "id": f"toolu_{n}", "name": "f", "input": given},
    st.integers(0, 99),
    inputs,
)
answered_messages = st.builds(
    message,
    st.lists(text_blocks | thinking_blocks | call_blocks, min_size=1, max_size=5),
    st.sampled_from([*FINISH_REASONS, "something_new"]),
    input_tokens=counts,
    output_tokens=counts,
    cache_read_input_tokens=counts,
    cache_creation_input_tokens=counts,
)


@st.composite
def answered_completions(draw: st.DrawFn) -> Json:
    calls = [
        {
            "id": f"call_{at}",
            "type": "function",
            "function": {"name": "f", "arguments": json.dumps(given)},
        }
        for at, given in enumerate(draw(st.lists(inputs, max_size=3)))
    ]
    said: Json = {"role": "assistant", "content": draw(st.none() | texts), "refusal": None}
    if draw(st.booleans()):
        said |= {"content": None, "refusal": draw(texts)}
    if calls:
        said["tool_calls"] = calls
    if draw(st.booleans()):
        said["reasoning_content"] = draw(texts)
    return completion(
        said,
        draw(st.sampled_from([*STOP_REASONS, "something_new"])),
        prompt_tokens=draw(counts),
        completion_tokens=draw(counts),
    )


@given(answered_messages)
def test_a_message_streamed_and_whole_is_the_same_completion(given_: Json) -> None:
    translation = ChatToMessages("ex_1", 7)
    compact = encode(given_)  # as arguments are spelled when a stream is made of an answer
    whole, found = translation.whole(compact, ASK)
    stream = translation.stream(ASK)
    streamed = through(stream, unstitch_messages(compact))
    check_chat(whole)
    check_chunks(streamed)
    said = json.loads(whole)
    if said["choices"][0]["message"]["content"] is None:  # a stream cannot take its "" back
        said["choices"][0]["message"]["content"] = ""
    assert json.loads(assemble_chat(streamed)) == said
    assert (stream.finding.usage, stream.finding.finish_reason) == (
        found.usage,
        found.finish_reason,
    )


@given(answered_completions())
def test_a_completion_streamed_and_whole_is_the_same_message(given_: Json) -> None:
    translation = MessagesToChat("ex_1")
    whole, found = translation.whole(body(given_), ASK)
    stream = translation.stream(ASK)
    streamed = through(stream, unstitch_chat(body(given_), include_usage=True))
    check_message(whole)
    check_message_events(streamed)
    assert json.loads(assemble_messages(streamed)) == json.loads(whole)
    assert stream.finding.usage == found.usage
    assert stream.finding.finish_reason == found.finish_reason
    assert stream.finding.progress == found.progress


# -- any chunking

deltas: st.SearchStrategy[Json] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"content": texts}),
    st.fixed_dictionaries({"reasoning_content": texts}),
    st.fixed_dictionaries({"refusal": texts}),
    st.builds(
        lambda at, name, given: {
            "tool_calls": [{"index": at, "function": {"name": name, "arguments": given}}]
        },
        st.integers(0, 2),
        st.sampled_from(["f", None]),
        st.sampled_from(["{", '{"', '"', "}", "{}", "\\", '"a":1', ""]),
    ),
)
chunks: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        lambda delta, end: {"choices": [{"index": 0, "delta": delta, "finish_reason": end}]},
        deltas,
        st.sampled_from([None, None, None, None, "stop", "tool_calls", "error"]),
    ),
    st.sampled_from(
        [
            {"choices": []},
            {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
            {"error": {"message": "no"}},
            "[DONE]",
            "not json",
        ]
    ),
)
blocks = st.sampled_from(
    [
        {"type": "text", "text": "a"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        {"type": "tool_use", "id": "t", "name": "", "input": {}},
        {"type": "server_tool_use", "id": "s", "name": "f", "input": {}},
        {"type": "something_new"},
    ]
)
message_events: st.SearchStrategy[Json] = st.one_of(
    st.just({"type": "message_start", "message": message([], "end_turn")}),
    st.builds(
        lambda at, block: {"type": "content_block_start", "index": at, "content_block": block},
        st.integers(0, 2),
        blocks,
    ),
    st.builds(
        lambda at, delta: {"type": "content_block_delta", "index": at, "delta": delta},
        st.integers(0, 2),
        st.one_of(
            texts.map(lambda text: {"type": "text_delta", "text": text}),
            texts.map(lambda text: {"type": "thinking_delta", "thinking": text}),
            texts.map(lambda text: {"type": "input_json_delta", "partial_json": text}),
        ),
    ),
    st.integers(0, 2).map(lambda at: {"type": "content_block_stop", "index": at}),
    st.sampled_from(
        [
            {"type": "ping"},
            {"type": "message_stop"},
            {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {}},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": {"output_tokens": 3},
            },
            {"type": "error", "error": {"type": "api_error", "message": "no"}},
            {"type": 5},
        ]
    ),
)


def outcome(stream: StreamTranslation, sent: bytes, cuts: list[int]) -> tuple[bytes, object]:
    """What left, and how it ended; a failure ends it."""
    bounds = [0, *sorted(cut % (len(sent) + 1) for cut in cuts), len(sent)]
    out = b""
    try:
        for start, end in itertools.pairwise(bounds):
            out += stream.feed(sent[start:end])
        out += stream.finish()
    except Failure as failure:
        return out, str(failure)
    return out, stream.finding.error


cut_lists = st.lists(st.integers(0, 10**6), max_size=12)


@given(st.lists(chunks, max_size=10), cut_lists, st.booleans())
def test_however_chunks_are_cut_the_events_are_the_same(
    sent: list[Any], cuts: list[int], crlf: bool
) -> None:
    raw = chat_stream(*sent)
    raw = raw.replace(b"\n", b"\r\n") if crlf else raw
    expected = outcome(MessagesToChat("ex_1").stream(ASK), raw, [])
    assert outcome(MessagesToChat("ex_1").stream(ASK), raw, cuts) == expected
    check_message_events(expected[0])


@given(st.lists(message_events, max_size=10), cut_lists, st.booleans())
def test_however_message_events_are_cut_the_chunks_are_the_same(
    sent: list[Json], cuts: list[int], crlf: bool
) -> None:
    start = {"type": "message_start", "message": message([])}
    raw = messages_stream(start, *sent)
    raw = raw.replace(b"\n", b"\r\n") if crlf else raw
    expected = outcome(ChatToMessages("ex_1", 7).stream(ASK), raw, [])
    assert outcome(ChatToMessages("ex_1", 7).stream(ASK), raw, cuts) == expected
    check_chunks(expected[0])


@given(st.lists(chunks, max_size=12))
def test_blocks_never_overlap_and_an_end_needs_a_finish_reason(sent: list[Any]) -> None:
    stream = MessagesToChat("ex_1").stream(ASK)
    out, error = outcome(stream, chat_stream(*sent), [])
    open_block: int | None = None
    began = 0
    kinds = [event["type"] for event in events(out)]
    for event in events(out):
        if event["type"] == "content_block_start":
            assert open_block is None
            assert event["index"] == began
            open_block, began = event["index"], began + 1
        elif event["type"] == "content_block_delta":
            assert event["index"] == open_block
        elif event["type"] == "content_block_stop":
            assert event["index"] == open_block
            open_block = None
        elif event["type"] == "message_delta":
            assert open_block is None
    ended = "message_stop" in kinds
    assert ended == (stream.finding.finish_reason is not None and error is None)


@given(st.lists(message_events, max_size=12))
def test_done_needs_a_finish_reason(sent: list[Json]) -> None:
    stream = ChatToMessages("ex_1", 7).stream(ASK)
    start = {"type": "message_start", "message": message([])}
    out, error = outcome(stream, messages_stream(start, *sent), [])
    assert (events(out)[-1] == "[DONE]") == (
        stream.finding.finish_reason is not None and error is None
    )


# -- single facts


@pytest.mark.parametrize(("stop", "finish"), [*FINISH_REASONS.items(), ("something_new", "stop")])
def test_stop_reasons_have_a_finish_reason(stop: str, finish: str) -> None:
    whole, finding = ChatToMessages().whole(body(message([], stop)), ASK)
    assert check_chat(whole).choices[0].finish_reason == finish
    assert finding.finish_reason == stop


@pytest.mark.parametrize(("finish", "stop"), [*STOP_REASONS.items(), ("eos", "end_turn")])
def test_finish_reasons_have_a_stop_reason(finish: str, stop: str) -> None:
    said = {"role": "assistant", "content": "Hi", "refusal": None}
    whole, finding = MessagesToChat().whole(body(completion(said, finish)), ASK)
    assert check_message(whole).stop_reason == stop
    assert finding.finish_reason == finish


def test_half_an_event_at_the_end_is_a_cut_not_a_bad_answer() -> None:
    stream = MessagesToChat("ex_1").stream(ASK)
    sent = chat_stream({"id": "c", "choices": [{"delta": {"content": "Hi"}}]})
    assert through(stream, sent + b'data: {"id":"c","choices":[{"del')
    assert stream.finding.finish_reason is None
    assert stream.finding.error is None


def test_a_last_event_without_its_empty_line_counts() -> None:
    stream = MessagesToChat("ex_1").stream(ASK)
    end = chat_stream({"id": "c", "choices": [{"delta": {}, "finish_reason": "stop"}]})
    out = through(stream, end.rstrip(b"\n"))
    assert events(out)[-1] == {"type": "message_stop"}


def test_a_stream_that_is_none_is_a_bad_answer() -> None:
    with pytest.raises(Failure, match="not JSON") as caught:
        MessagesToChat("ex_1").stream(ASK).feed(b"data: <html>no</html>\n\n")
    assert caught.value.code.name == "bad_answer"
    with pytest.raises(Failure, match="began with 'content_block_stop'"):
        ChatToMessages("ex_1").stream(ASK).feed(messages_stream({"type": "content_block_stop"}))


def test_a_call_without_a_name_is_a_bad_answer() -> None:
    stream = MessagesToChat("ex_1").stream(ASK)
    call = {"index": 0, "id": "c", "function": {"arguments": "{}"}}
    sent = chat_stream(
        {"id": "c", "choices": [{"delta": {"tool_calls": [call]}}]},
        {"id": "c", "choices": [{"delta": {}, "finish_reason": "stop"}]},
    )
    stream.feed(sent)
    assert stream.finding.error == "The provider's answer calls a tool without naming it."


def test_calls_that_wait_are_bounded() -> None:
    stream = MessagesToChat("ex_1").stream(ASK)

    def fragment(index: int, arguments: str) -> bytes:
        call = {"index": index, "id": "c", "function": {"name": "f", "arguments": arguments}}
        return chat_stream({"id": "c", "choices": [{"delta": {"tool_calls": [call]}}]})

    stream.feed(fragment(0, "{"))
    for _ in range(7):
        stream.feed(fragment(1, "x" * 2 * 1024 * 1024))
    with pytest.raises(Failure, match="interleaves tool calls of over 16777216 characters"):
        stream.feed(fragment(1, "x" * 2 * 1024 * 1024))
