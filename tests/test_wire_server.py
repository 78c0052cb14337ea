"""The caller's side of the wire: clocks, bounds, refusals, and one honest answer a request.

Most of it in virtual time, against an app that tells what it was asked; what only a kernel
does (resets that overtake replies, peers without a name) over real sockets.
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from conftest import RealRun, VirtualRun
from feeding import CUTS, cut, feeds
from forebay.errors import Failure
from forebay.testbed.virtual import Link, VirtualWorld, run
from forebay.wire.caller import Caller
from forebay.wire.server import LINGER_S, Connection, ServerLimits
from forebay.world import RealWorld, World
from pipeline_kit import Client, Reply, parse

LIMITS = ServerLimits(
    head_s=10, body_s=20, keep_alive_s=30, connections=4, head_bytes=4096, headers=20,
    body_bytes=100_000,
)  # fmt: skip
JSON = [(b"content-type", b"application/json")]
PIECE = b"x" * 16_384


class Mirror:
    """An app that answers with what it was asked."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self.gone: list[str] = []
        self.slow: list[bool] = []
        self.release = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        caller: Caller = scope["extensions"]["forebay"]
        path = scope["path"]
        caller.on_gone = lambda: self.gone.append(path)
        caller.on_slow = self.slow.append
        try:
            if path == "/deaf":  # answers without reading
                caller.reply(403, JSON, b"{}")
                return
            body = await caller.read()
        except Failure as failure:
            self.failures.append(failure.code.name)
            caller.reply(failure.code.status, JSON, render(failure))
            return
        except ConnectionError:
            return
        match path:
            case "/wait":
                await self.release.wait()
            case "/broken":
                raise RuntimeError("the app failed")
            case "/torn":
                caller.reply(200, [(b"x-a", b"1\r\nset-cookie: evil")], b"")
                return
            case "/cut":
                caller.start(200, JSON)
                caller.push(b"half")
                raise RuntimeError("the app failed in the middle")
            case "/stream" | "/204" | "/304":
                caller.start(200 if path == "/stream" else int(path[1:]), JSON)
                for piece in (b"one", b"two", b"three"):
                    caller.push(piece)
                caller.finish()
                return
            case "/drip":
                caller.start(200, JSON)
                while not caller.disconnected:
                    caller.push(b"drop")
                    await asyncio.sleep(1)
                return
            case "/flood":
                caller.start(200, JSON)
                for _ in range(100):
                    caller.push(PIECE)
                caller.finish()
                return
        said = {
            "method": scope["method"],
            "path": path,
            "query": scope["query_string"].decode("latin-1"),
            "headers": [[n.decode(), v.decode("latin-1")] for n, v in scope["headers"]],
            "body": body.decode("latin-1"),
        }
        caller.reply(200, JSON, json.dumps(said).encode())


def render(failure: Failure) -> bytes:
    return json.dumps({"code": failure.code.name, "message": failure.message}).encode()


class Served:
    def __init__(self, world: World, limits: ServerLimits, app: Mirror) -> None:
        self.app = app
        self.state = ServerState()
        self.connections: list[Connection] = []
        self.port = 0
        self._world = world
        self._limits = limits
        self._config = uvicorn.Config(
            app, ws="none", loop="none", lifespan="off", log_config=None, server_header=False
        )

    def connection(self) -> Connection:
        loop = asyncio.get_running_loop()
        made = Connection(
            self._world, self._limits, render, self._config, self.state, {}, _loop=loop
        )
        self.connections.append(made)
        return made

    async def client(self) -> Client:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(Client, "127.0.0.1", self.port)
        return client

    async def empty(self) -> None:
        while self.state.connections or self.state.tasks:  # noqa: ASYNC110 # others' states
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving(
    world: World, limits: ServerLimits = LIMITS, host: str = "127.0.0.1"
) -> AsyncIterator[Served]:
    served = Served(world, limits, Mirror())
    loop = asyncio.get_running_loop()
    server = await loop.create_server(served.connection, host, 0)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        served.app.release.set()
        server.close()
        for connection in list(served.state.connections):
            connection.transport.abort()
        await served.empty()


