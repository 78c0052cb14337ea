"""Load with raw protocols: closed-loop requests, and streams that stay open."""

import asyncio
import json
import random
from collections.abc import Iterator

import httptools
import msgspec

from forebay.testbed.overhead.upstream import WORDS
from forebay.world import RealWorld

_WORLD = RealWorld()


def now() -> float:
    """Seconds, to the nanosecond: the loop's own time ticks in milliseconds."""
    return _WORLD.now_ns() / 1e9


def bodies(size: int, stream: bool, fresh: bool, seed: int = 1) -> Iterator[bytes]:
    """Request bodies of `size` bytes; `fresh` ones are never equal, others always."""
    rng = random.Random(seed)  # noqa: S311 - word salad
    pool = [" ".join(rng.choices(WORDS, k=size)) for _ in range(64 if fresh else 1)]
    system = "You answer the questions of an electricity company's customers. " * 4
    number = 0
    while True:
        number += 1
        text = pool[number % len(pool)]
        prompt = f"{number:012d} {text}" if fresh else text
        body = {
            "model": "bench/overhead-1",
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": ""},
            ],
            "temperature": 0,
            "max_tokens": 375,
            "stream": stream,
        }
        bare = len(json.dumps(body, separators=(",", ":")))
        body["messages"][1]["content"] = prompt[: size - bare]  # type: ignore[index]
        yield json.dumps(body, separators=(",", ":")).encode()


def request(body: bytes, host: str) -> bytes:
    """As the openai SDK sends it, header for header."""
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\n"
        b"Host: %b\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n"
        b"Accept: application/json\r\nContent-Type: application/json\r\n"
        b"User-Agent: OpenAI/Python 3.57.0\r\nX-Stainless-Lang: python\r\n"
        b"X-Stainless-Package-Version: 3.57.0\r\nX-Stainless-OS: Linux\r\n"
        b"X-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\n"
        b"X-Stainless-Runtime-Version: 3.11.7\r\nX-Stainless-Async: false\r\n"
        b"x-stainless-retry-count: 0\r\nAuthorization: Bearer sk-not-a-key\r\n"
        b"Content-Length: %d\r\n\r\n" % (host.encode(), len(body))
    ) + body


class Requests(asyncio.Protocol):
    """One keep-alive connection that asks again as soon as it is answered."""

    def __init__(self, source: Iterator[bytes], host: str, until: float) -> None:
        self.source = source
        self.host = host
        self.until = until
        self.done = 0
        self.failed = 0
        self.parser = httptools.HttpResponseParser(self)
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.ask()

    def ask(self) -> None:
        self.transport.write(request(next(self.source), self.host))

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.done += 1
        if self.parser.get_status_code() != 200:
            self.failed += 1
        if now() >= self.until:
            self.transport.close()
            return
        self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class Load(msgspec.Struct):
    done: int
    failed: int
    seconds: float


async def closed_loop(port: int, seconds: float, source: Iterator[bytes], connections: int) -> Load:
    """Requests as fast as answers come, on so many connections."""
    loop = asyncio.get_running_loop()
    began = now()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: Requests(source, f"127.0.0.1:{port}", began + seconds), "127.0.0.1", port
        )
        clients.append(client)
    await asyncio.gather(*(client.ended for client in clients))
    return Load(
        sum(client.done for client in clients),
        sum(client.failed for client in clients),
        now() - began,
    )


class Stream(asyncio.Protocol):
    """One streamed request, its events counted, the first one timed from the send."""

    def __init__(self, body: bytes, host: str) -> None:
        self.request = request(body, host)
        self.events = 0
        self.sent = 0.0
        self.first = 0.0
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.sent = now()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if not self.first and b"data:" in data:
            self.first = now()
        self.events += data.count(b"data: {")
        self.received += len(data)


async def open_streams(
    port: int, count: int, over_s: float, source: Iterator[bytes]
) -> list[Stream]:
    """Start so many streams evenly over a time; they stay open until closed."""
    loop = asyncio.get_running_loop()
    began = now()
    streams = []
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number * over_s / count - now()))
        _, stream = await loop.create_connection(
            lambda: Stream(next(source), f"127.0.0.1:{port}"), "127.0.0.1", port
        )
        streams.append(stream)
    return streams
