"""What is PostgreSQL's own: its driver's settings, its time-outs, and what its errors mean."""

from __future__ import annotations

import re

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.domain.errors import (
    AutoloaderError,
    LedgerBusyError,
    LedgerUnreachableError,
    LedgerUnreadableError,
    LedgerWriteError,
    NotSupportedError,
)
from app.persistence.patience import be_impatient

DRIVER = "postgresql+psycopg"
_SPELLINGS = ("postgres", "postgresql", DRIVER)

CONNECT_TIMEOUT_S = 10
LOCK_TIMEOUT_S = 30
STATEMENT_TIMEOUT_S = 300
# A process that stands still inside a transaction holds locks that others wait for. The server ends it.
IDLE_IN_TRANSACTION_TIMEOUT_S = 60

# A run works with two connections at most: its own and that of its heartbeat.
_POOL_SIZE = 2
_POOL_OVERFLOW = 3

# How a server that has gone without a word is noticed, in seconds.
_KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 10, "keepalives_count": 3}
_ANSWER_TIMEOUT_MS = 40_000

# A lock that was waited for too long, a deadlock, two transactions that exclude each other, a statement that took long.
_BUSY_STATES = {"55P03", "40P01", "40001", "57014", "53300"}
_READ_ONLY_STATE = "25006"
# The disk is full, or fails.
_DISK_STATES = {"53100", "58030"}
# The server refuses the connection, and will do so again. The driver gives no state for these, only their words.
_REFUSED = re.compile(
    r"authentication failed|does not exist|no pg_hba\.conf entry|no password supplied|permission denied"
    r"|not permitted to log in|certificate verify failed",
    re.IGNORECASE,
)

# Held by whoever migrates. Any number of ours that no other program uses.
_MIGRATION_LOCK = 0x6175746F6C6F6164


def is_postgres(url: URL) -> bool:
    """Whether it is an address of PostgreSQL, in any of its spellings."""
    return url.drivername.partition("+")[0] in ("postgres", "postgresql")


def normal_url(url: URL) -> URL:
    """The address with the one driver that is supported.

    Raises:
        LedgerUnreadableError: It is written in a way that would be read as something else.
        NotSupportedError: It asks for another driver.
    """
    if url.drivername not in _SPELLINGS:
        raise NotSupportedError(
            f"DATABASE_URL asks for the driver {url.drivername.partition('+')[2]}, and PostgreSQL is read by psycopg.",
            remedy="Use postgresql://user:password@host/database.",
        )
    if "@" in (url.host or ""):
        # A part of the password would be taken, and shown, as a part of the host.
        raise LedgerUnreadableError(
            "DATABASE_URL is no database address: it has more than one @.",
            remedy="Write an @ in the user or password as %40, and / as %2F.",
        )
    return url.set(drivername=DRIVER)


def open_postgres(url: URL, *, statement_timeout_s: int = STATEMENT_TIMEOUT_S) -> Engine:
    """An engine with our settings. Nothing is read yet.

    Args:
        url: What `normal_url` gave. What its query says goes before our settings.
        statement_timeout_s: Seconds that one statement may take; 0 for any time.

    Raises:
        LedgerUnreadableError: The driver is not installed.
    """
    try:
        engine = create_engine(
            url,
            # What the ledger promises rests on row locks and on statements that see what was committed before them.
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            pool_size=_POOL_SIZE,
            max_overflow=_POOL_OVERFLOW,
            pool_timeout=LOCK_TIMEOUT_S,
            connect_args=_connect_args(url, statement_timeout_s),
        )
    except ImportError as error:
        raise LedgerUnreadableError(
            "DATABASE_URL names PostgreSQL, whose driver is not installed.",
            remedy="Install it: pip install 'iceberg-autoloader[postgres]'.",
        ) from error
    be_impatient(engine, statement_timeout_s)
    return engine


def _connect_args(url: URL, statement_timeout_s: int) -> dict[str, object]:
    timeouts_s = {
        "lock_timeout": LOCK_TIMEOUT_S,
        "statement_timeout": statement_timeout_s,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_S,
    }
    ours = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "tcp_user_timeout": _ANSWER_TIMEOUT_MS,
        "application_name": "autoloader",
        "client_encoding": "utf8",
        **_KEEPALIVE,
    }
    options = " ".join(f"-c {name}={seconds}s" for name, seconds in timeouts_s.items())
    given = url.query.get("options", ())
    # The last setting of a name wins.
    options = " ".join([options, given] if isinstance(given, str) else [options, *given])
    return {name: value for name, value in ours.items() if name not in url.query} | {"options": options}


def translation(where: str, error: DBAPIError | PoolTimeoutError) -> AutoloaderError:
    """What an error of the database means for the run."""
    if isinstance(error, PoolTimeoutError):
        return LedgerBusyError(f"All connections to the ledger at {where} are in use.")
    cause = error.orig
    state = getattr(cause, "sqlstate", None)
    said = _first_line(cause)
    if state in _BUSY_STATES:
        return LedgerBusyError(f"The ledger at {where} is busy: {said}.")
    if state in _DISK_STATES:
        return LedgerWriteError(f"The ledger at {where} cannot be written: {said}.")
    if state == _READ_ONLY_STATE:
        return LedgerUnreadableError(
            f"The ledger at {where} cannot be written: {said}.",
            remedy="Use the address of the primary server, and a user whose transactions may write.",
        )
    if _is_connection_lost(error, state) and not _REFUSED.search(said):
        return LedgerUnreachableError(f"The ledger at {where} does not answer: {said}.")
    return LedgerUnreadableError(
        f"The ledger at {where} cannot be used: {said}.",
        remedy="Check DATABASE_URL, and what its user may do in that database.",
    )


def _is_connection_lost(error: DBAPIError, state: str | None) -> bool:
    if error.connection_invalidated or (state or "").startswith(("08", "57P", "25P03")):
        return True
    # The driver's own words, which no server gave a state to: it did not come as far as a statement.
    return state is None and isinstance(error, OperationalError)


def _first_line(cause: BaseException | None) -> str:
    """What the driver says, less the hints that follow."""
    lines = str(cause).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(cause).__name__


def has_revisions(connection: Connection) -> bool:
    """Whether migrations were run in the schema that the connection works in.

    Raises:
        LedgerUnreadableError: The database cannot hold every key.
    """
    encoding, found = connection.execute(
        text("select current_setting('server_encoding'), to_regclass('alembic_version')::text")
    ).one()
    if encoding != "UTF8":
        raise LedgerUnreadableError(
            f"The database has the encoding {encoding}, and names of files need UTF8.",
            remedy="Make the ledger's database with: create database … encoding 'UTF8' template template0.",
        )
    return found is not None


def lock_migrations(connection: Connection) -> None:
    """Wait until nobody else migrates, to the end of the connection's transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"select pg_advisory_xact_lock({_MIGRATION_LOCK})"))
