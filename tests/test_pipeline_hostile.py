"""Providers that answer anything at all: the caller still gets one well-formed reply, or an end
that cannot be taken for one, and the fault is never called the caller's or ours."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import VirtualRun
from feeding import CUTS, cut
from forebay.errors import CODES
from forebay.observe.record import Record
from forebay.testbed.virtual import VirtualWorld, run
from pipeline_kit import chat, gateway, messages, parse, request
from upstreams import Answer, Provider

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
DEEP = b"[" * 100_000

CHAT_BODY = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hi"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()
MESSAGE_BODY = json.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
).encode()


def _chat_stream() -> bytes:
    def chunk(delta: dict[str, Any], reason: str | None, **more: Any) -> bytes:
        choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
        body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        return b"data: %b\n\n" % json.dumps({**body, "choices": choices, **more}).encode()

    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return (
        chunk({"role": "assistant", "content": ""}, None)
        + chunk({"content": "hi"}, None)
        + chunk({}, "stop")
        + chunk({}, None, choices=[], usage=usage)
        + b"data: [DONE]\n\n"
    )


def _message_stream() -> bytes:
    start = json.loads(MESSAGE_BODY) | {"content": [], "stop_reason": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "hi"},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 1},
        },
        {"type": "message_stop"},
    ]
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode())
        for event in events
    )


CHAT_STREAM, MESSAGE_STREAM = _chat_stream(), _message_stream()


def whole(body: bytes, status: bytes = b"200 OK", *lines: bytes) -> bytes:
    head = [b"HTTP/1.1 " + status, b"content-type: application/json", *lines]
    head.append(b"content-length: %d" % len(body))
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def streamed(body: bytes) -> bytes:
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    pieces = [body[at : at + 50] for at in range(0, len(body), 50)]
    return head + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


async def met(
    world: VirtualWorld,
    pieces: list[bytes],
    kind: str,
    path: str,
    stream: bool,
    then: str = "close",
) -> tuple[bytes, Record]:
    """What a caller got from a provider that answers with these bytes, and the record."""
    async with Provider([Answer(pieces, then)]) as provider:
        odd = {
            "kind": kind,
            "base_url": f"http://127.0.0.1:{provider.port}",
            "api_key": "sk-canary-odd-0123456789",
            "proxy": "off",
        }
        config = {
            "providers": {"odd": odd},
            "timeouts": {"first_token_s": 5, "between_tokens_s": 5, "total_s": 20},
        }
        async with gateway(world, config) as gate:
            make = chat if path == CHAT else messages
            client = await gate.client()
            client.send(request(path, make(model="odd/m", stream=stream, temperature=0)))
            client.send(request("/healthz", None, {"connection": "close"}, "GET"))
            raw = await client.end()
            record = (await gate.records(1))[0]
            return raw, record


def check(raw: bytes, record: Record, path: str) -> None:
    assert record.outcome == "ok" or CODES[record.outcome].fault in ("provider", "operator")
    assert b"Traceback" not in raw
    assert b"sk-canary-odd" not in raw
    (reply, after), rest = parse(raw, ["POST", "GET"], closed=True)
    assert rest == b""
    assert (after.status, after.body) == (200, b"ok\n")  # the connection stayed usable
    assert reply.status == record.status
    if reply.status != 200:
        assert ("request_id" in reply.json) == (path == MESSAGES) or record.outcome == (
            "provider_error"  # which may pass as it came
        )


BODIES = {
    "bad UTF-8 in a value": CHAT_BODY.replace(b'"hi"', b'"\xff"'),
    "bad UTF-8 in a name": CHAT_BODY.replace(b'"model"', b'"mod\xff"'),
    "half a surrogate": CHAT_BODY.replace(b'"hi"', b'"\\ud800"'),
    "NUL": CHAT_BODY.replace(b'"hi"', b'"\0"'),
    "very deep": CHAT_BODY[:-1] + b',"x":' + DEEP,
    "very deep usage": CHAT_BODY[:-1] + b',"usage":{"x":' + DEEP,
    "very deep error": b'{"error":' + DEEP,
    "a huge number": CHAT_BODY.replace(b'"prompt_tokens": 1', b'"prompt_tokens": 1e999'),
    "negative tokens": CHAT_BODY.replace(b'"prompt_tokens": 1', b'"prompt_tokens": -5'),
    "choices of null": b'{"choices":[null]}',
    "content of numbers": b'{"content":[1,2],"stop_reason":3,"usage":[]}',
    "not JSON": b"\x00\x01\x02",
    "gzip by surprise": b"\x1f\x8b\x08\x00",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("form", ["whole", "500", "stream", "error event"])
def test_an_answer_of_any_content(
    virtual: VirtualRun, body: bytes, kind: str, path: str, form: str
) -> None:
    async def main(world: VirtualWorld) -> None:
        flat = body.replace(b"\n", b" ")
        raw = {
            "whole": whole(body),
            "500": whole(body, b"500 Oops"),
            "stream": streamed(b"data: " + flat + b"\n\n"),
            "error event": streamed(b'event: error\ndata: {"error":' + flat + b"}\n\n"),
        }[form]
        stream = form in ("stream", "error event")
        got, record = await met(world, [raw], kind, path, stream)
        check(got, record, path)
        assert record.attempts[0].status == (500 if form == "500" else 200)

    virtual(main)


@pytest.mark.parametrize(
    "line",
    [
        b"x-ratelimit-remaining-requests: \xff\xfe",
        b"x-ratelimit-remaining-requests: a\tb",
        b"retry-after: " + b"9" * 5000,
        b"openai-x: " + "ключ".encode(),
        b"openai-" + b"y" * 3000 + b": z",
        b"anthropic-ratelimit-x: " + b"q" * 8000,
        b"set-cookie: a=b",
        b"location: http://evil.com",
        b"content-type: application/json\r\ncontent-type: text/html",
    ],
)
@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_headers_of_any_content(virtual: VirtualRun, line: bytes, kind: str) -> None:
    body, path = (CHAT_BODY, CHAT) if kind == "openai" else (MESSAGE_BODY, MESSAGES)

    async def main(world: VirtualWorld) -> None:
        got, record = await met(world, [whole(body, b"200 OK", line)], kind, path, False)
        check(got, record, path)
        assert record.outcome == "ok"
        assert b"set-cookie" not in got
        assert b"evil.com" not in got

    virtual(main)


SAID = [
    (whole(CHAT_BODY), "openai", False),
    (streamed(CHAT_STREAM), "openai", True),
    (whole(MESSAGE_BODY), "anthropic", False),
    (streamed(MESSAGE_STREAM), "anthropic", True),
    (whole(b'{"error":{"message":"no"}}', b"429 Slow", b"retry-after: 3"), "openai", True),
]


def test_the_answers_that_are_broken_below_are_good_ones(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        for raw, kind, stream in SAID[:4]:
            for path in (CHAT, MESSAGES):
                got, record = await met(world, [raw], kind, path, stream)
                check(got, record, path)
                assert (record.outcome, record.status) == ("ok", 200)
                assert b"hi" in got

    virtual(main)


EDITS = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.integers(0, 5),
        st.one_of(
            st.binary(max_size=3),
            st.sampled_from(
                [
                    *(
                        b"\r\n",
                        b"\n\n",
                        b"\0",
                        b"\xff",
                        b'"',
                        b"{",
                        b"}",
                        b"[",
                        b"null",
                        b"0\r\n\r\n",
                    ),
                    *(b"data: ", b"event: error\n", b'"error":1,', b'"finish_reason":null,'),
                    *(b"content-length: 3\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"\\ud800"),
                ]
            ),
        ),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=250)
@given(
    said=st.sampled_from(SAID),
    path=st.sampled_from([CHAT, MESSAGES]),
    edits=EDITS,
    cuts=CUTS,
    then=st.sampled_from(["", "close", "reset"]),
)
def test_any_answer_ends_in_one_reply_and_one_record(
    said: tuple[bytes, str, bool],
    path: str,
    edits: list[tuple[int, int, bytes]],
    cuts: list[int],
    then: str,
) -> None:
    raw, kind, stream = said
    for place, removed, added in edits:
        at = place % (len(raw) + 1)
        raw = raw[:at] + added + raw[at + removed :]

    async def main(world: VirtualWorld) -> None:
        pieces = [piece for piece in cut(raw, [at % (len(raw) + 1) for at in cuts]) if piece]
        got, record = await met(world, pieces, kind, path, stream, then)
        check(got, record, path)

    run(main)
