"""Rebuild a table's ledger from the table: before a load that needs it, or because somebody asks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from app.domain.batch import BatchManifest, BatchRef
from app.domain.errors import InvalidFieldError, RunInProgressError, TableNotFoundError, TableRolledBackError
from app.domain.failpoints import NO_FAILPOINTS, Failpoints
from app.domain.files import EarlierVersion
from app.domain.ledger import Ledger, RestoredHead
from app.domain.ports import Catalog
from app.domain.rebuilding import Doubts, Evidence, RestoredBatch
from app.domain.replacing import RowsOf, rows_of
from app.domain.runs import Lease, Owner, TableRecord
from app.domain.sweeping import manifest_batch
from app.domain.table import LOAD_INGESTION, TableHead, TableName, epoch_property, last_batches
from app.domain.table_checks import batches_behind, check_identity
from app.domain.upkeep import BatchCommit, References, StoredFile, TableReader, TableStorage
from app.services.heartbeat import Heartbeat


@dataclass(frozen=True)
class RebuildPorts:
    """What a rebuild works with."""

    ledger: Ledger
    catalog: Catalog
    storage: TableStorage
    reader: TableReader
    owner: Owner
    failpoints: Failpoints = NO_FAILPOINTS


@dataclass(frozen=True)
class RebuildRequest:
    """Which table, and what is decided about ingestions that nobody here knows."""

    table: TableName
    adopt: str | None = None
    not_ours: str | None = None


@dataclass
class RebuildReport:
    """What the ledger was given back."""

    table: str
    ingestions: list[str] = field(default_factory=list)
    generation: int = 1
    # Of those that the ledger lacked.
    batches: int = 0
    files_loaded: int = 0
    files_failed: int = 0
    rows: int = 0
    doubts: Doubts = field(default_factory=Doubts)

    def sentences(self) -> list[str]:
        """What could not be known, for people."""
        doubts = self.doubts
        told = (
            (
                doubts.files_by_rows,
                "files are known by their rows and the time they were modified, not by their version",
            ),
            (
                len(doubts.batches_without_rows),
                "batches have a manifest and no row in the table: their files count as never loaded",
            ),
            (
                len(doubts.batches_without_trace),
                "batches left no trace: they were given up, or their rows were deleted and their manifests are lost",
            ),
            (
                len(doubts.batches_on_trust),
                "batches are taken for committed on the word of their manifest alone, for the rows name no batches",
            ),
        )
        return [f"The rebuilt ledger could not know everything: {what} ({number})." for number, what in told if number]


@dataclass(frozen=True)
class Hold:
    """A lease and the question whether it is alive."""

    lease: Lease
    assert_alive: Callable[[], None]


def known_ingestion(ledger: Ledger, record: TableRecord, head: TableHead | None) -> str | None:
    """The id under which the command line loaded the table before its database was lost, where this one may go on.

    It may not where the id is another installation's, or this ledger's for another table.
    """
    found = head.properties.get(LOAD_INGESTION) if head else None
    if head is None or found is None or found not in last_batches(head.properties):
        return None
    if found in ledger.foreign_ingestions(record):
        return None
    return found if ledger.table_of_ingestion(found) in (None, record.name) else None


def highest_epoch(storage: TableStorage, head: TableHead | None, ingestion_id: str, *, behind: bool) -> int:
    """The highest epoch of the ingestion that the table or, where the ledger is behind, any manifest has seen."""
    if head is None:
        return 0
    epochs = [epoch_in(head, ingestion_id)]
    if behind:
        named = (manifest_batch(f.name, {ingestion_id}) for f in storage.manifest_folder(head.name))
        epochs += [batch.epoch for batch in named if batch]
    return max(epochs)


def epoch_in(head: TableHead | None, ingestion_id: str) -> int:
    """The highest epoch of the ingestion that has fenced the table, or committed to it; 0 where none has."""
    text = head.properties.get(epoch_property(ingestion_id), "") if head else ""
    return int(text) if text.isdecimal() else 0


@contextmanager
def leased(
    ledger: Ledger,
    ingestion_id: str,
    table: TableName,
    *,
    owner: Owner,
    lease_s: float,
    above_epoch: int,
    failpoints: Failpoints,
) -> Iterator[Hold]:
    """Hold the lease of an ingestion for a while, under an epoch above that one and all before it.

    Raises:
        RunInProgressError: A run is at work on the table.
    """
    got = ledger.acquire(ingestion_id, uuid.uuid4().hex, owner, lease_s, above_epoch=above_epoch)
    if not isinstance(got, Lease):
        raise RunInProgressError(f"Run {got.run_id} is at work on {table}.", run_id=got.run_id)
    heartbeat = Heartbeat(ledger, got, lease_s, failpoints=failpoints)
    try:
        with heartbeat.beating():
            yield Hold(got, heartbeat.assert_alive)
    finally:
        ledger.release(got)


class Rebuilder:
    """Rebuilds one table's ledger."""

    def __init__(self, ports: RebuildPorts, table: TableName, *, lease_s: float) -> None:
        self._ports = ports
        self._table = table
        self._lease_s = lease_s

    def run(self, request: RebuildRequest) -> RebuildReport:
        """Do what was asked for, whether the ledger is behind or not. Idempotent.

        Raises:
            TableNotFoundError: There is no table.
            InvalidFieldError: An id that was given has no batch in the table, or is somebody else's.
            LedgerBehindTableError: Nobody here knows an ingestion of the table, or which files a batch brought in.
            RunInProgressError: A run is at work for one of the ingestions.
            TableReplacedError, TableRolledBackError: It is not the table that the ledger knows.
        """
        ledger = self._ports.ledger
        if self._ports.catalog.head(self._table) is None:
            raise TableNotFoundError(f"There is no table {self._table}.")
        # The record first: a head that is read later holds whatever was committed before, by a run at work too.
        record = ledger.ensure_table(str(self._table))
        head = self._ports.catalog.head(self._table)
        check_identity(record, head)
        if head is None:
            raise TableNotFoundError(f"There is no table {self._table}.")
        self._decide(request, record, head)
        mine = known_ingestion(ledger, record, head)
        if mine is not None and ledger.load_ingestion(record) is None and mine != request.adopt:
            ledger.ensure_load_ingestion(record, mine)
        given_out = ledger.committed_batches(record)
        batches_behind(record.name, head, given_out, ledger.foreign_ingestions(record))
        return self.rebuild(sorted(set(given_out) & set(last_batches(head.properties))), {})

    def _decide(self, request: RebuildRequest, record: TableRecord, head: TableHead) -> None:
        ledger = self._ports.ledger
        for ingestion_id in filter(None, (request.adopt, request.not_ours)):
            if ingestion_id not in last_batches(head.properties):
                raise InvalidFieldError(f"The table {self._table} holds no batch of an ingestion {ingestion_id}.")
        if request.not_ours is not None:
            if ledger.table_of_ingestion(request.not_ours) is not None:
                raise InvalidFieldError(f"The ingestion {request.not_ours} is one of this ledger's own.")
            ledger.disown(record, request.not_ours)
        if request.adopt is not None:
            owner = ledger.table_of_ingestion(request.adopt)
            if owner not in (None, record.name):
                raise InvalidFieldError(f"The ingestion {request.adopt} loads the table {owner} in this ledger.")
            ledger.adopt(record, request.adopt)

    def rebuild(self, ingestions: Sequence[str], held: dict[str, Hold]) -> RebuildReport:
        """Give the ledger the batches of these ingestions that it lacks.

        Args:
            ingestions: Ours, with batches in the table.
            held: Leases that the caller has; the others are taken for as long as it takes.

        Raises:
            As `run`.
        """
        report = RebuildReport(str(self._table))
        # Before anything is written to the table: one that is refused is left as it is.
        for ingestion_id in ingestions:
            self._look_for_rollback(ingestion_id)
        for ingestion_id in ingestions:
            holding = nullcontext(held[ingestion_id]) if ingestion_id in held else self._leased(ingestion_id)
            with holding as hold, self._ports.failpoints.step("ledger_rebuilt"):
                self._rebuild_one(hold, report)
        return report

    def _leased(self, ingestion_id: str) -> AbstractContextManager[Hold]:
        ports = self._ports
        return leased(
            ports.ledger,
            ingestion_id,
            self._table,
            owner=ports.owner,
            lease_s=self._lease_s,
            above_epoch=highest_epoch(ports.storage, ports.catalog.head(self._table), ingestion_id, behind=True),
            failpoints=ports.failpoints,
        )

    def _rebuild_one(self, hold: Hold, report: RebuildReport) -> None:
        ledger, lease = self._ports.ledger, hold.lease
        record = ledger.ensure_table(str(self._table))
        self._fence_if_behind(record, hold)
        references = self._ports.storage.references(self._table, ())
        told = self._told(references, lease.ingestion_id, record.generation)
        mine = told.manifests[lease.ingestion_id]
        generation = max([record.generation, *(m.generation for tries in mine.values() for m in tries)])
        batches, replaced = told.batches(record.generation, report.doubts)
        record = ledger.restore_generation(record, generation)
        # Before the batches: with the last of them the ledger counts as whole, and nobody would come back for the
        # number that the next batch may have, nor for what was replaced: one of them may have loaded the same version
        # of a file again.
        next_batch = max(told.evidence.last, max(mine, default=0)) + 1
        with self._ports.failpoints.step("head_restored"):
            ledger.restore_replaced(lease, record, replaced)
            ledger.restore_head(lease, record, _restored_head(record, references, next_batch))
        gone = rows_of(replaced)
        for restored in (batch.after(gone) for batch in batches):
            with self._ports.failpoints.step("batch_restored"):
                is_new = ledger.restore_batch(lease, record, restored)
            if not is_new:
                continue
            report.batches += 1
            if restored.generation == record.generation:
                report.files_loaded += len(restored.loaded)
                report.files_failed += len(restored.failed)
                report.rows += sum(f.rows for f in restored.loaded)
        report.ingestions.append(lease.ingestion_id)
        report.generation = record.generation

    def _fence_if_behind(self, record: TableRecord, hold: Hold) -> None:
        """Shut out a process of a database that is gone: it might commit what it has while we read."""
        ledger, ingestion_id = self._ports.ledger, hold.lease.ingestion_id
        head = self._ports.catalog.head(self._table)
        behind = batches_behind(record.name, head, ledger.committed_batches(record), ledger.foreign_ingestions(record))
        if ingestion_id in behind:
            batch = BatchRef(ingestion_id, behind[ingestion_id] + 1, hold.lease.epoch)
            with self._ports.failpoints.step("table_fenced"):
                self._ports.catalog.fence(self._table, batch, hold.assert_alive)

    def _manifests(self, ingestions: Collection[str]) -> Manifests:
        """The manifests of the ingestions' tries."""
        named = [f.path for f in self._ports.storage.manifest_folder(self._table) if _is_of(f.name, ingestions)]
        found: Manifests = {ingestion_id: {} for ingestion_id in ingestions}
        for manifest in self._ports.storage.read_manifests(self._table, named):
            if manifest is not None and manifest.batch.ingestion_id in found:
                found[manifest.batch.ingestion_id].setdefault(manifest.batch.number, []).append(manifest)
        return found

    def _look_for_rollback(self, ingestion_id: str) -> None:
        """Refuse a table that was rolled back behind a batch of the newest generation.

        Which generation that is the ledger learns even then, so that whoever clears it begins one above.
        """
        references = self._ports.storage.references(self._table, ())
        if not _lost(references, ingestion_id):
            return
        manifests = self._manifests({ingestion_id})[ingestion_id]
        record = self._ports.ledger.ensure_table(str(self._table))
        newest = max([record.generation, *(m.generation for tries in manifests.values() for m in tries)])
        self._ports.ledger.restore_generation(record, newest)
        self._refuse_rollback(references, ingestion_id, manifests, newest)

    def _refuse_rollback(self, references: References, ingestion_id: str, manifests: Tries, generation: int) -> None:
        for lost in _lost(references, ingestion_id):
            if _generation_of(lost.batch.number, manifests, generation) >= generation:
                raise TableRolledBackError(
                    f"The table {self._table} was rolled back: its history does not hold snapshot {lost.snapshot_id}, "
                    f"which batch {lost.batch.batch_id} made."
                )

    def _told(self, references: References, ingestion_id: str, generation: int) -> _Told:
        """What metadata, manifests and rows say of the batches of that ingestion, and of the others of the table."""
        head = references.head
        last = last_batches(head.properties)
        manifests = self._manifests({ingestion_id, *last})
        # Again: it may have been rolled back since, or been committed to before the fence.
        self._refuse_rollback(references, ingestion_id, manifests[ingestion_id], generation)
        contents = self._ports.reader.contents(self._table)
        evidences = {
            one: Evidence(
                table=str(self._table),
                ingestion_id=one,
                last=last[one],
                manifests=manifests[one],
                commits={c.batch.number: c for c in reversed(references.commits) if _is_commit(c, one)},
                history_cut=head.history_cut,
                by_file=contents.by_file,
            )
            # Where rows name no batches none were ever taken out, so that the others have nothing to say.
            for one in (last if contents.by_file else [ingestion_id])
        }
        undecided = {batch_id for evidence in evidences.values() for batch_id in evidence.undecided()}
        if not undecided or not contents.by_file:
            return _Told(ingestion_id, evidences, manifests, {})
        claimed = {r for tries in manifests.values() for t in tries.values() for m in t for r in rows_of(m.replaced)}
        stored, there = _rows_of(undecided, claimed, contents.files)
        gone = frozenset(claimed - there)
        evidences = {one: replace(evidence, gone=gone) for one, evidence in evidences.items()}
        return _Told(ingestion_id, evidences, manifests, stored)


