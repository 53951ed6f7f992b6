"""Settle batches that an earlier run left open, before anything new is loaded."""

from __future__ import annotations

from collections.abc import Callable

from app.domain.errors import TableNotFoundError
from app.domain.failpoints import NO_FAILPOINTS, Failpoints
from app.domain.ledger import Closing, OpenBatch
from app.domain.ports import Catalog
from app.domain.table import TableName
from app.services.batch_loading import closing_from_table


def settle(
    catalog: Catalog,
    table: TableName,
    batch: OpenBatch,
    assert_lease: Callable[[], None],
    failpoints: Failpoints = NO_FAILPOINTS,
) -> Closing | None:
    """Find out whether an open batch is in the table, and shut out whoever might still commit it.

    Returns:
        How it ended, when it is in the table; None when it is not, and then no older process can put it there.

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
            # There is no table to fence: whoever creates it first shuts the other out.
            return None
        # The older process may have won between the look and the fence.
        with failpoints.step("batch_looked_up"):
            found = catalog.find_batch(table, batch.batch)
    return None if found is None else closing_from_table(batch, table, found)
