"""How rows are kept in SQLite here: never changed, durable, and with errors that say what to do. Knows no table."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.records import UserError

_MENDS = {
    "database or disk is full": "free some space and run the same command again",
    "database is locked": "another program holds it; end that one and run the same command again",
    "attempt to write a readonly database": "it can't be written; see the file's permissions",
}


def append_only(what: str, *tables: str) -> str:
    """Triggers that hold whoever writes to it: no row of these tables is changed or deleted."""
    return "".join(
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, 'the {what} is append-only'); END;\n"
        for table in tables
        for verb in ("UPDATE", "DELETE")
    )


@contextmanager
def told(path: Path) -> Iterator[None]:
    """SQLite's errors in a user's words. A violated trigger is a bug and passes as it is."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.OperationalError as error:
        mend = _MENDS.get(str(error), "see that its folder exists and can be written")
        raise UserError(f"{path}: {error}; {mend}") from None
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from None


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing. The connection is in autocommit mode."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself has rolled back where the disk was full
            connection.execute("ROLLBACK")
        raise


def damaged(path: Path, how: object) -> UserError:
    return UserError(f"{path} is damaged: {how}; restore it from a copy of the campaign's folder")


def other_version(path: Path, what: str, expected: int, found: int, *, foreign: bool) -> UserError:
    """`foreign`: it isn't this application's at all."""
    return UserError(
        f"{path}: expected {what} of version {expected}, found version {found}"
        f"{' of another application' if foreign else ''}; it was left untouched: "
        "use the version of autoresearch that wrote it"
    )
