"""Records as the recorder makes them, for tests of whatever reads records.

Each function is one kind of exchange; `n` makes it another one of its kind (id, time). Times
are those of a provider that takes 420 ms to its first byte and 20 ms a chunk.
"""

import json
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from forebay.observe.record import VERSION, AttemptRecord, Body, Record, Splice
from forebay.schema.usage import Usage
from forebay.wire import members
from forebay.world import RealWorld

MS = 1_000_000
#: 25 November 2026, 10:00 UTC
NOON_NS = 1_795_600_800 * 1_000_000_000

JSON_HEADERS = [
    (b"content-type", b"application/json"),
    (b"user-agent", b"OpenAI/Python 3.57.0"),
    (b"x-stainless-lang", b"python"),
]
REPLY_HEADERS = [(b"content-type", b"application/json"), (b"x-request-id", b"up_1f2e3d")]
STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8")]


def id_of(n: int) -> str:
    return f"req_{(n * 0x9E3779B97F4A7C15) % (1 << 96):024x}"


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def whole(data: bytes) -> Body:
    return Body(data, b"", len(data))


def chunked(chunks: Sequence[bytes], first_ms: int = 420, step_ms: int = 20) -> Body:
    marks = b""
    end = 0
    for i, chunk in enumerate(chunks):
        end += len(chunk)
        marks += struct.pack("<II", end, (first_ms + i * step_ms) * 1000)
    data = b"".join(chunks)
    return Body(data, marks, len(data))


def changed(record: Record, **changes: Any) -> Record:
    return msgspec.structs.replace(record, **changes)


def chat(
    n: int = 1,
    prompt: str = "What is a forebay?",
    answer: str = "The pool in front of a turbine house.",
    *,
    model: str = "openai/gpt-5-mini",
    body: bytes | None = None,
    **changes: Any,
) -> Record:
    """An OpenAI chat completion that passed through; only the model's name was replaced."""
    if body is None:
        body = dumps(
            {
                "model": model,
                "messages": [
                    {"role": "system", "content": "You answer in one sentence."},
                    {"role": "user", "content": prompt},
                ],
                "temperature": 0,
            }
        )
    upstream = model.rpartition("/")[2]
    usage = Usage(input_tokens=1125 - 256, cache_read_tokens=256, output_tokens=375)
    completion = {
        "id": f"chatcmpl-{n:08x}",
        "object": "chat.completion",
        "created": NOON_NS // 10**9,
        "model": upstream + "-2026-08-07",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 1125,
            "completion_tokens": 375,
            "prompt_tokens_details": {"cached_tokens": 256},
        },
    }
    attempt = attempted(
        "openai",
        upstream,
        sent=spliced_model(body, upstream),
        body=whole(dumps(completion)),
        usage=usage,
        cost_nusd=973_650,
        finish_reason="stop",
        model_reported=upstream + "-2026-08-07",
    )
    record = Record(
        version=VERSION,
        id=id_of(n),
        received_wall_ns=NOON_NS + n * 40 * MS,
        config_version="c0ffee12",
        team="default",
        project="default",
        key_id="key_ops",
        method="POST",
        path="/v1/chat/completions",
        query="",
        endpoint="chat",
        dialect="openai",
        headers=list(JSON_HEADERS),
        body=whole(body),
        model=model,
        stream=False,
        route="the only target",
        cache="miss",
        cache_source="",
        attempts=[attempt],
        status=200,
        reply_headers=list(REPLY_HEADERS),
        reply_body=[],
        outcome="ok",
        error="",
        usage=usage,
        cost_nusd=973_650,
        saved_nusd=0,
        draws=[],
        decoded_ns=40_000,
        identified_ns=45_000,
        planned_ns=70_000,
        first_ns=840 * MS,
        ended_ns=841 * MS,
    )
    return changed(record, **changes)


