"""What every SQLite file here shares: append-only tables, transactions, and errors that say what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.records import UserError

_REMEDIES = {
    "database or disk is full": "free some space and run the same command again",
    "database is locked": "another program holds it; end that one and run the same command again",
    "attempt to write a readonly database": "it can't be written; see the file's permissions",
}


def append_only(what: str, *tables: str) -> str:
    """Triggers that refuse to change or delete a row of these tables, whatever program writes to the file."""
    return "".join(
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, 'the {what} is append-only'); END;\n"
        for table in tables
        for verb in ("UPDATE", "DELETE")
    )


@contextmanager
def sqlite_as_user_error(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into UserErrors. A violated trigger is a bug and passes as it is."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.OperationalError as error:
        remedy = _REMEDIES.get(str(error), "see that its folder exists and can be written")
        raise UserError(f"{path}: {error}; {remedy}") from None
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from None


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commits all writes in the block or none. The connection is in autocommit mode."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself has rolled back where the disk was full
            connection.execute("ROLLBACK")
        raise


def damaged(path: Path, how: object) -> UserError:
    """The error for a file that SQLite can't read."""
    return UserError(f"{path} is damaged: {how}; restore it from a copy of the campaign's folder")


def other_version(path: Path, what: str, expected: object, found: int, *, foreign: bool) -> UserError:
    """The error for a file of another version; `foreign`: of another application."""
    return UserError(
        f"{path}: expected {what} of version {expected}, found version {found}"
        f"{' of another application' if foreign else ''}; it was left untouched: "
        "use the version of autoresearch that wrote it"
    )
