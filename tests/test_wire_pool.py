"""The pool in virtual time: reuse, bounds, the one retry, the four clocks, and giving up.

TLS and proxies over real sockets are in test_wire_pool_sockets.py.
"""

import asyncio
import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.testbed.virtual import Fault, Link, VirtualWorld, run
from forebay.wire.pool import KEEP_ALIVE_S, Origin, Proxy, Target, parse_proxy
from forebay.wire.upstream import LinkError
from upstreams import HOST, REQUEST, SILENCE, Answer, Outcome, Provider, ask, clocks, ok

MS = 1_000_000
S = 1_000_000_000
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


# -- reuse ----------------------------------------------------------------------------------


def test_one_connection_carries_one_call_after_the_other() -> None:
    async def main(world: VirtualWorld) -> None:
        answers = [ok(b"1"), CHUNKED + chunk(b"2") + chunk(b""), ok(b"3")]
        async with Provider([Answer([data]) for data in answers]) as provider:
            target = Target(world, provider.origin())
            for number in (b"1", b"2", b"3"):
                assert (await ask(world, target)).body == number
            assert provider.accepted == 1
            assert (
                repr(target) == f"<Target {HOST}:{provider.port} 0 busy, 1 free of 1024, 0 waiting>"
            )
            target.close()

    run(main)


@pytest.mark.parametrize(
    "data",
    [
        ok(b"ok", b"connection: close"),
        ok(b"ok", b"connection: x, close"),
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
        CHUNKED.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") + chunk(b""),
    ],
)
def test_a_connection_the_provider_means_to_close_is_not_reused(data: bytes) -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([data])]) as provider:
            target = Target(world, provider.origin())
            assert [(await ask(world, target)).error for _ in range(3)] == ["", "", ""]
            assert provider.accepted == 3
            assert target.live == 0

    run(main)


def test_the_most_recently_used_is_taken_and_the_others_age_out() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([ok()], after_s=1.0)]) as provider:
            target = Target(world, provider.origin())
            await asyncio.gather(*(ask(world, target) for _ in range(3)))
            assert (provider.accepted, target.live) == (3, 3)
            start_ns = world.now_ns()
            used = 0
            while world.now_ns() - start_ns < (KEEP_ALIVE_S - 2) * S:
                await ask(world, target)
                used += 1
            assert target.live == 3
            await asyncio.sleep(start_ns / 1e9 + KEEP_ALIVE_S - world.loop.time() - 0.001)
            assert target.live == 3
            await asyncio.sleep(0.002)
            assert target.live == 1
            assert "0 busy, 1 free" in repr(target)
            assert sorted(peer.asked for peer in provider.peers) == [1, 1, 1 + used]
            target.close()

    run(main)


def test_an_answer_nobody_asked_for_costs_the_idle_connection() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider() as provider:
            target = Target(world, provider.origin())
            await ask(world, target)
            provider.peers[0].transport.write(ok(b"for somebody else"))
            await provider.peers[0].lost.wait()
            assert target.live == 0
            assert (await ask(world, target)).body == b"ok"
            target.close()

    run(main)


def test_an_answer_before_the_request_was_read_costs_the_connection() -> None:
    """A provider that refuses a large body answers at once and may never read the rest: the
    next request would wait behind it."""

    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([ok(b"too large")])]) as provider:
            target = Target(world, provider.origin())
            await ask(world, target)
            provider.peers[0].answers = [SILENCE]

            async def refuse() -> None:
                await provider.was_asked(2)
                provider.peers[0].transport.pause_reading()
                provider.peers[0].transport.write(ok(b"too large"))

            world.spawn(refuse(), "refuse")
            seen = await ask(world, target, "POST", body=bytes(2_000_000))
            assert seen.body == b"too large"
            assert target.live == 0

    run(main)


# -- bounds ---------------------------------------------------------------------------------


