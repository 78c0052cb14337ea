"""Bytes that pass: what is edited is edited exactly, and what is learned does not depend on how
the bytes were cut."""

import json
from collections import deque
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feeding import CUTS, feeds
from forebay.dialects import asks, passthrough
from forebay.dialects.passthrough import Chat, CountTokens, Embeddings, Messages, Responses
from forebay.dialects.translation import Finding, Translation
from forebay.errors import Failure
from forebay.exchange import Ask
from forebay.schema.usage import Usage
from forebay.wire import members
from spelling import SPELLINGS, blank, spelled

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    st.sampled_from(
        [
            *('"finish_reason":"stop"', '"usage":{', "[DONE]", "data: [DONE]", ".delta", "\n\n"),
            *('"error"', "event: error", "\u2028", '"content":""', "response.completed", "\\"),
        ]
    ),
)


class Count(int):
    """A number that is spelled as everybody spells a count: 12, not 1.2e1."""


COUNTS = st.integers(0, 1000).map(Count)


def ask(**more: Any) -> Ask:
    return Ask(model="p/m", stream=True, **more)


# -- requests --------------------------------------------------------------------------------

MODEL = st.sampled_from(["m", 'say "hi"', "ключ", "a\\b", "org/model:free"])
REST = st.dictionaries(
    st.sampled_from(["zeta", "temperature", "a field", "é"]),
    st.recursive(st.none() | st.floats(-9, 9) | TEXTS, lambda i: st.lists(i, max_size=3)),
    max_size=3,
)


@given(model=MODEL, rest=REST, rng=SPELLINGS, name=st.sampled_from(["Messages", "Responses"]))
def test_the_models_name_is_the_only_edit(
    model: str, rest: dict[str, Any], rng: Random, name: str
) -> None:
    translation: Translation = getattr(passthrough, name)()
    before, after = blank(rng), blank(rng)
    parts = [f"{spelled(k, rng)}:{spelled(v, rng)}" for k, v in rest.items()]
    at = rng.randrange(len(parts) + 1)
    head = f"{before}{{" + "".join(part + "," for part in parts[:at]) + '"model":' + blank(rng)
    tail = "".join("," + part for part in parts[at:]) + f"}}{after}"
    body = (head + spelled("p/m", rng) + tail).encode()
    parsed = members.parse(body)
    splices = translation.request(parsed, ask(), model)
    assert isinstance(splices, list)
    edited = members.apply(body, splices)
    assert edited == head.encode() + msgspec.json.encode(model) + tail.encode()
    assert translation.request(parsed, ask(), "p/m") == []


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (b"", b',"stream_options":{"include_usage":true}'),
        (b',"stream_options":null', b',"stream_options":{"include_usage":true}'),
        (b',"stream_options":{}', b',"stream_options":{"include_usage":true}'),
        (
            b',"stream_options":{"include_usage":false}',
            b',"stream_options":{"include_usage":true}',
        ),
        (
            b',"stream_options": { "x" : [ 1 ] , "include_usage" : null }',
            b',"stream_options": { "x" : [ 1 ] , "include_usage" : true }',
        ),
        (
            b',"stream_options":{ "include_obfuscation" : false }',
            b',"stream_options":{ "include_obfuscation" : false ,"include_usage":true}',
        ),
    ],
)
def test_usage_is_asked_for_on_a_chat_stream(options: bytes, sent: bytes) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true%b}'
    asked = body % options
    parsed = members.parse(asked)
    wish = asks.read_chat(parsed)
    assert members.apply(asked, Chat().request(parsed, wish, "m")) == body % sent


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[{"role":"user"}]}',
        b'{"model":"m","messages":[{"role":"user"}],"stream":false}',
        b'{"model":"m","messages":[{"role":"user"}],"stream":true,'
        b'"stream_options":{"include_usage":true}}',
    ],
)
def test_where_usage_comes_anyhow_nothing_is_asked(body: bytes) -> None:
    parsed = members.parse(body)
    assert Chat().request(parsed, asks.read_chat(parsed), "m") == []


