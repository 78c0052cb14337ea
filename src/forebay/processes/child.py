"""A supervised child process: started, watched, restarted with back-off, stopped.

Its life, as `state` names it:

                     ┌───────────── exit, or not ready in time ───────────┐
                     ▼                                                    │
    stopped ─start─▶ starting ─{"ready": …} or the probe says yes─▶ ready ─┤
       ▲               ▲                                                   │
       │               └── after a while ── backing off ◀─────────────────┘
       └── stop: SIGTERM, then SIGKILL after a bound ── from any of them

Back-off doubles from 0.5 s to 30 s and forgets after 60 s of being ready, so that a child
which crashes once a day is back at once, and one whose weights are broken costs nothing.
Jitter takes up to half of a wait away: ten machines that lost the same disk must not return
in step.

A child is never given up on: whoever fixes its cause should not also have to remember to
restart it. That it dies with this process is the child's own part of the contract
(`forebay.tether`); ours is to hold its stdin, to name ourselves in its environment, and to
fork from the thread of the event loop. It is leader of a session of its own: Ctrl-C in a
terminal reaches the supervisor only, which then stops its children in order, and the final
SIGKILL takes whatever the child has forked along.

stdout is for the announcement; everything else said there and on stderr is log.
"""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Any, Literal, cast

import msgspec

from forebay import tether
from forebay.errors import Failure
from forebay.tether import Launch
from forebay.world import World

State = Literal["stopped", "starting", "ready", "backing off", "stopping"]
Facts = dict[str, Any]
Log = Callable[[str], None] | Path

#: A longer line comes in pieces: a child must not fill our memory by never ending one.
MAX_LINE = 64 * 1024
#: Seconds that a dead child's last words may take to arrive through its pipes. A grandchild
#: that holds them open must not hold up the restart.
LAST_WORDS_S = 1.0


class Backoff(msgspec.Struct):
    """How long to wait before the next start. Pure: told the facts, holds one counter."""

    first_s: float = 0.5
    most_s: float = 30.0
    #: ready for this long, and earlier failures are forgotten
    steady_s: float = 60.0
    failures: int = 0

    def next_s(self, ready_for_s: float, rng: random.Random) -> float:
        """Seconds to wait after a life that was ready for `ready_for_s` (0: never)."""
        if ready_for_s >= self.steady_s:
            self.failures = 0
        # min() on the exponent: 2.0 ** 1100 overflows, and a child may fail for a year.
        ceiling_s = min(self.most_s, self.first_s * 2.0 ** min(self.failures, 64))
        self.failures += 1
        return ceiling_s * (1 - rng.random() / 2)


