"""What can wait: segments compressed properly, and old ones deleted.

Both are done in steps of about 10 ms, so that whoever has a batch never waits long.

*Sealing* writes a finished segment once more: blocks gathered to 1 MiB, compressed at a level
that would be too dear while requests wait. The new file is put in place whole (written,
synced, renamed), then the index is told in one transaction, then the old file goes; a crash
anywhere between leaves one that counts (`recovery`). A segment that can't be read to its end
is left as it is.

*Retention* deletes the oldest segments by age and by bytes: the file first, then its rows a
few thousand at a time. The other way round a crash would bring the rows back.
"""

import os
from pathlib import Path

import msgspec
import zstandard

from forebay.observe import segments
from forebay.observe.index import Index
from forebay.observe.recovery import UNFINISHED, in_folder
from forebay.observe.segments import Block, Segment
from forebay.world import World

#: About 35 µs for 7 KB of prose, a third of its size (docs/decisions/0005-trace-store.md).
SEAL_LEVEL = 3
#: Blocks are gathered to this size: what is said in every prompt is then kept once in so many.
#: Reading one trace unpacks one block, 1 ms.
SEALED_BYTES = 1 << 20
_ROWS_A_STEP = 4096
_CHECK_EVERY_NS = 60 * 1_000_000_000


class Retention(msgspec.Struct, frozen=True):
    """What is kept. A bound of 0 keeps everything as far as that bound goes."""

    max_age_s: float = 14 * 86400
    max_bytes: int = 20 << 30


RETENTION = Retention()


class Upkeep:
    """Retention and sealing of one store, step by step. The writer's thread."""

    def __init__(self, index: Index, folder: Path, world: World, retention: Retention) -> None:
        self._index = index
        self._folder = folder
        self._world = world
        self._retention = retention
        self._seal: Seal | None = None
        self._going: tuple[int, int, int] | None = None  # serial, rows first … end
        self._next_check_ns = 0

    def step(self, current: int | None) -> bool:
        """One piece of work; whether there may be more. `current` is the serial number of the
        segment that is being written, never touched. Raises OSError, sqlite3.Error, Damaged."""
        if self._going is not None:
            self._forget_some(*self._going)
            return True
        if self._seal is not None:
            if self._seal.step():
                self._seal = None
            return True
        now = self._world.now_ns()
        if now < self._next_check_ns:
            return False
        if self._delete_one(current) or self._begin_seal(current):
            return True
        self._next_check_ns = now + _CHECK_EVERY_NS
        return False

    def close(self) -> None:
        """A seal that is under way is given up: it starts anew next time."""
        if self._seal is not None:
            self._seal.abandon()
            self._seal = None

    def _delete_one(self, current: int | None) -> bool:
        files = in_folder(self._folder)
        sizes = {serial: (self._folder / name).stat().st_size for serial, name in files.items()}
        oldest = min((serial for serial in files if serial != current), default=None)
        if oldest is None:
            return False
        first, end, newest_ns = self._index.extent(oldest)
        age_s = (self._world.wall_ns() - newest_ns) / 1e9
        too_old = 0 < self._retention.max_age_s < age_s
        too_much = 0 < self._retention.max_bytes < sum(sizes.values())
        if not (too_old or too_much):
            return False
        (self._folder / files[oldest]).unlink()
        self._going = (oldest, first, end)
        return True

    def _forget_some(self, serial: int, first: int, end: int) -> None:
        stop = min(first + _ROWS_A_STEP, end)
        self._index.forget(first, stop)
        if stop < end:
            self._going = (serial, stop, end)
        else:
            self._index.forget_segment(serial)
            self._going = None

    def _begin_seal(self, current: int | None) -> bool:
        for serial, name in self._index.unsealed().items():
            if serial != current:
                self._seal = Seal(self._index, self._folder, serial, name, self._world.wall_ns())
                return True
        return False


class Seal:
    """One segment being written anew."""

    def __init__(self, index: Index, folder: Path, serial: int, name: str, now_ns: int) -> None:
        self._index = index
        self._serial = serial
        self._source = folder / name
        self._name = segments.sealed_name(name)
        self._unfinished = folder / (self._name + UNFINISHED)
        self._due = sum(block.count for block in index.blocks(serial))
        self._blocks = segments.scan(self._source)
        self._held: list[tuple[Block, bytes]] = []
        self._held_bytes = 0
        self._written: list[Block] = []
        self._target = Segment(self._unfinished, now_ns)
        self._compress = zstandard.ZstdCompressor(level=SEAL_LEVEL, write_checksum=True).compress

    def step(self) -> bool:
        """Gather and write one block, or finish; whether it is done."""
        for block, payload in self._blocks:
            if self._held and self._held_bytes + len(payload) > SEALED_BYTES:
                self._write()
                self._hold(block, payload)
                return False
            self._hold(block, payload)
        self._write()
        self._finish()
        return True

    def abandon(self) -> None:
        self._target.close()
        self._unfinished.unlink()

    def _hold(self, block: Block, payload: bytes) -> None:
        self._held.append((block, payload))
        self._held_bytes += len(payload)

    def _write(self) -> None:
        if not self._held:
            return
        blocks = [block for block, _ in self._held]
        frame = self._compress(
            segments.joined([(payload, block.count) for block, payload in self._held])
        )
        self._written.append(
            self._target.append(
                frame,
                blocks[0].first,
                sum(block.count for block in blocks),
                min(block.oldest_ns for block in blocks),
                max(block.newest_ns for block in blocks),
            )
        )
        self._held = []
        self._held_bytes = 0

    def _finish(self) -> None:
        if sum(block.count for block in self._written) != self._due:
            # Part of it is unreadable, or not indexed: what is there stays as it is.
            self.abandon()
            self._index.name_segment(self._serial, self._source.name, sealed=True)
            return
        self._target.sync()
        self._target.close()
        os.replace(self._unfinished, self._source.with_name(self._name))
        self._index.move(self._serial, self._name, self._written)
        self._source.unlink()
