"""What a caller sees of one answer, judged strictly and cheaply.

An answer is a success when all of this holds: status 200, no error in it, a finish reason
came, the stream ended as its dialect ends one, and the text has exactly the length that was
asked for. Everything else is a failure with a name. The official SDKs are more trusting (a
clean early end is a success to them); a caller of a benchmark must not be.

An event costs ~1.5 µs: it is never decoded, only searched. Quotes inside JSON strings are
escaped, so a pattern with a quoted name can't match inside text.
"""

import re
from typing import Protocol

from forebay.wire.sse import Splitter

_CONTENT = re.compile(rb'"content"\s*:\s*"((?:[^"\\]|\\.)+)"')
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"(\w+)"')
_ERROR = re.compile(rb'^data:\s*\{\s*"error"', re.MULTILINE)
_DONE = re.compile(rb"^data:\s*\[DONE\]", re.MULTILINE)
_TEXT = re.compile(rb'"type"\s*:\s*"text_delta"\s*,\s*"text"\s*:\s*"((?:[^"\\]|\\.)+)"')
_STOP = re.compile(rb'"stop_reason"\s*:\s*"(\w+)"')
_GOOD = (b"stop", b"end_turn")


class Watch(Protocol):
    """One answer passing by."""

    #: bytes of text so far, as they stand in JSON; 0: no token has come
    text_bytes: int
    events: int

    def feed(self, data: bytes) -> None:
        """Part of the body."""

    def verdict(self, expected_bytes: int | None) -> str:
        """ "ok", or the name of the failure, when the body has ended."""


class OpenAIStream:
    def __init__(self) -> None:
        self.text_bytes = 0
        self.events = 0
        self._splitter = Splitter()
        self._finish: bytes | None = None
        self._done = False
        self._error = False

    def feed(self, data: bytes) -> None:
        for event in self._splitter.feed(data):
            self.events += 1
            if (found := _CONTENT.search(event)) is not None:
                self.text_bytes += len(found[1])
            elif (found := _FINISH.search(event)) is not None:
                self._finish = found[1]
            elif _DONE.search(event) is not None:
                self._done = True
            elif _ERROR.search(event) is not None:
                self._error = True

    def verdict(self, expected_bytes: int | None) -> str:
        return _verdict(self._error, self._finish, self._done, self.text_bytes, expected_bytes)


class AnthropicStream:
    def __init__(self) -> None:
        self.text_bytes = 0
        self.events = 0
        self._splitter = Splitter()
        self._finish: bytes | None = None
        self._done = False
        self._error = False

    def feed(self, data: bytes) -> None:
        for event in self._splitter.feed(data):
            self.events += 1
            if (found := _TEXT.search(event)) is not None:
                self.text_bytes += len(found[1])
            elif b"event: message_stop" in event:
                self._done = True
            elif b"event: error" in event:
                self._error = True
            elif (found := _STOP.search(event)) is not None:
                self._finish = found[1]

    def verdict(self, expected_bytes: int | None) -> str:
        return _verdict(self._error, self._finish, self._done, self.text_bytes, expected_bytes)


class WholeBody:
    """An answer that is not streamed, either dialect."""

    def __init__(self) -> None:
        self.text_bytes = 0
        self.events = 0
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        self._body += data

    def verdict(self, expected_bytes: int | None) -> str:
        body = bytes(self._body)
        finish = _FINISH.search(body) or _STOP.search(body)
        text = _CONTENT.search(body) or re.search(rb'"text"\s*:\s*"((?:[^"\\]|\\.)+)"', body)
        self.text_bytes = len(text[1]) if text else 0
        error = body.lstrip().startswith(b'{"error"') or b'"type":"error"' in body
        return _verdict(error, finish and finish[1], True, self.text_bytes, expected_bytes)


def _verdict(
    error: bool, finish: bytes | None, done: bool, text_bytes: int, expected_bytes: int | None
) -> str:
    if error:
        return "error_event"
    if finish is None:
        return "truncated"
    if finish not in _GOOD:
        return f"finish_{finish.decode()}"
    if not done:
        return "no_end"
    if expected_bytes is not None and text_bytes != expected_bytes:
        return "wrong_length"
    return "ok"
