"""Streamed answers put together again, for people to read. Pure; raises like `said`."""

from collections.abc import Iterator
from typing import Any

from forebay.console.said import (
    Kind,
    Part,
    Said,
    decoded,
    index_of,
    read_answer,
    read_error,
    read_part,
    text_of,
)
from forebay.errors import Failure
from forebay.wire import sse


def streamed(body: bytes) -> list[Said]:
    chat: dict[int, _Growing] = {}
    blocks: dict[int, _Growing] = {}
    after: list[Said] = []
    finish = ""
    for event in _events(body):
        match event:
            case {"choices": list(choices)}:
                for choice in choices:
                    if isinstance(choice, dict):
                        chat.setdefault(index_of(choice), _Growing()).choice(choice)
            case {"type": "content_block_start", "content_block": block}:
                blocks[index_of(event)] = _Growing().block(block)
            case {"type": "content_block_delta", "delta": dict(delta)}:
                blocks.setdefault(index_of(event), _Growing()).delta(delta)
            case {"type": "message_delta", "delta": {"stop_reason": reason}}:
                finish = text_of(reason or "")
            case {"type": "response.completed" | "response.incomplete", "response": response}:
                after += read_answer(response)
            case {"type": "response.output_text.delta", "delta": str(text)}:
                chat.setdefault(index_of(event, "output_index"), _Growing()).add("text", "", text)
            case {"error": error} | {"type": "error", "error": error} if error:
                after.append(Said("error", [read_error(error)]))
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
                    arguments = text_of(function.get("arguments") or "")
                    self.add(
                        "call", str(index_of(call)), arguments, text_of(function.get("name") or "")
                    )

    def block(self, block: Any) -> "_Growing":
        """The start of one of Anthropic's content blocks."""
        match block:
            case {"type": "text", "text": str(text)}:
                self.add("text", "", text)
            case {"type": "thinking"}:
                self.add("reasoning", "", text_of(block.get("thinking") or ""))
            case {"type": str(kind), "name": name} if kind.endswith("tool_use"):
                self.add("call", "", "", text_of(name))
            case _:
                part = read_part(block)
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
            yield decoded(data)
