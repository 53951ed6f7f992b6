"""Load one batch: schema, data files, manifest, guarded commit. The ledger is told afterwards, by the caller."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count

from app.domain.batch import BatchManifest
from app.domain.errors import (
    AlreadyCommittedError,
    AutoloaderError,
    CatalogRefusedError,
    CatalogUnreachableError,
    CommitUnknownError,
    FileFailure,
    LeaseLostError,
    LedgerBehindTableError,
    LedgerUnreachableError,
    LedgerUnreadableError,
    LedgerWriteError,
    TableConflictError,
    WriteFailureError,
)
from app.domain.events import EventLog
from app.domain.evolution import plan_changes, without_clashes
from app.domain.failpoints import Failpoints
from app.domain.ledger import Closing, OpenBatch
from app.domain.ports import Catalog, CommitOrder, Committed, Draft, Engine, FoundBatch, Progress, Reading
from app.domain.replacing import without_provenance
from app.domain.system_columns import data_columns, system_columns
from app.domain.table import LOAD_INGESTION, TableHead, TableName, last_batches
from app.domain.types import EMPTY, Struct, join_structs, without_unknown
from app.services.replacing import RowsStayError, take_out
from app.services.writing import WritePlan, Written, fits, write_all

log = EventLog(__name__)

# The table may be changed under a batch by others; so often it is loaded anew before the run gives up for now.
MAX_CONFLICTS = 5
# Seconds between tries to learn what became of a commit that nobody answered for.
UNKNOWN_WAITS_S = (0.1, 0.5, 2.0, 5.0, 10.0)
# One that is only busy may answer when the commit is tried again.
_LEDGER_FAILED = (LedgerUnreachableError, LedgerUnreadableError, LedgerWriteError)


@dataclass(frozen=True)
class BatchTask:
    """One batch to be loaded."""

    batch: OpenBatch
    table: TableName
    reading: Reading
    assert_lease: Callable[[], None]
    # The table now; refuses one that is not the one the ledger knows.
    head: Callable[[], TableHead | None]
    progress: Progress
    warn: Callable[[str], None]
    # Called when the batch's commit left the table with more snapshots than it has to keep.
    history_grew: Callable[[], None]
    # Called when the batch is committed once more, because others were faster or nobody answered.
    retried: Callable[[], None]
    # Whether its ingestion is the command line's: then the table names it, for a database that is lost.
    is_load: bool = True


class BatchLoader:
    """Loads batches into the tables of one catalog."""

    def __init__(
        self,
        catalog: Catalog,
        engine: Engine,
        failpoints: Failpoints,
        *,
        unknown_waits_s: tuple[float, ...] = UNKNOWN_WAITS_S,
    ) -> None:
        self._catalog = catalog
        self._engine = engine
        self._failpoints = failpoints
        self._unknown_waits_s = unknown_waits_s
        # Whether a request to commit the batch that is being loaded may have been sent.
        self.may_be_committed = False

    def load(self, task: BatchTask) -> Closing:
        """Bring the batch into the table, at most once, and say how it ended.

        Raises:
            LeaseLostError: Another run has taken over; nothing of ours is in the table.
            CommitUnknownError: Nobody can say whether it is in; the batch must stay open.
            AutoloaderError: Anything else; nothing of the batch is in the table.
        """
        self.may_be_committed = False
        barred = without_provenance(task.batch.files, task.batch.replaces)
        conflicts = 0
        while True:
            try:
                return self._attempt(task, barred)
            except TableConflictError as conflict:
                log.info("batch_conflict", batch_id=task.batch.batch.batch_id, reason=str(conflict))
                conflicts += 1
                if conflicts == MAX_CONFLICTS:
                    raise
                task.retried()
            except RowsStayError as refusal:
                # Each time it is other files, so that this comes to an end.
                log.info("rows_stay", batch_id=task.batch.batch.batch_id, files=len(refusal.failures))
                barred |= refusal.failures

    def _attempt(self, task: BatchTask, barred: Mapping[str, FileFailure]) -> Closing:
        head = task.head()
        batch = task.batch.batch
        if head is not None and last_batches(head.properties).get(batch.ingestion_id, 0) >= batch.number:
            # Another database gave out the number too. A manifest of ours must not take the place of that one's.
            found = self._look_up(task)
            if found is not None:
                return closing_from_table(task.batch, task.table, found)
        draft_for = self._draft_existing(task, head) if head else self._draft_new(task)
        plan = _write_plan(task, self._in_steps(draft_for), barred)
        self._failpoints.before("data_written")
        written = write_all(self._engine, plan, task.progress)
        written = replace(written, failed=(*written.failed, *barred.values()))
        try:
            self._failpoints.after("data_written")
            with self._failpoints.step("rows_taken_out"):
                written = self._take_out(task, written, plan)
            if not written.data_files and head is None:
                return _closing(task, written, None)
            with self._failpoints.step("manifest_written"):
                manifest_path = written.draft.write_manifest(_manifest(task, written))
        except BaseException:
            written.discard()
            raise
        if not written.data_files and not written.taken.removal.found:
            return _closing(task, written, None)
        return self._commit(task, written, manifest_path, is_new=head is None)

    def _in_steps(self, draft_for: Callable[[Struct], Draft]) -> Callable[[Struct], Draft]:
        def draft_in_a_step(observed: Struct) -> Draft:
            with self._failpoints.step("drift_drafted" if observed.fields else "table_drafted"):
                return draft_for(observed)

        return draft_in_a_step

    def _take_out(self, task: BatchTask, written: Written, plan: WritePlan) -> Written:
        """What was written, and beside it the data files without the rows that it replaces."""
        # Rounds of the files themselves count from 1.
        taken = take_out(self._engine, written.draft, task.batch, written.loaded, f"{plan.name_prefix}-0")
        for warning in taken.warnings():
            task.warn(warning)
        return replace(written, taken=taken)

    def _draft_existing(self, task: BatchTask, head: TableHead) -> Callable[[Struct], Draft]:
        known = data_columns(head.schema)

        def draft_for(observed: Struct) -> Draft:
            changes = plan_changes(known, observed)
            draft = self._catalog.draft(task.table, changes, provenance=task.batch.definition.provenance)
            if draft.table_uuid != head.uuid:
                # Made anew since the head was checked: it is checked again.
                raise TableConflictError
            return draft

        return draft_for

    def _draft_new(self, task: BatchTask) -> Callable[[Struct], Draft]:
        with self._failpoints.step("schema_inferred"):
            inferred = self._engine.infer(task.batch.files, task.reading)
        for warning in inferred.warnings:
            task.warn(warning)

        def draft_for(observed: Struct) -> Draft:
            schema = new_table_schema(
                join_structs(inferred.schema, observed), provenance=task.batch.definition.provenance
            )
            return self._catalog.draft_new(task.table, schema, {})

        return draft_for

    def _commit(self, task: BatchTask, written: Written, manifest_path: str, *, is_new: bool) -> Closing:
        order = CommitOrder(
            batch=task.batch.batch,
            data_files=written.data_files,
            manifest_path=manifest_path,
            properties={LOAD_INGESTION: task.batch.batch.ingestion_id} if task.is_load else {},
            assert_lease=_counting(task),
            removal=written.taken.removal,
        )
        draft = written.draft
        self.may_be_committed = True
        try:
            with self._failpoints.step("committed"):
                committed = draft.commit(order)
        except (AlreadyCommittedError, TableConflictError) as refusal:
            return self._settle_refused(task, written, refusal)
        except (LeaseLostError, CatalogRefusedError, WriteFailureError, *_LEDGER_FAILED):
            # The ledger is only asked before a request is sent.
            written.discard()
            raise
        except CommitUnknownError as unknown:
            return self._settle_unknown(task, written, order, unknown, is_new=is_new)
        except AutoloaderError as error:
            # Only what is caught above says that nothing was changed. Whatever else went wrong may have done so
            # behind the request: a token that ran out, a database that was locked.
            strange = CommitUnknownError(f"Committing ended in {error.code}: {error.message}")
            strange.__cause__ = error
            return self._settle_unknown(task, written, order, strange, is_new=is_new)
        if committed.history_is_long:
            task.history_grew()
        return _closing(task, written, committed)

    def _settle_unknown(
        self, task: BatchTask, written: Written, order: CommitOrder, unknown: CommitUnknownError, *, is_new: bool
    ) -> Closing:
        """Learn what became of a commit that nobody answered for; delete nothing, for it may still arrive."""
        for wait_s in self._unknown_waits_s:
            log.warning("commit_unknown", batch_id=task.batch.batch.batch_id, reason=str(unknown))
            time.sleep(wait_s)
            found = self._look_up(task)
            if found is not None:
                return closing_from_table(task.batch, task.table, found)
            # Absent is not final. Committing again moves the head that the late request asserts, so that it is
            # refused when it arrives.
            try:
                committed = self._redraft(task, written, is_new=is_new).commit(order)
            except CommitUnknownError as again:
                unknown = again
            except (AlreadyCommittedError, TableConflictError):
                continue
            except AutoloaderError as refused:
                raise unknown from refused
            else:
                return _closing(task, written, committed)
        raise unknown

    def _settle_refused(self, task: BatchTask, written: Written, refusal: Exception) -> Closing:
        """The catalog says that another commit won: ours (an answer was lost), or really another's."""
        found = self._look_up(task)
        if found is None:
            written.discard()
            raise refusal
        closing = closing_from_table(task.batch, task.table, found)
        if found.manifest is not None and found.manifest.batch.epoch != task.batch.batch.epoch:
            written.discard()
        return closing

    def _look_up(self, task: BatchTask) -> FoundBatch | None:
        """What the table says of the batch.

        Raises:
            CommitUnknownError: It cannot be asked, whatever the reason: the batch must stay open.
        """
        batch_id = task.batch.batch.batch_id
        for wait_s in self._unknown_waits_s:
            try:
                with self._failpoints.step("outcome_looked_up"):
                    return self._catalog.find_batch(task.table, task.batch.batch)
            except CatalogUnreachableError as error:
                log.warning("lookup_failed", batch_id=batch_id, reason=str(error))
                time.sleep(wait_s)
            except AutoloaderError as error:
                raise CommitUnknownError(
                    f"Nobody can say whether the catalog applied batch {batch_id}: {error.message}"
                ) from error
        raise CommitUnknownError(f"The catalog does not say whether it applied batch {batch_id}.")

    def _redraft(self, task: BatchTask, written: Written, *, is_new: bool) -> Draft:
        """A draft on today's table that the written data files still fit; `is_new`: they were written to make one."""
        head = task.head()
        wanted = written.draft.schema
        if head is None and is_new:
            # The very same once more: a fresh one may lie elsewhere. Of two that make a table one is refused.
            return written.draft
        if head is None:
            draft = self._catalog.draft_new(task.table, wanted, {})
        else:
            changes = plan_changes(data_columns(head.schema), data_columns(wanted))
            draft = self._catalog.draft(task.table, changes, provenance=task.batch.definition.provenance)
        if not fits(draft, written.draft):
            raise TableConflictError
        return draft