def test_options_that_name_a_member_twice_are_refused() -> None:
    body = (
        b'{"model":"m","messages":[{"role":"user"}],"stream":true,'
        b'"stream_options":{"include_usage":false,"include_usage":false}}'
    )
    parsed = members.parse(body)
    with pytest.raises(Failure) as caught:
        Chat().request(parsed, asks.read_chat(parsed), "m")
    assert caught.value.code.name == "duplicate_key"


# -- whole answers ---------------------------------------------------------------------------


def chat_answer(**more: Any) -> bytes:
    return json.dumps({"choices": [{"finish_reason": "stop", "message": {}}], **more}).encode()


@pytest.mark.parametrize(
    ("translation", "body", "finding"),
    [
        (Chat(), chat_answer(), Finding(finish_reason="stop")),
        (
            Chat(),
            chat_answer(model="x", usage={"prompt_tokens": 3, "completion_tokens": 2}),
            Finding(finish_reason="stop", model="x", usage=Usage(3, 0, 0, 2)),
        ),
        (Chat(), chat_answer(usage=None, error=None), Finding(finish_reason="stop")),
        (Chat(), chat_answer(usage={"prompt_tokens": -1}), Finding(finish_reason="stop")),
        (Chat(), b'{"choices":[{}]}', Finding()),
        (
            Chat(),
            b'{"choices":[{"finish_reason":"stop"},{"finish_reason":"content_filter"}]}',
            Finding(finish_reason="content_filter"),
        ),
        (
            Messages(),
            b'{"model":"x","content":[],"stop_reason":"end_turn",'
            b'"usage":{"input_tokens":3,"output_tokens":2,"cache_read_input_tokens":5}}',
            Finding(finish_reason="end_turn", model="x", usage=Usage(3, 5, 0, 2)),
        ),
        (
            Responses(),
            b'{"model":"x","status":"incomplete","output":[],'
            b'"usage":{"input_tokens":3,"output_tokens":2}}',
            Finding(finish_reason="incomplete", model="x", usage=Usage(3, 0, 0, 2)),
        ),
        (Responses(), b'{"output":[]}', Finding(finish_reason="completed")),
        (
            Embeddings(),
            b'{"data":[],"model":"x","usage":{"prompt_tokens":3,"total_tokens":3}}',
            Finding(finish_reason="embedded", model="x", usage=Usage(3)),
        ),
        (CountTokens(), b'{"input_tokens":3}', Finding(finish_reason="counted", usage=Usage())),
    ],
)
def test_a_whole_answer_passes_and_is_read(
    translation: Translation, body: bytes, finding: Finding
) -> None:
    out, found = translation.whole(body, ask())
    assert out is body
    assert found == finding


@pytest.mark.parametrize("translation", [Chat(), Messages(), Responses(), Embeddings()])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"OK",
        b"[]",
        b"null",
        b"<html>",
        b'{"choices":',
        b"{}",
        b'{"choices":3,"content":3}',
        b'{"model":"\xff"}',
        b'{"x":' + b"[" * 100_000,
    ],
)
def test_an_answer_that_is_none(translation: Translation, body: bytes) -> None:
    if isinstance(translation, Messages) and b"content" in body:
        return  # its content is the caller's to judge
    with pytest.raises(Failure) as caught:
        translation.whole(body, ask())
    assert caught.value.code.name == "bad_answer"


@pytest.mark.parametrize("translation", [Chat(), Messages(), Responses(), Embeddings()])
@pytest.mark.parametrize("error", ['{"message":"out of capacity"}', '"out of capacity"'])
def test_an_error_under_200_is_an_error(translation: Translation, error: str) -> None:
    with pytest.raises(Failure) as caught:
        translation.whole(f'{{"error":{error}}}'.encode(), ask())
    assert caught.value.code.name == "provider_error"
    assert "out of capacity" in str(caught.value)


