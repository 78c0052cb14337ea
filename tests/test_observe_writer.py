"""Given batches of records and whatever may happen to a machine, then every record that was
written is found again, and what was not is counted."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from forebay.errors import Failure
from forebay.observe import record as records
from forebay.observe import segments
from forebay.observe.query import Line, Reader
from forebay.observe.record import Record
from forebay.observe.segments import Segment
from forebay.observe.writer import Limits, Writer
from limits import files_up_to
from records import Calendar, changed, chat, every_kind, id_of, whole

SECRET = b"sk-test-0123456789abcdef"


@pytest.fixture
def world() -> Calendar:
    return Calendar()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "traces"


Opener = Callable[..., Writer]


@pytest.fixture
def opened(folder: Path, world: Calendar) -> Iterator[Opener]:
    """`opened(...)` opens the store, after closing it where it was open."""
    writers: list[Writer] = []

    def open_writer(**settings: object) -> Writer:
        if writers:
            writers.pop().close()
        writer = Writer(folder, world, secrets={"OPENAI_API_KEY": SECRET}, **settings)  # type: ignore[arg-type]
        writers.append(writer)
        return writer

    yield open_writer
    for writer in writers:
        writer.close()


def encoded(*made: Record) -> list[bytes]:
    return [records.encode(record) for record in made]


def chats(first: int, count: int) -> list[Record]:
    return [chat(n) for n in range(first, first + count)]


def reader(folder: Path) -> Reader:
    return Reader(folder, Calendar().now_ns)


def line(folder: Path, n: int) -> Line:
    with closing(reader(folder)) as reading:
        return reading.find(id_of(n))


def trace(folder: Path, n: int) -> Record:
    with closing(reader(folder)) as reading:
        return reading.trace(id_of(n))


def ids(folder: Path) -> list[str]:
    """Of everything in the store, the oldest first."""
    reading = reader(folder)
    found: list[str] = []
    before = None
    while True:
        page = reading.traces(limit=500, before=before)
        found += [line.id for line in page.lines]
        before = page.before
        if before is None:
            reading.close()
            return found[::-1]


def test_every_kind_of_record_comes_back_as_it_was(opened: Opener, folder: Path) -> None:
    writer = opened()
    made = every_kind()

    writer.write(encoded(*made[:4]))
    writer.write(encoded(*made[4:]))

    reading = reader(folder)
    assert [reading.trace(record.id) for record in made] == made
    assert writer.counts.written == len(made)
    assert writer.counts.dropped == writer.counts.refused == 0
    reading.close()


def test_the_row_says_what_the_record_says(opened: Opener, folder: Path) -> None:
    record = chat(7)

    opened().write(encoded(record))

    assert msgspec.structs.asdict(line(folder, 7)) == {
        "n": 1,
        "id": record.id,
        "received_ns": record.received_wall_ns,
        "team": "default",
        "project": "default",
        "key": "key_ops",
        "endpoint": "chat",
        "model": "openai/gpt-5-mini",
        "provider": "openai",
        "used": "gpt-5-mini-2026-08-07",
        "status": 200,
        "outcome": "ok",
        "cache": "miss",
        "tokens_in": 1125,
        "tokens_out": 375,
        "tokens_cached": 256,
        "cost_nusd": 973_650,
        "saved_nusd": 0,
        "ttft_ns": 840_000_000,
        "duration_ns": 841_000_000,
        "attempts": 1,
        "stream": False,
    }


def test_a_large_batch_becomes_several_blocks_of_one_transaction(
    opened: Opener, folder: Path
) -> None:
    made = [chat(n, prompt=os.urandom(30_000).hex()) for n in range(1, 31)]

    opened().write(encoded(*made))

    (path,) = folder.glob("*.seg")
    assert len(list(segments.scan(path))) > 3
    assert ids(folder) == [record.id for record in made]


def test_a_store_opened_again_goes_on_where_it_ended(opened: Opener, folder: Path) -> None:
    for first in (1, 4, 7):
        writer = opened()
        writer.write(encoded(*chats(first, 3)))

    assert ids(folder) == [id_of(n) for n in range(1, 10)]
    assert len(list(folder.glob("*.seg"))) == 1  # the day's segment, gone on with


def test_a_new_day_begins_a_new_segment(opened: Opener, folder: Path, world: Calendar) -> None:
    writer = opened()
    writer.write(encoded(chat(1)))
    world.pass_days(1)
    writer.write(encoded(chat(2)))

    assert [path.name for path in sorted(folder.glob("*.seg"))] == [
        "20261125-000001.seg",
        "20261126-000002.seg",
    ]
    assert ids(folder) == [id_of(1), id_of(2)]


def test_a_full_segment_is_followed_by_another(opened: Opener, folder: Path) -> None:
    writer = opened(limits=Limits(segment_bytes=20_000))
    made = [chat(n, prompt=os.urandom(3_000).hex()) for n in range(1, 13)]
    for record in made:
        writer.write(encoded(record))

    assert len(list(folder.glob("*.seg"))) == 4  # of three records each
    assert ids(folder) == [record.id for record in made]


def test_nothing_is_readable_by_others(opened: Opener, folder: Path) -> None:
    opened().write(encoded(chat()))

    assert folder.stat().st_mode & 0o077 == 0
    assert all(
        path.stat().st_mode & 0o077 == 0
        for path in folder.iterdir()
        if path.name != "writer.lock"  # nothing is in it
    )


# -- secrets


def test_planted_secrets_reach_no_file(opened: Opener, folder: Path) -> None:
    gateway_key = "fb_" + "aB3" * 17
    record = chat(1, prompt=f"keys: {SECRET.decode()} {gateway_key}")
    asked = changed(chat(2), model=SECRET.decode(), error=gateway_key)
    writer = opened()

    writer.write(encoded(record, asked, chat(3)))
    writer.close()

    # Random bytes around it, so that the frame holds the text as it is: a canary that is there
    # would be seen.
    for path in folder.iterdir():
        data = path.read_bytes()
        assert SECRET not in data
        assert gateway_key.encode() not in data
    for path in folder.glob("*.seg"):
        for _, payload in segments.scan(path):
            assert SECRET not in payload
            assert gateway_key.encode() not in payload
            assert b"[secret:OPENAI_API_KEY] [secret:gateway-key]" in payload
    assert line(folder, 2).model == "[secret:OPENAI_API_KEY]"


def test_records_with_secrets_are_counted(opened: Opener) -> None:
    writer = opened()

    writer.write(encoded(chat(1, prompt=SECRET.decode()), chat(2)))

    assert (writer.counts.redacted, writer.counts.written) == (1, 2)


# -- what is no record


@pytest.mark.parametrize("junk", [b"", b"\xc1", b"\x93\x01\x02\x03", b"{}", b"\xdc\x00\x23\x01"])
def test_what_is_no_record_is_refused_and_spoils_nothing(
    opened: Opener, folder: Path, junk: bytes
) -> None:
    writer = opened()

    writer.write([*encoded(chat(1)), junk, *encoded(chat(2))])
    writer.write([junk])

    assert (writer.counts.written, writer.counts.refused) == (2, 2)
    assert ids(folder) == [id_of(1), id_of(2)]


def test_numbers_that_sqlite_cannot_hold_are_brought_down_to_what_it_can(
    opened: Opener, folder: Path
) -> None:
    record = chat(1)
    usage = msgspec.structs.replace(record.usage, output_tokens=(1 << 64) - 1)  # type: ignore[type-var]

    opened().write(encoded(changed(record, usage=usage), chat(2)))

    assert line(folder, 1).tokens_out == (1 << 63) - 1
    assert ids(folder) == [id_of(1), id_of(2)]


def test_a_model_name_without_end_does_not_fill_the_index(opened: Opener, folder: Path) -> None:
    opened().write(encoded(changed(chat(1), model="m" * 1_000_000)))

    assert len(line(folder, 1).model) == 200
    assert len(trace(folder, 1).model) == 1_000_000


# -- crashes


WRITING = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from forebay.observe import record as records
from forebay.observe.writer import Writer
from records import Calendar, chat
writer = Writer(Path({folder!r}), Calendar(), secrets={{}})
n = {first}
while True:
    writer.write([records.encode(chat(i)) for i in range(n, n + 5)])
    n += 5
    print(n, flush=True)
"""