# Number → the manifests of the batch's tries.
Tries: TypeAlias = dict[int, list[BatchManifest]]
# By ingestion id.
Manifests: TypeAlias = dict[str, Tries]


@dataclass(frozen=True)
class _Told:
    """What is known of the batches of one ingestion, and of those beside it that may have taken out its rows."""

    ingestion_id: str
    evidences: Mapping[str, Evidence]
    manifests: Manifests
    stored: Mapping[str, Sequence[StoredFile]]

    @property
    def evidence(self) -> Evidence:
        """Of the ingestion itself."""
        return self.evidences[self.ingestion_id]

    def batches(self, generation: int, doubts: Doubts) -> tuple[list[RestoredBatch], list[EarlierVersion]]:
        """The ingestion's batches, and every version that any batch of the table took out."""
        mine: list[RestoredBatch] = []
        replaced: list[EarlierVersion] = []
        for ingestion_id, evidence in self.evidences.items():
            is_mine = ingestion_id == self.ingestion_id
            for batch in evidence.batches(self.stored, generation, doubts if is_mine else Doubts()):
                replaced += batch.replaced if batch.committed else ()
                mine += [batch] if is_mine else []
        return mine, replaced


def _lost(references: References, ingestion_id: str) -> list[BatchCommit]:
    """Commits of the ingestion that the table's history should hold, and does not."""
    if references.head.history_cut:
        return []
    return [c for c in references.commits if c.batch.ingestion_id == ingestion_id and not c.in_history]


