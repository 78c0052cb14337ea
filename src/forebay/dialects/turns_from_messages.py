"""An Anthropic conversation as OpenAI's messages.

- The top-level `system` becomes one system message, its blocks joined by an empty line: local
  servers' templates know no list there. A system message inside the conversation stays where
  it stands.
- A user turn's tool results become tool messages, first, since OpenAI wants them right after
  the calls; what else the turn holds follows as a user message. OpenAI's tool messages carry
  text only, so an image in a result travels in that user message. A result that is an error
  says so in its text: OpenAI has no flag for it.
- An assistant turn's texts are joined: they are pieces of one text. Thinking is left out:
  OpenAI's models take none back.
- A PDF as base64 becomes a file part, a plain-text document a text part.
"""

from forebay.dialects.decoding import Json
from forebay.dialects.unsayable import unsayable
from forebay.errors import Failure
from forebay.schema import messages

#: Blocks of an answer of before that OpenAI's models neither need nor take.
LEFT_OUT = frozenset({"thinking", "redacted_thinking"})


def conversation(
    system: str | list[messages.Block] | None, said: list[messages.Message]
) -> list[Json]:
    """Raises Failure: bad_request, unsupported; both with the path."""
    turns: list[Json] = []
    if instructions := _text(system or "", "system", "\n\n"):
        turns.append({"role": "system", "content": instructions})
    for at, message in enumerate(said):
        place = f"messages[{at}]"
        if message.role == "user":
            turns += _user(message.content, place)
        elif message.role == "assistant":
            turns += _assistant(message.content, place)
        elif message.role == "system":
            text = _text(message.content, f"{place}.content", "\n\n")
            turns.append({"role": "system", "content": text})
        else:
            raise Failure(
                "bad_request",
                f"{place}.role is {message.role!r}; known are user, assistant and system.",
                param=f"{place}.role",
            )
    return turns


def _user(content: str | list[messages.Block], place: str) -> list[Json]:
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    results: list[Json] = []
    parts: list[Json] = []
    for at, block in enumerate(content):
        here = f"{place}.content[{at}]"
        if block.type == "tool_result":
            result, images = _result(block, here)
            results.append(result)
            parts += images
        else:
            parts.append(_part(block, here))
    if not parts:
        return results
    # One text is a string to every server; a list of parts is not.
    alone = len(parts) == 1 and parts[0]["type"] == "text"
    return [*results, {"role": "user", "content": parts[0]["text"] if alone else parts}]


def _result(block: messages.Block, place: str) -> tuple[Json, list[Json]]:
    """A tool message, and the images that it cannot carry."""
    _demand(block.tool_use_id, f"{place}.tool_use_id")
    texts, images = [], []
    if isinstance(block.content, str):
        texts.append(block.content)
    elif block.content is not None:
        for at, inner in enumerate(block.content):
            part = _part(inner, f"{place}.content[{at}]")
            if part["type"] == "text":
                texts.append(part["text"])
            else:
                images.append(part)
    text = "\n".join(texts)
    if block.is_error:
        text = f"Error: {text}" if text else "Error"
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": text}, images


def _assistant(content: str | list[messages.Block], place: str) -> list[Json]:
    """One message, or none where the turn held thinking only."""
    if isinstance(content, str):
        return [{"role": "assistant", "content": content}]
    texts, calls = [], []
    for at, block in enumerate(content):
        here = f"{place}.content[{at}]"
        if block.type == "text":
            texts.append(block.text)
        elif block.type == "tool_use":
            calls.append(_call(block, here))
        elif block.type not in LEFT_OUT:
            raise unsayable("openai", f"{here}.type", f"a block of type {block.type!r}")
    if not texts and not calls:
        return []
    message: Json = {"role": "assistant", "content": "".join(texts) if texts else None}
    if calls:
        message["tool_calls"] = calls
    return [message]


def _call(block: messages.Block, place: str) -> Json:
    _demand(block.id, f"{place}.id")
    _demand(block.name, f"{place}.name")
    arguments = bytes(block.input).decode()  # of a request: its UTF-8 is checked
    if not arguments.startswith("{"):
        raise Failure("bad_request", f"{place}.input is no object.", param=f"{place}.input")
    function = {"name": block.name, "arguments": arguments}
    return {"id": block.id, "type": "function", "function": function}


def _part(block: messages.Block, place: str) -> Json:
    source = block.source
    if block.type == "text":
        return {"type": "text", "text": block.text}
    if block.type == "image" and source is not None:
        if source.type == "url" and source.url:
            return {"type": "image_url", "image_url": {"url": source.url}}
        if source.type == "base64":
            return {"type": "image_url", "image_url": {"url": _data_url(source, place)}}
    if block.type == "document" and source is not None:
        if source.type == "text":
            return {"type": "text", "text": source.data or ""}
        if source.type == "base64" and source.media_type == "application/pdf":
            file = {
                "file_data": _data_url(source, place),
                "filename": block.title or "document.pdf",
            }
            return {"type": "file", "file": file}
    kind = f"{block.type} of source {source.type}" if source else block.type
    raise unsayable(
        "openai", f"{place}.type", f"a block of type {kind!r}", "Send text, images or a base64 PDF."
    )


def _data_url(source: messages.Source, place: str) -> str:
    _demand(source.media_type, f"{place}.source.media_type")
    _demand(source.data, f"{place}.source.data")
    return f"data:{source.media_type};base64,{source.data}"


def _text(content: str | list[messages.Block], place: str, joint: str) -> str:
    if isinstance(content, str):
        return content
    for at, block in enumerate(content):
        if block.type != "text":
            raise Failure(
                "bad_request",
                f"{place}[{at}].type is {block.type!r}; instructions are text.",
                param=f"{place}[{at}].type",
            )
    return joint.join(block.text for block in content)


def _demand(value: str | None, place: str) -> None:
    if not value:
        raise Failure("bad_request", f"{place} is missing.", param=place)
