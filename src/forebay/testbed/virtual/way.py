"""One direction of a connection in memory.

What is written waits in `buffer` (the sender's write buffer), travels in `flight`, and waits
in `arrived` while the reader has paused. Flight and arrived together are bounded by the
link's window, as a kernel's socket buffers are; beyond it the buffer grows, and the sender's
transport pauses the protocol that writes. Everything keeps its order, ends and resets
included, and each piece arrives in a turn of the loop of its own.
"""

import enum
from collections import deque
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from forebay.testbed.virtual.network import Fault, Link, Network
    from forebay.testbed.virtual.transport import VirtualTransport

NS = 1_000_000_000


class Mark(enum.Enum):
    OPEN = enum.auto()  # the first thing that reaches a server's end
    END = enum.auto()
    RESET = enum.auto()


class Way:
    """One direction: what its sender wrote, on its way to what its receiver reads."""

    def __init__(
        self, network: "Network", number: int, name: Literal["up", "down"], link: "Link"
    ) -> None:
        self._network = network
        self._loop = network.loop
        self.number = number
        self.name = name
        self.link = link
        self.buffer: deque[memoryview | Mark] = deque()
        self.buffered = 0  # bytes in `buffer`
        self.flight: deque[tuple[int, bytes | Mark]] = deque()
        self.arrived: deque[bytes | Mark] = deque()
        self.broken = False  # a reset is in `arrived`, or was
        self._held = 0  # bytes in `flight` and `arrived`
        self._sent = 0  # bytes that have ever left `buffer`
        self._free_ns = 0  # when the wire has sent what it was given
        self._over = False  # a reset has left: nothing follows it
        self._refilling = False

    def join(self, sender: "VirtualTransport", receiver: "VirtualTransport", back: "Way") -> None:
        self.sender = sender
        self.receiver = receiver
        self.back = back

    def send(self, piece: bytes | Mark) -> None:
        if isinstance(piece, Mark):
            self.buffer.append(piece)
        else:
            self.buffer.append(memoryview(piece))
            self.buffered += len(piece)
        self._pump()

    def reset(self) -> None:
        """The sender is gone without a word: what it had buffered is lost."""
        self._drop()
        self.buffer.append(Mark.RESET)
        self._pump()

    def cut(self) -> None:
        """Broken on the way: the receiver is reset, whatever the sender does."""
        self._drop()
        self._depart(Mark.RESET)
        self._over = True

    def _drop(self) -> None:
        self.buffer.clear()
        self.buffered = 0

    def change(self, link: "Link") -> None:
        self.link = link
        self._refill_soon()

    def due_ns(self) -> int:
        return self.flight[-1][0] if self.flight else 0

    def _pump(self) -> None:
        """Put under way what the window, and the fault if there is one, let through."""
        fault = self.link.fault
        if fault is not None and fault.way != self.name:
            fault = None
        while self.buffer and not self._over:
            piece = self.buffer[0]
            if isinstance(piece, Mark):
                if piece is not Mark.OPEN and self._stalled(fault):
                    return
                self.buffer.popleft()
                self._depart(piece)
                self._over = piece is Mark.RESET
                continue
            size = min(len(piece), self.link.segment, self.link.window - self._held)
            if fault is not None:
                size = min(size, fault.after - self._sent)
                if self._sent >= fault.after:
                    self._strike(fault.kind)
                    return
            if size <= 0:
                return
            if size == len(piece):
                self.buffer.popleft()
            else:
                self.buffer[0] = piece[size:]
            self.buffered -= size
            self._sent += size
            self._held += size
            self._depart(bytes(piece[:size]))

    def _stalled(self, fault: "Fault | None") -> bool:
        return fault is not None and fault.kind == "stall" and self._sent >= fault.after

    def _strike(self, kind: str) -> None:
        if kind == "reset":
            self.cut()
            self.back.cut()
        elif kind == "close":
            self._drop()
            self._depart(Mark.END)
            self._over = True
            self.back.cut()
        # stall: the bytes stay in the buffer

    def _depart(self, piece: bytes | Mark) -> None:
        if self._over:
            return  # nothing follows a reset
        due_ns = max(self._loop.now_ns, self._free_ns)
        if self.link.bytes_per_s and isinstance(piece, bytes):
            due_ns += -(-len(piece) * NS // self.link.bytes_per_s)
        self._free_ns = due_ns
        due_ns += round(self.link.latency_s * NS)
        if self.flight:
            due_ns = max(due_ns, self.flight[-1][0])  # order holds when a latency shrinks
        self.flight.append((due_ns, piece))
        if len(self.flight) == 1:
            self._expect(due_ns)

    def _expect(self, due_ns: int) -> None:
        if due_ns <= self._loop.now_ns:
            self._loop.call_soon(self._land)
        else:
            self._loop.call_at_ns(due_ns, self._land)

    def _land(self) -> None:
        _, piece = self.flight.popleft()
        if self.flight:
            self._expect(self.flight[0][0])
        self.arrived.append(piece)
        if piece is Mark.RESET:
            self.broken = True
        self.deliver()

    def deliver(self) -> None:
        """Give the receiver what has arrived, as far as it reads."""
        while self.arrived:
            piece = self.arrived[0]
            if not self.receiver.takes(piece):
                return
            self.arrived.popleft()
            if isinstance(piece, bytes):
                self._held -= len(piece)
                self._refill_soon()
                if self._network.tap is not None and not self.receiver.gone:
                    self._network.tap(self._loop.now_ns, self.number, self.name, piece)
            self.receiver.take(piece)

    def _refill_soon(self) -> None:
        if self.buffer and not self._refilling:
            self._refilling = True
            self._loop.call_soon(self._refill)

    def _refill(self) -> None:
        self._refilling = False
        self._pump()
        self.sender.flushed()
