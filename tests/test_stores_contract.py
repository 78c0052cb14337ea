"""What `stores.Sql` promises, held against every store that says it keeps it.

A new store joins by one more entry in STORES; nothing below knows which one it talks to.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.errors import Failure
from forebay.stores import Sql, sqlite

SCHEMA = """
CREATE TABLE marks (id TEXT PRIMARY KEY, count BIGINT NOT NULL, body BLOB);
CREATE TABLE notes (mark_id TEXT NOT NULL REFERENCES marks (id));
"""


def open_sqlite(folder: Path) -> Sql:
    path = folder / "contract.db"
    return sqlite.Sqlite(sqlite.open(path, folder, busy_timeout_s=0.05), path)


STORES: dict[str, Callable[[Path], Sql]] = {"sqlite": open_sqlite}


class Bench:
    """One fresh database, and connections to it that are closed in the end."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.opened: list[Sql] = []
        (folder / "0001_marks.sql").write_text(SCHEMA)

    def connect(self) -> Sql:
        self.opened.append(STORES[self.kind](self.folder))
        return self.opened[-1]


class Abandon(Exception):
    pass


@pytest.fixture(params=sorted(STORES))
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(request.param, tmp_path)
    yield bench
    for sql in bench.opened:
        sql.close()


def test_what_one_connection_ran_the_other_reads(database: Bench) -> None:
    writer, reader = database.connect(), database.connect()
    body = bytes(range(256))
    assert writer.run("INSERT INTO marks VALUES (?, ?, ?)", "a", 2**62, body) == 1
    writer.run("INSERT INTO marks VALUES (?, ?, ?)", "naïve – ✓", -1, None)
    assert reader.rows("SELECT * FROM marks ORDER BY count DESC") == [
        ("a", 2**62, body),
        ("naïve – ✓", -1, None),
    ]


def test_run_says_how_many_rows_it_touched(database: Bench) -> None:
    sql = database.connect()
    for name in "abc":
        sql.run("INSERT INTO marks VALUES (?, 0, NULL)", name)
    assert sql.run("UPDATE marks SET count = 1 WHERE id > ?", "a") == 2
    assert sql.run("DELETE FROM marks WHERE id = ?", "z") == 0


def test_a_value_is_never_read_as_sql(database: Bench) -> None:
    sql = database.connect()
    hostile = "'; DROP TABLE marks; --"
    sql.run("INSERT INTO marks VALUES (?, 0, NULL)", hostile)
    assert sql.rows("SELECT id FROM marks WHERE id = ?", hostile) == [(hostile,)]


def test_a_transaction_is_seen_by_others_only_when_it_is_whole(database: Bench) -> None:
    writer, reader = database.connect(), database.connect()
    with writer.transaction():
        writer.run("INSERT INTO marks VALUES ('a', 1, NULL)")
        assert writer.rows("SELECT count(*) FROM marks") == [(1,)]
        assert reader.rows("SELECT count(*) FROM marks") == [(0,)]
        writer.run("INSERT INTO marks VALUES ('b', 1, NULL)")
    assert reader.rows("SELECT count(*) FROM marks") == [(2,)]


def test_an_exception_takes_the_whole_transaction_back(database: Bench) -> None:
    sql = database.connect()
    with suppress(Abandon), sql.transaction():
        sql.run("INSERT INTO marks VALUES ('a', 1, NULL)")
        raise Abandon
    assert sql.rows("SELECT * FROM marks") == []
    with sql.transaction():  # and leaves the connection usable
        sql.run("INSERT INTO marks VALUES ('b', 1, NULL)")
    assert sql.rows("SELECT id FROM marks") == [("b",)]


def test_a_row_can_only_point_at_one_that_is_there(database: Bench) -> None:
    sql = database.connect()
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        sql.run("INSERT INTO notes VALUES ('nobody')")


def test_a_second_writer_is_refused_when_the_first_does_not_end(database: Bench) -> None:
    first, second = database.connect(), database.connect()
    with first.transaction():
        with pytest.raises(Failure) as refused, second.transaction():
            pytest.fail("both hold the write lock")
        assert refused.value.code.name == "overloaded"
        assert second.rows("SELECT * FROM marks") == []  # reading goes on
    with second.transaction():
        pass


def test_version_stands_still_until_somebody_changes_a_row(database: Bench) -> None:
    mine, other = database.connect(), database.connect()
    before = mine.version()
    mine.rows("SELECT * FROM marks")
    assert mine.version() == before
    mine.run("INSERT INTO marks VALUES ('a', 1, NULL)")
    after_mine = mine.version()
    assert after_mine != before
    other.run("UPDATE marks SET count = 2")
    after_other = mine.version()
    assert after_other not in (before, after_mine)
    assert mine.version() == after_other


def test_a_killed_process_leaves_nothing_of_its_open_transaction(database: Bench) -> None:
    database.connect().run("INSERT INTO marks VALUES ('before', 1, NULL)")
    killed = subprocess.run(
        [sys.executable, __file__, database.kind, str(database.folder)], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert database.connect().rows("SELECT id FROM marks ORDER BY id") == [
        ("before",),
        ("committed",),
    ]


STEPS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 9)), max_size=4),
        st.booleans(),
    ),
    max_size=6,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_any_run_of_transactions_leaves_what_a_dict_would_hold(
    database: Bench, steps: list[tuple[list[tuple[str, int]], bool]]
) -> None:
    """Each step sets marks (0 deletes one) and then commits or is abandoned."""
    sql = database.opened[0] if database.opened else database.connect()
    sql.run("DELETE FROM marks")
    model: dict[str, int] = {}
    for changes, commits in steps:
        draft = dict(model)
        with suppress(Abandon), sql.transaction():
            for name, count in changes:
                sql.run("DELETE FROM marks WHERE id = ?", name)
                draft.pop(name, None)
                if count:
                    sql.run("INSERT INTO marks VALUES (?, ?, NULL)", name, count)
                    draft[name] = count
            if not commits:
                raise Abandon
            model = draft
    assert dict(sql.rows("SELECT id, count FROM marks")) == model


def die_within_a_transaction(kind: str, folder: Path) -> None:
    sql = STORES[kind](folder)
    sql.run("INSERT INTO marks VALUES ('committed', 1, NULL)")
    with sql.transaction():
        sql.run("INSERT INTO marks VALUES ('open', 1, NULL)")
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    die_within_a_transaction(sys.argv[1], Path(sys.argv[2]))
