"""The rows of files: read in key order and in pages, so that memory stays flat however long the history is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice

from sqlalchemy import ColumnElement, or_, select, tuple_

from app.domain.files import FileState, LedgerFile, SourceFile
from app.domain.runs import TableRecord
from app.persistence.schema import files
from app.persistence.store import PAGE_ROWS, SqlStore, ledger_file

# What a version that is not to be loaded may have been before.
_UNDECIDED = (FileState.DISCOVERED.value, FileState.FAILED.value)


class SqlFiles(SqlStore):
    """Keeps the promises of `domain.ledger.Files`."""

    def files_after(self, table: TableRecord, key: str) -> Iterator[LedgerFile]:
        """The rows of this generation from `key` on, in key order. No transaction stays open between pages."""
        position: ColumnElement[bool] = files.c.key >= key
        while True:
            page = self._page(table, position, self._page_rows)
            yield from page
            if len(page) < self._page_rows:
                return
            position = tuple_(files.c.key, files.c.version) > (page[-1].key, page[-1].version)

    def mark(self, table: TableRecord, run_id: str, files: Iterable[tuple[SourceFile, FileState]]) -> None:
        """Note versions that are not to be loaded. A version that was loaded, or is being loaded, stays as it is."""
        remaining = iter(files)
        while chunk := list(islice(remaining, PAGE_ROWS)):
            self._mark(table, run_id, chunk)

    def _mark(self, table: TableRecord, run_id: str, chunk: list[tuple[SourceFile, FileState]]) -> None:
        now = datetime.now(UTC)
        rows = [
            {
                "table_id": table.id,
                "generation": table.generation,
                "key": file.key,
                "version": file.version,
                "state": state.value,
                "size_bytes": file.size_bytes,
                "modified_at": file.modified_at,
                "run_id": run_id,
                "retryable": False,
                "tries": 0,
                "updated_at": now,
            }
            for file, state in chunk
        ]
        statement = self._insert(files)
        statement = statement.on_conflict_do_update(
            index_elements=["table_id", "generation", "key", "version"],
            set_={name: statement.excluded[name] for name in ("state", "run_id", "updated_at")},
            where=or_(*(files.c.state == state for state in _UNDECIDED)),
        )
        with self._write() as connection:
            self._lock_table(connection, table.id)
            connection.execute(statement, rows)

    def list_files(self, table: TableRecord, *, failed: bool, limit: int, after: str | None) -> list[LedgerFile]:
        """A page of rows in key order."""
        position: ColumnElement[bool] = files.c.key > ("" if after is None else after)
        if failed:
            position &= files.c.state == FileState.FAILED.value
        page = self._page(table, position, limit)
        if page and len(page) == limit:
            # The rest of the last key's versions: the next page begins behind the key.
            rest = (files.c.key == page[-1].key) & (files.c.version > page[-1].version)
            page += self._page(table, (position & rest), PAGE_ROWS)
        return page

    def _page(self, table: TableRecord, position: ColumnElement[bool], limit: int) -> list[LedgerFile]:
        statement = (
            select(files)
            .where(files.c.table_id == table.id, files.c.generation == table.generation, position)
            .order_by(files.c.key, files.c.version)
            .limit(limit)
        )
        with self._read() as connection:
            return [ledger_file(row) for row in connection.execute(statement)]
