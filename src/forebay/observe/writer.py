"""The record writer: batches from the workers in, segments and index rows out.

For each batch, in this order:

1. secrets are taken out (`redact`), before anything else sees the records;
2. records are grouped into blocks of up to 256 KiB, each written to the day's segment as one
   zstd frame by one write;
3. one SQLite transaction adds a row for every record.

The segment is the truth and comes first. After a crash the index may lack the last blocks,
and is given them when the writer opens; a torn block at the end is cut off. After a power cut
the index may know blocks that the disk never got; those rows are removed. `kill -9` loses
nothing that `write` had returned from.

Frames are written nearly as fast as they can be copied, since this runs beside the data plane
at its busiest hour. Segments that are done are written once more, properly compressed, when
there is nothing else to do (`upkeep`). docs/decisions/0005-trace-store.md has the numbers.

A full disk must not end in a full ring: `write` never raises for it. Below `reserve_bytes`
of free space records go in without content (what was said), keeping the skeleton (who,
when, what it cost, how it ended); where not even that can be written they are dropped. Both
are counted and said on the console.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import zstandard

from forebay.observe import record as records
from forebay.observe import restore, rows, segments
from forebay.observe.index import Entry, Row
from forebay.observe.recovery import catch_up, in_folder, opened
from forebay.observe.redact import Redactor
from forebay.observe.segments import BLOCK_BYTES, Segment
from forebay.observe.upkeep import RETENTION, Retention, Upkeep
from forebay.world import World

#: The lowest there is: bytes are copied and get their checksum, 1.1 µs for 7 KB. Level -100 takes
#: 4.5 µs to make them a fifth smaller, level 1 takes 13 (code) to 24 (prose) for a third.
STORED = -131072


class Limits(msgspec.Struct, frozen=True):
    """When a segment is full, and when the disk is."""

    segment_bytes: int = 256 << 20
    #: what is left to everything else on the disk, SQLite's own journal among it
    reserve_bytes: int = 256 << 20


LIMITS = Limits()


class Counts(msgspec.Struct):
    """What became of the records since the writer opened."""

    written: int = 0  # in a segment, whole or not
    without_content: int = 0  # of those: the content was dropped for want of space
    dropped: int = 0  # not even the skeleton could be written
    refused: int = 0  # were no records of a version known here
    redacted: int = 0  # had a secret taken out
    raw_bytes: int = 0
    written_bytes: int = 0


def free_bytes(folder: Path) -> int:
    """What an unprivileged process may still write there."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


