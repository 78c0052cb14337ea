"""Bytes of a request or an answer as the conversation they are, for people to read.

Everything in here was written by callers, models and tools, so it may be anything: whatever
does not have the shape it should have is shown as the JSON it is, and nothing raises. What a
page or terminal does with the texts (escape them) is its own business; the exact bytes are
shown elsewhere. Pure.

Shapes read: OpenAI Chat Completions, Responses and Embeddings, Anthropic Messages, each as a
request, as a whole answer and as a stream of events.
"""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from forebay.errors import Failure
from forebay.wire import sse

Kind = Literal["text", "reasoning", "call", "result", "media", "refusal", "other"]

_decode = msgspec.json.Decoder().decode


class Part(msgspec.Struct):
    """A piece of a message. `title` names it where text alone does not: a tool, a file."""

    kind: Kind
    text: str
    title: str = ""


class Said(msgspec.Struct):
    """One message: who said it, and why it ended where that is known."""

    role: str
    parts: list[Part]
    finish: str = ""


def asked(body: bytes) -> list[Said]:
    """The messages of a request; [] where it holds none that can be read."""
    try:
        return _asked(_json(body))
    except RecursionError:  # tool results in tool results in …
        return []


def answered(body: bytes) -> list[Said]:
    """The messages of an answer, whole or streamed; [] where there are none to read."""
    try:
        if body[:64].lstrip().startswith((b"data:", b"event:", b":")):
            return _streamed(body)
        return _answer(_json(body))
    except RecursionError:
        return []


def question(body: bytes) -> str:
    """What was asked last, "" where nobody can say."""
    for said in reversed(asked(body)):
        if said.role in ("user", "tool", "input"):
            for part in said.parts:
                if part.text:
                    return part.text
    return ""


def offered_tools(body: bytes) -> list[str]:
    """Names of the tools a request offers."""
    request = _json(body)
    if not isinstance(request, dict) or not isinstance(request.get("tools"), list):
        return []
    names = []
    for tool in request["tools"]:
        match tool:
            case {"function": {"name": str(name)}} | {"name": str(name)}:
                names.append(name)
            case {"type": str(kind)}:
                names.append(kind)
    return names


# -- requests


def _asked(request: Any) -> list[Said]:
    match request:
        case {"messages": list(messages)}:
            found = _system(request.get("system"))
            return found + [_message(message) for message in messages]
        case {"input": wanted}:
            found = _system(request.get("instructions"))
            return found + _input(wanted)
        case {"prompt": prompt}:
            return [Said("user", _parts(prompt))]
    return []


def _system(told: Any) -> list[Said]:
    return [Said("system", _parts(told))] if told else []


def _input(wanted: Any) -> list[Said]:
    """Of Responses (items) and Embeddings (texts, or lists of token numbers)."""
    if isinstance(wanted, list) and all(isinstance(item, dict) for item in wanted):
        return [_item(item) for item in wanted]
    texts = wanted if isinstance(wanted, list) else [wanted]
    return [Said("input", [Part("text", _text(text)) for text in texts])]


def _message(message: Any) -> Said:
    if not isinstance(message, dict):
        return Said("?", [_other(message)])
    parts = _parts(message.get("content"))
    for name in ("reasoning_content", "reasoning"):
        if isinstance(text := message.get(name), str) and text:
            parts.insert(0, Part("reasoning", text))
    if isinstance(text := message.get("refusal"), str) and text:
        parts.append(Part("refusal", text))
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        parts.append(_call(call))
    role = _text(message.get("role", "?"))
    if role == "tool" and parts:
        parts = [
            Part("result", part.text, _text(message.get("tool_call_id", ""))) for part in parts
        ]
    return Said(role, parts)


def _call(call: Any) -> Part:
    match call:
        case {"function": {"name": name, "arguments": arguments}}:
            return Part("call", _text(arguments), _text(name))
        case {"custom": {"name": name, "input": given}}:
            return Part("call", _text(given), _text(name))
    return _other(call)


def _parts(content: Any) -> list[Part]:
    if content is None:
        return []
    if isinstance(content, str):
        return [Part("text", content)]
    if isinstance(content, list):
        return [_part(part) for part in content]
    return [_other(content)]


