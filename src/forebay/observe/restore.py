"""A record's bytes as they were on the wires.

A record stores each byte once. What a provider was sent is, where bytes passed through,
splices of what the caller sent; what the caller got is splices of what the last attempt
answered. Here they are put together again. All of it is pure.

    caller ──request──▶ gateway ──sent(i)──▶ provider
    caller ◀──reply─── gateway ◀─answer(i)── provider

With capture `hashed` or `off` there are no bytes: an empty `Body` in that form says so.
"""

import struct

from forebay.observe.record import AttemptRecord, Body, Record, Splice
from forebay.wire import members

Cut = tuple[int, int]
"""Where a chunk ends (bytes), and when it came (µs after the body was due)."""


def request(record: Record) -> Body:
    """What the caller sent."""
    return record.body


def sent(record: Record, attempt: AttemptRecord) -> Body:
    """What the provider was sent."""
    return _joined(record.body, attempt.sent)


def reply(record: Record) -> Body:
    """What the caller got. Chunk boundaries are those of the answer where bytes passed."""
    answer = record.attempts[-1].body if record.attempts else Body()
    return _joined(answer, record.reply_body)


def cuts(body: Body) -> list[Cut]:
    """How a body was cut into chunks; nothing where it came as one or none."""
    marks = body.marks[: len(body.marks) // 8 * 8]
    return [(end, at_us) for end, at_us in struct.iter_unpack("<II", marks)]


def spliced(body: Body, edits: list[Splice]) -> Body:
    """A body with edits done to its bytes; chunk boundaries move along."""
    data = members.apply(body.data, edits)
    return Body(data, _moved(body.marks, edits), len(data))


def bare(record: Record) -> Record:
    """The same record without content: who asked, when, how it ended; sizes stay."""
    record.body = _off(record.body)
    record.reply_body = _no_content(record.reply_body)
    for attempt in record.attempts:
        attempt.sent = _no_content(attempt.sent)
        attempt.body = _off(attempt.body)
    return record


def _joined(base: Body, change: Body | list[Splice]) -> Body:
    if isinstance(change, Body):
        return change
    if not change or base.form != "full":
        return base
    return spliced(base, change)


def _off(body: Body) -> Body:
    return Body(size=body.size, form="off")


def _no_content(change: Body | list[Splice]) -> Body | list[Splice]:
    if isinstance(change, Body):
        return _off(change)
    return Body(form="off") if change else change  # splices quote what they insert


def _moved(marks: bytes, edits: list[Splice]) -> bytes:
    """Chunk ends after edits. An end inside a replaced stretch moves behind what replaced it;
    an insertion right at an end belongs to the next chunk."""
    moved = bytearray()
    shift = 0  # of what lies behind the edits done so far
    old_stop = new_stop = 0  # where the last of them ends, before and after
    rest = list(reversed(edits))
    for end, at_us in struct.iter_unpack("<II", marks[: len(marks) // 8 * 8]):
        while rest and rest[-1][0] < end:
            start, old_stop, value = rest.pop()
            shift += len(value) - (old_stop - start)
            new_stop = old_stop + shift
        moved += struct.pack("<II", end + shift if end >= old_stop else new_stop, at_us)
    return bytes(moved)