# -- streams ---------------------------------------------------------------------------------


class Spelled:
    """A stream: its bytes, and those that a caller should get."""

    def __init__(self, events: list[tuple[bytes, bool]]) -> None:
        self.data = b"".join(event for event, _ in events)
        self.due = b"".join(event for event, withheld in events if not withheld)


def event_bytes(rng: Random, data: str, name: str = "") -> bytes:
    """An event in any of the spellings that the standard allows."""
    end = rng.choice(["\n", "\n", "\n", "\r\n", "\r"])
    lines = []
    if rng.random() < 0.1:
        lines.append(": a comment")
    if name:
        lines.append(f"event:{rng.choice([' ', ''])}{name}")
    lines.append(f"data:{rng.choice([' ', ' ', ''])}{data}")
    if rng.random() < 0.1:
        lines.insert(rng.randrange(len(lines) + 1), "id: 7")
    return (end.join(lines) + end + end).encode()


def json_line(value: Any, rng: Random) -> str:
    """Any spelling that stays on one line."""
    return spelled(value, rng).replace("\r\n", " ").replace("\n", " ")


def fed(translation: Translation, chunks: list[bytes], wish: Ask) -> tuple[bytes, Finding, bytes]:
    stream = translation.stream(wish)
    out = b"".join([stream.feed(chunk) for chunk in chunks]) + stream.finish()
    assert stream.splices is not None
    return out, stream.finding, members.apply(b"".join(chunks), stream.splices)


def check_stream(
    translation: Translation, stream: Spelled, cuts: list[int], wish: Ask, finding: Finding
) -> None:
    for chunks in feeds(stream.data, cuts):
        out, found, spliced = fed(translation, chunks, wish)
        assert out == stream.due
        assert spliced == out
        # How often content moved is a count by events, near enough where the spelling is odd.
        assert abs(found.progress - finding.progress) <= stream.data.count(b'"role"')
        found.progress = finding.progress
        assert found == finding


PIECES = st.lists(st.tuples(st.integers(0, 2), TEXTS), max_size=5)


@settings(max_examples=150)
@given(
    pieces=PIECES,
    reasons=st.lists(st.sampled_from(["stop", "length", "tool_calls"]), min_size=1, max_size=3),
    usage=st.sampled_from(["none", "last", "every", "with the reason", "null"]),
    counts=st.tuples(COUNTS, COUNTS),
    wants=st.booleans(),
    done=st.booleans(),
    rng=SPELLINGS,
    cuts=CUTS,
)
def test_a_chat_stream_however_it_is_spelled_and_cut(
    pieces: list[tuple[int, str]],
    reasons: list[str],
    usage: str,
    counts: tuple[int, int],
    wants: bool,
    done: bool,
    rng: Random,
    cuts: list[int],
) -> None:
    """Several choices, usage in every chunk or in one, any line ending, any white space."""
    report = {
        "prompt_tokens": counts[0],
        "completion_tokens": counts[1],
        "total_tokens": Count(sum(counts)),
    }

    def chunk(choices: list[Any], with_usage: bool) -> str:
        body: dict[str, Any] = {"id": "c", "model": "gpt-x", "choices": choices}
        if with_usage:
            body["usage"] = report
        elif usage == "null":
            body["usage"] = None
        return json_line(body, rng)

    events: list[tuple[bytes, bool]] = []
    for index, text in pieces:
        choice = {"index": index, "delta": {"content": text}, "finish_reason": None}
        events.append((event_bytes(rng, chunk([choice], usage == "every")), False))
    for index, reason in enumerate(reasons):
        choice = {"index": index, "delta": {}, "finish_reason": reason}
        with_usage = usage in ("every", "with the reason")
        events.append((event_bytes(rng, chunk([choice], with_usage)), False))
    if usage in ("last", "every"):
        events.append((event_bytes(rng, chunk([], True)), not wants))
    if done:
        events.append((event_bytes(rng, "[DONE]"), False))
    finding = Finding(
        usage=Usage(counts[0], 0, 0, counts[1]) if usage not in ("none", "null") else None,
        finish_reason=reasons[-1],
        model="gpt-x",
        progress=len(pieces),
        closed=done,
    )
    wish = ask(include_usage=wants)
    check_stream(Chat(), Spelled(events), cuts, wish, finding)


