"""Given a store with traces, when it is asked for some, then those come, the newest first, a page
at a time, however many others there are."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import cycle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.errors import Failure
from forebay.observe import index, query, search
from forebay.observe import record as records
from forebay.observe.query import Filter, Line, Reader
from forebay.observe.record import Record
from forebay.observe.writer import Writer
from records import (
    MS,
    NOON_NS,
    Calendar,
    cache_hit,
    changed,
    chat,
    every_kind,
    id_of,
    messages,
    unreachable,
)

Filled = Callable[[list[Record]], Reader]


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Filled]:
    """`filled(records)` is a reader of a store that holds them, written two at a time."""
    readers = []

    def fill(made: list[Record]) -> Reader:
        folder = tmp_path / "traces"
        writer = Writer(folder, Calendar(), secrets={})
        for i in range(0, len(made), 2):
            writer.write([records.encode(record) for record in made[i : i + 2]])
        writer.close()
        readers.append(Reader(folder, Calendar().now_ns))
        return readers[-1]

    yield fill
    for reader in readers:
        reader.close()


def ids(lines: list[Line]) -> list[str]:
    return [line.id for line in lines]


def test_pages_follow_each_other_without_gap_or_repetition(filled: Filled) -> None:
    reader = filled([chat(n) for n in range(1, 12)])

    pages = [reader.traces(limit=4)]
    while pages[-1].before is not None:
        pages.append(reader.traces(limit=4, before=pages[-1].before))

    assert [len(page.lines) for page in pages] == [4, 4, 3]
    assert [i for page in pages for i in ids(page.lines)] == [id_of(n) for n in range(11, 0, -1)]


def test_a_last_page_that_is_full_says_that_nothing_follows(filled: Filled) -> None:
    reader = filled([chat(n) for n in range(1, 5)])

    assert reader.traces(limit=4).before is None


@pytest.mark.parametrize("limit", [-5, 0])
def test_a_page_holds_at_least_one_trace(filled: Filled, limit: int) -> None:
    assert ids(filled([chat(1), chat(2)]).traces(limit=limit).lines) == [id_of(2)]


def test_a_store_without_traces_is_an_empty_page(filled: Filled) -> None:
    reader = filled([])

    assert reader.traces() == query.Page([], None)
    assert reader.overview(60, NOON_NS).requests == 0
    assert reader.choices("project") == reader.choices("model") == []


FILTERS = {
    "nothing": (Filter(), range(11, 0, -1)),
    "a project": (Filter(project="research"), [4, 3]),
    "a model": (Filter(model="claude-haiku-5-5"), [4, 3]),
    "what went well": (Filter(outcome="ok"), [7, 6, 5, 4, 3, 2, 1]),
    "what failed": (Filter(outcome="failed"), [10, 9, 8]),
    "one way to fail": (Filter(outcome="provider_timeout"), [8]),
    "what callers left": (Filter(outcome="cancelled"), [11]),
    "hits": (Filter(cache="exact"), [6]),
    "a part of a model's name": (Filter(text="HAIKU"), [5, 4, 3]),
    "a part of an id": (Filter(text=id_of(9)[10:]), [9]),
    "a time": (Filter(since_ns=NOON_NS + 9 * 40 * MS), [11, 10, 9]),
    "several at once": (Filter(project="default", cache="miss", outcome="ok"), [7, 5, 1]),
    "what nobody is": (Filter(project="nobody"), []),
    "signs that SQL knows": (Filter(text="%"), []),
    "a sign that LIKE knows": (Filter(text="req!_"), []),
    "an underscore, as it is": (Filter(text="req_"), range(11, 0, -1)),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_lets_through_what_it_names(filled: Filled, name: str) -> None:
    want, expected = FILTERS[name]

    page = filled(every_kind()).traces(want)

    assert ids(page.lines) == [id_of(n) for n in expected]
    assert page.before is None
    assert not page.cut_short


def test_a_filter_pages_too(filled: Filled) -> None:
    reader = filled([messages(n) if n % 3 == 0 else chat(n) for n in range(1, 20)])
    want = Filter(project="research")

    first = reader.traces(want, limit=2)
    second = reader.traces(want, limit=2, before=first.before)

    assert ids(first.lines + second.lines) == [id_of(n) for n in (18, 15, 12, 9)]


def test_a_trace_that_took_long_is_found_by_when_it_was_received(filled: Filled) -> None:
    # Received first, written last: a long stream. Its block is newer than its time.
    late = changed(chat(1), received_wall_ns=NOON_NS)
    reader = filled([chat(2), chat(3), late])

    assert ids(reader.traces(Filter(since_ns=NOON_NS)).lines) == [id_of(1), id_of(3), id_of(2)]
    assert id_of(1) not in ids(reader.traces(Filter(since_ns=NOON_NS + 1)).lines)


def test_a_search_that_takes_too_long_says_how_far_it_came(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    writer = Writer(folder, Calendar(), secrets={})
    small = records.encode(chat(1, prompt="", answer=""))
    writer.write([small] * 10_000)
    writer.close()
    ticks = iter(range(0, 10**12, query.SEARCH_NS))  # every look at the clock is 50 ms later
    reader = Reader(folder, lambda: next(ticks))

    page = reader.traces(Filter(text="nowhere"))

    assert page.lines == []
    assert page.cut_short
    assert page.before is not None
    assert 1 < page.before < 10_000
    pages = [page]
    while (before := pages[-1].before) is not None:
        pages.append(reader.traces(Filter(text="nowhere"), before=before))
    assert [page.cut_short for page in pages] == [True, True, False]
    reader.close()


# -- one trace


def test_a_trace_is_found_by_the_beginning_of_its_id(filled: Filled) -> None:
    reader = filled([chat(n) for n in range(1, 4)])

    assert reader.trace(id_of(2)[:24]) == chat(2)
    assert reader.trace(f"  {id_of(2)}\n") == chat(2)


def test_a_beginning_of_several_ids_names_them(filled: Filled) -> None:
    reader = filled([changed(chat(n), id=f"req_0123456{n}") for n in range(1, 4)])

    with pytest.raises(Failure, match="req_01234561, req_01234562, req_01234563"):
        reader.find("req_0123456")


@pytest.mark.parametrize("wanted", ["", "req_", "nonsense", "%", "req_000000%", "'; DROP TABLE"])
def test_an_unknown_id_is_a_clear_failure(filled: Filled, wanted: str) -> None:
    with pytest.raises(Failure, match="No trace has the id") as caught:
        filled([chat(1)]).find(wanted)

    assert caught.value.code.status == 404


def test_ids_are_found_in_complete_runs_and_after_them(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    writer = Writer(folder, Calendar(), secrets={})
    made = chat(1, prompt="", answer="")
    total = 2 * index.RUN_ROWS + 100
    for start in range(1, total, 8192):
        batch = []
        for n in range(start, min(start + 8192, total)):
            made.id = id_of(n)
            batch.append(records.encode(made))
        writer.write(batch)
    reader = Reader(folder, Calendar().now_ns)

    for n in (1, index.RUN_ROWS - 1, index.RUN_ROWS, 2 * index.RUN_ROWS, total - 1):
        assert reader.find(id_of(n)).n == n
        assert reader.find(id_of(n)[:20]).n == n
    with sqlite3.connect(folder / index.NAME) as sql:
        ((runs,),) = sql.execute("SELECT count(*) FROM runs")
        ((sorted_ids,),) = sql.execute("SELECT count(*) FROM ids")
    sql.close()
    # A run is complete when all its numbers are taken; number 0 never is.
    assert (runs, sorted_ids) == (2, 2 * index.RUN_ROWS - 1)
    reader.close()
    writer.close()


def test_no_store_is_a_clear_failure(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="There is no trace store in"):
        Reader(tmp_path, Calendar().now_ns).traces()


def test_a_damaged_index_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / index.NAME).write_bytes(b"not a database" * 100)

    with pytest.raises(Failure, match="made anew from the segments"):
        Reader(tmp_path, Calendar().now_ns).traces()


def test_a_reader_sees_what_is_written_after_it_opened(tmp_path: Path) -> None:
    writer = Writer(tmp_path, Calendar(), secrets={})
    reader = Reader(tmp_path, Calendar().now_ns)
    assert reader.traces().lines == []

    writer.write([records.encode(chat(1))])

    assert ids(reader.traces().lines) == [id_of(1)]
    reader.close()
    writer.close()


def test_a_reader_cannot_write(filled: Filled) -> None:
    reader = filled([chat(1)])

    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection().execute("DELETE FROM traces")


# -- figures


def test_the_overview_adds_up_what_was_recorded(filled: Filled) -> None:
    made = every_kind()
    overview = filled(made).overview(60, NOON_NS + 60 * 10**9)

    assert overview.requests == 11
    assert overview.failed == 3
    assert overview.cancelled == 1
    assert overview.hits == 1
    assert overview.cost_nusd == sum(record.cost_nusd or 0 for record in made)
    assert overview.saved_nusd == cache_hit().saved_nusd
    assert overview.ttft_p50_ns == 421 * MS
    assert overview.ttft_p95_ns == 30_001 * MS


def test_the_overview_looks_back_no_further_than_asked(filled: Filled) -> None:
    old = changed(chat(1), received_wall_ns=NOON_NS - 3600 * 10**9)
    reader = filled([old, old, chat(2)])

    assert reader.overview(30, NOON_NS + 10**9).requests == 1
    assert reader.overview(120, NOON_NS + 10**9).requests == 3


def test_choices_are_the_names_that_requests_were_answered_for(filled: Filled) -> None:
    reader = filled([*every_kind(), changed(unreachable(20), model="made-up", project="made-up")])

    assert reader.choices("project") == ["default", "research"]
    assert reader.choices("model") == [
        "anthropic/claude-haiku-5-5",
        "claude-haiku-5-5",
        "gpt-5-mini",
        "openai/gpt-5-mini",
    ]


# -- how it is found


def plan(reader: Reader, sql: str, *values: object) -> str:
    found = reader._connection().execute("EXPLAIN QUERY PLAN " + sql, values)
    return "; ".join(row[-1] for row in found)


@pytest.mark.parametrize(
    "want",
    [Filter(), Filter(project="research", model="m", outcome="failed", cache="exact", since_ns=1)],
)
def test_a_list_walks_blocks_and_their_traces_backwards_and_sorts_nothing(
    filled: Filled, want: Filter
) -> None:
    reader = filled(every_kind())
    where, values = search.conditions(want)

    found = plan(reader, search.LIST.format(where=where), 1, 100, 100, *values, 51)

    assert found == (
        "SEARCH blocks USING INTEGER PRIMARY KEY (rowid>? AND rowid<?); "
        "SEARCH traces USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
    )


def test_blocks_that_lack_a_value_are_not_looked_into(tmp_path: Path) -> None:
    writer = Writer(tmp_path, Calendar(), secrets={})
    common = records.encode(chat(1, prompt="", answer=""))
    rare = records.encode(messages(2))
    for batch in ([rare], *[[common] * 500] * 40):
        writer.write(batch)
    reader = Reader(tmp_path, Calendar().now_ns)
    reader.traces()

    with counted(reader) as steps:
        found = reader.traces(Filter(model="claude-haiku-5-5"))

    assert ids(found.lines) == [id_of(2)]
    assert 0 < steps[0] < 5_000  # a look at each of the 20,000 takes 400,000
    reader.close()
    writer.close()


@contextmanager
def counted(reader: Reader) -> Iterator[list[int]]:
    """Steps of SQLite's own machine that the reader takes, in hundreds."""
    steps = [0]

    def count() -> int:
        steps[0] += 100
        return 0

    reader._connection().set_progress_handler(count, 100)
    yield steps
    reader._connection().set_progress_handler(None, 0)


