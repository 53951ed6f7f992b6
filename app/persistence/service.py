"""The whole database as the service works with it: the ledger, the ingestions, their runs and their secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from sqlalchemy import select

from app.domain.errors import NotSupportedError
from app.domain.failpoints import NO_FAILPOINTS, Failpoints
from app.persistence.answers import SqlKeptAnswers
from app.persistence.database import parse_url, sqlite_file
from app.persistence.keys import Keyring
from app.persistence.ledger import SqlLedger, open_current, open_existing
from app.persistence.live import SqlLive
from app.persistence.orders import SqlRunOrders
from app.persistence.outbox import SqlOutbox
from app.persistence.postgres import is_postgres
from app.persistence.schema import installation
from app.persistence.tokens import SqlAccessTokens


class SqlServiceStore(SqlOutbox, SqlRunOrders, SqlLive, SqlKeptAnswers, SqlAccessTokens, SqlLedger):
    """Keeps the promises of `domain.service.ServiceStore`."""

    def ping(self) -> None:
        """Ask the database for something.

        Raises:
            LedgerBusyError, LedgerUnreachableError, LedgerUnreadableError: It does not answer, or not well.
        """
        with self._read() as connection:
            connection.execute(select(installation.c.name)).first()


def keyring(database_url: str, secret_key: str | None, previous: str | None, home: Path) -> Keyring:
    """The master keys that go with a database.

    Args:
        database_url: Beside SQLite a key may be kept in a file; PostgreSQL has several machines, so it must be given.
        secret_key: The setting SECRET_KEY.
        previous: The setting SECRET_KEY_PREVIOUS.
        home: The folder that the file is in.
    """
    return Keyring(secret_key, previous, None if is_postgres(parse_url(database_url)) else home)


def open_service_store(
    database_url: str,
    keys: Keyring,
    learn: Callable[[Iterable[str]], None],
    failpoints: Failpoints = NO_FAILPOINTS,
) -> SqlServiceStore:
    """Open the database, making the SQLite file or bringing it to the present schema.

    Raises:
        NotSupportedError: It is a SQLite database without a file, which the service's other processes could not open.
        LedgerUnreadableError, LedgerUnreachableError, LedgerWriteError, LedgerVersionError: As `open_ledger`.
    """
    url = parse_url(database_url)
    if not is_postgres(url) and sqlite_file(url) is None:
        raise NotSupportedError(
            "DATABASE_URL names no file, and the service's processes share what is in one.",
            remedy="Use sqlite:///path/to/autoloader.db, or leave DATABASE_URL out.",
        )
    return SqlServiceStore(open_current(database_url), keyring=keys, learn=learn, failpoints=failpoints)


def open_existing_service_store(
    database_url: str,
    keys: Keyring,
    learn: Callable[[Iterable[str]], None],
    failpoints: Failpoints = NO_FAILPOINTS,
) -> SqlServiceStore | None:
    """Open the database as it is, making and changing nothing of its schema; None where there is none."""
    engine = open_existing(database_url)
    if engine is None:
        return None
    return SqlServiceStore(engine, keyring=keys, learn=learn, failpoints=failpoints)
