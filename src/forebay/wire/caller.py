"""The app's handle on one request: its body, and the reply to it.

ASGI has one way to send, a coroutine and a dict for each piece, and one way to learn that the
caller left, a second task that waits for it. Here both are plain functions: a relayed event
costs no task switch, and whoever answers is told at once by `on_gone`.
docs/decisions/0004-caller.md has the numbers.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from forebay.errors import Failure
from forebay.exchange import Headers

_log = logging.getLogger("forebay.server")

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
Render = Callable[[Failure], bytes]
"""A failure that no endpoint owns, as a JSON body."""


class Line(Protocol):
    """What a Caller needs of its connection (`server.Connection`)."""

    transport: asyncio.Transport
    flow: FlowControl
    server_state: ServerState
    render: Render

    def hang_up(self) -> None:
        """Close such that what was sent is still read."""

    def on_response_complete(self) -> None:
        """The next request may begin."""


class Caller:
    """One request and the reply to it.

    The reply is either `reply` (everything at once) or `start`, `push`…, `finish`. All are
    plain functions; after the caller has left they do nothing.
    """

    __slots__ = (
        "_chunked",
        "_connection",
        "_default_headers",
        "_head_only",
        "_http_11",
        "_waiter",
        "body",
        "disconnected",
        "flow",
        "headers",
        "keep_alive",
        "more_body",
        "on_gone",
        "on_slow",
        "refusal",
        "response_complete",
        "response_started",
        "task",
        "transport",
    )

    def __init__(
        self,
        connection: Line,
        method: str,
        version: str,
        keep_alive: bool,
        headers: Headers,
    ) -> None:
        self._connection = connection
        self._default_headers = connection.server_state.default_headers
        self._waiter: asyncio.Future[None] | None = None
        self._chunked = False
        # Not the scope, which holds this object: each request would be a cycle for the
        # garbage collector.
        self._head_only = method == "HEAD"
        self._http_11 = version == "1.1"
        self.transport = connection.transport
        self.flow = connection.flow
        self.keep_alive = keep_alive
        self.headers = headers
        self.body: bytes | bytearray = b""
        self.more_body = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self.refusal: Failure | None = None
        #: what answers the request; cancel it and the request is cancelled
        self.task: asyncio.Task[None] | None = None
        #: called when the caller leaves before its reply is complete
        self.on_gone: Callable[[], object] | None = None
        #: called with True when the caller falls behind, with False when it has caught up
        self.on_slow: Callable[[bool], None] | None = None

    async def read(self) -> bytes:
        """The whole body. Raises Failure: slow_request, body_too_large; ConnectionError
        where the caller left in the middle of it."""
        # Asked only where a body is missing: nearly every request arrives in one piece.
        if self.more_body and self._waits_for_leave() and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while self.more_body:
            if self.refusal is not None:
                self.keep_alive = False  # the rest of the body is not worth reading
                raise self.refusal
            if self.disconnected:
                raise ConnectionError("the caller left before its request was complete")
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return bytes(self.body)

    def _waits_for_leave(self) -> bool:
        return any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in self.headers
        )

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def run(self, app: ASGIApp, scope: Any) -> None:
        try:
            await app(scope, _unused, _unused)
        except Exception:
            _log.exception("a request failed outside of the pipeline")
            if self.response_started:
                self.abort()
            else:
                body = self._connection.render(Failure("internal", "The gateway failed."))
                self.reply(500, [(b"content-type", b"application/json")], body)

    @property
    def paused(self) -> bool:
        """The caller reads more slowly than it is sent to: hold back."""
        return self.flow.write_paused

    def reply(self, status: int, headers: Headers, body: bytes) -> None:
        """A complete reply in one write. Sync, ~2 µs."""
        if self.response_started or self.disconnected:
            return
        if self.more_body:
            self.keep_alive = False  # nobody reads the rest
        head = self._head(status, headers, b"content-length: %d\r\n\r\n" % len(body))
        self.transport.write(head if self._head_only else head + body)
        self._complete()

    def start(self, status: int, headers: Headers) -> None:
        """Begin a reply of unknown length."""
        if self.response_started or self.disconnected:
            return
        if status in (204, 304):
            self._head_only = True
        self._chunked = self._http_11 and not self._head_only
        if not self._chunked and not self._head_only:
            self.keep_alive = False
        framing = b"transfer-encoding: chunked\r\n\r\n" if self._chunked else b"\r\n"
        self.transport.write(self._head(status, headers, framing))

    def push(self, data: bytes) -> None:
        """One piece of the body, on the wire as a chunk of its own. Sync, ~1 µs + the write."""
        if self.disconnected or self._head_only or not data:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self.transport.write(data)

    def finish(self) -> None:
        """The body is complete."""
        if self.response_complete or self.disconnected:
            return
        if self._chunked:
            self.transport.write(b"0\r\n\r\n")
        self._complete()

    def abort(self) -> None:
        """Close without finishing: a broken answer must not look like a whole one."""
        self.keep_alive = False
        self.transport.abort()

    def _head(self, status: int, headers: Headers, framing: bytes) -> bytes:
        parts = [STATUS_LINE[status]]
        for name, value in self._default_headers:
            parts += (name, b": ", value, b"\r\n")
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(framing)
        head = b"".join(parts)
        # Values come from providers and from callers' model names. Who makes them cleans them;
        # a line break that got through would make one reply look like two.
        if head.count(b"\n") != head.count(b"\r\n") or head.count(b"\n") != (
            1
            + len(self._default_headers)
            + len(headers)
            + (not self.keep_alive)
            + framing.count(b"\n")
        ):
            raise ValueError("a response header holds a line break")
        self.response_started = True
        return head

    def _complete(self) -> None:
        self.response_complete = True
        self.task = None  # which holds this object
        if not self.keep_alive:
            self._connection.hang_up()
        self._connection.on_response_complete()


async def _unused(*_: Any) -> Any:
    """The data plane's app reads and replies by `Caller`."""
    raise RuntimeError("use scope['extensions']['forebay']")