@settings(max_examples=100)
@given(
    texts=st.lists(TEXTS, max_size=5),
    counts=st.tuples(COUNTS, COUNTS, COUNTS),
    stop=st.sampled_from(["end_turn", "max_tokens", "refusal"]),
    pings=st.booleans(),
    rng=SPELLINGS,
    cuts=CUTS,
)
def test_a_message_stream_however_it_is_spelled_and_cut(
    texts: list[str],
    counts: tuple[int, int, int],
    stop: str,
    pings: bool,
    rng: Random,
    cuts: list[int],
) -> None:
    read, cached, made = counts
    start = {
        "model": "claude-x",
        "usage": {
            "input_tokens": read,
            "cache_read_input_tokens": cached,
            "output_tokens": Count(1),
        },
    }
    said: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    said += [{"type": "ping"}] * pings
    said += [
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}
        for text in texts
    ]
    said.append(
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop},
            "usage": {"output_tokens": made},
        }
    )
    said.append({"type": "message_stop"})
    events = [(event_bytes(rng, json_line(e, rng), e["type"]), False) for e in said]
    finding = Finding(
        usage=Usage(read, cached, 0, made),
        finish_reason=stop,
        model="claude-x",
        progress=len(texts),
        closed=True,
    )
    check_stream(Messages(), Spelled(events), cuts, ask(), finding)


@settings(max_examples=100)
@given(
    texts=st.lists(TEXTS, max_size=5),
    counts=st.tuples(COUNTS, COUNTS),
    status=st.sampled_from(["completed", "incomplete"]),
    named=st.booleans(),
    rng=SPELLINGS,
    cuts=CUTS,
)
def test_a_response_stream_however_it_is_spelled_and_cut(
    texts: list[str],
    counts: tuple[int, int],
    status: str,
    named: bool,
    rng: Random,
    cuts: list[int],
) -> None:
    """With texts that hold `.delta`, `[DONE]` and the names of other events."""
    kind = "response.output_text"
    said: list[dict[str, Any]] = [{"type": "response.created", "response": {"status": "queued"}}]
    said += [{"type": f"{kind}.delta", "delta": text} for text in texts]
    said += [{"type": f"{kind}.done", "text": "".join(texts) + "event: x.delta"}]
    answer = {
        "status": status,
        "model": "gpt-x",
        "usage": {"input_tokens": counts[0], "output_tokens": counts[1]},
    }
    said.append({"type": f"response.{status}", "response": answer})
    events = [
        (event_bytes(rng, json_line(e, rng), e["type"] if named else ""), False) for e in said
    ]
    finding = Finding(
        usage=Usage(counts[0], 0, 0, counts[1]),
        finish_reason=status,
        model="gpt-x",
        progress=len(texts),
        closed=True,
    )
    check_stream(Responses(), Spelled(events), cuts, ask(), finding)


@pytest.mark.parametrize(
    ("translation", "data", "error"),
    [
        (Chat(), b'data: {"error":{"message":"overloaded"}}\n\n', "overloaded"),
        (Chat(), b'data: {"error":"overloaded"}\n\n', "overloaded"),
        (
            Chat(),
            b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":null}],'
            b'"error":{"code":"overloaded"}}\n\n',
            "overloaded",
        ),
        (
            Messages(),
            b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error",'
            b'"message":"overloaded"}}\n\n',
            "overloaded",
        ),
        (Messages(), b'data: {"type":"error"}\n\n', "without a message"),
        (
            Responses(),
            b'event: error\ndata: {"type":"error","message":"overloaded"}\n\n',
            "overloaded",
        ),
        (
            Responses(),
            b'event: response.failed\ndata: {"type":"response.failed","response":'
            b'{"status":"failed","error":{"message":"overloaded"}}}\n\n',
            "overloaded",
        ),
    ],
)
def test_an_error_in_a_stream_is_found_and_passes(
    translation: Translation, data: bytes, error: str
) -> None:
    for chunks in feeds(data):
        out, finding, _ = fed(translation, chunks, ask())
        assert out == data
        assert finding.error is not None
        assert error in finding.error


