"""The trace index: one SQLite row a record, and where its bytes are.

Three things are unusual, each because of a measurement (docs/decisions/0005-trace-store.md):

1. a trace's place is its number. Records are numbered as they arrive and a block row covers a
   run of numbers, so a trace's own row need not say where it is, and merging or moving blocks
   touches no trace;
2. ids are looked up in sorted runs. A run is 32,768 traces; when one is complete its ids are
   sorted once. A plain index over random ids costs 20 µs a trace at a million, this 0.8;
3. traces have no index at all. A block row lists the few values its traces have of what can
   be filtered by, and a search skips the blocks that lack one. Two indexes in its place cost
   3 µs a trace.

The writer's connection and any number of readers work at once (WAL). The index holds nothing
that segments do not: it can be deleted, and is made anew.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from forebay.observe import rows
from forebay.observe.rows import AT, COLUMNS, MAX_INT, SETS, SUMMED, Row
from forebay.observe.segments import Block
from forebay.stores import sqlite

__all__ = ["COLUMNS", "Entry", "Index", "Row"]

NAME = "index.db"
MIGRATIONS = Path(__file__).parent / "migrations"

RUN_BITS = 15
RUN_ROWS = 1 << RUN_BITS


class Entry(msgspec.Struct, frozen=True):
    """A block that was written, and the rows of its records."""

    segment: int
    block: Block
    rows: list[Row]


class Index:
    """The index, open for writing. One thread."""

    def __init__(self, folder: Path) -> None:
        """Opens or makes `folder/index.db`. Raises Failure like `stores.sqlite.open`."""
        self.path = folder / NAME
        if not self.path.exists():
            _make_with_large_pages(self.path)
        # NORMAL: a power cut may take the last commits, and they are made again from segments.
        self.sql = sqlite.open(self.path, MIGRATIONS, synchronous="NORMAL")
        # 16 MB: the pages at the tables' ends are written to the database less often.
        self.sql.execute("PRAGMA wal_autocheckpoint = 4000")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Raises sqlite3.Error (a full disk is one)."""
        self.sql.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.sql.execute("COMMIT")
        except BaseException:
            # SQLite itself has rolled back after some errors.
            if self.sql.in_transaction:
                self.sql.execute("ROLLBACK")
            raise

    # -- what is there

    def next_number(self) -> int:
        """The number of the next record; the first is 1."""
        ((found,),) = self.sql.execute("SELECT max(first + count) FROM blocks")
        return int(found or 1)

    def segments(self) -> dict[int, str]:
        """File names by serial number, oldest first."""
        return dict(self.sql.execute("SELECT id, name FROM segments ORDER BY id"))

    def unsealed(self) -> dict[int, str]:
        """Of those, the ones still as they were first written."""
        return dict(self.sql.execute("SELECT id, name FROM segments WHERE NOT sealed ORDER BY id"))

    def end_of(self, segment: int) -> int:
        """Where the last known block of a segment ends, in bytes; 0 where none is known."""
        found = self.sql.execute(
            "SELECT offset + length FROM blocks WHERE segment = ? ORDER BY first DESC LIMIT 1",
            (segment,),
        ).fetchone()
        return int(found[0]) if found else 0

    def extent(self, segment: int) -> tuple[int, int, int]:
        """Number of the first trace of a segment and behind its last, and when the newest
        was received (wall clock, ns)."""
        first, end, newest_ns = self.sql.execute(
            "SELECT min(first), max(first + count), max(newest_ns) FROM blocks WHERE segment = ?",
            (segment,),
        ).fetchone()
        return first or 0, end or 0, newest_ns or 0

    def blocks(self, segment: int) -> list[Block]:
        """The blocks of a segment, in order."""
        found = self.sql.execute(
            "SELECT first, count, offset, length, oldest_ns, newest_ns FROM blocks"
            " WHERE segment = ? ORDER BY first",
            (segment,),
        )
        return [Block(*values) for values in found]

    # -- what changes

    def add(self, entries: Sequence[Entry]) -> None:
        """Add blocks and their rows, in one transaction. Raises sqlite3.Error."""
        try:
            self._add(entries)
        except OverflowError:  # SQLite's integers end at 2^63; a provider may claim anything
            self._add([_clamped(entry) for entry in entries])

    def name_segment(self, serial: int, name: str, *, sealed: bool = False) -> None:
        """Note a segment's file, new or renamed."""
        self.sql.execute(
            "INSERT INTO segments (id, name, sealed) VALUES (?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name, sealed = excluded.sealed",
            (serial, name, sealed),
        )

    def move(self, serial: int, name: str, blocks: Sequence[Block]) -> None:
        """A segment was written anew, sealed: same records, other blocks. Merged blocks add
        up their sums and join their sets. Raises sqlite3.Error."""
        columns = ", ".join((*SUMMED, *SETS.values()))
        with self.transaction():
            moved = []
            for block in blocks:
                found = self.sql.execute(
                    f"SELECT {columns} FROM blocks WHERE segment = ?"  # noqa: S608 - ours
                    " AND first >= ? AND first < ?",
                    (serial, block.first, block.first + block.count),
                ).fetchall()
                moved.append(_block_row(serial, block, rows.merged(found)))
            self.sql.execute("DELETE FROM blocks WHERE segment = ?", (serial,))
            self.sql.executemany(_INSERT_BLOCK, moved)
            self.name_segment(serial, name, sealed=True)

    def forget(self, first: int, end: int) -> None:
        """Remove the traces numbered first … end - 1, and their blocks. Runs go when none of
        their traces can be left. Raises sqlite3.Error."""
        with self.transaction():
            self.sql.execute("DELETE FROM traces WHERE n >= ? AND n < ?", (first, end))
            self.sql.execute("DELETE FROM blocks WHERE first >= ? AND first < ?", (first, end))
            ((oldest,),) = self.sql.execute("SELECT min(n) FROM traces")
            whole = (oldest if oldest is not None else end) >> RUN_BITS
            self.sql.execute("DELETE FROM ids WHERE run < ?", (whole,))
            self.sql.execute("DELETE FROM runs WHERE run < ?", (whole,))
            self.sql.execute("DELETE FROM choices WHERE n < ?", (end,))

    def forget_orphans(self) -> None:
        """Remove traces older than every block: what a deletion left that was interrupted."""
        self.sql.execute(
            "DELETE FROM traces WHERE n < coalesce((SELECT min(first) FROM blocks), ?)", (MAX_INT,)
        )

    def forget_segment(self, serial: int) -> None:
        self.sql.execute("DELETE FROM segments WHERE id = ?", (serial,))

    def close(self) -> None:
        self.sql.close()

    def _add(self, entries: Sequence[Entry]) -> None:
        with self.transaction():
            for entry in entries:
                self.sql.executemany(_INSERT_TRACE, entry.rows)
                facts = rows.facts(entry.rows)
                self.sql.execute(_INSERT_BLOCK, _block_row(entry.segment, entry.block, facts))
            self.sql.executemany(_INSERT_CHOICE, _choices(entries))
            if entries:
                self._complete_runs(entries[0].block.first, entries[-1].block)

    def _complete_runs(self, first: int, last: Block) -> None:
        for run in range(first >> RUN_BITS, (last.first + last.count) >> RUN_BITS):
            start = run << RUN_BITS
            self.sql.execute("INSERT OR IGNORE INTO runs VALUES (?)", (run,))
            self.sql.execute(
                "INSERT OR IGNORE INTO ids SELECT ?, id, n FROM traces"
                " WHERE n >= ? AND n < ? ORDER BY id",
                (run, start, start + RUN_ROWS),
            )

    def __repr__(self) -> str:
        return f"<Index {self.path}>"