def test_kill_9_loses_nothing_that_was_written_and_leaves_a_store_that_goes_on(
    opened: Opener, folder: Path
) -> None:
    first = 1
    for rounds in (1, 7, 40):
        script = WRITING.format(tests=str(Path(__file__).parent), folder=str(folder), first=first)
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(rounds):
                returned = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
        opened().close()

        found = ids(folder)
        assert len(found) >= returned - 1
        assert found == [id_of(n) for n in range(1, len(found) + 1)]
        first = len(found) + 1


def test_a_torn_block_is_cut_off_and_written_over(opened: Opener, folder: Path) -> None:
    writer = opened()
    writer.write(encoded(*chats(1, 3)))
    writer.close()
    (path,) = folder.glob("*.seg")
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"BLK\n" + os.urandom(200))

    writer = opened()

    assert path.stat().st_size == size
    writer.write(encoded(chat(4)))
    assert ids(folder) == [id_of(n) for n in range(1, 5)]


def test_blocks_that_the_index_lacks_are_indexed_on_opening(opened: Opener, folder: Path) -> None:
    writer = opened()
    writer.write(encoded(*chats(1, 3)))
    writer.close()
    (path,) = folder.glob("*.seg")
    frame = writer._compress(segments.pack(encoded(chat(4), chat(5))))
    segment = Segment(path, 0)
    segment.append(frame, 4, 2, 0, 0)  # and here the process died
    segment.close()

    opened()

    assert ids(folder) == [id_of(n) for n in range(1, 6)]