def attempted(provider: str, model: str, **changes: Any) -> AttemptRecord:
    """An attempt that went well; `changes` say what was sent and came back."""
    path = "/v1/messages" if provider == "anthropic" else "/v1/chat/completions"
    attempt = AttemptRecord(
        provider=provider,
        model=model,
        method="POST",
        path=path,
        sent_headers=[(b"content-type", b"application/json"), (b"accept-encoding", b"identity")],
        sent=[],
        status=200,
        headers=list(REPLY_HEADERS),
        body=Body(),
        usage=None,
        cost_nusd=None,
        finish_reason=None,
        model_reported=None,
        outcome="ok",
        started_ns=90_000,
        head_ns=838 * MS,
        first_ns=839 * MS,
        ended_ns=840 * MS,
    )
    return msgspec.structs.replace(attempt, **changes)


def spliced_model(body: bytes, model: str, **more: Any) -> list[Splice]:
    """What passing through does to a request: another model, and members added."""
    changes = {"model": dumps(model)} | {name: dumps(value) for name, value in more.items()}
    return members.parse(body).edits(changes)


def chat_stream(
    n: int = 2,
    prompt: str = "Write a haiku about water.",
    pieces: Iterable[str] = ("Still", " water", " waits", " —", " then", " turns", "."),
    **changes: Any,
) -> Record:
    """An OpenAI stream that passed through; usage was asked for and its chunk withheld."""
    body = dumps(
        {
            "model": "gpt-5-mini",
            "messages": [{"role": "user", "content": prompt}],
            "stream": True,
        }
    )
    events = [
        _chunk(n, {"role": "assistant", "content": ""}),
        *(_chunk(n, {"content": piece}) for piece in pieces),
        _chunk(n, {}, finish_reason="stop"),
    ]
    usage_event = (
        b"data: "
        + dumps(
            {
                "id": f"chatcmpl-{n:08x}",
                "object": "chat.completion.chunk",
                "choices": [],
                "usage": {"prompt_tokens": 21, "completion_tokens": len(events) - 2},
            }
        )
        + b"\n\n"
    )
    answer = chunked([*events, usage_event, b"data: [DONE]\n\n"])
    start = len(b"".join(events))
    ended = (420 + len(events) * 20 + 20) * MS
    usage = Usage(input_tokens=21, output_tokens=len(events) - 2)
    return changed(
        chat(n, body=body, model="gpt-5-mini"),
        stream=True,
        cache="bypass",
        attempts=[
            attempted(
                "openai",
                "gpt-5-mini",
                sent=spliced_model(body, "gpt-5-mini", stream_options={"include_usage": True}),
                headers=list(STREAM_HEADERS),
                body=answer,
                usage=usage,
                cost_nusd=21_250,
                finish_reason="stop",
                model_reported="gpt-5-mini-2026-08-07",
                head_ns=418 * MS,
                first_ns=440 * MS,
                ended_ns=ended,
            )
        ],
        reply_headers=list(STREAM_HEADERS),
        reply_body=[(start, start + len(usage_event), b"")],
        usage=usage,
        cost_nusd=21_250,
        first_ns=421 * MS,
        ended_ns=ended + MS,
        **changes,
    )


