"""Begin a table's ledger anew, when no run that sleeps can commit any more what is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from app.domain.batch import BatchRef
from app.domain.errors import TableNotFoundError
from app.domain.failpoints import NO_FAILPOINTS, Failpoints
from app.domain.ledger import Ledger
from app.domain.ports import Catalog
from app.domain.runs import Owner, TableRecord
from app.domain.table import TableHead, TableName
from app.services.rebuilding import Hold, epoch_in, leased


@dataclass(frozen=True)
class FencePorts:
    """What a table is fenced with; its catalog is opened only where a batch is open."""

    ledger: Ledger
    open_catalog: Callable[[], Catalog]
    owner: Owner
    lease_s: float
    failpoints: Failpoints = NO_FAILPOINTS


@dataclass(frozen=True)
class Fenced:
    """Under which epochs runs were shut out, and which of their batches are in the table nevertheless."""

    # By the ids of the ingestions that had a batch open.
    epochs: Mapping[str, int]
    committed: tuple[BatchRef, ...] = ()

    def sentences(self) -> list[str]:
        """What is in the table and was never recorded, for people."""
        return [
            f"Batch {b.batch_id} was committed by a run that did not live to record it: its rows are in the table, "
            "unless they were deleted since, and the next run loads its files again. Empty the table before you load "
            "if you do not want them twice."
            for b in self.committed
        ]


@dataclass(frozen=True)
class Cleared:
    """What was forgotten, and the generation that begins."""

    files: int
    generation: int
    warnings: tuple[str, ...] = ()


def clear(ports: FencePorts, record: TableRecord, table: TableName) -> Cleared:
    """Fence the table, then begin a new generation of its ledger.

    Raises:
        RunInProgressError: A run is at work on the table; nothing was forgotten.
        AutoloaderError: As `fence_table`; nothing was forgotten.
    """
    fenced = fence_table(ports, record, table)
    files, generation = ports.ledger.clear(record, fenced=fenced.epochs)
    return Cleared(files, generation, tuple(fenced.sentences()))


def fence_table(ports: FencePorts, record: TableRecord, table: TableName) -> Fenced:
    """Shut out every run that may still commit a batch which was claimed and not closed. Idempotent.

    Where there is no table, nothing is fenced: there is nothing to commit to.

    Raises:
        RunInProgressError: A run is at work for one of the ingestions.
        CatalogUnreachableError, CatalogAuthError, TableUnreadableError: As `Catalog.head`.
        TableConflictError, FencedError: As `Catalog.fence`.
    """
    still_open: dict[str, list[BatchRef]] = {}
    for batch in ports.ledger.batch_records(record):
        if batch.is_open:
            still_open.setdefault(batch.ingestion_id, []).append(BatchRef(batch.ingestion_id, batch.number, 0))
    if not still_open:
        return Fenced({})
    catalog = ports.open_catalog()
    epochs: dict[str, int] = {}
    committed: list[BatchRef] = []
    for ingestion_id, batches in sorted(still_open.items()):
        head = catalog.head(table)
        with leased(
            ports.ledger,
            ingestion_id,
            table,
            owner=ports.owner,
            lease_s=ports.lease_s,
            above_epoch=epoch_in(head, ingestion_id),
            failpoints=ports.failpoints,
        ) as hold:
            epochs[ingestion_id] = hold.lease.epoch
            if _is_ours(record, head):
                committed += _fence(ports, catalog, table, hold, batches)
    return Fenced(epochs, tuple(committed))


def _is_ours(record: TableRecord, head: TableHead | None) -> bool:
    """Whether a batch can go in there: no request that was made for one table is taken for another."""
    return head is not None and record.uuid in (None, head.uuid)


def _fence(
    ports: FencePorts, catalog: Catalog, table: TableName, hold: Hold, batches: Collection[BatchRef]
) -> list[BatchRef]:
    """Fence the table for one ingestion; which of its batches are in the table."""
    last = max(b.number for b in batches)
    try:
        with ports.failpoints.step("table_fenced"):
            catalog.fence(table, BatchRef(hold.lease.ingestion_id, last, hold.lease.epoch), hold.assert_alive)
    except TableNotFoundError:
        # It was dropped meanwhile.
        return []
    # After the fence: from now on none comes in.
    return [b for b in batches if catalog.find_batch(table, b) is not None]
