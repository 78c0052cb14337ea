"""Given segments that are done, when there is nothing else to do, then they are compressed
properly and deleted in time, and whoever reads meanwhile notices nothing."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forebay.errors import Failure
from forebay.observe import record as records
from forebay.observe import segments
from forebay.observe.query import Reader
from forebay.observe.record import Record
from forebay.observe.upkeep import Retention
from forebay.observe.writer import Writer
from records import Calendar, chat, id_of

#: Room for one day that is not sealed and one or two that are.
MAX_BYTES = 50_000
PROSE = (Path(__file__).parent.parent / "LICENSE").read_text()


def prose(n: int) -> str:
    return PROSE[n * 97 : n * 97 + 4000]


class Store:
    """A writer, the days that pass for it, and a reader that was there before."""

    def __init__(self, folder: Path, retention: Retention) -> None:
        self.folder = folder
        self.world = Calendar()
        self.retention = retention
        self.writer = Writer(folder, self.world, secrets={}, retention=retention)
        self.reader = Reader(folder, self.world.now_ns)
        self.made: list[Record] = []

    def write_day(self, count: int = 6, prompt: Callable[[int], str] = prose) -> None:
        """One day's records, in batches of two."""
        start = len(self.made)
        new = []
        for n in range(start + 1, start + count + 1):
            record = chat(n, prompt=prompt(n))
            record.received_wall_ns = self.world.wall_ns()
            new.append(record)
        for i in range(0, count, 2):
            self.writer.write([records.encode(record) for record in new[i : i + 2]])
        self.made += new
        self.world.pass_days(1)

    def tidy(self) -> int:
        """Everything that is due; how many steps it took."""
        steps = 0
        while self.writer.tidy():
            steps += 1
        self.world.pass_days(1 / 1440)  # looks for work again after a minute
        return steps

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.seg*"))

    def reopen(self) -> None:
        self.writer.close()
        self.writer = Writer(self.folder, self.world, secrets={}, retention=self.retention)

    def close(self) -> None:
        self.writer.close()
        self.reader.close()


Kept = Callable[[Retention], Store]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    """`kept(retention)` opens a store that keeps so much; it is closed at the end."""
    stores = []

    def keep(retention: Retention) -> Store:
        stores.append(Store(tmp_path / "traces", retention))
        return stores[-1]

    yield keep
    for store in stores:
        store.close()


@pytest.fixture
def store(kept: Kept) -> Store:
    return kept(Retention(max_age_s=0, max_bytes=0))


def test_a_finished_segment_is_sealed_smaller_with_the_same_records(store: Store) -> None:
    store.write_day()
    store.write_day()
    (first, _) = sorted(store.folder.glob("*.seg"))
    size = first.stat().st_size

    store.tidy()

    assert store.names() == ["20261125-000001-sealed.seg", "20261126-000002-sealed.seg"]
    sealed = store.folder / "20261125-000001-sealed.seg"
    assert sealed.stat().st_size < size / 2
    assert len(list(segments.scan(sealed))) == 1  # three batches, one block
    assert [store.reader.trace(record.id) for record in store.made] == store.made


def test_the_segment_being_written_is_left_alone(store: Store) -> None:
    store.write_day()
    store.writer.write([records.encode(chat(7))])  # of the second day

    store.tidy()

    assert store.names() == ["20261125-000001-sealed.seg", "20261126-000002.seg"]
    store.writer.write([records.encode(chat(8))])
    assert store.reader.trace(id_of(8)) == chat(8)


def test_sums_survive_sealing(store: Store) -> None:
    store.write_day()
    before = store.reader.overview(60 * 24, store.world.wall_ns())

    store.tidy()

    after = store.reader.overview(60 * 24, store.world.wall_ns() - 60 * 10**9)
    assert after == before
    assert after.requests == 6
    assert after.cost_nusd == 6 * 973_650


def test_a_reader_in_the_middle_of_sealing_reads_on(store: Store) -> None:
    store.write_day()
    line = store.reader.find(id_of(1))

    store.tidy()

    assert store.reader.record(line) == store.made[0]


@pytest.mark.parametrize("steps", range(1, 5))
def test_a_seal_that_was_interrupted_starts_anew(store: Store, steps: int) -> None:
    for _ in range(3):
        store.write_day()
    for _ in range(steps):
        store.writer.tidy()

    store.reopen()
    assert [store.reader.trace(record.id) for record in store.made] == store.made
    store.tidy()

    assert all(name.endswith("-sealed.seg") for name in store.names())
    assert len(store.names()) == 3
    assert [store.reader.trace(record.id) for record in store.made] == store.made


