"""Open the ledger's database: the engine, its SQLite settings, and the check that its schema is this program's."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.domain.errors import LedgerBusyError, LedgerUnreadableError, LedgerVersionError, NotSupportedError

# The newest migration. A constant, so that opening a database that is up to date need not import Alembic;
# a test holds it against the folder of migrations.
HEAD_REVISION = "0002"

BUSY_TIMEOUT_S = 30.0


def parse_url(database_url: str) -> URL:
    """Read a database address.

    Raises:
        LedgerUnreadableError: It is none.
        NotSupportedError: It is that of another database than SQLite.
    """
    try:
        url = make_url(database_url)
    except ArgumentError as error:
        raise LedgerUnreadableError("DATABASE_URL is no database address.") from error
    if url.get_backend_name() != "sqlite":
        raise NotSupportedError(
            f"DATABASE_URL names {url.get_backend_name()}, and the ledger can only be kept in SQLite.",
            remedy="Use sqlite:///path/to/autoloader.db, or leave DATABASE_URL out.",
        )
    return url


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
    """An engine with our settings. Nothing is read yet."""
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
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
    """Turn the database's errors into ours, with the address (password masked) in them."""
    where = url.render_as_string(hide_password=True)
    try:
        yield
    except OperationalError as error:
        if "locked" in str(error.orig) or "busy" in str(error.orig):
            raise LedgerBusyError(f"The ledger at {where} is locked by another process.") from error
        raise LedgerUnreadableError(f"The ledger at {where} cannot be used: {error.orig}.") from error
    except (DatabaseError, sqlite3.DatabaseError, PoolTimeoutError) as error:
        cause = getattr(error, "orig", error)
        raise LedgerUnreadableError(f"The ledger at {where} cannot be read: {cause}.") from error


def revision(engine: Engine) -> str | None:
    """The migration that the database stands at; None for one that is empty."""
    with engine.connect().execution_options(read_only=True) as connection:
        found = connection.execute(
            text("select name from sqlite_master where name = 'alembic_version'")
            if engine.dialect.name == "sqlite"
            else text("select table_name from information_schema.tables where table_name = 'alembic_version'")
        ).first()
        if found is None:
            return None
        row = connection.execute(text("select version_num from alembic_version")).first()
        return None if row is None else str(row[0])


def ensure_current(engine: Engine) -> None:
    """Make the schema this program's: SQLite is upgraded here, under a lock; another database is only checked.

    Raises:
        LedgerVersionError: The database is newer than the program, or it is not SQLite and not current.
        LedgerUnreadableError: It is somebody else's database.
    """
    found = revision(engine)
    if found == HEAD_REVISION:
        return
    path = sqlite_file(engine.url)
    if path is None and engine.url.get_backend_name() != "sqlite":
        raise LedgerVersionError(
            f"The ledger stands at migration {found or 'none'}, this program needs {HEAD_REVISION}.",
            remedy="Run `alembic upgrade head` with the same DATABASE_URL.",
        )
    with _upgrade_lock(path):
        _refuse_foreign(engine)
        _upgrade(engine)


def _refuse_foreign(engine: Engine) -> None:
    """Refuse a SQLite file with tables that no migration of ours made."""
    with engine.connect().execution_options(read_only=True) as connection:
        names = set(connection.execute(text("select name from sqlite_master where type = 'table'")).scalars())
    if names and "alembic_version" not in names:
        raise LedgerUnreadableError(
            f"The database at {engine.url.render_as_string(hide_password=True)} is not a ledger: it has the table "
            f"{min(names)}.",
            remedy="Check DATABASE_URL.",
        )


def check_current(engine: Engine) -> None:
    """Refuse a database that is not at this program's migration, changing nothing.

    Raises:
        LedgerVersionError: It is not.
    """
    found = revision(engine)
    if found != HEAD_REVISION:
        raise LedgerVersionError(
            f"The ledger stands at migration {found or 'none'}, this program needs {HEAD_REVISION}.",
            remedy="Run `autoloader load` once, or `alembic upgrade head`, with the same DATABASE_URL.",
        )


@contextmanager
def _upgrade_lock(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    with path.with_name(path.name + ".upgrade-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _upgrade(engine: Engine) -> None:
    # Imported here: a database that is up to date, which is nearly every start, does not pay for it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    found = revision(engine)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise LedgerVersionError(
            f"The ledger stands at migration {found}, which this program does not know: it is newer.",
            remedy="Install the version of the program that made it, or a later one.",
        )
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
