"""A World in which everything takes less time: `forebay sim --speed 10`.

Its monotonic clock runs so many times faster and its timers end so much sooner; the wall
clock is left alone. All times of a twin scale with it: first tokens, pace, limits per minute.
What a twin says in seconds (`retry-after`) is then in its own seconds: a caller that obeys
waits longer than it must.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from forebay.world import Address, World


class Hastened:
    def __init__(self, world: World, speed: float) -> None:
        if not 0.001 <= speed <= 1000:
            raise ValueError(f"speed {speed:g} is not in 0.001 to 1000")
        self._world = world
        self._speed = speed
        self._start_ns = world.now_ns()
        self.rng: random.Random = world.rng

    def now_ns(self) -> int:
        return self._start_ns + int((self._world.now_ns() - self._start_ns) * self._speed)

    def wall_ns(self) -> int:
        return self._world.wall_ns()

    def new_id(self, prefix: str) -> str:
        return self._world.new_id(prefix)

    def call_later(self, delay_s: float, then: Callable[[], None]) -> asyncio.TimerHandle:
        return self._world.call_later(delay_s / self._speed, then)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._world.spawn(work, name)

    async def resolve(self, host: str, port: int) -> list[Address]:
        return await self._world.resolve(host, port)
