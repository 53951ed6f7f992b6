"""Let old snapshots of a table go, after a commit that said that there are many. Its rows stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.domain.batch import BatchRef
from app.domain.errors import AutoloaderError
from app.domain.events import EventLog
from app.domain.failpoints import Failpoints
from app.domain.ports import Catalog
from app.domain.table import TableName

log = EventLog(__name__)


@dataclass
class Expiry:
    """What one run does about its table's history."""

    catalog: Catalog
    table: TableName
    assert_lease: Callable[[], None]
    failpoints: Failpoints
    # A commit said so.
    is_due: bool = False
    # Snapshots went in this run.
    happened: bool = False

    def note(self) -> None:
        """The table has many snapshots by now."""
        self.is_due = True

    def settle(self, batch: BatchRef) -> None:
        """Let them go, where it is due, under the epoch of `batch`, which is recorded by now.

        What goes wrong is logged and no more: no row depends on it, and the next commit says again that it is due.
        """
        if not self.is_due:
            return
        self.is_due = False
        try:
            with self.failpoints.step("history_expired"):
                snapshots = self.catalog.expire(self.table, batch, self.assert_lease)
        except AutoloaderError as error:
            log.warning("history_not_expired", code=error.code, reason=error.message)
            return
        self.happened = self.happened or snapshots > 0
        log.info("history_expired", snapshots=snapshots)
