"""The whole ledger on one SQL database."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from app.domain.errors import LedgerUnreadableError, LedgerWriteError
from app.domain.failpoints import NO_FAILPOINTS, Failpoints
from app.persistence.batches import SqlBatches
from app.persistence.database import (
    check_current,
    ensure_current,
    exists,
    open_engine,
    parse_url,
    shown,
    sqlite_file,
    translated,
    upgrade,
)
from app.persistence.files import SqlFiles
from app.persistence.leases import SqlLeases
from app.persistence.making import make_file
from app.persistence.restoring import SqlRestoring
from app.persistence.runs import SqlRuns
from app.persistence.tables import SqlTables

_DISK_FAILED = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


class SqlLedger(SqlLeases, SqlTables, SqlRestoring, SqlRuns, SqlBatches, SqlFiles):
    """Keeps the promises of `domain.ledger.Ledger`."""


def open_ledger(database_url: str, failpoints: Failpoints = NO_FAILPOINTS) -> SqlLedger:
    """Open the ledger, making the SQLite file or bringing it to the present schema.

    Raises:
        LedgerUnreadableError: The database cannot be opened, or is none.
        LedgerUnreachableError: Its server does not answer.
        LedgerWriteError: The disk takes no more, or fails.
        LedgerVersionError: It is newer than the program, or a server's that is not current.
    """
    return SqlLedger(open_current(database_url), failpoints=failpoints)


def open_current(database_url: str) -> Engine:
    """The database, made or brought to the present schema as `open_ledger` does, which says what is raised."""
    url = parse_url(database_url)
    path = sqlite_file(url)
    engine = open_engine(url)
    with _opened(engine):
        if path is not None and not path.exists():
            make_file(path, upgrade)
        ensure_current(engine)
    return engine


def open_existing(database_url: str) -> Engine | None:
    """The database as it is, nothing made or changed; None where there is none."""
    url = parse_url(database_url)
    if not exists(url):
        return None
    engine = open_engine(url)
    with _opened(engine):
        check_current(engine)
    return engine


def open_existing_ledger(database_url: str) -> SqlLedger | None:
    """Open the ledger for reading, making and changing nothing; None where there is none yet."""
    engine = open_existing(database_url)
    return None if engine is None else SqlLedger(engine)


@contextmanager
def _opened(engine: Engine) -> Iterator[None]:
    """Translate what goes wrong when a database is opened, and leave no connection behind."""
    try:
        with translated(engine.url):
            yield
    except OSError as error:
        engine.dispose()
        if error.errno in _DISK_FAILED:
            raise LedgerWriteError(f"The ledger at {shown(engine.url)} cannot be made: {error.strerror}.") from error
        raise LedgerUnreadableError(f"The ledger at {shown(engine.url)} cannot be opened: {error.strerror}.") from error
    except BaseException:
        engine.dispose()
        raise


def ledger_exists(database_url: str) -> bool:
    """Whether there is a ledger's database already."""
    return exists(parse_url(database_url))


def shown_url(database_url: str) -> str:
    """The database's address as it may be shown: passwords masked."""
    return shown(parse_url(database_url))
