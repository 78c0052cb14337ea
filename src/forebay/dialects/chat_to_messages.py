"""The caller speaks OpenAI's Chat Completions, the provider Anthropic's Messages.

The parameters of a request are converted here, its messages in turns_from_chat.py, the answer
in answers_as_chat.py. Every top-level member of a request is in exactly one of three places,
and a test holds OpenAI's description against them:

1. `schema.chat.Request`: it has a counterpart and is converted.
2. `REFUSED`: it has none, and leaving it out would change the answer: Failure(unsupported)
   unless its value asks for nothing.
3. `DROPPED`: it has none, and leaving it out changes no answer, or only a hint to it.

A member that none of them knows is left out, too: it is OpenAI's next idea or a server's own.

What the conversion decides:
- Sampling (`temperature`, `top_p`) goes to models that take it, temperature clamped from
  OpenAI's 0–2 to Anthropic's 0–1 as Anthropic's own compatibility layer did. Claude models
  after Opus 4.6 refuse any of it, so for those it is left out, not refused: temperature 0
  never made an answer certain, and half of all applications send it. Where both are given
  Claude gets the temperature alone; recent models refuse the pair.
- `reasoning_effort` becomes `output_config.effort`; thinking itself is left to the model.
- The request is of API version 2023-06-01 (`ANTHROPIC_VERSION`): later ones refuse sampling
  for every model, and nothing else here depends on it.
"""

from collections.abc import Iterable

import msgspec

from forebay.dialects import answers_as_chat, decoding
from forebay.dialects.conversion import Conversion
from forebay.dialects.decoding import Json
from forebay.dialects.translation import Finding
from forebay.dialects.turns_from_chat import conversation
from forebay.dialects.unsayable import Refused, refuse, unsayable, word
from forebay.errors import Failure
from forebay.exchange import Ask, Dialect
from forebay.schema import chat
from forebay.wire.members import Members

ANTHROPIC_VERSION = b"2023-06-01"

#: Anthropic demands a limit. Thinking counts into it, so an answer needs more room than
#: OpenAI's callers expect; every Claude model since 3.7 can write this much.
DEFAULT_MAX_TOKENS = 16_384

DROPPED = {
    "metadata": "labels for OpenAI's own dashboard",
    "moderation": "OpenAI's report on the answer, not the answer",
    "prediction": "speeds a known answer up",
    "prompt_cache_key": "OpenAI's cache",
    "prompt_cache_options": "OpenAI's cache",
    "prompt_cache_retention": "OpenAI's cache",
    "seed": "best effort at OpenAI, deprecated",
    "store": "keeps a copy at OpenAI",
    "stream": "decided by the ask",
    "stream_options": "usage is always reported; the ask says whether the caller sees it",
    "verbosity": "a hint",
}

REFUSED: Refused = {
    "n": ((None, 1), "Send the request n times."),
    "logprobs": ((None, False), "Claude reports no probabilities."),
    "top_logprobs": ((None, 0), "Claude reports no probabilities."),
    "logit_bias": ((None, {}), "Say in the prompt which words to use."),
    "frequency_penalty": ((None, 0), "Leave it out, or ask a model that penalises repetition."),
    "presence_penalty": ((None, 0), "Leave it out, or ask a model that penalises repetition."),
    "modalities": ((None, [], ["text"]), "Claude answers in text."),
    "audio": ((None,), "Claude answers in text."),
    "web_search_options": ((None,), "Ask Claude for its web search over /v1/messages."),
    "functions": ((None, []), "Use tools, which replaced functions."),
    "function_call": ((None,), "Use tool_choice, which replaced function_call."),
}
"""Name: the values that ask for nothing, and what to do instead."""

EFFORTS = {
    # Claude's least; whether it may be told not to think at all differs by model.
    "none": "low",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}

SERVICE_TIERS = {
    "auto": "auto",
    "default": "standard_only",
    "flex": "standard_only",
    "priority": "auto",
    "fast": "auto",
    "scale": "auto",
}

