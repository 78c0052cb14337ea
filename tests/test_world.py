"""The one door to clock, randomness and tasks; the real one."""

import asyncio
import gc
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from conftest import RealRun
from forebay.testbed.virtual import Unseen, VirtualWorld, run
from forebay.world import RealWorld, World


def test_two_clocks() -> None:
    world = RealWorld()
    before = time.monotonic_ns()
    assert before <= world.now_ns() <= time.monotonic_ns()
    wall_s = time.time_ns() / 1e9
    assert world.wall_ns() / 1e9 == pytest.approx(wall_s, abs=5)


def test_timers_and_now_are_on_one_clock(real: RealRun) -> None:
    """A deadline computed from the one and set on the other must mean the same moment."""

    async def main() -> None:
        world = RealWorld()
        fired: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        start_ns = world.now_ns()
        world.call_later(0.05, lambda: fired.set_result(world.now_ns()))
        took_s = (await fired - start_ns) / 1e9
        assert 0.04 <= took_s <= 5

    real(main())


def test_ids_are_long_enough_to_guess_none() -> None:
    world = RealWorld()
    ids = {world.new_id("req_") for _ in range(1000)}
    assert len(ids) == 1000
    for each in ids:
        assert each.startswith("req_")
        assert len(each) == 4 + 24
        int(each[4:], 16)
    # two processes do not make the same ones
    assert RealWorld().new_id("") != RealWorld().new_id("")


def test_names_resolve(real: RealRun) -> None:
    async def main() -> None:
        world = RealWorld()
        assert ("127.0.0.1", 80) in await world.resolve("127.0.0.1", 80)
        assert {address for address, _ in await world.resolve("localhost", 80)} <= {
            "127.0.0.1",
            "::1",
        }
        with pytest.raises(OSError, match=r"."):
            await world.resolve("no.such.host.invalid", 80)

    real(main())


async def spawned(world: World) -> None:
    """Work beside the caller runs to its end though nobody holds it."""
    done = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.set()

    world.spawn(work(), "work")
    gc.collect()  # the loop's own references are weak
    await done.wait()


def test_spawned_work_is_held(real: RealRun) -> None:
    real(spawned(RealWorld()))
    run(spawned)


def test_spawned_work_that_fails_is_told(real: RealRun) -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        world = RealWorld()
        task = world.spawn(broken(), "sums")
        await asyncio.wait({task})
        await asyncio.sleep(0)
        (context,) = told
        assert context["message"] == "background task sums failed"
        assert isinstance(context["exception"], ZeroDivisionError)

    real(main())

    async def virtual(world: VirtualWorld) -> None:
        world.spawn(broken(), "sums")
        await asyncio.sleep(1)

    with pytest.raises(Unseen, match="background task sums failed"):
        run(virtual)


def test_spawned_work_that_is_cancelled_is_not(real: RealRun) -> None:
    async def main() -> None:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        waiting: Coroutine[Any, Any, None] = asyncio.sleep(100)
        task = RealWorld().spawn(waiting, "waits")
        task.cancel()
        await asyncio.wait({task})
        assert told == []

    real(main())
