"""The promises of the ledger: what we know of each file of a table, durable before the next step begins.

Every method is one transaction. All raise LedgerBusyError when the database is locked for too long,
LedgerUnreachableError when its server is gone, and LedgerUnreadableError when it cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.domain.batch import BatchKind, BatchRef
from app.domain.definition import Definition
from app.domain.discovery import LedgerPage
from app.domain.errors import FileFailure
from app.domain.files import EarlierVersion, FileState, KnownVersion, LedgerFile, LoadedFile, SourceFile
from app.domain.rebuilding import RestoredBatch
from app.domain.runs import Lease, LeaseHolder, Owner, RunReport, TableRecord
from app.domain.sweeping import BatchRecord


@dataclass(frozen=True)
class OpenBatch:
    """A batch that was claimed and not closed: nobody knows yet whether it is in the table."""

    batch: BatchRef
    generation: int
    kind: BatchKind
    definition: Definition
    files: tuple[SourceFile, ...]
    # Loaded versions of the batch's files, as they were when it was claimed: what a REPLACE batch takes out.
    earlier: tuple[EarlierVersion, ...] = ()
    # Whether somebody cancelled the run that claimed it: then nobody wants what is not in the table yet.
    cancelled: bool = False

    @property
    def replaces(self) -> tuple[EarlierVersion, ...]:
        """The versions whose rows go when the batch loads the new ones."""
        return self.earlier if self.kind is BatchKind.REPLACE else ()


@dataclass(frozen=True)
class Closing:
    """How a batch ended: what became of each of its files. Files of the claim in neither list go back to be found."""

    batch: BatchRef
    committed: bool
    loaded: tuple[LoadedFile, ...] = ()
    failed: tuple[FileFailure, ...] = ()
    # Versions whose rows the batch took out of the table.
    replaced: tuple[EarlierVersion, ...] = ()
    snapshot_id: int | None = None
    sequence_number: int | None = None
    table_uuid: str | None = None


@dataclass(frozen=True)
class RestoredHead:
    """Where a table stands after a rebuild. `next_batch` is above every number that was ever given out."""

    uuid: str
    snapshot_id: int | None
    sequence_number: int
    next_batch: int


class Leases(Protocol):
    """One run at a time for an ingestion; the database's clock decides."""

    def acquire(
        self, ingestion_id: str, run_id: str, owner: Owner, seconds: float, *, above_epoch: int = 0
    ) -> Lease | LeaseHolder:
        """Take the lease if it is free, has run out, or its holder's process on this host is gone; else who holds it.

        The epoch rises with every lease, so that an older holder can be told from the present one. It is above
        `above_epoch` too: a database that was lost or restored gives out no epoch that the table has seen.
        """
        ...

    def renew(self, lease: Lease, seconds: float) -> bool:
        """Extend it; False when it is no longer ours."""
        ...

    def is_alive(self, lease: Lease) -> bool:
        """Whether it is ours and has not run out."""
        ...

    def release(self, lease: Lease) -> None:
        """Give it back. Another holder's lease is left alone."""
        ...


class Tables(Protocol):
    """The tables that have a ledger."""

    def table(self, name: str) -> TableRecord | None:
        """The record of the table of that full name."""
        ...

    def ensure_table(self, name: str) -> TableRecord:
        """The record, made when missing."""
        ...

    def load_ingestion(self, table: TableRecord) -> str | None:
        """The id under which the command line loads the table."""
        ...

    def ensure_load_ingestion(self, table: TableRecord, ingestion_id: str) -> str:
        """The id under which the command line loads the table; `ingestion_id` from now on when there was none."""
        ...

    def committed_batches(self, table: TableRecord) -> dict[str, int]:
        """Ingestion id → the highest number of a batch that may be in the table, for every ingestion of the table.

        A batch that was given up cannot be: should it be there all the same, the table holds more than we know.
        """
        ...

    def count_open_batches(self, table: TableRecord) -> int:
        """How many batches of the table were claimed and not closed."""
        ...

    def batch_records(self, table: TableRecord) -> list[BatchRecord]:
        """Every batch of the table, of every generation and ingestion."""
        ...

    def clear(self, table: TableRecord, *, fenced: Mapping[str, int] | None = None) -> tuple[int, int]:
        """Begin a new generation, forgetting which table it was; returns (files that were loaded, new generation).

        Whoever held a lease on one of its ingestions before has lost it for good.

        Args:
            table: Which one.
            fenced: Ingestion id → the epoch under which the table was fenced, for every ingestion with an open batch;
                None: nobody can commit such a batch any more.

        Raises:
            RunInProgressError: A run is at work on the table, or was since the table was fenced.
        """
        ...