# The models of before Opus 4.7 take sampling, those of before Opus 4.5 no effort. Both lists
# are closed: newer models only follow the newer rule. Names may carry a prefix
# (`us.anthropic.`) and a date. What is not named Claude (other vendors offer this dialect
# too) takes both.
_WITHOUT_EFFORT = (
    "claude-2",
    "claude-instant",
    "claude-3",
    "claude-opus-4-0",
    "claude-opus-4-1",
    "claude-opus-4-2",  # claude-opus-4-20250514
    "claude-opus-4@",
    "claude-sonnet-4-0",
    "claude-sonnet-4-2",  # claude-sonnet-4-20250514
    "claude-sonnet-4-5",
    "claude-sonnet-4@",
    "claude-haiku-4-5",
)
_WITH_SAMPLING = (*_WITHOUT_EFFORT, "claude-opus-4-5", "claude-opus-4-6", "claude-sonnet-4-6")

_decode = msgspec.json.Decoder(chat.Request).decode


class ChatToMessages:
    """The `Translation` of one exchange; holds nothing else, so it costs nothing to make.

    `created_s` is the answer's time of creation (Unix, seconds; 0 is 1970), which Anthropic
    does not send; `answer_id` stands in where a provider sends no id.
    """

    endpoint = "messages"
    dialect: Dialect = "anthropic"

    def __init__(self, answer_id: str = "", created_s: int = 0) -> None:
        self.answer_id = answer_id
        self.created_s = created_s

    def request(self, members: Members, ask: Ask, model: str) -> bytes:
        """Raises Failure: bad_request with the path, unsupported with a way out.

        Sync, ~11 µs for 5 KB.
        """
        refuse(members, REFUSED, "anthropic")
        return decoding.encode(_converted(decoding.request(_decode, members.body), ask, model))

    def whole(self, body: bytes, ask: Ask) -> tuple[bytes, Finding]:
        return answers_as_chat.whole(body, self.created_s, self.answer_id)

    def stream(self, ask: Ask) -> Conversion:
        return Conversion(answers_as_chat.Stream(ask, self.created_s, self.answer_id))


def _converted(request: chat.Request, ask: Ask, model: str) -> Json:
    system, turns = conversation(request.messages)
    if not turns:
        raise Failure(
            "unsupported",
            "messages holds instructions only; Anthropic answers a user's message.",
            hint="Send what is to be answered as a message of role user.",
            param="messages",
        )
    body: Json = {
        "model": model,
        "max_tokens": _limit(request),
        "messages": turns,
    }
    if system:
        body["system"] = system[0]["text"] if len(system) == 1 else system
    if request.stop is not None:
        body["stop_sequences"] = _stop(request.stop)
    if request.tools:
        _tools(request, body)
    _output(request, body, model)
    _sampling(request, body, model)
    if user := request.safety_identifier or request.user:
        body["metadata"] = {"user_id": user}
    if request.service_tier is not None:
        tier = word(SERVICE_TIERS, request.service_tier, "service_tier")
        body["service_tier"] = tier
    if decoding.sent(request.thinking):
        body["thinking"] = request.thinking
    if ask.stream:
        body["stream"] = True
    return body


# -- parameters


def _limit(request: chat.Request) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        limit: int | None = getattr(request, name)
        if limit is not None:
            if limit < 1:
                raise Failure("bad_request", f"{name} is {limit}; it is at least 1.", param=name)
            return limit
    return DEFAULT_MAX_TOKENS


def _stop(stop: str | list[str]) -> list[str]:
    sequences = [stop] if isinstance(stop, str) else stop
    for at, sequence in enumerate(sequences):
        if not sequence.strip():
            raise Failure(
                "unsupported",
                f"stop[{at}] is {sequence!r}; Anthropic's stop sequences cannot be blank.",
                hint="Use a stop sequence with a visible character.",
                param=f"stop[{at}]",
            )
    return sequences


