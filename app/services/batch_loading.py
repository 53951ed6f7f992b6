"""Load one batch: schema, data files, manifest, guarded commit. The ledger is told afterwards, by the caller."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from app.domain.batch import BatchManifest
from app.domain.errors import (
    AlreadyCommittedError,
    AutoloaderError,
    CatalogRefusedError,
    CatalogUnreachableError,
    CommitUnknownError,
    LeaseLostError,
    LedgerBehindTableError,
    LedgerUnreachableError,
    TableConflictError,
)
from app.domain.evolution import extends, plan_changes, without_clashes
from app.domain.ledger import Closing, OpenBatch
from app.domain.ports import Catalog, CommitOrder, Committed, Draft, Engine, FoundBatch, Progress, Reading
from app.domain.system_columns import data_columns, system_columns
from app.domain.table import LOAD_INGESTION, TableHead, TableName, last_batches
from app.domain.types import EMPTY, Struct, join_structs, without_unknown
from app.domain.watch import Failpoint
from app.services.writing import WritePlan, Written, write_all

log = structlog.get_logger(__name__)

# The table may be changed under a batch by others; so often it is loaded anew before the run gives up for now.
MAX_CONFLICTS = 5
# Seconds between tries to learn what became of a commit that nobody answered for.
UNKNOWN_WAITS_S = (0.1, 0.5, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class BatchTask:
    """One batch to be loaded."""

    batch: OpenBatch
    table: TableName
    reading: Reading
    assert_lease: Callable[[], None]
    # Refuses a table that is not the one the ledger knows.
    check_head: Callable[[TableHead | None], None]
    progress: Progress
    warn: Callable[[str], None]


class BatchLoader:
    """Loads batches into the tables of one catalog."""

    def __init__(
        self,
        catalog: Catalog,
        engine: Engine,
        failpoint: Failpoint,
        *,
        unknown_waits_s: tuple[float, ...] = UNKNOWN_WAITS_S,
    ) -> None:
        self._catalog = catalog
        self._engine = engine
        self._failpoint = failpoint
        self._unknown_waits_s = unknown_waits_s

    def load(self, task: BatchTask) -> Closing:
        """Bring the batch into the table, at most once, and say how it ended.

        Raises:
            LeaseLostError: Another run has taken over; nothing of ours is in the table.
            CommitUnknownError: Nobody can say whether it is in; the batch must stay open.
            AutoloaderError: Anything else; nothing of the batch is in the table.
        """
        for _ in range(MAX_CONFLICTS):
            try:
                return self._attempt(task)
            except TableConflictError as conflict:
                log.info("batch_conflict", batch_id=task.batch.batch.batch_id, reason=str(conflict))
                last = conflict
        raise last

    def _attempt(self, task: BatchTask) -> Closing:
        head = self._catalog.head(task.table)
        task.check_head(head)
        batch = task.batch.batch
        if head is not None and last_batches(head.properties).get(batch.ingestion_id, 0) >= batch.number:
            # Another database gave out the number too. A manifest of ours must not take the place of that one's.
            found = self._look_up(task)
            if found is not None:
                return closing_from_table(task.batch, task.table, found)
        draft_for = self._draft_existing(task, head) if head else self._draft_new(task)
        written = write_all(self._engine, _write_plan(task, draft_for), task.progress)
        try:
            self._failpoint("data_written")
            if not written.data_files and head is None:
                return _closing(task, written, None)
            manifest_path = written.draft.write_manifest(_manifest(task, written))
            self._failpoint("manifest_written")
        except BaseException:
            written.discard()
            raise
        if not written.data_files:
            return _closing(task, written, None)
        return self._commit(task, written, manifest_path)

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
        inferred = self._engine.infer(task.batch.files, task.reading)
        for warning in inferred.warnings:
            task.warn(warning)
        self._failpoint("schema_inferred")

        def draft_for(observed: Struct) -> Draft:
            schema = new_table_schema(
                join_structs(inferred.schema, observed), provenance=task.batch.definition.provenance
            )
            return self._catalog.draft_new(task.table, schema, {})

        return draft_for

    def _commit(self, task: BatchTask, written: Written, manifest_path: str) -> Closing:
        order = CommitOrder(
            batch=task.batch.batch,
            data_files=written.data_files,
            manifest_path=manifest_path,
            properties={LOAD_INGESTION: task.batch.batch.ingestion_id},
            assert_lease=self._asserting(task),
        )
        draft = written.draft
        try:
            committed = draft.commit(order)
        except (AlreadyCommittedError, TableConflictError) as refusal:
            return self._settle_refused(task, written, refusal)
        except (LeaseLostError, CatalogRefusedError, LedgerUnreachableError):
            # The ledger is only asked before a request is sent.
            written.discard()
            raise
        except CommitUnknownError as unknown:
            return self._settle_unknown(task, written, order, unknown)
        except AutoloaderError as error:
            # Only what is caught above says that nothing was changed. Whatever else went wrong may have done so
            # behind the request: a token that ran out, a database that was locked.
            strange = CommitUnknownError(f"Committing ended in {error.code}: {error.message}")
            strange.__cause__ = error
            return self._settle_unknown(task, written, order, strange)
        self._failpoint("committed")
        return _closing(task, written, committed)

    def _settle_unknown(
        self, task: BatchTask, written: Written, order: CommitOrder, unknown: CommitUnknownError
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
                committed = self._redraft(task, written).commit(order)
            except CommitUnknownError as again:
                unknown = again
            except (AlreadyCommittedError, TableConflictError):
                continue
            except AutoloaderError as refused:
                raise unknown from refused
            else:
                return _closing(task, written, committed)
        raise unknown

    def _asserting(self, task: BatchTask) -> Callable[[], None]:
        def assert_lease() -> None:
            task.assert_lease()
            self._failpoint("commit_attempt")

        return assert_lease

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
                return self._catalog.find_batch(task.table, task.batch.batch)
            except CatalogUnreachableError as error:
                log.warning("lookup_failed", batch_id=batch_id, reason=str(error))
                time.sleep(wait_s)
            except AutoloaderError as error:
                raise CommitUnknownError(
                    f"Nobody can say whether the catalog applied batch {batch_id}: {error.message}"
                ) from error
        raise CommitUnknownError(f"The catalog does not say whether it applied batch {batch_id}.")

    def _redraft(self, task: BatchTask, written: Written) -> Draft:
        """A fresh draft on today's table that the written data files still fit."""
        head = self._catalog.head(task.table)
        task.check_head(head)
        wanted = written.draft.schema
        if head is None:
            draft = self._catalog.draft_new(task.table, wanted, {})
        else:
            changes = plan_changes(data_columns(head.schema), data_columns(wanted))
            draft = self._catalog.draft(task.table, changes, provenance=task.batch.definition.provenance)
        if not extends(draft.schema, wanted):
            raise TableConflictError
        return draft


def new_table_schema(observed: Struct, *, provenance: bool) -> Struct:
    """The schema of a table made for what was observed: the data's columns, then ours."""
    known = without_unknown(observed)
    columns = without_clashes(known) if isinstance(known, Struct) else EMPTY
    return Struct((*columns.fields, *system_columns(provenance=provenance)))


def _write_plan(task: BatchTask, draft_for: Callable[[Struct], Draft]) -> WritePlan:
    batch = task.batch.batch
    return WritePlan(
        files=task.batch.files,
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
    )


def _closing(task: BatchTask, written: Written, committed: Committed | None) -> Closing:
    return Closing(
        batch=task.batch.batch,
        committed=committed is not None,
        loaded=written.loaded,
        failed=written.failed,
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
        snapshot_id=found.head.snapshot_id,
        sequence_number=found.head.sequence_number,
        table_uuid=found.head.uuid,
    )
