"""Settle batches that an earlier run left open, before anything new is loaded."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from app.domain.batch import BatchRef
from app.domain.errors import LedgerBehindTableError, TableNotFoundError
from app.domain.failpoints import NO_FAILPOINTS, Failpoints
from app.domain.ledger import Closing, Ledger, OpenBatch
from app.domain.ports import Catalog
from app.domain.runs import Lease, Owner, TableRecord
from app.domain.table import TableHead, TableName, last_batches
from app.services.batch_loading import closing_from_table
from app.services.heartbeat import Heartbeat


@dataclass(frozen=True)
class Settlement:
    """What became of a batch: how it ended, where it is in the table; whether no older process can put it there."""

    closing: Closing | None
    fenced: bool = True


def settle(
    catalog: Catalog,
    table: TableName,
    batch: OpenBatch,
    assert_lease: Callable[[], None],
    failpoints: Failpoints = NO_FAILPOINTS,
) -> Settlement:
    """Find out whether an open batch is in the table, and shut out whoever might still commit it.

    Where there is no table there is nothing to fence: whoever creates it first shuts the other out.

    Raises:
        LedgerBehindTableError: The table says that it is in, and its manifest is missing.
    """
    with failpoints.step("batch_looked_up"):
        found = catalog.find_batch(table, batch.batch)
    if found is None:
        try:
            with failpoints.step("table_fenced"):
                catalog.fence(table, batch.batch, assert_lease)
        except TableNotFoundError:
            return Settlement(None, fenced=False)
        # The older process may have won between the look and the fence.
        with failpoints.step("batch_looked_up"):
            found = catalog.find_batch(table, batch.batch)
    return Settlement(None if found is None else closing_from_table(batch, table, found))


@dataclass
class GivenUp:
    """Batches that were given up while there was no table that could be fenced against whoever was at work on them."""

    batches: list[BatchRef] = field(default_factory=list)

    def note(self, batch: BatchRef, settlement: Settlement) -> None:
        """Remember it, where it could not be fenced."""
        if not settlement.fenced:
            self.batches.append(batch)

    def check(self, head: TableHead | None) -> None:
        """Make sure that none came into the table after all: its files may be loaded by another batch now.

        Raises:
            LedgerBehindTableError: One did.
        """
        if head is None or not self.batches:
            return
        last = last_batches(head.properties)
        for one in self.batches:
            if last.get(one.ingestion_id) == one.number:
                raise LedgerBehindTableError(
                    f"The table was made by batch {one.number} of ingestion {one.ingestion_id}, which was given up "
                    "before: its process was still at work. Nothing was loaded. Run it again: then the ledger knows it."
                )


@dataclass(frozen=True)
class Orphans:
    """What deleted ingestions left open: nobody loads it any more, and its files are anybody's."""

    ledger: Ledger
    catalog: Catalog
    owner: Owner
    lease_s: float
    failpoints: Failpoints

    def settle(self, table: TableName, record: TableRecord, above_epoch: Callable[[str], int], gone: GivenUp) -> int:
        """Close it as the table has it, shutting out whoever might still commit it.

        Args:
            table: Where it was to go.
            record: The ledger's of that table.
            above_epoch: The highest epoch of an ingestion that the table has seen.
            gone: Told of each batch that is given up and could not be fenced.

        Returns:
            How many files were given back, to be found again.
        """
        count = 0
        for ingestion_id in self.ledger.orphaned_ingestions(record):
            above = above_epoch(ingestion_id)
            lease = self.ledger.acquire(ingestion_id, uuid.uuid4().hex, self.owner, self.lease_s, above_epoch=above)
            # Another run is just doing this.
            if isinstance(lease, Lease):
                try:
                    count += self._settle(table, lease, gone)
                finally:
                    self.ledger.release(lease)
        return count

    def _settle(self, table: TableName, lease: Lease, gone: GivenUp) -> int:
        count = 0
        heartbeat = Heartbeat(self.ledger, lease, self.lease_s, failpoints=self.failpoints)
        with heartbeat.beating():
            for batch in self.ledger.open_batches(lease, self.ledger.ensure_table(str(table))):
                settlement = settle(self.catalog, table, batch, heartbeat.assert_alive, self.failpoints)
                gone.note(batch.batch, settlement)
                closing = settlement.closing or Closing(batch.batch, committed=False)
                self.ledger.close(lease, self.ledger.ensure_table(str(table)), closing)
                count += 0 if settlement.closing else len(batch.files)
        return count
