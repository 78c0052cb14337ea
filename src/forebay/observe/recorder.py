"""The worker's side of the record: exchanges in, batches out, never in the way.

`keep` turns an Exchange into an encoded Record right away (~5 µs), so that what waits is
compact bytes and not live objects. Batches leave by a callable (the link to the back office)
every 50 ms or 128 KB (a Unix socket takes 208 at once). When the back office is slow or gone
they wait in a ring of bounded bytes; past its bound *content* is dropped before *skeletons*,
and both are counted.
"""

import hashlib
from collections import deque
from collections.abc import Callable

from forebay.exchange import Attempt, Capture, Chunks, Exchange
from forebay.observe.record import VERSION, AttemptRecord, Body, Record, Splice, encode
from forebay.world import World

BATCH_BYTES = 128 * 1024
BATCH_S = 0.05
RING_BYTES = 64 * 1024 * 1024
#: The last stretch of the ring is for skeletons alone.
SKELETON_SHARE = 0.25

_NOTHING = Body()


class Recorder:
    """`send` takes a batch and says whether it was taken; it must not block."""

    def __init__(
        self,
        world: World,
        send: Callable[[list[bytes]], bool],
        config_version: str,
        worker: int = 0,
        ring_bytes: int = RING_BYTES,
    ) -> None:
        self._world = world
        self._send = send
        self.config_version = config_version
        self._worker = worker
        self._ring: deque[bytes] = deque()
        self._ring_bytes = ring_bytes
        self._batch: list[bytes] = []
        self._batched = 0
        self._flush_due = False
        self.held_bytes = 0
        self.kept = 0
        self.dropped_content = 0
        self.dropped = 0

    def __repr__(self) -> str:
        return (
            f"<Recorder {self.kept} kept, {self.held_bytes} bytes waiting, "
            f"{self.dropped_content} without content, {self.dropped} dropped>"
        )

    def keep(self, x: Exchange) -> None:
        """Record an exchange that has ended. Sync, ~6 µs for 7 KB."""
        capture: Capture = x.capture
        if self.held_bytes > self._ring_bytes:
            self.dropped += 1
            return
        if self.held_bytes > self._ring_bytes * (1 - SKELETON_SHARE) and capture != "off":
            capture = "off"
            self.dropped_content += 1
        data = encode(record(x, capture, self.config_version, self._worker))
        self.kept += 1
        self._batch.append(data)
        self._batched += len(data)
        self.held_bytes += len(data)
        if self._batched >= BATCH_BYTES:
            self.flush()
        if not self._flush_due and (self._batch or self._ring):
            self._flush_due = True
            self._world.call_later(BATCH_S, self._timer)

    def flush(self) -> None:
        """Hand over what has gathered, oldest first; what is not taken stays."""
        self._ring.extend(self._batch)
        self._batch = []
        self._batched = 0
        while self._ring:
            batch = [self._ring.popleft()]
            size = len(batch[0])
            while self._ring and size < BATCH_BYTES:
                size += len(self._ring[0])
                batch.append(self._ring.popleft())
            if not self._send(batch):
                self._ring.extendleft(reversed(batch))
                return
            self.held_bytes -= size

    def _timer(self) -> None:
        self._flush_due = False
        self.flush()
        if self._ring:  # not taken: try again
            self._flush_due = True
            self._world.call_later(1.0, self._timer)


def record(x: Exchange, capture: Capture, config_version: str, worker: int) -> Record:
    """An exchange as it is kept. Pure; ~3 µs. Positional, in the order of Record's fields."""
    start = x.received_ns
    ask, tenant, reply = x.ask, x.tenant, x.reply_body
    return Record(
        VERSION,
        x.id,
        x.received_wall_ns,
        config_version,
        tenant.team,
        tenant.project,
        tenant.key_id,
        x.method,
        x.path,
        x.query,
        x.endpoint,
        x.dialect,
        x.head.recorded,
        _bytes(x.body, capture),
        ask.model if ask is not None else "",
        ask.stream if ask is not None else False,
        x.route,
        x.cache,
        x.cache_source,
        [_attempt(attempt, capture, start) for attempt in x.attempts],
        x.status,
        x.reply_headers,
        _splices(reply, capture) if isinstance(reply, list) else _body(reply, capture),
        x.outcome,
        str(x.failure) if x.failure is not None else "",
        x.usage,
        x.cost_nusd,
        x.saved_nusd,
        x.draws,
        x.decoded_ns - start if x.decoded_ns else 0,
        x.identified_ns - start if x.identified_ns else 0,
        x.planned_ns - start if x.planned_ns else 0,
        x.first_ns - start if x.first_ns else 0,
        x.ended_ns - start if x.ended_ns else 0,
        worker,
    )


def _attempt(attempt: Attempt, capture: Capture, start: int) -> AttemptRecord:
    sent = attempt.sent
    return AttemptRecord(
        attempt.provider,
        attempt.model,
        attempt.method,
        attempt.path,
        attempt.sent_headers,
        _splices(sent, capture) if isinstance(sent, list) else _bytes(sent, capture),
        attempt.status,
        attempt.headers,
        _body(attempt.body, capture),
        attempt.usage,
        attempt.cost_nusd,
        attempt.finish_reason,
        attempt.model_reported,
        attempt.outcome,
        attempt.started_ns - start if attempt.started_ns else 0,
        attempt.head_ns - start if attempt.head_ns else 0,
        attempt.first_ns - start if attempt.first_ns else 0,
        attempt.ended_ns - start if attempt.ended_ns else 0,
    )


def _body(chunks: Chunks | None, capture: Capture) -> Body:
    if chunks is None:
        return _NOTHING
    if capture == "full":
        # The encoder takes the bytearray as it is: the bytes are copied once, into the record.
        return Body(chunks.data, chunks.marks.tobytes(), len(chunks.data))  # type: ignore[arg-type]
    return _bytes(bytes(chunks.data), capture)


def _bytes(data: bytes, capture: Capture) -> Body:
    if capture == "full":
        return Body(data, b"", len(data))
    if capture == "hashed":
        return Body(hashlib.sha256(data).digest(), b"", len(data), "hashed")
    return Body(b"", b"", len(data), "off")


def _splices(splices: list[Splice], capture: Capture) -> Body | list[Splice]:
    """Splices quote what they insert: content as much as the body is."""
    return splices if capture == "full" or not splices else Body(form="off")
