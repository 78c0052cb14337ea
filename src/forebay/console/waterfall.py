"""Where the time of one exchange went: bars on one axis, from its marks and attempts. Pure.

Rows, in order: the gateway before the first attempt (read and decode, identify, plan), each
attempt (connect and send until the response head, wait for the first content, content), and
the reply as the caller saw it. A mark that is 0 was never reached, and its bar is not drawn.

The gateway's own steps take microseconds where a provider takes seconds; a bar is never drawn
thinner than can be seen, so the numbers beside it are the truth and the bars a picture.
"""

import math

import msgspec

from forebay.console import words
from forebay.observe.record import AttemptRecord, Record

WIDTH = 100.0
"""Of the time axis: places are percent of it, so a picture fits any width and scales no text."""

_LEAST = 0.25
_SECOND_NS = 1_000_000_000


class Bar(msgspec.Struct):
    """A stretch of time: nanoseconds after the request was received, and where to draw it."""

    kind: str  # own | connect | wait | content | reply | lost
    title: str
    start_ns: int
    end_ns: int
    x: float = 0.0
    width: float = 0.0


class Row(msgspec.Struct):
    label: str
    note: str
    bars: list[Bar]


class Tick(msgspec.Struct):
    label: str
    x: float


class Waterfall(msgspec.Struct):
    rows: list[Row]
    ticks: list[Tick]
    total_ns: int


def waterfall(record: Record) -> Waterfall:
    """The picture of a record. Sync, ~20 µs."""
    rows = [_own(record)]
    for number, attempt in enumerate(record.attempts, 1):
        rows.append(_attempt(number, attempt))
    if record.first_ns:
        bar = Bar("reply", "the answer to the caller", record.first_ns, record.ended_ns)
        rows.append(Row("reply", words.duration(bar.end_ns - bar.start_ns), [bar]))
    ends = [bar.end_ns for row in rows for bar in row.bars]
    total = max([record.ended_ns, *ends, 1])
    for row in rows:
        for bar in row.bars:
            _place(bar, total)
    return Waterfall(rows, _ticks(total), total)


def _own(record: Record) -> Row:
    marks = (
        ("read and decode the request", record.decoded_ns),
        ("identify the key", record.identified_ns),
        ("caches and route", record.planned_ns),
    )
    bars = []
    start = 0
    for title, end in marks:
        if end:
            bars.append(Bar("own", title, start, end))
            start = end
    return Row("gateway", words.duration(start), bars)


def _attempt(number: int, attempt: AttemptRecord) -> Row:
    start, end = attempt.started_ns, attempt.ended_ns
    bars = []
    if attempt.head_ns:
        bars.append(Bar("connect", "until the response head", start, attempt.head_ns))
        if attempt.first_ns:
            bars.append(Bar("wait", "until the first content", attempt.head_ns, attempt.first_ns))
            bars.append(Bar("content", "content", attempt.first_ns, end))
        else:
            bars.append(Bar("lost", "no content came", attempt.head_ns, end))
    else:
        bars.append(Bar("lost", "no response came", start, end))
    label = f"{number}. {words.visible(attempt.provider)}"
    return Row(label, words.duration(max(end - start, 0)), bars)


def _place(bar: Bar, total_ns: int) -> None:
    start = min(max(bar.start_ns, 0), total_ns)
    end = min(max(bar.end_ns, start), total_ns)
    bar.x = WIDTH * start / total_ns
    bar.width = max(WIDTH * (end - start) / total_ns, _LEAST)
    bar.x = round(min(bar.x, WIDTH - bar.width), 2)
    bar.width = round(bar.width, 2)


def _ticks(total_ns: int) -> list[Tick]:
    """Four to ten round times from 0."""
    rough = total_ns / 6
    power = 10 ** math.floor(math.log10(rough)) if rough >= 1 else 1
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    count = int(total_ns // step)
    return [
        Tick(words.duration(int(i * step)) if i else "0", round(WIDTH * i * step / total_ns, 2))
        for i in range(count + 1)
    ]