def test_no_more_connections_than_allowed_and_first_come_first_served() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([ok()], after_s=1.0)]) as provider:
            target = Target(world, provider.origin(), limit=2)
            done: list[tuple[int, int]] = []

            async def one(number: int) -> None:
                await ask(world, target)
                done.append((number, (world.now_ns() - start_ns) // S))

            start_ns = world.now_ns()
            async with asyncio.TaskGroup() as group:
                for number in range(7):
                    group.create_task(one(number))
                await asyncio.sleep(0.5)
                assert "2 busy, 0 free of 2, 5 waiting" in repr(target)
            assert done == [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4)]
            assert provider.accepted == 2
            target.close()

    run(main)


def test_a_newcomer_does_not_overtake_those_in_line() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([ok()], after_s=1.0)]) as provider:
            target = Target(world, provider.origin(), limit=1)
            waited: list[int] = []

            async def patient() -> None:
                waited.append((await ask(world, target)).took_ns // S)

            async def greedy() -> None:
                for _ in range(8):  # asks again in the very turn in which its answer is done
                    await ask(world, target)

            async with asyncio.TaskGroup() as group:
                group.create_task(greedy())
                await asyncio.sleep(0.1)
                group.create_task(patient())
            assert waited == [1]  # the call before it, less what had passed, and its own
            target.close()

    run(main)


def test_a_place_that_fails_goes_to_the_next_in_line() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([], "reset", after_s=1.0)], [Answer([ok()])]) as provider:
            target = Target(world, provider.origin(), limit=1)
            results = await asyncio.gather(*(ask(world, target) for _ in range(4)))
            assert [seen.error for seen in results] == ["reset", "", "", ""]
            assert provider.accepted == 2
            target.close()

    run(main)


def test_waiting_in_line_ends_with_the_connect_clock() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([SILENCE]) as provider:
            target = Target(world, provider.origin(), limit=1)
            holder = asyncio.create_task(ask(world, target, limits=clocks(first_s=60)))
            await asyncio.sleep(0)
            seen = await ask(world, target, limits=clocks(connect_s=2.5))
            assert (seen.error, seen.answered) == ("pool_full", False)
            assert seen.took_ns == 2500 * MS
            assert "all 1 connections were busy for 2.5 s" in seen.message
            holder.cancel()
            await asyncio.wait([holder])
            assert target.live == 0

    run(main)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_happens_places_are_neither_lost_nor_doubled(data: st.DataObject) -> None:
    """Calls of all lengths, failing and given up at any moment, through a narrow pool."""
    limit = data.draw(st.integers(1, 3))
    fates = st.sampled_from(["", "", "close", "reset"])
    answers = st.builds(
        lambda then, after_s, body: Answer([ok(body)] if body else [], then, after_s),
        fates,
        st.sampled_from([0.0, 0.0, 0.5, 1.0]),
        st.sampled_from([b"", b"ok", b"ok"]),
    )
    scripts = data.draw(st.lists(st.lists(answers, min_size=1, max_size=3), min_size=1, max_size=4))
    callers = data.draw(
        st.lists(
            st.tuples(st.sampled_from([0.0, 0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0, 9.0])),
            min_size=1,
            max_size=12,
        )
    )

    async def main(world: VirtualWorld) -> None:
        async with Provider(*scripts, [Answer([ok()])]) as provider:
            target = Target(world, provider.origin(), limit)

            async def caller(starts_s: float, gives_up_s: float) -> None:
                await asyncio.sleep(starts_s)
                try:
                    async with asyncio.timeout(gives_up_s):
                        await ask(world, target, limits=clocks(connect_s=4, first_s=3))
                except TimeoutError:
                    pass

            tasks = [asyncio.create_task(caller(*times)) for times in callers]
            await asyncio.sleep(0.1)  # between the moments at which things happen
            while not all(task.done() for task in tasks):
                await asyncio.sleep(0.25)
                alive = sum(not peer.lost.is_set() for peer in provider.peers)
                assert alive <= target.live <= limit
            await asyncio.gather(*tasks)
            # All is over: what is left is free, and every place can be had again.
            assert f"<Target {target.origin.authority} 0 busy, {target.live} free" in repr(target)
            results = await asyncio.gather(
                *(ask(world, target, limits=clocks(first_s=1)) for _ in range(limit))
            )
            assert all(seen.error != "pool_full" for seen in results)
            target.close()
            assert target.live == 0

    run(main)