def _part(part: Any) -> Part:
    match part:
        case str(text):
            return Part("text", text)
        case {"type": "text" | "input_text" | "output_text" | "summary_text", "text": str(text)}:
            return Part("text", text)
        case {"type": "thinking", "thinking": str(text)}:
            return Part("reasoning", text)
        case {"type": "redacted_thinking"}:
            return Part("reasoning", "", "encrypted by the provider")
        case {"type": "refusal", "refusal": str(text)}:
            return Part("refusal", text)
        case {
            "type": "tool_use" | "server_tool_use" | "mcp_tool_use",
            "name": name,
            "input": given,
        }:
            return Part("call", _text(given), _text(name))
        case {"type": "tool_result", "content": content} as result:
            text = "\n".join(inner.text for inner in _parts(content))
            return Part("result", text, _text(result.get("tool_use_id", "")))
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return Part("media", "", _media(url))
        case {"type": "input_image", "image_url": str(url)}:
            return Part("media", "", _media(url))
        case {"type": "image" | "document", "source": {"data": str(data)} as source}:
            kind = _text(source.get("media_type", "unknown type"))
            return Part("media", "", f"{kind}, {len(data) * 3 // 4:,} bytes, inline")
        case {"type": "image" | "document", "source": {"url": str(url)}}:
            return Part("media", "", _media(url))
        case {"type": "input_audio", "input_audio": {"data": str(data)}}:
            return Part("media", "", f"audio, {len(data) * 3 // 4:,} bytes, inline")
    return _other(part)


def _media(url: str) -> str:
    """What an image's address says; nothing is ever loaded from it."""
    if url.startswith("data:"):
        kind, _, data = url[5:].partition(",")
        return f"{kind.partition(';')[0]}, {len(data) * 3 // 4:,} bytes, inline"
    return url if len(url) <= 300 else url[:300] + "…"


def _item(item: Any) -> Said:
    """An item of Responses, asked or answered."""
    match item:
        case {"type": "function_call", "name": name, "arguments": arguments}:
            return Said("assistant", [Part("call", _text(arguments), _text(name))])
        case {"type": "function_call_output", "output": output}:
            return Said("tool", [Part("result", _text(output), _text(item.get("call_id", "")))])
        case {"type": "reasoning", "summary": summary}:
            return Said("assistant", [Part("reasoning", part.text) for part in _parts(summary)])
        case {"role": role, "content": content}:
            return Said(_text(role), _parts(content))
    return Said("?", [_other(item)])


# -- whole answers


def _answer(answer: Any) -> list[Said]:
    match answer:
        case {"choices": list(choices)}:
            return [_choice(choice) for choice in choices]
        case {"type": "message", "content": content}:
            finish = _text(answer.get("stop_reason") or "")
            return [Said(_text(answer.get("role", "assistant")), _parts(content), finish)]
        case {"output": list(items)}:
            said = [_item(item) for item in items]
            if said:
                said[-1].finish = _text(answer.get("status") or "")
            return said
        case {"data": [{"embedding": _}, *_] as vectors}:
            return [Said("embeddings", [Part("text", _vectors(vectors))])]
        case {"error": error} if error:
            return [Said("error", [_error(error)])]
        case {"input_tokens": int(count)}:
            return [Said("count", [Part("text", f"{count:,} input tokens")])]
    return []


def _choice(choice: Any) -> Said:
    if not isinstance(choice, dict):
        return Said("?", [_other(choice)])
    if "message" in choice:
        said = _message(choice["message"])
    else:
        said = Said("assistant", _parts(choice.get("text")))
    said.finish = _text(choice.get("finish_reason") or "")
    return said


def _vectors(vectors: list[Any]) -> str:
    first = vectors[0]["embedding"]
    length = f"{len(first):,} dimensions" if isinstance(first, list) else "encoded"
    return f"{len(vectors):,} vectors, {length}"


def _error(error: Any) -> Part:
    match error:
        case {"message": str(message)} | str(message):
            return Part("text", message)
    return _other(error)


# -- streams


