"""A deadline that moves, on a timer that mostly doesn't.

A stream moves its between-tokens deadline forward with every event, twenty times a second;
a loop timer cancelled and made again each time would cost more than the relay. Deadlines
nearly always move *later*, so a `Deadline` leaves its timer alone then: when the timer
fires too early it looks at where the deadline is now and arms itself again. A keep-alive
connection with 60 s clocks so touches the loop's timers about once a minute.
"""

import asyncio
from collections.abc import Callable

from forebay.world import World

SECOND_NS = 1_000_000_000


class Deadline:
    __slots__ = ("_armed_ns", "_at_ns", "_then", "_timer", "_world")

    def __init__(self, world: World, then: Callable[[], None]) -> None:
        self._world = world
        self._then = then
        self._at_ns = 0
        self._armed_ns = 0
        self._timer: asyncio.TimerHandle | None = None

    def set(self, at_ns: int) -> None:
        """Call `then` at this time on the world's clock and not before. Sync, ~0.1 µs."""
        self._at_ns = at_ns
        if self._timer is None or self._armed_ns > at_ns:
            self._arm()

    def off(self) -> None:
        """No deadline until the next `set`; a timer already armed fires into nothing."""
        self._at_ns = 0

    def close(self) -> None:
        """No deadline ever again: frees the timer, which otherwise holds what it calls."""
        self._at_ns = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_ns = self._at_ns
        delay_s = max(self._at_ns - self._world.now_ns(), 0) / SECOND_NS
        self._timer = self._world.call_later(delay_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if not self._at_ns:
            return
        # Loop timers may fire a clock tick early; the deadline itself never does.
        if self._world.now_ns() < self._at_ns:
            self._arm()
            return
        self._at_ns = 0
        self._then()
