"""A ledger with one table and the ingestion that loads it: what tests of the ledger write on."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.domain.batch import BatchRef
from app.domain.definition import Definition
from app.domain.errors import Category, FileFailure
from app.domain.files import FileState, LedgerFile, LoadedFile, SourceFile
from app.domain.formats import FileFormat, FormatOptions
from app.domain.ledger import Closing, OpenBatch
from app.domain.runs import Lease, Owner, RunReport, TableRecord
from app.persistence.leases import this_process
from app.persistence.ledger import SqlLedger, open_ledger

TABLE = "local.db.t"
DEFINITION = Definition("s3://b/", None, FormatOptions(FileFormat.JSON))
ELSEWHERE = Owner("another-host", 1, 0.0)
LONG_S = 3600.0
# Forked from a server that has no connections of ours, and everything imported: a process of tests has one.
CLEAN = multiprocessing.get_context("forkserver")
CLEAN.set_forkserver_preload(
    ["tests.unit.persistence.desk", "alembic.command", "tests.unit.destinations.test_configured"]
)


def file(name: str, version: str = "v1", size: int = 10) -> SourceFile:
    return SourceFile(f"s3://b/{name}", version, size, datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC))


def loaded(*files: SourceFile) -> tuple[LoadedFile, ...]:
    return tuple(LoadedFile(f.key, f.version, 3, f.size_bytes) for f in files)


def failed(one: SourceFile, category: Category = Category.CONNECTIVITY, message: str = "why") -> FileFailure:
    return FileFailure(one.key, one.version, category, message, line=7)


@dataclass
class Desk:
    url: str
    ledger: SqlLedger
    table: TableRecord
    ingestion: str

    def take(self, run_id: str = "r1", owner: Owner | None = None, seconds: float = LONG_S) -> Lease:
        lease = self.ledger.acquire(self.ingestion, run_id, owner or this_process(), seconds)
        assert isinstance(lease, Lease), lease
        return lease

    def claim(self, lease: Lease, *files: SourceFile) -> OpenBatch:
        batch = self.ledger.claim(lease, self.record(), DEFINITION, files)
        assert batch is not None
        return batch

    def record(self) -> TableRecord:
        return self.ledger.ensure_table(TABLE)

    def close(self, lease: Lease, batch: BatchRef, **more: object) -> None:
        values: dict[str, Any] = {"committed": True, "table_uuid": "u", "sequence_number": 1, "snapshot_id": 9}
        self.ledger.close(lease, self.record(), Closing(batch, **(values | more)))

    def rows(self) -> dict[tuple[str, str], LedgerFile]:
        return {(f.key.removeprefix("s3://b/"), f.version): f for f in self.ledger.files_after(self.record(), "")}

    def states(self) -> dict[tuple[str, str], FileState]:
        return {at: row.state for at, row in self.rows().items()}


def open_desk(url: str) -> Desk:
    ledger = open_ledger(url)
    table = ledger.ensure_table(TABLE)
    return Desk(url, ledger, table, ledger.ensure_load_ingestion(table, "ing"))


def until(done: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


# --- what other processes do ------------------------------------------------------------------------------------------


def hold_lease(url: str, seconds: float, ready: object) -> None:
    """Take the lease and sleep until killed."""
    open_desk(url).take("theirs", seconds=seconds)
    ready.set()  # type: ignore[attr-defined]
    time.sleep(600)


def work(url: str, number: int, loads: int) -> None:
    """Take the lease, claim the next files and close them, `loads` times, among others who do the same."""
    desk = open_desk(url)
    for turn in range(loads):
        run_id = f"run-{number}-{turn}"
        while not isinstance(lease := desk.ledger.acquire(desk.ingestion, run_id, this_process(), LONG_S), Lease):
            time.sleep(0.01)
        desk.ledger.start_run(run_id, desk.ingestion, desk.table)
        files = [file(f"{number:02}-{turn:02}-{i}") for i in range(5)]
        batch = desk.claim(lease, file("shared"), *files)
        desk.close(lease, batch.batch, loaded=loaded(*batch.files))
        desk.ledger.finish_run(RunReport(run_id, TABLE))
        desk.ledger.release(lease)
    desk.ledger.dispose()


def scribble(url: str, number: int) -> None:
    """Write as fast as it goes, with nobody's leave."""
    desk = open_desk(url)
    for turn in range(10):
        desk.ledger.mark(desk.table, "r", [(file(f"{number:02}-{turn:02}"), FileState.SKIPPED)])
    desk.ledger.dispose()


def open_and_count(url: str, gate: object) -> None:
    """Open the ledger at the same moment as others."""
    gate.wait()  # type: ignore[attr-defined]
    desk = open_desk(url)
    desk.ledger.dispose()
