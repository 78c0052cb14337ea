"""Segment files: where records are kept, in blocks that are whole or not there.

A segment is a header and blocks, only ever appended to:

    "FBTRACE\\n"  version u16 · flags u16 · reserved u32 · created u64 · reserved 8      32 bytes
    "BLK\\n"      crc u32 · length u32 · count u32 · first u64 · oldest u64 · newest u64
                  · tenant 16                                                           56 bytes
    frame         `length` bytes: one zstd frame of a payload
    "BLK\\n"      …

All integers are little-endian. `crc` is the CRC-32 of the header's bytes behind it, which
guards the length that is about to be trusted. The frame carries zstd's own content checksum
(XXH64): CRC-32 of 7 KB costs 3 µs here, XXH64 0.6, and either finds a torn block. `first` is
the number of the block's first record; numbers run on without gaps, so an index can be made
anew from segments alone. `tenant` is zeros: room for the project and the data key of
segments that belong to one project.

A payload is `count` lengths (u32 each), then the records, back to back.

After a crash a segment may end in a torn block. `scan` stops at the first block that is not
whole; whatever lies behind it is cut off by the writer when it opens the file. Nothing here
calls fsync but `Segment.sync`: a killed process loses nothing that was written, a power cut
loses what the kernel had not put on the disk.
"""

import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import zstandard

VERSION = 1
SUFFIX = ".seg"

#: A payload is closed at this many bytes of records: it stays in a core's cache while it is
#: searched, compressed and written, and no memory is mapped anew for each.
BLOCK_BYTES = 256 << 10
#: The most a block may unpack to, against a damaged header: the largest body a provider
#: documents, both wires, headroom.
MAX_PAYLOAD_BYTES = 256 << 20

_FILE_HEADER = struct.Struct("<8sHHIQ8x")
_FILE_MAGIC = b"FBTRACE\n"
FILE_HEADER_BYTES = _FILE_HEADER.size
_BLOCK_HEADER = struct.Struct("<4sIIIQQQ16s")
_BLOCK_MAGIC = b"BLK\n"
_CRC_BEHIND = 8  # the CRC covers the header from here on
_NAME = re.compile(r"([0-9]{8})-([0-9]{6,})(?:-sealed)?\.seg")


class Damaged(Exception):
    """A block is not what was written. The message says where and how."""


class Block(msgspec.Struct, frozen=True, gc=False):
    """Where a block stands and what it covers: records first … first + count - 1.

    `oldest_ns` and `newest_ns` bound when its requests were received, wall clock.
    """

    first: int
    count: int
    offset: int  # of the frame, not of its header
    length: int  # of the frame
    oldest_ns: int
    newest_ns: int

    @property
    def end(self) -> int:
        return self.offset + self.length


def name_of(day: str, serial: int) -> str:
    """The file name of a segment: `20261125-000007.seg`. Serial numbers go up with age."""
    return f"{day}-{serial:06d}{SUFFIX}"


def sealed_name(name: str) -> str:
    """The name of the same segment, sealed."""
    return name.removesuffix(SUFFIX) + "-sealed" + SUFFIX


def is_sealed(name: str) -> bool:
    return name.endswith("-sealed" + SUFFIX)


def serial_of(name: str) -> int | None:
    """The serial number in a segment's file name; None where it is no segment's name."""
    match = _NAME.fullmatch(name)
    return int(match[2]) if match else None


def pack(records: Sequence[bytes]) -> bytes:
    """Records as one payload. Sync, ~0.3 µs for a record of 7 KB."""
    count = len(records)
    return struct.pack(f"<{count}I", *map(len, records)) + b"".join(records)


def joined(payloads: Sequence[tuple[bytes, int]]) -> bytes:
    """Several payloads, each with its number of records, as one."""
    lengths = [payload[: 4 * count] for payload, count in payloads]
    return b"".join(lengths + [payload[4 * count :] for payload, count in payloads])


def unpack(payload: bytes, count: int) -> list[memoryview]:
    """The records of a payload, as views into it. Raises Damaged."""
    if len(payload) < 4 * count:
        raise Damaged(f"a payload of {len(payload)} bytes cannot hold {count} records")
    at = 4 * count
    view = memoryview(payload)
    records = []
    for length in struct.unpack_from(f"<{count}I", payload):
        records.append(view[at : at + length])
        at += length
    if at != len(payload):
        raise Damaged(f"the records of a payload take {at} bytes, it has {len(payload)}")
    return records