def _chunk(n: int, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    return (
        b"data: "
        + dumps(
            {
                "id": f"chatcmpl-{n:08x}",
                "object": "chat.completion.chunk",
                "model": "gpt-5-mini-2026-08-07",
                "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
            }
        )
        + b"\n\n"
    )


def messages(
    n: int = 3,
    prompt: str = "Which turbine suits a head of 400 m?",
    answer: str = "A Pelton wheel.",
    **changes: Any,
) -> Record:
    """An Anthropic message that passed through, byte for byte."""
    body = dumps(
        {
            "model": "claude-haiku-5-5",
            "max_tokens": 256,
            "system": "You are a hydraulics engineer.",
            "messages": [{"role": "user", "content": prompt}],
        }
    )
    reply = dumps(
        {
            "id": f"msg_{n:08x}",
            "type": "message",
            "role": "assistant",
            "model": "claude-haiku-5-5",
            "content": [{"type": "text", "text": answer}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 30, "output_tokens": 8},
        }
    )
    usage = Usage(input_tokens=30, output_tokens=8)
    return changed(
        chat(n, body=body, model="claude-haiku-5-5"),
        path="/v1/messages",
        endpoint="messages",
        dialect="anthropic",
        project="research",
        attempts=[
            attempted(
                "anthropic",
                "claude-haiku-5-5",
                body=whole(reply),
                usage=usage,
                cost_nusd=7_000,
                finish_reason="end_turn",
                model_reported="claude-haiku-5-5",
            )
        ],
        usage=usage,
        cost_nusd=7_000,
        **changes,
    )


def messages_stream(
    n: int = 4,
    prompt: str = "What is the weather in Bern?",
    pieces: Sequence[str] = ("I will", " look", " it up."),
    **changes: Any,
) -> Record:
    """An Anthropic stream that ends in a tool call."""
    body = dumps(
        {
            "model": "claude-haiku-5-5",
            "max_tokens": 512,
            "stream": True,
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": prompt}]},
            ],
            "tools": [{"name": "weather", "input_schema": {"type": "object"}}],
        }
    )
    events = [
        _event("message_start", {"message": {"model": "claude-haiku-5-5", "role": "assistant"}}),
        _event("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        *(
            _event(
                "content_block_delta",
                {"index": 0, "delta": {"type": "text_delta", "text": piece}},
            )
            for piece in pieces
        ),
        _event("content_block_stop", {"index": 0}),
        _event(
            "content_block_start",
            {"index": 1, "content_block": {"type": "tool_use", "id": "tu_1", "name": "weather"}},
        ),
        *(
            _event(
                "content_block_delta",
                {"index": 1, "delta": {"type": "input_json_delta", "partial_json": part}},
            )
            for part in ('{"city": ', '"Bern"}')
        ),
        _event("content_block_stop", {"index": 1}),
        _event(
            "message_delta",
            {"delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 31}},
        ),
        _event("message_stop", {}),
    ]
    ended = (420 + len(events) * 20) * MS
    usage = Usage(input_tokens=12, output_tokens=31)
    return changed(
        messages(n),
        body=whole(body),
        stream=True,
        attempts=[
            attempted(
                "anthropic",
                "claude-haiku-5-5",
                headers=list(STREAM_HEADERS),
                body=chunked(events),
                usage=usage,
                cost_nusd=16_700,
                finish_reason="tool_use",
                model_reported="claude-haiku-5-5",
                head_ns=418 * MS,
                first_ns=460 * MS,
                ended_ns=ended,
            )
        ],
        reply_headers=list(STREAM_HEADERS),
        usage=usage,
        cost_nusd=16_700,
        first_ns=421 * MS,
        ended_ns=ended + MS,
        **changes,
    )


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\n".encode() + b"data: " + dumps({"type": name} | data) + b"\n\n"


def converted(n: int = 5, **changes: Any) -> Record:
    """Asked in OpenAI's dialect, answered by Anthropic: both wires have bytes of their own."""
    asked = chat(n, model="anthropic/claude-haiku-5-5")
    answered = messages(n)
    attempt = answered.attempts[0]
    attempt.sent = answered.body
    reply = dumps(
        {
            "id": f"chatcmpl-{n:08x}",
            "object": "chat.completion",
            "model": "claude-haiku-5-5",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "A Pelton wheel."},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 30, "completion_tokens": 8},
        }
    )
    return changed(
        asked,
        attempts=[attempt],
        reply_body=whole(reply),
        usage=answered.usage,
        cost_nusd=7_000,
        draws=[f"chatcmpl-{n:08x}"],
        **changes,
    )


def cache_hit(n: int = 6, source: int = 1, **changes: Any) -> Record:
    """The same question as `chat(source)`, answered from the exact cache."""
    filled = chat(source)
    return changed(
        chat(n),
        route="",
        cache="exact",
        cache_source=filled.id,
        attempts=[],
        reply_body=filled.attempts[0].body,
        cost_nusd=0,
        saved_nusd=973_650,
        first_ns=180_000,
        ended_ns=190_000,
        **changes,
    )


