"""The outer half of every streamed conversion: bytes in, events through, bytes out.

A conversion of one dialect's events into the other's is a pure state machine over whole
events (`Events`); this is what stands around each of them, once: cutting the bytes into
events, and the three ways in which a stream stops being one.

1. The provider says so in band (an error event): the machine sets `finding.error`.
2. An event is no event of the dialect: the machine raises Failure(bad_answer). What came
   before it in the same chunk was good and must not depend on where the network cut, so it
   is still returned; `finding.error` is set in any case, and the failure is raised only where
   this chunk had nothing good to give.
3. The stream said that it is over (`finding.closed`).

After any of them the rest is ignored: providers do send data after the end.
"""

import contextlib
from typing import Protocol

from forebay.dialects.translation import Finding
from forebay.errors import Failure
from forebay.wire import sse
from forebay.wire.members import Splice


class Events(Protocol):
    """One dialect's events into the other's bytes; pure, fed in order."""

    finding: Finding

    def event(self, event: sse.Event) -> bytes:
        """What one event becomes, possibly nothing. Raises Failure(bad_answer)."""

    def end(self) -> bytes:
        """No event will follow: what is still due. Nothing where no finish reason came."""


class Conversion:
    """A `StreamTranslation` around an `Events`."""

    def __init__(self, events: Events) -> None:
        self.finding = events.finding
        self.splices: list[Splice] | None = None
        self._events = events
        self._splitter = sse.Splitter()

    def feed(self, chunk: bytes) -> bytes:
        if self._over():
            return b""
        out = b""
        try:
            for raw in self._splitter.feed(chunk):
                out += self._events.event(sse.parse(raw))
                if self._over():
                    break
        except Failure as failure:
            self.finding.error = str(failure)
            if not out:
                raise
        return out

    def finish(self) -> bytes:
        out = b""
        # A last event without its empty line: providers do send it. Where the stream was cut
        # it is half an event, which the standard drops; what is missing then is the finish
        # reason, and that is what the caller of this method looks at.
        if (left := self._splitter.close()) and not self._over():
            with contextlib.suppress(Failure):
                out = self._events.event(sse.parse(left))
        return out if self._over() else out + self._events.end()

    def cut(self, size: int) -> None:
        """What a conversion gave stands for itself."""

    def _over(self) -> bool:
        return self.finding.closed or self.finding.error is not None