class Segment:
    """A segment being written. One thread; the caller decides when it is full."""

    def __init__(self, path: Path, created_ns: int) -> None:
        """Opens for appending and makes the file where there is none, readable by its owner
        alone. Raises OSError."""
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self._file).st_size
        if self.size < _FILE_HEADER.size:
            os.ftruncate(self._file, 0)
            self.size = 0
            self._write([_FILE_HEADER.pack(_FILE_MAGIC, VERSION, 0, 0, created_ns)])

    def append(self, frame: bytes, first: int, count: int, oldest_ns: int, newest_ns: int) -> Block:
        """Write one block. Raises OSError (a full disk is one), with the file as it was."""
        covered = _BLOCK_HEADER.pack(
            _BLOCK_MAGIC, 0, len(frame), count, first, oldest_ns, newest_ns, b""
        )[_CRC_BEHIND:]
        head = _BLOCK_MAGIC + zlib.crc32(covered).to_bytes(4, "little") + covered
        offset = self.size + _BLOCK_HEADER.size
        self._write([head, frame])
        return Block(first, count, offset, len(frame), oldest_ns, newest_ns)

    def truncate(self, size: int) -> None:
        """Cut off what lies behind `size`: a torn block."""
        os.ftruncate(self._file, size)
        self.size = size

    def sync(self) -> None:
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def _write(self, parts: list[bytes]) -> None:
        whole = sum(map(len, parts))
        try:
            written = os.writev(self._file, parts)
            if written < whole:  # files take all or fail at the next byte: make it say why
                written += os.write(self._file, b"".join(parts)[written:])
            if written < whole:
                raise OSError(f"{self.path} took {written} of {whole} bytes")
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size += whole

    def __repr__(self) -> str:
        return f"<Segment {self.path.name} {self.size:,} bytes>"


def scan(path: Path, start: int = 0) -> Iterator[tuple[Block, bytes]]:
    """Whole blocks with their payloads, from the block whose header is at `start` (0: the
    first), up to the end or to the first that is not whole. Raises Damaged where the file is
    no segment of this version, OSError where it cannot be read."""
    unpacker = zstandard.ZstdDecompressor()
    with path.open("rb") as file:
        head = file.read(_FILE_HEADER.size)
        if len(head) < _FILE_HEADER.size:
            return  # a crash before the header was whole: an empty segment
        magic, version, *_ = _FILE_HEADER.unpack(head)
        if magic != _FILE_MAGIC or version > VERSION:
            raise Damaged(f"{path} is no segment of version {VERSION} or older")
        file.seek(max(start, _FILE_HEADER.size))
        while (head := file.read(_BLOCK_HEADER.size)) and len(head) == _BLOCK_HEADER.size:
            magic, crc, length, count, first, oldest, newest, _ = _BLOCK_HEADER.unpack(head)
            if magic != _BLOCK_MAGIC or zlib.crc32(head[_CRC_BEHIND:]) != crc:
                return
            block = Block(first, count, file.tell(), length, oldest, newest)
            try:
                yield block, _payload(unpacker, file.read(length), path, block)
            except Damaged:
                return


def read(path: Path, block: Block) -> bytes:
    """The payload of one block. Raises Damaged, or OSError where the file is gone."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        frame = os.pread(file, block.length, block.offset)
    finally:
        os.close(file)
    return _payload(zstandard.ZstdDecompressor(), frame, path, block)


def _payload(unpacker: zstandard.ZstdDecompressor, frame: bytes, path: Path, block: Block) -> bytes:
    where = f"{path.name} at {block.offset}"
    if len(frame) < block.length:
        raise Damaged(f"{where}: the file ends inside the block")
    try:
        size = zstandard.frame_content_size(frame)
        if size > MAX_PAYLOAD_BYTES:
            raise Damaged(f"{where}: a block of {size} bytes, over {MAX_PAYLOAD_BYTES}")
        if size < 4 * block.count:  # zstd looks no further where a frame claims to be empty
            raise Damaged(f"{where}: {size} bytes cannot hold {block.count} records")
        return unpacker.decompress(frame, max_output_size=MAX_PAYLOAD_BYTES)
    except zstandard.ZstdError as error:
        raise Damaged(f"{where}: {error}") from error
