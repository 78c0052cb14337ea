"""The line between a worker and the back office: one Unix socket, framed messages, bounds.

    frame = length (uint32, little endian) · kind (one byte) · payload

    worker → office   R records (encoded Records, each with its own uint32 length)
                      W prices wanted (msgpack [[provider, model], …])
                      M metrics asked
    office → worker   S snapshot (msgpack, see `Snapshot`)
                      M metrics (text)

Neither side waits for the other on a request's path. A worker's records wait in its recorder
while the line is down or slow; it keeps trying to connect, and works on with what it last
knew. A peer that sends a frame over the bound is cut off.
"""

import asyncio
import functools
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec

from forebay.admission.keys import KeyRow
from forebay.inference.local import Served
from forebay.schema.usage import Rates
from forebay.world import World

RECORDS, WANTED, METRICS, SNAPSHOT = b"R", b"W", b"M", b"S"
MAX_FRAME_BYTES = 128 * 1024 * 1024
#: Unsent bytes at which records stay in the recorder's ring instead.
HIGH_WATER_BYTES = 8 * 1024 * 1024
_LENGTH = struct.Struct("<I")
_HEAD_BYTES = 5
_BUFFER_BYTES = 256 * 1024
RECONNECT_S = 0.25


class Snapshot(msgspec.Struct, array_like=True):
    """Everything a worker works with that can change while it runs. None: as before."""

    keys: list[KeyRow] | None = None
    discovered: dict[str, list[str]] | None = None
    listed: dict[str, list[str]] | None = None
    rates: list[tuple[str, str, Rates | None]] | None = None
    local: list[Served] | None = None


encode_snapshot = msgspec.msgpack.Encoder().encode
decode_snapshot = msgspec.msgpack.Decoder(Snapshot).decode


def frame(kind: bytes, payload: bytes) -> bytes:
    return _LENGTH.pack(len(payload)) + kind + payload


def pack_records(batch: list[bytes]) -> list[bytes]:
    """Encoded records as the parts of one frame, none of them copied."""
    size = sum(map(len, batch)) + 4 * len(batch)
    parts = [_LENGTH.pack(size) + RECORDS]
    for data in batch:
        parts += (_LENGTH.pack(len(data)), data)
    return parts


def unpack_records(payload: memoryview) -> list[bytes]:
    """Raises ValueError on a payload that is cut."""
    records = []
    at, end = 0, len(payload)
    while at < end:
        if at + 4 > end:
            raise ValueError("a record's length is cut")
        start = at + 4
        (size,) = _LENGTH.unpack_from(payload, at)
        at = start + size
        if at > end:
            raise ValueError("a record is cut")
        records.append(bytes(payload[start:at]))
    return records


class Line(asyncio.BufferedProtocol):
    """One end of the socket. `on_frame(line, kind, payload)`; `on_lost(line)`.

    Read into one buffer that stays: records pass at tens of megabytes a second, and a fresh
    block for each read would cost more in page faults than the copying. A payload is a view
    into it, good until `on_frame` returns.
    """

    def __init__(
        self,
        on_frame: "Callable[[Line, bytes, memoryview], None]",
        on_lost: "Callable[[Line], None]",
        on_made: "Callable[[Line], None] | None" = None,
    ) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._on_made = on_made
        self._buffer = bytearray(_BUFFER_BYTES)
        self._size = 0  # bytes in it
        self.transport: asyncio.Transport | None = None

    def send(self, kind: bytes, payload: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(frame(kind, payload))

    @property
    def full(self) -> bool:
        return self.transport is None or self.transport.get_write_buffer_size() > HIGH_WATER_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        if self._on_made is not None:
            self._on_made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._size :]

    def buffer_updated(self, nbytes: int) -> None:
        self._size += nbytes
        view = memoryview(self._buffer)
        at, needed = 0, 0
        while self._size - at >= _HEAD_BYTES:
            (size,) = _LENGTH.unpack_from(view, at)
            if size > MAX_FRAME_BYTES:
                self._size = 0
                if self.transport is not None:
                    self.transport.abort()
                return
            start = at + _HEAD_BYTES
            if self._size - start < size:
                needed = _HEAD_BYTES + size
                break
            at = start + size
            self._on_frame(self, bytes(view[start - 1 : start]), view[start:at])
        rest = self._size - at
        if needed > len(self._buffer):
            larger = bytearray(needed)
            larger[:rest] = view[at : self._size]
            self._buffer = larger
        elif at and rest:
            view[:rest] = view[at : self._size]
        elif not rest and len(self._buffer) > 16 * _BUFFER_BYTES:
            self._buffer = bytearray(_BUFFER_BYTES)  # a giant came by; it need not stay
        self._size = rest

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._on_lost(self)


