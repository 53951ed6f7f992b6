"""What the parts of the ledger share: transactions, the database's clock, and rows that become nouns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Float, Row, cast, extract, func, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite

from app.domain.files import FileState, LedgerFile
from app.domain.runs import TableRecord
from app.persistence.database import translated
from app.persistence.schema import ingestions, tables

PAGE_ROWS = 5_000


class SqlStore:
    """Gives transactions on one database."""

    def __init__(self, engine: Engine, *, page_rows: int = PAGE_ROWS) -> None:
        """Work on the database of `engine`, reading long results in pages of `page_rows` rows."""
        self._engine = engine
        self._page_rows = page_rows

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """One transaction that may write; committed when the block ends, rolled back when it raises."""
        with translated(self._engine.url), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        """One transaction that only reads: on SQLite it waits for no writer."""
        with (
            translated(self._engine.url),
            self._engine.connect().execution_options(read_only=True) as connection,
            connection.begin(),
        ):
            yield connection

    def _now_s(self) -> ColumnElement[float]:
        """Seconds since 1970 by the database's own clock, which all processes share."""
        if self._engine.dialect.name == "sqlite":
            return literal_column("((julianday('now') - 2440587.5) * 86400.0)", Float)
        return cast(extract("epoch", func.clock_timestamp()), Float)

    def _insert(self, table: Any) -> Any:  # noqa: ANN401 - the two dialects' inserts share no type with `on_conflict`
        """An INSERT with ON CONFLICT, which SQLAlchemy spells per dialect."""
        return (sqlite if self._engine.dialect.name == "sqlite" else postgresql).insert(table)

    def _lock_table(self, connection: Connection, table_id: int) -> None:
        """Let no other transaction that writes to the ledger of that table go on until this one has ended.

        On SQLite every transaction that writes is alone from its beginning. Elsewhere each one that decides by what
        it reads takes this lock before it reads, and before any other: so they wait for each other in one order, and
        each sees what the one before it did.
        """
        connection.execute(select(tables.c.id).where(tables.c.id == table_id).with_for_update(key_share=True))

    def _lock_table_of(self, connection: Connection, ingestion_id: str) -> None:
        """The same for the table that the ingestion loads; nothing where the ingestion is not known."""
        connection.execute(
            select(tables.c.id)
            .join(ingestions, ingestions.c.table_id == tables.c.id)
            .where(ingestions.c.id == ingestion_id)
            .with_for_update(of=tables, key_share=True)
        )

    def dispose(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def storable(text: str | None) -> str | None:
    r"""The text as every database can hold it: half a surrogate pair, and U+0000, are written out as `\u….`."""
    if text is None:
        return None
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def table_record(row: Row[Any]) -> TableRecord:
    """A row of `tables` as a noun."""
    return TableRecord(
        id=row.id,
        name=row.name,
        uuid=row.uuid,
        generation=row.generation,
        snapshot_id=row.snapshot_id,
        sequence_number=row.sequence_number,
        last_seen_at=row.committed_at,
    )


def ledger_file(row: Row[Any]) -> LedgerFile:
    """A row of `files` as a noun."""
    return LedgerFile(
        key=row.key,
        version=row.version,
        state=FileState(row.state),
        size_bytes=row.size_bytes,
        rows=row.rows,
        batch_id=None if row.batch_number is None else f"{row.ingestion_id}-{row.batch_number:08d}",
        run_id=row.run_id,
        category=row.category,
        message=row.message,
        line=row.line,
        retryable=row.retryable,
        tries=row.tries,
        next_try_at=row.next_try_at,
    )
