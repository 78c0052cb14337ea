"""The seam between what a caller speaks and what a provider speaks.

A `Translation` is chosen for a pair (endpoint, provider's dialect); where both are the same
it passes bytes through and only watches, otherwise it converts. The pipeline cannot tell
the difference. All of it is pure: bytes in, bytes out, no clock, no socket.

A reply goes one of two ways: `whole` for a JSON body, `stream` for server-sent events. Both
fill a `Finding`, what the gateway needs to know of an answer whatever its dialect.
"""

from typing import Protocol

import msgspec

from forebay.exchange import Ask, Dialect
from forebay.schema.usage import Usage
from forebay.wire.members import Members, Splice


class Finding(msgspec.Struct):
    """What was learned from an answer. Filled while it passes by."""

    usage: Usage | None = None  # None: the provider reported nothing (plausible)
    #: the provider's own word for why it stopped; None: none arrived, so not a success
    finish_reason: str | None = None
    model: str | None = None
    #: content progress: characters of text, reasoning or tool arguments seen so far. Pings
    #: and comments do not count; the between-tokens clock watches this.
    progress: int = 0
    #: message of an in-band error event, None where there was none
    error: str | None = None
    #: the stream said it is over ([DONE], message_stop): nothing more is due
    closed: bool = False


class StreamTranslation(Protocol):
    """One streamed answer on its way through."""

    finding: Finding
    #: how the caller's bytes differ from the provider's (offsets in the provider's stream)
    #: where bytes pass through; None for a conversion, whose output stands for itself
    splices: list[Splice] | None

    def feed(self, chunk: bytes) -> bytes:
        """Bytes of the provider's stream in; bytes for the caller out, possibly none.

        Raises Failure(bad_answer) on what is no event stream of this dialect.
        """

    def finish(self) -> bytes:
        """The provider closed its stream: what the caller is still due.

        Never makes a success out of a stream that had no finish reason: the caller of this
        method looks at `finding` and ends with an in-band error instead.
        """

    def cut(self, size: int) -> None:
        """The provider's stream ended after `size` bytes, well or not: `splices` then leave out
        what never went to the caller, such as half an event."""


class Translation(Protocol):
    #: the provider's endpoint this goes to, a name in dialects.ENDPOINTS
    endpoint: str
    dialect: Dialect

    def request(self, members: Members, ask: Ask, model: str) -> bytes | list[Splice]:
        """The provider's body: splices of the caller's, or new bytes.

        Raises Failure(unsupported) for what the other dialect cannot say.
        """

    def whole(self, body: bytes, ask: Ask) -> tuple[bytes, Finding]:
        """A complete JSON answer. Raises Failure(bad_answer) where it isn't one."""

    def stream(self, ask: Ask) -> StreamTranslation: ...
