"""Virtual time: the clock, the network, and that asyncio's own contracts hold on it.

The contract tests at the top run twice, in virtual time and over real sockets: what a
protocol may rely on there it may rely on here.
"""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from forebay.testbed.virtual import (
    Deadlock,
    Fault,
    Leftover,
    Link,
    Livelock,
    Unseen,
    VirtualServer,
    VirtualWorld,
    run,
)
from forebay.testbed.virtual.loop import START_NS, whole_ns
from forebay.world import World

HOST = "127.0.0.1"
MS = 1_000_000


class Recorder(asyncio.Protocol):
    """Writes down what happens to it; `keep_open` is what eof_received answers."""

    def __init__(self, keep_open: bool = False, echo: bool = False) -> None:
        self.keep_open = keep_open
        self.echo = echo
        self.data = b""
        self.pieces: list[bytes] = []
        self.times: list[float] = []
        self.events: list[str] = []
        self.error: Exception | None = None
        self.arrived = asyncio.Event()
        self.made = asyncio.Event()
        self.resumed = asyncio.Event()
        self.lost = asyncio.Event()
        self.ended = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.events.append("made")
        self.made.set()

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.pieces.append(data)
        self.times.append(self.loop.time())
        self.arrived.set()
        if self.echo:
            self.transport.write(data)

    def eof_received(self) -> bool:
        self.events.append("eof")
        self.ended.set()
        return self.keep_open

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")
        self.resumed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.error = exc
        self.lost.set()

    async def has(self, size: int) -> bytes:
        while len(self.data) < size:
            self.arrived.clear()
            await self.arrived.wait()
        return self.data


class Pair:
    """A server, and one connection to it seen from both ends."""

    def __init__(self, server: Any, client: Recorder, served: Recorder) -> None:
        self.server = server
        self.client = client
        self.served = served


@asynccontextmanager
async def connected(
    *, keep_open: bool = False, echo: bool = False, port: int = 0
) -> AsyncIterator[Pair]:
    loop = asyncio.get_running_loop()
    accepted: asyncio.Queue[Recorder] = asyncio.Queue()

    def accept() -> Recorder:
        protocol = Recorder(keep_open, echo)
        accepted.put_nowait(protocol)
        return protocol

    server = await loop.create_server(accept, HOST, port)
    name = server.sockets[0].getsockname()
    _, client = await loop.create_connection(lambda: Recorder(keep_open), name[0], name[1])
    served = await accepted.get()
    await served.made.wait()
    try:
        yield Pair(server, client, served)
    finally:
        server.close()
        for end in (client, served):
            if not end.lost.is_set():
                end.transport.abort()
        await client.lost.wait()
        await served.lost.wait()
        await server.wait_closed()


Runner = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


