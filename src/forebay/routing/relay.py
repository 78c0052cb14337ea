"""A streamed answer on its way from the provider's socket to the caller's.

Called by the upstream connection with each piece, right in the socket's callback. The reply
begins with the first bytes there are to send, so that a stream which fails before them still
gets an honest status. A caller slower than the provider pauses the provider's socket; nothing
in between grows.
"""

from collections.abc import Callable

from forebay.dialects.translation import StreamTranslation
from forebay.errors import Failure
from forebay.exchange import Attempt, Chunks, Exchange
from forebay.wire.caller import Caller
from forebay.wire.upstream import Call
from forebay.world import World

#: Most bytes of a stream that are kept for the record. A chat answer that is longer is no
#: answer any more; a file passed through goes on, its record without content.
MAX_KEPT_BYTES = 64 * 1024 * 1024


class Relay:
    def __init__(
        self,
        world: World,
        x: Exchange,
        attempt: Attempt,
        call: Call,
        stream: StreamTranslation,
        caller: Caller,
        begin: Callable[[], None],
    ) -> None:
        self._now_ns = world.now_ns
        self._x = x
        self._attempt = attempt
        self._call = call
        self._stream = stream
        self._finding = stream.finding
        self._caller = caller
        self._begin = begin
        self._progress = 0
        self.failure: Failure | None = None
        self.began = False
        now = world.now_ns()
        self._body = attempt.body = Chunks(now)
        self._reply: Chunks | None = None
        if stream.splices is None:  # a conversion's output stands for itself
            self._reply = x.reply_body = Chunks(now)
        else:
            x.reply_body = stream.splices

    def piece(self, data: bytes) -> None:
        """Sync, ~3 µs for one event, the caller's write included. Never raises."""
        if self.failure is not None:
            return
        now = self._now_ns()
        body = self._body
        body.data += data  # Chunks.add, in line: this runs for each event of each stream
        body.marks.append(len(body.data))
        body.marks.append((now - body.start_ns) // 1000)
        if len(body.data) > MAX_KEPT_BYTES:
            self._overflow()
        try:
            out = self._stream.feed(data)
        except Failure as failure:
            self.failure = failure
            self._call.abort()
            return
        progress = self._finding.progress
        if progress != self._progress:
            if self._progress:
                self._call.progress_ns = now
            else:
                self._attempt.first_ns = now
                self._call.progress()
            self._progress = progress
        if out:
            if self.began and self._reply is None:
                self._caller.push(out)
            else:
                self._send(out, now)

    def _overflow(self) -> None:
        """More than is kept: nothing grows without a bound."""
        if self._x.endpoint == "passthrough":
            self._body.data.clear()
            del self._body.marks[:]
            self._x.capture = "off"
            return
        limit = f"{MAX_KEPT_BYTES >> 20} MiB"
        self.failure = Failure("bad_answer", f"The provider's stream is over {limit} long.")
        self._call.abort()

    def slow(self, slow: bool) -> None:
        """The caller fell behind, or caught up."""
        if slow:
            self._call.pause()
        else:
            self._call.resume()

    def rest(self) -> None:
        """The provider's stream has ended: send what was still held. Raises Failure."""
        if out := self._stream.finish():
            self._send(out, self._now_ns())

    def _send(self, out: bytes, now: int) -> None:
        if not self.began:
            self.began = True
            self._x.first_ns = now
            self._begin()
        self._caller.push(out)
        if self._reply is not None:
            self._reply.add(out, now)
