"""What the service keeps in its database, and the promises of whoever keeps it.

Every method is one short transaction, durable when it returns. All raise what the ledger raises of its database.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from app.domain.access import AccessTokens
from app.domain.ingestions import Deployment, Ingestion, IngestionStatus, Method, RunRecord, Trigger
from app.domain.ledger import Ledger
from app.domain.live import LiveRows, Telling
from app.domain.runs import RunReport
from app.domain.webhooks import Outbox

# --- ingestions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewIngestion:
    """An ingestion to be kept.

    Args:
        document: Checked and normalised, `name`, `status`, `source.credentials` and secrets of webhooks left out.
        credentials: What `source.credentials` held, to be encrypted.
        webhook_secrets: Webhook → its secret, to be encrypted.
        table: Full name of the table, its catalog included.
    """

    id: str
    tenant: str
    name: str
    status: IngestionStatus
    table: str
    document: Mapping[str, Any]
    credentials: Mapping[str, str] = field(default_factory=dict)
    webhook_secrets: Mapping[str, str | None] = field(default_factory=dict)


class Sort(enum.StrEnum):
    """By what a list of ingestions is sorted."""

    NAME = "name"
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"


@dataclass(frozen=True)
class IngestionQuery:
    """Which ingestions, and in which order.

    Args:
        q: A part of the name, in any case.
        after: Sort value and id of the last one of the page before; times as ISO 8601.
    """

    tenant: str
    status: IngestionStatus | None = None
    source_type: str | None = None
    q: str | None = None
    sort: Sort = Sort.CREATED_AT
    descending: bool = True
    limit: int = 50
    after: tuple[str, str] | None = None


class Ingestions(Protocol):
    """The ingestions of the service. Those of `load` are told too, as active ones without a schedule."""

    def add_ingestion(self, new: NewIngestion) -> Ingestion:
        """Keep it, its credentials encrypted, all or nothing. A table that nobody named is the tenant's from now on.

        Raises:
            NameTakenError: The tenant has one of that name.
            TableTakenError: The table is another tenant's.
        """
        ...

    def ingestion(self, ingestion_id: str, tenant: str | None = None, *, deleted: bool = False) -> Ingestion | None:
        """The ingestion; None where the tenant (None: any) has none, or where it is deleted and that was not asked."""
        ...

    def list_ingestions(self, query: IngestionQuery) -> list[Ingestion]:
        """A page of them; one row more than `limit` where there are more."""
        ...

    def change_ingestion(
        self,
        changed: Ingestion,
        credentials: Mapping[str, str] | None,
        version: int,
        *,
        webhook_secrets: Mapping[str, str | None] | None = None,
    ) -> Ingestion:
        """Keep name, status, table and document of `changed`, and the credentials (None: as they are).

        Args:
            changed: What is wanted now.
            credentials: All of them; empty: there are none any more.
            version: The version that `changed` was made from.
            webhook_secrets: None: the webhooks are as they were. Else they are those of the document, each is enabled,
                and this has the secrets of those whose secret changes, None for one that has none any more.

        Returns:
            It, with its next version.

        Raises:
            VersionMismatchError: It has another version by now, or is gone; nothing was changed.
            NameTakenError: Another one has that name.
            DestinationFixedError: The table is another one, or made otherwise, and a batch of it is in the table or is
                still to be settled there.
            TableTakenError: The table is another tenant's.
            RunAtWorkError: The table is another one, or made otherwise, and a run is queued or at work.
        """
        ...

    def set_deployment(self, ingestion_id: str, deployment: Deployment | None) -> bool:
        """Note what the scheduler was given. False where the ingestion is gone: then the deployment is an orphan."""
        ...

    def set_discovered(self, ingestion_id: str, stored_bytes: int) -> None:
        """Note how many new bytes the last discovery found."""
        ...

    def bury_ingestion(self, ingestion_id: str, versions: Collection[int] | None) -> Ingestion:
        """Make it a tombstone; its credentials, its webhooks and what was on its way to them are gone.

        Raises:
            RunAtWorkError: A run of it is queued or at work.
            VersionMismatchError: It has another version.
        """
        ...

    def remove_ingestion(self, ingestion_id: str) -> None:
        """Forget a tombstone whose deployment is gone. Again: no change.

        Which batches of it are in the table stays known, so that they are never taken for a stranger's.
        """
        ...

    def ingestions_to_schedule(self) -> list[Ingestion]:
        """Every ingestion of every tenant that has a schedule or a deployment, or is a tombstone."""
        ...

    def other_ingestions(self, ingestion_id: str) -> list[Ingestion]:
        """Ingestions, `load`'s included, that have the same table and are not deleted."""
        ...

    def credentials(self, ingestion_id: str) -> dict[str, str]:
        """What is kept for it, decrypted; empty where nothing is.

        Raises:
            SecretKeyError: The key is missing or another one, or the row was tampered with.
        """
        ...


