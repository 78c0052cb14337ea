"""One connection to a provider, and the one request that is on it.

States, and what moves between them:

    IDLE ──request()──▶ AWAITING ──head──▶ BODY ──end──▶ IDLE      (kept alive)
      │                    │                │     └────▶ CLOSED    (not reusable)
      └── peer closes ─────┴── peer closes, clock, cancel ─▶ CLOSED

Bytes are parsed by httptools (llhttp); what it leaves open is decided here: how a body ends
(`Framing`), limits on the head, 1xx responses, answers to HEAD, unasked compression.

A body is taken in one of two ways. `read_all` waits for the whole of it. `relay` calls a
plain function with each piece right from the socket's callback: no future, no task switch
for each of a stream's events, which is what keeps a relayed event near the cost of its two
system calls. Backpressure is `pause` and `resume`, which stop and start the socket.

Nothing is decoded beyond HTTP; nothing is decided about retries. That is the pool's and the
pipeline's business, and `LinkError` carries what they need to know.
"""

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, Literal

import httptools

from forebay.exchange import Headers
from forebay.wire.clock import SECOND_NS, Deadline
from forebay.world import World

MAX_HEAD_BYTES = 64 * 1024  # nginx: 4 or 8 KB a line; providers send up to ~6 KB in all
MAX_HEADERS = 128
_BLANK = (b" ", b"\t")
MAX_BODY_BYTES = 64 * 1024 * 1024

Kind = Literal[
    "dns",
    "refused",
    "tls",
    "proxy",
    "pool_full",
    "connect_timeout",
    "first_byte_timeout",
    "idle_timeout",
    "total_timeout",
    "reset",
    "protocol",
    "truncated",
    "too_large",
    "given_up",
]


