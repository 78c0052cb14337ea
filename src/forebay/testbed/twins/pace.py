"""When an answer's tokens come: two sources of tokens behind one small interface.

`Clockwork` is a hosted answer: everything was decided when the question came in, what is
left is a timer per event, set from the answer's beginning so that delays never add up.
`Batch` is a self-hosted server: one timer for all answers, the engine says who got what.

A pace tells its listener how many tokens have become due and never asks whether they could
be sent: a model goes on making tokens for a caller that does not read.
"""

import asyncio
from typing import Protocol

from forebay.testbed.twins.engine import Engine
from forebay.testbed.twins.hosted import Plan
from forebay.world import World


class Listener(Protocol):
    def produce(self, tokens: int) -> None:
        """So many more tokens are due."""


class Pace(Protocol):
    def start(self, listener: Listener, stream: bool) -> None:
        """Begin. Without `stream` all tokens may come at once, at the end."""

    def stop(self) -> int:
        """No more tokens, please; how many had been made until now."""


class Clockwork:
    def __init__(self, world: World, plan: Plan, total: int) -> None:
        self._world = world
        self._plan = plan
        self._total = total
        self._made = 0
        self._events = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, listener: Listener, stream: bool) -> None:
        self._listener = listener
        self._first_ns = self._world.now_ns() + int(self._plan.first_s * 1e9)
        delay_s = self._plan.first_s
        if not stream:
            events = -(-self._total // max(self._plan.tokens_per_event, 1e-9))
            delay_s += max(0.0, events - 1) * self._plan.event_s
            self._events = int(events)
        self._timer = self._world.call_later(delay_s, self._tick)

    def stop(self) -> int:
        if self._timer is not None:
            self._timer.cancel()
        if self._made < self._total:
            passed_s = (self._world.now_ns() - self._first_ns) / 1e9
            if passed_s >= 0:
                self._made = max(self._made, self._due(int(passed_s / self._plan.event_s) + 1))
        return self._made

    def _tick(self) -> None:
        self._events += 1
        due = self._due(self._events)
        tokens = due - self._made
        self._made = due
        if due < self._total:
            next_ns = self._first_ns + int(self._events * self._plan.event_s * 1e9)
            delay_s = (next_ns - self._world.now_ns()) / 1e9
            self._timer = self._world.call_later(delay_s if delay_s > 0 else 0.0, self._tick)
        if tokens:
            self._listener.produce(tokens)

    def _due(self, events: int) -> int:
        """Tokens due with this many events: the first event always brings one."""
        return min(self._total, max(1, int(events * self._plan.tokens_per_event)))


class Batch:
    """All answers of one self-hosted server."""

    def __init__(self, world: World, engine: Engine) -> None:
        self._world = world
        self.engine = engine
        self._quantum_s = 1 / engine.facts.events_per_s
        self._listeners: dict[int, Listener] = {}
        self._next_id = 0
        self._due_ns = 0
        self._ticking = False

    def join(self, listener: Listener, prompt: int, output: int) -> int:
        id = self._next_id
        self._next_id += 1
        self._listeners[id] = listener
        self.engine.submit(id, prompt, output)
        if not self._ticking:
            self._ticking = True
            self._due_ns = self._world.now_ns()
            self._again()
        return id

    def leave(self, id: int) -> None:
        if self._listeners.pop(id, None) is not None:
            self.engine.cancel(id)

    def _again(self) -> None:
        self._due_ns += int(self._quantum_s * 1e9)
        delay_s = (self._due_ns - self._world.now_ns()) / 1e9
        self._world.call_later(delay_s if delay_s > 0 else 0.0, self._tick)

    def _tick(self) -> None:
        for progress in self.engine.advance(self._quantum_s):
            listener = self._listeners[progress.id]  # type: ignore[index]
            if progress.done:
                del self._listeners[progress.id]  # type: ignore[arg-type]
            listener.produce(progress.tokens)
        self._ticking = not self.engine.idle
        if self._ticking:
            self._again()


class Seat:
    """One answer's place in a batch."""

    def __init__(self, batch: Batch, prompt: int, output: int) -> None:
        self._batch = batch
        self._prompt = prompt
        self._output = output
        self._made = 0

    def start(self, listener: Listener, stream: bool) -> None:
        self._listener = listener
        self._id = self._batch.join(self, self._prompt, self._output)

    def stop(self) -> int:
        self._batch.leave(self._id)
        return self._made

    def produce(self, tokens: int) -> None:
        self._made += tokens
        self._listener.produce(tokens)
