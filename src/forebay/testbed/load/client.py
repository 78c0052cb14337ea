"""HTTP connections of the load driver: raw protocol, httptools, kept alive.

Not the gateway's upstream pool: a load driver must not share its faults with what it
measures. It knows bodies as bytes, retries nothing and judges nothing.
"""

import asyncio
import ssl
from collections import deque
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools
import msgspec

from forebay.world import World

CONNECT_TIMEOUT_S = 5.0  # the SDK's


class Target(msgspec.Struct, frozen=True):
    """Where requests go, and what all of them carry."""

    host: str
    port: int
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, base_url: str, path: str, headers: dict[str, str]) -> "Target":
        parts = urlsplit(base_url)
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if tls else 80)
        return cls(parts.hostname or "", port, parts.path + path, tuple(headers.items()), tls)

    def head(self) -> bytes:
        """Everything of a request before the length of its body."""
        lines = [f"POST {self.path} HTTP/1.1", f"host: {self.host}:{self.port}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines += ["content-type: application/json", "content-length: "]
        return "\r\n".join(lines).encode("latin-1")


class Sink(Protocol):
    """Who waits for one answer."""

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None: ...

    def body(self, data: bytes) -> None: ...

    def done(self) -> None:
        """The body ended as HTTP ends one."""

    def lost(self) -> None:
        """The connection ended before the answer did."""


class Connection(asyncio.Protocol):
    """One connection: free, or waiting for one answer."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._sink: Sink | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self.lost = False

    def send(self, request: bytes, sink: Sink) -> None:
        # A parser of its own for each answer: one that failed must not spoil the next.
        self._parser = httptools.HttpResponseParser(self)
        self._headers = []
        self._sink = sink
        self._transport.write(request)

    def abandon(self) -> None:
        """The caller does not want the answer any more."""
        self._sink = None
        self._transport.abort()

    # -- transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._sink is None:
            self._transport.abort()  # bytes that nobody asked for
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        sink, self._sink = self._sink, None
        self._pool.closed(self)
        if sink is not None:
            sink.lost()

    # -- parser

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._sink is not None:
            self._sink.head(self._parser.get_status_code(), self._headers)

    def on_body(self, data: bytes) -> None:
        if self._sink is not None:
            self._sink.body(data)

    def on_message_complete(self) -> None:
        sink, self._sink = self._sink, None
        if self._parser.should_keep_alive():
            self._pool.free(self)
        else:
            self._transport.close()
        if sink is not None:
            sink.done()


class Waiting(Protocol):
    def connected(self, connection: Connection) -> None: ...

    def unreachable(self) -> None: ...


class Pool:
    """Connections to one target: the one that was used last first, at most `limit`."""

    def __init__(self, world: World, target: Target, limit: int) -> None:
        self._world = world
        self._target = target
        self._limit = limit
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._opening = 0
        self._queue: deque[Waiting] = deque()
        self.opened = 0

    def ask(self, waiting: Waiting) -> None:
        """A connection for `waiting`, now or later."""
        while self._idle:
            connection = self._idle.pop()
            if connection in self._all:
                waiting.connected(connection)
                return
        self._queue.append(waiting)
        self._open_more()

    def withdraw(self, waiting: Waiting) -> None:
        if waiting in self._queue:
            self._queue.remove(waiting)

    def free(self, connection: Connection) -> None:
        if self._queue:
            self._queue.popleft().connected(connection)
        else:
            self._idle.append(connection)

    def closed(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._open_more()

    def close(self) -> None:
        self._queue.clear()
        for connection in list(self._all):
            connection.abandon()

    def _open_more(self) -> None:
        while len(self._queue) > self._opening and len(self._all) + self._opening < self._limit:
            self._opening += 1
            self._world.spawn(self._open(), "load driver connects")

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        target = self._target
        connection: Connection | None = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                host, port = (await self._world.resolve(target.host, target.port))[0]
                _, connection = await loop.create_connection(
                    lambda: Connection(self),
                    host,
                    port,
                    ssl=target.tls,
                    server_hostname=target.host if target.tls else None,
                )
        except (OSError, TimeoutError):
            pass
        self._opening -= 1
        if connection is not None and not connection.lost:
            self.opened += 1
            self._all.add(connection)
            self.free(connection)
        elif self._queue:
            self._queue.popleft().unreachable()
