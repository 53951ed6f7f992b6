"""The tables of the ledger's database. Migrations in `alembic/` make them; a test holds the two against each other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class UtcMicroseconds(TypeDecorator[datetime]):
    """An aware UTC time, stored as whole microseconds since 1970: exact, and the same on every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Time to microseconds."""
        return None if value is None else to_microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Microseconds to time."""
        return None if value is None else utc_time(value)


def to_microseconds(time: datetime) -> int:
    """Whole microseconds since 1970."""
    since = time - _EPOCH
    # Cheaper than a division of the difference, which makes a few integers of any length.
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def utc_time(microseconds: int) -> datetime:
    """The time that is stored as so many microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)


class Key(TypeDecorator[str]):
    r"""A text that sorts by its UTF-8 bytes on every database, whatever locale that has.

    PostgreSQL holds no U+0000, which the name of an object may have. There it is stored as U+0001 U+0001, and U+0001
    as U+0001 U+0002: every text comes back as it was, and texts sort as they did.
    """

    # SQLite's own collation is BINARY.
    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The column's type."""
        return Text(collation="C") if dialect.name == "postgresql" else Text()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Text to what is stored."""
        return value if value is None or dialect.name != "postgresql" else without_nul(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """What is stored to text."""
        if value is None or dialect.name != "postgresql":
            return value
        return value.replace("\1\1", "\0").replace("\1\2", "\1")


def without_nul(text: str) -> str:
    """The text as PostgreSQL stores it."""
    return text.replace("\1", "\1\2").replace("\0", "\1\1")


# The conditions of partial indexes are given for SQLite alone, although PostgreSQL's are the same: SQLAlchemy would
# import that dialect, which takes longer than a load with nothing new takes to read the ledger.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

tables = Table(
    "tables",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("uuid", String(36)),
    Column("generation", Integer, nullable=False),
    Column("snapshot_id", BigInteger),
    Column("sequence_number", BigInteger, nullable=False),
    Column("created_at", UtcMicroseconds, nullable=False),
    Column("committed_at", UtcMicroseconds),
    # Whose it is: the first one's who named it.
    Column("tenant", String(64), nullable=False, server_default="default"),
)

ingestions = Table(
    "ingestions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("table_id", ForeignKey("tables.id"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("definition", Text),
    Column("next_batch", BigInteger, nullable=False),
    Column("created_at", UtcMicroseconds, nullable=False),
    Column("tenant", String(64), nullable=False, server_default="default"),
    # NULL: it is the command line's.
    Column("name", Text),
    Column("status", String(16), nullable=False, server_default="active"),
    # The definition as the service keeps it, JSON without credentials.
    Column("document", Text),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("updated_at", UtcMicroseconds),
    Column("deployment_id", String(64)),
    Column("deployment_fingerprint", Text),
    Column("discovered_bytes", BigInteger),
    Column("deleted_at", UtcMicroseconds),
    Column("last_success_at", UtcMicroseconds),
)

leases = Table(
    "leases",
    metadata,
    Column("ingestion_id", String(64), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("run_id", String(64)),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started_at", Float, nullable=False),
    # Seconds since 1970 by the database's clock.
    Column("expires_at", Float, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("ingestion_id", String(64), nullable=False),
    Column("table_id", ForeignKey("tables.id"), nullable=False, index=True),
    Column("trigger", String(16), nullable=False),
    Column("method", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("files_loaded", BigInteger, nullable=False),
    Column("files_failed", BigInteger, nullable=False),
    Column("files_skipped", BigInteger, nullable=False),
    Column("files_known", BigInteger, nullable=False),
    Column("rows_loaded", BigInteger, nullable=False),
    Column("stored_bytes", BigInteger, nullable=False),
    Column("snapshot_id", BigInteger),
    Column("warnings", Text, nullable=False),
    Column("error", Text),
    Column("created_at", UtcMicroseconds, nullable=False),
    Column("started_at", UtcMicroseconds),
    Column("ended_at", UtcMicroseconds),
    Column("retry_of", String(64)),
    Column("flow_run_id", String(64)),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", UtcMicroseconds),
    # Somebody is starting a process for it until then.
    Column("claimed_until", UtcMicroseconds),
    Column("cancel_requested_at", UtcMicroseconds),
    Column("only_keys", Text),
    Column("errors", Text),
    Column("files_replaced", BigInteger, nullable=False, server_default="0"),
    Column("files_appended", BigInteger, nullable=False, server_default="0"),
    # It found more than its queue is meant for; from then on it belongs to the one for high memory.
    Column("handed_over_at", UtcMicroseconds),
    # JSON, while it is at work.
    Column("progress", Text),
    Index("ix_runs_of_ingestion", "ingestion_id", "created_at"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("ingestion_id", ForeignKey("ingestions.id"), primary_key=True),
    # Which credentials are in it, as JSON: told without the key.
    Column("names", Text, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("nonce", LargeBinary, nullable=False),
    # The key of this row, under the master key that `key_id` names.
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("key_id", String(32), nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_hash", String(64), nullable=False),
    # NULL: there is no answer yet.
    Column("status", Integer),
    Column("headers", Text),
    Column("body", Text),
    # When it was begun; where its process died, when another one took it up.
    Column("created_at", UtcMicroseconds, nullable=False),
    # What it makes has this id, whoever comes to make it; NULL where it was begun by a version without the column.
    Column("made_id", String(64)),
)

# Who may ask. No row is ever deleted: that there is one means that nothing is answered without a token.
tokens = Table(
    "tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    # The SHA-256 of the token, in hexadecimal digits.
    Column("digest", String(64), nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_at", UtcMicroseconds, nullable=False),
    Column("expires_at", UtcMicroseconds),
    Column("last_used_at", UtcMicroseconds),
    Column("revoked_at", UtcMicroseconds),
)

# What is true of this database as a whole.
installation = Table(
    "installation",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

batches = Table(
    "batches",
    metadata,
    Column("ingestion_id", ForeignKey("ingestions.id"), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("table_id", ForeignKey("tables.id"), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    # open, committed, empty (nothing of it went into the table), cleared (it ended with its generation)
    Column("state", String(16), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("definition", Text, nullable=False),
    # Loaded versions of its files at its claim, as JSON; NULL where there were none.
    Column("earlier", Text),
    Column("files", BigInteger),
    Column("rows", BigInteger),
    Column("snapshot_id", BigInteger),
    Column("created_at", UtcMicroseconds, nullable=False),
    Column("closed_at", UtcMicroseconds),
    Index("ix_batches_open", "ingestion_id", sqlite_where=text("state = 'open'")),
)

files = Table(
    "files",
    metadata,
    Column("table_id", ForeignKey("tables.id"), primary_key=True),
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("key", Key, primary_key=True),
    Column("version", Key, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("modified_at", UtcMicroseconds, nullable=False),
    Column("ingestion_id", String(64)),
    Column("batch_number", BigInteger),
    Column("run_id", String(64)),
    Column("rows", BigInteger),
    Column("category", String(32)),
    Column("message", Text),
    Column("line", BigInteger),
    Column("offset", BigInteger),
    Column("retryable", Boolean, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_try_at", UtcMicroseconds),
    Column("updated_at", UtcMicroseconds, nullable=False),
    Index(
        "ix_files_processing",
        "ingestion_id",
        "batch_number",
        sqlite_where=text("state = 'processing'"),
    ),
    Index(
        "ix_files_failed",
        "table_id",
        "generation",
        "key",
        sqlite_where=text("state = 'failed'"),
    ),
    sqlite_with_rowid=False,
)

# Ingestions whose batches are in a table and that another installation loads.
foreign_ingestions = Table(
    "foreign_ingestions",
    metadata,
    Column("table_id", ForeignKey("tables.id"), primary_key=True),
    Column("ingestion_id", String(64), primary_key=True),
    Column("created_at", UtcMicroseconds, nullable=False),
)

# What happened, in the order in which it was committed; `persistence.telling` says how that is kept.
events = Table(
    "events",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("created_at", UtcMicroseconds, nullable=False, index=True),
    Column("tenant", String(64), nullable=False),
    Column("ingestion_id", String(64), nullable=False),
    Column("run_id", String(64)),
    Column("kind", String(32), nullable=False),
    Column("body", Text, nullable=False),
    # An id is never given twice, not even when the newest events are gone.
    sqlite_autoincrement=True,
)
PROGRESS_EVENTS = Index("ix_events_progress", events.c.run_id, sqlite_where=text("kind = 'run.progress'"))

run_logs = Table(
    "run_logs",
    metadata,
    Column("run_id", String(64), primary_key=True),
    # From 1 on; the lines that are missing in between were more than is kept.
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UtcMicroseconds, nullable=False, index=True),
    Column("level", String(16), nullable=False),
    Column("message", Text, nullable=False),
)

# What is counted for good, whatever becomes of the rows that it was counted from.
counters = Table(
    "counters",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("label", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# Whom an ingestion's runs are told to, as its document has it, with what only the database knows of it.
webhooks = Table(
    "webhooks",
    metadata,
    Column("ingestion_id", ForeignKey("ingestions.id"), primary_key=True),
    # Its name, or its address where it has none.
    Column("webhook", Text, primary_key=True),
    Column("url", Text, nullable=False),
    # Host and port.
    Column("receiver", Text, nullable=False),
    # JSON; NULL: all.
    Column("events", Text),
    Column("disabled_at", UtcMicroseconds),
    Column("disabled_reason", Text),
    # Its secret, sealed as credentials are; NULL where there is none.
    Column("ciphertext", LargeBinary),
    Column("nonce", LargeBinary),
    Column("wrapped_key", LargeBinary),
    Column("key_id", String(32)),
)

# The outbox: written in the transaction that ends a run, sent afterwards.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("position", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("ingestion_id", String(64), nullable=False),
    Column("webhook", Text, nullable=False),
    # Those of one webhook in one lane wait for each other: 0, or the position of one that was asked for again.
    Column("lane", BigInteger, nullable=False),
    Column("receiver", Text, nullable=False),
    Column("event", String(32), nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("body", Text, nullable=False),
    # pending, delivered, dead
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", UtcMicroseconds, nullable=False),
    # When it was written, or was last asked for again.
    Column("queued_at", UtcMicroseconds, nullable=False),
    Column("next_attempt_at", UtcMicroseconds),
    Column("last_attempt_at", UtcMicroseconds),
    Column("delivered_at", UtcMicroseconds),
    Column("last_status", Integer),
    Column("error", Text),
    Index("ix_webhook_deliveries_of_ingestion", "ingestion_id", "position"),
    # A position is never given twice, not even when the newest messages are gone.
    sqlite_autoincrement=True,
)
DELIVERIES_PENDING = Index(
    "ix_webhook_deliveries_pending",
    webhook_deliveries.c.ingestion_id,
    webhook_deliveries.c.webhook,
    webhook_deliveries.c.lane,
    webhook_deliveries.c.position,
    sqlite_where=text("state = 'pending'"),
)

_IS_LIVING_SERVICE = text("kind = 'service' and deleted_at is null")
UNIQUE_NAME = Index(
    "uq_ingestions_name",
    ingestions.c.tenant,
    ingestions.c.name,
    unique=True,
    sqlite_where=_IS_LIVING_SERVICE,
)
_HAS_FLOW_RUN = text("flow_run_id is not null")
UNIQUE_FLOW_RUN = Index(
    "uq_runs_flow_run",
    runs.c.flow_run_id,
    unique=True,
    sqlite_where=_HAS_FLOW_RUN,
)
_IS_NOT_OVER = text("status in ('queued', 'running')")
RUNS_NOT_OVER = Index("ix_runs_not_over", runs.c.status, sqlite_where=_IS_NOT_OVER)

IS_LOAD = text("kind = 'load'")
UNIQUE_LOAD_INGESTION = Index("uq_ingestions_load", ingestions.c.table_id, unique=True, sqlite_where=IS_LOAD)