@pytest.mark.parametrize(
    ("translation", "data"),
    [
        (Chat(), b": ping\n\n: ping\n\n"),
        (Chat(), b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'),
        (Chat(), b'data: {"choices":[],"usage":null}\n\n'),
        (Messages(), b'event: ping\ndata: {"type":"ping"}\n\n'),
        (Messages(), b"retry: 1000\n\n"),
        (Responses(), b'event: response.created\ndata: {"type":"response.created"}\n\n'),
    ],
)
def test_what_is_no_content_does_not_move_the_clock(translation: Translation, data: bytes) -> None:
    for chunks in feeds(data):
        out, finding, _ = fed(translation, chunks, ask())
        assert out == data
        assert finding == Finding()


@pytest.mark.parametrize("translation", [Chat(), Messages(), Responses()])
@pytest.mark.parametrize(
    "data",
    [
        b"data: oops\n\n",
        b"data: [1]\n\n",
        b'data: {"a":\n\n',
        b"data: \xff\n\n",
        b'data: {"a":"\xff"}\n\n',
        b'data: {"\xff":1}\n\n',
        b'data: {"a":' + b"[" * 2000 + b"\n\n",
        b"data:\n\n",
    ],
)
def test_what_is_no_event_of_the_dialect_is_refused(translation: Translation, data: bytes) -> None:
    good = b": hello\n\n"
    for chunks in feeds(data, trailing=b": more\n\n"):
        stream = translation.stream(ask())
        assert stream.feed(good) == good
        with pytest.raises(Failure) as caught:
            deque(map(stream.feed, chunks))
        assert caught.value.code.name == "bad_answer"


@given(data=st.lists(st.binary(max_size=20), max_size=8))
@example([b"data: {", b"}\n\n"])
def test_what_nobody_reads_passes_unread(data: list[bytes]) -> None:
    stream = passthrough.OpaqueStream()
    assert [stream.feed(chunk) for chunk in data] == data
    assert stream.finish() == b""
    assert stream.splices == []
    assert stream.finding.progress == len(data)


@settings(max_examples=100)
@given(
    data=st.lists(
        st.one_of(
            st.binary(max_size=12),
            st.sampled_from(
                [
                    *(
                        b"data: ",
                        b"\n\n",
                        b"\r\n",
                        b"\r",
                        b'{"choices":[',
                        b'{"delta":{"content":"x"',
                    ),
                    *(b'},"finish_reason":null}', b"]}", b'"usage":{}', b"[DONE]", b"event: error"),
                ]
            ),
        ),
        max_size=12,
    ).map(b"".join),
    cuts=CUTS,
    name=st.sampled_from(["Chat", "Messages", "Responses"]),
)
def test_any_stream_passes_or_is_refused_however_it_is_cut(
    data: bytes, cuts: list[int], name: str
) -> None:
    """What was handed over before a refusal is a beginning of the stream, and splices say so."""
    translation: Translation = getattr(passthrough, name)()
    results = set()
    for chunks in feeds(data, cuts):
        stream = translation.stream(ask(include_usage=True))
        out = b""
        refused = ""
        try:
            for chunk in chunks:
                out += stream.feed(chunk)
            out += stream.finish()
        except Failure as failure:
            refused = failure.code.name
        assert refused in ("", "bad_answer")
        assert data.startswith(out)
        if not refused:
            assert out == data or not data[len(out) :].strip(b"\r\n\xef\xbb\xbf")
        results.add(refused)
    assert len(results) == 1