# -- the one retry --------------------------------------------------------------------------


async def stale(world: VirtualWorld, provider: Provider, then: str) -> tuple[Target, Outcome]:
    """A call on a kept connection that the provider closes while the request is under way."""
    world.network.set(HOST, provider.port, Link(latency_s=0.05))
    target = Target(world, provider.origin())
    await ask(world, target)
    await asyncio.sleep(1)
    peer = provider.peers[0]
    peer.transport.close() if then == "close" else peer.transport.abort()
    return target, await ask(world, target)


@pytest.mark.parametrize("then", ["close", "reset"])
def test_a_stale_kept_connection_is_retried_once_on_a_fresh_one(then: str) -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([ok()])], [Answer([ok(b"second")])]) as provider:
            target, seen = await stale(world, provider, then)
            assert (seen.body, seen.error) == (b"second", "")
            assert [peer.asked for peer in provider.peers] == [1, 1]
            target.close()

    run(main)


@pytest.mark.parametrize("then", ["close", "reset"])
def test_the_retry_itself_is_not_retried(then: str) -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([ok()])], [Answer([], then)]) as provider:
            target, seen = await stale(world, provider, then)
            assert (seen.error, seen.answered) == ("reset", False)
            assert [peer.asked for peer in provider.peers] == [1, 1]
            assert target.live == 0

    run(main)


@pytest.mark.parametrize("then", ["close", "reset"])
def test_a_fresh_connection_is_never_retried(then: str) -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([], then)]) as provider:
            target = Target(world, provider.origin())
            seen = await ask(world, target)
            assert (seen.error, seen.answered) == ("reset", False)
            assert [peer.asked for peer in provider.peers] == [1]

    run(main)


@pytest.mark.parametrize("first_bytes", [b"H", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Go\r\n\r\n"])
def test_nothing_is_retried_once_a_byte_of_an_answer_came(first_bytes: bytes) -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([ok()]), Answer([first_bytes], "close")]) as provider:
            target = Target(world, provider.origin())
            await ask(world, target)
            seen = await ask(world, target)
            assert (seen.error, seen.answered) == ("reset", True)
            assert [peer.asked for peer in provider.peers] == [2]

    run(main)


def test_a_clock_that_ran_out_on_a_kept_connection_is_not_retried() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([ok()]), SILENCE]) as provider:
            target = Target(world, provider.origin())
            await ask(world, target)
            seen = await ask(world, target, limits=clocks(first_s=2))
            assert (seen.error, seen.took_ns) == ("first_byte_timeout", 2 * S)
            assert [peer.asked for peer in provider.peers] == [2]

    run(main)


def test_a_connection_handed_down_the_line_is_kept_and_may_be_retried() -> None:
    """The one that comes free as its provider closes it was used before, too."""

    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([ok()], "close", after_s=1)], [Answer([ok(b"2")])]) as provider:
            target = Target(world, provider.origin(), limit=1)
            first, second = await asyncio.gather(ask(world, target), ask(world, target))
            assert (first.error, second.error, second.body) == ("", "", b"2")
            target.close()

    run(main)


def test_what_we_close_ourselves_is_not_retried() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([ok()]), SILENCE]) as provider:
            target = Target(world, provider.origin())
            await ask(world, target)
            pending = asyncio.create_task(ask(world, target))
            await provider.was_asked(2)
            target.close()
            assert (await pending).error == "given_up"
            await provider.peers[0].lost.wait()
            assert (provider.accepted, target.live) == (1, 0)

    run(main)