def _make_with_large_pages(path: Path) -> None:
    """A database keeps the page size it began with. Rows here are appended, so pages twice
    the usual size are half as many to journal: 2 µs a row where 4 KB takes 2.9."""
    made = sqlite3.connect(path, isolation_level=None)
    made.execute("PRAGMA page_size = 8192")
    made.execute("VACUUM")  # writes the first page
    made.close()


def _insert(table: str, columns: int) -> str:
    return f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})"  # noqa: S608 - ours


_INSERT_TRACE = _insert("traces", len(COLUMNS))
_INSERT_BLOCK = _insert("blocks", 7 + len(SUMMED) + len(SETS))
_INSERT_CHOICE = (
    "INSERT INTO choices VALUES (?, ?, ?)"
    " ON CONFLICT (kind, name) DO UPDATE SET n = max(n, excluded.n)"
)


def _choices(entries: Sequence[Entry]) -> list[Row]:
    """Projects and models that were answered, each with the number of its newest trace."""
    newest: dict[tuple[str, str], int] = {}
    project, model, outcome = AT["project"], AT["model"], AT["outcome"]
    for entry in entries:
        for row in entry.rows:
            if row[outcome] == "ok":
                newest["project", row[project]] = newest["model", row[model]] = row[0]
    return [(kind, name, n) for (kind, name), n in newest.items()]


def _clamped(entry: Entry) -> Entry:
    rows = [
        tuple(min(value, MAX_INT) if isinstance(value, int) else value for value in row)
        for row in entry.rows
    ]
    return Entry(entry.segment, entry.block, rows)


def _block_row(segment: int, block: Block, facts: list[Any]) -> Row:
    return (
        block.first, block.count, segment, block.offset, block.length, block.oldest_ns,
        block.newest_ns, *facts,
    )  # fmt: skip
