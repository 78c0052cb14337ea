"""Anthropic's API around the answers: `/v1/messages`, `/v1/messages/count_tokens`,
`/v1/models`; keys in `x-api-key`, a version in each request, prompt caching by marks."""

from collections.abc import Callable
from typing import Any

import msgspec

from forebay.testbed.twins.anthropic_form import MessageForm, error_body
from forebay.testbed.twins.form import Birth, Form, json_encode
from forebay.testbed.twins.openai_chat import MEDIA
from forebay.testbed.twins.question import Answer, Headers, Question, Refused, Tool
from forebay.testbed.twins.text import count, marked

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
        return error_body(refused.kind, refused.message)

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
