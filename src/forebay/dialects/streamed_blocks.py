"""Pieces of text, thinking and tool calls, in whatever order, as Anthropic's content blocks.

OpenAI streams pieces of one message side by side, and a tool call's fragments carry an index
so that several calls may interleave. Anthropic streams blocks one after the other, each
started, filled and stopped before the next begins; clients exist that read no other order.

So blocks form a queue in order of first appearance, and only the head streams. What arrives
for a later block waits until the head is whole: text and thinking are whole as soon as
something else begins (more text later is a new block), a tool call when its JSON is. In the
usual case, one call after the other, nothing waits; where fragments interleave, the later
calls wait for the first, which costs latency, never order. `close` lets everything out.

A call is announced when its name is known (some servers send the identifier first). How far
its JSON is gets tracked fragment by fragment in `_Nesting`, in time linear in the bytes: a
parse on every fragment would be quadratic, which a hostile provider could use.
"""

import re
from collections import deque
from typing import Literal

from forebay.dialects.decoding import Json, encode
from forebay.errors import Failure
from forebay.schema import chat
from forebay.wire import sse

#: Characters that may wait for blocks before them, each waiting block counted as 200 more:
#: the bound of one event (wire/sse.py), since a provider might as well send it in one.
MAX_WAITING = 16 * 1024 * 1024
_BLOCK_COST = 200

_STRUCTURE = re.compile(r'["\\{}\[\]]')

Kind = Literal["text", "thinking", "tool_use"]


class _Nesting:
    """Whether the JSON so far is one whole value; fed in pieces."""

    __slots__ = ("_depth", "_escape_at", "_in_string", "_seen", "whole")

    def __init__(self) -> None:
        self.whole = False
        self._depth = 0
        self._in_string = False
        self._seen = 0  # characters of the pieces before this one
        self._escape_at = -1  # where a character stands that a backslash takes the meaning of

    def feed(self, piece: str) -> None:
        for match in _STRUCTURE.finditer(piece):
            at = self._seen + match.start()
            mark = match[0]
            if self._in_string:
                if at == self._escape_at:
                    continue
                if mark == "\\":
                    self._escape_at = at + 1
                elif mark == '"':
                    self._in_string = False
            elif mark == '"':
                self._in_string = True
            elif mark in "{[":
                self._depth += 1
            elif mark in "}]":
                self._depth -= 1
                self.whole = self._depth <= 0
        self._seen += len(piece)


class _Block:
    __slots__ = ("id", "kind", "name", "nesting", "started", "waiting")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.id = ""
        self.name = ""
        self.nesting = _Nesting()
        self.started = False
        self.waiting: list[str] = []

    @property
    def whole(self) -> bool:
        return self.kind != "tool_use" or self.nesting.whole


class Blocks:
    """The content of one streamed message: pieces in, events out by `take` and `close`."""

    def __init__(self, answer_id: str) -> None:
        self.called = False  # a tool
        self._answer_id = answer_id
        self._queue: deque[_Block] = deque()
        self._calls: dict[int, _Block] = {}
        self._last_call = -1
        self._index = 0  # of the head among the message's blocks
        self._waiting = 0
        self._out: list[bytes] = []

    def say(self, text: str) -> None:
        self._add("text", text)

    def think(self, thought: str) -> None:
        self._add("thinking", thought)

    def call(self, piece: chat.AnsweredCall) -> None:
        """One fragment of a tool call.

        Servers that leave the index out send each call whole or name its id once.
        """
        index = piece.index
        if index is None:
            index = self._last_call + 1 if piece.id or self._last_call < 0 else self._last_call
        self._last_call = index
        block = self._calls.get(index)
        if block is None:
            block = self._calls[index] = self._append("tool_use")
            self.called = True
        function = piece.function or chat.AnsweredFunction()
        block.id = block.id or piece.id or ""
        block.name = block.name or function.name or ""
        if function.arguments:
            block.nesting.feed(function.arguments)
            self._wait(block, function.arguments)

    def take(self) -> bytes:
        """The events that the pieces so far allow."""
        while self._queue:
            head = self._queue[0]
            if not self._flow(head) or len(self._queue) == 1 or not head.whole:
                break
            self._stop()
        out = b"".join(self._out)
        self._out.clear()
        return out

    def close(self) -> bytes:
        """No piece will follow: all that waits. Raises Failure(bad_answer): a nameless call."""
        while self._queue:
            if not self._flow(self._queue[0]):
                raise Failure("bad_answer", "The provider's answer calls a tool without naming it.")
            self._stop()
        return self.take()

    def _add(self, kind: Kind, piece: str) -> None:
        block = self._queue[-1] if self._queue else None
        if block is None or block.kind != kind:
            block = self._append(kind)
        self._wait(block, piece)

    def _append(self, kind: Kind) -> _Block:
        block = _Block(kind)
        self._queue.append(block)
        self._waiting += _BLOCK_COST
        return block

    def _wait(self, block: _Block, piece: str) -> None:
        block.waiting.append(piece)
        self._waiting += len(piece)
        if self._waiting > MAX_WAITING:
            raise Failure(
                "bad_answer",
                f"The provider interleaves tool calls of over {MAX_WAITING} characters.",
            )

    def _flow(self, head: _Block) -> bool:
        """Let the head's pieces out; False where it cannot even start."""
        if not head.started:
            if head.kind == "tool_use" and not head.name:
                return False
            head.started = True
            self._emit("content_block_start", content_block=self._start(head))
        for piece in head.waiting:
            self._emit("content_block_delta", delta=_delta(head.kind, piece))
            self._waiting -= len(piece)
        head.waiting.clear()
        return True

    def _stop(self) -> None:
        self._emit("content_block_stop")
        self._queue.popleft()
        self._waiting -= _BLOCK_COST
        self._index += 1

    def _start(self, block: _Block) -> Json:
        if block.kind == "text":
            return {"type": "text", "text": "", "citations": None}
        if block.kind == "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
        return {
            "type": "tool_use",
            "id": block.id or f"{self._answer_id}_{self._index}",
            "name": block.name,
            "input": {},
            "caller": {"type": "direct"},
        }

    def _emit(self, kind: str, **members: Json) -> None:
        event = {"type": kind, "index": self._index, **members}
        self._out.append(sse.event(encode(event), kind))


def _delta(kind: Kind, piece: str) -> Json:
    if kind == "text":
        return {"type": "text_delta", "text": piece}
    if kind == "thinking":
        return {"type": "thinking_delta", "thinking": piece}
    return {"type": "input_json_delta", "partial_json": piece}