def _generation_of(number: int, manifests: Tries, generation: int) -> int:
    """The generation that the batch was loaded in; without a manifest that of the one before, else `generation`."""
    earlier = [n for n in manifests if n <= number]
    return max(m.generation for m in manifests[max(earlier)]) if earlier else generation


def _is_commit(commit: BatchCommit, ingestion_id: str) -> bool:
    return commit.in_history and commit.batch.ingestion_id == ingestion_id


def _is_of(name: str, ingestions: Collection[str]) -> bool:
    # Unfinished manifests begin with a dot.
    return not name.startswith(".") and manifest_batch(name, ingestions) is not None


def _rows_of(
    batch_ids: Collection[str], claimed: Collection[RowsOf], files: Iterator[StoredFile]
) -> tuple[dict[str, list[StoredFile]], set[RowsOf]]:
    """The rows of those batches, and which of the `claimed` rows there are."""
    found: dict[str, list[StoredFile]] = {}
    there: set[RowsOf] = set()
    for file in files:
        if file.batch_id is None or file.key is None:
            continue
        if file.batch_id in batch_ids:
            found.setdefault(file.batch_id, []).append(file)
        rows = RowsOf(file.key, file.batch_id)
        if rows in claimed:
            there.add(rows)
    return found, there


def _restored_head(record: TableRecord, references: References, next_batch: int) -> RestoredHead:
    """Our newest commit that is still in the history; where none is, the head itself."""
    head = references.head
    ours: list[BatchCommit] = [c for c in references.commits if c.in_history and c.snapshot_id is not None]
    newest = max(ours, key=lambda c: c.sequence_number or 0, default=None)
    if newest is None or newest.snapshot_id is None:
        return RestoredHead(head.uuid, head.snapshot_id, head.sequence_number, next_batch)
    if record.snapshot_id in head.ancestors and record.sequence_number > (newest.sequence_number or 0):
        return RestoredHead(head.uuid, record.snapshot_id, record.sequence_number, next_batch)
    return RestoredHead(head.uuid, newest.snapshot_id, newest.sequence_number or 0, next_batch)
