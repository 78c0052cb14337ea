"""The caller's side of the wire: uvicorn's HTTP protocol, with what it lacks.

uvicorn (httptools) parses, keeps alive, pipelines and pauses. It has no clock before the
first response, no bound on connections or heads, no way to learn at once that a caller has
left, and one way to send: a coroutine and a dict for each piece. Added here:

- clocks: a head must be complete `head_s` after accept (or after its own first byte on a
  kept-alive connection), a body `body_s` after its head;
- bounds: connections, bytes and number of headers, bytes of a body;
- refusals in JSON, as the rest of the gateway's, for what never reaches the app, and an end
  to the connection such that a caller who is still sending can read them;
- offers to switch protocols, which Java's client and curl make, are declined by going on;
- `Caller` (caller.py), the app's handle on one request, in `scope["extensions"]["forebay"]`.

The app stays ASGI (scope, lifespan); `Caller` replaces `receive` and `send` on the data
plane. docs/decisions/0004-caller.md has the numbers.
"""

import asyncio
import socket
from collections import deque
from typing import Annotated, Any
from urllib.parse import unquote

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from forebay.errors import Failure
from forebay.wire.caller import Caller, Render
from forebay.wire.clock import SECOND_NS, Deadline
from forebay.world import World

_ASGI = {"version": "3.0", "spec_version": "2.3"}

Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class ServerLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds on callers. Seconds and bytes; a caller over one is told which."""

    #: until a request's head is complete
    head_s: Seconds = 10.0
    #: from its head until its body is complete
    body_s: Seconds = 60.0
    #: an idle connection is held this long for the next request
    keep_alive_s: Seconds = 75.0
    #: most connections of callers at once, per worker
    connections: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10_000
    #: most bytes of a request's head
    head_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1 << 20)] = 64 * 1024
    #: most headers of a request
    headers: Annotated[int, msgspec.Meta(ge=10, le=10_000)] = 100
    #: most bytes of a request's body
    body_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1 << 30)] = 32 * 1024 * 1024


#: How long a caller that is still sending may go on, so that it hears why it is refused.
LINGER_S = 2.0


class Connection(HttpToolsProtocol):
    """One caller's connection."""

    cycle: Caller | None  # type: ignore[assignment]  # the request that is read, or was last

    def __init__(
        self, world: World, limits: ServerLimits, render: Render, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.world = world
        self.limits = limits
        self.render = render
        self.deadline = Deadline(world, self._expired)
        self.awaiting = "head"  # head | body | reply | next | end
        #: bytes since a message or a piece of body: of a head, chunk extensions, trailers
        self.head_bytes = 0
        self.switching = False  # the head offers another protocol
        self.unsent = 0  # bytes that the caller had not taken when the end began
        #: the request that is being answered; `cycle` is ahead of it where they are pipelined
        self.answered: Caller | None = None
        #: pipelined requests that wait for the one before them
        self.queue: deque[tuple[Caller, dict[str, Any]]] = deque()

    # -- connection ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is None and not _is_unix(transport):
            # Gone already, and nobody knows who it was: not to be taken for a local program.
            transport.abort()
            return
        if len(self.connections) > self.limits.connections:
            self._refuse(
                Failure(
                    "overloaded",
                    f"All {self.limits.connections} connections are in use.",
                    hint="Retry shortly, or reuse connections.",
                    retry_after_s=1.0,
                )
            )
            return
        self._wait_for("head", self.limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.deadline.close()
        self.flow.resume_writing()
        self.parser = None  # type: ignore[assignment]  # it holds this object, and this it
        for cycle in (self.answered, *(queued for queued, _ in self.queue)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.wake()
                if cycle.on_gone is not None:
                    cycle.on_gone()
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.answered is not None and self.answered.on_slow is not None:
            self.answered.on_slow(True)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.answered is not None and self.answered.on_slow is not None:
            self.answered.on_slow(False)

    def data_received(self, data: bytes) -> None:
        before = self.awaiting
        if before == "next":
            before, self.awaiting = "", "head"
        elif before == "end":
            return
        self.head_bytes += len(data)
        try:
            while data:
                try:
                    self.parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as offer:
                    if self.parser.get_method() == b"CONNECT":
                        self._refuse(Failure("bad_request", "This server is no proxy."))
                        return
                    data = self._declined() + data[offer.args[0] :]
                    self.parser = httptools.HttpRequestParser(self)
        except httptools.HttpParserError as error:
            cause = error.__context__
            if not isinstance(cause, Failure):
                cause = Failure("bad_request", f"This is not valid HTTP/1.1: {error}.")
            self._refuse(cause)
            return
        # Clocks are set for where the parser has come to, so that a request which arrives
        # in one piece sets none.
        now = self.awaiting
        if self.head_bytes > self.limits.head_bytes:
            self._refuse(self._head_too_large())
        elif now == "head" and before != "head":
            self._wait_for("head", self.limits.head_s)
        elif now == "body" and before != "body" and not self.queue:
            self._wait_for("body", self.limits.body_s)

    def _declined(self) -> bytes:
        """The head just read, without its offer to switch protocols.

        Java's client and curl offer h2c with their first request. RFC 9110 section 7.8 lets a
        server go on in HTTP/1.1; the parser doesn't, it takes the body for the new protocol.
        """
        parser, self.switching = self.parser, False
        head = b"%b %b HTTP/%b\r\n" % (
            parser.get_method(),
            self.url,
            parser.get_http_version().encode(),
        )
        for name, value in self.headers:
            if name == b"connection":
                value = b"close" if b"close" in value.lower() else b"keep-alive"
            if name != b"upgrade":
                head += b"%b: %b\r\n" % (name, value)
        return head + b"\r\n"

    # -- parser callbacks ----------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = self.parser
        if parser.should_upgrade():
            self.switching = True  # see `_declined`
            return
        headers = self.headers
        if len(headers) > self.limits.headers:
            raise self._head_too_large()
        self.headers = []  # for trailers: what comes after the body is no header
        version = parser.get_http_version()
        url = self.url if self.url.startswith(b"/") else _origin_form(self.url)
        raw_path, _, query = url.partition(b"?")
        path = raw_path.decode("ascii", "replace")
        previous = self.cycle
        method = parser.get_method().decode("ascii")
        keep_alive = version != "1.0" and parser.should_keep_alive()
        cycle = self.cycle = Caller(self, method, version, keep_alive, headers)
        scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": method,
            "scheme": "http",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
            "client": self.client,
            "server": self.server,
            "extensions": {"forebay": cycle},
        }
        self.awaiting = "body"
        if previous is None or previous.response_complete:
            self._start(cycle, scope)
        else:
            # Pipelined: answered in order, one at a time, nothing read meanwhile.
            self.flow.pause_reading()
            self.queue.append((cycle, scope))

    def _start(self, cycle: Caller, scope: dict[str, Any]) -> None:
        self.answered = cycle
        task = cycle.task = self.loop.create_task(cycle.run(self.app, scope))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_body(self, body: bytes) -> None:
        self.head_bytes = 0
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.refusal is not None:
            return
        if not cycle.body:
            cycle.body = body  # nearly always all of it
        elif isinstance(cycle.body, bytearray):
            cycle.body += body
        else:
            cycle.body = bytearray(cycle.body) + body
        if len(cycle.body) > self.limits.body_bytes:
            cycle.refusal = Failure(
                "body_too_large",
                f"The body is over {self.limits.body_bytes} bytes.",
                hint="Send less at once, or raise server.body_bytes.",
            )
            cycle.body = b""
            cycle.wake()
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        if self.switching:
            return
        self.awaiting = "reply"
        self.head_bytes = 0
        self.deadline.off()
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.refusal is not None:
            return
        cycle.more_body = False
        cycle.wake()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self.awaiting == "end":
            return
        if self.queue:
            self._start(*self.queue.popleft())
            if self.queue:
                return
            if self.awaiting == "body":
                self._wait_for("body", self.limits.body_s)
        elif self.awaiting == "reply":
            self._wait_for("next", self.limits.keep_alive_s)
        else:
            # Answered before the body was complete: what is still coming belongs to nobody.
            self.hang_up()
        self.flow.resume_reading()

    def hang_up(self) -> None:
        """Close such that the caller can read what it was told.

        A socket closed while the other side still sends is reset, and the reset may overtake
        the reply (RFC 9112, section 9.6): so what still comes is thrown away for a while.
        """
        if self.transport.is_closing() or self.awaiting == "end":
            return
        self.queue.clear()
        if self.awaiting in ("reply", "next"):
            self.transport.close()  # all that came was read
        else:
            self.transport.write_eof()
            self.flow.resume_reading()
        self._wait_for_end()

    # -- clocks and refusals -------------------------------------------------------------

    def _wait_for(self, what: str, seconds: float) -> None:
        self.awaiting = what
        self.deadline.set(self.world.now_ns() + int(seconds * SECOND_NS))

    def _wait_for_end(self) -> None:
        """What the caller has not taken yet is held as long as it takes some of it."""
        self.unsent = self.transport.get_write_buffer_size()
        self._wait_for("end", self.limits.keep_alive_s if self.unsent else LINGER_S)

    def _expired(self) -> None:
        if self.awaiting == "end":
            if 0 < self.transport.get_write_buffer_size() < self.unsent:
                self._wait_for_end()
            else:
                self.transport.abort()
            return
        if self.transport.is_closing():
            return
        if self.awaiting == "head" and self.head_bytes:
            limit = f"server.head_s is {self.limits.head_s:g} s"
            self._refuse(Failure("slow_request", f"The request head took too long: {limit}."))
        elif self.awaiting == "body" and self.cycle is not None:
            self.cycle.refusal = Failure(
                "slow_request",
                f"The body took too long: server.body_s is {self.limits.body_s:g} s.",
            )
            self.cycle.wake()
        else:
            self.awaiting = "next"
            self.hang_up()

    def _head_too_large(self) -> Failure:
        return Failure(
            "headers_too_large",
            f"The request head is over {self.limits.head_bytes} bytes "
            f"or {self.limits.headers} headers.",
        )

    def _refuse(self, failure: Failure) -> None:
        """Answer without the app, and close: where parsing failed nothing after it counts."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            self.flow.pause_reading()
            if cycle.more_body:  # it is this request that is broken: the app says so
                cycle.refusal = cycle.refusal or failure
                cycle.wake()
            else:  # a complete one is answered first; what follows it has no place
                cycle.keep_alive = False
            return
        body = self.render(failure)
        head = STATUS_LINE[failure.code.status] + (
            b"content-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n" % len(body)
        )
        if failure.retry_after_s is not None:
            head += b"retry-after: %d\r\n" % max(1, round(failure.retry_after_s))
        self.transport.write(head + b"\r\n" + body)
        self.hang_up()

    def send_400_response(self, msg: str) -> None:
        self._refuse(Failure("bad_request", msg))


def _is_unix(transport: asyncio.BaseTransport) -> bool:
    there = transport.get_extra_info("socket")
    return there is not None and there.family == socket.AF_UNIX


def _origin_form(url: bytes) -> bytes:
    """`http://host/path?query` as clients send it to a proxy, as `/path?query`."""
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        return b"/"
    query = b"?" + parsed.query if parsed.query else b""
    return (parsed.path or b"/") + query