class Writer:
    """Writes records. One thread, and one writer for a folder."""

    def __init__(
        self,
        folder: Path,
        world: World,
        *,
        secrets: Mapping[str, bytes],
        limits: Limits = LIMITS,
        retention: Retention = RETENTION,
        free: Callable[[Path], int] = free_bytes,
        on_rows: Callable[[Sequence[Row]], None] = lambda _: None,
    ) -> None:
        """Opens the store in `folder`, makes it where there is none, and brings the index up
        to what the segments hold. `secrets`: see `Redactor`. `on_rows` is told the rows of
        what was written.

        Raises Failure (the index cannot be used, another process writes here) and OSError
        (the folder cannot be used).
        """
        self.folder = folder
        self._lock, self._index = opened(folder)
        self.counts = Counts()
        #: what keeps records from being written whole, in words; "" where nothing does
        self.trouble = ""
        self._world = world
        self._limits = limits
        self._free = free
        self._on_rows = on_rows
        self._redactor = Redactor(secrets)
        self._compress = zstandard.ZstdCompressor(level=STORED, write_checksum=True).compress
        self._segment: Segment | None = None
        self._day = ""
        self._serial = 0
        self._behind = False
        self._resume()
        self._next = self._index.next_number()
        self._upkeep = Upkeep(self._index, folder, world, retention)

    def write(self, batch: Sequence[bytes]) -> None:
        """Write encoded records, one an item. Never raises for a full disk. Sync, ~16 µs a
        record of 7 KB; blocks on the disk, so not on a loop that others wait for."""
        scarce = self._is_scarce()
        self.trouble = "the disk is nearly full: content is not kept" if scarce else ""
        entries = []
        for group in _groups(batch):
            entry = self._write(group, scarce)
            if entry is not None:
                entries.append(entry)
        try:
            if self._behind:
                self._catch_up()
            else:
                self._index.add(entries)
        except (sqlite3.Error, OSError, segments.Damaged) as error:
            # The segments have them: the index is given them by a later batch, or on opening.
            self._behind = True
            self.trouble = f"the index cannot be written: {error}"

    def tidy(self) -> bool:
        """One small piece of work that can wait (~10 ms): retention and sealing. Whether
        there may be more. For moments when no batch is waiting. Never raises for a full disk."""
        if self._segment is not None and self._day != self._today():
            self._close_segment()
        if self._behind:
            return False  # nothing is sealed that the index does not know whole
        try:
            return self._upkeep.step(self._serial if self._segment is not None else None)
        except (sqlite3.Error, OSError, segments.Damaged) as error:
            self.trouble = f"upkeep of the trace store failed: {error}"
            return False

    def close(self) -> None:
        """Put everything on the disk and let go of the store. Twice does no harm."""
        if self._lock.closed:
            return
        if self._segment is not None:
            self._segment.sync()
        self._close_segment()
        self._upkeep.close()
        self._index.close()
        self._lock.close()

    def describe(self) -> str:
        counts = self.counts
        line = f"<Writer {self.folder}: {counts.written:,} written"
        for count, what in (
            (counts.without_content, "without content"),
            (counts.dropped, "dropped"),
            (counts.refused, "refused"),
            (counts.redacted, "redacted"),
        ):
            if count:
                line += f", {count:,} {what}"
        if self.trouble:
            line += f"; {self.trouble}"
        return line + ">"

    __repr__ = describe

    # -- one block

    def _write(self, group: list[bytes], scarce: bool) -> Entry | None:
        payload = segments.pack(group)
        if self._redactor.suspects(payload):
            group = self._cleaned(group)
            payload = segments.pack(group)
        kept, group_rows = self._rows(group)
        if len(kept) < len(group):
            payload = segments.pack(kept)
        if not kept:
            return None
        if not scarce and len(payload) <= segments.MAX_PAYLOAD_BYTES:
            try:
                return self._append(payload, group_rows)
            except OSError as error:
                self.trouble = f"content is not kept: {error}"
        return self._write_bare(kept, group_rows)

    def _write_bare(self, kept: list[bytes], group_rows: list[Row]) -> Entry | None:
        payload = segments.pack([_without_content(record) for record in kept])
        try:
            entry = self._append(payload, group_rows)
        except OSError as error:
            self.counts.dropped += len(kept)
            self.trouble = f"records are dropped: {error}"
            return None
        self.counts.without_content += len(kept)
        return entry

    def _append(self, payload: bytes, group_rows: list[Row]) -> Entry:
        received = [row[_RECEIVED] for row in group_rows]
        segment = self._open_segment()
        frame = self._compress(payload)
        block = segment.append(frame, self._next, len(group_rows), min(received), max(received))
        self._next += block.count
        self._on_rows(group_rows)
        self.counts.written += block.count
        self.counts.raw_bytes += len(payload)
        self.counts.written_bytes += len(frame)
        return Entry(self._serial, block, group_rows)

    def _cleaned(self, group: list[bytes]) -> list[bytes]:
        cleaned = []
        for record in group:
            if self._redactor.suspects(record):
                try:
                    record = records.encode(self._redactor.clean(records.decode(record)))
                except msgspec.MsgspecError:
                    self.counts.refused += 1
                    continue
                self.counts.redacted += 1
            cleaned.append(record)
        return cleaned

    def _rows(self, group: list[bytes]) -> tuple[list[bytes], list[Row]]:
        """The rows of those that are records, and those."""
        first = self._next
        try:
            return group, [rows.row(n, record) for n, record in enumerate(group, first)]
        except msgspec.MsgspecError:
            pass
        kept: list[bytes] = []
        kept_rows = []
        for record in group:
            try:
                kept_rows.append(rows.row(first + len(kept), record))
                kept.append(record)
            except msgspec.MsgspecError:
                self.counts.refused += 1
        return kept, kept_rows

    # -- segments

    def _is_scarce(self) -> bool:
        try:
            return self._free(self.folder) < self._limits.reserve_bytes
        except OSError:
            return False  # the write that follows will say what is wrong

    def _today(self) -> str:
        return datetime.fromtimestamp(self._world.wall_ns() / 1e9, UTC).strftime("%Y%m%d")

    def _open_segment(self) -> Segment:
        """The segment to append to; a new one for a new day or after a full one."""
        today = self._today()
        segment = self._segment
        if segment is not None and (
            self._day != today or segment.size >= self._limits.segment_bytes
        ):
            self._close_segment()
            segment = None
        if segment is None:
            name = segments.name_of(today, self._serial + 1)
            segment = Segment(self.folder / name, self._world.wall_ns())
            self._segment = segment
            self._day = today
            self._serial += 1
            self._note_segment(name)
        return segment

    def _note_segment(self, name: str) -> None:
        try:
            self._index.name_segment(self._serial, name)
        except sqlite3.Error as error:
            self._behind = True
            self.trouble = f"the index cannot be written: {error}"

    def _close_segment(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _catch_up(self) -> None:
        catch_up(self._index, self.folder)
        self._behind = False

    def _resume(self) -> None:
        """Go on where the writer before ended, in its segment if that is today's."""
        files = in_folder(self.folder)
        self._serial = max(files, default=0)
        name = files.get(self._serial, "")
        if not name.startswith(self._today() + "-") or segments.is_sealed(name):
            return
        segment = Segment(self.folder / name, self._world.wall_ns())
        if segment.size == max(self._index.end_of(self._serial), segments.FILE_HEADER_BYTES):
            self._segment = segment
            self._day = self._today()
        else:  # something in it cannot be read: nothing is put behind that
            segment.close()


_RECEIVED = rows.COLUMNS.index("received_ns")


def _groups(batch: Sequence[bytes]) -> Iterator[list[bytes]]:
    """The batch in pieces that are a block each."""
    group: list[bytes] = []
    size = 0
    for record in batch:
        if group and size + len(record) > BLOCK_BYTES:
            yield group
            group, size = [], 0
        group.append(record)
        size += len(record)
    if group:
        yield group


def _without_content(encoded: bytes) -> bytes:
    """The skeleton of a record: every body gone, their sizes kept."""
    return records.encode(restore.bare(records.decode(encoded)))
