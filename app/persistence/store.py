"""What the parts of the ledger share: transactions, the database's clock, and rows that become nouns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Float,
    Row,
    Text,
    cast,
    extract,
    func,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.dialects import sqlite

from app.domain.failpoints import NO_FAILPOINTS, Failpoints, Step
from app.domain.files import FileState, LedgerFile
from app.domain.runs import TableRecord
from app.persistence.database import translated
from app.persistence.schema import ingestions, tables, without_nul
from app.persistence.turns import in_turn

PAGE_ROWS = 5_000


class _Named(Protocol):
    @property
    def key(self) -> str: ...

    @property
    def version(self) -> str: ...


class SqlStore:
    """Gives transactions on one database."""

    def __init__(self, engine: Engine, *, page_rows: int = PAGE_ROWS, failpoints: Failpoints = NO_FAILPOINTS) -> None:
        """Work on the database of `engine`, reading long results in pages of `page_rows` rows."""
        self._engine = engine
        self._page_rows = page_rows
        self._failpoints = failpoints

    @contextmanager
    def _write(self, commit_step: Step | None = None) -> Iterator[Connection]:
        """One transaction that may write; committed when the block ends, rolled back when it raises.

        Args:
            commit_step: The commit by itself is this step.
        """
        with translated(self._engine.url):
            with in_turn(self._engine), self._engine.begin() as connection:
                yield connection
                if commit_step:
                    self._failpoints.before(commit_step)
            if commit_step:
                self._failpoints.after(commit_step)

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

    def _now(self, connection: Connection) -> datetime:
        """The same as a time. The clock of SQLite is this machine's, which tells it in finer steps."""
        if self._engine.dialect.name == "sqlite":
            return datetime.now(UTC)
        return datetime.fromtimestamp(connection.execute(select(self._now_s())).scalar_one(), UTC)

    def _insert(self, table: Any) -> Any:  # noqa: ANN401 - the two dialects' inserts share no type with `on_conflict`
        """An INSERT with ON CONFLICT, which SQLAlchemy spells per dialect."""
        return insert_into(table, self._engine.dialect.name)

    def _run_many(self, connection: Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Run a statement once for each row, its values in the form in which they are stored.

        Args:
            connection: With a transaction.
            statement: In words that every database understands, a question mark for each value and none beside.
            rows: What stands for the question marks.
        """
        if rows:
            is_sqlite = self._engine.dialect.name == "sqlite"
            connection.exec_driver_sql(statement if is_sqlite else statement.replace("?", "%s"), list(rows))

    def _stored_names(self, of: Sequence[_Named]) -> tuple[list[str], list[str]]:
        """Keys and versions of files in the form in which they are stored."""
        keys, versions = [file.key for file in of], [file.version for file in of]
        if self._engine.dialect.name == "sqlite":
            return keys, versions
        return list(map(without_nul, keys)), list(map(without_nul, versions))

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


def insert_into(table: Any, dialect: str) -> Any:  # noqa: ANN401 - as `SqlStore._insert`
    """An INSERT with ON CONFLICT, in the words of that dialect."""
    if dialect == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415  # only where there is such a server

    return postgresql.insert(table)


def as_stored(engine: Engine, column: ColumnElement[str]) -> ColumnElement[str]:
    """The column without a look at each value, where the database holds every text as it is."""
    return type_coerce(column, Text) if engine.dialect.name == "sqlite" else column


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
