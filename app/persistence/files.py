"""The rows of files: read in key order and in pages, so that memory stays flat however long the history is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Any, cast

from sqlalchemy import BigInteger, ColumnElement, Integer, Select, Text, func, or_, select, tuple_, type_coerce

from app.domain.discovery import LedgerPage, check_rising
from app.domain.files import FileState, KnownVersion, LedgerFile, SourceFile
from app.domain.runs import TableRecord
from app.persistence.schema import files, utc_time
from app.persistence.store import PAGE_ROWS, SqlStore, as_stored, ledger_file

# Who asks for the rows of one file is not given thousands; pages grow for those who read on.
FIRST_PAGE_ROWS = 100
_STATES = {state.value: state for state in FileState}
# What a version that is not to be loaded may have been before.
_NOT_LOADED = func.nullif(files.c.state, FileState.SUCCESS.value, type_=Text)
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

    def versions_after(self, table: TableRecord, key: str) -> Iterator[KnownVersion]:
        """As `files_after`, a tuple a row: the columns come as the driver gives them, for there may be millions."""
        columns = (
            as_stored(self._engine, files.c.key),
            as_stored(self._engine, files.c.version),
            files.c.state,
            type_coerce(files.c.retryable, Integer),
            files.c.tries,
            type_coerce(files.c.next_try_at, BigInteger),
        )
        position: ColumnElement[bool] = files.c.key >= key
        rows = min(FIRST_PAGE_ROWS, self._page_rows)
        while True:
            statement = _of_generation(select(*columns), table, position, rows)
            with self._read() as connection:
                page = [
                    KnownVersion(k, v, _STATES[s], bool(retryable), tries, None if due is None else utc_time(due))
                    for k, v, s, retryable, tries, due in connection.execute(statement).all()
                ]
            yield from page
            if len(page) < rows:
                return
            rows = min(rows * 4, self._page_rows)
            position = tuple_(files.c.key, files.c.version) > (page[-1].key, page[-1].version)

    def pages_after(self, table: TableRecord, key: str) -> Iterator[LedgerPage]:
        """What is known of the keys from `key` on, in pages that grow. No transaction stays open between them."""
        columns = (as_stored(self._engine, files.c.key), as_stored(self._engine, files.c.version), _NOT_LOADED)
        position: ColumnElement[bool] = files.c.key >= key
        rows = min(FIRST_PAGE_ROWS, self._page_rows)
        while page := self._rows(_of_generation(select(*columns), table, position, rows)):
            full = len(page) == rows
            if full:
                # The versions of a key are never parted.
                rest = (files.c.key == page[-1][0]) & (files.c.version > page[-1][1])
                page += self._rows(_of_generation(select(*columns), table, rest, None))
            yield self._ledger_page(table, page)
            if not full:
                return
            rows = min(rows * 4, self._page_rows)
            position = tuple_(files.c.key, files.c.version) > page[-1][:2]

    def _rows(self, statement: Select[tuple[str, str, str | None]]) -> list[tuple[str, str, str | None]]:
        with self._read() as connection:
            result = connection.execute(statement)
            if self._engine.dialect.name == "sqlite" and result.cursor is not None:
                # As the driver gives them: making rows of SQLAlchemy's costs as much again as reading them.
                return cast("list[tuple[str, str, str | None]]", result.cursor.fetchall())
            return [(key, version, state) for key, version, state in result]

    def _ledger_page(self, table: TableRecord, page: list[tuple[str, str, str | None]]) -> LedgerPage:
        keys, versions, states = zip(*page, strict=True)
        check_rising(keys)
        first, last = keys[0], keys[-1]
        loaded = dict(zip(keys, versions, strict=True))
        if len(loaded) == len(page) and not any(states):
            return LedgerPage(last, loaded, {})
        loaded = {key: version for key, version, state in page if state is None}
        counts = Counter(keys)
        more = {key for key, _, state in page if state is not None or counts[key] > 1}
        others: dict[str, tuple[KnownVersion, ...]] = dict.fromkeys(more, ())
        for known in takewhile(lambda known: known.key <= last, self.versions_after(table, first)):
            if known.key in more:
                others[known.key] = (*others[known.key], known)
        return LedgerPage(last, loaded, others)

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
        statement = _of_generation(select(files), table, position, limit)
        with self._read() as connection:
            return [ledger_file(row) for row in connection.execute(statement)]


def _of_generation(
    statement: Select[Any], table: TableRecord, position: ColumnElement[bool], limit: int | None
) -> Select[Any]:
    return (
        statement.where(files.c.table_id == table.id, files.c.generation == table.generation, position)
        .order_by(files.c.key, files.c.version)
        .limit(limit)
    )
