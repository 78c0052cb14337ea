"""An Anthropic answer, whole or streamed, as the OpenAI Chat Completions answer it amounts to.

| Anthropic                              | becomes                                             |
|----------------------------------------|-----------------------------------------------------|
| text blocks                            | `content`, joined: they are pieces of one text      |
| tool_use blocks                        | `tool_calls`, the input's JSON as it was spelled    |
| thinking blocks                        | `reasoning_content`, as DeepSeek and most servers   |
| redacted thinking, signatures, citations, server tools' blocks | nothing: no place for them  |
| `stop_details.explanation` of a refusal| `refusal`                                           |

`reasoning_content` is no field of OpenAI's, but a model may think for minutes before its
first word, and a caller (and every clock between) should see that it lives. Where it comes
back in a later request it is left out again, because Anthropic wants its signature with it.

The identifier and the model name are the provider's. The time of creation is ours, handed in:
Anthropic sends none.

A stream keeps these promises: every chunk has the members that OpenAI's schema requires, with
`finish_reason` null until the end; a tool call's arguments are one JSON object however few
fragments came (Anthropic streams a call without arguments as one empty fragment, and `""` is
no JSON: agentgateway#3002, BerriAI/litellm#5063); the finish chunk leaves when Anthropic's
stop reason arrives, `[DONE]` only when the message is over and had one.
"""

import msgspec

from forebay.dialects import decoding, usage
from forebay.dialects.decoding import Json, encode
from forebay.dialects.translation import Finding
from forebay.errors import Failure
from forebay.exchange import Ask
from forebay.schema import messages
from forebay.wire import sse

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    # The provider's own loop was cut short; the caller may ask again to have it go on, which
    # is what OpenAI's callers do after `length`.
    "pause_turn": "length",
}
"""A word that is not here becomes `stop`: the schema has no other for an unknown end, and
the provider's own is in `Finding.finish_reason`."""

SERVICE_TIERS = {"standard": "default", "priority": "priority"}
"""Others are left out; OpenAI's schema knows no batch tier."""

_decode_answer = msgspec.json.Decoder(messages.Answer).decode
_decode_event = msgspec.json.Decoder(messages.Event).decode


def whole(body: bytes, created_s: int, answer_id: str) -> tuple[bytes, Finding]:
    """A complete Anthropic message as a chat completion. Sync, ~8 µs for 2 KB.

    `answer_id` stands in where the provider sent no id. Raises Failure(bad_answer) on what is
    no message, on an error in a message's place, and on a message without a stop reason.
    """
    answer = decoding.answer(_decode_answer, body, "answer")
    if answer.content is None or answer.error is not None:
        said = answer.error.message if answer.error else ""
        raise Failure("bad_answer", f"The provider answered with an error: {said or 'no content'}")
    if answer.stop_reason is None:
        raise Failure("bad_answer", "The provider's answer has no stop_reason: it was cut off.")
    text: list[str] = []
    thinking: list[str] = []
    calls: list[Json] = []
    for block in answer.content:
        if block.type == "text":
            text.append(block.text)
        elif block.type == "thinking":
            thinking.append(block.thinking)
        elif block.type == "tool_use":
            call_id = block.id or f"{answer_id}_{len(calls)}"
            calls.append(_call(call_id, block.name, _input(block)))
    message: Json = {
        "role": "assistant",
        "content": "".join(text) if text else None,
        "refusal": answer.stop_details.explanation if answer.stop_details else None,
    }
    if calls:
        message["tool_calls"] = calls
    if reasoning := "".join(thinking):
        message["reasoning_content"] = reasoning
    found = usage.usage_from_messages(answer.usage)
    completion: Json = {
        **_head(answer, created_s, answer_id, "chat.completion"),
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": FINISH_REASONS.get(answer.stop_reason, "stop"),
            }
        ],
    }
    if found is not None:
        completion["usage"] = usage.as_chat(found)
    arguments = (call["function"]["arguments"] for call in calls)
    return encode(completion), Finding(
        usage=found,
        finish_reason=answer.stop_reason,
        model=answer.model or None,
        progress=sum(map(len, (*text, *thinking, *arguments))),
    )


class _Call(msgspec.Struct):
    """A tool call on its way: where it stands among the calls, and what it began with."""

    index: int
    input: str
    streamed: bool = False