def test_an_index_that_was_deleted_is_made_anew(
    opened: Opener, folder: Path, world: Calendar
) -> None:
    writer = opened()
    writer.write(encoded(*chats(1, 3)))
    world.pass_days(1)
    writer.write(encoded(*chats(4, 3)))
    before = [line(folder, n) for n in range(1, 7)]
    writer.close()
    for path in folder.glob("index.db*"):
        path.unlink()

    opened()

    assert [line(folder, n) for n in range(1, 7)] == before


def test_an_index_ahead_of_its_segment_forgets_what_the_disk_never_got(
    opened: Opener, folder: Path
) -> None:
    writer = opened()
    writer.write(encoded(*chats(1, 3)))
    (path,) = folder.glob("*.seg")
    size = path.stat().st_size
    writer.write(encoded(*chats(4, 3)))
    writer.close()
    os.truncate(path, size)  # a power cut: pages that were not on the disk

    writer = opened()

    assert ids(folder) == [id_of(n) for n in range(1, 4)]
    writer.write(encoded(chat(9)))
    assert ids(folder)[-1] == id_of(9)
    assert trace(folder, 9) == chat(9)


def test_a_last_block_of_zeros_is_forgotten(opened: Opener, folder: Path) -> None:
    writer = opened()
    writer.write(encoded(*chats(1, 3)))
    (path,) = folder.glob("*.seg")
    size = path.stat().st_size
    writer.write(encoded(chat(4)))
    writer.close()
    whole_size = path.stat().st_size
    os.truncate(path, size)
    os.truncate(path, whole_size)  # its size was on the disk, its bytes were not

    opened()

    assert ids(folder) == [id_of(n) for n in range(1, 4)]


def test_traces_of_a_segment_that_is_gone_are_forgotten(
    opened: Opener, folder: Path, world: Calendar
) -> None:
    writer = opened()
    writer.write(encoded(*chats(1, 3)))
    world.pass_days(1)
    writer.write(encoded(*chats(4, 3)))
    writer.close()
    min(folder.glob("*.seg")).unlink()

    opened()

    assert ids(folder) == [id_of(n) for n in range(4, 7)]


def test_a_second_writer_is_refused_while_the_first_is_there(
    opened: Opener, folder: Path, world: Calendar
) -> None:
    opened()

    with pytest.raises(Failure, match="is being written by another process"):
        Writer(folder, world, secrets={})


