"""Make the ledger's SQLite file whole or not at all, so that one that is empty or cut short is known to be damaged."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import NullPool

# What SQLite keeps beside a database.
_COMPANIONS = ("-journal", "-wal", "-shm")


@contextmanager
def upgrade_lock(path: Path | None) -> Iterator[None]:
    """Hold the lock of whoever makes or changes the schema of the file; nothing for a database in memory."""
    if path is None:
        yield
        return
    with path.with_name(path.name + ".upgrade-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_file(path: Path, migrate: Callable[[Engine], None]) -> None:
    """Make the file where there is none, with what `migrate` puts into it.

    It has its name only when it is whole and on the disk: a process that dies meanwhile, and a full disk, leave none.
    What a file of that name that is gone left beside it (its log, above all) is removed, for SQLite would take it for
    the new one's.

    Raises:
        OSError, sqlite3.Error, sqlalchemy.exc.DBAPIError: It cannot be made; nothing is left of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with upgrade_lock(path):
        if path.exists():
            return
        part = path.with_name(path.name + ".new")
        _remove(part)
        try:
            _fill(part, migrate)
            # Under the lock, and while nobody can open the database: these are of one that is gone. Whoever still has
            # that one open goes on with files that have no name any more.
            _remove_companions(path)
            part.rename(path)
            _sync_folder(path.parent)
        except BaseException:
            _remove(part)
            raise


def _fill(part: Path, migrate: Callable[[Engine], None]) -> None:
    # Without a write-ahead log: what could not be moved from there to the file when it is closed is no error to SQLite.
    engine = create_engine(f"sqlite:///{part}", creator=lambda: sqlite3.connect(part), poolclass=NullPool)
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("begin immediate"))
    migrate(engine)
    engine.dispose()
    # Settled before anybody else has the file: switching takes it for oneself alone.
    with closing(sqlite3.connect(part)) as connection:
        connection.execute("pragma journal_mode = wal")


def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("pragma synchronous = full")
    connection.execute("pragma foreign_keys = on")


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    _remove_companions(part)


def _remove_companions(path: Path) -> None:
    for suffix in _COMPANIONS:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
