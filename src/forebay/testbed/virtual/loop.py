"""An event loop whose clock jumps to the next timer instead of waiting for it.

asyncio asks its selector to wait until the next timer is due. This loop's selector has no
file descriptors to watch: it sets the clock to that timer and returns. Idle time costs
nothing, work costs what it costs, and since no thread, socket or clock of the operating
system takes part, the same program does the same things in the same order every time.

1. The clock is an integer of nanoseconds; `time()` is that number / 1e9. A timer's due time
   is a whole nanosecond: a delay is rounded up (never early, and never to no delay at all,
   which would let "sleep what is left" spin), except that the noise of float sums is taken
   off: 0.1 + 0.2 is 300,000,000 ns. Exact while the clock is below 48 days.
2. Timers due at the same nanosecond run in the order they were set (asyncio's heap promises
   no order).
3. Nothing ready and no timer: nobody will ever move again. That is `Deadlock`, with the
   pending tasks and where each one waits, not a hang. A million turns without the clock
   moving is `Livelock`.
4. `run_in_executor` runs the function inline, on the loop: deterministic, and nothing else
   moves meanwhile. Files, signals, subprocesses and TLS are not here (OpenSSL draws its own
   randomness): tests over real sockets cover them.
"""

import asyncio
import heapq
import math
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple, Unpack

from forebay.testbed.virtual.network import Network, VirtualServer
from forebay.testbed.virtual.transport import VirtualTransport

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

NS = 1_000_000_000
#: The clock of a fresh loop, in ns: not 0, which means "never" in an Exchange.
START_NS = 1 * NS
# Small enough to fire no timer of the next nanosecond, large enough to be seen when added
# to a float of up to 48 days (2**22 s).
_RESOLUTION_S = 0.4e-9
_ASYNCIO = os.path.dirname(asyncio.__file__)
#: Turns of the loop without the clock moving that mean nobody waits for anything any more.
PATIENCE = 1_000_000


class Deadlock(RuntimeError):
    """Nothing is ready, no timer is set, and the work is not done."""


class Livelock(RuntimeError):
    """The loop turns and turns and the clock does not move."""


class Timer(asyncio.TimerHandle):
    """A timer that knows its nanosecond and its place among those of the same one."""

    __slots__ = ("due_ns", "order")
    due_ns: int
    order: int

    def __lt__(self, other: asyncio.TimerHandle) -> bool:
        assert isinstance(other, Timer)
        return (self.due_ns, self.order) < (other.due_ns, other.order)


