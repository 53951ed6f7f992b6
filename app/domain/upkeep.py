"""What a table shows of itself when it is held against the ledger, and the port that looks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.domain.table import TableHead, TableName


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The rows of one source file that one batch put into a table.

    `key` and `batch_id` are None for rows that name none: rows of somebody else's.
    """

    key: str | None
    batch_id: str | None
    rows: int
    modified_at: datetime | None = None


@dataclass(frozen=True)
class Contents:
    """A table's rows, counted by file and batch, as one snapshot has them."""

    head: TableHead
    # False: the table has no columns that name files and batches; `files` is then one entry with all rows, or none.
    by_file: bool
    # In key order (rows without a key first), then by batch; streamed, so that it may be read once only.
    files: Iterator[StoredFile]


class TableReader(Protocol):
    """Looks at the rows of a catalog's tables."""

    def contents(self, table: TableName) -> Contents:
        """The table's rows, counted by file and batch.

        Raises:
            TableNotFoundError: There is no table.
            TableUnreadableError: Its files cannot be read; raised while `files` is read, too.
            CatalogUnreachableError, CatalogAuthError: As `Catalog.head`.
        """
        ...