# -- the four clocks ------------------------------------------------------------------------


def test_the_connect_clock_stops_at_a_black_hole() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider() as provider:
            world.network.set(HOST, provider.port, Link(black_hole=True))
            target = Target(world, provider.origin())
            seen = await ask(world, target, limits=clocks(connect_s=1.25))
            assert (seen.error, seen.answered, seen.took_ns) == (
                "connect_timeout",
                False,
                1250 * MS,
            )
            assert "1.2 s (connecting)" in seen.message
            assert target.live == 0

    run(main)


def test_the_first_byte_clock_runs_from_the_request_to_the_first_content() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([CHUNKED])]) as provider:
            world.network.set(HOST, provider.port, Link(latency_s=0.25))
            target = Target(world, provider.origin())
            seen = await ask(world, target, limits=clocks(first_s=3))
            # Connecting took a round trip; the head alone stops no clock.
            assert (seen.status, seen.error, seen.took_ns) == (200, "first_byte_timeout", 3500 * MS)
            assert seen.answered

    run(main)


def test_the_idle_clock_starts_anew_with_progress_and_only_then() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([CHUNKED + chunk(b"content")])]) as provider:
            target = Target(world, provider.origin())
            call = await target.call("GET", REQUEST, b"", clocks(first_s=9, idle_s=3.5))
            start_ns = world.now_ns()

            def sink(piece: bytes) -> None:
                if piece == b"content":
                    call.progress()

            async def talk() -> None:
                for piece in (b"content", b": ping", b"content", b": ping", b": ping"):
                    await asyncio.sleep(1.5)
                    provider.peers[0].transport.write(chunk(piece))

            talking = asyncio.create_task(talk())
            with pytest.raises(LinkError) as caught:
                await call.relay(sink)
            assert caught.value.kind == "idle_timeout"
            assert world.now_ns() - start_ns == 8000 * MS  # 4.5 s, the last content, and 3.5 s
            await talking

    run(main)


@pytest.mark.parametrize("stage", ["line", "connect", "first", "idle", "paused"])
def test_the_total_clock_ends_any_wait(stage: str) -> None:
    async def main(world: VirtualWorld) -> None:
        answer = Answer([CHUNKED + chunk(b"x")]) if stage in ("idle", "paused") else SILENCE
        async with Provider([answer]) as provider:
            target = Target(world, provider.origin(), limit=1)
            if stage == "connect":
                world.network.set(HOST, provider.port, Link(black_hole=True))
            holder = asyncio.create_task(asyncio.sleep(0))
            if stage == "line":
                holder = asyncio.create_task(ask(world, target))  # type: ignore[arg-type]
                await provider.was_asked(1)
            start_ns = world.now_ns()
            limits = clocks(60, 60, 60, total_at_ns=start_ns + 1750 * MS)

            async def relayed() -> None:
                call = await target.call("GET", REQUEST, b"", limits)

                def sink(_: bytes) -> None:
                    call.progress()
                    if stage == "paused":
                        call.pause()

                await call.relay(sink)

            with pytest.raises(LinkError) as caught:
                await relayed()
            assert caught.value.kind == "total_timeout"
            assert world.now_ns() - start_ns == 1750 * MS
            holder.cancel()
            await asyncio.wait([holder])
            assert target.live == 0

    run(main)


def test_a_deadline_that_has_passed_asks_nobody() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider() as provider:
            target = Target(world, provider.origin())
            seen = await ask(world, target, limits=clocks(total_at_ns=world.now_ns() - 1))
            assert (seen.error, seen.took_ns) == ("total_timeout", 0)
            assert sum(peer.asked for peer in provider.peers) == 0

    run(main)


# -- giving up, backpressure ----------------------------------------------------------------


