"""What ASGI's send and receive cost beside `wire.server.Caller`, in CPU (decision 0004).

Both protocols are the real ones, uvicorn's and ours on top of it, and get the same bytes. Their
transport only counts, so that what is compared is what differs; a real socket costs both the
same system calls.

    event   a provider's event arrives in a callback of the loop and is passed on. ASGI: a future
            wakes the request's task, which awaits send. Caller: the callback calls push.
    whole   a request of 5 KB is read and answered with 2 KB.
    watched the same, and whoever waits learns at once that the caller has left. ASGI: a second
            task waits in receive. Caller: a callback.

CPU is user + system of this process, the median of five rounds in turn, less that of the same
loop with nothing in it.

    .venv/bin/python scripts/bench_caller.py
"""

import asyncio
import logging
import resource
import statistics
from collections.abc import Awaitable, Callable
from typing import Any, cast

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from forebay.errors import Failure
from forebay.exchange import Headers
from forebay.wire.caller import Caller
from forebay.wire.server import Connection, ServerLimits
from forebay.world import RealWorld

ROUNDS, EVENTS, REQUESTS = 5, 20_000, 5_000
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":" word"}}]}\n\n' + b" " * 200
BODY = b"x" * 5_000
ANSWER = b"y" * 2_000
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:8080\r\naccept: application/json\r\n"
    b"content-type: application/json\r\nauthorization: Bearer none\r\nuser-agent: OpenAI/Python\r\n"
    b"x-stainless-lang: python\r\ncontent-length: %d\r\n\r\n" % len(BODY)
) + BODY
HEADERS: Headers = [
    (b"content-type", b"application/json"),
    (b"x-request-id", b"req_5ba52b47f7a05aeaeeb1a619"),
    (b"x-forebay-cache", b"miss"),
]

Deliver = Callable[[bytes], None]


class Sink(asyncio.Transport):
    """Takes everything, keeps the number of bytes."""

    taken = 0

    def write(self, data: Any) -> None:
        self.taken += len(data)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class ByAsgi:
    """An application as ASGI describes it."""

    deliver: Deliver
    streams = False

    def __init__(self, watches: bool = False) -> None:
        self.watches = watches

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            more = (await receive())["more_body"]
        head = {"type": "http.response.start", "status": 200}
        if not self.streams:
            watcher = asyncio.ensure_future(receive()) if self.watches else None
            length = [(b"content-length", b"%d" % len(ANSWER))]
            await send({**head, "headers": HEADERS + length})
            await send({"type": "http.response.body", "body": ANSWER})
            if watcher is not None:
                watcher.cancel()
            return
        await send({**head, "headers": HEADERS})
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()

        def deliver(event: bytes) -> None:
            waiting.set_result(event)

        self.deliver = deliver
        while True:
            event = await waiting
            waiting = loop.create_future()
            await send({"type": "http.response.body", "body": event, "more_body": True})


class ByCaller:
    """An application as this gateway's data plane is one."""

    deliver: Deliver
    streams = False

    def __init__(self, watches: bool = False) -> None:
        self.watches = watches

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        caller: Caller = scope["extensions"]["forebay"]
        await caller.read()
        if not self.streams:
            if self.watches:
                task = asyncio.current_task()
                assert task is not None
                caller.on_gone = task.cancel
            caller.reply(200, HEADERS, ANSWER)
            caller.on_gone = None
            return
        caller.start(200, HEADERS)
        self.deliver = caller.push
        await asyncio.get_running_loop().create_future()


def protocol(app: Any) -> asyncio.Protocol:
    config = uvicorn.Config(
        app, loop="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False
    )
    config.load()
    if isinstance(app, ByAsgi):
        made: asyncio.Protocol = HttpToolsProtocol(config, ServerState(), {})
        return made
    return Connection(
        RealWorld(), ServerLimits(), _never, config=config, server_state=ServerState(), app_state={}
    )


def _never(failure: Failure) -> bytes:
    raise failure


async def turn() -> None:
    """Let the loop go round once: whoever was woken runs."""
    await asyncio.sleep(0)


async def events(app: ByAsgi | ByCaller | None) -> float:
    """CPU microseconds an event."""
    deliver: Deliver = len  # type: ignore[assignment]  # the loop with nothing in it
    if app is not None:
        app.streams = True
        connection, sink = protocol(app), Sink()
        connection.connection_made(sink)
        connection.data_received(REQUEST)
        for _ in range(5):
            await turn()
        before = sink.taken
    used = cpu_us()
    for _ in range(EVENTS):
        (app.deliver if app is not None else deliver)(EVENT)
        await turn()
    used = cpu_us() - used
    if app is not None:
        assert sink.taken - before == EVENTS * (len(EVENT) + len(b"%x\r\n\r\n" % len(EVENT)))
        connection.connection_lost(None)
        for task in asyncio.all_tasks() - {cast("asyncio.Task[Any]", asyncio.current_task())}:
            task.cancel()
        await turn()
    return used / EVENTS


async def whole(app: ByAsgi | ByCaller | None) -> float:
    """CPU microseconds a request, the parsing of it included."""
    if app is not None:
        connection, sink = protocol(app), Sink()
        connection.connection_made(sink)
    used = cpu_us()
    for _ in range(REQUESTS):
        if app is not None:
            connection.data_received(REQUEST)
        for _ in range(3):
            await turn()
    used = cpu_us() - used
    if app is not None:
        assert sink.taken > REQUESTS * len(ANSWER)
        connection.connection_lost(None)
    return used / REQUESTS


def cpu_us() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return (spent.ru_utime + spent.ru_stime) * 1e6


async def main() -> None:
    logging.getLogger("uvicorn.error").disabled = True  # streams end here by being cancelled
    measures: list[tuple[str, bool, Callable[[ByAsgi | ByCaller | None], Awaitable[float]]]] = [
        ("event", False, events),
        ("whole", False, whole),
        ("watched", True, whole),
    ]
    for name, watches, measure in measures:
        asgi, caller = [], []
        for _ in range(ROUNDS):
            nothing = await measure(None)
            asgi.append(await measure(ByAsgi(watches)) - nothing)
            caller.append(await measure(ByCaller(watches)) - nothing)
        print(f"figure asgi_{name}_us = {statistics.median(asgi):.2f} µs")
        print(f"figure caller_{name}_us = {statistics.median(caller):.2f} µs")


if __name__ == "__main__":
    uvloop.run(main())