class Stream:
    """The events of one Anthropic message as chat chunks; an `Events` of conversion.py.

    ~4 µs an event, cutting included.
    """

    def __init__(self, ask: Ask, created_s: int, answer_id: str) -> None:
        self.finding = Finding()
        self._include_usage = ask.include_usage
        self._created_s = created_s
        self._answer_id = answer_id
        self._before = b""  # a chunk up to its delta; empty until message_start
        self._bare = b""  # a chunk up to its choices
        self._counts: Json = {}
        self._calls: dict[int, _Call] = {}  # by the index of the content block

    def event(self, event: sse.Event) -> bytes:
        if event.data is None or event.data == b"[DONE]":
            return b""  # a comment; a terminator that some imitations add
        now = decoding.answer(_decode_event, event.data, "event")
        if now.type == "error":
            error = now.error or messages.Error()
            self.finding.error = f"{error.type}: {error.message}"
            return b""
        if now.type == "ping":
            return b""
        if now.type == "message_start":
            return self._start(now)
        if not self._before:
            raise Failure("bad_answer", f"The provider's stream began with {now.type!r}.")
        if now.type == "message_stop":
            return self._stop()
        if now.type == "message_delta":
            return self._message_delta(now)
        if self.finding.finish_reason is not None:
            return b""  # content after the end
        if now.type == "content_block_start":
            return self._block_start(now)
        if now.type == "content_block_delta":
            return self._block_delta(now)
        if now.type == "content_block_stop":
            return self._block_stop(now)
        return b""  # an event type that is newer than we are

    def end(self) -> bytes:
        return self._stop() if self.finding.finish_reason is not None else b""

    def _start(self, now: messages.Event) -> bytes:
        if now.message is None or self._before:
            raise Failure("bad_answer", "The provider's message_start is empty or came twice.")
        self.finding.model = now.message.model or None
        self._count(now.message.usage)
        head = _head(now.message, self._created_s, self._answer_id, "chat.completion.chunk")
        self._bare = encode(head)[:-1]
        self._before = self._bare + b',"choices":[{"index":0,"delta":'
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def _block_start(self, now: messages.Event) -> bytes:
        block = now.content_block
        if block is None:
            raise Failure("bad_answer", "The provider's content_block_start holds no block.")
        if block.type == "tool_use":
            call = self._calls[now.index] = _Call(len(self._calls), _input(block))
            call_id = block.id or f"{self._answer_id}_{call.index}"
            return self._tool({"index": call.index, **_call(call_id, block.name, "")})
        if block.type == "text" and block.text:
            return self._said({"content": block.text}, len(block.text))
        if block.type == "thinking" and block.thinking:
            return self._said({"reasoning_content": block.thinking}, len(block.thinking))
        return b""

    def _block_delta(self, now: messages.Event) -> bytes:
        delta = now.delta or messages.Delta()
        if delta.type == "text_delta" and delta.text:
            return self._said({"content": delta.text}, len(delta.text))
        if delta.type == "thinking_delta" and delta.thinking:
            return self._said({"reasoning_content": delta.thinking}, len(delta.thinking))
        # Server tools stream their input so too; only the caller's own tools are registered.
        if delta.type == "input_json_delta" and delta.partial_json:
            call = self._calls.get(now.index)
            if call is not None:
                call.streamed = True
                return self._arguments(call, delta.partial_json)
        return b""

    def _block_stop(self, now: messages.Event) -> bytes:
        call = self._calls.get(now.index)
        if call is None or call.streamed:
            return b""
        call.streamed = True
        return self._arguments(call, call.input)

    def _message_delta(self, now: messages.Event) -> bytes:
        self._count(now.usage)
        delta = now.delta or messages.Delta()
        if delta.stop_reason is None or self.finding.finish_reason is not None:
            return b""
        self.finding.finish_reason = delta.stop_reason
        out = b""
        if delta.stop_details is not None and delta.stop_details.explanation:
            out = self._chunk({"refusal": delta.stop_details.explanation})
        return out + self._chunk({}, FINISH_REASONS.get(delta.stop_reason, "stop"))

    def _stop(self) -> bytes:
        self.finding.closed = True
        if self.finding.finish_reason is None:
            return b""
        out = b"data: [DONE]\n\n"
        found = self.finding.usage
        if self._include_usage and found is not None:
            spelled = encode(usage.as_chat(found))
            out = b"data: " + self._bare + b',"choices":[],"usage":' + spelled + b"}\n\n" + out
        return out

    def _count(self, report: msgspec.Raw) -> None:
        self._counts = usage.newer(self._counts, report)
        self.finding.usage = usage.usage_from_messages(self._counts)

    def _arguments(self, call: _Call, fragment: str) -> bytes:
        self.finding.progress += len(fragment)
        return self._tool({"index": call.index, "function": {"arguments": fragment}})

    def _tool(self, call: Json) -> bytes:
        return self._chunk({"tool_calls": [call]})

    def _said(self, delta: Json, length: int) -> bytes:
        self.finding.progress += length
        return self._chunk(delta)

    def _chunk(self, delta: Json, finish_reason: str | None = None) -> bytes:
        # OpenAI sends `usage: null` in every chunk but the last where usage was asked for.
        tail = b'}],"usage":null}\n\n' if self._include_usage else b"}]}\n\n"
        finish = b"null" if finish_reason is None else encode(finish_reason)
        middle = b',"logprobs":null,"finish_reason":'
        return b"data: " + self._before + encode(delta) + middle + finish + tail


def _head(answer: messages.Answer, created_s: int, answer_id: str, kind: str) -> Json:
    head: Json = {
        "id": answer.id or answer_id,
        "object": kind,
        "created": created_s,
        "model": answer.model,
    }
    counts = decoding.object_of(bytes(answer.usage)) or {}
    tier = decoding.value(bytes(counts.get("service_tier", b"")))
    if isinstance(tier, str) and tier in SERVICE_TIERS:
        head["service_tier"] = SERVICE_TIERS[tier]
    return head


def _input(block: messages.AnsweredBlock) -> str:
    if not block.name:
        raise Failure("bad_answer", "The provider's answer calls a tool without naming it.")
    spelled = decoding.text(block.input)
    if not spelled.startswith("{"):
        raise Failure("bad_answer", f"The provider's input for {block.name!r} is no JSON object.")
    return spelled


def _call(call_id: str, name: str, arguments: str) -> Json:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}
