"""An ingestion: a standing order to keep a table equal to the files of a source, as the service keeps it.

The service writes what is wanted here first, and makes the scheduler equal to it afterwards.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from app.domain.access import DEFAULT_TENANT, Role
from app.domain.live import RunProgress
from app.domain.runs import RunStatus
from app.domain.webhooks import WebhookState


class IngestionStatus(enum.StrEnum):
    """What is wanted of an ingestion. The values are part of the contract."""

    DRAFT = "draft"
    ACTIVE = "active"
    PAUSED = "paused"


class Trigger(enum.StrEnum):
    """Why a run was begun. The values are part of the contract."""

    SCHEDULED = "scheduled"
    MANUAL = "manual"
    RETRY = "retry"
    BACKFILL = "backfill"


class Method(enum.StrEnum):
    """Who carries a run out. The values are part of the contract."""

    PREFECT = "prefect"
    DIRECT = "direct"


@dataclass(frozen=True)
class User:
    """Who asks. Without tokens everybody on this machine is the one admin of the one tenant."""

    name: str = "local"
    tenant: str = DEFAULT_TENANT
    role: Role = Role.ADMIN


@dataclass(frozen=True)
class Schedule:
    """When an ingestion runs, as it was asked for. `services.schedules` checks it and tells its cron."""

    frequency: str
    time: str | None = None
    day_of_week: str | int | None = None
    timezone: str = "UTC"
    cron_expression: str | None = None


@dataclass(frozen=True)
class Deployment:
    """What the scheduler was last given for an ingestion.

    Args:
        id: The scheduler's id of it.
        fingerprint: Of everything it was made from: where it is still the same there is nothing to send.
    """

    id: str
    fingerprint: str


@dataclass(frozen=True)
class Ingestion:
    """One row of the service's: what is wanted, and what the scheduler was given.

    Args:
        document: The definition as it was sent, in the contract's JSON form, `source.credentials` left out; fields that
            were not given are not in it.
        credential_names: Names of the credentials that are kept for it, sorted; their values are only read by a run.
        webhook_states: What is known of its webhooks beside the document, by their keys.
        version: Rises with every change; the ETag.
        deleted_at: It is a tombstone: invisible, never runs, and kept until its deployment is gone.
    """

    id: str
    tenant: str
    name: str
    status: IngestionStatus
    table: str
    document: Mapping[str, Any]
    schedule: Schedule | None
    credential_names: tuple[str, ...]
    version: int
    created_at: datetime
    updated_at: datetime
    deployment: Deployment | None = None
    # New bytes that its last discovery found; decides which queue its scheduled runs go to.
    discovered_bytes: int | None = None
    deleted_at: datetime | None = None
    # Whether a batch of it is in its table, or may be: then its destination is fixed.
    has_loaded: bool = False
    # It is the command line's, for its table: it has runs and files, and no definition.
    is_load: bool = False
    webhook_states: tuple[WebhookState, ...] = ()

    @property
    def cluster_id(self) -> str:
        """Where its loads run."""
        return str(self.document.get("cluster_id") or "local")


@dataclass(frozen=True)
class RunRecord:
    """One run as the service tells of it.

    Args:
        attempts: How often work on it was begun.
        next_attempt_at: When it goes on, for one that ended in a retriable error or with its process.
        only_keys: It is a retry of these files alone; None for all that is new.
        handed_over_at: When it found more than its queue is meant for, and became one for the high-memory queue.
        progress: How far its attempt has come; None before there is anything to tell, and when it is over.
        errors: The contract's JSON of failed files and of what stopped the run.
    """

    id: str
    ingestion_id: str
    table: str
    trigger: Trigger
    method: Method
    status: RunStatus
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    retry_of: str | None = None
    flow_run_id: str | None = None
    attempts: int = 0
    next_attempt_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    only_keys: tuple[str, ...] | None = None
    snapshot_id: int | None = None
    files_loaded: int = 0
    files_failed: int = 0
    files_skipped: int = 0
    files_known: int = 0
    rows_loaded: int = 0
    stored_bytes: int = 0
    files_replaced: int = 0
    files_appended: int = 0
    handed_over_at: datetime | None = None
    progress: RunProgress | None = None
    warnings: tuple[str, ...] = ()
    errors: tuple[Mapping[str, Any], ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status not in {RunStatus.QUEUED, RunStatus.RUNNING}


@dataclass(frozen=True)
class FlowRun:
    """A run of the scheduler's, as it tells of it: a hint, never the truth about our data."""

    id: str
    state: str
    state_name: str
    start_time: datetime | None
    end_time: datetime | None
    total_run_time_s: float
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Scheduler(Protocol):
    """Gives ingestions their time: the promise of the contract's `PrefectService`.

    Every call waits two seconds at most and then raises `SchedulerUnavailableError`; while the breaker is open it
    raises at once. None of them is called while a database transaction is open.
    """

    @property
    def initialized(self) -> bool:
        """Whether it answered last."""
        ...

    async def create_deployment(self, ingestion: Ingestion) -> str:
        """Make or replace the deployment `ingestion-{id}`; its id. Again: the same id."""
        ...

    async def pause_deployment(self, deployment_id: str) -> None:
        """Stop its schedule. One that is gone is no error."""
        ...

    async def resume_deployment(self, deployment_id: str) -> None:
        """Let its schedule go on. One that is gone is no error."""
        ...

    async def delete_deployment(self, deployment_id: str) -> None:
        """Remove it. One that is gone is no error."""
        ...

    async def trigger_deployment(self, deployment_id: str, parameters: Mapping[str, Any] | None = None) -> str:
        """Begin a flow run; its id. `parameters["run_id"]` is its idempotency key: again, the same flow run."""
        ...

    def fingerprint(self, ingestion: Ingestion) -> str:
        """Of everything that `create_deployment` would send for it."""
        ...