@pytest.mark.parametrize("stage", ["line", "connecting", "head", "body"])
def test_a_caller_that_leaves_closes_upstream_at_once(stage: str) -> None:
    async def main(world: VirtualWorld) -> None:
        answer = Answer([CHUNKED + chunk(b"x")]) if stage == "body" else SILENCE
        async with Provider([answer]) as provider:
            world.network.set(HOST, provider.port, Link(latency_s=0.01))
            target = Target(world, provider.origin(), limit=1)
            holder = asyncio.create_task(ask(world, target))
            if stage != "connecting":
                await asyncio.sleep(1)
            leaver = holder
            if stage == "line":
                leaver = asyncio.create_task(ask(world, target))
                await asyncio.sleep(1)
            left_ns = world.now_ns()
            leaver.cancel()
            await asyncio.wait([leaver])
            assert world.now_ns() == left_ns
            if stage == "line":
                assert (target.live, provider.accepted) == (1, 1)
                holder.cancel()
                await asyncio.wait([holder])
            assert target.live == 0
            if stage == "connecting":
                assert provider.accepted == 0
            else:
                (peer,) = provider.peers
                await peer.lost.wait()
                assert isinstance(peer.error, ConnectionResetError)
                assert world.now_ns() == left_ns + 10 * MS  # one way

    run(main)


def test_a_call_that_is_over_cannot_close_the_connection_of_the_next() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider() as provider:
            target = Target(world, provider.origin())
            first = await target.call("GET", REQUEST, b"", clocks())
            assert await first.read_all() == b"ok"
            second = await target.call("GET", REQUEST, b"", clocks())
            first.abort()
            first.pause()
            first.progress()
            assert await second.read_all() == b"ok"
            assert provider.accepted == 1
            target.close()

    run(main)


def test_a_slow_caller_pauses_the_provider_and_memory_stays_bounded() -> None:
    async def main(world: VirtualWorld) -> None:
        size = 10_000_000
        async with Provider([Answer([ok(bytes(size))])]) as provider:
            target = Target(world, provider.origin())
            call = await target.call("GET", REQUEST, b"", clocks(first_s=5, idle_s=5))
            arrived = 0

            def sink(piece: bytes) -> None:
                nonlocal arrived
                arrived += len(piece)
                call.progress()
                call.pause()
                call.progress()  # content that was under way: the clock stays off
                world.call_later(7.0, call.resume)  # longer than any clock but the total

            relaying = asyncio.create_task(call.relay(sink))
            await asyncio.sleep(1)
            (peer,) = provider.peers
            assert arrived <= 4 * 65_536  # what came before the first pause
            assert peer.transport.get_write_buffer_size() >= size - arrived - 262_144
            await relaying
            assert arrived == size
            assert world.now_ns() > 1000 * S
            target.close()

    run(main)


def test_after_a_pause_the_idle_clock_runs_again() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([CHUNKED + chunk(b"x")])]) as provider:
            target = Target(world, provider.origin())
            call = await target.call("GET", REQUEST, b"", clocks(idle_s=2))
            start_ns = world.now_ns()
            call.pause()
            world.call_later(100, call.resume)
            with pytest.raises(LinkError) as caught:
                await call.relay(lambda _: None)
            assert caught.value.kind == "idle_timeout"
            assert world.now_ns() - start_ns == 102 * S

    run(main)


def test_a_body_over_the_limit_is_refused_and_closed() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([ok(bytes(1001))])]) as provider:
            target = Target(world, provider.origin())
            call = await target.call("GET", REQUEST, b"", clocks())
            with pytest.raises(LinkError, match="over 1000 bytes") as caught:
                await call.read_all(limit=1000)
            assert caught.value.kind == "too_large"
            call = await target.call("GET", REQUEST, b"", clocks())
            assert len(await call.read_all(limit=1001)) == 1001
            target.close()

    run(main)


# -- the network ----------------------------------------------------------------------------


def test_nobody_there_is_refused_by_name_not_by_address() -> None:
    async def main(world: VirtualWorld) -> None:
        target = Target(world, Origin("api.test", 81))
        seen = await ask(world, target)
        assert (seen.error, seen.answered) == ("refused", False)
        assert "api.test" in seen.message
        assert target.live == 0

    run(main)


