"""The open-loop load driver: sends when the schedule says so, measures from that moment.

An interaction's clock starts at its scheduled time, not when the driver got round to it; its
whole answer must have come by its deadline. What it may do in between is its caller's policy
(`retries`). Each interaction ends in one verdict, and failures are counted twice over: left
out of the times of successes, and at their deadline in the times of all.

Cost: ~7 µs an event, ~60 µs a request. How late the driver itself was is measured too
(`lag`): where that is not small, the machine was the bottleneck and the run says nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import msgspec

from forebay.testbed.load.client import Connection, Pool, Target
from forebay.testbed.load.histogram import Histogram
from forebay.testbed.load.retries import NoRetries, Retries
from forebay.testbed.load.watch import OpenAIStream, Watch
from forebay.testbed.load.workload import Arrival, Workload
from forebay.testbed.twins.text import BYTES_PER_TOKEN
from forebay.world import World


class Bodies(Protocol):
    def body(self, arrival: Arrival) -> bytes: ...


class Result(msgspec.Struct):
    """What a run gave. Times in microseconds from the scheduled moment."""

    ttft: Histogram = msgspec.field(default_factory=Histogram)  # of successes
    ttft_all: Histogram = msgspec.field(default_factory=Histogram)  # failures at the deadline
    whole: Histogram = msgspec.field(default_factory=Histogram)  # of successes
    lag: Histogram = msgspec.field(default_factory=Histogram)  # of the driver itself
    verdicts: Counter[str] = msgspec.field(default_factory=Counter)
    attempts: int = 0
    events: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    connections: int = 0

    @property
    def ended(self) -> int:
        return self.verdicts.total()

    @property
    def completed(self) -> int:
        return self.verdicts["ok"]


class Interaction:
    """One caller's way from the scheduled moment to a verdict."""

    def __init__(self, driver: "Driver", arrival: Arrival, due_ns: int) -> None:
        self._driver = driver
        self._arrival = arrival
        self._due_ns = due_ns
        self._first_ns = 0
        self._connection: Connection | None = None
        self._watch: Watch | None = None
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._retries = 0
        self._timer: asyncio.TimerHandle | None = None
        self._over = False
        deadline_s = driver.deadline_s - (driver.world.now_ns() - due_ns) / 1e9
        self._deadline = driver.world.call_later(max(0.0, deadline_s), self._too_late)

    def start(self) -> None:
        if self._arrival.before_s:
            self._timer = self._driver.world.call_later(self._arrival.before_s, self._ask)
        else:
            self._ask()

    def _ask(self) -> None:
        self._driver.result.attempts += 1
        self._connection = None
        self._watch = None
        self._status = 0
        self._headers = []
        self._driver.pool.ask(self)

    # -- from the pool

    def connected(self, connection: Connection) -> None:
        self._connection = connection
        connection.send(self._driver.request(self._arrival), self)

    def unreachable(self) -> None:
        self._failed("unreachable")

    # -- from the connection

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._status = status
        self._headers = headers
        self._watch = self._driver.new_watch()

    def body(self, data: bytes) -> None:
        if (watch := self._watch) is None or self._status != 200:
            return
        watch.feed(data)
        if not self._first_ns and watch.text_bytes:
            self._first_ns = self._driver.world.now_ns()

    def done(self) -> None:
        self._connection = None
        if self._status != 200:
            self._failed(f"status_{self._status}")
            return
        assert self._watch is not None
        expected = self._arrival.output_tokens * BYTES_PER_TOKEN
        self._end(self._watch.verdict(expected))

    def lost(self) -> None:
        self._connection = None
        if self._watch is not None and self._status == 200:
            self._end("cut")  # an answer that had begun is never asked for again
        else:
            self._failed("connection_lost")

    # -- ends

    def _failed(self, verdict: str) -> None:
        driver = self._driver
        delay_s = driver.retries.delay_s(
            self._retries,
            self._status or None,
            self._header,
            driver.world.wall_ns() / 1e9,
            driver.world.rng.random(),
        )
        if delay_s is None:
            self._end(verdict)
            return
        self._retries += 1
        self._timer = driver.world.call_later(delay_s, self._ask)

    def _header(self, name: str) -> str | None:
        wanted = name.encode()
        return next(
            (value.decode("latin-1") for key, value in self._headers if key == wanted), None
        )

    def _too_late(self) -> None:
        self._driver.pool.withdraw(self)
        self._end("deadline")

    def _end(self, verdict: str) -> None:
        if self._over:
            return
        self._over = True
        self._deadline.cancel()
        if self._timer is not None:
            self._timer.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()
        self._driver.ended(verdict, self._due_ns, self._first_ns, self._watch)


class Driver:
    def __init__(
        self,
        world: World,
        target: Target,
        bodies: Bodies,
        retries: Retries | None = None,
        new_watch: Callable[[], Watch] = OpenAIStream,
    ) -> None:
        self.world = world
        self.retries = retries or NoRetries()
        self.pool = Pool(world, target, self.retries.max_connections)
        self.new_watch = new_watch
        self.result = Result()
        self.deadline_s = 0.0
        self._bodies = bodies
        self._head = target.head()

    async def run(
        self, workload: Workload, progress: Callable[[Result], None] | None = None
    ) -> Result:
        """Send the whole schedule, wait for each end. `progress` is called once a second."""
        self._arrivals = iter(workload.arrivals)
        self._left = len(workload.arrivals)
        self.deadline_s = workload.deadline_s
        self._over = asyncio.get_running_loop().create_future()
        self._start_ns = self.world.now_ns()
        self._next = next(self._arrivals, None)
        if self._next is None:
            return self.result
        self._launch()
        if progress is not None:
            self._tell(progress)
        await self._over
        self.result.connections = self.pool.opened
        self.pool.close()
        return self.result

    def request(self, arrival: Arrival) -> bytes:
        body = self._bodies.body(arrival)
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)

    def ended(self, verdict: str, due_ns: int, first_ns: int, watch: Watch | None) -> None:
        result = self.result
        result.verdicts[verdict] += 1
        result.in_flight -= 1
        if watch is not None:
            result.events += watch.events
        if verdict == "ok":
            first_us = (first_ns - due_ns) // 1000
            result.ttft.add(first_us)
            result.ttft_all.add(first_us)
            result.whole.add((self.world.now_ns() - due_ns) // 1000)
        else:
            result.ttft_all.add(int(self.deadline_s * 1e6))
        self._left -= 1
        if self._left == 0 and not self._over.done():
            self._over.set_result(None)

    def _launch(self) -> None:
        now_ns = self.world.now_ns()
        while (arrival := self._next) is not None:
            due_ns = self._start_ns + int(arrival.at_s * 1e9)
            if due_ns > now_ns:
                self.world.call_later((due_ns - now_ns) / 1e9, self._launch)
                return
            self._next = next(self._arrivals, None)
            result = self.result
            result.in_flight += 1
            result.most_in_flight = max(result.most_in_flight, result.in_flight)
            result.lag.add((now_ns - due_ns) // 1000)
            Interaction(self, arrival, due_ns).start()

    def _tell(self, progress: Callable[[Result], None]) -> None:
        progress(self.result)
        if not self._over.done():
            self.world.call_later(1.0, lambda: self._tell(progress))
