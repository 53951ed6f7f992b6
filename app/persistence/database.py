"""Open the ledger's database: its address, its settings, and the check that its schema is this program's."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.domain.errors import LedgerBusyError, LedgerUnreadableError, LedgerVersionError, NotSupportedError
from app.persistence import postgres

if TYPE_CHECKING:
    from alembic.config import Config

# The newest migration. A constant, so that opening a database that is up to date need not import Alembic;
# a test holds it against the folder of migrations.
HEAD_REVISION = "0002"

BUSY_TIMEOUT_S = 30.0


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


def open_engine(url: URL) -> Engine:
    """An engine with our settings. Nothing is read yet.

    Raises:
        LedgerUnreadableError: The database's driver is not installed.
    """
    if postgres.is_postgres(url):
        return postgres.open_postgres(url)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False})
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


def _sqlite_error(where: str, error: Exception) -> LedgerBusyError | LedgerUnreadableError:
    cause = getattr(error, "orig", error)
    if isinstance(error, OperationalError):
        if "locked" in str(cause) or "busy" in str(cause):
            return LedgerBusyError(f"The ledger at {where} is locked by another process.")
        return LedgerUnreadableError(f"The ledger at {where} cannot be used: {cause}.")
    return LedgerUnreadableError(f"The ledger at {where} cannot be read: {cause}.")


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
        LedgerUnreadableError: It is somebody else's database.
    """
    if revision(engine) == HEAD_REVISION:
        return
    if postgres.is_postgres(engine.url):
        check_current(engine)
        return
    with _upgrade_lock(sqlite_file(engine.url)):
        _refuse_foreign(engine)
        _upgrade(engine)


def _refuse_foreign(engine: Engine) -> None:
    """Refuse a SQLite file with tables that no migration of ours made."""
    with engine.connect().execution_options(read_only=True) as connection:
        names = set(connection.execute(text("select name from sqlite_master where type = 'table'")).scalars())
    if names and "alembic_version" not in names:
        raise LedgerUnreadableError(
            f"The database at {shown(engine.url)} is not a ledger: it has the table {min(names)}.",
            remedy="Check DATABASE_URL.",
        )


def check_current(engine: Engine) -> None:
    """Refuse a database that is not at this program's migration, changing nothing.

    Raises:
        LedgerVersionError: It is not.
    """
    found = revision(engine)
    if found == HEAD_REVISION:
        return
    _refuse_newer(found, _migrations())
    by_hand = "`alembic upgrade head` with the same DATABASE_URL."
    raise LedgerVersionError(
        f"The ledger at {shown(engine.url)} stands at migration {found or 'none'}, this program needs {HEAD_REVISION}.",
        remedy=f"Run {by_hand}" if postgres.is_postgres(engine.url) else f"Run `autoloader load` once, or {by_hand}",
    )


@contextmanager
def _upgrade_lock(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    with path.with_name(path.name + ".upgrade-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


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


def _upgrade(engine: Engine) -> None:
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