def get(path: str = "/", *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: x", *lines, "", ""]).encode()


def post(body: bytes, *lines: str, path: str = "/", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {size}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


async def talk(served: Served, *parts: bytes, methods: tuple[str, ...] = ("POST",)) -> list[Reply]:
    """Send, and wait for so many replies or the end."""
    client = await served.client()
    for part in parts:
        client.send(part)
        await asyncio.sleep(0)
    replies = await client.replies(*methods)
    client.leave()
    return replies


# -- requests that make sense ----------------------------------------------------------------


@given(
    cuts=CUTS,
    body=st.binary(max_size=300),
    chunked=st.booleans(),
    expects=st.booleans(),
)
@settings(max_examples=40)
def test_a_request_is_the_same_however_it_is_cut(
    cuts: list[int], body: bytes, chunked: bool, expects: bool
) -> None:
    lines = ["X-Mixed: A b", *(["expect: 100-continue"] if expects else [])]
    if chunked:
        pieces = [body[i : i + 7] for i in range(0, len(body), 7)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        head = ["POST /a%20b?q=1 HTTP/1.1", "host: x", "transfer-encoding: chunked", *lines]
        raw = "\r\n".join([*head, "", ""]).encode() + framed + b"0\r\n\r\n"
    else:
        raw = post(body, *lines, path="/a%20b?q=1")

    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            for pieces in feeds(raw, cuts):
                (reply,) = await talk(served, *pieces)
                assert reply.status == 200
                said = reply.json
                assert said["body"] == body.decode("latin-1")
                assert (said["path"], said["query"]) == ("/a b", "q=1")
                assert ["x-mixed", "A b"] in said["headers"]

    run(main)


def test_a_connection_is_kept_for_the_next_request(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            for number in range(5):
                client.send(post(b"%d" % number))
                assert (await client.reply()).json["body"] == str(number)
            assert len(served.connections) == 1
            client.leave()

    virtual(main)


def test_an_absolute_url_is_read_as_its_path(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            for url, path, query in (
                ("http://x/a?b=c", "/a", "b=c"),
                ("http://x", "/", ""),
                ("http://user@[::1]:80/a%2Fb", "/a/b", ""),
                ("http://x?q", "/", "q"),
                ("*", "*", ""),
            ):
                method = "OPTIONS" if url == "*" else "GET"
                request = f"{method} {url} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
                (reply,) = await talk(served, request, methods=(method,))
                assert (reply.json["path"], reply.json["query"]) == (path, query)

    virtual(main)


def test_requests_sent_ahead_are_answered_in_order_one_at_a_time(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            client.send(get("/wait") + get("/b") + post(b"body", path="/c") + get("/d"))
            await asyncio.sleep(1)
            assert [scope["path"] for scope in served.app.scopes] == ["/wait"]
            served.app.release.set()
            replies = await client.replies("GET", "GET", "POST", "GET")
            assert [reply.json["path"] for reply in replies] == ["/wait", "/b", "/c", "/d"]
            assert replies[2].json["body"] == "body"
            client.leave()

    virtual(main)


def test_requests_sent_ahead_wait_at_the_caller_once_there_are_some(virtual: VirtualRun) -> None:
    """Each answer let another piece of the socket in, and the queue grew without end."""

    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            ahead = 0

            async def watch() -> None:
                nonlocal ahead
                while True:
                    ahead = max(ahead, len(served.connections[0].queue))
                    await asyncio.sleep(0)

            watching = asyncio.create_task(watch())
            many = 2_000
            piece = get("/b") * 100
            for _ in range(many // 100):
                client.send(piece)
            client.send(get("/last", "connection: close"))
            raw = await client.end()
            assert raw.count(b"HTTP/1.1 200") == many + 1
            # no more than one read brings (65,536 bytes of a virtual connection)
            assert ahead <= 65_536 // len(get("/b")) + 1
            watching.cancel()

    virtual(main)


def test_the_clock_of_a_body_stands_while_we_do_not_read(virtual: VirtualRun) -> None:
    """A request sent ahead was called slow for the time that the one before it took."""

    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            client.send(get("/wait") + post(b"12", length=4))
            await asyncio.sleep(3 * LIMITS.body_s)
            served.app.release.set()
            await client.until(b"/wait")
            await asyncio.sleep(LIMITS.body_s - 1)
            client.send(b"34")
            replies = await client.replies("GET", "POST")
            assert replies[1].json["body"] == "1234"
            client.leave()

    virtual(main)


@pytest.mark.parametrize("path", ["/", "/stream", "/204", "/304"])
def test_a_reply_without_a_body_has_none(virtual: VirtualRun, path: str) -> None:
    """HEAD, 204 and 304: bytes after such a head would be the next reply's."""

    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            method = "GET" if path in ("/204", "/304") else "HEAD"
            request = f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
            client.send(request + get("/next"))
            first, second = await client.replies(method, "GET")
            assert first.body == b""
            assert first.header("transfer-encoding") is None
            assert second.json["path"] == "/next"
            client.leave()

    virtual(main)


def test_a_streamed_reply_is_one_chunk_a_piece(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            client.send(get("/stream"))
            assert (await client.reply("GET")).body == b"onetwothree"
            assert not client.closed
            client.send(b"GET /stream HTTP/1.0\r\n\r\n")  # which knows no chunks
            raw = await client.end()
            assert raw.endswith(b"\r\n\r\nonetwothree")
            assert b"connection: close\r\n" in raw

    virtual(main)


@pytest.mark.parametrize(
    ("request_lines", "kept"),
    [
        (("HTTP/1.1",), True),
        (("HTTP/1.1", "connection: keep-alive"), True),
        (("HTTP/1.1", "connection: close"), False),
        (("HTTP/1.1", "Connection: x, Close"), False),
        (("HTTP/1.0",), False),
        (("HTTP/1.0", "connection: keep-alive"), False),
    ],
)
def test_a_connection_is_closed_where_that_was_asked(
    virtual: VirtualRun, request_lines: tuple[str, ...], kept: bool
) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            client.send(f"GET / {request_lines[0]}\r\n".encode())
            for line in request_lines[1:]:
                client.send(line.encode() + b"\r\n")
            client.send(b"\r\n")
            reply = await client.reply("GET")
            assert reply.status == 200
            assert (reply.header("connection") == "close") is not kept
            await asyncio.sleep(1)
            assert client.closed is not kept
            client.leave()

    virtual(main)


def test_an_offer_to_switch_protocols_is_declined_by_going_on(virtual: VirtualRun) -> None:
    """Java's client and `curl --http2` send h2c offers with their first request, body and all;
    the connection was closed without a word."""

    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            offer = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAE")
            client.send(post(b"hello", *offer) + get("/next"))
            first, second = await client.replies("POST", "GET")
            assert (first.status, first.json["body"]) == (200, "hello")
            assert second.json["path"] == "/next"
            assert ["upgrade", "h2c"] not in first.json["headers"]
            assert not client.closed
            client.leave()
            pieces = [b"%c" % byte for byte in post(b"hello", *offer)]
            (reply,) = await talk(served, *pieces)
            assert reply.json["body"] == "hello"
            chunked = (
                b"POST / HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket"
                b"\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            )
            client = await served.client()
            client.send(chunked)
            assert b'"body": "abc"' in await client.end()

    virtual(main)


def test_trailers_are_not_headers(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            client.send(CHUNKED + b"3\r\nabc\r\n0\r\nauthorization: Bearer evil\r\n\r\n")
            reply = await client.reply()
            assert reply.json["body"] == "abc"
            assert "authorization" not in dict(reply.json["headers"])
            client.leave()

    virtual(main)


# -- clocks ----------------------------------------------------------------------------------


async def ended_after(world: VirtualWorld, client: Client) -> float:
    """Seconds of virtual time until the gateway had closed."""
    start = world.now_ns()
    await client.end()
    return (world.now_ns() - start) / 1e9


def test_a_silent_connection_is_closed_without_a_word(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            assert await ended_after(world, client) == LIMITS.head_s
            assert client.received == b""

    virtual(main)


@pytest.mark.parametrize("kept", [False, True])
def test_a_slow_head_is_refused_on_its_clock(virtual: VirtualRun, kept: bool) -> None:
    """The clock runs from the head's first byte, not from each byte (slow loris)."""

    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            if kept:
                client.send(get())
                await client.reply("GET")
                await asyncio.sleep(5)
            start = world.now_ns()
            for byte in get("/", *["a: b"] * 3)[:-1]:
                client.send(b"%c" % byte)
                await asyncio.sleep(1)
                if client.received:
                    break
            reply = await client.reply("GET")
            assert (world.now_ns() - start) / 1e9 == pytest.approx(LIMITS.head_s, abs=1)
            assert (reply.status, reply.json["code"]) == (408, "slow_request")
            assert "server.head_s is 10 s" in reply.json["message"]
            client.leave()
            await served.empty()

    virtual(main)


def test_a_slow_body_is_refused_on_its_clock(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            start = world.now_ns()
            client.send(post(b"", length=1000))
            while not client.received:
                client.send(b"x")
                await asyncio.sleep(1)
            reply = await client.reply()
            assert (world.now_ns() - start) / 1e9 == pytest.approx(LIMITS.body_s, abs=1)
            assert (reply.status, reply.json["code"]) == (408, "slow_request")
            assert reply.header("connection") == "close"
            await client.end()
            assert served.app.failures == ["slow_request"]

    virtual(main)


def test_an_answer_has_all_the_time_it_needs(virtual: VirtualRun) -> None:
    """The clocks are on what the caller sends, not on what we do."""

    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            client.send(post(b"x", path="/wait"))
            await asyncio.sleep(1000)
            served.app.release.set()
            assert (await client.reply()).status == 200
            client.leave()

    virtual(main)


def test_an_idle_connection_is_closed(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            client.send(get())
            await client.reply("GET")
            assert await ended_after(world, client) == LIMITS.keep_alive_s
            assert client.received == b""

    virtual(main)


# -- callers who leave, and who are slow -----------------------------------------------------


def test_who_left_is_told_of_at_once(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            client.send(get("/wait"))
            await asyncio.sleep(1)
            client.leave()
            await asyncio.sleep(0.001)
            assert served.app.gone == ["/wait"]

    virtual(main)


def test_who_left_after_sending_ahead_is_told_of_with_the_next_piece(virtual: VirtualRun) -> None:
    """Nothing is read meanwhile, so that it shows when something is written. It was told to the
    last request that had been read, and the one being answered went on."""

    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            client.send(get("/drip") + get("/b") * 3)
            await client.until(b"drop")
            client.leave()
            await asyncio.sleep(2)
            assert served.app.gone == ["/drip"]
            await served.empty()
            assert len(served.app.scopes) == 1

    virtual(main)


def test_a_half_closed_caller_has_left(virtual: VirtualRun) -> None:
    """TCP tells no half-close from a close, and callers of language models mean the latter:
    what nobody waits for must not be paid for."""

    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            client.send(get("/wait"))
            client.transport.write_eof()
            assert await client.end() == b""
            assert served.app.gone == ["/wait"]

    virtual(main)


def test_who_leaves_in_the_middle_of_a_body(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            client.send(post(b"x", length=10))
            await asyncio.sleep(1)
            client.leave()
            await served.empty()
            assert served.app.failures == []

    virtual(main)


@pytest.mark.parametrize("ahead", [0, 2])
def test_a_slow_reader_is_noticed_and_forgiven(virtual: VirtualRun, ahead: int) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            world.network.set("127.0.0.1", served.port, Link(window=8192, segment=4096))
            client = await served.client()
            client.transport.pause_reading()
            client.send(get("/flood") + get("/b") * ahead)
            await asyncio.sleep(1)
            assert served.app.slow == [True]
            client.transport.resume_reading()
            await client.until(b"0\r\n\r\n")
            replies = await client.replies("GET", *["GET"] * ahead)
            assert replies[0].body == PIECE * 100
            assert served.app.slow == [True, False]
            client.leave()

    virtual(main)


@pytest.mark.parametrize("close", [False, True])
def test_who_never_reads_is_not_held_for_ever(virtual: VirtualRun, close: bool) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            world.network.set("127.0.0.1", served.port, Link(window=8192))
            client = await served.client()
            client.transport.pause_reading()
            client.send(get("/flood", *(["connection: close"] if close else [])))
            start = world.now_ns()
            await asyncio.sleep(1)
            await served.empty()
            assert (world.now_ns() - start) / 1e9 <= 2 * LIMITS.keep_alive_s + 1
            client.leave()

    virtual(main)


def test_who_reads_slowly_gets_it_all(virtual: VirtualRun) -> None:
    """A megabyte and a half at 10 kB/s, long after the reply was complete here."""

    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            world.network.set(
                "127.0.0.1", served.port, Link(window=8192, segment=4096, bytes_per_s=10_000)
            )
            client = await served.client()
            client.send(get("/flood", "connection: close"))
            await client.until(b"0\r\n\r\n")
            assert (await client.reply("GET")).body == PIECE * 100

    virtual(main)


# -- bounds and refusals ---------------------------------------------------------------------


BAD_HEADS = {
    "no HTTP at all": b"hello\r\n\r\n",
    "TLS to a plain port": bytes.fromhex("16030100c8010000c40303"),
    "bare LF": b"GET / HTTP/1.1\nhost: x\n\n",
    "a bare CR in a value": b"GET / HTTP/1.1\r\nhost: x\r\na: b\rc\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nhost: x\r\nabc\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nhost: x\r\na: \0\r\n\r\n",
    "NUL in a name": b"GET / HTTP/1.1\r\nhost: x\r\na\0b: c\r\n\r\n",
    "a control character in the path": b"GET /\x01 HTTP/1.1\r\nhost: x\r\n\r\n",
    "an unknown method": b"BREW / HTTP/1.1\r\nhost: x\r\n\r\n",
    "HTTP/2 without being asked": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/3.7": b"GET / HTTP/3.7\r\nhost: x\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n"
    b"content-length: 2\r\n\r\nab",
    "the same length twice": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n"
    b"content-length: 1\r\n\r\na",
    "a list of lengths": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1, 1\r\n\r\na",
    "a length and chunks": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
    b"content-length: 3\r\n\r\n0\r\n\r\n",
    "a negative length": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    "a hex length": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0x1\r\n\r\na",
    "a length with a plus": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\na",
    "a length over 64 bits": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999"
    b"\r\n\r\na",
    "chunked, but not last": b"POST / HTTP/1.1\r\nhost: x\r\n"
    b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "a tunnel": b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com\r\n\r\n",
}


@pytest.mark.parametrize("head", BAD_HEADS.values(), ids=BAD_HEADS.keys())
@pytest.mark.parametrize("before", [0, 1])
def test_what_is_no_request_is_refused_and_closed(
    virtual: VirtualRun, head: bytes, before: int
) -> None:
    """Before it, a good request is answered; after it, nothing is read."""

    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            for parts in (
                [get("/ok") * before + head + get("/smuggled")],
                [get("/ok") * before, head],
            ):
                client = await served.client()
                for part in parts:
                    client.send(part)
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                # PRI and TLS are a beginning: what follows decides, or its clock
                await client.end()
                replies = await client.replies(*["GET"] * before, "GET")
                assert [reply.status for reply in replies[:before]] == [200] * before
                if len(replies) > before:
                    bad = replies[-1]
                    assert bad.status in (400, 408)
                    assert bad.json["message"]
                    assert bad.header("connection") == "close"
                else:  # it came on the heels of a good one, whose reply closed the connection
                    assert before
            paths = [scope["path"] for scope in served.app.scopes]
            assert paths == ["/ok"] * 2 * before

    virtual(main)


CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
BAD_BODIES = {
    "a coding that is not chunked": b"POST / HTTP/1.1\r\nhost: x\r\n"
    b"transfer-encoding: gzip\r\n\r\nx",
    "a chunk size that is none": CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
    "a chunk size over 64 bits": CHUNKED + b"fffffffffffffffff\r\n",
    "a chunk longer than it said": CHUNKED + b"1\r\nabc\r\n0\r\n\r\n",
    "chunks with bare LF": CHUNKED + b"3\nabc\n0\n\n",
    "a bad trailer": CHUNKED + b"3\r\nabc\r\n0\r\nno colon\r\n\r\n",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_broken_body_is_told_to_whoever_answers(virtual: VirtualRun, body: bytes) -> None:
    """The app says so, in its caller's dialect; before, the connection closed without a word."""

    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            client.send(body)
            reply = await client.reply()
            assert (reply.status, reply.json["code"]) == (400, "bad_request")
            assert reply.header("connection") == "close"
            await client.end()
            assert served.app.failures == ["bad_request"]

    virtual(main)


@pytest.mark.parametrize(
    "head",
    [
        get("/", *(f"h{i}: x" for i in range(30))),
        get("/", "h: " + "x" * 5000),
        get("/" + "x" * 5000),
        get("/", "x" * 5000 + ": h"),
        get("/", "h: " + "x" * 50_000)[:-4],  # and it never ends
        b"GET /" + b"x" * 50_000,
    ],
)
@pytest.mark.parametrize("kept", [False, True])
def test_a_head_over_its_bounds_is_refused(virtual: VirtualRun, head: bytes, kept: bool) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            if kept:
                client.send(get())
                await client.reply("GET")
            for at in range(0, len(head), 1000):
                client.send(head[at : at + 1000])
            reply = await client.reply("GET")
            assert (reply.status, reply.json["code"]) == (431, "headers_too_large")
            assert "4096 bytes or 20 headers" in reply.json["message"]
            await client.end()
            assert len(served.app.scopes) == kept

    virtual(main)


@pytest.mark.parametrize(
    "endless", [b"GET / HTTP/1.1\r\nh: " + b"x" * 200_000, b"GET /" + b"x" * 200_000]
)
def test_a_head_sent_ahead_is_bounded_too(virtual: VirtualRun, endless: bytes) -> None:
    """While an answer was under way the next head could grow without end."""

    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            client.send(get("/wait"))
            await asyncio.sleep(1)
            client.send(endless)
            await asyncio.sleep(1)
            assert not client.closed
            assert served.connections[0].head_bytes < 3 * 65_536
            served.app.release.set()
            reply = await client.reply("GET")
            assert reply.json["path"] == "/wait"
            await client.end()
            assert len(served.app.scopes) == 1

    virtual(main)


@pytest.mark.parametrize(
    "endless",
    [b"1;x=" + b"y" * 50_000, b"1\r\na\r\n0\r\n" + b"t: " + b"x" * 50_000],
    ids=["chunk extensions", "trailers"],
)
def test_what_stands_around_a_body_is_bounded(virtual: VirtualRun, endless: bytes) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            client.send(CHUNKED)
            for at in range(0, len(endless), 1000):
                client.send(endless[at : at + 1000])
            reply = await client.reply()
            assert (reply.status, reply.json["code"]) == (431, "headers_too_large")
            await client.end()

    virtual(main)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("expects", [False, True])
def test_a_body_over_its_bound_is_refused(
    virtual: VirtualRun, chunked: bool, expects: bool
) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            size = LIMITS.body_bytes + 1
            framing = "transfer-encoding: chunked" if chunked else f"content-length: {size}"
            lines = ["POST / HTTP/1.1", "host: x", framing]
            lines += ["expect: 100-continue"] if expects else []
            client = await served.client()
            client.send("\r\n".join([*lines, "", ""]).encode())
            client.send((b"%x\r\n" % size if chunked else b"") + b"x" * size)
            reply = await client.reply()
            assert (reply.status, reply.json["code"]) == (413, "body_too_large")
            assert "over 100000 bytes" in reply.json["message"]
            assert reply.interim == ([100] if expects else [])
            await client.end()
            exact = post(b"x" * LIMITS.body_bytes)
            (reply,) = await talk(served, exact)
            assert reply.status == 200

    virtual(main)


def test_what_is_still_sent_after_a_refusal_is_thrown_away(virtual: VirtualRun) -> None:
    """Closed at once the connection would be reset, and the reset overtakes the reply."""

    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            client.send(post(b"", path="/deaf", length=90_000))
            reply = await client.reply()
            assert (reply.status, reply.header("connection")) == (403, "close")
            # its side of the connection is over; ours is still read, for a while
            assert await client.lost is None
            client = await served.client()
            client.transport.pause_reading()  # does not even look at the reply
            client.send(post(b"", path="/deaf", length=90_000))
            await asyncio.sleep(0.01)
            start = world.now_ns()
            while served.state.connections:
                client.send(b"x" * 100)
                await asyncio.sleep(0.1)
            assert (world.now_ns() - start) / 1e9 == pytest.approx(LINGER_S, abs=0.2)
            assert len(served.app.scopes) == 2
            client.leave()

    virtual(main)


def test_who_is_answered_without_being_asked_for_the_body_sends_none(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            client.send(post(b"", "expect: 100-continue", path="/deaf", length=10))
            reply = await client.reply()
            assert (reply.status, reply.interim) == (403, [])
            assert reply.header("connection") == "close"
            await client.end()

    virtual(main)


def test_connections_over_the_bound_are_told_to_come_back(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            clients = [await served.client() for _ in range(LIMITS.connections)]
            for client in clients:
                client.send(get("/wait"))
            over = await served.client()
            over.send(get())
            reply = await over.reply("GET")
            assert (reply.status, reply.json["code"]) == (503, "overloaded")
            assert reply.header("retry-after") == "1"
            await over.end()
            clients[0].leave()
            await asyncio.sleep(LINGER_S)
            again = await served.client()
            again.send(get())
            assert (await again.reply("GET")).status == 200
            for client in [*clients[1:], again]:
                client.leave()

    virtual(main)


def test_a_defect_of_the_app_is_an_honest_500(
    virtual: VirtualRun, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            (reply,) = await talk(served, get("/broken"), methods=("GET",))
            assert (reply.status, reply.json["code"]) == (500, "internal")
            assert b"Traceback" not in reply.body
            client = await served.client()
            client.send(get("/cut"))
            await client.until(b"half")
            raw = await client.end()
            assert not raw.endswith(b"0\r\n\r\n")  # must not look whole

    virtual(main)
    assert [record.name for record in caplog.records] == ["forebay.server"] * 2
    assert "the app failed" in caplog.text  # the log has the traceback


def test_a_header_with_a_line_break_never_leaves(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            (reply,) = await talk(served, get("/torn"), methods=("GET",))
            assert reply.status == 500
            assert reply.header("set-cookie") is None

    virtual(main)


# -- any bytes -------------------------------------------------------------------------------


SEEDS = [
    get("/a?b=c", "accept: */*"),
    post(b"hello", "content-type: application/json"),
    CHUNKED + b"3;a=b\r\nabc\r\n0\r\nt: u\r\n\r\n",
    post(b"hi", "expect: 100-continue"),
    post(b"hi", "connection: upgrade", "upgrade: h2c"),
    b"GET / HTTP/1.0\r\n\r\n",
    get("/stream"),
    b"HEAD /stream HTTP/1.1\r\nhost: x\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
]
EDITS = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.integers(0, 3),
        st.one_of(
            st.binary(max_size=4),
            st.sampled_from(
                [
                    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b":", b" ", b"\t", b"\0", b";", b","),
                    *(b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"0\r\n\r\n"),
                    *(b"connection: close\r\n", b"upgrade: x\r\nconnection: upgrade\r\n", b"\xff"),
                ]
            ),
        ),
    ),
    max_size=5,
)


@settings(max_examples=200)
@given(seeds=st.lists(st.sampled_from(SEEDS), min_size=1, max_size=4), edits=EDITS, cuts=CUTS)
def test_any_bytes_get_well_formed_replies_and_an_end(
    seeds: list[bytes], edits: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    """Nothing hangs, nothing fails unseen, and what is said is HTTP (h11 reads it)."""
    raw = b"".join(seeds)
    for place, removed, added in edits:
        at = place % (len(raw) + 1)
        raw = raw[:at] + added + raw[at + removed :]

    async def main(world: VirtualWorld) -> None:
        async with serving(world) as served:
            client = await served.client()
            for piece in cut(raw, [at % (len(raw) + 1) for at in cuts]):
                client.send(piece)
                await asyncio.sleep(0)
            said = await client.end()  # at the latest by a clock
            methods = [scope["method"] for scope in served.app.scopes]
            left = _refusal(said, methods)
            # what was said beside the app's replies is one refusal, at the end
            if left:
                assert left.count(b"HTTP/1.1 ") == 1
                assert left.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 408 ", b"HTTP/1.1 431 "))

    run(main)


def _refusal(said: bytes, methods: list[str]) -> bytes:
    found, left = parse(said, methods, closed=True)
    for reply in found:
        assert reply.status in (200, 204, 400, 408, 413, 431)
    if left:
        (refused,), rest = parse(left, ["GET"], closed=True)
        assert refused.json["code"]
        assert rest == b""
    return left


# -- real sockets ----------------------------------------------------------------------------


def test_a_refused_upload_reads_why_over_real_sockets(real: RealRun) -> None:
    async def main() -> None:
        async with serving(RealWorld()) as served:

            def upload() -> bytes:
                with socket.create_connection(("127.0.0.1", served.port)) as caller:
                    caller.settimeout(10)
                    caller.sendall(post(b"", length=20_000_000))
                    for _ in range(200):  # all of it, then looks at the reply, as urllib does
                        caller.sendall(b"x" * 100_000)
                    said = b""
                    while piece := caller.recv(65536):
                        said += piece
                    return said

            said = await asyncio.to_thread(upload)
            assert said.startswith(b"HTTP/1.1 413 ")
            assert b"body_too_large" in said

    real(main())


def test_a_caller_whose_address_nobody_knows_is_not_served(real: RealRun) -> None:
    """Reset before it is accepted, a connection has bytes to read and no peer: without an
    address it counted as a program on this machine, which needs no key."""

    async def main() -> None:
        async with serving(RealWorld()) as served:
            for _ in range(5):
                caller = socket.create_connection(("127.0.0.1", served.port))
                caller.sendall(get("/secret"))
                linger = struct.pack("ii", 1, 0)
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                caller.close()  # a reset, before the loop runs again
                await asyncio.sleep(0.01)
            client = await served.client()
            client.send(get("/known"))
            assert (await client.reply("GET")).status == 200
            client.leave()
            await served.empty()
            assert [scope["path"] for scope in served.app.scopes] == ["/known"]

    real(main())


@pytest.mark.parametrize(
    ("begun", "setting"),
    [(b"GET / HTTP/1.1\r\nhost:", "server.head_s"), (post(b"12", length=3), "server.body_s")],
)
def test_the_clocks_run_over_real_sockets(real: RealRun, begun: bytes, setting: str) -> None:
    async def main() -> None:
        short = ServerLimits(head_s=0.1, body_s=0.1)
        async with serving(RealWorld(), short) as served:
            client = await served.client()
            client.send(begun)
            said = await client.end()
            assert said.startswith(b"HTTP/1.1 408 ")
            assert setting.encode() in said

    real(main())


def test_a_silent_caller_is_let_go_over_real_sockets(real: RealRun) -> None:
    async def main() -> None:
        async with serving(RealWorld(), ServerLimits(head_s=0.1)) as served:
            client = await served.client()
            assert await client.end() == b""

    real(main())