def test_killed_before_the_index_was_told_the_original_counts(store: Store) -> None:
    store.write_day()
    (original,) = store.folder.glob("*.seg")
    data = original.read_bytes()
    sealed = store.folder / segments.sealed_name(original.name)
    sealed.write_bytes(data[: len(data) // 2])  # in place, and then the process died

    store.reopen()

    assert store.names() == [original.name]
    assert store.reader.trace(id_of(1)) == store.made[0]


def test_killed_after_the_index_was_told_the_sealed_one_counts(store: Store) -> None:
    store.write_day()
    (original,) = store.folder.glob("*.seg")
    data = original.read_bytes()
    store.tidy()
    original.write_bytes(data)  # it was not deleted any more

    store.reopen()

    assert store.names() == [segments.sealed_name(original.name)]
    assert store.reader.trace(id_of(1)) == store.made[0]


def test_a_segment_that_cannot_be_read_to_its_end_is_left_as_it_is(store: Store) -> None:
    store.write_day()
    (path,) = store.folder.glob("*.seg")
    blocks = [block for block, _ in segments.scan(path)]
    with path.open("r+b") as file:
        file.seek(blocks[1].offset + 30)
        file.write(os.urandom(30))

    store.tidy()

    assert store.names() == [path.name]
    assert store.reader.trace(id_of(1)) == store.made[0]
    assert store.reader.trace(id_of(6)) == store.made[5]  # behind the damage
    with pytest.raises(Failure, match="is damaged"):
        store.reader.trace(id_of(3))
    assert store.tidy() == 0  # and it is not tried for ever


def test_segments_older_than_the_limit_are_deleted_with_their_rows(kept: Kept) -> None:
    store = kept(Retention(max_age_s=2.5 * 86400, max_bytes=0))
    for _ in range(4):
        store.write_day()

    store.tidy()

    assert [line.id for line in store.reader.traces().lines] == [
        record.id for record in reversed(store.made[12:])
    ]
    assert len(store.names()) == 2
    with pytest.raises(Failure, match="No trace has the id"):
        store.reader.trace(id_of(1))


def test_the_oldest_segments_go_when_all_take_too_much_room(kept: Kept) -> None:
    store = kept(Retention(max_age_s=0, max_bytes=MAX_BYTES))
    for _ in range(4):
        store.write_day(prompt=lambda _: os.urandom(2000).hex())
        store.tidy()

    sizes = [path.stat().st_size for path in store.folder.glob("*.seg")]
    assert 1 < len(sizes) < 4
    assert sum(sizes) <= MAX_BYTES
    assert store.names()[-1].startswith("20261128")
    assert store.reader.trace(store.made[-1].id) == store.made[-1]


def test_a_deletion_that_was_interrupted_is_completed_on_opening(kept: Kept) -> None:
    store = kept(Retention(max_age_s=1.5 * 86400, max_bytes=0))
    for _ in range(3):
        store.write_day()
    store.writer.tidy()  # the first file is gone, its rows are there
    line = store.reader.traces(limit=500).lines[-1]
    assert line.id == id_of(1)
    with pytest.raises(Failure, match="is gone: its segment was deleted"):
        store.reader.record(line)

    store.reopen()

    assert [line.id for line in store.reader.traces().lines] == [
        record.id for record in reversed(store.made[6:])
    ]


def test_numbers_go_on_after_a_deletion(kept: Kept) -> None:
    store = kept(Retention(max_age_s=1, max_bytes=0))
    store.write_day()
    store.tidy()
    assert store.names() == []

    store.write_day()

    assert [line.id for line in store.reader.traces().lines] == [
        record.id for record in reversed(store.made[6:])
    ]


def test_a_day_without_requests_does_not_keep_the_last_segment_open(store: Store) -> None:
    store.write_day()

    store.tidy()

    assert store.names() == ["20261125-000001-sealed.seg"]


def test_nothing_to_do_costs_no_look_at_the_disk_for_a_minute(store: Store) -> None:
    store.write_day()
    while store.writer.tidy():
        pass
    stray = store.folder / "20261125-000009.seg"
    stray.write_bytes(b"")

    assert not store.writer.tidy()
    assert stray.exists()
