"""The line between a worker and the back office: frames whole or not at all, and no waiting."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeding import CUTS, feeds
from forebay.processes import link as links
from forebay.processes.link import (
    HIGH_WATER_BYTES,
    MAX_FRAME_BYTES,
    METRICS,
    RECONNECT_S,
    RECORDS,
    SNAPSHOT,
    WANTED,
    Line,
    Link,
    Snapshot,
    encode_snapshot,
    frame,
    pack_records,
    unpack_records,
)
from forebay.schema.usage import Rates
from forebay.testbed.virtual import VirtualWorld, run

PATH = Path("/virtual/office.sock")
KINDS = st.sampled_from([RECORDS, WANTED, METRICS, SNAPSHOT, b"?"])
FRAMES = st.lists(st.tuples(KINDS, st.binary(max_size=40)), max_size=6)


# -- frames ----------------------------------------------------------------------------------


def received(chunks: list[bytes]) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    line = Line(lambda _, kind, payload: found.append((kind, bytes(payload))), lambda _: None)
    for chunk in chunks:
        while chunk:
            room = line.get_buffer(-1)
            count = min(len(room), len(chunk))
            room[:count] = chunk[:count]
            line.buffer_updated(count)
            chunk = chunk[count:]
    return found


@given(frames=FRAMES, cuts=CUTS, rest=st.binary(max_size=4))
def test_frames_are_the_same_however_they_are_cut(
    frames: list[tuple[bytes, bytes]], cuts: list[int], rest: bytes
) -> None:
    data = b"".join(frame(kind, payload) for kind, payload in frames)
    for chunks in feeds(data, cuts, trailing=rest):  # what is left is the start of another
        assert received([chunk for chunk in chunks if chunk]) == frames


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_records_are_unpacked_as_they_were_packed(batch: list[bytes]) -> None:
    packed = b"".join(pack_records(batch))
    ((kind, payload),) = received([packed])
    assert kind == RECORDS
    assert [bytes(data) for data in unpack_records(memoryview(payload))] == batch


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=4), st.integers(1, 20))
def test_a_cut_batch_is_refused_or_shorter(batch: list[bytes], less: int) -> None:
    payload = b"".join(pack_records(batch))[5:]
    cut = payload[: max(0, len(payload) - less)]
    try:
        found = unpack_records(memoryview(cut))
    except ValueError:
        return
    assert [bytes(data) for data in found] == batch[: len(found)]
    assert len(found) < len(batch)


@given(st.binary(max_size=60))
def test_any_payload_is_unpacked_or_refused(payload: bytes) -> None:
    try:
        found = unpack_records(memoryview(payload))
    except ValueError:
        return
    assert sum(len(data) + 4 for data in found) == len(payload)


def test_a_frame_over_the_bound_ends_the_line() -> None:
    async def main(world: VirtualWorld) -> None:
        ended: list[Line] = []
        frames: list[bytes] = []
        loop = world.loop
        await loop.create_unix_server(
            lambda: Line(lambda _, kind, payload: frames.append(bytes(payload)), ended.append),
            str(PATH),
        )
        transport, _ = await loop.create_unix_connection(asyncio.Protocol, str(PATH))
        transport.write(frame(METRICS, b"good") + struct.pack("<I", MAX_FRAME_BYTES + 1) + b"R")
        transport.write(b"x" * 1000)
        await asyncio.sleep(1)
        assert frames == [b"good"]
        assert len(ended) == 1
        assert transport.is_closing()
        loop.network.listeners[str(PATH)].close()

    run(main)


# -- the worker's end ------------------------------------------------------------------------


class Office:
    """The other end: keeps what comes, answers where it is told to."""

    def __init__(self, world: VirtualWorld) -> None:
        self.world = world
        self.lines: list[Line] = []
        self.frames: list[tuple[bytes, bytes]] = []
        self.answers_metrics = True
        self.greets = True

    async def open(self) -> None:
        self.server = await self.world.loop.create_unix_server(
            lambda: Line(self._frame, lambda _: None, self._made), str(PATH)
        )

    def _made(self, line: Line) -> None:
        self.lines.append(line)
        if self.greets:
            self.tell(line, Snapshot(keys=[]))

    def _frame(self, line: Line, kind: bytes, payload: memoryview) -> None:
        self.frames.append((bytes(kind), bytes(payload)))
        if kind == METRICS and self.answers_metrics:
            line.send(METRICS, f"scrape {len(self.frames)}".encode())

    def tell(self, line: Line, snapshot: Snapshot) -> None:
        line.send(SNAPSHOT, encode_snapshot(snapshot))

    async def close(self) -> None:
        self.server.close()
        self.server.abort_clients()
        await asyncio.sleep(0.01)


@asynccontextmanager
async def linked(
    world: VirtualWorld, on_snapshot: Callable[[Snapshot], None] = lambda _: None
) -> AsyncIterator[tuple[Link, Office]]:
    office = Office(world)
    await office.open()
    link = Link(world, PATH, on_snapshot)
    running = asyncio.create_task(link.run())
    try:
        await link.synced.wait()
        yield link, office
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await office.close()


def test_snapshots_are_handed_out_and_the_first_says_it_is_there() -> None:
    async def main(world: VirtualWorld) -> None:
        found: list[Snapshot] = []
        async with linked(world, found.append) as (link, office):
            change = Snapshot(rates=[("openai", "m", Rates(1, 2, 3, 4)), ("x", "y", None)])
            office.tell(office.lines[0], change)
            await asyncio.sleep(0.01)
            assert found == [Snapshot(keys=[]), change]
            assert link.up
            assert "up" in repr(link)

    run(main)


def test_records_go_out_and_prices_are_asked_for() -> None:
    async def main(world: VirtualWorld) -> None:
        async with linked(world) as (link, office):
            assert link.send_records([b"one", b"two"])
            link.want({("openai", "b"), ("openai", "a")})
            link.want(set())
            await asyncio.sleep(0.01)
            (records_kind, payload), (wanted_kind, models) = office.frames
            assert (records_kind, unpack_records(memoryview(payload))) == (
                RECORDS,
                [b"one", b"two"],
            )
            assert wanted_kind == WANTED
            assert msgspec.msgpack.decode(models) == [["openai", "a"], ["openai", "b"]]

    run(main)


def test_it_comes_back_whenever_it_was_lost() -> None:
    async def main(world: VirtualWorld) -> None:
        found: list[Snapshot] = []
        async with linked(world, found.append) as (link, office):
            assert link.times_up == 1
            for times in (2, 3):
                await office.close()
                assert not link.up
                assert "down" in repr(link)
                assert not link.send_records([b"x"])
                link.want({("a", "b")})  # nobody to ask: not an error
                with pytest.raises(ConnectionError):
                    await link.metrics()
                await asyncio.sleep(10)
                await office.open()
                await asyncio.sleep(2 * RECONNECT_S)
                assert repr(link).startswith("<Link up")
                assert link.times_up == times
                assert len(found) == times
            assert link.send_records([b"y"])
            await asyncio.sleep(0.01)
            assert office.frames[-1][0] == RECORDS

    run(main)


def test_who_hangs_up_as_soon_as_it_stands_is_not_taken_for_a_line() -> None:
    async def main(world: VirtualWorld) -> None:
        class Rude(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                transport.abort()  # type: ignore[attr-defined]

        server = await world.loop.create_unix_server(Rude, str(PATH))
        link = Link(world, PATH, lambda _: None)
        running = asyncio.create_task(link.run())
        for _ in range(20):
            await asyncio.sleep(RECONNECT_S / 3)
            assert not link.send_records([b"x"]) or link.up
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        server.close()

    run(main)


def test_metrics_are_asked_and_answered_in_turn() -> None:
    async def main(world: VirtualWorld) -> None:
        async with linked(world) as (link, _):
            found = await asyncio.gather(*(link.metrics() for _ in range(3)))
            assert found == ["scrape 1", "scrape 2", "scrape 3"]

    run(main)


def test_an_answer_that_is_late_is_not_taken_for_the_next_one() -> None:
    async def main(world: VirtualWorld) -> None:
        async with linked(world) as (link, office):
            office.answers_metrics = False
            start_ns = world.now_ns()
            with pytest.raises(TimeoutError):
                await link.metrics(timeout_s=2)
            assert world.now_ns() - start_ns == 2_000_000_000
            asking = asyncio.create_task(link.metrics())
            await asyncio.sleep(0.01)
            office.lines[0].send(METRICS, b"late")
            office.lines[0].send(METRICS, b"right")
            assert await asking == "right"

    run(main)


def test_who_waits_for_metrics_is_told_when_the_line_goes() -> None:
    async def main(world: VirtualWorld) -> None:
        async with linked(world) as (link, office):
            office.answers_metrics = False
            asking = asyncio.create_task(link.metrics())
            await asyncio.sleep(0.01)
            await office.close()
            with pytest.raises(ConnectionError):
                await asking
            await office.open()

    run(main)


def test_an_office_that_reads_slowly_leaves_records_with_the_recorder() -> None:
    async def main(world: VirtualWorld) -> None:
        async with linked(world) as (link, office):
            transport = office.lines[0].transport
            assert transport is not None
            transport.pause_reading()
            batch = [b"x" * 1_000_000]
            taken = 0
            while link.send_records(batch):
                taken += 1
                await asyncio.sleep(0)
                assert taken < 50
            assert HIGH_WATER_BYTES // 1_000_000 <= taken <= HIGH_WATER_BYTES // 1_000_000 + 3
            transport.resume_reading()
            await asyncio.sleep(0.1)
            assert link.send_records(batch)
            await asyncio.sleep(0.1)
            assert len(office.frames) == taken + 1

    run(main)


def test_closing_waits_until_everything_was_read() -> None:
    async def main(world: VirtualWorld) -> None:
        async with linked(world) as (link, office):
            assert link.send_records([b"last words"])
            await link.close()
            assert office.frames[-1][0] == RECORDS
            assert not link.up
            await asyncio.sleep(10)
            assert link.times_up == 1  # it does not come back
            await link.close()  # again: nothing to wait for

    run(main)


def test_a_broken_frame_ends_the_line_and_another_one_begins() -> None:
    async def main(world: VirtualWorld) -> None:
        async with linked(world) as (link, office):
            office.lines[0].send(SNAPSHOT, b"\xc1 no msgpack")
            await asyncio.sleep(2 * RECONNECT_S)
            assert link.up
            assert link.times_up == 2
            assert len(world.loop.reported) == 1  # it is a defect, and says so
            world.loop.reported.clear()

    run(main)


def test_frames_have_one_head() -> None:
    assert frame(METRICS, b"abc") == b"\x03\0\0\0Mabc"
    assert b"".join(pack_records([b"ab"])) == b"\x06\0\0\0R\x02\0\0\0ab"
    assert links.MAX_FRAME_BYTES > 64 * 1024 * 1024  # a record of the largest body fits
