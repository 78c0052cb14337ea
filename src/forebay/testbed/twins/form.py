"""How an answer looks on the wire: the seam between the pacing of a reply and its dialect.

A `Form` is made for one answer. `reply` asks it for a stream's beginning, for one event per
slice of the payload, and for its end; or for the whole body at once. Forms are pure: bytes
out, no clock, no socket. The events of plain text are three bytes-objects joined; that is
the hot path, ~0.3 µs.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from forebay.schema.usage import Usage
from forebay.testbed.twins.question import Answer, Headers, Question, Refused

json_encode = msgspec.json.encode


class Form(Protocol):
    #: events before the first token; sent together with it
    head: bytes

    def delta(self, part: bytes) -> bytes:
        """One event with a slice of the payload."""

    def tail(self, usage: Usage) -> bytes:
        """The events after the last token."""

    def whole(self, usage: Usage) -> bytes:
        """The JSON body of an answer that is not streamed."""

    def error(self, kind: str, message: str) -> bytes:
        """An error event in the middle of the stream."""

    def error_body(self, kind: str, message: str) -> bytes:
        """The same as a JSON body."""


class Birth(msgspec.Struct, frozen=True):
    """What an answer is given at birth: its ids and the hour."""

    answer_id: str  # 24 hex digits; the dialect puts its prefix before them
    created_s: int


class Dialect(Protocol):
    """What a provider's API is like beyond single answers."""

    def key(self, header: Callable[[str], str | None], azure: bool) -> str | None:
        """The API key that came with a request, None where there was none."""

    def refusal(self, refused: Refused, azure: bool) -> bytes:
        """The JSON body of an error answer."""

    def headers(self, request_id: str, elapsed_ms: int) -> Headers:
        """What each answer carries."""

    def question(self, endpoint: str, body: bytes) -> Question:
        """Read a request. Raises Refused(bad_request)."""

    def form(self, endpoint: str, question: Question, answer: Answer, birth: Birth) -> Form: ...

    def models(self, names: list[str]) -> bytes:
        """The list of models."""

    def model(self, name: str) -> bytes:
        """One of them."""


def text_in_json(part: bytes) -> bytes:
    """Bytes of ASCII text as they stand inside a JSON string."""
    return json_encode(part.decode())[1:-1]
