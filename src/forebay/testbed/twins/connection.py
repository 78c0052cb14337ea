"""One connection to a twin: HTTP/1.1 in, over httptools; bodies out, whole or as a stream.

It answers one request at a time and holds those that were sent before the answer ended
(pipelining). It trusts nobody: request heads and bodies have bounds, and what is no HTTP
gets a 400 and is closed. A peer that sends EOF is gone: callers of language models do not
half-close and then read on.
"""

import asyncio
from collections import deque
from http import HTTPStatus
from typing import Protocol, cast

import httptools
import msgspec

from forebay.testbed.twins.facts import MAX_BODY
from forebay.testbed.twins.link import Link
from forebay.testbed.twins.question import Headers
from forebay.world import World

_MAX_HEAD = 64 * 1024
_MAX_PIPELINED = 16
_HIGH_WATER = 64 * 1024

_REASONS = {status.value: status.phrase for status in HTTPStatus} | {529: "Overloaded"}
_LAST_CHUNK = b"0\r\n\r\n"


class HttpRequest(msgspec.Struct):
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]  # names in lower case
    body: bytes
    keep_alive: bool = True

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


class Exchange(Protocol):
    """What the connection tells whoever answers the current request."""

    def gone(self) -> None:
        """The peer left before the answer was over."""

    def writable(self) -> None:
        """The peer reads again."""


class Server(Protocol):
    """What a connection needs of the twin."""

    world: World
    bytes_per_s: int | None

    def connected(self, connection: "Connection") -> int:
        """A new connection; its number."""

    def disconnected(self, connection: "Connection") -> None: ...

    def serve(self, request: HttpRequest, connection: "Connection") -> Exchange | None:
        """Begin to answer; None where it has been answered already."""


class Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[HttpRequest] = deque()
        self._exchange: Exchange | None = None
        self._busy = False
        self._keep_alive = True
        self.paused = False
        self._reset_request()

    # -- transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self.link = Link(self._server.world, self._transport, self._server.bytes_per_s)
        self.number = self._server.connected(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "this server does not upgrade connections")
        except httptools.HttpParserError as error:
            self._refuse(400, f"not an HTTP/1.1 request: {error}")

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.link.drop()
        self._waiting.clear()
        self._end_exchange()
        self._server.disconnected(self)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self._exchange is not None:
            self._exchange.writable()

    # -- parser

    def on_message_begin(self) -> None:
        self._reset_request()

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))
        self._count_head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        for name, value in self._headers:
            if name == "expect" and value.lower() == "100-continue" and not self._busy:
                self.link.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        if self._body_size > MAX_BODY:
            self._refuse(413, f"the body is over {MAX_BODY} bytes")
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._transport.is_closing():
            return
        path, _, query = self._url.decode("latin-1").partition("?")
        request = HttpRequest(
            method=self._parser.get_method().decode("latin-1"),
            path=path,
            query=query,
            headers=self._headers,
            body=self._body[0] if len(self._body) == 1 else b"".join(self._body),
            keep_alive=self._parser.should_keep_alive(),
        )
        if not self._busy:
            self._serve(request)
        elif len(self._waiting) < _MAX_PIPELINED:
            self._waiting.append(request)
        else:
            self._refuse(400, f"over {_MAX_PIPELINED} requests sent ahead")

    # -- answers

    def respond(
        self, status: int, headers: Headers, body: bytes, content_type: str = "application/json"
    ) -> None:
        """A whole answer, in one write."""
        self.link.write(
            self._head(status, headers, content_type)
            + b"content-length: %d\r\n\r\n" % len(body)
            + body
        )
        self.finish()

    def respond_in_part(self, status: int, headers: Headers, body: bytes, sent: int) -> None:
        """An answer that promises `body` and holds only its first `sent` bytes; the caller
        closes the connection."""
        self.link.write(
            self._head(status, headers, "application/json")
            + b"content-length: %d\r\n\r\n" % len(body)
            + body[:sent]
        )

    def begin(self, status: int, headers: Headers, first: bytes = b"") -> None:
        """The head of an event stream, and its first bytes in the same write."""
        self.link.write(
            self._head(status, headers, "text/event-stream; charset=utf-8")
            + b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
            + (b"%x\r\n%b\r\n" % (len(first), first) if first else b"")
        )

    def chunk(self, data: bytes) -> None:
        """More of a stream. Sync, one write."""
        self.link.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self, last: bytes = b"") -> None:
        """The stream is over, with its last bytes in the same write."""
        head = b"%x\r\n%b\r\n" % (len(last), last) if last else b""
        self.link.write(head + _LAST_CHUNK)
        self.finish()

    def close(self) -> None:
        """Close inside the body, after what was written."""
        self._exchange = None
        self.link.close()

    def reset(self) -> None:
        self._exchange = None
        self.link.reset()

    def finish(self) -> None:
        """The answer is over: the next request, or the end of the connection."""
        self._exchange = None
        self._busy = False
        if not self._keep_alive:
            self.link.close()
        elif self._waiting:
            self._server.world.call_later(0, self._next)

    def _next(self) -> None:
        if self._waiting and not self._busy and not self._transport.is_closing():
            self._serve(self._waiting.popleft())

    def _serve(self, request: HttpRequest) -> None:
        self._busy = True
        self._keep_alive = request.keep_alive
        exchange = self._server.serve(request, self)
        if self._busy:  # else it was answered in place
            self._exchange = exchange

    def _head(self, status: int, headers: Headers, content_type: str) -> bytes:
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in headers]
        lines.append(f"content-type: {content_type}\r\n")
        if not self._keep_alive:
            lines.append("connection: close\r\n")
        return "".join(lines).encode("latin-1")

    def _refuse(self, status: int, why: str) -> None:
        if self._transport.is_closing():
            return
        self._keep_alive = False
        self._end_exchange()
        self.respond(status, [], msgspec.json.encode({"error": {"message": why}}))

    def _end_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.gone()

    def _count_head(self, size: int) -> None:
        self._head_size += size
        if self._head_size > _MAX_HEAD:
            self._refuse(431, f"the request's head is over {_MAX_HEAD} bytes")

    def _reset_request(self) -> None:
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []
        self._body_size = 0
        self._head_size = 0