def _counting(task: BatchTask) -> Callable[[], None]:
    """The task's look at its lease, which is taken before every attempt; it tells of each but the first."""
    attempts = count()

    def assert_lease() -> None:
        if next(attempts):
            task.retried()
        task.assert_lease()

    return assert_lease


def new_table_schema(observed: Struct, *, provenance: bool) -> Struct:
    """The schema of a table made for what was observed: the data's columns, then ours."""
    known = without_unknown(observed)
    columns = without_clashes(known) if isinstance(known, Struct) else EMPTY
    return Struct((*columns.fields, *system_columns(provenance=provenance)))


def _write_plan(task: BatchTask, draft_for: Callable[[Struct], Draft], barred: Mapping[str, FileFailure]) -> WritePlan:
    batch = task.batch.batch
    return WritePlan(
        files=tuple(f for f in task.batch.files if f.key not in barred),
        reading=task.reading,
        batch_id=batch.batch_id,
        # Two tries of one batch under one epoch must not write the same names.
        name_prefix=f"{batch.batch_id}-{batch.epoch}-{uuid.uuid4().hex[:8]}",
        provenance=task.batch.definition.provenance,
        draft_for=draft_for,
    )


def _manifest(task: BatchTask, written: Written) -> BatchManifest:
    return BatchManifest(
        batch=task.batch.batch,
        generation=task.batch.generation,
        kind=task.batch.kind,
        files=written.loaded,
        failed=written.failed,
        replaced=written.taken.replaced,
        provenance=task.batch.definition.provenance,
    )


def _closing(task: BatchTask, written: Written, committed: Committed | None) -> Closing:
    return Closing(
        batch=task.batch.batch,
        committed=committed is not None,
        loaded=written.loaded,
        failed=written.failed,
        replaced=written.taken.replaced,
        snapshot_id=committed.snapshot_id if committed else None,
        sequence_number=committed.sequence_number if committed else None,
        table_uuid=committed.table_uuid if committed else None,
    )


def closing_from_table(batch: OpenBatch, table: TableName, found: FoundBatch) -> Closing:
    """How a batch ended that is in the table: by its manifest, never by its claim.

    Raises:
        LedgerBehindTableError: The table says that the batch is in, and its manifest is missing.
    """
    if found.manifest is None:
        raise LedgerBehindTableError(
            f"The table {table} holds batch {batch.batch.batch_id}, but the manifest that lists its files is missing."
        )
    return Closing(
        batch=batch.batch,
        committed=True,
        loaded=found.manifest.files,
        failed=found.manifest.failed,
        replaced=found.manifest.replaced,
        snapshot_id=found.head.snapshot_id,
        sequence_number=found.head.sequence_number,
        table_uuid=found.head.uuid,
    )
