"""Open the ledger's database: its address, its settings, and the check that its schema is this program's."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.domain.errors import (
    LedgerBusyError,
    LedgerUnreadableError,
    LedgerVersionError,
    LedgerWriteError,
    NotSupportedError,
)
from app.persistence import postgres
from app.persistence.making import upgrade_lock

if TYPE_CHECKING:
    from alembic.config import Config

# The newest migration. A constant, so that opening a database that is up to date need not import Alembic;
# a test holds it against the folder of migrations.
HEAD_REVISION = "0009"

BUSY_TIMEOUT_S = 30.0
# SQLite's codes say more in the bits above these.
_PRIMARY_CODE = 0xFF


def parse_url(database_url: str) -> URL:
    """Read a database address.

    Raises:
        LedgerUnreadableError: It is none.
        NotSupportedError: It is that of a database that cannot hold a ledger.
    """
    try:
        url = make_url(database_url)
    except (ArgumentError, ValueError):
        # Not chained: what could not be read may be a part of the password.
        raise LedgerUnreadableError("DATABASE_URL is no database address.") from None
    if postgres.is_postgres(url):
        return postgres.normal_url(url)
    if url.get_backend_name() != "sqlite":
        raise NotSupportedError(
            f"DATABASE_URL names {url.get_backend_name()}, and the ledger can only be kept in SQLite or PostgreSQL.",
            remedy="Use sqlite:///path/to/autoloader.db or postgresql://user:password@host/database, "
            "or leave DATABASE_URL out.",
        )
    return url


def shown(url: URL) -> str:
    """The address as it may be shown: without passwords, and the driver is nobody's business."""
    spelling = "postgresql" if postgres.is_postgres(url) else url.drivername
    secret = [name for name in url.query if "password" in name.lower()]
    return url.set(drivername=spelling).difference_update_query(secret).render_as_string(hide_password=True)


def sqlite_file(url: URL) -> Path | None:
    """The file of a SQLite address; None for another database, one in memory, or one that SQLite's own URI names."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    if str(url.database).startswith("file:"):
        return None
    return Path(str(url.database))


def exists(url: URL) -> bool:
    """Whether there is a database to read; a server is taken to be there."""
    path = sqlite_file(url)
    return path is None or path.exists()


def open_engine(url: URL, *, create: bool = False) -> Engine:
    """An engine with our settings. Nothing is read yet.

    Args:
        url: What `parse_url` gave.
        create: Whether a SQLite file that is not there is made, empty. By default it is an error: one that is gone
            in the middle of a run must not come back empty.

    Raises:
        LedgerUnreadableError: The database's driver is not installed.
    """
    if postgres.is_postgres(url):
        return postgres.open_postgres(url)
    path = sqlite_file(url)
    settings: dict[str, Any] = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    if path is None:
        engine = create_engine(url, connect_args=settings)
    else:
        uri = f"file:{quote(os.fsencode(path))}?mode={'rwc' if create else 'rw'}"
        engine = create_engine(url, creator=lambda: sqlite3.connect(uri, uri=True, **settings))
    event.listen(engine, "connect", _on_sqlite_connect)
    event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _on_sqlite_connect(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection
    # We begin transactions ourselves (see _on_sqlite_begin): the driver would begin them late, as readers, and a
    # reader that turns writer fails at once where another one wrote meanwhile.
    connection.isolation_level = None
    connection.execute("pragma journal_mode = wal")
    # A commit must be on the disk when we say so: the ledger's steps are durable before the next one begins.
    connection.execute("pragma synchronous = full")
    connection.execute("pragma foreign_keys = on")


def _on_sqlite_begin(connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's connection
    options = connection.get_execution_options()
    connection.exec_driver_sql("begin" if options.get("read_only") else "begin immediate")


@contextmanager
def translated(url: URL) -> Iterator[None]:
    """Turn the database's errors into ours, with the address (passwords masked) in them."""
    try:
        yield
    except (DBAPIError, sqlite3.DatabaseError, PoolTimeoutError) as error:
        if postgres.is_postgres(url) and not isinstance(error, sqlite3.DatabaseError):
            raise postgres.translation(shown(url), error) from error
        raise _sqlite_error(shown(url), error) from error


