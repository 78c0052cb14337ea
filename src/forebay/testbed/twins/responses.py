"""`POST /v1/responses` as OpenAI answers it: a minimal valid answer of one text message.

Read: `model`, `input` (text or items), `instructions`, `stream`, `max_output_tokens`. Not
played: tools, reasoning, `background`, `store`, `previous_response_id` (all accepted and
left alone). Each event of a stream has a name, a type and a sequence number.
"""

from typing import Any

import msgspec

from forebay.schema.usage import Usage
from forebay.testbed.twins.form import Birth, json_encode, text_in_json
from forebay.testbed.twins.openai_chat import MEDIA
from forebay.testbed.twins.openai_errors import error_body
from forebay.testbed.twins.question import Answer, Question, Refused
from forebay.testbed.twins.text import count, marked


class InputPart(msgspec.Struct):
    type: str
    text: str = ""


class InputItem(msgspec.Struct):
    type: str = "message"
    content: str | list[InputPart] | None = None
    output: Any = None
    arguments: str = ""


class ResponsesRequest(msgspec.Struct):
    model: str = ""
    input: str | list[InputItem] = ""
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")


_decode = msgspec.json.Decoder(ResponsesRequest).decode


def question(body: bytes) -> Question:
    """Read a request. Raises Refused(bad_request)."""
    try:
        request = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("bad_request", f"Invalid request body: {error}") from None
    bound = request.max_output_tokens
    if bound is not None and bound < 1:
        raise Refused(
            "bad_request",
            f"Invalid 'max_output_tokens': {bound} is below 1.",
            param="max_output_tokens",
        )
    given = request.input
    items = [given.encode()] if isinstance(given, str) else list(map(_text, given))
    prompt = b"".join([bytes(request.tools), (request.instructions or "").encode(), *items])
    return Question(
        model=request.model,
        prompt=prompt,
        tokens=count(prompt),
        stream=bool(request.stream),
        max_tokens=bound,
        wanted_tokens=marked(prompt),
    )


def _text(item: InputItem) -> bytes:
    if item.output is not None:
        return item.output.encode() if isinstance(item.output, str) else json_encode(item.output)
    if item.arguments:
        return item.arguments.encode()
    if isinstance(item.content, str):
        return item.content.encode()
    return b"".join(
        part.text.encode() if part.type.endswith("text") else MEDIA for part in item.content or ()
    )


class ResponseForm:
    """One response."""

    def __init__(self, question: Question, answer: Answer, birth: Birth) -> None:
        self._question = question
        self._answer = answer
        self._birth = birth
        self._message_id = f"msg_{birth.answer_id}"
        self._number = 0
        self.head = (
            self._event("response.created", response=self._response("in_progress"))
            + self._event("response.in_progress", response=self._response("in_progress"))
            + self._event(
                "response.output_item.added",
                output_index=0,
                item=self._message("in_progress", None),
            )
            + self._event(
                "response.content_part.added",
                item_id=self._message_id,
                output_index=0,
                content_index=0,
                part=_part(""),
            )
        )
        self._before = (
            b"event: response.output_text.delta\n"
            b'data: {"type":"response.output_text.delta","item_id":"%b","output_index":0,'
            b'"content_index":0,"logprobs":[],"delta":"' % self._message_id.encode()
        )
        self._plain = answer.plain

    def delta(self, part: bytes) -> bytes:
        if not self._plain:
            part = text_in_json(part)
        number = self._number
        self._number = number + 1
        return b'%b%b","sequence_number":%d}\n\n' % (self._before, part, number)

    def tail(self, usage: Usage) -> bytes:
        text = self._answer.payload.decode()
        place = {"item_id": self._message_id, "output_index": 0, "content_index": 0}
        ending = self._response(self._status(), text, usage)
        return (
            self._event("response.output_text.done", **place, text=text, logprobs=[])
            + self._event("response.content_part.done", **place, part=_part(text))
            + self._event(
                "response.output_item.done",
                output_index=0,
                item=self._message(self._status(), text),
            )
            + self._event(f"response.{self._status()}", response=ending)
        )

    def whole(self, usage: Usage) -> bytes:
        return json_encode(self._response(self._status(), self._answer.payload.decode(), usage))

    def error(self, kind: str, message: str) -> bytes:
        return self._event("error", code="server_error", message=message, param=None)

    def error_body(self, kind: str, message: str) -> bytes:
        return error_body(Refused(kind, message))

    def _status(self) -> str:
        return "incomplete" if self._answer.cut_by_length else "completed"

    def _event(self, kind: str, **members: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._number} | members
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), json_encode(data))

    def _message(self, status: str, text: str | None) -> dict[str, Any]:
        return {
            "id": self._message_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [] if text is None else [_part(text)],
        }

    def _response(
        self, status: str, text: str | None = None, usage: Usage | None = None
    ) -> dict[str, Any]:
        over = usage is not None
        response: dict[str, Any] = {
            "id": f"resp_{self._birth.answer_id}",
            "object": "response",
            "created_at": self._birth.created_s,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"}
            if status == "incomplete"
            else None,
            "instructions": None,
            "max_output_tokens": self._question.max_tokens,
            "model": self._question.model,
            "output": [self._message(status, text)] if over else [],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "store": False,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "metadata": {},
        }
        if usage is not None:  # absent until the end: it may not be null
            response["usage"] = _usage(usage)
        return response


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