class Link:
    """The worker's end: connects, keeps connecting, hands out what arrives."""

    def __init__(self, world: World, path: Path, on_snapshot: Callable[[Snapshot], None]) -> None:
        self._world = world
        self._path = path
        self._on_snapshot = on_snapshot
        self._line: Line | None = None
        self._metrics: list[asyncio.Future[str]] = []
        self._closed = False
        self._down = asyncio.Event()
        #: how often it came up: each time the other end may be one that knows of nothing
        self.times_up = 0
        self.synced = asyncio.Event()  # set by the first snapshot

    def __repr__(self) -> str:
        return f"<Link {'up' if self.up else 'down'} to {self._path}>"

    @property
    def up(self) -> bool:
        return self._line is not None

    async def run(self) -> None:
        """Connect whenever there is no connection, until cancelled."""
        loop = asyncio.get_running_loop()
        while not self._closed:
            lost = loop.create_future()

            def on_lost(line: Line, lost: asyncio.Future[None] = lost) -> None:
                self._lost()
                if not lost.done():
                    lost.set_result(None)

            try:
                _, line = await loop.create_unix_connection(
                    functools.partial(Line, self._frame, on_lost), str(self._path)
                )
            except OSError:
                await asyncio.sleep(RECONNECT_S)
                continue
            if not lost.done():  # else it was gone as soon as it stood
                self._line = line
                self.times_up += 1
                self._down.clear()
            await lost
            await asyncio.sleep(RECONNECT_S)

    async def close(self) -> None:
        """For good; returns when everything that was taken has been read."""
        self._closed = True
        if (line := self._line) is None or line.transport is None:
            return
        # Half of it: what the back office may just be telling us must find somebody, or it
        # drops the connection with our last records unread. It closes the rest at our end.
        line.transport.write_eof()
        await self._down.wait()

    def send_records(self, batch: list[bytes]) -> bool:
        """Takes a batch unless the line is down or full: the recorder's `send`."""
        line = self._line
        if line is None or line.full:
            return False
        assert line.transport is not None  # else it were full
        line.transport.writelines(pack_records(batch))
        return True

    def want(self, models: set[tuple[str, str]]) -> None:
        """Ask for prices; they come in a snapshot."""
        if self._line is not None and models:
            self._line.send(WANTED, msgspec.msgpack.encode(sorted(models)))

    async def metrics(self, timeout_s: float = 2.0) -> str:
        """The machine's metrics as text. Raises ConnectionError, TimeoutError."""
        if self._line is None:
            raise ConnectionError("the back office is away")
        asked: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._metrics.append(asked)
        self._line.send(METRICS, b"")
        async with asyncio.timeout(timeout_s):
            return await asked

    def _frame(self, line: Line, kind: bytes, payload: memoryview) -> None:
        if kind == SNAPSHOT:
            self._on_snapshot(decode_snapshot(payload))
            self.synced.set()
        elif kind == METRICS and self._metrics:
            asked = self._metrics.pop(0)
            if not asked.done():
                asked.set_result(str(payload, "utf-8"))

    def _lost(self) -> None:
        self._line = None
        self._down.set()
        for asked in self._metrics:
            if not asked.done():
                asked.set_exception(ConnectionError("the back office went away"))
        self._metrics = []