def test_a_name_that_does_not_resolve() -> None:
    async def main(world: VirtualWorld) -> None:
        world.network.hosts["gone.test"] = []
        target = Target(world, Origin("gone.test", 80))
        seen = await ask(world, target)
        assert (seen.error, seen.answered) == ("dns", False)
        assert "gone.test" in seen.message
        assert target.live == 0

    run(main)


def test_the_next_address_is_tried_where_one_refuses() -> None:
    async def main(world: VirtualWorld) -> None:
        world.network.hosts["api.test"] = ["10.0.0.1", "10.0.0.2"]
        async with Provider(host="10.0.0.2") as provider:
            target = Target(world, provider.origin("api.test"))
            assert (await ask(world, target)).body == b"ok"
            target.close()

    run(main)


def test_a_name_that_moves_is_followed_by_new_connections() -> None:
    async def main(world: VirtualWorld) -> None:
        world.network.hosts["api.test"] = ["10.0.0.1"]
        async with (
            Provider([Answer([ok(b"old")])], host="10.0.0.1", port=80),
            Provider([Answer([ok(b"new")])], host="10.0.0.2", port=80),
        ):
            target = Target(world, Origin("api.test", 80))
            assert (await ask(world, target)).body == b"old"
            world.network.hosts["api.test"] = ["10.0.0.2"]
            assert (await ask(world, target)).body == b"old"  # the kept one still works
            await asyncio.sleep(KEEP_ALIVE_S + 1)
            assert (await ask(world, target)).body == b"new"
            target.close()

    run(main)


@pytest.mark.parametrize("kind", ["reset", "close"])
def test_a_connection_that_breaks_in_the_body_is_a_truncated_answer(kind: str) -> None:
    async def main(world: VirtualWorld) -> None:
        data = ok(b"0123456789")
        async with Provider([Answer([data])]) as provider:
            fault = Fault("reset" if kind == "reset" else "close", len(data) - 4)
            world.network.set(HOST, provider.port, Link(fault=fault))
            target = Target(world, provider.origin())
            seen = await ask(world, target)
            assert (seen.status, seen.body, seen.error) == (200, b"012345", "truncated")
            assert target.live == 0

    run(main)


def test_a_body_that_ends_with_the_connection_must_not_end_in_a_reset() -> None:
    async def main(world: VirtualWorld) -> None:
        data = b"HTTP/1.1 200 OK\r\n\r\n0123456789"
        async with Provider([Answer([data], "close")], [Answer([data], "reset")]) as provider:
            target = Target(world, provider.origin())
            first, second = [await ask(world, target) for _ in range(2)]
            assert (first.body, first.error) == (b"0123456789", "")
            assert (second.body, second.error) == (b"0123456789", "truncated")

    run(main)


def test_a_stalled_stream_ends_with_the_idle_clock() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([ok(bytes(100_000))])]) as provider:
            world.network.set(HOST, provider.port, Link(fault=Fault("stall", 70_000)))
            target = Target(world, provider.origin())
            call = await target.call("GET", REQUEST, b"", clocks(idle_s=4))
            start_ns = world.now_ns()
            with pytest.raises(LinkError) as caught:
                await call.relay(lambda _: call.progress())
            assert caught.value.kind == "idle_timeout"
            assert world.now_ns() - start_ns == 4 * S
            world.network.set(HOST, provider.port, Link())  # so that both ends may close

    run(main)


# -- proxies --------------------------------------------------------------------------------