# --- runs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewRun:
    """A run to be queued.

    Args:
        scheduled_for: The time of the schedule that it stands for, if any.
    """

    id: str
    ingestion_id: str
    trigger: Trigger
    method: Method
    retry_of: str | None = None
    only_keys: tuple[str, ...] | None = None
    flow_run_id: str | None = None
    scheduled_for: datetime | None = None


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how late a run goes on that ended in a retriable error, or with its process."""

    times: int = 3
    delay_s: float = 60.0


@dataclass(frozen=True)
class RunStop:
    """What ended an attempt before its end, as it is told."""

    code: str
    message: str
    retryable: bool = False


class RunOrders(Protocol):
    """The runs of the service. One at a time is queued or at work for an ingestion; the database decides.

    A run is queued before anybody is asked to carry it out, so that whoever dies leaves a row that says what is to do.
    """

    def queue_run(self, new: NewRun, *, active_only: bool = True) -> RunRecord:
        """Make its row. Again for the same id, or the same flow run: the row as it is.

        Raises:
            NotFoundError: There is no such ingestion.
            NotActiveError: It is a draft or paused.
            RunAtWorkError: Another run of it is queued or at work.
            ConflictError: `scheduled_for` is to pass: a run that is over, and was not cancelled, began after it.
        """
        ...

    def run(self, run_id: str) -> RunRecord | None:
        """The run of that id."""
        ...

    def run_of_flow_run(self, flow_run_id: str) -> RunRecord | None:
        """The run that the flow run carries out."""
        ...

    def list_runs(self, ingestion_id: str, *, limit: int, after: tuple[datetime, str] | None = None) -> list[RunRecord]:
        """A page of them, newest first; one row more than `limit` where there are more. `after`: created_at and id."""
        ...

    def run_at_work(self, ingestion_id: str) -> RunRecord | None:
        """The run of the ingestion that is queued or running; one whose process is known to be dead still counts."""
        ...

    def set_flow_run(self, run_id: str, flow_run_id: str) -> None:
        """Note which flow run carries it out."""
        ...

    def reroute_run(self, run_id: str, method: Method) -> bool:
        """Have a queued run carried out another way; False where it is not queued any more."""
        ...

    def claim_run(self, run_id: str, *, for_s: float) -> bool:
        """Be the one that starts a process for a queued run that is due; for so long nobody else is.

        False where it is not queued, not due, or another one is at it.
        """
        ...

    def due_runs(self, method: Method) -> list[RunRecord]:
        """Queued runs of that method that are due and that nobody has claimed, oldest first."""
        ...

    def open_runs(self, method: Method) -> list[RunRecord]:
        """Runs of that method that are queued or at work, oldest first."""
        ...

    def begin_run(self, run_id: str) -> RunRecord | None:
        """Note that an attempt begins: `running`, one attempt more. None where the run is over.

        Only whoever holds the ingestion's lease for this run may call it.
        """
        ...

    def end_run(
        self,
        report: RunReport,
        stop: RunStop | None,
        retry: RetryPolicy,
        *,
        attempt: int | None = None,
        by_ledger: bool = False,
    ) -> RunRecord:
        """Keep how an attempt ended.

        One that was stopped by a retryable error is queued again, to go on after `retry.delay_s`, while its attempts
        last. A run that is over stays as it is, and so does one of which a later attempt than `attempt` has begun:
        whoever slept through his lease has nothing to say any more. Counts of files and rows are the ledger's where
        the report cannot know them: in a later attempt than the first, and `by_ledger`.
        """
        ...

    def give_run_back(self, run_id: str, *, attempt: int) -> RunRecord:
        """Queue a run at work again, to be gone on with by whoever takes it up; `cancelled` where that was asked.

        Only its own process may call it, in attempt number `attempt`; a run that is over, or of which a later attempt
        has begun, stays as it is. However often a run is handed over, it goes on.
        """
        ...

    def hand_over_run(self, report: RunReport, reason: str, *, attempt: int) -> RunRecord:
        """Queue a run again, at once, because it found more than is to be loaded where it is at work.

        All at once: the run is `queued` and handed over, its lease is free, its `warnings` hold the reason, what it
        did until then is kept, and its ingestion has the bytes that it discovered. The attempt is none of those that
        a retry policy counts. Where its end was asked for, it is `cancelled`. One that is not at work, was handed over
        already, or of which another attempt has begun, stays as it is.
        """
        ...

    def cancel_queued(self, run_id: str, reason: str) -> RunRecord:
        """End a run that nobody is at work on as `cancelled`; one at work, or over, stays as it is."""
        ...

    def request_cancel(self, run_id: str) -> RunRecord:
        """Ask for a run's end. A queued one is `cancelled` at once, one at work by its process, a dead one at once.

        Raises:
            RunOverError: It is over.
        """
        ...

    def is_cancel_requested(self, run_id: str) -> bool:
        """Whether somebody asked for its end, or it is over."""
        ...

    def settle_dead_runs(
        self, retry: RetryPolicy, ingestion_id: str | None = None, *, method: Method | None = None
    ) -> list[RunRecord]:
        """Settle every run `running` whose lease has run out, or whose process on this host is known to be gone.

        It is queued again while its attempts last, else `failed` with `run_died`; `cancelled` where that was asked.

        Args:
            retry: How often it goes on, and how late.
            ingestion_id: Whose runs; None: all.
            method: Only runs that are carried out so; None: however they are.

        Returns:
            Those that were settled, as they are now.
        """
        ...

    def note_not_begun(self, run_id: str, retry: RetryPolicy) -> RunRecord | None:
        """Count an attempt of a run that is queued and claimed although the process that was to begin it has ended.

        It goes on later while its attempts last, else it is `failed` with `run_died`. None where it had begun.
        """
        ...

    def is_run_alive(self, run_id: str) -> bool:
        """Whether a live process is at work on it, by its ingestion's lease."""
        ...

    def failed_keys(self, ingestion_id: str, *, run_id: str | None = None) -> list[str]:
        """Keys of the files of the ingestion's table that failed (in that run) and are in no later batch."""
        ...