def _in_virtual_time(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run(lambda world: main())


def _over_sockets(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def _on_uvloop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(main())


@pytest.fixture(params=[_in_virtual_time, _over_sockets, _on_uvloop])
def anywhere(request: pytest.FixtureRequest) -> Runner:
    runner: Runner = request.param
    return runner


# -- asyncio's contract, here as over real sockets ------------------------------------------


def test_bytes_arrive_in_order_and_an_end_of_file_after_them(anywhere: Runner) -> None:
    async def main() -> None:
        async with connected(keep_open=True) as pair:
            pair.client.transport.write(b"one ")
            pair.client.transport.writelines([b"two ", bytearray(b"three "), memoryview(b"four")])
            pair.client.transport.write(b"")
            assert pair.client.transport.can_write_eof()
            pair.client.transport.write_eof()
            await pair.served.ended.wait()
            assert pair.served.data == b"one two three four"
            # Half closed: the other way still works.
            pair.served.transport.write(b"answer")
            assert await pair.client.has(6) == b"answer"
            with pytest.raises(RuntimeError):
                pair.client.transport.write(b"more")

    anywhere(main)


def test_an_end_of_file_closes_unless_the_protocol_keeps_it_open(anywhere: Runner) -> None:
    async def main() -> None:
        async with connected() as pair:
            pair.client.transport.write_eof()
            await pair.served.lost.wait()
            assert pair.served.events == ["made", "eof", "lost"]
            assert pair.served.error is None
            await pair.client.lost.wait()
            assert pair.client.error is None

    anywhere(main)


def test_close_sends_what_is_buffered_first(anywhere: Runner) -> None:
    async def main() -> None:
        async with connected() as pair:
            big = random.Random(1).randbytes(8_000_000)
            pair.served.transport.pause_reading()
            pair.client.transport.write(big)
            assert pair.client.transport.get_write_buffer_size() > 0
            pair.client.transport.close()
            assert pair.client.transport.is_closing()
            assert "lost" not in pair.client.events
            pair.served.transport.resume_reading()
            await pair.served.ended.wait()
            assert pair.served.data == big
            await pair.client.lost.wait()
            assert pair.client.error is None

    anywhere(main)


def test_a_slow_reader_pauses_the_writer_and_resumes_it(anywhere: Runner) -> None:
    async def main() -> None:
        async with connected() as pair:
            transport = pair.client.transport
            transport.set_write_buffer_limits(high=1000, low=100)
            assert transport.get_write_buffer_limits() == (100, 1000)
            pair.served.transport.pause_reading()
            assert not pair.served.transport.is_reading()
            size = 0
            while "pause" not in pair.client.events:
                transport.write(bytes(100_000))
                size += 100_000
                await asyncio.sleep(0)
            assert transport.get_write_buffer_size() > 1000
            pair.served.transport.resume_reading()
            assert pair.served.transport.is_reading()
            await pair.served.has(size)
            await pair.client.resumed.wait()
            assert transport.get_write_buffer_size() <= 100
            assert pair.client.events == ["made", "pause", "resume"]

    anywhere(main)


def test_a_paused_reader_gets_nothing_until_it_resumes(anywhere: Runner) -> None:
    async def main() -> None:
        async with connected(echo=True) as pair:
            pair.client.transport.pause_reading()
            pair.client.transport.write(b"ping")
            await pair.served.has(4)
            for _ in range(20):
                await asyncio.sleep(0)
            assert pair.client.data == b""
            pair.client.transport.resume_reading()
            assert await pair.client.has(4) == b"ping"

    anywhere(main)


def test_abort_loses_both_ends(anywhere: Runner) -> None:
    async def main() -> None:
        async with connected() as pair:
            pair.client.transport.abort()
            pair.client.transport.abort()
            pair.client.transport.write(b"ignored")
            await pair.client.lost.wait()
            await pair.served.lost.wait()
            assert pair.client.error is None
            assert pair.client.events == ["made", "lost"]

    anywhere(main)


def test_both_ends_know_their_names_and_protocols(anywhere: Runner) -> None:
    async def main() -> None:
        async with connected() as pair:
            here, there = pair.client.transport, pair.served.transport
            assert here.get_extra_info("peername") == there.get_extra_info("sockname")
            assert here.get_extra_info("sockname") == there.get_extra_info("peername")
            assert here.get_extra_info("peername")[1] != here.get_extra_info("sockname")[1]
            assert here.get_extra_info("sslcontext") is None
            assert here.get_extra_info("no such thing", 5) == 5
            assert here.get_protocol() is pair.client
            other = Recorder()
            here.set_protocol(other)
            assert here.get_protocol() is other
            there.write(b"to the other")
            assert await other.has(12) == b"to the other"
            assert pair.client.data == b""
            here.set_protocol(pair.client)

    anywhere(main)


def test_nobody_listening_refuses(anywhere: Runner) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Recorder, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        assert server.is_serving()
        server.close()
        await server.wait_closed()
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Recorder, HOST, port)

    anywhere(main)


def test_an_address_in_use_is_refused(anywhere: Runner) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Recorder, HOST, 0)
        with pytest.raises(OSError, match="in use"):
            await loop.create_server(Recorder, HOST, server.sockets[0].getsockname()[1])
        server.close()
        await server.wait_closed()

    anywhere(main)


