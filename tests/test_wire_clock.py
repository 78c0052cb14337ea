"""A deadline that moves fires once, at the last time it was set to and not before."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from forebay.testbed.virtual import VirtualWorld, run
from forebay.wire.clock import SECOND_NS, Deadline

#: at which second something happens: set to so many seconds from then, switch off (None)
STEPS = st.lists(
    st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(1, 8))), min_size=1, max_size=12
)


@given(STEPS)
def test_it_fires_when_it_was_last_set_to(steps: list[tuple[int, int | None]]) -> None:
    async def main(world: VirtualWorld) -> None:
        start_ns = world.now_ns()
        fired: list[int] = []
        deadline = Deadline(world, lambda: fired.append((world.now_ns() - start_ns) // SECOND_NS))
        expected: list[int] = []
        due: int | None = None
        now = 0
        for wait, seconds in steps:
            # The step comes half a second after the whole ones at which the deadline fires.
            await asyncio.sleep((now + wait + 0.5) - (world.now_ns() - start_ns) / SECOND_NS)
            now += wait
            if due is not None and due <= now:
                expected.append(due)
                due = None
            if seconds is None:
                deadline.off()
                due = None
            else:
                due = now + seconds
                deadline.set(start_ns + due * SECOND_NS)
            assert fired == expected
        await asyncio.sleep(100)
        assert fired == expected + ([due] if due is not None else [])
        deadline.close()

    run(main)


def test_moving_it_later_touches_no_timer() -> None:
    async def main(world: VirtualWorld) -> None:
        timers = 0

        class Counting(VirtualWorld):
            def call_later(self, delay_s: float, then: object) -> asyncio.TimerHandle:
                nonlocal timers
                timers += 1
                return world.loop.call_later(delay_s, then)  # type: ignore[arg-type]

        fired: list[int] = []
        counting = Counting(world.loop, 0)
        deadline = Deadline(counting, lambda: fired.append(world.now_ns()))
        for _ in range(600):  # a stream of a minute, ten events a second, ten seconds patience
            deadline.set(world.now_ns() + 10 * SECOND_NS)
            await asyncio.sleep(0.1)
        assert fired == []
        assert timers <= 7
        last_ns = world.now_ns() - SECOND_NS // 10
        await asyncio.sleep(60)
        assert fired == [last_ns + 10 * SECOND_NS]

    run(main)


def test_closed_it_never_fires_and_holds_nothing() -> None:
    async def main(world: VirtualWorld) -> None:
        fired: list[int] = []
        deadline = Deadline(world, lambda: fired.append(1))
        deadline.set(world.now_ns() + SECOND_NS)
        deadline.close()
        await asyncio.sleep(10)
        assert fired == []

    run(main)
