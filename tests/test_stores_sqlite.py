"""How a database is opened: steps in order, whole or not at all, by one opener at a time."""

import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from forebay.errors import Failure
from forebay.stores import sqlite


def steps(folder: Path, *sql: str) -> Path:
    """A folder of numbered steps."""
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(sql, 1):
        (folder / f"{number:04d}_step.sql").write_text(text)
    return folder


def tables(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    return names


def refusal(path: Path, migrations: Path) -> Failure:
    with pytest.raises(Failure) as caught:
        sqlite.open(path, migrations).close()
    return caught.value


def test_a_new_database_gets_every_step_in_order(tmp_path: Path) -> None:
    folder = steps(
        tmp_path / "m", "CREATE TABLE a (x);", "INSERT INTO a VALUES (1);", "DELETE FROM a;"
    )
    connection = sqlite.open(tmp_path / "x.db", folder)
    assert connection.execute("SELECT number, name FROM migrations").fetchall() == [
        (1, "0001_step.sql"),
        (2, "0002_step.sql"),
        (3, "0003_step.sql"),
    ]
    assert connection.execute("SELECT * FROM a").fetchall() == []
    connection.close()


def test_an_older_database_gets_only_what_it_has_not_had(tmp_path: Path) -> None:
    folder = steps(tmp_path / "m", "CREATE TABLE a (x);")
    sqlite.open(tmp_path / "x.db", folder).close()
    steps(folder, "CREATE TABLE a (x);", "INSERT INTO a VALUES (7);")
    for _ in range(2):
        connection = sqlite.open(tmp_path / "x.db", folder)
        assert connection.execute("SELECT x FROM a").fetchall() == [(7,)]
        connection.close()


def test_a_step_that_fails_leaves_nothing_of_itself(tmp_path: Path) -> None:
    folder = steps(
        tmp_path / "m", "CREATE TABLE a (x);", "CREATE TABLE b (x); INSERT INTO nowhere VALUES (1);"
    )
    failure = refusal(tmp_path / "x.db", folder)
    assert "no such table: nowhere" in str(failure)
    assert tables(tmp_path / "x.db") == {"a", "migrations"}
    steps(folder, "CREATE TABLE a (x);", "CREATE TABLE b (x);")
    sqlite.open(tmp_path / "x.db", folder).close()
    assert "b" in tables(tmp_path / "x.db")


def test_a_database_of_a_newer_forebay_is_refused(tmp_path: Path) -> None:
    newer = steps(tmp_path / "newer", "CREATE TABLE a (x);", "CREATE TABLE b (x);")
    older = steps(tmp_path / "older", "CREATE TABLE a (x);")
    sqlite.open(tmp_path / "x.db", newer).close()
    failure = refusal(tmp_path / "x.db", older)
    assert failure.code.name == "not_configured"
    assert "is at migration 2; this Forebay knows 1" in failure.message
    assert failure.hint


def test_an_edited_step_is_refused(tmp_path: Path) -> None:
    sqlite.open(tmp_path / "x.db", steps(tmp_path / "m", "CREATE TABLE a (x);")).close()
    failure = refusal(tmp_path / "x.db", steps(tmp_path / "m", "CREATE TABLE a (x, y);"))
    assert failure.code.name == "internal"
    assert "0001_step.sql" in failure.message


@pytest.mark.parametrize("name", ["1_short.sql", "0003_gap.sql", "0002-dash.sql", "0001_twice.sql"])
def test_a_stray_file_among_the_steps_is_an_error(tmp_path: Path, name: str) -> None:
    folder = steps(tmp_path / "m", "CREATE TABLE a (x);")
    (folder / name).write_text("SELECT 1;")
    with pytest.raises(ValueError, match="expected 000"):
        sqlite.migrations_in(folder)


def test_a_statement_without_its_end_is_an_error_not_left_out(tmp_path: Path) -> None:
    folder = steps(tmp_path / "m", "CREATE TABLE a (x); CREATE TABLE b (x)")
    with pytest.raises(ValueError, match="no end"):
        sqlite.migrations_in(folder)


def test_semicolons_in_strings_comments_and_triggers_end_no_statement(tmp_path: Path) -> None:
    folder = steps(
        tmp_path / "m",
        """
        -- what's kept; and why
        CREATE TABLE a (x);
        CREATE TABLE log (x);
        CREATE TRIGGER t AFTER INSERT ON a BEGIN
            INSERT INTO log VALUES (new.x); INSERT INTO log VALUES (';');
        END;
        INSERT INTO a VALUES ('one; two'); -- done; really
        """,
    )
    connection = sqlite.open(tmp_path / "x.db", folder)
    assert connection.execute("SELECT x FROM log").fetchall() == [("one; two",), (";",)]
    connection.close()


def test_only_the_owner_can_read_what_is_written(tmp_path: Path) -> None:
    connection = sqlite.open(tmp_path / "x.db", steps(tmp_path / "m", "CREATE TABLE a (x);"))
    connection.execute("INSERT INTO a VALUES (1)")
    files = sorted(tmp_path.glob("x.db*"))
    assert [file.name for file in files] == ["x.db", "x.db-shm", "x.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    connection.close()


def test_a_database_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.touch()
    path.chmod(0o644)
    sqlite.open(path, steps(tmp_path / "m", "CREATE TABLE a (x);")).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"a letter to my aunt" * 100)
    failure = refusal(path, steps(tmp_path / "m", "CREATE TABLE a (x);"))
    assert failure.code.name == "not_configured"
    assert str(path) in failure.message
    assert path.read_bytes().startswith(b"a letter")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    failure = refusal(tmp_path / "none" / "x.db", steps(tmp_path / "m", "CREATE TABLE a (x);"))
    assert failure.code.name == "not_configured"


def test_opening_waits_for_a_writer_no_longer_than_it_was_told(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    writer = sqlite.open(path, steps(tmp_path / "m", "CREATE TABLE a (x);"))
    writer.execute("BEGIN IMMEDIATE")
    steps(tmp_path / "m", "CREATE TABLE a (x);", "CREATE TABLE b (x);")
    with pytest.raises(Failure) as caught:
        sqlite.open(path, tmp_path / "m", busy_timeout_s=0.02)
    assert caught.value.code.name == "overloaded"
    writer.execute("ROLLBACK")
    writer.close()
    sqlite.open(path, tmp_path / "m", busy_timeout_s=0.02).close()


def test_many_threads_open_a_new_database_at_once(tmp_path: Path) -> None:
    folder = steps(tmp_path / "m", "CREATE TABLE a (x);", "INSERT INTO a VALUES (1);")
    together = threading.Barrier(8)
    failures: list[BaseException] = []

    def opener() -> None:
        together.wait()
        try:
            sqlite.open(tmp_path / "x.db", folder).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=opener) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    connection = sqlite.open(tmp_path / "x.db", folder)
    assert connection.execute("SELECT count(*) FROM a").fetchall() == [(1,)]
    connection.close()


def test_several_processes_open_a_new_database_at_once(tmp_path: Path) -> None:
    folder = steps(tmp_path / "m", "CREATE TABLE a (x);", "INSERT INTO a VALUES (1);")
    program = (
        "import sys; from pathlib import Path; from forebay.stores import sqlite\n"
        "sys.stdin.read()\n"
        "sqlite.open(Path(sys.argv[1]), Path(sys.argv[2])).close()"
    )
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "x.db"), str(folder)],
            stdin=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for opener in openers:  # all are started before the first is let go
        assert opener.stdin is not None
        opener.stdin.close()
    assert [opener.wait() for opener in openers] == [0, 0, 0, 0]
    connection = sqlite.open(tmp_path / "x.db", folder)
    assert connection.execute("SELECT count(*) FROM a").fetchall() == [(1,)]
    connection.close()


def test_the_main_database_has_its_default_tenant(tmp_path: Path) -> None:
    sql = sqlite.open_main(tmp_path)
    assert sql.rows("SELECT id, team_id FROM projects") == [("default", "default")]
    assert sql.rows("SELECT count(*) FROM keys") == [(0,)]
    assert repr(sql) == f"<Sqlite {tmp_path}/forebay.db>"
    sql.close()