def test_unix_sockets_and_streams(anywhere: Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async for line in reader:
                writer.write(line.upper())
                await writer.drain()
            writer.close()

        path = tmp_path / "socket"
        server = await asyncio.start_unix_server(shout, path)
        reader, writer = await asyncio.open_unix_connection(path)
        for word in (b"first\n", b"second\n"):
            writer.write(word)
            assert await reader.readline() == word.upper()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        with pytest.raises(OSError, match=r"No such file|refused"):
            await asyncio.open_unix_connection(tmp_path / "other")

    anywhere(main)


def test_a_buffered_protocol_is_fed_through_its_own_buffer(anywhere: Runner) -> None:
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.room = bytearray(7)
            self.data = b""
            self.all = asyncio.Event()

        def get_buffer(self, sizehint: int) -> memoryview:
            return memoryview(self.room)

        def buffer_updated(self, nbytes: int) -> None:
            self.data += self.room[:nbytes]
            if len(self.data) == 26:
                self.all.set()

    async def main() -> None:
        async with connected() as pair:
            other = Buffered()
            pair.client.transport.set_protocol(other)
            pair.served.transport.write(b"abcdefghijklmnopqrstuvwxyz")
            await other.all.wait()
            assert other.data == b"abcdefghijklmnopqrstuvwxyz"
            pair.client.transport.set_protocol(pair.client)

    anywhere(main)


# -- the clock ------------------------------------------------------------------------------


def test_waiting_takes_no_time_and_lands_on_the_nanosecond() -> None:
    async def main(world: VirtualWorld) -> None:
        start_ns = world.now_ns()
        for _ in range(1000):
            await asyncio.sleep(0.1)
        assert world.now_ns() - start_ns == 100_000_000_000
        await asyncio.sleep(40 * 86_400)
        assert world.now_ns() - start_ns == 100_000_000_000 + 40 * 86_400 * 1_000_000_000
        assert world.loop.time() == world.now_ns() / 1e9

    run(main)


def test_a_timeout_fires_when_it_says() -> None:
    async def main(world: VirtualWorld) -> None:
        for delay_s, delay_ns in ((0.1, 100 * MS), (0.2, 200 * MS), (0.7, 700 * MS)):
            start_ns = world.now_ns()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await asyncio.Event().wait()
            assert world.now_ns() - start_ns == delay_ns

    run(main)


@given(st.floats(min_value=0, max_value=4e6, allow_nan=False))
def test_a_delay_is_rounded_up_to_a_nanosecond(seconds: float) -> None:
    exact = whole_ns(seconds)
    assert exact >= seconds * 1e9 - 1e-6 * max(seconds, 1e-3)  # 1e-6 ns a second: float noise
    assert exact <= seconds * 1e9 + 1 + 1e-6 * seconds
    if seconds > 0:
        assert exact > 0  # "sleep what is left" gets on


@given(st.integers(min_value=0, max_value=3_000_000 * 1_000_000_000))
def test_whole_nanoseconds_survive_the_way_through_a_float(ns: int) -> None:
    assert whole_ns(ns / 1e9) == ns


@given(st.lists(st.floats(min_value=0, max_value=10), min_size=1, max_size=20))
def test_timers_fire_in_order_never_early_and_only_once(delays: list[float]) -> None:
    async def main(world: VirtualWorld) -> None:
        start_ns = world.now_ns()
        fired: list[tuple[int, int]] = []

        def fire(number: int) -> None:
            fired.append((number, world.now_ns()))

        for number, delay in enumerate(delays):
            world.loop.call_later(delay, fire, number)
        await asyncio.sleep(10.1)
        due = [whole_ns(delay) for delay in delays]
        expected = sorted(range(len(delays)), key=lambda n: (due[n], n))
        assert fired == [(n, start_ns + due[n]) for n in expected]

    run(main)


@given(st.floats(min_value=1.0, max_value=1000.0))
def test_sleeping_what_is_left_until_a_deadline_ends(deadline: float) -> None:
    async def main(world: VirtualWorld) -> None:
        sleeps = 0
        while (left := deadline - world.loop.time()) > 0:
            await asyncio.sleep(left)
            sleeps += 1
        assert sleeps <= 3

    run(main)


def test_a_cancelled_timer_does_not_fire_nor_move_the_clock() -> None:
    async def main(world: VirtualWorld) -> None:
        fired: list[int] = []
        for number in range(500):
            timer = world.loop.call_later(5.0, fired.append, number)
            if number != 250:
                timer.cancel()
        assert timer.cancelled()
        await asyncio.sleep(10)
        assert fired == [250]

    run(main)


def test_a_deadlock_says_who_waits_where() -> None:
    async def main(world: VirtualWorld) -> None:
        async def stuck_here() -> None:
            await asyncio.Event().wait()

        await asyncio.create_task(stuck_here(), name="the stuck one")

    with pytest.raises(Deadlock) as caught:
        run(main)
    text = str(caught.value)
    assert "the stuck one" in text
    assert "stuck_here → Event.wait" in text
    assert "test_testbed_virtual.py:" in text


def test_polling_without_waiting_is_a_livelock() -> None:
    async def main(world: VirtualWorld) -> None:
        world.loop.patience = 100
        while True:  # noqa: ASYNC110 # what is meant
            await asyncio.sleep(0)

    with pytest.raises(Livelock, match="100 turns"):
        run(main)


def test_an_executor_runs_inline() -> None:
    async def main(world: VirtualWorld) -> None:
        order = ["before"]
        waiting = world.loop.run_in_executor(None, order.append, "inside")
        order.append("after")
        await waiting
        assert order == ["before", "inside", "after"]
        assert await asyncio.to_thread(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divmod, 7, 0)

    run(main)


# -- run: nothing is left, nothing goes unseen ----------------------------------------------


def test_run_returns_and_raises_what_main_does() -> None:
    async def main(world: VirtualWorld) -> int:
        return 5

    async def fails(world: VirtualWorld) -> None:
        raise KeyError("mine")

    assert run(main) == 5
    with pytest.raises(KeyError, match="mine"):
        run(fails)


def test_a_task_left_behind_is_an_error() -> None:
    async def main(world: VirtualWorld) -> None:
        async def idle() -> None:
            await asyncio.sleep(5)

        world.spawn(idle(), "left behind")

    with pytest.raises(Leftover, match="left behind"):
        run(main)


def test_a_connection_or_listener_left_open_is_an_error() -> None:
    async def main(world: VirtualWorld) -> None:
        server = await world.loop.create_server(Recorder, HOST, 0)
        await world.loop.create_connection(Recorder, HOST, server.port)

    with pytest.raises(
        Leftover, match=r"VirtualTransport #1 .* open>\n.*\n<VirtualServer .*listen"
    ):
        run(main)


def test_bytes_on_the_wire_may_still_arrive_when_main_is_done() -> None:
    async def main(world: VirtualWorld) -> None:
        server = await world.loop.create_server(Recorder, HOST, 0)
        world.network.set(HOST, server.port, Link(latency_s=0.5, segment=1))
        transport, _ = await world.loop.create_connection(Recorder, HOST, server.port)
        transport.write(b"last words")
        transport.close()
        server.close()

    run(main)


def test_a_failure_nobody_saw_fails_the_run() -> None:
    async def main(world: VirtualWorld) -> None:
        async def fails() -> None:
            raise ValueError("in the background")

        world.spawn(fails(), "worker")

    with pytest.raises(Unseen, match="background task worker failed") as caught:
        run(main)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_protocol_that_raises_loses_its_connection_and_is_reported() -> None:
    class Fails(Recorder):
        def data_received(self, data: bytes) -> None:
            raise ValueError("cannot read this")

    async def main(world: VirtualWorld) -> None:
        server = await world.loop.create_server(Fails, HOST, 0)
        transport, client = await world.loop.create_connection(Recorder, HOST, server.port)
        transport.write(b"x")
        await client.lost.wait()  # type: ignore[attr-defined]
        assert isinstance(client.error, ConnectionResetError)  # type: ignore[attr-defined]
        (report,) = world.loop.reported
        assert isinstance(report["exception"], ValueError)
        world.loop.reported.clear()
        server.close()

    run(main)


# -- the network ----------------------------------------------------------------------------


def test_latency_bandwidth_and_segments_shape_the_arrival() -> None:
    async def main(world: VirtualWorld) -> None:
        start_ns = world.now_ns()
        server = await world.loop.create_server(lambda: Recorder(echo=True), HOST, 0)
        world.network.set(HOST, server.port, Link(latency_s=0.010, bytes_per_s=1000, segment=40))
        transport, client = await world.loop.create_connection(Recorder, HOST, server.port)
        assert world.now_ns() - start_ns == 20 * MS  # a round trip
        transport.write(bytes(100))
        assert isinstance(client, Recorder)
        await client.has(100)
        # 40, 40 and 20 bytes: each is sent in 1 ms a byte, up and down, and travels 10 ms.
        assert [len(piece) for piece in client.pieces] == [40, 40, 20]
        arrivals = [round((t - start_ns / 1e9) * 1000) for t in client.times]
        assert arrivals == [20 + 40 + 10 + 40 + 10, 160, 180]
        transport.close()
        server.close()

    run(main)


def test_order_holds_when_a_latency_shrinks() -> None:
    async def main(world: VirtualWorld) -> None:
        async with connected() as pair:
            server: VirtualServer = pair.server
            world.network.set(HOST, server.port, Link(latency_s=1.0))
            pair.client.transport.write(b"first ")
            world.network.set(HOST, server.port, Link())
            pair.client.transport.write(b"second")
            assert await pair.served.has(12) == b"first second"

    run(main)


def test_the_window_bounds_what_is_under_way() -> None:
    async def main(world: VirtualWorld) -> None:
        async with connected() as pair:
            world.network.set(HOST, pair.server.port, Link(window=1000, segment=300))
            pair.served.transport.pause_reading()
            pair.client.transport.write(bytes(5000))
            await asyncio.sleep(1)
            assert pair.client.transport.get_write_buffer_size() == 4000
            pair.served.transport.resume_reading()
            await pair.served.has(5000)
            assert pair.client.transport.get_write_buffer_size() == 0

    run(main)


def test_a_black_hole_never_connects() -> None:
    async def main(world: VirtualWorld) -> None:
        server = await world.loop.create_server(Recorder, HOST, 0)
        world.network.set(HOST, server.port, Link(black_hole=True))
        start_ns = world.now_ns()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.5):
                await world.loop.create_connection(Recorder, HOST, server.port)
        assert world.now_ns() - start_ns == 3500 * MS
        server.close()

    run(main)


