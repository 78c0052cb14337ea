"""Server-sent events, taken apart without being rewritten.

A `Splitter` takes chunks as they come off a socket and cuts them into whole events, as the
exact bytes that arrived: the events and what is still held, joined, are the input, byte for
byte (blank runs and a BOM stay with the event after them). So a relay can forward events
untouched and say by offsets what it left out. The parsing of one event (`parse`) is separate,
since most relayed events are never parsed.

The grammar is that of the HTML standard, section 9.2.6: lines end in CRLF, LF or CR; an
empty line ends an event; a leading BOM is skipped; lines that begin with a colon are
comments; one space after a field's colon is dropped; several `data` lines join with LF.

Two cases cost nearly nothing, because they are what providers send: a chunk that is one
event or several whole ones with LF endings. Everything else takes the slow, exact way. A CR
at the end of a chunk may be half of a CRLF, so the event it might end waits for the next
byte (or for `close`).
"""

import re

import msgspec

from forebay.errors import Failure

#: The longest event held while its end has not come. Image parts and tool arguments are
#: the big ones; 16 MiB is twice the largest body a provider documents.
MAX_EVENT_BYTES = 16 * 1024 * 1024

# An empty line: the end of one line right before the end of another. A lone CR followed by
# LF is one ending, so CRLF is tried before CR.
_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_LINE_END = re.compile(rb"\r\n|\n|\r")
BOM = b"\xef\xbb\xbf"
_MAYBE_BLANK = (b"\n", BOM)  # such a chunk may begin with a blank run


class Event(msgspec.Struct, frozen=True, gc=False):
    """One parsed event. `name` is "" where no `event:` line was sent; `data` is None where
    the event had no `data:` line at all (a comment or a bare `retry:`)."""

    name: str
    data: bytes | None


class Splitter:
    """Chunks in, whole raw events out. Holds at most one unfinished event."""

    __slots__ = ("held", "limit")

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self.held = bytearray()
        self.limit = limit

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events completed by `chunk`, as raw bytes. Sync, ~0.3 µs for one whole event.

        Raises Failure(bad_answer) where an event outgrows the limit.
        """
        if (
            not self.held
            and chunk.endswith(b"\n\n")
            and b"\r" not in chunk
            and not chunk.startswith(_MAYBE_BLANK)
        ):
            if chunk.find(b"\n\n") == len(chunk) - 2:
                return [chunk]
            if b"\n\n\n" not in chunk:
                return [event + b"\n\n" for event in chunk[:-2].split(b"\n\n")]
        return self._feed_any(chunk)

    def _feed_any(self, chunk: bytes) -> list[bytes]:
        data = self.held
        # What was held was looked through before, and an end is at most four bytes long: an
        # event of n bytes in small pieces costs n, not n².
        look = max(len(data) - 3, 0)
        data += chunk
        events = []
        start = 0
        # Where the last byte is CR its line may still become CRLF: not decided yet.
        end = len(data) - 1 if data.endswith(b"\r") else len(data)
        for match in _EVENT_END.finditer(data, look, end):
            if not _blank(data[start : match.start()]):
                events.append(bytes(data[start : match.end()]))
                start = match.end()
        del data[:start]
        if len(self.held) > self.limit:
            raise Failure(
                "bad_answer",
                f"The provider sent an event of over {self.limit} bytes without an end.",
            )
        return events

    def close(self) -> bytes:
        """What is left when the stream ends: an event without its empty line, or b"".

        The standard drops it; providers do send a last event so, and a caller must not lose
        it, so the caller of this method decides.
        """
        held, self.held = bytes(self.held), bytearray()
        return b"" if _blank(held) else held


def parse(raw: bytes) -> Event:
    """One raw event as name and data. Sync, ~1 µs."""
    name = ""
    data: list[bytes] = []
    for line in _LINE_END.split(raw.removeprefix(BOM)):
        if not line or line.startswith(b":"):
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    return Event(name, b"\n".join(data) if data else None)


def event(data: bytes, name: str = "") -> bytes:
    """One event on the wire. `data` must hold no line break; JSON never does."""
    if name:
        return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"


def comment(text: str) -> bytes:
    """A comment: SDKs skip it, people who read the raw stream see it."""
    return b": " + text.encode() + b"\n\n"


def _blank(data: bytes | bytearray) -> bool:
    return not data.removeprefix(BOM).strip(b"\r\n")
