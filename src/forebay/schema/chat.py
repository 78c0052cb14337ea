"""The OpenAI Chat Completions dialect, as far as a conversion reads it.

Shapes for decoding only, and only of members that mean something to the other dialect: what
is not named here is skipped by the decoder, so a new field of OpenAI's never breaks a
request. What a conversion *writes* it writes as plain objects beside the code that decides
it. `Raw` members are JSON that travels unread (schemas, tool inputs, usage).

One flat shape stands for all kinds of a part, message or delta: `type` and `role` are open
strings here and matched in the conversion, which can then name the unknown one and where it
stands. Servers that imitate the dialect leave out ids, types and indexes, hence the defaults
in the answers' half.

Source: OpenAI's API description 2.3.0 of August 2026; reasoning fields as DeepSeek
(`reasoning_content`) and vLLM and OpenRouter (`reasoning`) send them.
"""

import msgspec

ABSENT = msgspec.Raw(b"")
"""A `Raw` member that was not sent; `null` that was sent is the bytes `null`."""

# -- what a caller sends


class ImageUrl(msgspec.Struct):
    url: str


class File(msgspec.Struct):
    file_data: str | None = None  # a data: URL
    file_id: str | None = None
    filename: str | None = None


class Part(msgspec.Struct):
    """One part of a message's content."""

    type: str
    text: str | None = None
    image_url: ImageUrl | str | None = None  # a bare string is out of the dialect, but sent
    file: File | None = None
    refusal: str | None = None


class CalledFunction(msgspec.Struct):
    name: str
    arguments: str = ""


class ToolCall(msgspec.Struct):
    id: str
    type: str = "function"
    function: CalledFunction | None = None


class Message(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: msgspec.Raw = ABSENT


class Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = ABSENT
    strict: bool | None = None


class Tool(msgspec.Struct):
    type: str = "function"
    function: Function | None = None


class NamedFunction(msgspec.Struct):
    name: str


class ToolReference(msgspec.Struct):
    type: str = "function"
    function: NamedFunction | None = None


class AllowedTools(msgspec.Struct):
    mode: str
    tools: list[ToolReference]


class ToolChoice(msgspec.Struct):
    type: str
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


class JsonSchema(msgspec.Struct):
    schema: msgspec.Raw = ABSENT


class ResponseFormat(msgspec.Struct):
    type: str
    json_schema: JsonSchema | None = None


class Request(msgspec.Struct):
    messages: list[Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    # Not of the dialect, but what callers who know their model is Claude put in by hand.
    thinking: msgspec.Raw = ABSENT
    top_k: int | None = None


# -- what a provider answers


class AnsweredFunction(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class AnsweredCall(msgspec.Struct):
    """A tool call of an answer, or a fragment of one: every member may be missing."""

    index: int | None = None
    id: str | None = None
    function: AnsweredFunction | None = None


class Delta(msgspec.Struct):
    """What an answer adds: a whole message, or one streamed piece of it."""

    content: str | list[Part] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[AnsweredCall] | None = None


class Choice(msgspec.Struct):
    index: int = 0
    message: Delta | None = None  # of a whole answer
    delta: Delta | None = None  # of a chunk
    finish_reason: str | None = None


class Answer(msgspec.Struct):
    """A whole answer (`chat.completion`) or a chunk of one (`chat.completion.chunk`)."""

    id: str | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    service_tier: str | None = None
    usage: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT
