"""SQLite, opened the way every database here is opened, and brought up to date.

A schema is a folder of numbered steps, `0001_name.sql`, `0002_name.sql`, … without gaps. A
database remembers which it has had, each with a checksum of its text; opening applies the
rest, one transaction a step, so a step is there as a whole or not at all. Four cases:

1. the database is behind: the missing steps are applied;
2. it is level: nothing is written;
3. it is ahead, written by a newer Forebay: refused, since this one would misread it;
4. a step it has had reads otherwise now: refused; a step that was released is never edited.

Openers of one folder take turns (a lock on the folder itself, so no lock file lies about):
switching a new file to WAL is the one thing SQLite's own busy timeout does not cover.
Prompts and key digests are in these files, so they are made readable by their owner alone;
SQLite gives the -wal and -shm files beside them the same mode.

WAL needs shared memory, so a database on a network file system is not supported.
"""

import fcntl
import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from forebay.errors import Failure
from forebay.stores import Value

#: The main database, in the data folder: teams, projects, keys.
MAIN_NAME = "forebay.db"
MAIN_MIGRATIONS = Path(__file__).parent / "migrations"

#: How long a writer waits for another one. Writes here take a few ms; 5 s is a stuck disk.
BUSY_TIMEOUT_S = 5.0

_STEP_NAME = re.compile(r"([0-9]{4})_[a-z0-9_]+\.sql")

_HAD_TABLE = """
CREATE TABLE IF NOT EXISTS migrations (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL
)
"""


class Migration(msgspec.Struct, frozen=True):
    number: int  # from 1
    name: str  # of its file
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations_in(folder: Path) -> list[Migration]:
    """The steps of a schema, in order.

    Raises ValueError on a stray name, a gap, or a last statement without its semicolon.
    """
    steps: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        match = _STEP_NAME.fullmatch(path.name)
        if match is None or int(match[1]) != len(steps) + 1:
            raise ValueError(f"{path}: expected {len(steps) + 1:04d}_name.sql here")
        sql = path.read_text()
        if not sqlite3.complete_statement(sql):
            raise ValueError(f"{path}: the last statement has no end")
        steps.append(Migration(len(steps) + 1, path.name, sql))
    return steps


def open_main(data_dir: Path) -> "Sqlite":
    """The main database of an installation, made where there is none. Raises like `open`."""
    path = data_dir / MAIN_NAME
    return Sqlite(open(path, MAIN_MIGRATIONS), path)


def open(
    path: Path,
    migrations: Path,
    *,
    synchronous: Literal["NORMAL", "FULL"] = "FULL",
    busy_timeout_s: float = BUSY_TIMEOUT_S,
) -> sqlite3.Connection:
    """A connection in autocommit mode to a database at the newest step of `migrations`.

    `synchronous` is what a power cut may take: with NORMAL the last commits (never the
    file's integrity), with FULL nothing; a killed process loses nothing in either.

    Raises Failure: not_configured (no database, cannot be written, or newer than this
    program), overloaded (locked by another process for longer than the timeout), internal
    (a released migration was edited).
    """
    steps = migrations_in(migrations)
    try:
        with _turn(path.parent):
            _make_private(path)
            connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(f"PRAGMA synchronous = {synchronous}")
                connection.execute("PRAGMA foreign_keys = ON")
                # Functions with side effects can't hide in the schema of a file from elsewhere.
                connection.execute("PRAGMA trusted_schema = OFF")
                _bring_up_to_date(connection, path, steps)
            except BaseException:
                connection.close()
                raise
    except (sqlite3.Error, OSError) as error:
        raise _unusable(path, error) from error
    return connection


class Sqlite:
    """`Sql` on one SQLite connection. One thread."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def rows(self, sql: str, *values: Value) -> list[tuple[Any, ...]]:
        return self._execute(sql, values).fetchall()

    def run(self, sql: str, *values: Value) -> int:
        return self._execute(sql, values).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with _transaction(self._connection, self._path):
            yield

    def version(self) -> object:
        # data_version counts the commits of all others, total_changes our own.
        ((others,),) = self._connection.execute("PRAGMA data_version")
        return (others, self._connection.total_changes)

    def close(self) -> None:
        self._connection.close()

    def __repr__(self) -> str:
        return f"<Sqlite {self._path}>"

    def _execute(self, sql: str, values: tuple[Value, ...]) -> sqlite3.Cursor:
        try:
            return self._connection.execute(sql, values)
        except sqlite3.OperationalError as error:
            raise _unusable(self._path, error) from error


@contextmanager
def _transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            # SQLite itself has rolled back after some errors (a full disk is one).
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    except sqlite3.OperationalError as error:
        raise _unusable(path, error) from error


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_private(path: Path) -> None:
    # Never opened where it exists: closing any descriptor of a database drops the POSIX locks
    # that other connections of this process hold on it (sqlite.org/howtocorrupt.html, 2.2).
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    elif path.stat().st_mode & 0o077:
        path.chmod(0o600)


def _bring_up_to_date(connection: sqlite3.Connection, path: Path, steps: list[Migration]) -> None:
    had = _had(connection)
    if len(had) > len(steps):
        raise Failure(
            "not_configured",
            f"{path} is at migration {len(had)}; this Forebay knows {len(steps)}.",
            hint="Start the newer Forebay that wrote it, or restore the backup from before.",
        )
    for step, (name, checksum) in zip(steps, had, strict=False):
        if checksum != step.checksum:
            raise Failure(
                "internal",
                f"{path} had migration {name}, whose text is another one now ({step.name}).",
                hint="Take the released Forebay that made it; released migrations never change.",
            )
    for step in steps[len(had) :]:
        with _transaction(connection, path):
            connection.execute(_HAD_TABLE)
            for statement in _statements(step.sql):
                connection.execute(statement)
            connection.execute(
                "INSERT INTO migrations VALUES (?, ?, ?)", (step.number, step.name, step.checksum)
            )


def _had(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    table = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'migrations'"
    ).fetchone()
    if table is None:
        return []
    return connection.execute("SELECT name, checksum FROM migrations ORDER BY number").fetchall()


def _statements(sql: str) -> Iterator[str]:
    # Not executescript: it commits what came before it, and a step must be all or nothing.
    held = ""
    for piece in sql.split(";")[:-1]:
        held += piece + ";"
        # A semicolon inside a string or a trigger's body ends no statement.
        if sqlite3.complete_statement(held):
            yield held
            held = ""


def _unusable(path: Path, error: sqlite3.Error | OSError) -> Failure:
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return Failure(
            "overloaded",
            f"{path} is held by another process and did not become free in time.",
            hint="Look which process has it open; try again.",
        )
    return Failure(
        "not_configured",
        f"{path} cannot be used as a database: {error}.",
        hint="Check its permissions and the free space, or restore it from a backup.",
    )