@pytest.mark.parametrize("after", [0, 1, 99, 100, 101])
def test_a_reset_after_so_many_bytes_reaches_both_ends(after: int) -> None:
    async def main(world: VirtualWorld) -> None:
        async with connected() as pair:
            world.network.set(HOST, pair.server.port, Link(fault=Fault("reset", after)))
            pair.served.transport.write(bytes(60))
            pair.served.transport.write(bytes(60))
            await pair.client.lost.wait()
            await pair.served.lost.wait()
            assert len(pair.client.data) == after
            assert isinstance(pair.client.error, ConnectionResetError)
            assert isinstance(pair.served.error, ConnectionResetError)

    run(main)


def test_a_stall_goes_unnoticed_until_the_link_is_mended() -> None:
    async def main(world: VirtualWorld) -> None:
        async with connected() as pair:
            world.network.set(HOST, pair.server.port, Link(fault=Fault("stall", 10, "up")))
            pair.client.transport.write(b"0123456789abcdef")
            await asyncio.sleep(3600)
            assert pair.served.data == b"0123456789"
            pair.served.transport.write(b"the other way works")
            assert await pair.client.has(19) == b"the other way works"
            world.network.set(HOST, pair.server.port, Link())
            assert await pair.served.has(16) == b"0123456789abcdef"

    run(main)


