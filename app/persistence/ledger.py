"""The whole ledger on one SQL database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from app.domain.errors import LedgerUnreadableError
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
)
from app.persistence.files import SqlFiles
from app.persistence.leases import SqlLeases
from app.persistence.restoring import SqlRestoring
from app.persistence.runs import SqlRuns
from app.persistence.tables import SqlTables


class SqlLedger(SqlLeases, SqlTables, SqlRestoring, SqlRuns, SqlBatches, SqlFiles):
    """Keeps the promises of `domain.ledger.Ledger`."""


def open_ledger(database_url: str) -> SqlLedger:
    """Open the ledger, making the SQLite file or bringing it to the present schema.

    Raises:
        LedgerUnreadableError: The database cannot be opened, or is none.
        LedgerUnreachableError: Its server does not answer.
        LedgerVersionError: It is newer than the program, or a server's that is not current.
    """
    url = parse_url(database_url)
    path = sqlite_file(url)
    engine = open_engine(url)
    with _opened(engine):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        ensure_current(engine)
    return SqlLedger(engine)


def open_existing_ledger(database_url: str) -> SqlLedger | None:
    """Open the ledger for reading, making and changing nothing; None where there is none yet."""
    url = parse_url(database_url)
    if not exists(url):
        return None
    engine = open_engine(url)
    with _opened(engine):
        check_current(engine)
    return SqlLedger(engine)


@contextmanager
def _opened(engine: Engine) -> Iterator[None]:
    """Translate what goes wrong when a database is opened, and leave no connection behind."""
    try:
        with translated(engine.url):
            yield
    except OSError as error:
        engine.dispose()
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