def test_a_store_of_a_newer_forebay_is_refused(opened: Opener, folder: Path) -> None:
    opened().close()
    with sqlite3.connect(folder / "index.db") as sql:
        sql.execute("INSERT INTO migrations VALUES (99, '0099_later.sql', '')")
    sql.close()

    with pytest.raises(Failure, match="this Forebay knows"):
        opened()


# -- full disks


def test_little_room_drops_content_and_keeps_the_skeleton(opened: Opener, folder: Path) -> None:
    room = [1 << 40]
    writer = opened(free=lambda _: room[0])
    writer.write(encoded(chat(1)))
    room[0] = 1 << 20

    writer.write(encoded(chat(2)))

    bare = trace(folder, 2)
    assert (bare.body.form, bare.body.data, bare.body.size) == ("off", b"", chat(2).body.size)
    assert bare.cost_nusd == chat(2).cost_nusd
    assert trace(folder, 1) == chat(1)
    assert (writer.counts.written, writer.counts.without_content) == (2, 1)
    assert "the disk is nearly full: content is not kept" in writer.describe()

    room[0] = 1 << 40
    writer.write(encoded(chat(3)))
    assert trace(folder, 3) == chat(3)
    assert "full" not in writer.describe()


def test_a_block_that_does_not_fit_is_written_without_content(opened: Opener, folder: Path) -> None:
    writer = opened()
    writer.write(encoded(big(1)))
    (path,) = folder.glob("*.seg")

    with files_up_to(path.stat().st_size + 10_000):
        writer.write(encoded(big(2), big(3)))

    assert trace(folder, 2).body.form == "off"
    assert (writer.counts.written, writer.counts.without_content) == (3, 2)
    assert "too large" in writer.trouble


def test_what_cannot_be_written_at_all_is_dropped_and_counted(opened: Opener, folder: Path) -> None:
    writer = opened()
    writer.write(encoded(big(1)))
    (path,) = folder.glob("*.seg")

    with files_up_to(path.stat().st_size + 10):
        writer.write(encoded(big(2), big(3)))
    writer.write(encoded(big(4)))

    assert ids(folder) == [id_of(1), id_of(4)]
    assert (writer.counts.written, writer.counts.dropped) == (2, 2)


def big(n: int) -> Record:
    """Random, so that it stays big when compressed; bigger than the index's files get here."""
    return changed(chat(n), body=whole(os.urandom(3_000_000)))


def test_records_that_the_index_could_not_take_are_given_to_it_later(
    opened: Opener, folder: Path
) -> None:
    writer = opened()
    writer.write(encoded(chat(1)))
    wal = (folder / "index.db-wal").stat().st_size

    with files_up_to(wal + 100):  # the segment is far smaller and goes on
        writer.write(encoded(*chats(2, 3)))
        assert "the index cannot be written" in writer.trouble
        assert writer.counts.written == 4
        writer.write(encoded(chat(5)))
    assert ids(folder) == [id_of(1)]

    writer.write(encoded(chat(6)))

    assert ids(folder) == [id_of(n) for n in range(1, 7)]
    assert writer.trouble == ""


def test_a_segment_begun_while_the_index_was_stuck_is_indexed_too(
    opened: Opener, folder: Path, world: Calendar
) -> None:
    writer = opened()
    writer.write(encoded(chat(1)))
    wal = (folder / "index.db-wal").stat().st_size
    with files_up_to(wal + 100):
        world.pass_days(1)
        writer.write(encoded(chat(2)))

    writer.write(encoded(chat(3)))

    assert ids(folder) == [id_of(n) for n in range(1, 4)]
    assert len(list(folder.glob("*.seg"))) == 2


def test_describe_is_one_line_of_what_happened(opened: Opener, folder: Path) -> None:
    writer = opened()
    writer.write([*encoded(chat(1, prompt=SECRET.decode())), b"junk"])

    assert repr(writer) == f"<Writer {folder}: 1 written, 1 refused, 1 redacted>"