def _streamed(body: bytes) -> list[Said]:
    chat: dict[int, _Growing] = {}
    blocks: dict[int, _Growing] = {}
    after: list[Said] = []
    finish = ""
    for event in _events(body):
        match event:
            case {"choices": list(choices)}:
                for choice in choices:
                    if isinstance(choice, dict):
                        chat.setdefault(_index(choice), _Growing()).choice(choice)
            case {"type": "content_block_start", "content_block": block}:
                blocks[_index(event)] = _Growing().block(block)
            case {"type": "content_block_delta", "delta": dict(delta)}:
                blocks.setdefault(_index(event), _Growing()).delta(delta)
            case {"type": "message_delta", "delta": {"stop_reason": reason}}:
                finish = _text(reason or "")
            case {"type": "response.completed" | "response.incomplete", "response": response}:
                after += _answer(response)
            case {"type": "response.output_text.delta", "delta": str(text)}:
                chat.setdefault(_index(event, "output_index"), _Growing()).add("text", "", text)
            case {"error": error} | {"type": "error", "error": error} if error:
                after.append(Said("error", [_error(error)]))
    if any(said.role != "error" for said in after):
        return after  # a completed response has everything the deltas had
    said = [
        Said("assistant", growing.done(), growing.finish) for _, growing in sorted(chat.items())
    ]
    if blocks:
        parts = [part for _, growing in sorted(blocks.items()) for part in growing.done()]
        said.append(Said("assistant", parts, finish))
    return said + after


class _Growing:
    """A message or block in pieces: texts are joined once, at the end."""

    def __init__(self) -> None:
        self._pieces: dict[tuple[Kind, str], list[str]] = {}
        self._titles: dict[tuple[Kind, str], str] = {}
        self.finish = ""

    def add(self, kind: Kind, key: str, text: str, title: str = "") -> None:
        self._pieces.setdefault((kind, key), []).append(text)
        if title:
            self._titles[kind, key] = title

    def choice(self, choice: dict[str, Any]) -> None:
        """A chunk of OpenAI's: `delta`, or `text` of the old completions."""
        if isinstance(reason := choice.get("finish_reason"), str):
            self.finish = reason
        if isinstance(text := choice.get("text"), str):
            self.add("text", "", text)
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return
        names: tuple[tuple[str, Kind], ...] = (
            ("reasoning_content", "reasoning"),
            ("reasoning", "reasoning"),
            ("content", "text"),
            ("refusal", "refusal"),
        )
        for name, kind in names:
            if isinstance(text := delta.get(name), str) and text:
                self.add(kind, "", text)
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            match call:
                case {"function": dict(function)}:
                    arguments = _text(function.get("arguments") or "")
                    self.add(
                        "call", str(_index(call)), arguments, _text(function.get("name") or "")
                    )

    def block(self, block: Any) -> "_Growing":
        """The start of one of Anthropic's content blocks."""
        match block:
            case {"type": "text", "text": str(text)}:
                self.add("text", "", text)
            case {"type": "thinking"}:
                self.add("reasoning", "", _text(block.get("thinking") or ""))
            case {"type": str(kind), "name": name} if kind.endswith("tool_use"):
                self.add("call", "", "", _text(name))
            case _:
                part = _part(block)
                self.add(part.kind, "", part.text, part.title)
        return self

    def delta(self, delta: dict[str, Any]) -> None:
        match delta:
            case {"type": "text_delta", "text": str(text)}:
                self.add("text", "", text)
            case {"type": "thinking_delta", "thinking": str(text)}:
                self.add("reasoning", "", text)
            case {"type": "input_json_delta", "partial_json": str(text)}:
                self.add("call", "", text)

    def done(self) -> list[Part]:
        return [
            Part(key[0], "".join(pieces), self._titles.get(key, ""))
            for key, pieces in self._pieces.items()
        ]


def _events(body: bytes) -> Iterator[Any]:
    splitter = sse.Splitter()
    try:
        raw = splitter.feed(body)
    except Failure:  # one event larger than any can be
        return
    for event in [*raw, splitter.close()]:
        data = sse.parse(event).data if event else None
        if data is not None:
            yield _json(data)


# -- anything


def _json(data: bytes) -> Any:
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return _dumped(value)


def _other(value: Any) -> Part:
    return Part("other", _dumped(value))


def _dumped(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode("utf-8", "replace")
    except RecursionError:
        return "(nested too deep to be shown)"


def _index(thing: dict[str, Any], name: str = "index") -> int:
    found = thing.get(name)
    return found if isinstance(found, int) else 0
