"""`VirtualWorld`: the World of a run in virtual time, and `run`, which makes one.

Everything that a run cannot repeat by itself comes from here: the clock is the loop's, the
calendar starts at a fixed day, randomness and ids come from one seed, names from a script.
Same seed, same run, byte for byte.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from forebay.testbed.virtual.loop import NS, START_NS, Deadlock, Livelock, VirtualLoop
from forebay.testbed.virtual.network import Network
from forebay.world import Address, Spawner

T = TypeVar("T")

#: 2026-01-01T00:00:00Z, in ns since the Unix epoch: what the calendar says at the start.
EPOCH_NS = 1_767_225_600 * NS
#: How often a run's end waits for what is on the wire, which may make somebody answer. Only
#: something left behind that talks on and on takes more.
SETTLE_TURNS = 1000


class Leftover(AssertionError):
    """The run is done and something it started is not."""


class Unseen(AssertionError):
    """A callback or a background task failed and nobody was told."""


class VirtualWorld:
    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self.loop = loop
        self.rng = random.Random(seed)  # noqa: S311 # a simulation's: it must repeat
        #: added to the calendar from now on, in ns: set it to make the wall clock jump
        self.wall_jump_ns = 0
        self.spawn = Spawner().spawn

    @property
    def network(self) -> Network:
        return self.loop.network

    def now_ns(self) -> int:
        return self.loop.now_ns

    def wall_ns(self) -> int:
        return EPOCH_NS + self.loop.now_ns - START_NS + self.wall_jump_ns

    def new_id(self, prefix: str) -> str:
        return f"{prefix}{self.rng.getrandbits(96):024x}"

    def call_later(self, delay_s: float, then: Callable[[], None]) -> asyncio.TimerHandle:
        return self.loop.call_later(delay_s, then)

    async def resolve(self, host: str, port: int) -> list[Address]:
        return self.loop.network.resolve(host, port)


def run(main: Callable[[VirtualWorld], Coroutine[Any, Any, T]], seed: int = 0) -> T:
    """Run `main(world)` to its end in virtual time and return what it returned.

    Raises what `main` raised; Deadlock, Livelock; Leftover where a task, connection or
    listener outlives it (what is already on the wire is let arrive first); Unseen where a
    callback or background task failed without anybody being told (`loop.reported` holds
    those; a test that means them clears it).
    """
    loop = VirtualLoop()
    try:
        result = loop.run_until_complete(_to_the_end(main(VirtualWorld(loop, seed)), loop))
        _check(loop)
        return result
    finally:
        _unwind(loop)
        loop.close()


async def _to_the_end(work: Coroutine[Any, Any, T], loop: VirtualLoop) -> T:
    result = await work
    for _ in range(SETTLE_TURNS):
        await asyncio.sleep(0)
        due_ns = loop.network.quiet_at_ns()
        if due_ns > loop.now_ns:
            await asyncio.sleep((due_ns - loop.now_ns) / NS)
        elif not due_ns and not loop._ready:
            break
    return result


def _check(loop: VirtualLoop) -> None:
    if loop.reported:
        first = loop.reported[0]
        raise Unseen(f"{first['message']} ({len(loop.reported)} in all)") from first.get(
            "exception"
        )
    left = loop.network.leftovers()
    if tasks := asyncio.all_tasks(loop):
        left.append(f"{len(tasks)} {loop.waiting()}")
    if left:
        raise Leftover("left when the run ended:\n" + "\n".join(left))


def _unwind(loop: VirtualLoop) -> None:
    """Cancel what is left, so that it is closed and says nothing more."""
    try:
        loop.run_until_complete(_cancel(asyncio.all_tasks(loop), loop))
    except (Deadlock, Livelock):  # one that will not be cancelled
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]


async def _cancel(tasks: "set[asyncio.Task[Any]]", loop: VirtualLoop) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await loop.shutdown_asyncgens()