# --- answers that are given again ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeptAnswer:
    """The answer to a request with an idempotency key."""

    status: int
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AnswerBegun:
    """A request with an idempotency key that is to be carried out.

    Args:
        made_id: The id of what it makes. Where the process of a request died, whoever carries it out after that has
            the same id, finds by it what was made already, and makes nothing a second time.
    """

    made_id: str


class KeptAnswers(Protocol):
    """Idempotency keys: for a day, the same key and the same request have the same answer."""

    def begin_answer(self, tenant: str, key: str, request_hash: str) -> KeptAnswer | AnswerBegun:
        """The answer that was given; else the caller carries the request out, and must call one of the other two.

        A request whose process died is carried out anew after some minutes, by the first who asks.

        Raises:
            KeyReusedError: The key belongs to another request.
            KeyAtWorkError: The first request has no answer yet.
        """
        ...

    def keep_answer(self, tenant: str, key: str, answer: KeptAnswer) -> None:
        """Keep the answer."""
        ...

    def forget_answer(self, tenant: str, key: str) -> None:
        """Let the key be used again: nothing was done."""
        ...


class Installation(Protocol):
    """What is true of the database as a whole."""

    def ping(self) -> None:
        """Ask it for something; raises what it raises of a database that does not answer."""
        ...

    def noted(self, name: str) -> str | None:
        """What was noted under that name."""
        ...

    def note(self, name: str, value: str) -> None:
        """Note something, in the place of what was noted before."""
        ...

    def now(self) -> datetime:
        """The time by the database's clock, which all processes share."""
        ...

    def installation_id(self) -> str:
        """Tells this installation from others that use the same scheduler; made when it is first asked for."""
        ...


# --- keys ----------------------------------------------------------------------------------------------------------


class KeptSecrets(Protocol):
    """The encrypted credentials, and secrets of webhooks, of all ingestions."""

    def rewrap_secrets(self) -> int:
        """Wrap every data key that is not under the present master key anew; how many were.

        Each is a transaction of its own: after a kill in the middle it goes on from there.

        Raises:
            SecretKeyError: One is under a key that is not at hand.
        """
        ...


class ServiceStore(
    Ledger,
    Ingestions,
    RunOrders,
    KeptAnswers,
    Installation,
    KeptSecrets,
    AccessTokens,
    Telling,
    LiveRows,
    Outbox,
    Protocol,
):
    """The whole database, as the service works with it."""