def test_a_first_page_reads_a_page_and_not_the_table(tmp_path: Path) -> None:
    writer = Writer(tmp_path, Calendar(), secrets={})
    small = records.encode(chat(1, prompt="", answer=""))
    writer.write([small] * 20_000)
    reader = Reader(tmp_path, Calendar().now_ns)
    reader.traces()

    with counted(reader) as steps:
        assert len(reader.traces(limit=50).lines) == 50
        assert len(reader.traces(Filter(project="default"), limit=50).lines) == 50
        assert reader.overview(60, NOON_NS).requests > 0

    assert 0 < steps[0] < 20_000
    reader.close()
    writer.close()


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_pages_of_any_size_give_what_one_page_gives(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    # Drawn before anything is opened: hypothesis may end an example at any draw.
    kinds = data.draw(st.lists(st.sampled_from(every_kind()), max_size=30))
    limits = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    want = data.draw(
        st.builds(
            Filter,
            project=st.sampled_from(["", "default", "research"]),
            outcome=st.sampled_from(["", "ok", "failed", "cancelled"]),
            cache=st.sampled_from(["", "miss", "exact"]),
            text=st.sampled_from(["", "mini", "openai"]),
        )
    )
    folder = tmp_path_factory.mktemp("traces")
    with closing(Writer(folder, Calendar(), secrets={})) as writer:
        for n, record in enumerate(kinds):
            writer.write([records.encode(changed(record, id=id_of(n)))])

    found: list[Line] = []
    with closing(Reader(folder, Calendar().now_ns)) as reader:
        before = None
        for limit in cycle(limits):
            page = reader.traces(want, limit=limit, before=before)
            found += page.lines
            before = page.before
            if before is None:
                break
        assert found == reader.traces(want, limit=500).lines
