"""Providers that are nothing but bytes: what a test hands to the pool and sees of it.

A `Script` says what each connection answers to each request, piece by piece; a `Provider`
serves it in virtual time or over real sockets and writes down what it was sent. `ask` is one
call as a relay makes it, and `Outcome` all that can be known of how it went.
"""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from forebay.wire.pool import Origin, Proxy, Target
from forebay.wire.upstream import Clocks, LinkError
from forebay.world import World

HOST = "127.0.0.1"
REQUEST = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
FOREVER_NS = 2**62


def clocks(
    connect_s: float = 10, first_s: float = 10, idle_s: float = 10, total_at_ns: int = FOREVER_NS
) -> Clocks:
    return Clocks(connect_s, first_s, idle_s, total_at_ns)


def ok(body: bytes = b"ok", *headers: bytes) -> bytes:
    """A small complete answer."""
    lines = [b"HTTP/1.1 200 OK", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@dataclass(frozen=True)
class Answer:
    """What follows one request: pieces, each in a turn of its own, and then perhaps an end."""

    pieces: Sequence[bytes]
    then: str = ""  # "" keep open · "close" · "reset"
    after_s: float = 0.0  # before the first piece


SILENCE = Answer([])


class Peer(asyncio.Protocol):
    """The provider's end of one connection; requests are told apart by their empty line."""

    def __init__(self, provider: "Provider", answers: Sequence[Answer]) -> None:
        self.provider = provider
        self.answers = list(answers)
        self.received = b""
        self.asked = 0
        self.error: Exception | None = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.provider.peers.append(self)
        self.provider.changed.set()

    def data_received(self, data: bytes) -> None:
        self.received += data
        while self.asked < self.received.count(b"\r\n\r\n"):
            answer = self.answers[min(self.asked, len(self.answers) - 1)]
            self.asked += 1
            if answer.after_s:
                asyncio.get_running_loop().call_later(answer.after_s, self.give, answer)
            else:
                self.give(answer)
        self.provider.changed.set()

    def give(self, answer: Answer) -> None:
        for piece in answer.pieces:
            self.transport.write(piece)
        if answer.then == "close":
            self.transport.close()
        elif answer.then == "reset":
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.lost.set()
        self.provider.changed.set()


class Provider:
    """Listens, and gives the connections their answers in turn, the last one for all that
    follow. Use as `async with Provider(...) as provider`."""

    def __init__(
        self,
        *connections: Sequence[Answer],
        host: str = HOST,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.connections = connections or ([Answer([ok()])],)
        self.host = host
        self.port = port
        self.tls = tls
        self.peers: list[Peer] = []
        self.accepted = 0
        self.changed = asyncio.Event()

    async def __aenter__(self) -> "Provider":
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(self.accept, self.host, self.port, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for peer in self.peers:
            if not peer.lost.is_set():
                peer.transport.abort()
            await peer.lost.wait()
        await self.server.wait_closed()

    def accept(self) -> Peer:
        script = self.connections[min(self.accepted, len(self.connections) - 1)]
        self.accepted += 1
        return Peer(self, script)

    async def has_peers(self, number: int) -> None:
        """Until so many connections were accepted."""
        while len(self.peers) < number:
            self.changed.clear()
            await self.changed.wait()

    async def was_asked(self, number: int) -> None:
        """Until so many requests came, on all connections together."""
        while sum(peer.asked for peer in self.peers) < number:
            self.changed.clear()
            await self.changed.wait()

    def origin(
        self, host: str = HOST, tls: ssl.SSLContext | None = None, proxy: Proxy | None = None
    ) -> Origin:
        return Origin(host, self.port, tls, proxy)


@dataclass
class Outcome:
    """How a call went: `error` is the kind of LinkError, "" where the answer was complete."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    error: str = ""
    answered: bool = False
    message: str = ""
    took_ns: int = 0

    def brief(self) -> tuple[Any, ...]:
        return (self.status, self.headers, self.body, self.error)


async def ask(
    world: World,
    target: Target,
    method: str = "GET",
    head: bytes = REQUEST,
    body: bytes = b"",
    limits: Clocks | None = None,
) -> Outcome:
    """One call, relayed to the end."""
    seen = Outcome()
    start_ns = world.now_ns()
    pieces: list[bytes] = []
    try:
        call = await target.call(method, head, body, limits or clocks())
        seen.status = call.status
        seen.headers = list(call.headers)
        await call.relay(pieces.append)
        assert call.headers == seen.headers  # a head once read stays as it was
    except LinkError as error:
        seen.error = error.kind
        seen.answered = error.answered
        seen.message = str(error)
    seen.body = b"".join(pieces)
    seen.took_ns = world.now_ns() - start_ns
    return seen
