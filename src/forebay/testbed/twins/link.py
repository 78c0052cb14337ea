"""The bytes of a connection on their way out, at full speed or throttled.

A throttled link hands so many bytes per second to the transport, in slices of 20 ms, and
holds the rest, as a slow network would. Both tell how much the peer has not taken yet, so
that an answer can stop making events for a peer that does not read.
"""

import asyncio
import socket
import struct

from forebay.world import World

_SLICE_S = 0.02


class Link:
    """Writes to one transport. `bytes_per_s` None is full speed."""

    def __init__(self, world: World, transport: asyncio.Transport, bytes_per_s: int | None) -> None:
        self._world = world
        self._transport = transport
        self._rate = bytes_per_s
        self._held = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._credit = 0.0
        self._closing = False
        self.write = transport.write if bytes_per_s is None else self._hold

    def throttle(self, bytes_per_s: int) -> None:
        """From here on so slow."""
        self._rate = bytes_per_s
        self.write = self._hold

    @property
    def held(self) -> int:
        """Bytes that the throttle holds back."""
        return len(self._held)

    def close(self) -> None:
        """Close when all is written."""
        self._closing = True
        if not self._held:
            self._transport.close()

    def reset(self) -> None:
        """End with a TCP reset: whatever is not sent yet is lost, the peer gets an error."""
        self.drop()
        sock = self._transport.get_extra_info("socket")
        if sock is not None:  # in memory there is none, and abort is a reset there
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def drop(self) -> None:
        """Forget what is held; the connection is gone."""
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hold(self, data: bytes) -> None:
        self._held += data
        if self._timer is None:
            self._drip()

    def _drip(self) -> None:
        self._timer = None
        if self._transport.is_closing():
            self._held.clear()
            return
        assert self._rate is not None
        self._credit = min(self._credit + self._rate * _SLICE_S, max(self._rate * _SLICE_S, 1.0))
        whole = int(self._credit)
        if whole:
            part = bytes(self._held[:whole])
            del self._held[: len(part)]
            self._credit -= len(part)
            self._transport.write(part)
        if self._held:
            self._timer = self._world.call_later(_SLICE_S, self._drip)
        elif self._closing:
            self._transport.close()
