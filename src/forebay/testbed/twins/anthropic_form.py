"""A message as Anthropic answers it, streamed and whole, and its errors.

A stream is: `message_start` (with the input's usage), `content_block_start`, `ping`, deltas,
`content_block_stop`, `message_delta` (stop reason and the output's usage), `message_stop`.
Errors are `{"type": "error", "error": {"type", "message"}, "request_id"}`.

Where `tool_choice` is `any` or `tool`, the answer is one `tool_use` block.
"""

from typing import Any

import msgspec

from forebay.schema.usage import Usage
from forebay.testbed.twins.form import Birth, json_encode, text_in_json
from forebay.testbed.twins.question import Answer, Question

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


def error_body(kind: str, message: str) -> bytes:
    error = {
        "type": "error",
        "error": {"type": _ERRORS[kind], "message": message},
        "request_id": None,
    }
    return json_encode(error)


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
        return error_body(kind, message)

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