def failover(n: int = 7, **changes: Any) -> Record:
    """The first provider answers 503, the second one well."""
    good = chat(n)
    refused = attempted(
        "azure",
        "gpt-5-mini",
        sent=good.attempts[0].sent,
        status=503,
        body=whole(b'{"error":{"message":"The engine is overloaded","code":"503"}}'),
        outcome="provider_error",
        head_ns=300 * MS,
        first_ns=301 * MS,
        ended_ns=302 * MS,
    )
    second = msgspec.structs.replace(
        good.attempts[0],
        started_ns=303 * MS,
        head_ns=1_140 * MS,
        first_ns=1_141 * MS,
        ended_ns=1_143 * MS,
    )
    return changed(
        good,
        route="second of two: azure failed (provider_error)",
        attempts=[refused, second],
        first_ns=1_144 * MS,
        ended_ns=1_145 * MS,
        **changes,
    )


def unreachable(n: int = 8, **changes: Any) -> Record:
    """The provider did not answer in time; the caller got an error in its dialect."""
    message = "The provider openai sent no first token within 30 s. Try again."
    attempt = attempted(
        "openai",
        "gpt-5-mini",
        status=0,
        headers=[],
        outcome="provider_timeout",
        head_ns=0,
        first_ns=0,
        ended_ns=30_000 * MS,
    )
    return changed(
        chat(n),
        attempts=[attempt],
        status=504,
        reply_body=whole(dumps({"error": {"message": message, "code": "provider_timeout"}})),
        outcome="provider_timeout",
        error=message,
        usage=None,
        cost_nusd=None,
        first_ns=30_001 * MS,
        ended_ns=30_001 * MS,
        **changes,
    )


def refused(n: int = 9, **changes: Any) -> Record:
    """A body that never made sense: no ask, no attempt."""
    message = "The body is not a JSON object: truncated."
    return changed(
        chat(n),
        body=whole(b'{"model": "gpt-5-mini", "messa'),
        model="",
        route="",
        cache="bypass",
        attempts=[],
        status=400,
        reply_body=whole(dumps({"error": {"message": message, "code": "bad_json"}})),
        outcome="bad_json",
        error=message,
        usage=None,
        cost_nusd=None,
        identified_ns=0,
        planned_ns=0,
        first_ns=90_000,
        ended_ns=95_000,
        **changes,
    )


def cut(n: int = 10, **changes: Any) -> Record:
    """A stream whose provider went away in the middle: delivered text, no finish reason."""
    good = chat_stream(n, pieces=("The", " answer", " is"))
    attempt = good.attempts[0]
    events = attempt.body.data.split(b"\n\n")[:4]
    attempt.body = chunked([event + b"\n\n" for event in events])
    attempt.finish_reason = None
    attempt.usage = Usage(input_tokens=21, output_tokens=3, estimated=True)
    attempt.outcome = "truncated"
    told = b'data: {"error":{"message":"The stream of openai ended early.","code":"truncated"}}\n\n'
    return changed(
        good,
        reply_body=[(len(attempt.body.data), len(attempt.body.data), told)],
        outcome="truncated",
        error="The stream of openai ended early.",
        usage=attempt.usage,
        **changes,
    )


def cancelled(n: int = 11, **changes: Any) -> Record:
    """The caller left while the answer streamed."""
    record = cut(n)
    record.attempts[0].outcome = "cancelled"
    return changed(record, reply_body=[], outcome="cancelled", error="", **changes)


def every_kind() -> list[Record]:
    """One of each, numbered from 1."""
    return [
        chat(1), chat_stream(2), messages(3), messages_stream(4), converted(5), cache_hit(6),
        failover(7), unreachable(8), refused(9), cut(10), cancelled(11),
    ]  # fmt: skip


class Calendar(RealWorld):
    """The real world, with clocks that stand where a test puts them."""

    def __init__(self, wall_ns: int = NOON_NS) -> None:
        super().__init__()
        self.at_ns = wall_ns
        self.now_ns = lambda: self.at_ns
        self.wall_ns = lambda: self.at_ns

    def pass_days(self, days: float) -> None:
        self.at_ns += int(days * 86400e9)