class _Jump:
    """The selector: waits for nothing, moves the clock."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> tuple[()]:
        self._loop.turn(timeout)
        return ()


class VirtualLoop(asyncio.BaseEventLoop):
    # asyncio's own, which its type stubs leave out.
    _ready: deque[asyncio.Handle]
    _scheduled: list[Timer]
    _clock_resolution: float
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = START_NS
        self.network = Network(self)
        #: what was handed to the exception handler: callbacks and tasks that failed unseen
        self.reported: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.reported.append(context))
        self._clock_resolution = _RESOLUTION_S
        self._selector = _Jump(self)
        self._order = 0
        #: turns without the clock moving before it is called a Livelock
        self.patience = PATIENCE
        self._still = 0

    # -- time

    def time(self) -> float:
        return self.now_ns / NS

    def turn(self, timeout: float | None) -> None:
        """One turn of the loop: go on where work is ready, else to the next timer."""
        if timeout is None:
            raise Deadlock(f"nothing can happen any more at {self.clock()}.\n{self.waiting()}")
        if timeout > 0:
            self.now_ns = max(self.now_ns, self._scheduled[0].due_ns)
            self._still = 0
            return
        self._still += 1
        if self._still > self.patience:
            self._still = 0
            raise Livelock(
                f"{self.patience} turns at {self.clock()} and the clock does not move: "
                f"something polls.\n{self.waiting()}"
            )

    def clock(self) -> str:
        return f"{(self.now_ns - START_NS) / NS:.9f} s"

    def waiting(self) -> str:
        """The pending tasks, a line each: the name and where it waits."""
        lines = sorted(f"  {_place(task)}" for task in asyncio.all_tasks(self))
        return "\n".join(["pending tasks:", *lines]) if lines else "no pending tasks"

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at_ns(
            self.now_ns + max(0, whole_ns(delay)), callback, *args, context=context
        )

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at_ns(whole_ns(when), callback, *args, context=context)

    def call_at_ns(
        self,
        due_ns: int,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> Timer:
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        timer = Timer(due_ns / NS, callback, args, self, context)
        timer.due_ns = due_ns
        timer.order = self._order = self._order + 1
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    # -- what asyncio asks of a loop that has a selector

    def _process_events(self, events: tuple[()]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass  # call_soon_threadsafe: there is one thread, and it is awake

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> "asyncio.Future[T]":
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    # -- the network

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        return self.network.getaddrinfo(host, port)

    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: Any = None,
        sock: Any = None,
        **_: Any,
    ) -> tuple[VirtualTransport, asyncio.BaseProtocol]:
        _only_memory(ssl, sock)
        if host is None or port is None:
            raise ValueError("create_connection needs a host and a port")
        error: OSError | None = None
        for address in self.network.resolve(host, port):
            try:
                return await self.network.connect(protocol_factory, address)
            except OSError as refused:
                error = refused
        assert error is not None  # resolve raises rather than return no address
        raise error

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | list[str] | None = None,
        port: int | None = None,
        *,
        ssl: Any = None,
        sock: Any = None,
        start_serving: bool = True,
        **_: Any,
    ) -> VirtualServer:
        _only_memory(ssl, sock)
        hosts = [host] if host is None or isinstance(host, str) else host
        addresses: list[tuple[str, int] | str] = []
        for name in hosts:
            if name is None or name == "":
                addresses.append(("0.0.0.0", port or 0))  # noqa: S104 # of a network in memory
            else:
                addresses.append(self.network.resolve(name, port or 0)[0])
        return self.network.listen(protocol_factory, addresses, start_serving)

    async def create_unix_connection(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        path: Any = None,
        *,
        ssl: Any = None,
        sock: Any = None,
        **_: Any,
    ) -> tuple[VirtualTransport, asyncio.BaseProtocol]:
        _only_memory(ssl, sock)
        return await self.network.connect(protocol_factory, str(path))

    async def create_unix_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        path: Any = None,
        *,
        ssl: Any = None,
        sock: Any = None,
        start_serving: bool = True,
        **_: Any,
    ) -> VirtualServer:
        _only_memory(ssl, sock)
        return self.network.listen(protocol_factory, [str(path)], start_serving)


def whole_ns(seconds: float) -> int:
    """Nanoseconds, rounded up, less what float sums leave behind (up to 4 units in the last
    place). Raises OverflowError for infinity: a timer that never fires is not set."""
    nearest = round(seconds * NS)
    if nearest == 0 < seconds or seconds - nearest / NS > 4 * math.ulp(seconds):
        return nearest + 1
    return nearest


def _place(task: "asyncio.Task[Any]") -> str:
    """`name: where it stands in code that is not asyncio's → what it awaits there`."""
    coro: Any = task.get_coro()
    place = "?"
    names = []
    while (frame := getattr(coro, "cr_frame", None)) is not None:
        names.append(coro.__qualname__)
        if not frame.f_code.co_filename.startswith(_ASYNCIO):
            place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        coro = coro.cr_await
    return f"{task.get_name()}: {place} in {' → '.join(names)}"


def _only_memory(ssl: Any, sock: Any) -> None:
    if ssl is not None:
        raise NotImplementedError("virtual time carries no TLS; test it over real sockets")
    if sock is not None:
        raise NotImplementedError("virtual time has no sockets; give a host and a port, or a path")
