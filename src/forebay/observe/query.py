"""Reading the trace store, while the writer writes or when nothing runs.

Files are opened read-only: a reader can do no harm, and needs no word with the writer.

A list goes from the newest backwards, a page at a time; the cursor is the number of the last
trace seen, so new arrivals shift nothing. Blocks that have none of a wanted project, model,
outcome or cache result are skipped; the traces of the others are looked through, and that is
bounded: it goes on in stretches until the page is full or the time is up, and the page says
how far back it looked. A filter that matches nothing in 100 million traces then costs the
reader a click, not the server a minute.

A trace is found by its id or by the beginning of one, if that is only one's.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec

from forebay.errors import Failure
from forebay.observe import index, rows, segments
from forebay.observe.record import Record, decode
from forebay.observe.search import EVERYTHING, LIST, Filter, Line, conditions, line_of
from forebay.observe.segments import Block

__all__ = ["EVERYTHING", "Filter", "Line", "Overview", "Page", "Reader"]

#: How long one page may search. The console promises p50 below 100 ms for a page.
SEARCH_NS = 50_000_000
MAX_PAGE = 500
_FIRST_STRETCH = 4096
_LONGEST_STRETCH = 32_768
_MIN_PREFIX = 6
_MAX_CHOICES = 200


class Page(msgspec.Struct, frozen=True):
    lines: list[Line]
    #: cursor of the next page; None: there is nothing older
    before: int | None
    #: the time ran out before the page was full: nothing said of traces older than `before`
    cut_short: bool = False


class Overview(msgspec.Struct, frozen=True):
    """The last minutes in figures, of what was recorded in them."""

    minutes: float
    requests: int = 0
    failed: int = 0
    cancelled: int = 0
    hits: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_nusd: int = 0
    saved_nusd: int = 0
    #: to the first byte, over the newest traces of the time, at most 1,000; None: no trace
    ttft_p50_ns: int | None = None
    ttft_p95_ns: int | None = None


class Reader:
    """Reads one store. One thread at a time; opens anew what the writer has replaced."""

    def __init__(self, folder: Path, now_ns: Callable[[], int]) -> None:
        """`now_ns`: the monotonic clock that bounds searches. Opens nothing yet."""
        self.folder = folder
        self._now_ns = now_ns
        self._sql: sqlite3.Connection | None = None

    def traces(self, want: Filter = EVERYTHING, limit: int = 50, before: int | None = None) -> Page:
        """A page of traces, the newest first, older than the cursor `before`.

        `limit` is brought into 1 … 500. Raises Failure(not_configured) where there is no store.
        """
        sql = self._connection()
        limit = max(1, min(limit, MAX_PAGE))
        floor, end = self._numbers_held()
        if before is not None:
            end = min(end, before)
        if want.since_ns:
            floor = max(floor, self._first_since(want.since_ns, end))
        where, values = conditions(want)
        lines: list[Line] = []
        deadline = self._now_ns() + SEARCH_NS
        stretch = _FIRST_STRETCH
        while end > floor and len(lines) <= limit:
            start = max(floor, self._block_start(end - stretch))
            found = sql.execute(
                LIST.format(where=where), (start, end, end, *values, limit + 1 - len(lines))
            )
            lines += [line_of(row) for row in found]
            end = start
            stretch = min(stretch * 2, _LONGEST_STRETCH)
            if self._now_ns() >= deadline:
                break
        if len(lines) > limit:  # one more than asked for: so there is a next page
            return Page(lines[:limit], lines[limit - 1].n)
        return Page(lines, end if end > floor else None, cut_short=end > floor)

    def find(self, wanted: str) -> Line:
        """The trace with this id, or whose id alone begins so. Raises Failure."""
        wanted = wanted.strip()
        numbers = self._numbers(wanted, exact=True)
        if not numbers and len(wanted) >= _MIN_PREFIX:
            numbers = self._numbers(wanted, exact=False)
        if not numbers:
            raise _no_trace(wanted)
        found = self._connection().execute(
            f"SELECT {', '.join(rows.COLUMNS)} FROM traces"  # noqa: S608 - ours, values bound
            f" WHERE n IN ({', '.join('?' * len(numbers))}) ORDER BY n DESC",
            numbers,
        )
        lines = [line_of(row) for row in found]
        ids = {line.id for line in lines}
        if len(ids) > 1:
            raise Failure(
                "bad_request",
                f"Several traces have an id that begins with {wanted!r}: {', '.join(sorted(ids))}.",
                hint="Give more of it.",
            )
        if not lines:
            raise _no_trace(wanted)
        return lines[0]

    def record(self, line: Line) -> Record:
        """The record behind a line. Raises Failure where its segment is gone or damaged."""
        for attempt in (1, 2):
            try:
                return self._read(line.n)
            except FileNotFoundError:
                if attempt == 2:
                    break  # sealing replaces a file once: twice is something else
            except (segments.Damaged, msgspec.MsgspecError) as error:
                raise Failure("internal", f"The record of {line.id} is damaged: {error}.") from None
        raise _content_gone(line)

    def records(self, lines: list[Line]) -> list[Record | None]:
        """The records behind lines, None where one is gone or damaged. Lines that lie together
        are read together, so those of a page cost a few blocks."""
        found: list[Record | None] = []
        block: tuple[Block, list[memoryview]] | None = None
        for line in lines:
            if block is None or not 0 <= line.n - block[0].first < block[0].count:
                try:
                    block = self._block(line.n)
                except (FileNotFoundError, segments.Damaged):
                    found.append(None)
                    continue
            try:
                found.append(decode(block[1][line.n - block[0].first]))
            except msgspec.MsgspecError:
                found.append(None)
        return found

    def trace(self, wanted: str) -> Record:
        """The record of `find(wanted)`. Raises Failure."""
        return self.record(self.find(wanted))

    def overview(self, minutes: float, wall_ns: int) -> Overview:
        """The figures of the last minutes before `wall_ns`. Raises Failure."""
        sql = self._connection()
        since_ns = wall_ns - int(minutes * 60e9)
        ((first, *sums),) = sql.execute(
            "SELECT min(first), sum(count), sum(failed), sum(cancelled), sum(hits),"
            " sum(tokens_in), sum(tokens_out), sum(cost_nusd), sum(saved_nusd)"
            " FROM blocks WHERE first >= ? AND newest_ns >= ?",
            (self._first_since(since_ns, 1 << 62), since_ns),
        )
        if first is None:
            return Overview(minutes)
        waits = sorted(
            wait
            for (wait,) in sql.execute(
                "SELECT ttft_ns FROM traces WHERE n >= ? ORDER BY n DESC LIMIT 1000", (first,)
            )
            if wait
        )
        figures = [minutes, *sums, _quantile(waits, 0.5), _quantile(waits, 0.95)]
        return Overview(*figures)

    def choices(self, kind: Literal["project", "model"]) -> list[str]:
        """What a filter can be set to: the names that requests were answered for."""
        found = self._connection().execute(
            "SELECT name FROM choices WHERE kind = ? ORDER BY name LIMIT ?", (kind, _MAX_CHOICES)
        )
        return [name for (name,) in found]

    def close(self) -> None:
        if self._sql is not None:
            self._sql.close()
            self._sql = None

    # -- how

    def _connection(self) -> sqlite3.Connection:
        if self._sql is None:
            path = self.folder / index.NAME
            if not path.exists():
                raise Failure(
                    "not_configured",
                    f"There is no trace store in {self.folder}.",
                    hint="It is made when the gateway first runs (forebay up).",
                )
            try:
                self._sql = _open_read_only(path)
            except sqlite3.Error as error:
                raise Failure(
                    "not_configured",
                    f"The trace index {path} cannot be read: {error}.",
                    hint="Look at its permissions; if it is damaged, stop Forebay and delete"
                    " index.db*: it is made anew from the segments.",
                ) from None
        return self._sql

    def _numbers_held(self) -> tuple[int, int]:
        """Number of the first trace in any block, and behind the last; (0, 0) of none."""
        # One query for both would read the whole table: SQLite looks up a lone min or max.
        ((first, end),) = self._connection().execute(
            "SELECT (SELECT min(first) FROM blocks),"
            " (SELECT first + count FROM blocks ORDER BY first DESC LIMIT 1)"
        )
        return first or 0, end or 0

    def _block_start(self, n: int) -> int:
        """Number of the first trace in the block of trace `n`; 0 where that is too old."""
        ((first,),) = self._connection().execute(
            "SELECT max(first) FROM blocks WHERE first <= ?", (n,)
        )
        return first or 0

    def _first_since(self, since_ns: int, none: int) -> int:
        """Number of the first trace in any block that has one received since then."""
        ((first,),) = self._connection().execute(
            "SELECT min(first) FROM blocks WHERE newest_ns >= ?", (since_ns,)
        )
        return none if first is None else int(first)

    def _numbers(self, wanted: str, *, exact: bool) -> list[int]:
        sql = self._connection()
        high = wanted if exact else wanted + "\U0010ffff"
        ((last,),) = sql.execute("SELECT max(run) FROM runs")
        tail = 0 if last is None else (last + 1) << index.RUN_BITS
        found = sql.execute(
            "SELECT n FROM traces WHERE n >= ? AND id >= ? AND id <= ? LIMIT 8",
            (tail, wanted, high),
        ).fetchall()
        # CROSS JOIN: the runs outside, a search by (run, id) in each; never through all ids.
        found += sql.execute(
            "SELECT ids.n FROM runs CROSS JOIN ids"
            " WHERE ids.run = runs.run AND ids.id >= ? AND ids.id <= ? LIMIT 8",
            (wanted, high),
        ).fetchall()
        return [n for (n,) in found]

    def _read(self, n: int) -> Record:
        block, held = self._block(n)
        return decode(held[n - block.first])

    def _block(self, n: int) -> tuple[Block, list[memoryview]]:
        """The block of a trace, and its records. Raises FileNotFoundError, Damaged."""
        found = (
            self._connection()
            .execute(
                "SELECT name, first, count, offset, length, oldest_ns, newest_ns FROM blocks"
                " CROSS JOIN segments ON segments.id = blocks.segment"
                " WHERE first <= ? ORDER BY first DESC LIMIT 1",
                (n,),
            )
            .fetchone()
        )
        if found is None or n >= found[1] + found[2]:
            raise FileNotFoundError
        block = Block(*found[1:])
        payload = segments.read(self.folder / found[0], block)
        return block, segments.unpack(payload, block.count)

    def __repr__(self) -> str:
        return f"<Reader {self.folder}>"


def _open_read_only(path: Path) -> sqlite3.Connection:
    sql = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )
    try:
        sql.execute("PRAGMA trusted_schema = OFF")
        # Else SQLite prefers to index the whole table for each list.
        sql.execute("PRAGMA automatic_index = OFF")
        sql.execute("SELECT n FROM traces LIMIT 1").fetchone()
    except sqlite3.Error:
        sql.close()
        raise
    return sql


def _quantile(ordered: list[int], share: float) -> int | None:
    """Nearest rank; None of nothing."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def _no_trace(wanted: str) -> Failure:
    return Failure(
        "unknown_trace",
        f"No trace has the id {wanted[:80]!r}, nor one alone that begins so.",
        hint="`forebay trace list` shows the newest; old ones are deleted by age and size.",
    )


def _content_gone(line: Line) -> Failure:
    return Failure(
        "unknown_trace",
        f"The record of {line.id} is gone: its segment was deleted.",
        hint="Its row will follow; how long records are kept is up to the retention settings.",
    )
