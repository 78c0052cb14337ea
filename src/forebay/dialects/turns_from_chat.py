"""An OpenAI conversation as Anthropic's system blocks and turns.

- System and developer messages go to the top-level `system`, from wherever they stood, one
  block each in their order: Claude models before Opus 4.8 know no other place.
- Consecutive tool messages become one user turn of tool_result blocks, because Anthropic wants
  all results of a turn's calls together. Other messages keep their boundaries; Anthropic joins
  turns of one role itself.
- Texts that are empty are left out and so is an assistant's turn with nothing in it: Anthropic
  refuses empty text. An empty user message is refused here, where its place can be named.
- An assistant's `reasoning_content` is left out: Anthropic takes thinking back only with the
  signature that it made. Names of participants and the detail of images have no counterpart.
"""

import re

import msgspec

from forebay.dialects import decoding
from forebay.dialects.decoding import Json
from forebay.dialects.unsayable import unsayable
from forebay.errors import Failure
from forebay.schema import chat

IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w=.-]+)*;base64,", re.ASCII)
_NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")


def conversation(said: list[chat.Message]) -> tuple[list[Json], list[Json]]:
    """The system blocks, and the turns in Anthropic's roles."""
    system: list[Json] = []
    turns: list[Json] = []
    results: list[Json] = []  # of the last turn, while only tool messages followed
    for at, message in enumerate(said):
        place = f"messages[{at}]"
        if message.role == "tool":
            if not results:
                turns.append({"role": "user", "content": results})
            results.append(_result(message, place))
            continue
        if message.role in ("system", "developer"):
            system += _blocks(message.content, place)
            continue
        results = []
        if message.role == "user":
            turns.append({"role": "user", "content": _content(message, place)})
        elif message.role == "assistant":
            if blocks := _assistant(message, place):
                turns.append({"role": "assistant", "content": blocks})
        else:
            raise Failure(
                "unsupported" if message.role == "function" else "bad_request",
                f"{place}.role is {message.role!r}; known are system, developer, user, "
                "assistant and tool.",
                param=f"{place}.role",
            )
    return system, turns


def _content(message: chat.Message, place: str) -> str | list[Json]:
    content = message.content
    if isinstance(content, str) and content:
        return content
    if blocks := _blocks(content, place):
        return blocks
    raise Failure(
        "unsupported",
        f"{place}.content is empty; Anthropic accepts no empty message.",
        hint="Leave the message out.",
        param=f"{place}.content",
    )


def _assistant(message: chat.Message, place: str) -> str | list[Json]:
    """An answer of before; empty where nothing is left of it to say."""
    if decoding.sent(message.function_call):
        raise unsayable("anthropic", f"{place}.function_call", "function_call", "Use tool_calls.")
    blocks = _blocks(message.content, place)
    if message.refusal:
        blocks.append({"type": "text", "text": message.refusal})
    for at, call in enumerate(message.tool_calls or ()):
        blocks.append(_call(call, f"{place}.tool_calls[{at}]"))
    if len(blocks) == 1 and blocks[0]["type"] == "text":
        return str(blocks[0]["text"])
    return blocks


def _call(call: chat.ToolCall, place: str) -> Json:
    if call.function is None:
        raise unsayable("anthropic", f"{place}.type", f"a tool call of type {call.type!r}")
    # What a model called without arguments is "" in many clients' histories.
    arguments = call.function.arguments.strip() or "{}"
    if not decoding.is_object(arguments.encode()):
        raise Failure(
            "unsupported",
            f"{place}.function.arguments is no JSON object; Anthropic has no other arguments.",
            hint="Send the call as the model made it, or leave it and its result out.",
            param=f"{place}.function.arguments",
        )
    return {
        "type": "tool_use",
        "id": _call_id(call.id),
        "name": call.function.name,
        "input": msgspec.Raw(arguments.encode()),
    }


def _result(message: chat.Message, place: str) -> Json:
    if not message.tool_call_id:
        raise Failure(
            "bad_request",
            f"{place}.tool_call_id is missing: which call is this the result of?",
            param=f"{place}.tool_call_id",
        )
    result: Json = {"type": "tool_result", "tool_use_id": _call_id(message.tool_call_id)}
    said = message.content
    if content := said if isinstance(said, str) else _blocks(said, place):
        result["content"] = content
    return result


def _call_id(call_id: str) -> str:
    """Anthropic takes letters, digits, `_` and `-`; others' ids (`functions.f:0`) are spelled
    so that two that differ still do."""
    return _NOT_IN_ID.sub(lambda match: f"_{ord(match[0]):x}_", call_id)


def _blocks(content: str | list[chat.Part] | None, place: str) -> list[Json]:
    """Content as blocks, empty texts left out: Anthropic refuses them."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    blocks = (_part(part, f"{place}.content[{at}]") for at, part in enumerate(content or ()))
    return [block for block in blocks if block is not None]


def _part(part: chat.Part, place: str) -> Json | None:
    if part.type in ("text", "refusal"):
        text = part.text if part.type == "text" else part.refusal
        return {"type": "text", "text": text} if text else None
    if part.type == "image_url":
        return _image(part.image_url, f"{place}.image_url")
    if part.type == "file":
        return _file(part.file, f"{place}.file")
    raise unsayable(
        "anthropic", f"{place}.type", f"a part of type {part.type!r}", "Send text or images."
    )


def _image(image: chat.ImageUrl | str | None, place: str) -> Json:
    url = image.url if isinstance(image, chat.ImageUrl) else image or ""
    if url.startswith(("https://", "http://")):
        return {"type": "image", "source": {"type": "url", "url": url}}
    if match := _DATA_URL.match(url):
        if match[1] not in IMAGE_TYPES:
            raise unsayable(
                "anthropic",
                place,
                f"an image of type {match[1]}",
                f"Send {', '.join(IMAGE_TYPES)}.",
            )
        return {"type": "image", "source": _base64(match)}
    raise Failure(
        "bad_request",
        f"{place} is {url[:40]!r}; an image is an http(s) URL or a base64 data: URL.",
        param=place,
    )


def _file(file: chat.File | None, place: str) -> Json:
    match = _DATA_URL.match(file.file_data or "") if file else None
    if file is None or match is None or match[1] != "application/pdf":
        raise unsayable(
            "anthropic",
            place,
            "this file",
            "Send a PDF in file_data, as a base64 data: URL, or its text.",
        )
    document: Json = {"type": "document", "source": _base64(match)}
    return document | {"title": file.filename} if file.filename else document


def _base64(url: re.Match[str]) -> Json:
    return {"type": "base64", "media_type": url[1], "data": url.string[url.end() :]}