class Restoring(Protocol):
    """What gives a ledger back that was lost, or that is older than its table."""

    def table_of_ingestion(self, ingestion_id: str) -> str | None:
        """Name of the table that the ingestion loads; None where the ledger does not know it."""
        ...

    def foreign_ingestions(self, table: TableRecord) -> frozenset[str]:
        """Ingestions that load the table and belong to another installation."""
        ...

    def disown(self, table: TableRecord, ingestion_id: str) -> None:
        """Note that the ingestion belongs to another installation. Again: no change."""
        ...

    def adopt(self, table: TableRecord, ingestion_id: str) -> None:
        """Make the ingestion one of this ledger, and no longer another installation's. Again: no change."""
        ...

    def restore_generation(self, table: TableRecord, generation: int) -> TableRecord:
        """Raise the table's generation to this one at least; returns the record as it then is."""
        ...

    def restore_replaced(self, lease: Lease, table: TableRecord, replaced: Sequence[EarlierVersion]) -> None:
        """Note of versions that the ledger has as loaded by the batches named in them that they are superseded.

        Raises:
            LeaseLostError: The lease is not ours any more; nothing was changed.
        """
        ...

    def restore_batch(self, lease: Lease, table: TableRecord, restored: RestoredBatch) -> bool:
        """Record a batch of the past and, where it is of the table's generation, its files; all or nothing.

        A batch that the ledger has as committed stays as it is; one that is open is closed by this.

        Returns:
            Whether anything was changed.

        Raises:
            LeaseLostError: The lease is not ours any more; nothing was changed.
        """
        ...

    def restore_head(self, lease: Lease, table: TableRecord, head: RestoredHead) -> None:
        """Note which table it is, our last commit as far as it is known, and the next number that may be given out.

        Raises:
            LeaseLostError: The lease is not ours any more; nothing was changed.
        """
        ...


class Runs(Protocol):
    """The runs and their reports."""

    def start_run(self, run_id: str, ingestion_id: str, table: TableRecord) -> None:
        """Make the row of a run that works now. Again for the same id: no change."""
        ...

    def finish_run(self, report: RunReport, error: str | None = None) -> None:
        """Keep how it ended."""
        ...


class Batches(Protocol):
    """Claims and how they ended."""

    def claim(
        self, lease: Lease, table: TableRecord, definition: Definition, files: Sequence[SourceFile]
    ) -> OpenBatch | None:
        """Make the next batch of the ingestion durable, with those of `files` that nobody else has claimed or loaded.

        What the definition says of new versions of loaded files holds: ignored, they are left out; else they are in
        it, and so is which versions of them are loaded now.

        Returns:
            The batch; None when no file was left to claim.

        Raises:
            LeaseLostError: The lease is not ours any more; nothing was claimed.
        """
        ...

    def open_batches(self, lease: Lease, table: TableRecord) -> list[OpenBatch]:
        """The ingestion's batches that were not closed, oldest first, under the lease's epoch from now on."""
        ...

    def orphaned_ingestions(self, table: TableRecord) -> list[str]:
        """Ingestions that were deleted and still have batches in the table's ledger that were not closed."""
        ...

    def close(self, lease: Lease, table: TableRecord, closing: Closing) -> None:
        """Record how a batch ended and the table's head with it, all or nothing. Again for a closed batch: no change.

        Raises:
            LeaseLostError: The lease is not ours any more; the next holder settles the batch.
        """
        ...


class Files(Protocol):
    """The rows of files."""

    def versions_after(self, table: TableRecord, key: str) -> Iterator[KnownVersion]:
        """As `files_after`, with no more of each row than decides about a listed file: this is read by every run."""
        ...

    def pages_after(self, table: TableRecord, key: str) -> Iterator[LedgerPage]:
        """What is known in this generation of the keys from `key` on (included), page by page in key order.

        Raises:
            LedgerUnreadableError: The database gives the keys in another order.
        """
        ...

    def files_after(self, table: TableRecord, key: str) -> Iterator[LedgerFile]:
        """The rows of this generation from `key` on (included), in key order, read in pages."""
        ...

    def mark(self, table: TableRecord, run_id: str, files: Iterable[tuple[SourceFile, FileState]]) -> None:
        """Note versions of files that were seen and are not to be loaded (skipped, changed).

        A version that was loaded, or is being loaded, stays as it is.
        """
        ...

    def list_files(self, table: TableRecord, *, failed: bool, limit: int, after: str | None) -> list[LedgerFile]:
        """A page of rows in key order, after the given key (excluded).

        It holds about `limit` rows: a key's versions are never parted, so that the last key is where the next begins.
        """
        ...


class Ledger(Leases, Tables, Restoring, Runs, Batches, Files, Protocol):
    """The whole ledger."""

    def dispose(self) -> None:
        """Close its connections."""
        ...
