"""The Anthropic Messages dialect, as far as a conversion reads it.

Shapes for decoding only; members that mean nothing to the other dialect are skipped, see
schema/chat.py for why everything is flat. Names and nullability follow the types of the
official Python SDK 2.13 (API version 2026-10-21) and Anthropic's API description of
August 2026.
"""

import msgspec

ABSENT = msgspec.Raw(b"")
"""A `Raw` member that was not sent; `null` that was sent is the bytes `null`."""

# -- what a caller sends


class Source(msgspec.Struct):
    """Where an image or a document is: `base64`, `url`, `text`, `content`, `file`."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class Block(msgspec.Struct):
    """One content block of a request, of any type."""

    type: str
    text: str = ""
    source: Source | None = None
    title: str | None = None
    # tool_use
    id: str = ""
    name: str = ""
    input: msgspec.Raw = ABSENT
    # tool_result
    tool_use_id: str = ""
    content: "str | list[Block] | None" = None
    is_error: bool | None = None


class Message(msgspec.Struct):
    role: str
    content: str | list[Block]


class Tool(msgspec.Struct):
    name: str
    type: str | None = None  # None and "custom": a function of the caller's
    description: str | None = None
    input_schema: msgspec.Raw = ABSENT
    strict: bool | None = None


class ToolChoice(msgspec.Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(msgspec.Struct):
    type: str
    budget_tokens: int | None = None


class OutputFormat(msgspec.Struct):
    type: str
    schema: msgspec.Raw = ABSENT


class OutputConfig(msgspec.Struct):
    effort: str | None = None
    format: OutputFormat | None = None


class Metadata(msgspec.Struct):
    user_id: str | None = None


class Request(msgspec.Struct):
    messages: list[Message]
    max_tokens: int
    system: str | list[Block] | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    metadata: Metadata | None = None
    service_tier: str | None = None


# -- what a provider answers


class AnsweredBlock(msgspec.Struct):
    type: str
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")


class StopDetails(msgspec.Struct):
    explanation: str | None = None


class Error(msgspec.Struct):
    type: str = "api_error"
    message: str = ""


class Answer(msgspec.Struct):
    """A whole answer, or the `message` of a message_start event."""

    type: str = ""
    id: str = ""
    model: str = ""
    content: list[AnsweredBlock] | None = None  # None: not an answer
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    usage: msgspec.Raw = ABSENT
    error: Error | None = None


class Delta(msgspec.Struct):
    """The `delta` of a content_block_delta or a message_delta event."""

    type: str = ""
    text: str = ""
    thinking: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_details: StopDetails | None = None


class Event(msgspec.Struct):
    """One event of a streamed answer, of any type."""

    type: str
    index: int = 0
    message: Answer | None = None
    content_block: AnsweredBlock | None = None
    delta: Delta | None = None
    usage: msgspec.Raw = ABSENT
    error: Error | None = None