def test_plain_http_goes_to_the_proxy_and_names_resolve_there() -> None:
    async def main(world: VirtualWorld) -> None:
        world.network.hosts["only-the-proxy-knows.test"] = []
        async with Provider() as proxy:
            origin = Origin("only-the-proxy-knows.test", 80, None, Proxy(HOST, proxy.port))
            target = Target(world, origin)
            head = b"GET http://only-the-proxy-knows.test/ HTTP/1.1\r\nhost: x\r\n\r\n"
            assert (await ask(world, target, head=head)).body == b"ok"
            assert proxy.peers[0].received == head
            target.close()

    run(main)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer([b"HTTP/1.1 407 Who are you?\r\n\r\n"]), "answered 407 to CONNECT"),
        (Answer([b"HTTP/1.1 ", b"502 Bad\r\nx: y\r\n", b"\r\n"]), "answered 502 to CONNECT"),
        (Answer([b"nonsense\r\n\r\n"]), "answered 0 to CONNECT"),
        (Answer([b"\r\n\r\n\r\n\r\n"]), "answered 0 to CONNECT"),
        (Answer([b"HTTP/1.1 " + b"2" * 5000 + b" OK\r\n\r\n"]), "answered 0 to CONNECT"),
        (Answer([b"HTTP/1.1 \xb2\xb2\xb2 OK\r\n\r\n"]), "answered 0 to CONNECT"),
        (Answer([b"x" * 20_000]), "answered 0 to CONNECT"),
        (Answer([], "close"), "closed"),
        (Answer([b"HTTP/1.1 200"], "reset"), "closed"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_proxy_that_opens_no_tunnel(answer: Answer, words: str) -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([answer]) as proxy:
            tls = ssl.create_default_context()
            for host, authority in (("api.test", b"api.test:443"), ("fd00::1", b"[fd00::1]:443")):
                origin = Origin(host, 443, tls, Proxy(HOST, proxy.port, "Basic c2VjcmV0"))
                target = Target(world, origin)
                seen = await ask(world, target)
                assert (seen.error, seen.answered) == ("proxy", False)
                assert words in seen.message
                assert "c2VjcmV0" not in seen.message + repr(target) + repr(origin)
                assert target.live == 0
                received = proxy.peers[-1].received
                assert received.startswith(b"CONNECT %s HTTP/1.1\r\n" % authority)
                assert b"proxy-authorization: Basic c2VjcmV0\r\n" in received

    run(main)


def test_a_silent_proxy_ends_with_the_connect_clock() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([SILENCE]) as proxy:
            origin = Origin("api.test", 443, ssl.create_default_context(), Proxy(HOST, proxy.port))
            target = Target(world, origin)
            seen = await ask(world, target, limits=clocks(connect_s=2))
            assert (seen.error, seen.took_ns) == ("connect_timeout", 2 * S)
            assert "asking the proxy" in seen.message
            assert target.live == 0

    run(main)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy:8080", Proxy("proxy", 8080)),
        ("proxy.test:8080", Proxy("proxy.test", 8080)),
        ("http://proxy", Proxy("proxy", 3128)),
        ("http://user:p%40ss@proxy:1", Proxy("proxy", 1, "Basic dXNlcjpwQHNz")),
        ("http://user@proxy:1", Proxy("proxy", 1, "Basic dXNlcjo=")),
        ("http://[::1]:8080/", Proxy("::1", 8080)),
    ],
)
def test_proxies_as_people_write_them(url: str, proxy: Proxy) -> None:
    assert parse_proxy(url) == proxy


@pytest.mark.parametrize("url", ["", "https://proxy", "socks5://proxy:1", "http://", "http://p:x"])
def test_what_is_no_proxy(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 # documented as just that
        parse_proxy(url)


@pytest.mark.parametrize(
    ("origin", "authority"),
    [
        (Origin("api.test", 80), "api.test"),
        (Origin("api.test", 8080), "api.test:8080"),
        (Origin("api.test", 443), "api.test:443"),
        (Origin("api.test", 443, ssl.create_default_context()), "api.test"),
        (Origin("::1", 80), "[::1]"),
        (Origin("::1", 81), "[::1]:81"),
    ],
)
def test_the_host_header_names_a_port_that_is_not_the_schemes(
    origin: Origin, authority: str
) -> None:
    assert origin.authority == authority