def _sqlite_error(where: str, error: Exception) -> LedgerBusyError | LedgerUnreadableError | LedgerWriteError:
    cause = getattr(error, "orig", error)
    code = getattr(cause, "sqlite_errorcode", 0)
    if code & _PRIMARY_CODE in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return LedgerBusyError(f"The ledger at {where} is locked by another process.")
    if code & _PRIMARY_CODE == sqlite3.SQLITE_READONLY:
        return LedgerUnreadableError(f"The ledger at {where} cannot be written: {cause}.")
    if _could_not_write(code):
        return LedgerWriteError(f"The ledger at {where} cannot be written: {cause}.")
    if isinstance(error, OperationalError):
        return LedgerUnreadableError(f"The ledger at {where} cannot be used: {cause}.")
    return LedgerUnreadableError(f"The ledger at {where} cannot be read: {cause}.")


def _could_not_write(code: int) -> bool:
    """Whether the disk took no more, or failed while it was written or synced."""
    if code & _PRIMARY_CODE == sqlite3.SQLITE_IOERR:
        return code not in {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS}
    return code & _PRIMARY_CODE == sqlite3.SQLITE_FULL


def revision(engine: Engine) -> str | None:
    """The migration that the database stands at; None for one that is empty."""
    with engine.connect().execution_options(read_only=True) as connection:
        if engine.dialect.name == "sqlite":
            names = connection.execute(text("select name from sqlite_master where name = 'alembic_version'"))
            found = names.first() is not None
        else:
            found = postgres.has_revisions(connection)
        row = connection.execute(text("select version_num from alembic_version")).first() if found else None
        return None if row is None else str(row[0])


def ensure_current(engine: Engine) -> None:
    """Make the schema this program's: SQLite is upgraded here, under a lock; a server's is only checked.

    Raises:
        LedgerVersionError: The database is newer than the program, or it is a server's and not current.
        LedgerUnreadableError: It is somebody else's database, or was emptied.
    """
    if revision(engine) == HEAD_REVISION:
        return
    if postgres.is_postgres(engine.url):
        check_current(engine)
        return
    with upgrade_lock(sqlite_file(engine.url)):
        _refuse_foreign(engine)
        upgrade(engine)


def _refuse_foreign(engine: Engine) -> None:
    """Refuse a SQLite file with tables that no migration of ours made, or with none where somebody removed them."""
    with engine.connect().execution_options(read_only=True) as connection:
        names = set(connection.execute(text("select name from sqlite_master where type = 'table'")).scalars())
    if not names and sqlite_file(engine.url) is not None:
        # We never leave such a file, so it was a ledger, and what it knew is not nothing.
        raise LedgerUnreadableError(
            f"The database at {shown(engine.url)} is empty: what it held is gone.",
            remedy="Restore it from a backup, or remove the file: then the next load makes a new ledger and gives it "
            "back from the table.",
        )
    if names and "alembic_version" not in names:
        raise LedgerUnreadableError(
            f"The database at {shown(engine.url)} is not a ledger: it has the table {min(names)}.",
            remedy="Check DATABASE_URL.",
        )


def check_current(engine: Engine) -> None:
    """Refuse a database that is not at this program's migration, changing nothing.

    Raises:
        LedgerVersionError: It is not.
        LedgerUnreadableError: It is somebody else's database, or was emptied.
    """
    found = revision(engine)
    if found == HEAD_REVISION:
        return
    if found is None and engine.dialect.name == "sqlite":
        _refuse_foreign(engine)
    _refuse_newer(found, _migrations())
    by_hand = "`alembic upgrade head` with the same DATABASE_URL."
    raise LedgerVersionError(
        f"The ledger at {shown(engine.url)} stands at migration {found or 'none'}, this program needs {HEAD_REVISION}.",
        remedy=f"Run {by_hand}" if postgres.is_postgres(engine.url) else f"Run `autoloader load` once, or {by_hand}",
    )


def _migrations() -> Config:
    # Imported here: a database that is up to date, which is nearly every start, does not pay for it.
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    return config


def _refuse_newer(found: str | None, config: Config) -> None:
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise LedgerVersionError(
            f"The ledger stands at migration {found}, which this program does not know: it is newer.",
            remedy="Install the version of the program that made it, or a later one.",
        )


def upgrade(engine: Engine) -> None:
    """Run the migrations that are missing."""
    from alembic import command  # noqa: PLC0415

    config = _migrations()
    _refuse_newer(revision(engine), config)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def migrations_folder() -> Path:
    """The folder of migrations: package data of an installed program, the root `alembic/` of a checkout."""
    packaged = Path(str(resources.files("app.persistence") / "migrations"))
    if packaged.is_dir():
        return packaged
    return Path(str(resources.files("app"))).parent / "alembic"
