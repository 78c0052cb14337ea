"""One end of a connection in memory.

A `VirtualTransport` keeps asyncio's contract; where that leaves room it does what Linux does:

- `close` sends what is buffered, then an end of file. Closing with unread bytes sends a
  reset instead, and so does a byte that arrives after the close.
- `abort` drops what is buffered and resets the peer.
- Data that arrived before a reset is still read. A reader that has paused learns of an end
  or a reset when it resumes, or, of a reset, when it writes.
"""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from forebay.testbed.virtual.way import Mark, Way

if TYPE_CHECKING:
    from forebay.testbed.virtual.network import Address, Network, VirtualServer


class VirtualTransport(asyncio.Transport):
    """One end. Prints as `<VirtualTransport #3 127.0.0.1:20002 → 127.0.0.1:20001 open>`."""

    def __init__(
        self,
        network: "Network",
        protocol: asyncio.BaseProtocol | None,
        outgoing: Way,
        incoming: Way,
        address: "Address",
        names: "tuple[Address, Address]",
        server: "VirtualServer | None",
    ) -> None:
        super().__init__({"sockname": names[0], "peername": names[1]})
        self._network = network
        self._loop = network.loop
        self._protocol = protocol
        self.outgoing = outgoing
        self.incoming = incoming
        self.address = address  # the one that was connected to, on both ends
        self._server = server
        self._high = 65_536
        self._low = 16_384
        self._reading = True
        self._writing = True  # False: the protocol was told to pause
        self._ended = False  # write_eof was called
        self._closing = False
        self.gone = False  # connection_lost was called or is about to be

    def __repr__(self) -> str:
        here, there = (
            name if isinstance(name, str) else f"{name[0]}:{name[1]}"
            for name in (self._extra["sockname"], self._extra["peername"])  # type: ignore[attr-defined]
        )
        state = "gone" if self.gone else "closing" if self._closing else "open"
        paused = "" if self._reading else ", reading paused"
        waiting = f", {self.outgoing.buffered} bytes unsent" if self.outgoing.buffered else ""
        number = self.outgoing.number
        return f"<VirtualTransport #{number} {here} → {there} {state}{paused}{waiting}>"

    # -- reading

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.call_soon(self.incoming.deliver)

    def takes(self, piece: bytes | Mark) -> bool:
        """Whether this end reads that now; it may be the kernel that does."""
        if self.gone or piece is Mark.OPEN:
            return True
        if piece is Mark.RESET and self.outgoing.buffer:
            return True  # the write that waits fails
        return self._reading and not self._closing

    def take(self, piece: bytes | Mark) -> None:
        if self.gone:
            if isinstance(piece, bytes):
                self.outgoing.reset()
            elif piece is Mark.OPEN:
                assert self._server is not None
        elif piece is Mark.OPEN:
            self._accept()
        elif piece is Mark.RESET:
            self._lose(ConnectionResetError("connection reset by peer"))
        elif piece is Mark.END:
            self._hear_end()
        else:
            try:
                _give(self._protocol, piece)
            except Exception as error:
                self._fail(error, "protocol.data_received() failed")

    def _accept(self) -> None:
        server = self._server
        assert server is not None
        if not server.is_serving():  # closed while the connection was under way
            self.abort()
            return
        server.attach(self)
        try:
            self._protocol = server.factory()
            self._protocol.connection_made(self)
        except Exception as error:
            self._fail(error, "accepting a connection failed")

    def _hear_end(self) -> None:
        try:
            keep_open = self._protocol.eof_received()  # type: ignore[union-attr]
        except Exception as error:
            self._fail(error, "protocol.eof_received() failed")
            return
        if not keep_open:
            self.close()

    # -- writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes-like, not {type(data).__name__}")
        if self._ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data or self.gone:
            return  # while a close still flushes, asyncio takes more; so does this
        if self.incoming.broken:
            self._lose(ConnectionResetError("connection reset by peer"))
            return
        self.outgoing.send(bytes(data))
        self._pause_protocol()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._ended and not self._closing:
            self._ended = True
            self.outgoing.send(Mark.END)

    def get_write_buffer_size(self) -> int:
        return self.outgoing.buffered

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = 65_536 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        self._pause_protocol()

    def flushed(self) -> None:
        """Some of the buffer has left."""
        if not self._writing and self.outgoing.buffered <= self._low:
            self._writing = True
            self._tell("resume_writing")
        if self._closing and not self.outgoing.buffer and not self.gone:
            self._lose(None)

    def _pause_protocol(self) -> None:
        if self._writing and self.outgoing.buffered > self._high:
            self._writing = False
            self._tell("pause_writing")

    def _tell(self, name: str) -> None:
        try:
            getattr(self._protocol, name)()
        except Exception as error:
            self._report(error, f"protocol.{name}() failed")

    # -- the end

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self.outgoing.buffer:
                self._lose(None)

    def abort(self) -> None:
        if not self.gone:
            self.outgoing.reset()
            self._lose(None)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def _lose(self, error: Exception | None) -> None:
        if self.gone:
            return
        self.gone = self._closing = True
        unread = any(isinstance(piece, bytes) for piece in self.incoming.arrived)
        if error is not None or unread:
            self.outgoing.reset()
        elif not self._ended:
            self.outgoing.send(Mark.END)
        self._loop.call_soon(self._lost, error)

    def _lost(self, error: Exception | None) -> None:
        self.incoming.deliver()  # to nobody: it makes room, so that the peer can finish
        del self._network.open[self]
        if self._server is not None:
            self._server.detach(self)
        if self._protocol is not None:  # None: a server's end that was never accepted
            self._protocol.connection_lost(error)

    def _fail(self, error: Exception, message: str) -> None:
        self._report(error, message)
        self.outgoing.reset()
        self._lose(error)

    def _report(self, error: Exception, message: str) -> None:
        self._loop.call_exception_handler(
            {
                "message": message,
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )


def _give(protocol: asyncio.BaseProtocol | None, data: bytes) -> None:
    if not isinstance(protocol, asyncio.BufferedProtocol):
        assert protocol is not None
        protocol.data_received(data)  # type: ignore[attr-defined]
        return
    view = memoryview(data)
    while view:
        room = memoryview(protocol.get_buffer(len(view)))
        size = min(len(room), len(view))
        if size == 0:
            raise RuntimeError("get_buffer() returned an empty buffer")
        room[:size] = view[:size]
        protocol.buffer_updated(size)
        view = view[size:]
