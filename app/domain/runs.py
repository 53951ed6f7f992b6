"""A run: one pass of an ingestion, and what it reports."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime

from app.domain.errors import AutoloaderError, FileFailure


class RunStatus(enum.StrEnum):
    """How a run stands. The values are part of the contract."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass
class RunReport:
    """What a run did; grows batch by batch, and is true at every moment for what was committed so far."""

    run_id: str
    table: str
    status: RunStatus = RunStatus.RUNNING
    snapshot_id: int | None = None
    files_loaded: int = 0
    files_failed: int = 0
    files_skipped: int = 0
    files_known: int = 0
    rows_loaded: int = 0
    stored_bytes: int = 0
    batches: int = 0
    warnings: list[str] = field(default_factory=list)
    errors: list[FileFailure] = field(default_factory=list)
    # What stopped the run before its end; None when it went through.
    stopped_by: AutoloaderError | None = None
    # Failed files of earlier runs that this run saw and left alone.
    files_still_failed: int = 0
    # Loaded files whose new version was seen and left alone.
    files_changed: int = 0
    # Of the loaded files those that are new versions: their rows came in the place of the earlier ones, or beside them.
    files_replaced: int = 0
    files_appended: int = 0
    # New versions of loaded files that hold nothing, and were left alone.
    files_emptied: int = 0
    # How often a commit was tried again because somebody else had written the table.
    commit_retries: int = 0
    # Stored bytes of the files that it found to load.
    discovered_bytes: int = 0

    def settle(self) -> RunStatus:
        """The status that the counts amount to."""
        if self.stopped_by is not None:
            self.status = RunStatus.FAILED
        elif not self.files_failed:
            self.status = RunStatus.SUCCESS
        else:
            self.status = RunStatus.PARTIAL if self.files_loaded else RunStatus.FAILED
        return self.status


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds a lease, so that others on its host can tell whether it still lives.

    `process_started_at` is in seconds after the start of the host.
    """

    host: str
    pid: int
    process_started_at: float


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """Who holds an ingestion's lease now."""

    run_id: str
    owner: Owner
    expires_in_s: float


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work for an ingestion. `epoch` rises with every holder: it is the fencing token."""

    ingestion_id: str
    run_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class TableRecord:
    """What the ledger knows of a table: which one it is, and its head after our last commit."""

    id: int
    name: str
    uuid: str | None
    generation: int
    snapshot_id: int | None
    sequence_number: int
    last_seen_at: datetime | None = None