def test_a_false_end_cuts_an_answer_short() -> None:
    async def main(world: VirtualWorld) -> None:
        async with connected() as pair:
            world.network.set(HOST, pair.server.port, Link(fault=Fault("close", 4)))
            pair.served.transport.write(b"truncated")
            await pair.client.lost.wait()
            await pair.served.lost.wait()
            assert (pair.client.data, pair.client.error) == (b"trun", None)
            assert isinstance(pair.served.error, ConnectionResetError)

    run(main)


def test_a_script_gives_each_connection_its_link() -> None:
    async def main(world: VirtualWorld) -> None:
        server = await world.loop.create_server(Recorder, HOST, 0)
        world.network.script(HOST, server.port, [Link(latency_s=0.1), Link(black_hole=True)])
        took_ms = []
        for _ in range(3):
            start_ns = world.now_ns()
            try:
                async with asyncio.timeout(1):
                    transport, _ = await world.loop.create_connection(Recorder, HOST, server.port)
                transport.close()
            except TimeoutError:
                pass
            took_ms.append((world.now_ns() - start_ns) // MS)
        assert took_ms == [200, 1000, 0]
        server.close()

    run(main)


def test_open_connections_can_be_reset() -> None:
    async def main(world: VirtualWorld) -> None:
        async with connected() as pair:
            world.network.reset(HOST, pair.server.port)
            await pair.client.lost.wait()
            await pair.served.lost.wait()
            assert isinstance(pair.client.error, ConnectionResetError)
            assert isinstance(pair.served.error, ConnectionResetError)

    run(main)


def test_abort_resets_the_peer_after_what_had_left() -> None:
    async def main(world: VirtualWorld) -> None:
        async with connected() as pair:
            world.network.set(HOST, pair.server.port, Link(latency_s=0.25, window=10))
            pair.client.transport.write(b"0123456789 and what never leaves")
            pair.client.transport.abort()
            await pair.served.lost.wait()
            assert pair.served.data == b"0123456789"
            assert isinstance(pair.served.error, ConnectionResetError)
            assert world.now_ns() == START_NS + 250 * MS

    run(main)


def test_closing_with_unread_bytes_resets_the_peer() -> None:
    async def main(world: VirtualWorld) -> None:
        async with connected() as pair:
            pair.client.transport.pause_reading()
            pair.served.transport.write(b"never read")
            await asyncio.sleep(1)
            pair.client.transport.close()
            await pair.served.lost.wait()
            assert isinstance(pair.served.error, ConnectionResetError)

    run(main)


def test_a_paused_reader_learns_of_a_reset_when_it_writes_or_resumes() -> None:
    async def main(world: VirtualWorld) -> None:
        for resumes in (True, False):
            async with connected() as pair:
                pair.client.transport.pause_reading()
                pair.served.transport.write(b"unread")
                await asyncio.sleep(1)
                pair.served.transport.abort()
                await asyncio.sleep(1)
                assert pair.client.events == ["made"]
                if resumes:
                    pair.client.transport.resume_reading()
                else:
                    pair.client.transport.write(b"x")
                await pair.client.lost.wait()
                assert pair.client.data == (b"unread" if resumes else b"")
                assert isinstance(pair.client.error, ConnectionResetError)

    run(main)


def test_a_server_that_closes_while_a_connection_is_under_way_resets_it() -> None:
    async def main(world: VirtualWorld) -> None:
        server = await world.loop.create_server(Recorder, HOST, 0)
        world.network.set(HOST, server.port, Link(latency_s=0.1))
        _, client = await world.loop.create_connection(Recorder, HOST, server.port)
        assert isinstance(client, Recorder)
        server.close()
        await client.lost.wait()
        assert isinstance(client.error, ConnectionResetError)

    run(main)


def test_names_resolve_by_the_script() -> None:
    async def main(world: VirtualWorld) -> None:
        world.network.hosts["api.test"] = ["10.0.0.1", "10.0.0.2"]
        world.network.hosts["gone.test"] = []
        assert await world.resolve("api.test", 80) == [("10.0.0.1", 80), ("10.0.0.2", 80)]
        assert await world.resolve("any.test", 80) == [(HOST, 80)]
        assert await world.resolve("10.9.8.7", 80) == [("10.9.8.7", 80)]
        with pytest.raises(OSError, match=r"gone\.test"):
            await world.resolve("gone.test", 80)
        with pytest.raises(socket.gaierror):
            await world.loop.getaddrinfo("gone.test", 80)
        (info, _) = await world.loop.getaddrinfo("api.test", 80, type=socket.SOCK_STREAM)
        assert info[4] == ("10.0.0.1", 80)
        # The second address answers where the first refuses.
        server = await world.loop.create_server(Recorder, "10.0.0.2", 80)
        transport, _ = await world.loop.create_connection(Recorder, "api.test", 80)
        assert transport.get_extra_info("peername") == ("10.0.0.2", 80)
        transport.close()
        server.close()

    run(main)


def test_what_it_cannot_do_is_refused_clearly() -> None:
    async def main(world: VirtualWorld) -> None:
        with pytest.raises(NotImplementedError, match="TLS"):
            await world.loop.create_connection(Recorder, HOST, 1, ssl=True)
        with pytest.raises(NotImplementedError, match="sockets"):
            await world.loop.create_server(Recorder, sock=object())

    run(main)


# -- the world ------------------------------------------------------------------------------


def test_the_world_draws_everything_from_its_seed() -> None:
    async def main(world: World) -> list[Any]:
        return [world.new_id("req_"), world.rng.random(), world.now_ns(), world.wall_ns()]

    first = run(main, seed=3)
    assert first == run(main, seed=3)
    assert first[0] != run(main, seed=4)[0]
    assert len(first[0]) == len("req_") + 24


def test_the_calendar_may_jump_and_the_clock_does_not() -> None:
    async def main(world: VirtualWorld) -> None:
        wall_ns, now_ns = world.wall_ns(), world.now_ns()
        assert wall_ns == 1_767_225_600 * 1_000_000_000  # 2026-01-01
        world.wall_jump_ns = -3600 * 1_000_000_000
        await asyncio.sleep(1)
        assert world.wall_ns() - wall_ns == (1 - 3600) * 1_000_000_000
        assert world.now_ns() - now_ns == 1_000_000_000

    run(main)


# -- uvicorn, unchanged ---------------------------------------------------------------------


async def _app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"x-path", scope["path"].encode()),
                (b"x-peer", scope["client"][0].encode()),
            ],
        }
    )
    for part in (b"you said ", body):
        await send({"type": "http.response.body", "body": part, "more_body": True})
        await asyncio.sleep(0.05)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _served_by_uvicorn(seed: int) -> tuple[bytes, list[tuple[int, int, str, bytes]]]:
    async def main(world: VirtualWorld) -> bytes:
        config = Config(_app, log_config=None, lifespan="off", timeout_keep_alive=5)
        config.load()
        state = ServerState()
        server = await world.loop.create_server(
            lambda: HttpToolsProtocol(config, state, {}, _loop=world.loop), HOST, 0
        )
        latency_s = world.rng.uniform(0.001, 0.010)
        world.network.set(HOST, server.port, Link(latency_s=latency_s, segment=17))
        world.network.tap = lambda *seen: trace.append(seen)
        transport, client = await world.loop.create_connection(Recorder, HOST, server.port)
        assert isinstance(client, Recorder)
        for number in range(2):  # kept alive
            transport.write(
                b"POST /p%d HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" % number
            )
            while client.data.count(b"0\r\n\r\n") <= number:
                client.arrived.clear()
                await client.arrived.wait()
        answered_ns = world.now_ns()
        await client.lost.wait()  # uvicorn's keep-alive clock
        assert 5.0 <= (world.now_ns() - answered_ns) / 1e9 < 5.1
        server.close()
        return client.data

    trace: list[tuple[int, int, str, bytes]] = []
    return run(main, seed), trace


def test_uvicorn_serves_on_it_unchanged() -> None:
    data, _ = _served_by_uvicorn(seed=1)
    assert data.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert b"x-path: /p0\r\n" in data
    assert b"x-path: /p1\r\n" in data
    assert b"x-peer: 127.0.0.1\r\n" in data
    assert data.count(b"9\r\nyou said \r\n5\r\nhello\r\n0\r\n\r\n") == 2


def test_the_same_seed_gives_the_same_trace_byte_for_byte() -> None:
    first, second, other = (_served_by_uvicorn(seed)[1] for seed in (1, 1, 2))
    assert first == second
    assert len(first) > 20
    assert [t for t, *_ in first] != [t for t, *_ in other]
    assert b"".join(d for *_, d in first) == b"".join(d for *_, d in other)
