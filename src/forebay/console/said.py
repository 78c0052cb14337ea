"""Messages in any provider's shape, as pieces for people to read.

Everything in here was written by callers, models and tools, so it may be anything: whatever
does not have the shape it should have becomes the JSON it is, and nothing raises but
RecursionError, where things nest deeper than Python does. Pure.
"""

from typing import Any, Literal

import msgspec

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


def read_message(message: Any) -> Said:
    if not isinstance(message, dict):
        return Said("?", [read_other(message)])
    parts = read_parts(message.get("content"))
    for name in ("reasoning_content", "reasoning"):
        if isinstance(text := message.get(name), str) and text:
            parts.insert(0, Part("reasoning", text))
    if isinstance(text := message.get("refusal"), str) and text:
        parts.append(Part("refusal", text))
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        parts.append(_call(call))
    role = text_of(message.get("role", "?"))
    if role == "tool" and parts:
        parts = [
            Part("result", part.text, text_of(message.get("tool_call_id", ""))) for part in parts
        ]
    return Said(role, parts)


def _call(call: Any) -> Part:
    match call:
        case {"function": {"name": name, "arguments": arguments}}:
            return Part("call", text_of(arguments), text_of(name))
        case {"custom": {"name": name, "input": given}}:
            return Part("call", text_of(given), text_of(name))
    return read_other(call)


def read_parts(content: Any) -> list[Part]:
    if content is None:
        return []
    if isinstance(content, str):
        return [Part("text", content)]
    if isinstance(content, list):
        return [read_part(part) for part in content]
    return [read_other(content)]


def read_part(part: Any) -> Part:
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
            return Part("call", text_of(given), text_of(name))
        case {"type": "tool_result", "content": content} as result:
            text = "\n".join(inner.text for inner in read_parts(content))
            return Part("result", text, text_of(result.get("tool_use_id", "")))
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return Part("media", "", _media(url))
        case {"type": "input_image", "image_url": str(url)}:
            return Part("media", "", _media(url))
        case {"type": "image" | "document", "source": {"data": str(data)} as source}:
            kind = text_of(source.get("media_type", "unknown type"))
            return Part("media", "", f"{kind}, {len(data) * 3 // 4:,} bytes, inline")
        case {"type": "image" | "document", "source": {"url": str(url)}}:
            return Part("media", "", _media(url))
        case {"type": "input_audio", "input_audio": {"data": str(data)}}:
            return Part("media", "", f"audio, {len(data) * 3 // 4:,} bytes, inline")
    return read_other(part)


def _media(url: str) -> str:
    """What an image's address says; nothing is ever loaded from it."""
    if url.startswith("data:"):
        kind, _, data = url[5:].partition(",")
        return f"{kind.partition(';')[0]}, {len(data) * 3 // 4:,} bytes, inline"
    return url if len(url) <= 300 else url[:300] + "…"


def read_item(item: Any) -> Said:
    """An item of Responses, asked or answered."""
    match item:
        case {"type": "function_call", "name": name, "arguments": arguments}:
            return Said("assistant", [Part("call", text_of(arguments), text_of(name))])
        case {"type": "function_call_output", "output": output}:
            return Said("tool", [Part("result", text_of(output), text_of(item.get("call_id", "")))])
        case {"type": "reasoning", "summary": summary}:
            return Said("assistant", [Part("reasoning", part.text) for part in read_parts(summary)])
        case {"role": role, "content": content}:
            return Said(text_of(role), read_parts(content))
    return Said("?", [read_other(item)])


# -- whole answers


def read_answer(answer: Any) -> list[Said]:
    match answer:
        case {"choices": list(choices)}:
            return [_choice(choice) for choice in choices]
        case {"type": "message", "content": content}:
            finish = text_of(answer.get("stop_reason") or "")
            return [Said(text_of(answer.get("role", "assistant")), read_parts(content), finish)]
        case {"output": list(items)}:
            said = [read_item(item) for item in items]
            if said:
                said[-1].finish = text_of(answer.get("status") or "")
            return said
        case {"data": [{"embedding": _}, *_] as vectors}:
            return [Said("embeddings", [Part("text", _vectors(vectors))])]
        case {"error": error} if error:
            return [Said("error", [read_error(error)])]
        case {"input_tokens": int(count)}:
            return [Said("count", [Part("text", f"{count:,} input tokens")])]
    return []


def _choice(choice: Any) -> Said:
    if not isinstance(choice, dict):
        return Said("?", [read_other(choice)])
    if "message" in choice:
        said = read_message(choice["message"])
    else:
        said = Said("assistant", read_parts(choice.get("text")))
    said.finish = text_of(choice.get("finish_reason") or "")
    return said


def _vectors(vectors: list[Any]) -> str:
    first = vectors[0]["embedding"]
    length = f"{len(first):,} dimensions" if isinstance(first, list) else "encoded"
    return f"{len(vectors):,} vectors, {length}"


def read_error(error: Any) -> Part:
    match error:
        case {"message": str(message)} | str(message):
            return Part("text", message)
    return read_other(error)


# -- anything


def decoded(data: bytes) -> Any:
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    return _dumped(value)


def read_other(value: Any) -> Part:
    return Part("other", _dumped(value))


def _dumped(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode("utf-8", "replace")
    except RecursionError:
        return "(nested too deep to be shown)"


def index_of(thing: dict[str, Any], name: str = "index") -> int:
    found = thing.get(name)
    return found if isinstance(found, int) else 0