def _tools(request: chat.Request, body: Json) -> None:
    tools = [_tool(tool, f"tools[{at}]") for at, tool in enumerate(request.tools or ())]
    chosen = request.tool_choice
    choice: Json = {"type": "auto"}
    if isinstance(chosen, chat.ToolChoice) and chosen.type == "allowed_tools":
        tools = _allowed(tools, chosen.allowed_tools)
        chosen = chosen.allowed_tools.mode if chosen.allowed_tools else None
    if isinstance(chosen, chat.ToolChoice):
        if chosen.function is None:
            raise unsayable("anthropic", "tool_choice.type", f"a choice of type {chosen.type!r}")
        choice = {"type": "tool", "name": chosen.function.name}
    elif chosen is not None:
        modes = {"auto": "auto", "none": "none", "required": "any"}
        choice = {"type": word(modes, chosen, "tool_choice")}
    if request.parallel_tool_calls is False and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    body["tools"] = tools
    if request.tool_choice is not None or len(choice) > 1:
        body["tool_choice"] = choice


def _tool(tool: chat.Tool, place: str) -> Json:
    function = tool.function
    if tool.type != "function" or function is None:
        raise unsayable(
            "anthropic",
            f"{place}.type",
            f"a tool of type {tool.type!r}",
            "Use tools of type function.",
        )
    converted: Json = {"name": function.name}
    if function.description is not None:
        converted["description"] = function.description
    schema: dict[str, msgspec.Raw] | None = {}
    if decoding.sent(function.parameters):
        schema = decoding.object_of(bytes(function.parameters))
    if schema is None:
        raise Failure(
            "bad_request",
            f"{place}.function.parameters is no object; it is a JSON Schema.",
            param=f"{place}.function.parameters",
        )
    # OpenAI takes no parameters at all for none; Anthropic wants to be told it is an object.
    converted["input_schema"] = {"type": msgspec.Raw(b'"object"'), **schema}
    if function.strict:
        converted["strict"] = True
    return converted


def _allowed(tools: Iterable[Json], allowed: chat.AllowedTools | None) -> list[Json]:
    if allowed is None:
        raise Failure(
            "bad_request",
            "tool_choice.allowed_tools is missing.",
            param="tool_choice.allowed_tools",
        )
    names = {tool.function.name for tool in allowed.tools if tool.function}
    return [tool for tool in tools if tool["name"] in names]


def _output(request: chat.Request, body: Json, model: str) -> None:
    config: Json = {}
    if request.reasoning_effort is not None:
        effort = word(EFFORTS, request.reasoning_effort, "reasoning_effort")
        if not _claude(model).startswith(_WITHOUT_EFFORT):
            config["effort"] = effort
    wanted = request.response_format
    if wanted is not None and wanted.type == "json_schema":
        schema = wanted.json_schema.schema if wanted.json_schema else chat.ABSENT
        if decoding.object_of(bytes(schema)) is None:
            path = "response_format.json_schema.schema"
            raise Failure("bad_request", f"{path} is no object.", param=path)
        config["format"] = {"type": "json_schema", "schema": schema}
    elif wanted is not None and wanted.type != "text":
        raise unsayable(
            "anthropic",
            "response_format.type",
            f"a format of type {wanted.type!r}",
            "Use json_schema, which Claude is held to.",
        )
    if config:
        body["output_config"] = config


def _sampling(request: chat.Request, body: Json, model: str) -> None:
    claude = _claude(model)
    if claude and not claude.startswith(_WITH_SAMPLING):
        return
    if request.temperature is not None:
        body["temperature"] = min(request.temperature, 1.0)
    if request.top_p is not None and not (claude and "temperature" in body):
        body["top_p"] = request.top_p
    if request.top_k is not None:
        body["top_k"] = request.top_k


def _claude(model: str) -> str:
    """The model's name from `claude` on, "" where it is none."""
    at = model.find("claude")
    return model[at:] if at >= 0 else ""
