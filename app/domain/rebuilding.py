"""Give a ledger back from what a table and its manifests say. Pure: evidence in, batches out.

For every batch up to the last one there is one question: is it in the table, and with which files? The metadata answers
while it still knows the snapshot; after that the rows do; and where neither can, the answer is no guess but a refusal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from app.domain.batch import BatchKind, BatchManifest, BatchRef
from app.domain.errors import FileFailure, LedgerBehindTableError
from app.domain.files import EarlierVersion, version_by_time
from app.domain.replacing import RowsOf
from app.domain.upkeep import BatchCommit, StoredFile


@dataclass(frozen=True, slots=True)
class RestoredFile:
    """A file that a batch of the past loaded. `modified_at` is None where nobody kept it."""

    key: str
    version: str
    rows: int
    size_bytes: int = 0
    modified_at: datetime | None = None


@dataclass(frozen=True)
class RestoredBatch:
    """A batch of the past, as the ledger is to have it."""

    batch: BatchRef
    generation: int
    committed: bool
    loaded: tuple[RestoredFile, ...] = ()
    failed: tuple[FileFailure, ...] = ()
    snapshot_id: int | None = None
    kind: BatchKind = BatchKind.LOAD
    # Files that it loaded and whose rows a later batch took out.
    superseded: tuple[RestoredFile, ...] = ()
    # Versions whose rows it took out.
    replaced: tuple[EarlierVersion, ...] = ()
    # Whether its rows name their file; None where nobody knows.
    provenance: bool | None = None

    def after(self, gone: Collection[RowsOf]) -> RestoredBatch:
        """The same batch, now that these rows were taken out."""
        is_gone = [RowsOf(f.key, self.batch.batch_id) in gone for f in self.loaded]
        return replace(
            self,
            loaded=tuple(f for f, went in zip(self.loaded, is_gone, strict=True) if not went),
            superseded=tuple(f for f, went in zip(self.loaded, is_gone, strict=True) if went),
        )


@dataclass
class Doubts:
    """What a rebuild could not know."""

    # Files known from their rows alone: by the time they were modified, not by their version.
    files_by_rows: int = 0
    # Batches that left no trace: given up, or all their rows were deleted and their manifests lost.
    batches_without_trace: list[str] = field(default_factory=list)
    # Batches whose manifest lists files of which the table has no row: their files will be loaded again.
    batches_without_rows: list[str] = field(default_factory=list)
    # Batches taken for committed on the word of their manifest alone, in a table whose rows name no batches.
    batches_on_trust: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Evidence:
    """What is known of the batches of one ingestion."""

    table: str
    ingestion_id: str
    last: int
    # Number → the manifests of its tries.
    manifests: Mapping[int, Sequence[BatchManifest]]
    # Number → its commit, as far as the metadata still knows.
    commits: Mapping[int, BatchCommit]
    # Snapshots were expired: a batch without a commit may be in the table all the same.
    history_cut: bool
    # Whether the table's rows name their batches.
    by_file: bool
    # Rows that some manifest says were taken out, and of which the table has none.
    gone: frozenset[RowsOf] = frozenset()

    def undecided(self) -> set[str]:
        """The ids of the batches about which only the table's rows can tell."""
        numbers = (n for n in range(1, self.last + 1) if self._decided(n) is None)
        return {BatchRef(self.ingestion_id, n, 0).batch_id for n in numbers}

    def _decided(self, number: int) -> BatchManifest | bool | None:
        """The manifest of the committed try, False where none was, None where the rows have to tell."""
        commit = self.commits.get(number)
        if commit is None:
            return None if self.history_cut else False
        return next((m for m in self.manifests.get(number, ()) if m.batch.epoch == commit.batch.epoch), None)

    def batches(
        self, stored: Mapping[str, Sequence[StoredFile]], generation: int, doubts: Doubts
    ) -> Iterator[RestoredBatch]:
        """Yield the batches from the first to the last.

        Args:
            stored: The table's rows of each batch that was `undecided`, by batch id.
            generation: The ledger's own; of a batch without a manifest it is that of the batch before it.
            doubts: Filled with what could not be known.

        Raises:
            LedgerBehindTableError: It cannot be told of a batch which files are in.
        """
        before = min((m.generation for tries in self.manifests.values() for m in tries), default=generation)
        for number in range(1, self.last + 1):
            decided = self._decided(number)
            ref = BatchRef(self.ingestion_id, number, 0)
            if decided is None:
                chosen = self._by_rows(number, stored.get(ref.batch_id, ()), before, doubts)
            elif isinstance(decided, BatchManifest):
                chosen = self._by_manifest(decided)
            else:
                chosen = self._not_in(number, before)
            before = chosen.generation
            yield chosen

    def _by_manifest(self, manifest: BatchManifest) -> RestoredBatch:
        number = manifest.batch.number
        commit = self.commits.get(number)
        files = tuple(RestoredFile(f.key, f.version, f.rows, f.size_bytes) for f in manifest.files)
        snapshot_id = commit.snapshot_id if commit else None
        return RestoredBatch(
            manifest.batch,
            manifest.generation,
            committed=True,
            loaded=files,
            failed=manifest.failed,
            snapshot_id=snapshot_id,
            kind=manifest.kind,
            replaced=manifest.replaced,
            provenance=manifest.provenance,
        )

    def _not_in(self, number: int, generation: int) -> RestoredBatch:
        tries = sorted(self.manifests.get(number, ()), key=lambda m: m.batch.epoch)
        failed = tries[-1].failed if tries else ()
        generation = tries[-1].generation if tries else generation
        return RestoredBatch(BatchRef(self.ingestion_id, number, 0), generation, committed=False, failed=failed)

    def _by_rows(self, number: int, rows: Sequence[StoredFile], generation: int, doubts: Doubts) -> RestoredBatch:
        tries = sorted(self.manifests.get(number, ()), key=lambda m: -m.batch.epoch)
        if not self.by_file:
            return self._on_trust(number, tries, doubts)
        batch_id = BatchRef(self.ingestion_id, number, 0).batch_id
        if rows:
            fitting = self._fitting(tries, rows)
            return self._by_manifest(fitting) if fitting else self._from_rows(number, rows, generation, doubts)
        empty = next((m for m in tries if not self._left(m)), None)
        if empty is not None:
            return self._by_manifest(empty)
        (doubts.batches_without_rows if tries else doubts.batches_without_trace).append(batch_id)
        return self._not_in(number, generation)

    def _on_trust(self, number: int, tries: Sequence[BatchManifest], doubts: Doubts) -> RestoredBatch:
        batch_id = BatchRef(self.ingestion_id, number, 0).batch_id
        if len(tries) != 1:
            raise LedgerBehindTableError(
                f"The table {self.table} holds batch {batch_id}, and nothing says with which files: "
                f"{'several manifests' if tries else 'its manifest'} "
                f"{'contradict each other' if tries else 'is missing'}, and the table's rows do not name their files."
            )
        doubts.batches_on_trust.append(batch_id)
        return self._by_manifest(tries[0])

    def _from_rows(self, number: int, rows: Sequence[StoredFile], generation: int, doubts: Doubts) -> RestoredBatch:
        files = tuple(
            RestoredFile(f.key, version_by_time(f.modified_at), f.rows, 0, f.modified_at)
            for f in rows
            if f.key is not None
        )
        doubts.files_by_rows += len(files)
        commit = self.commits.get(number)
        epoch, snapshot_id = (commit.batch.epoch, commit.snapshot_id) if commit else (0, None)
        batch = BatchRef(self.ingestion_id, number, epoch)
        return RestoredBatch(batch, generation, committed=True, loaded=files, snapshot_id=snapshot_id, provenance=True)

    def _left(self, manifest: BatchManifest) -> dict[str | None, int]:
        """The rows that the table should still have of a try, by key: later batches may have taken some out."""
        batch_id = manifest.batch.batch_id
        return {f.key: f.rows for f in manifest.files if f.rows and RowsOf(f.key, batch_id) not in self.gone}

    def _fitting(self, tries: Sequence[BatchManifest], rows: Sequence[StoredFile]) -> BatchManifest | None:
        """The try whose files are those of the rows: to the row where one is, else with all of their keys."""
        found: dict[str | None, int] = {}
        for row in rows:
            found[row.key] = found.get(row.key, 0) + row.rows
        exact = next((m for m in tries if self._left(m) == found), None)
        return exact or next((m for m in tries if found.keys() <= {f.key for f in m.files}), None)
