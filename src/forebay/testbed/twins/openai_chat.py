"""`POST /v1/chat/completions` as OpenAI answers it, streamed and whole.

Bodies follow the published API description (OpenAPI 2.3.0); tests hold them against it. A
stream is: a chunk with the role, chunks with content, a chunk with the finish reason, the
usage chunk with no choices if it was asked for, `[DONE]`.

Where the request forces a tool, the answer is one call of it with arguments that its schema
accepts; where it asks for a JSON schema, the answer is an instance. `n` above 1 is refused.
"""

from typing import Any

import msgspec

from forebay.schema.usage import Usage
from forebay.testbed.twins.form import Birth, json_encode, text_in_json
from forebay.testbed.twins.openai_errors import error_body
from forebay.testbed.twins.question import Answer, Question, Refused, Tool
from forebay.testbed.twins.text import BYTES_PER_TOKEN, count, marked

#: What an image or a sound counts, in tokens: a low-detail image's price.
MEDIA_TOKENS = 85
MEDIA = b"\0" * (MEDIA_TOKENS * BYTES_PER_TOKEN)


class Part(msgspec.Struct):
    type: str
    text: str = ""
    refusal: str = ""


class FunctionCall(msgspec.Struct):
    name: str
    arguments: str


class ToolCall(msgspec.Struct):
    id: str
    function: FunctionCall | None = None


class Message(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatRequest(msgspec.Struct):
    messages: list[Message]
    model: str = ""  # Azure names it in the path
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    tool_choice: Any = None
    response_format: Any = None


_decode = msgspec.json.Decoder(ChatRequest).decode


def question(body: bytes) -> Question:
    """Read a request. Sync, ~10 µs for 5 KB. Raises Refused(bad_request)."""
    try:
        request = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("bad_request", f"Invalid request body: {error}") from None
    if not request.messages:
        raise Refused(
            "bad_request",
            "Invalid 'messages': empty array. Expected at least one.",
            param="messages",
        )
    if (request.n or 1) != 1:
        raise Refused("bad_request", "This model gives one choice: n must be 1.", param="n")
    bound, bound_name = request.max_completion_tokens, "max_completion_tokens"
    if bound is None:
        bound, bound_name = request.max_tokens, "max_tokens"
    if bound is not None and bound < 1:
        raise Refused(
            "bad_request", f"Invalid '{bound_name}': {bound} is below 1.", param=bound_name
        )
    prompt = bytes(request.tools) + b"".join(map(_text, request.messages))
    return Question(
        model=request.model,
        prompt=prompt,
        tokens=count(prompt),
        stream=bool(request.stream),
        max_tokens=bound,
        wanted_tokens=marked(prompt),
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
        tool=_forced(request),
        schema=_schema(request.response_format),
    )


def _text(message: Message) -> bytes:
    content = message.content
    if isinstance(content, str):
        text = content.encode()
    else:
        text = b"".join(
            (part.text or part.refusal).encode() if part.type in ("text", "refusal") else MEDIA
            for part in content or ()
        )
    for call in message.tool_calls or ():
        if call.function is not None:
            text += call.function.name.encode() + call.function.arguments.encode()
    return text


def _forced(request: ChatRequest) -> Tool | None:
    choice = request.tool_choice
    name = None
    if isinstance(choice, dict) and isinstance(function := choice.get("function"), dict):
        name = function.get("name")
    elif choice != "required":
        return None
    tools = msgspec.json.decode(request.tools) if request.tools else None
    for tool in tools if isinstance(tools, list) else ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and name in (None, function.get("name")):
            return Tool(str(function.get("name")), function.get("parameters"))
    raise Refused(
        "bad_request", f"Invalid 'tool_choice': {name!r} is none of the tools.", param="tool_choice"
    )


def _schema(response_format: Any) -> Any:
    if not isinstance(response_format, dict):
        return None
    if response_format.get("type") == "json_object":
        return {"type": "object"}
    described = response_format.get("json_schema")
    return described.get("schema") if isinstance(described, dict) else None


class ChatForm:
    """One chat completion."""

    def __init__(self, question: Question, answer: Answer, birth: Birth) -> None:
        self._question = question
        self._answer = answer
        self._birth = birth
        self._id = f"chatcmpl-{birth.answer_id}"
        self._call_id = f"call_{birth.answer_id}"
        self._chunk_head = (
            b'data: {"id":"%b","object":"chat.completion.chunk","created":%d,"model":%b,'
            b'"service_tier":"default","system_fingerprint":"fp_twin",'
            % (self._id.encode(), birth.created_s, json_encode(question.model))
        )
        # With include_usage every chunk has the member, null but in the last.
        self._usage_null = b',"usage":null' if question.include_usage else b""
        self.head = self._chunk(self._opening())
        if question.tool is not None:
            before, after = b'{"tool_calls":[{"index":0,"function":{"arguments":"', b'"}}]}'
        else:
            before, after = b'{"content":"', b'"}'
        self._before, self._after = self._chunk(before + b"\0" + after).split(b"\0")
        self._plain = answer.plain

    def delta(self, part: bytes) -> bytes:
        if not self._plain:
            part = text_in_json(part)
        return self._before + part + self._after

    def tail(self, usage: Usage) -> bytes:
        last = self._chunk(b"{}", f'"{self._finish()}"'.encode())
        if self._question.include_usage:
            last += self._chunk_head + b'"choices":[],"usage":%b}\n\n' % json_encode(
                usage_object(usage)
            )
        return last + b"data: [DONE]\n\n"

    def whole(self, usage: Usage) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        text = self._answer.payload.decode()
        if (tool := self._question.tool) is not None:
            function = {"name": tool.name, "arguments": text}
            message["tool_calls"] = [
                {"id": self._call_id, "type": "function", "function": function}
            ]
        else:
            message["content"] = text
        message["annotations"] = []
        return json_encode(
            {
                "id": self._id,
                "object": "chat.completion",
                "created": self._birth.created_s,
                "model": self._question.model,
                "choices": [
                    {
                        "index": 0,
                        "message": message,
                        "logprobs": None,
                        "finish_reason": self._finish(),
                    }
                ],
                "usage": usage_object(usage),
                "service_tier": "default",
                "system_fingerprint": "fp_twin",
            }
        )

    def error(self, kind: str, message: str) -> bytes:
        return b"data: " + self.error_body(kind, message) + b"\n\n"

    def error_body(self, kind: str, message: str) -> bytes:
        return error_body(Refused(kind, message))

    def _finish(self) -> str:
        if self._answer.cut_by_length:
            return "length"
        return "tool_calls" if self._question.tool is not None else "stop"

    def _opening(self) -> bytes:
        tool = self._question.tool
        if tool is None:
            return b'{"role":"assistant","content":"","refusal":null}'
        call = {
            "index": 0,
            "id": self._call_id,
            "type": "function",
            "function": {"name": tool.name, "arguments": ""},
        }
        return json_encode(
            {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}
        )

    def _chunk(self, delta: bytes, finish: bytes = b"null") -> bytes:
        return (
            self._chunk_head
            + b'"choices":[{"index":0,"delta":'
            + delta
            + b',"logprobs":null,"finish_reason":'
            + finish
            + b"}]"
            + self._usage_null
            + b"}\n\n"
        )


def usage_object(usage: Usage) -> dict[str, Any]:
    """Usage in OpenAI's words: cached tokens are part of the prompt's."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
