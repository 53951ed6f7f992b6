"""A table's rows, counted by the files and batches that they name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from pyiceberg.table import Table

from app.destinations.heads import table_head
from app.destinations.querying import quoted, stream
from app.domain.system_columns import BATCH_ID, FILE_MODIFIED_AT, FILE_PATH
from app.domain.table import TableName
from app.domain.upkeep import Contents, StoredFile

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def contents(name: TableName, table: Table) -> Contents:
    """Count the rows of the table as it was loaded; nothing is read before the result's files are."""
    names = {field.name for field in table.metadata.schema().fields}
    by_file = {FILE_PATH, BATCH_ID, FILE_MODIFIED_AT} <= names
    head = table_head(name, table.metadata)
    if table.metadata.current_snapshot() is None:
        return Contents(head, by_file, iter(()))
    return Contents(head, by_file, _by_file(name, table) if by_file else _in_all(name, table))


def _by_file(name: TableName, table: Table) -> Iterator[StoredFile]:
    # Texts are compared by their bytes, as keys are everywhere.
    sql = (
        f"select {FILE_PATH}, {BATCH_ID}, epoch_us({FILE_MODIFIED_AT}), count(*) from {quoted(name.name)} "  # noqa: S608  # quoted
        "group by 1, 2, 3 order by 1 nulls first, 2 nulls first, 3 nulls first"
    )
    for key, batch_id, modified_us, rows in _stream(name, table, sql):
        modified_at = None if modified_us is None else _EPOCH + timedelta(microseconds=modified_us)
        yield StoredFile(key, batch_id, rows, modified_at)


def _in_all(name: TableName, table: Table) -> Iterator[StoredFile]:
    sql = f"select count(*) from {quoted(name.name)}"  # noqa: S608  # quoted
    for (rows,) in _stream(name, table, sql):
        yield StoredFile(None, None, rows)


def _stream(name: TableName, table: Table, sql: str) -> Iterator[tuple[Any, ...]]:
    return stream(name, table.metadata, table.metadata_location, table.io.properties, sql)
