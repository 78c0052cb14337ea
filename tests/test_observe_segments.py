"""Given blocks in a segment file, when it is cut or damaged anywhere, then what is read back is
whole blocks and nothing else."""

import os
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from forebay.observe import segments
from forebay.observe.segments import Block, Damaged, Segment
from limits import files_up_to


def frame(records: list[bytes]) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(segments.pack(records))


def written(path: Path, batches: list[list[bytes]]) -> list[Block]:
    segment = Segment(path, created_ns=5)
    blocks = []
    first = 1
    for batch in batches:
        blocks.append(segment.append(frame(batch), first, len(batch), 10 * first, 10 * first + 9))
        first += len(batch)
    segment.close()
    return blocks


BATCHES = [[b"one", b""], [b"three" * 10], [b"four", b"five", os.urandom(40)]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "20261125-000001.seg"


def test_what_was_written_is_read_back(path: Path) -> None:
    blocks = written(path, BATCHES)

    found = [
        (block, [bytes(record) for record in segments.unpack(payload, block.count)])
        for block, payload in segments.scan(path)
    ]

    assert found == list(zip(blocks, BATCHES, strict=True))
    assert [block.first for block in blocks] == [1, 3, 4]
    for block, batch in zip(blocks, BATCHES, strict=True):
        assert segments.unpack(segments.read(path, block), block.count) == batch


def test_a_scan_goes_on_behind_a_block(path: Path) -> None:
    blocks = written(path, BATCHES)

    assert [block for block, _ in segments.scan(path, blocks[0].end)] == blocks[1:]


def test_a_file_cut_anywhere_gives_the_blocks_before_the_cut(path: Path) -> None:
    blocks = written(path, BATCHES)
    data = path.read_bytes()

    for size in range(len(data)):
        path.write_bytes(data[:size])
        whole = [block for block in blocks if block.end <= size]
        assert [block for block, _ in segments.scan(path)] == whole, f"cut at {size}"


def test_a_changed_byte_anywhere_is_never_read_as_a_record(path: Path) -> None:
    blocks = written(path, BATCHES)
    data = path.read_bytes()
    intact = [segments.unpack(payload, block.count) for block, payload in segments.scan(path)]

    for at in range(segments.FILE_HEADER_BYTES, len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        found = [segments.unpack(payload, block.count) for block, payload in segments.scan(path)]
        before = sum(1 for block in blocks if block.end <= at)
        assert found == intact[:before], f"changed at {at}"


def test_a_file_that_is_no_segment_is_refused(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" * 10)

    with pytest.raises(Damaged, match="no segment of version 1"):
        list(segments.scan(path))


def test_a_segment_of_a_newer_version_is_refused(path: Path) -> None:
    written(path, BATCHES)
    data = bytearray(path.read_bytes())
    data[8] = 2
    path.write_bytes(data)

    with pytest.raises(Damaged, match="version 1"):
        list(segments.scan(path))


def test_a_header_cut_by_a_crash_is_written_anew(path: Path) -> None:
    path.write_bytes(b"FBTR")

    blocks = written(path, BATCHES)

    assert [block for block, _ in segments.scan(path)] == blocks


def test_a_segment_opened_again_goes_on_at_its_end(path: Path) -> None:
    blocks = written(path, BATCHES)

    segment = Segment(path, created_ns=6)
    blocks.append(segment.append(frame([b"six"]), 7, 1, 70, 79))
    segment.close()

    assert [block for block, _ in segments.scan(path)] == blocks


def test_a_write_that_fails_half_way_leaves_the_file_as_it_was(path: Path) -> None:
    blocks = written(path, BATCHES)
    segment = Segment(path, created_ns=6)

    # The kernel takes bytes up to the limit, then refuses: what a full disk does.
    with files_up_to(segment.size + 100), pytest.raises(OSError, match="too large"):
        segment.append(frame([os.urandom(400)]), 7, 1, 70, 79)
    blocks.append(segment.append(frame([b"six"]), 7, 1, 70, 79))
    segment.close()

    assert [block for block, _ in segments.scan(path)] == blocks


def test_only_the_owner_can_read_a_segment(path: Path) -> None:
    written(path, BATCHES)

    assert path.stat().st_mode & 0o077 == 0


def test_a_block_that_claims_to_be_huge_is_refused_before_it_is_unpacked(path: Path) -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(segments.MAX_PAYLOAD_BYTES + 1))
    segment = Segment(path, created_ns=5)
    block = segment.append(bomb, 1, 1, 0, 0)
    segment.close()

    with pytest.raises(Damaged, match="over 268435456"):
        segments.read(path, block)


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_packing_and_unpacking_are_inverse(records: list[bytes]) -> None:
    assert segments.unpack(segments.pack(records), len(records)) == records


@given(st.binary(max_size=60), st.integers(0, 20))
def test_unpacking_anything_gives_records_that_fill_it_or_refuses(data: bytes, count: int) -> None:
    try:
        records = segments.unpack(data, count)
    except Damaged:
        return
    assert len(data) == 4 * count + sum(map(len, records))


@given(st.lists(st.lists(st.binary(max_size=9), max_size=5), min_size=1, max_size=4))
def test_joined_payloads_hold_all_their_records(batches: list[list[bytes]]) -> None:
    whole = segments.joined([(segments.pack(batch), len(batch)) for batch in batches])

    everything = [record for batch in batches for record in batch]
    assert segments.unpack(whole, len(everything)) == everything


def test_names_carry_day_and_serial_and_survive_sealing() -> None:
    name = segments.name_of("20261125", 7)

    assert name == "20261125-000007.seg"
    assert segments.serial_of(name) == segments.serial_of(segments.sealed_name(name)) == 7
    assert segments.is_sealed(segments.sealed_name(name))
    assert not segments.is_sealed(name)
    assert segments.serial_of("notes.seg") is None