class Lines:
    """Bytes in as they come, whole lines out, none longer than MAX_LINE."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[bytes]:
        *lines, self._held = (self._held + data).split(b"\n")
        if len(self._held) > MAX_LINE:
            lines.append(self._held)
            self._held = b""
        return [line[i : i + MAX_LINE] for line in lines for i in range(0, len(line), MAX_LINE)]

    def finish(self) -> list[bytes]:
        held, self._held = self._held, b""
        return [held] if held else []


class Child:
    """One child, kept alive from `start` to `stop`.

    `log` gets each line (a callable), or the child writes there itself (a path, appended to).
    `on_ready` gets the announced facts at every start, for ports change; `on_exit` gets the
    exit status, negative for a signal. `probe` replaces the announcement for programs that
    can't make one: it is asked every `probe_every_s` until it says True. A child that is not
    ready within `ready_within_s` is killed and counts as failed.
    """

    def __init__(
        self,
        launch: Launch,
        world: World,
        *,
        log: Log,
        on_ready: Callable[[Facts], None] = lambda _: None,
        on_exit: Callable[[int], None] = lambda _: None,
        probe: Callable[[], Awaitable[bool]] | None = None,
        probe_every_s: float = 0.05,
        ready_within_s: float = 60.0,
        backoff: Backoff | None = None,
    ) -> None:
        self.launch = launch
        self.state: State = "stopped"
        self.pid: int | None = None  # None: no process runs
        self.facts: Facts = {}  # of the present life, once ready
        self.restarts = 0
        self.exit_status: int | None = None  # of the last life, None: there was none
        self.last_words: deque[str] = deque(maxlen=20)
        self._world = world
        self._log = log
        self._on_ready = on_ready
        self._on_exit = on_exit
        self._probe = probe
        self._probe_every_s = probe_every_s
        self._ready_within_s = ready_within_s
        self._backoff = backoff or Backoff()
        self._stopping = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._waiters: set[asyncio.Future[Facts]] = set()
        self._transport: asyncio.SubprocessTransport | None = None
        self._since_ns = 0  # when the present state began
        self._until_ns = 0  # when backing off ends

    # -- what its owner calls

    def start(self) -> None:
        """Begin to supervise. Once; needs a running event loop."""
        assert self._work is None, "a Child is started once"
        self._work = self._world.spawn(self._supervise(), f"child {self.launch.name}")

    async def ready(self, within_s: float) -> Facts:
        """Wait until it is ready, through restarts if need be.

        Raises Failure(internal) with the child's last words after `within_s`, and
        Failure(shutting_down) where it is stopped meanwhile.
        """
        if self.state == "ready":
            return self.facts
        if self._stopping.is_set():
            raise self._gone()
        waiter: asyncio.Future[Facts] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(within_s):
                return await waiter
        except TimeoutError:
            words = "; ".join(self.last_words) or "it said nothing"
            raise Failure(
                "internal",
                f"{self.launch.name} was not ready within {within_s:g} s ({self.describe()}).",
                hint=f"Its last words: {words}",
            ) from None
        finally:
            self._waiters.discard(waiter)

    async def stop(self, grace_s: float = 10.0) -> None:
        """SIGTERM, SIGKILL to its whole session after `grace_s`; returns when it is gone."""
        self._stopping.set()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(self._gone())
        if self._work is None:
            return
        self._terminate()
        timer = self._world.call_later(grace_s, self._kill)
        try:
            await asyncio.wait({self._work})
        finally:
            timer.cancel()

    def describe(self) -> str:
        now_ns = self._world.now_ns()
        parts = []
        if self.pid is not None:
            parts.append(f"pid {self.pid} for {(now_ns - self._since_ns) / 1e9:.1f} s")
        if self.state == "backing off":
            parts.append(f"next start in {max(0, self._until_ns - now_ns) / 1e9:.1f} s")
        if self.exit_status is not None:
            parts.append(f"last exit {_exit(self.exit_status)}")
        parts.append(f"{self.restarts} restarts")
        return f"<Child {self.launch.name} {self.state.upper()}, {', '.join(parts)}>"

    # -- the one task

    async def _supervise(self) -> None:
        try:
            while not self._stopping.is_set():
                ready_for_s = await self._live()
                if self._stopping.is_set():
                    break
                wait_s = self._backoff.next_s(ready_for_s, self._world.rng)
                self._until_ns = self._world.now_ns() + int(wait_s * 1e9)
                self._enter("backing off")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), wait_s)
                self.restarts += not self._stopping.is_set()
        finally:
            self._enter("stopped")

    async def _live(self) -> float:
        """One life, from fork to exit. Returns how many seconds it was ready."""
        self._enter("starting")
        life = _Life(self)
        loop = asyncio.get_running_loop()
        inherited = os.environ if self.launch.env is None else self.launch.env
        sink = self._open_log()
        life.sink = sink
        try:
            transport, _ = await loop.subprocess_exec(
                lambda: life,
                *self.launch.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if sink is None else sink,
                env={**inherited, tether.PARENT: str(os.getpid())},
                cwd=self.launch.cwd,
                pass_fds=self.launch.pass_fds,
                start_new_session=True,
            )
        except OSError as error:
            self._say(f"could not start {self.launch.argv[0]}: {error}", sink)
            if sink is not None:
                sink.close()
            return 0.0
        self._transport = transport
        self.pid = transport.get_pid()
        if self._stopping.is_set():  # while it was forked
            self._terminate()
        too_slow = self._world.call_later(self._ready_within_s, self._too_slow)
        if self._probe is not None:
            self._world.spawn(self._ask(life, self._probe), f"probe {self.launch.name}")
        try:
            await life.exited.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(life.closed.wait(), LAST_WORDS_S)
        finally:
            # On the way out by cancellation too: the process is not left behind.
            too_slow.cancel()
            life.over = True
            if not life.exited.is_set():
                self._kill()
            ready_ns = self._world.now_ns() - self._since_ns if self.state == "ready" else 0
            self._transport = None
            self.pid = None
            transport.close()
            if sink is not None:
                sink.close()
        await asyncio.sleep(0)  # lets the closed pipes go, before a loop that ends here ends
        self.exit_status = cast(int, transport.get_returncode())
        self._on_exit(self.exit_status)
        return ready_ns / 1e9

    async def _ask(self, life: "_Life", probe: Callable[[], Awaitable[bool]]) -> None:
        while not life.over:
            if await probe():
                self._became_ready(life, {})
                return
            await asyncio.sleep(self._probe_every_s)

    # -- what happens to it

    def _became_ready(self, life: "_Life", facts: Facts) -> None:
        if life.over or self.state != "starting":
            return
        self.facts = facts
        self._enter("ready")
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(facts)
        self._on_ready(facts)

    def _too_slow(self) -> None:
        if self.state == "starting":
            self._say(f"not ready within {self._ready_within_s:g} s: killed", None)
            self._kill()

    def _terminate(self) -> None:
        if self._transport is not None and self._transport.get_returncode() is None:
            self._enter("stopping")
            with contextlib.suppress(ProcessLookupError):
                self._transport.terminate()

    def _kill(self) -> None:
        if self.pid is not None:
            # macOS says EPERM for a group whose only member is a zombie.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _enter(self, state: State) -> None:
        self.state = state
        self._since_ns = self._world.now_ns()

    def _gone(self) -> Failure:
        return Failure("shutting_down", f"{self.launch.name} was stopped.")

    # -- its log

    def _open_log(self) -> IO[bytes] | None:
        return self._log.open("ab", buffering=0) if isinstance(self._log, Path) else None

    def _say(self, line: str, sink: IO[bytes] | None) -> None:
        self.last_words.append(line)
        if sink is not None:
            sink.write(line.encode() + b"\n")
        elif not isinstance(self._log, Path):
            self._log(line)


class _Life(asyncio.SubprocessProtocol):
    """The pipes of one process, from its fork to its exit."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.sink: IO[bytes] | None = None
        self.exited = asyncio.Event()
        self.closed = asyncio.Event()
        self.over = False
        self._lines = {1: Lines(), 2: Lines()}

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        for line in self._lines[fd].feed(data):
            self._line(fd, line)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd in self._lines:
            for line in self._lines[fd].finish():
                self._line(fd, line)

    def process_exited(self) -> None:
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def _line(self, fd: int, line: bytes) -> None:
        if self.over:
            return
        if fd == 1 and (facts := tether.announced(line)) is not None:
            self.child._became_ready(self, facts)
        else:
            self.child._say(line.decode("utf-8", "replace").rstrip("\r"), self.sink)


def _exit(status: int) -> str:
    """`1`, or the signal's name."""
    try:
        return signal.Signals(-status).name if status < 0 else str(status)
    except ValueError:
        return str(status)
