"""Clock, randomness, ids and timers: the one door to what a run cannot repeat by itself.

Everything above takes a `World` and asks it. `RealWorld` here talks to the operating
system; `testbed.virtual.VirtualWorld` runs on an event loop whose clock jumps to the next
timer, so that the same seed gives the same run, byte for byte. Nothing else in the package
imports `time`, `random`, `secrets` or `uuid` (ruff's banned APIs hold that line).

Two clocks, never mixed: `now_ns` only ever goes forward and is for durations and deadlines;
`wall_ns` is what a calendar says, may jump, and is for records and prices.
"""

import asyncio
import random
import secrets
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

Address = tuple[str, int]


class World(Protocol):
    rng: random.Random

    def now_ns(self) -> int:
        """Monotonic nanoseconds, on the clock of the event loop's timers. Sync, ~0.1 µs."""

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch. Sync, ~0.1 µs."""

    def new_id(self, prefix: str) -> str:
        """`prefix` and 96 random bits in hex: unguessable, sorts nothing. Sync, ~0.6 µs."""

    def call_later(self, delay_s: float, then: Callable[[], None]) -> asyncio.TimerHandle: ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work` beside the caller; held until done, its failure logged, never lost."""

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Addresses of a host, best first. Raises OSError where there is none."""


class Spawner:
    """Holds tasks until they are done: the loop keeps only weak references to them."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler(
                {"message": f"background task {task.get_name()} failed", "exception": error}
            )


class RealWorld:
    """The operating system's clock, entropy and resolver; used by everything that is deployed."""

    def __init__(self) -> None:
        # Seeded from the OS: ids must not be guessable from one another's neighbours only
        # where they grant something; those (keys, sessions) use `secrets` in admission/.
        self.rng = random.Random(secrets.randbits(128))  # noqa: S311
        self.now_ns = time.monotonic_ns
        self.wall_ns = time.time_ns
        self._spawner = Spawner()
        self.spawn = self._spawner.spawn

    def new_id(self, prefix: str) -> str:
        return f"{prefix}{self.rng.getrandbits(96):024x}"

    def call_later(self, delay_s: float, then: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay_s, then)

    async def resolve(self, host: str, port: int) -> list[Address]:
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [(str(info[4][0]), int(info[4][1])) for info in infos]
