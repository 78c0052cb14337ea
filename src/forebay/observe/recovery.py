"""Opening a trace store: index and segments brought together, whatever ended the writer before.

The segments are the truth. What can differ, and what is done:

1. the index lacks the last blocks (the writer was killed between segment and index, or the
   index could not be written, or was deleted): they are read and indexed;
2. a block at the end is torn (killed inside a write): it is cut off;
3. the index knows blocks that the file does not have (a power cut: the index was on the disk,
   the segment's last pages were not): those traces are forgotten;
4. a segment has two files (killed while sealing): the one the index knows is kept;
5. a segment has no file (killed while it was deleted for its age): its traces are forgotten;
6. files of the writer's own making that were never finished: deleted.
"""

import fcntl
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from forebay.errors import Failure
from forebay.observe import segments
from forebay.observe.index import Entry, Index
from forebay.observe.rows import row
from forebay.observe.segments import Block

UNFINISHED = ".unfinished"
"""Suffix of a file that is being made and means nothing until it is renamed."""

#: Blocks indexed in one transaction: 16 MiB of records as they are written, a tenth of a second.
_BLOCKS_AT_ONCE = 64


def opened(folder: Path) -> tuple[BinaryIO, Index]:
    """The store's lock and its index, brought up to date. Raises Failure, OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _locked(folder / "writer.lock")
    try:
        index = Index(folder)
        try:
            recover(index, folder)
        except BaseException:
            index.close()
            raise
    except segments.Damaged as damaged:
        lock.close()
        raise Failure(
            "not_configured",
            f"The trace store cannot be opened: {damaged}.",
            hint="A newer Forebay wrote it, or the file is not ours: move it elsewhere.",
        ) from None
    except BaseException:
        lock.close()
        raise
    return lock, index


def recover(index: Index, folder: Path) -> None:
    """Make index and folder agree. To be called before anything is written.
    Raises OSError, sqlite3.Error, Damaged (a file here is of a newer version)."""
    for path in folder.glob("*" + UNFINISHED):
        path.unlink()
    files = _settle(index, folder)
    for serial, name in index.segments().items():
        if files.get(serial) != name:
            for block in index.blocks(serial):
                index.forget(block.first, block.first + block.count)
            index.forget_segment(serial)
    index.forget_orphans()
    for serial, name in files.items():
        _forget_missing(index, serial, folder / name, thorough=serial == max(files))
    catch_up(index, folder)
    if files:
        _cut_torn(index, max(files), folder / files[max(files)])


def catch_up(index: Index, folder: Path) -> None:
    """Index the blocks that the segments have beyond it.
    Raises OSError, sqlite3.Error, Damaged."""
    known = index.segments()
    for serial, name in sorted(in_folder(folder).items()):
        if serial not in known:
            index.name_segment(serial, name, sealed=segments.is_sealed(name))
        start = index.end_of(serial)
        if (folder / name).stat().st_size <= start:
            continue
        entries: list[Entry] = []
        for block, payload in segments.scan(folder / name, start):
            entries.append(_entry(serial, block, payload))
            if len(entries) >= _BLOCKS_AT_ONCE:
                index.add(entries)
                entries = []
        index.add(entries)


def in_folder(folder: Path) -> dict[int, str]:
    """Segment files by serial number."""
    found = {}
    for path in sorted(folder.glob("*" + segments.SUFFIX)):
        serial = segments.serial_of(path.name)
        if serial is not None:
            found[serial] = path.name
    return found


def _settle(index: Index, folder: Path) -> dict[int, str]:
    """One file a segment: of two, the one the index knows, else the original."""
    known = index.segments()
    files: dict[int, str] = {}
    for path in sorted(folder.glob("*" + segments.SUFFIX)):
        serial = segments.serial_of(path.name)
        if serial is None:
            continue
        rival = files.get(serial)
        if rival is None:
            files[serial] = path.name
            continue
        pair = {path.name, rival}
        keep = known.get(serial)
        if keep not in pair:
            keep = next(name for name in pair if not segments.is_sealed(name))
        (other,) = pair - {keep}
        (folder / other).unlink()
        files[serial] = keep
    return files


def _forget_missing(index: Index, serial: int, path: Path, *, thorough: bool) -> None:
    size = path.stat().st_size
    for block in reversed(index.blocks(serial)):
        if block.end <= size and (not thorough or _is_whole(path, block)):
            return
        index.forget(block.first, block.first + block.count)


def _is_whole(path: Path, block: Block) -> bool:
    try:
        segments.read(path, block)
    except segments.Damaged:
        return False
    return True


def _cut_torn(index: Index, serial: int, path: Path) -> None:
    end = max(index.end_of(serial), segments.FILE_HEADER_BYTES)
    if path.stat().st_size > end:
        segment = segments.Segment(path, 0)
        segment.truncate(end)
        segment.close()


def _entry(serial: int, block: Block, payload: bytes) -> Entry:
    rows = []
    for n, record in enumerate(segments.unpack(payload, block.count), block.first):
        with suppress(msgspec.MsgspecError):  # of a version that nobody reads any more
            rows.append(row(n, record))
    return Entry(serial, block, rows)


def _locked(path: Path) -> BinaryIO:
    """Two writers would put blocks where the other one's index looks for its own. The kernel
    lets go of the lock when the process ends, however it ends."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise Failure(
            "not_configured",
            f"The trace store in {path.parent} is being written by another process.",
            hint="One Forebay writes a data folder: stop the other one, or set FOREBAY_HOME.",
        ) from None
    return file
