"""Anthropic's Messages API: `/v1/messages`, `/v1/messages/count_tokens`, `/v1/models`.

A stream is: `message_start` (with the input's usage), `content_block_start`, `ping`, deltas,
`content_block_stop`, `message_delta` (stop reason and the output's usage), `message_stop`.
Errors are `{"type": "error", "error": {"type", "message"}, "request_id"}`.

Where `tool_choice` is `any` or `tool`, the answer is one `tool_use` block.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from forebay.schema.usage import Usage
from forebay.testbed.twins.form import Birth, Form, json_encode, text_in_json
from forebay.testbed.twins.openai_chat import MEDIA
from forebay.testbed.twins.question import Answer, Headers, Question, Refused, Tool
from forebay.testbed.twins.text import count, marked

_ERRORS = {
    "bad_request": "invalid_request_error",
    "context_too_long": "invalid_request_error",
    "content_policy": "invalid_request_error",
    "bad_key": "authentication_error",
    "not_allowed": "permission_error",
    "unknown_model": "not_found_error",
    "unknown_path": "not_found_error",
    "bad_method": "invalid_request_error",
    "too_large": "request_too_large",
    "rate_limited": "rate_limit_error",
    "quota": "billing_error",
    "server_error": "api_error",
    "unavailable": "api_error",
    "overloaded": "overloaded_error",
}
_CREATED = "2026-01-01T00:00:00Z"


class Block(msgspec.Struct):
    type: str
    text: str = ""
    thinking: str = ""
    input: Any = None
    content: Any = None
    cache_control: Any = None


class Turn(msgspec.Struct):
    role: str
    content: str | list[Block]


class CountRequest(msgspec.Struct):
    model: str
    messages: list[Turn]
    system: str | list[Block] | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: Any = None


class MessagesRequest(CountRequest, kw_only=True):
    max_tokens: int
    stream: bool | None = None


_decode = msgspec.json.Decoder(MessagesRequest).decode
_decode_count = msgspec.json.Decoder(CountRequest).decode


class AnthropicDialect:
    def key(self, header: Callable[[str], str | None], azure: bool) -> str | None:
        scheme, _, token = (header("authorization") or "").partition(" ")
        return header("x-api-key") or (token.strip() if scheme.lower() == "bearer" else None)

    def refusal(self, refused: Refused, azure: bool) -> bytes:
        return json_encode(_error(refused.kind, refused.message))

    def headers(self, request_id: str, elapsed_ms: int) -> Headers:
        return [("request-id", request_id), ("anthropic-organization-id", "twin")]

    def question(self, endpoint: str, body: bytes) -> Question:
        """Read a request to "messages" or "count_tokens"."""
        counting = endpoint == "count_tokens"
        try:
            request = (_decode_count if counting else _decode)(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused("bad_request", f"invalid request body: {error}") from None
        if not request.messages:
            raise Refused("bad_request", "messages: at least one message is required")
        bound = request.max_tokens if isinstance(request, MessagesRequest) else None
        if bound is not None and bound < 1:
            raise Refused("bad_request", f"max_tokens: {bound} is below 1")
        parts, marks = _parts(request)
        prompt = b"".join(parts)
        ends = _ends(parts)
        return Question(
            model=request.model,
            prompt=prompt,
            tokens=count(prompt),
            stream=isinstance(request, MessagesRequest) and bool(request.stream),
            max_tokens=bound,
            wanted_tokens=marked(prompt),
            tool=_forced(request),
            blocks=ends,
            cache_marks=[ends[at] for at in marks],
        )

    def form(self, endpoint: str, question: Question, answer: Answer, birth: Birth) -> Form:
        return MessageForm(question, answer, birth)

    def models(self, names: list[str]) -> bytes:
        listed = list(map(_model, names))
        return json_encode(
            {
                "data": listed,
                "has_more": False,
                "first_id": names[0] if names else None,
                "last_id": names[-1] if names else None,
            }
        )

    def model(self, name: str) -> bytes:
        return json_encode(_model(name))

    def count(self, question: Question) -> bytes:
        return json_encode({"input_tokens": question.tokens})


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "type": "model", "display_name": name, "created_at": _CREATED}


def _error(kind: str, message: str) -> dict[str, Any]:
    return {
        "type": "error",
        "error": {"type": _ERRORS[kind], "message": message},
        "request_id": None,
    }


def _parts(request: CountRequest) -> tuple[list[bytes], list[int]]:
    """The prompt in content blocks, and which of them have a cache mark."""
    parts: list[bytes] = []
    marks: list[int] = []
    for tool in request.tools or ():
        parts.append(bytes(tool))
        described = msgspec.json.decode(tool)
        if isinstance(described, dict) and described.get("cache_control"):
            marks.append(len(parts) - 1)
    for content in (request.system or "", *(turn.content for turn in request.messages)):
        if isinstance(content, str):
            parts.append(content.encode())
            continue
        for block in content:
            parts.append(_text(block))
            if block.cache_control:
                marks.append(len(parts) - 1)
    return parts, marks


def _text(block: Block) -> bytes:
    if block.type == "text":
        return block.text.encode()
    if block.type == "thinking":
        return block.thinking.encode()
    if block.type == "tool_use":
        return json_encode(block.input)
    if block.type == "tool_result":
        content = block.content
        return content.encode() if isinstance(content, str) else json_encode(content)
    return MEDIA


def _ends(parts: list[bytes]) -> list[int]:
    ends = []
    at = 0
    for part in parts:
        at += len(part)
        ends.append(at)
    return ends


def _forced(request: CountRequest) -> Tool | None:
    choice = request.tool_choice
    if not isinstance(choice, dict) or choice.get("type") not in ("any", "tool"):
        return None
    name = choice.get("name") if choice["type"] == "tool" else None
    for raw in request.tools or ():
        tool = msgspec.json.decode(raw)
        if isinstance(tool, dict) and name in (None, tool.get("name")):
            return Tool(str(tool.get("name")), tool.get("input_schema"))
    raise Refused("bad_request", f"tool_choice: {name!r} is none of the tools")


class MessageForm:
    """One message."""

    def __init__(self, question: Question, answer: Answer, birth: Birth) -> None:
        self._question = question
        self._answer = answer
        self._birth = birth
        opened = Usage(
            input_tokens=answer.split.fresh,
            cache_read_tokens=answer.split.read,
            cache_write_tokens=answer.split.written,
            output_tokens=1,
        )
        block: dict[str, Any] = {"type": "text", "text": ""}
        delta = b'{"type":"text_delta","text":"\0"}'
        if question.tool is not None:
            block = self._tool_use({})
            delta = b'{"type":"input_json_delta","partial_json":"\0"}'
        self.head = (
            _event("message_start", message=self._message([], None, opened))
            + _event("content_block_start", index=0, content_block=block)
            + _event("ping")
        )
        self._before, self._after = (
            b"event: content_block_delta\n"
            b'data: {"type":"content_block_delta","index":0,"delta":' + delta + b"}\n\n"
        ).split(b"\0")
        self._plain = answer.plain

    def delta(self, part: bytes) -> bytes:
        if not self._plain:
            part = text_in_json(part)
        return self._before + part + self._after

    def tail(self, usage: Usage) -> bytes:
        return (
            _event("content_block_stop", index=0)
            + _event(
                "message_delta",
                delta={"stop_reason": self._stop(), "stop_sequence": None},
                usage=_usage(usage),
            )
            + _event("message_stop")
        )

    def whole(self, usage: Usage) -> bytes:
        text = self._answer.payload.decode()
        if self._question.tool is not None:
            content = [self._tool_use(_tolerant(text))]
        else:
            content = [{"type": "text", "text": text}]
        return json_encode(self._message(content, self._stop(), usage))

    def error(self, kind: str, message: str) -> bytes:
        return b"event: error\ndata: %b\n\n" % self.error_body(kind, message)

    def error_body(self, kind: str, message: str) -> bytes:
        return json_encode(_error(kind, message))

    def _stop(self) -> str:
        if self._answer.cut_by_length:
            return "max_tokens"
        return "tool_use" if self._question.tool is not None else "end_turn"

    def _tool_use(self, given: Any) -> dict[str, Any]:
        tool = self._question.tool
        assert tool is not None
        return {
            "type": "tool_use",
            "id": f"toolu_{self._birth.answer_id}",
            "name": tool.name,
            "input": given,
        }

    def _message(
        self, content: list[dict[str, Any]], stop: str | None, usage: Usage
    ) -> dict[str, Any]:
        return {
            "id": f"msg_{self._birth.answer_id}",
            "type": "message",
            "role": "assistant",
            "model": self._question.model,
            "content": content,
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": _usage(usage),
        }


def _tolerant(text: str) -> Any:
    """Tool input that the length bound may have cut: then what a provider gives, nothing."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}


def _event(kind: str, **members: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json_encode({"type": kind} | members))


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
        "service_tier": "standard",
    }
