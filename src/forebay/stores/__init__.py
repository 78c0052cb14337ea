"""What is kept: rows in a SQL database, behind the one small interface below.

One machine has SQLite, embedded (`sqlite.py`); beyond it PostgreSQL takes over. Who keeps
rows is handed a `Sql` and writes the dialect both understand: `?` for values, no RETURNING
(SQLite has it since 3.35, RHEL 9 ships 3.34), integers for times. One contract suite,
tests/test_stores_contract.py, holds every implementation to what is said here.

Not for the data plane: a worker answers from memory (`admission.keys.Keyring`) and never
waits for a database.
"""

from contextlib import AbstractContextManager
from typing import Any, Protocol

Value = None | int | float | str | bytes


class Sql(Protocol):
    """One connection to a database whose tables are there. Used from one thread.

    Every method raises Failure(overloaded) where the database stays locked for 5 s and
    Failure(not_configured) where it can't be used (disk full, permissions).
    """

    def rows(self, sql: str, *values: Value) -> list[tuple[Any, ...]]:
        """All rows of a query, as committed (or as this connection's transaction sees them)."""

    def run(self, sql: str, *values: Value) -> int:
        """One changing statement; returns how many rows it touched.

        Outside of a `transaction` it is committed when this returns.
        """

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing: committed on a normal end, rolled back on any exception.

        Takes the write lock at once, so what is read inside can't be changed by others
        before the commit. Does not nest.
        """

    def version(self) -> object:
        """Equal to an earlier one only if nobody has committed a change of rows since.

        A few µs, so that a reader can poll it. It says nothing about which rows changed, and
        may be another one after a change that was rolled back.
        """

    def close(self) -> None: ...
