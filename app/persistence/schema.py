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
        return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Microseconds to time."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


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
        if value is None or dialect.name != "postgresql":
            return value
        return value.replace("\1", "\1\2").replace("\0", "\1\1")

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """What is stored to text."""
        if value is None or dialect.name != "postgresql":
            return value
        return value.replace("\1\1", "\0").replace("\1\2", "\1")


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
    Column("files", BigInteger),
    Column("rows", BigInteger),
    Column("snapshot_id", BigInteger),
    Column("created_at", UtcMicroseconds, nullable=False),
    Column("closed_at", UtcMicroseconds),
    Index(
        "ix_batches_open", "ingestion_id", sqlite_where=text("state = 'open'"), postgresql_where=text("state = 'open'")
    ),
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
        postgresql_where=text("state = 'processing'"),
    ),
    Index(
        "ix_files_failed",
        "table_id",
        "generation",
        "key",
        sqlite_where=text("state = 'failed'"),
        postgresql_where=text("state = 'failed'"),
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

IS_LOAD = text("kind = 'load'")
UNIQUE_LOAD_INGESTION = Index(
    "uq_ingestions_load", ingestions.c.table_id, unique=True, sqlite_where=IS_LOAD, postgresql_where=IS_LOAD
)
