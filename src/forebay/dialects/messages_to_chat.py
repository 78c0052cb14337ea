"""The caller speaks Anthropic's Messages, the provider OpenAI's Chat Completions.

The mirror of chat_to_messages.py: parameters here, messages in turns_from_messages.py, the
answer in answers_as_messages.py, and the same three places for every top-level member:
`schema.messages.Request`, `REFUSED`, `DROPPED`.

What the conversion decides:
- `max_tokens` keeps its meaning; its name is `limit_name`, because OpenAI's reasoning models
  refuse the old name and several servers know no other (a fact of the provider, handed in).
- A stream always asks for usage: Anthropic's last event carries it.
- Effort becomes `reasoning_effort`, from `output_config.effort` or else from an explicit
  thinking budget; adaptive thinking, which is the model's own choice, becomes nothing. OpenAI
  models without reasoning refuse the member, so for those it is left out.
- Only tools that the caller runs itself have a counterpart; Anthropic's server tools do not.
"""

import msgspec

from forebay.dialects import answers_as_messages, decoding
from forebay.dialects.conversion import Conversion
from forebay.dialects.decoding import Json
from forebay.dialects.translation import Finding
from forebay.dialects.turns_from_messages import conversation
from forebay.dialects.unsayable import Refused, refuse, unsayable, word
from forebay.errors import Failure
from forebay.exchange import Ask, Dialect
from forebay.schema import messages
from forebay.wire.members import Members

#: OpenAI takes no more (its API description 2.3.0).
MAX_STOPS = 4

DROPPED = {
    "cache_control": "Anthropic's cache; OpenAI's needs no marks",
    "context_management": "trims what Anthropic keeps between calls",
    "diagnostics": "about Anthropic's cache",
    "speed": "a hint",
    "stream": "decided by the ask",
    "top_k": "OpenAI has none; top_p and temperature carry over",
    "user_profile_id": "an account at Anthropic",
    "workspace_id": "an account at Anthropic",
}

REFUSED: Refused = {
    "container": ((None,), "Ask a Claude model for its containers."),
    "mcp_servers": ((None, []), "Call the servers yourself and pass their tools."),
    # Where data may be processed is a promise; it must not be lost on the way.
    "inference_geo": ((None,), "Ask a provider in that region."),
}
"""Name: the values that ask for nothing, and what to do instead."""

EFFORTS = {word: word for word in ("low", "medium", "high", "xhigh", "max")}

BUDGETS = ((4_096, "low"), (16_384, "medium"))
"""Thinking budgets, in tokens, up to which an effort is meant; above is `high`. The bounds are
those of most gateways' tables the other way round."""

SERVICE_TIERS = {"auto": "auto", "standard_only": "default"}

TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}

# The list is closed: OpenAI's later models all reason. What is not OpenAI's is asked.
_WITHOUT_EFFORT = ("gpt-3.5", "gpt-4", "chatgpt-4", "gpt-35")

_decode = msgspec.json.Decoder(messages.Request).decode


class MessagesToChat:
    """The `Translation` of one exchange; holds nothing else, so it costs nothing to make.

    `answer_id` stands in where a provider sends no id. `limit_name` is the provider's name
    for the limit of output tokens.
    """

    endpoint = "chat"
    dialect: Dialect = "openai"

    def __init__(self, answer_id: str = "", limit_name: str = "max_completion_tokens") -> None:
        self.answer_id = answer_id
        self.limit_name = limit_name

    def request(self, members: Members, ask: Ask, model: str) -> bytes:
        """Raises Failure: bad_request with the path, unsupported with a way out.

        Sync, ~11 µs for 5 KB.
        """
        refuse(members, REFUSED, "openai")
        request = decoding.request(_decode, members.body)
        return decoding.encode(_converted(request, ask, model, self.limit_name))

    def whole(self, body: bytes, ask: Ask) -> tuple[bytes, Finding]:
        return answers_as_messages.whole(body, self.answer_id)

    def stream(self, ask: Ask) -> Conversion:
        return Conversion(answers_as_messages.Stream(self.answer_id))


def _converted(request: messages.Request, ask: Ask, model: str, limit_name: str) -> Json:
    if request.max_tokens < 1:
        raise Failure(
            "unsupported",
            f"max_tokens is {request.max_tokens}; OpenAI cannot read a prompt and say nothing.",
            hint="Ask for at least 1.",
            param="max_tokens",
        )
    body: Json = {
        "model": model,
        "messages": conversation(request.system, request.messages),
        limit_name: request.max_tokens,
    }
    for name in ("temperature", "top_p"):
        if (value := getattr(request, name)) is not None:
            body[name] = value
    if request.stop_sequences:
        body["stop"] = _stop(request.stop_sequences)
    if request.tools:
        _tools(request, body)
    _output(request, body, model)
    if request.metadata is not None and request.metadata.user_id:
        body["user"] = request.metadata.user_id
    if request.service_tier is not None:
        body["service_tier"] = word(SERVICE_TIERS, request.service_tier, "service_tier")
    if ask.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


def _stop(sequences: list[str]) -> list[str]:
    if len(sequences) > MAX_STOPS:
        raise Failure(
            "unsupported",
            f"stop_sequences has {len(sequences)} entries; OpenAI takes at most {MAX_STOPS}.",
            hint="Send fewer, or ask a Claude model.",
            param="stop_sequences",
        )
    return sequences


def _tools(request: messages.Request, body: Json) -> None:
    body["tools"] = [_tool(tool, f"tools[{at}]") for at, tool in enumerate(request.tools or ())]
    choice = request.tool_choice
    if choice is None:
        return
    if choice.type == "tool":
        if not choice.name:
            raise Failure(
                "bad_request", "tool_choice.name is missing: which tool?", param="tool_choice.name"
            )
        body["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    else:
        body["tool_choice"] = word(TOOL_CHOICES, choice.type, "tool_choice.type")
    if choice.disable_parallel_tool_use:
        body["parallel_tool_calls"] = False


def _tool(tool: messages.Tool, place: str) -> Json:
    if tool.type not in (None, "custom"):
        raise unsayable(
            "openai",
            f"{place}.type",
            f"Anthropic's own tool {tool.type!r}",
            "Pass a tool of your own with an input_schema.",
        )
    if decoding.object_of(bytes(tool.input_schema)) is None:
        raise Failure(
            "bad_request",
            f"{place}.input_schema is no object; it is a JSON Schema.",
            param=f"{place}.input_schema",
        )
    function: Json = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.input_schema
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _output(request: messages.Request, body: Json, model: str) -> None:
    config = request.output_config or messages.OutputConfig()
    effort = None
    if config.effort is not None:
        effort = word(EFFORTS, config.effort, "output_config.effort")
    elif request.thinking is not None and request.thinking.type == "enabled":
        budget = request.thinking.budget_tokens or 0
        effort = next((name for bound, name in BUDGETS if budget <= bound), "high")
    if effort is not None and not model.startswith(_WITHOUT_EFFORT):
        body["reasoning_effort"] = effort
    if config.format is None:
        return
    if config.format.type != "json_schema":
        raise unsayable(
            "openai", "output_config.format.type", f"a format of type {config.format.type!r}"
        )
    if decoding.object_of(bytes(config.format.schema)) is None:
        path = "output_config.format.schema"
        raise Failure("bad_request", f"{path} is no object.", param=path)
    schema = {"name": "answer", "schema": config.format.schema, "strict": True}
    body["response_format"] = {"type": "json_schema", "json_schema": schema}
