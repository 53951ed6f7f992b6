"""Remove what killed runs left beside a table: files of ours that nothing names, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from app.domain.batch import BatchRef
from app.domain.errors import AutoloaderError, TableNotFoundError
from app.domain.events import EventLog
from app.domain.failpoints import NO_FAILPOINTS, Failpoints
from app.domain.ledger import Ledger
from app.domain.runs import TableRecord
from app.domain.sweeping import Sweeping, data_file_batch, is_unfinished, manifest_batch
from app.domain.table import TableName, last_batches
from app.domain.table_checks import check_identity
from app.domain.upkeep import StoredObject, TableStorage

log = EventLog(__name__)

# So long are the files of an expired snapshot left to those who began to read it before.
GRACE = timedelta(hours=1)


@dataclass
class SweepReport:
    """What was removed, or would be."""

    table: str
    dry_run: bool
    data_files: list[StoredObject] = field(default_factory=list)
    manifests: list[StoredObject] = field(default_factory=list)
    # Of expired snapshots: Iceberg's manifests and manifest lists, and our notes of which they are.
    metadata_files: list[StoredObject] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """What the removed files took."""
        return sum(f.size_bytes for f in (*self.data_files, *self.manifests, *self.metadata_files))


class Sweeper:
    """Sweeps one table."""

    def __init__(
        self,
        ledger: Ledger,
        storage: TableStorage,
        table: TableName,
        *,
        lease_s: float,
        grace: timedelta = GRACE,
        failpoints: Failpoints = NO_FAILPOINTS,
    ) -> None:
        """Sweep with what the ledger knows.

        Args:
            ledger: The table's.
            storage: Where the table is.
            table: Its name.
            lease_s: Seconds that the longest lease holds; younger files are left alone.
            grace: How long the files of an expired snapshot stay.
            failpoints: For tests.
        """
        self._ledger = ledger
        self._storage = storage
        self._table = table
        self._lease = timedelta(seconds=lease_s)
        self._grace = grace
        self._failpoints = failpoints

    def sweep(self, *, dry_run: bool = False) -> SweepReport:
        """Find the leftovers and remove them, or with `dry_run` only say which they are.

        Data files that only expired snapshots name are leftovers when those snapshots' own files are gone; so with
        `dry_run` they are not among them.

        Raises:
            TableNotFoundError: There is no table, or no ledger of it.
            TableReplacedError, TableRolledBackError: It is not the table that the ledger knows; nothing was removed.
            WriteFailureError: A file cannot be removed; those before it are.
            AutoloaderError: As `TableStorage`.
        """
        record = self._record()
        report = SweepReport(str(self._table), dry_run)
        self._sweep_expired(report)
        self._sweep_leftovers(record, report)
        return report

    def sweep_expired(self) -> SweepReport:
        """Remove what expired snapshots left, and leftovers only where these may have let go of data files.

        Raises:
            As `sweep`.
        """
        record = self._record()
        report = SweepReport(str(self._table), dry_run=False)
        if self._sweep_expired(report):
            self._sweep_leftovers(record, report)
        return report

    def _record(self) -> TableRecord:
        record = self._ledger.table(str(self._table))
        if record is None:
            raise TableNotFoundError(f"No load into {self._table} is known to this ledger.")
        return record

    def _sweep_expired(self, report: SweepReport) -> bool:
        """Whether data files may be nobody's now."""
        with self._failpoints.step("expired_listed"):
            expired = self._storage.expired(self._table, datetime.now(UTC) - self._grace)
        report.metadata_files.extend(expired.files)
        if not report.dry_run:
            self._storage.remove(self._table, (f.path for f in expired.files))
        return expired.frees_data

    def _sweep_leftovers(self, record: TableRecord, report: SweepReport) -> None:
        with self._failpoints.step("leftovers_listed"):
            self._find(record, report)
        if not report.dry_run:
            self._storage.remove(self._table, (f.path for f in (*report.data_files, *report.manifests)))

    def _find(self, record: TableRecord, report: SweepReport) -> None:
        older_than = datetime.now(UTC) - self._lease
        # The order matters: files first, then what the ledger says of their batches, then the metadata. A batch that
        # is closed when the ledger is asked was committed before that, so the metadata that is read last names it.
        data = [f for f in self._storage.data_folder(self._table) if f.modified_at < older_than]
        manifests = [f for f in self._storage.manifest_folder(self._table) if f.modified_at < older_than]
        records = {(b.ingestion_id, b.number): b for b in self._ledger.batch_records(record)}
        references = self._storage.references(self._table, {f.name for f in data})
        check_identity(record, references.head)
        named = last_batches(references.head.properties)
        sweeping = Sweeping(records, record.generation, named, references.commits, older_than)
        ingestions = self._ingestions(record, set(named))
        for file in data:
            batch = data_file_batch(file.name, ingestions)
            if batch is not None and sweeping.is_closed(batch) and file.name not in references.names:
                report.data_files.append(file)
        for file in manifests:
            batch = manifest_batch(file.name, ingestions)
            if batch is not None and sweeping.is_closed(batch) and self._is_leftover(file, batch, sweeping):
                report.manifests.append(file)

    def _ingestions(self, record: TableRecord, named: set[str]) -> set[str]:
        known = named | set(self._ledger.committed_batches(record))
        return known - self._ledger.foreign_ingestions(record)

    def _is_leftover(self, file: StoredObject, batch: BatchRef, sweeping: Sweeping) -> bool:
        if is_unfinished(file.name):
            return True
        # Read only where its content can matter: where it lists files, does it have to go?
        if not sweeping.is_leftover_manifest(batch, lists_files=True):
            return False
        (manifest,) = self._storage.read_manifests(self._table, [file.path])
        return manifest is not None and sweeping.is_leftover_manifest(batch, lists_files=bool(manifest.files))


def sweep_quietly(sweep: Callable[[], SweepReport]) -> None:
    """Sweep after a recovery or an expiry. What goes wrong is logged and no more: the next sweep finds the same."""
    try:
        report = sweep()
    except AutoloaderError as error:
        log.warning("sweep_failed", code=error.code, reason=error.message)
        return
    log.info(
        "swept",
        data_files=len(report.data_files),
        manifests=len(report.manifests),
        metadata_files=len(report.metadata_files),
        size_bytes=report.size_bytes,
    )
