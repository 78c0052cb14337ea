"""A caller with its hands on the wire, for tests of twins."""

import asyncio
import json
from typing import Any

import msgspec

from forebay.testbed.load.client import Connection, Pool, Target
from forebay.testbed.twins import Twin
from forebay.world import World


class Got(msgspec.Struct):
    """One answer as it came. Times in ns of the World's clock."""

    status: int = 0
    headers: dict[str, str] = {}
    body: bytes = b""
    chunks: list[bytes] = []
    times_ns: list[int] = []
    #: done: the body ended as HTTP ends one; lost: the connection ended before
    end: str = "open"
    end_ns: int = 0

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> list[Any]:
        """The decoded `data:` lines of an event stream, `[DONE]` as text."""
        lines = [line[6:] for line in self.body.split(b"\n") if line.startswith(b"data: ")]
        return ["[DONE]" if line == b"[DONE]" else json.loads(line) for line in lines]


class Call:
    """One request on its own connection; `await call.over` for its end."""

    def __init__(
        self, world: World, twin: Twin, path: str, body: Any, headers: dict[str, str]
    ) -> None:
        self.got = Got()
        self.over: asyncio.Future[Got] = asyncio.get_running_loop().create_future()
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._world = world
        self._target = Target.of(twin.base_url, path, headers)
        self._body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._pool = Pool(world, self._target, 1)
        self._pool.ask(self)
        self._connection: Connection | None = None

    def leave(self) -> None:
        assert self._connection is not None
        self._connection.abandon()

    def connected(self, connection: Connection) -> None:
        self._connection = connection
        head = self._target.head()
        connection.send(b"%b%d\r\n\r\n%b" % (head, len(self._body), self._body), self)

    def unreachable(self) -> None:
        self._end("unreachable")

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.got.status = status
        self.got.headers = {name.decode(): value.decode() for name, value in headers}
        if not self.begun.done():
            self.begun.set_result(None)

    def body(self, data: bytes) -> None:
        self.got.body += data
        self.got.chunks.append(data)
        self.got.times_ns.append(self._world.now_ns())

    def done(self) -> None:
        self._end("done")

    def lost(self) -> None:
        self._end("lost")

    def _end(self, how: str) -> None:
        self.got.end = how
        self.got.end_ns = self._world.now_ns()
        self._pool.close()
        if not self.over.done():
            self.over.set_result(self.got)


OPENAI_KEY = {"authorization": "Bearer twin-key"}
ANTHROPIC_KEY = {"x-api-key": "twin-key", "anthropic-version": "2023-06-01"}


def call(
    world: World, twin: Twin, path: str, body: Any, headers: dict[str, str] | None = None
) -> Call:
    usual = ANTHROPIC_KEY if twin.config.dialect == "anthropic" else OPENAI_KEY
    return Call(world, twin, path, body, usual if headers is None else headers)


def chat(
    world: World, twin: Twin, content: str = "hello [out:12]", stream: bool = True, **more: Any
) -> Call:
    """A chat completion (or message) of the twin's first model."""
    body = {
        "model": next(iter(twin.config.models)),
        "messages": [{"role": "user", "content": content}],
        "stream": stream,
        "max_tokens": 1_000,
    }
    path = "/v1/messages" if twin.config.dialect == "anthropic" else "/v1/chat/completions"
    return call(world, twin, path, body | more)


async def admin(twin: Twin, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
    """Status and decoded JSON of a request to `/_twin/…`."""
    head = f"{method} /_twin/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    raw = await exchange(twin, b"%bcontent-length: %d\r\n\r\n%b" % (head.encode(), len(body), body))
    answered, _, answer = raw.partition(b"\r\n\r\n")
    return int(answered.split()[1]), json.loads(answer)


async def exchange(twin: Twin, *parts: bytes) -> bytes:
    """What a twin says to raw bytes, written part by part, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", twin.port)
    for part in parts:
        writer.write(part)
        await asyncio.sleep(0)
    said = await reader.read()
    writer.close()
    return said