class LinkError(Exception):
    """A call that failed below HTTP.

    `kind` says how; `answered` is True once any byte of the response had arrived, after
    which the request must be taken as executed.
    """

    def __init__(self, kind: Kind, message: str, answered: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.answered = answered


class Clocks:
    """Deadlines of one attempt, in seconds: how long each wait may take.

    `connect` until the connection stands (DNS, TCP, TLS, proxy); `first` from the request
    until the first content byte (the wire only knows the first body byte: the relay moves the clock
    on content); `idle` between content; `total_at_ns` is absolute, the caller's own deadline.
    """

    __slots__ = ("connect_s", "first_s", "idle_s", "total_at_ns")

    def __init__(self, connect_s: float, first_s: float, idle_s: float, total_at_ns: int) -> None:
        self.connect_s = connect_s
        self.first_s = first_s
        self.idle_s = idle_s
        self.total_at_ns = total_at_ns


class Call:
    """One request and its answer. Outlives its place on the connection, which may already
    carry the next request when the answer is read."""

    __slots__ = (
        "_connection",
        "_waiter",
        "answered",
        "clocks",
        "ended",
        "error",
        "head_done",
        "headers",
        "method",
        "pieces",
        "progress_ns",
        "sink",
        "size",
        "status",
    )

    def __init__(self, connection: "Connection", method: str, clocks: Clocks) -> None:
        self._connection: Connection | None = connection
        self._waiter: asyncio.Future[None] | None = None
        self.method = method
        self.clocks = clocks
        self.status = 0
        self.headers: Headers = []
        self.answered = False  # any byte of the answer arrived
        self.head_done = False
        self.ended = False
        self.error: LinkError | None = None
        self.pieces: list[bytes] = []
        self.size = 0
        self.progress_ns = 0  # when content last arrived, 0: see `progress`
        self.sink: Callable[[bytes], None] | None = None

    async def head(self) -> None:
        """Wait for status and headers. Raises LinkError."""
        while not self.head_done:
            if self.error is not None:
                raise self.error
            await self._wait()

    async def read_all(self, limit: int = MAX_BODY_BYTES) -> bytes:
        """The whole body. Raises LinkError (too_large, truncated, …)."""
        while not self.ended:
            if self.error is not None:
                raise self.error
            if self.size > limit:
                break
            await self._wait()
        if self.size > limit:
            self.abort()
            raise LinkError("too_large", f"the answer is over {limit} bytes", True)
        pieces, self.pieces = self.pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def relay(self, sink: Callable[[bytes], None]) -> None:
        """Hand each piece of the body to `sink` as it arrives, until the end.

        `sink` must not raise. Raises LinkError where the body does not end properly;
        everything that came before it has then been handed over.
        """
        self.sink = sink
        try:
            self.deliver()
            while not self.ended:
                if self.error is not None:
                    raise self.error
                await self._wait()
        finally:
            self.sink = None  # which holds this object

    def progress(self) -> None:
        """Content arrived: the between-tokens clock starts anew. Sync, ~0.3 µs."""
        if self._connection is not None and not self._connection.paused:
            self._connection.set_clock("idle_timeout", self.clocks, self.clocks.idle_s)

    def pause(self) -> None:
        """Stop reading: the caller is slower than the provider. The idle clock stops too, for
        a slow reader is not the provider's fault; the total clock goes on."""
        if self._connection is not None:
            self._connection.pause(self.clocks)

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume()
            self.progress()

    def abort(self) -> None:
        """Give it up at once: the provider sees its connection closed. Idempotent, and
        nothing where the answer had ended: that connection may be another's by now."""
        if self._connection is not None:
            self._connection.abort()

    # -- the connection's side -----------------------------------------------------------

    def deliver(self) -> None:
        if self.pieces and self.sink is not None:
            pieces, self.pieces = self.pieces, []
            self.sink(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def leave(self) -> None:
        """The connection has no more to say about this call."""
        self._connection = None
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            self._waiter = None


class Connection(asyncio.BaseProtocol):
    """Made by the pool; carries one call at a time.

    `on_free` is called when a call has ended and the connection may carry the next, or is
    closed: look at `closed`.
    """

    def __init__(self, world: World, on_free: Callable[["Connection"], None]) -> None:
        # -- life of the connection
        self.world = world
        self.on_free = on_free
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self.requests = 0  # how many were started on it
        self.deadline = Deadline(world, self._expired)
        self._parser = httptools.HttpResponseParser(self)
        self.paused = False
        # -- life of a call
        self.call: Call | None = None
        self._clock: Kind = "first_byte_timeout"
        self._until_close = False
        self._keep = False  # the answer was complete and leaves the connection usable
        self._bare_bytes = 0  # since the last piece of body: head, trailers, chunk extensions
        self._body_came = False
        self._headers: Headers = []  # of a head that isn't complete, or trailers
        self._inflate: Any = None  # zlib.decompressobj, whose type has no public name

    def __repr__(self) -> str:
        state = "CLOSED" if self.closed else "IDLE" if self.call is None else "BUSY"
        return f"<Connection {state}, {self.requests} requests>"

    def request(self, method: str, head: bytes, body: bytes, clocks: Clocks) -> Call:
        """Send one request; the connection must be free. Sync."""
        assert self.call is None
        assert self.transport is not None
        call = self.call = Call(self, method, clocks)
        self._until_close = False
        self._keep = False
        self._bare_bytes = 0
        self._headers = []
        self._inflate = None
        self.requests += 1
        self.set_clock("first_byte_timeout", clocks, clocks.first_s)
        if len(body) < 65536:
            self.transport.write(head + body)
        else:  # not copied once more to be joined
            self.transport.write(head)
            self.transport.write(body)
        return call

    def set_clock(self, kind: Kind, clocks: Clocks, seconds: float) -> None:
        at_ns = self.world.now_ns() + int(seconds * SECOND_NS)
        if at_ns < clocks.total_at_ns:
            self._clock = kind
        else:
            self._clock, at_ns = "total_timeout", clocks.total_at_ns
        self.deadline.set(at_ns)

    def pause(self, clocks: Clocks) -> None:
        if not self.paused and self.transport is not None and not self.closed:
            self.paused = True
            self.transport.pause_reading()
            self._clock = "total_timeout"
            self.deadline.set(clocks.total_at_ns)

    def resume(self) -> None:
        if self.paused and self.transport is not None and not self.closed:
            self.paused = False
            self.transport.resume_reading()

    def abort(self) -> None:
        """Close at once, without a word. Idempotent."""
        if self.transport is not None:
            self.transport.abort()
        self._close()

    # -- asyncio.Protocol ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes | memoryview) -> None:
        call = self.call
        if call is None:  # nobody asked: a late answer or a confused peer
            self.abort()
            return
        call.answered = True
        self._body_came = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # An answer that was complete stands; what followed it goes with the connection.
            self._keep = False
            if not call.ended:
                cause = error.__context__
                if isinstance(cause, LinkError):
                    self._fail(cause.kind, str(cause))
                elif isinstance(error, httptools.HttpParserUpgrade):
                    self._fail("protocol", "the provider switched protocols")
                else:
                    self._fail("protocol", str(error))
                return
        self._bare_bytes = 0 if self._body_came else self._bare_bytes + len(data)
        if self._bare_bytes > MAX_HEAD_BYTES and not call.ended:
            part = "trailer" if call.head_done else "head"
            self._fail("protocol", f"the response {part} is over {MAX_HEAD_BYTES} bytes")
            return
        sink = call.sink
        if sink is not None and call.pieces:
            pieces, call.pieces = call.pieces, []
            sink(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if call.ended:
            self._finish(call)
        elif call.sink is None:
            call.wake()

    def eof_received(self) -> None:
        return None  # half-closed is closed: no provider means to read on

    def connection_lost(self, exc: Exception | None) -> None:
        call = self.call
        if call is not None and call.error is None:
            if call.head_done and self._until_close and exc is None:
                if self._inflated_short():
                    self._fail("truncated", "the answer's compressed data ends too early")
                else:
                    call.ended = True
            elif call.head_done:
                self._fail("truncated", "the connection closed in the middle of the answer")
            else:
                self._fail("reset", "the connection closed before the answer")
        self._close()

    # -- httptools -----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        assert self.call is not None
        if self.call.ended:
            self._keep = False  # an answer nobody asked for, on the heels of ours

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        call = self.call
        assert call is not None
        if call.head_done:
            return
        headers, self._headers = self._headers, []  # from here on for trailers, which nobody reads
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            return  # interim; the real head follows
        if not 200 <= status < 600:
            raise LinkError("protocol", f"the response has no status of HTTP: {status}")
        framed = call.method == "HEAD" or status in (204, 304)
        if len(headers) > MAX_HEADERS:
            raise LinkError("protocol", f"the response has over {MAX_HEADERS} headers")
        for number, (name, value) in enumerate(headers):
            if value[-1:] in _BLANK:  # llhttp strips the left side only
                headers[number] = (name, value.rstrip(b" \t"))
            if name == b"content-length":
                framed = True
            elif name == b"transfer-encoding":
                if value.rstrip(b" ").lower() != b"chunked":
                    # Others were not asked for; and llhttp takes `chunked` and a tab for another.
                    raise LinkError("protocol", f"the answer comes in a transfer coding: {value!r}")
                framed = True
            elif name == b"content-encoding" and value.lower() in (b"gzip", b"x-gzip", b"deflate"):
                # Nobody asked for it. Window bits 47: zlib or gzip, whichever the data says.
                self._inflate = zlib.decompressobj(47)
        call.headers = headers
        call.status = status
        call.head_done = True
        call.ended = call.method == "HEAD"
        self._until_close = not framed

    def on_body(self, body: bytes) -> None:
        call = self.call
        assert call is not None
        if call.ended:
            return
        self._body_came = True
        if self._inflate is not None:
            body = self._inflated(body)
        call.size += len(body)
        call.pieces.append(body)

    def on_message_complete(self) -> None:
        call = self.call
        assert call is not None
        if not call.head_done or call.ended:
            return  # that was an interim response, or is beyond the end of ours
        if self._inflated_short():
            raise LinkError("truncated", "the answer's compressed data ends too early")
        call.ended = True
        # Now: once the parser has left this callback it has forgotten the message.
        self._keep = self._parser.should_keep_alive()

    # -- inside --------------------------------------------------------------------------

    def _inflated(self, data: bytes) -> bytes:
        try:
            body: bytes = self._inflate.decompress(data, MAX_BODY_BYTES)
        except zlib.error as error:
            raise LinkError("protocol", f"the answer's compression is broken: {error}") from None
        if self._inflate.unconsumed_tail:
            raise LinkError("too_large", f"the answer inflates to over {MAX_BODY_BYTES} bytes")
        return body

    def _inflated_short(self) -> bool:
        call = self.call
        assert call is not None
        return self._inflate is not None and not self._inflate.eof and call.size > 0

    def _finish(self, call: Call) -> None:
        """The answer is complete: the connection is free, or of no more use."""
        self.call = None
        call.leave()
        assert self.transport is not None
        # Unsent: the provider answered before it had read the request; it may never read on.
        unsent = self.transport.get_write_buffer_size() > 0
        if self.paused or unsent or not self._keep:
            if unsent:
                self.transport.abort()
            else:
                self.transport.close()
            self._close()
        elif not self.closed:
            self.deadline.off()
            self.on_free(self)

    def _expired(self) -> None:
        call = self.call
        if call is None:
            self.abort()  # kept alive long enough
        elif self._clock == "idle_timeout" and call.progress_ns:
            # Content came since the clock was set: it starts from there.
            since, call.progress_ns = call.progress_ns, 0
            idle_ns = int(call.clocks.idle_s * SECOND_NS)
            self.deadline.set(min(since + idle_ns, call.clocks.total_at_ns))
            if since + idle_ns >= call.clocks.total_at_ns:
                self._clock = "total_timeout"
        else:
            self._fail(self._clock, _CLOCK_MESSAGES[self._clock])

    def _fail(self, kind: Kind, message: str) -> None:
        call = self.call
        if call is not None and call.error is None:
            call.deliver()  # what came before the failure is handed over
            call.error = LinkError(kind, message, call.answered)
        self.abort()

    def _close(self) -> None:
        call, self.call = self.call, None
        if call is not None:
            if not call.ended and call.error is None:
                call.error = LinkError("given_up", "the call was given up", call.answered)
            call.leave()
        if not self.closed:
            self.closed = True
            self.deadline.close()
            self.on_free(self)


class SecureConnection(Connection):
    """A connection over TLS, which is read into one buffer.

    Without it the loop decrypts each event into a new block of 256 KB and shrinks that. One
    buffer for all connections is enough: what is in it is parsed, and its pieces copied, before
    the callback returns.
    """

    def get_buffer(self, sizehint: int) -> bytearray:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(_VIEW[:nbytes])


_BUFFER = bytearray(64 * 1024)
_VIEW = memoryview(_BUFFER)

_CLOCK_MESSAGES: dict[Kind, str] = {
    "first_byte_timeout": "no answer began in time",
    "idle_timeout": "the answer stalled",
    "total_timeout": "the deadline passed",
}
