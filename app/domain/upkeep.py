"""What a table shows of itself when it is held against the ledger, and the ports that look."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.domain.batch import BatchManifest, BatchRef
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


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A file that lies beside a table. `modified_at` is by the storage's own clock."""

    path: str
    size_bytes: int
    modified_at: datetime

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class BatchCommit:
    """A try of a batch of which the metadata still says that it was committed.

    `snapshot_id` is None where only the table's property says so. `in_history` is False for a commit that is no
    ancestor of the current snapshot, as after a rollback.
    """

    batch: BatchRef
    manifest_path: str | None
    snapshot_id: int | None = None
    sequence_number: int | None = None
    in_history: bool = True


@dataclass(frozen=True)
class Expired:
    """What snapshots that we expired left beside a table: files that no other snapshot needs."""

    # In the order in which they have to be removed.
    files: tuple[StoredObject, ...] = ()
    # Whether one of the snapshots took rows out of the table, so that data files too may be nobody's by now.
    frees_data: bool = False


@dataclass(frozen=True)
class References:
    """What one moment's metadata holds on to."""

    head: TableHead
    # Names (last parts of paths) of those that were asked about and that some snapshot names, as data or as deletes.
    names: frozenset[str]
    commits: tuple[BatchCommit, ...]


class TableStorage(Protocol):
    """The files beside a catalog's tables.

    Every method raises TableNotFoundError where there is no table, CatalogUnreachableError where storage or catalog do
    not answer, TableUnreadableError where metadata is broken.
    """

    def data_folder(self, table: TableName) -> Iterator[StoredObject]:
        """What lies in the folder that data files are written to; not what lies in folders below it."""
        ...

    def manifest_folder(self, table: TableName) -> Iterator[StoredObject]:
        """What lies in the folder of the batches' manifests; nothing where the table names none."""
        ...

    def read_manifests(self, table: TableName, paths: Iterable[str]) -> Iterator[BatchManifest | None]:
        """The manifest at each of the paths, in their order; None where there is none that can be read."""
        ...

    def references(self, table: TableName, names: Collection[str]) -> References:
        """Which of the names any snapshot holds on to: current, or older, or expired with its files still there."""
        ...

    def expired(self, table: TableName, before: datetime) -> Expired:
        """What is left of the snapshots that `Catalog.expire` let go before a moment, by the storage's clock."""
        ...

    def remove(self, table: TableName, paths: Iterable[str]) -> None:
        """Remove files. One that is gone already is no error.

        Raises:
            WriteFailureError: One cannot be removed; those before it are gone.
        """
        ...
