"""What endpoints take and answer, as OpenAPI shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from app.api.bodies import Strict
from app.api.paging import cursor_of
from app.domain.files import FileState, LedgerFile
from app.domain.ingestions import Ingestion, IngestionStatus, Method, RunRecord, Trigger
from app.domain.live import RunLog
from app.domain.runs import RunStatus
from app.domain.webhooks import Delivery, DeliveryState, WebhookState
from app.services.migrating import MigrationReport
from app.services.prefect_service import FlowRunDetails
from app.services.webhook_service import TestCall

Item = TypeVar("Item")


class Answer(BaseModel):
    """A JSON object that goes out."""

    model_config = ConfigDict(frozen=True)


class Page(Answer, Generic[Item]):
    """A page of a list."""

    items: list[Item]
    next: str | None = Field(description="The cursor of the next page; null where this is the last one.")


class FieldProblem(Answer):
    """One value of a request that is not allowed."""

    field: str = Field(description="Its path, such as `schedule.time` or `query.limit`.")
    message: str


class Problem(Answer):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = Field(description="What is wrong, for a person.")
    code: str = Field(description="The same, for a program; it never changes.")
    remedy: str | None = Field(None, description="What to do about it.")
    retryable: bool | None = Field(None, description="Whether the same request may work later.")
    errors: list[FieldProblem] | None = None
    run_id: str | None = Field(None, description="The run that is in the way.")
    required_role: str | None = Field(None, description="The role that would be enough.")


# --- ingestions ----------------------------------------------------------------------------------------------------


class WebhookModel(Answer):
    """A webhook as it was sent, less its secret."""

    url: str
    name: str | None = None
    events: list[str] | None = Field(None, description="Null: all.")


class WebhookStateModel(Answer):
    """What the service knows of a webhook."""

    webhook: str = Field(description="Its name, or its url where it has none.")
    signed: bool = Field(description="Whether it has a secret.")
    disabled_at: datetime | None = Field(description="Nothing is sent to it any more, since then.")
    disabled_reason: str | None

    @classmethod
    def of(cls, state: WebhookState) -> WebhookStateModel:
        """The JSON of it."""
        return cls(
            webhook=state.key,
            signed=state.signed,
            disabled_at=state.disabled_at,
            disabled_reason=state.disabled_reason,
        )


class IngestionModel(Answer):
    """An ingestion."""

    id: str
    name: str
    status: IngestionStatus
    cluster_id: str
    source: dict[str, Any] = Field(description="As it was sent, less `credentials`.")
    format: dict[str, Any]
    destination: dict[str, Any]
    schedule: dict[str, Any] | None
    webhooks: list[WebhookModel] = []
    webhook_states: list[WebhookStateModel] = []
    table: str = Field(description="The full name of the table that it loads.")
    credential_names: list[str] = Field(description="Names of the credentials that are kept; values are never shown.")
    prefect_deployment_id: str | None
    pending_schema_change: int | None = None
    version: int
    created_at: datetime
    updated_at: datetime
    warnings: list[str] = Field(default=[], description="What should be known of this very request.")

    @classmethod
    def of(cls, ingestion: Ingestion, warnings: Sequence[str] = ()) -> IngestionModel:
        """The JSON of an ingestion."""
        document: Mapping[str, Any] = ingestion.document
        return cls(
            id=ingestion.id,
            name=ingestion.name,
            status=ingestion.status,
            cluster_id=ingestion.cluster_id,
            source=dict(document.get("source") or {}),
            format=dict(document.get("format") or {}),
            destination=dict(document.get("destination") or {}),
            schedule=document.get("schedule"),
            webhooks=[WebhookModel.model_validate(dict(one)) for one in document.get("webhooks") or ()],
            webhook_states=[WebhookStateModel.of(state) for state in ingestion.webhook_states],
            table=ingestion.table,
            credential_names=list(ingestion.credential_names),
            prefect_deployment_id=ingestion.deployment.id if ingestion.deployment else None,
            version=ingestion.version,
            created_at=ingestion.created_at,
            updated_at=ingestion.updated_at,
            warnings=list(warnings),
        )


class StatusModel(Answer):
    """How an ingestion stands after it was paused or resumed."""

    status: IngestionStatus
    warnings: list[str] | None = Field(None, description="Not there where there are none.")

    @classmethod
    def of(cls, ingestion: Ingestion, warnings: Sequence[str] = ()) -> StatusModel:
        """The JSON of it."""
        return cls(status=ingestion.status, warnings=list(warnings) or None)


class Cleared(Answer):
    """What became of a ledger that was cleared."""

    message: str
    files_cleared: int
    ingestion_id: str


class Confirmation(Strict):
    """Says that it is meant."""

    confirm: bool


# --- runs ----------------------------------------------------------------------------------------------------------


class FileCounts(Answer):
    """Files of a run, by what became of them; `known` were loaded before."""

    loaded: int
    failed: int
    skipped: int
    known: int


class VersionCounts(Answer):
    """Of the loaded files those that are new versions."""

    replaced: int
    appended: int


class RowCounts(Answer):
    """Rows of a run."""

    loaded: int
    rescued: int = 0
    quarantined: int = 0
    dropped: int = 0


class RunError(Answer):
    """A file that failed, or (`file` null) what stopped the run."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    file: str | None
    category: str
    line: int | None
    message: str
    retryable: bool

    @classmethod
    def of(cls, error: Mapping[str, Any]) -> RunError:
        """The JSON of an error, whole."""
        return cls.model_validate({"file": None, "line": None, "retryable": False, **error})


class ProgressModel(Answer):
    """How far a run at work has come: what was read and written, and is not all in the table yet."""

    files: int
    rows: int
    bytes: int
    total_files: int = Field(description="Of the batches that have begun; it grows while files are being found.")
    total_bytes: int


class RunModel(Answer):
    """A run."""

    id: str
    run_id: str = Field(description="The same as `id`.")
    ingestion_id: str
    status: RunStatus
    trigger: Trigger
    method: Method
    table: str
    snapshot_id: int | None = Field(description="The last one that it made; null where it made none.")
    files: FileCounts
    new_versions: VersionCounts
    rows: RowCounts
    bytes: int
    progress: ProgressModel | None = Field(description="Only there while it is at work.")
    duration_s: float | None
    warnings: list[str]
    errors: list[RunError]
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    retry_of: str | None
    flow_run_id: str | None
    attempts: int
    next_attempt_at: datetime | None = Field(description="When it goes on, where it waits to be tried again.")

    @classmethod
    def of(cls, run: RunRecord) -> RunModel:
        """The JSON of a run."""
        began, ended = run.started_at, run.ended_at
        return cls(
            id=run.id,
            run_id=run.id,
            ingestion_id=run.ingestion_id,
            status=run.status,
            trigger=run.trigger,
            method=run.method,
            table=run.table,
            snapshot_id=run.snapshot_id,
            files=FileCounts(
                loaded=run.files_loaded, failed=run.files_failed, skipped=run.files_skipped, known=run.files_known
            ),
            new_versions=VersionCounts(replaced=run.files_replaced, appended=run.files_appended),
            rows=RowCounts(loaded=run.rows_loaded),
            bytes=run.stored_bytes,
            progress=ProgressModel(**vars(run.progress)) if run.progress else None,
            duration_s=round((ended - began).total_seconds(), 3) if began and ended else None,
            warnings=list(run.warnings),
            errors=[RunError.of(error) for error in run.errors],
            created_at=run.created_at,
            started_at=began,
            ended_at=ended,
            retry_of=run.retry_of,
            flow_run_id=run.flow_run_id,
            attempts=run.attempts,
            next_attempt_at=run.next_attempt_at,
        )


class RunLogLineModel(Answer):
    """A line of a run's log."""

    number: int = Field(description="From 1 on.")
    at: datetime
    level: str
    message: str


class RunLogPage(Page[RunLogLineModel]):
    """Some lines of a run's log, in their order."""

    left_out: int = Field(description="Lines between the first and the last ones that are not kept.")

    @classmethod
    def of(cls, log: RunLog, limit: int) -> RunLogPage:
        """The JSON of what was read with `limit` lines a page."""
        items = [RunLogLineModel(**{n: getattr(line, n) for n in RunLogLineModel.model_fields}) for line in log.lines]
        following = cursor_of((items[limit - 1].number,)) if len(items) > limit else None
        return cls(items=items[:limit], next=following, left_out=log.left_out)


class Triggered(Answer):
    """What became of the wish to run an ingestion; `method` tells the ways apart."""

    status: Literal["triggered", "running", "completed", "partial", "failed", "cancelled"]
    method: Method
    run_id: str
    flow_run_id: str | None = None
    message: str
    errors: list[RunError] | None = None

    @classmethod
    def of(cls, run: RunRecord) -> Triggered:
        """The JSON of a run that was begun; `errors` is set where there may be some."""
        if run.method is Method.PREFECT:
            message = "Ingestion run triggered via Prefect"
            told: dict[str, Any] = {"status": "triggered", "flow_run_id": run.flow_run_id, "message": message}
        elif not run.is_over:
            message = "Ingestion run goes on via direct execution; look at the run for its end"
            told = {"status": "running", "message": message}
        else:
            status, message = _DIRECTLY[run.status]
            told = {"status": status, "message": message}
            if run.status is not RunStatus.SUCCESS:
                told["errors"] = [RunError.of(error) for error in run.errors]
        return cls(method=run.method, run_id=run.id, **told)


_DIRECTLY = {
    RunStatus.SUCCESS: ("completed", "Ingestion run completed via direct execution"),
    RunStatus.PARTIAL: ("partial", "Ingestion run completed via direct execution; some files failed"),
    RunStatus.FAILED: ("failed", "Ingestion run failed via direct execution"),
    RunStatus.CANCELLED: ("cancelled", "Ingestion run was cancelled"),
}


class LogLine(Answer):
    """A line that a flow run logged."""

    at: datetime
    level: int
    message: str


class FlowRunModel(Answer):
    """What Prefect tells of a run. It is its view; the run itself says what became of the data."""

    run_id: str
    flow_run_id: str
    state: str
    state_name: str
    message: str
    start_time: datetime | None
    end_time: datetime | None
    total_run_time_s: float
    logs: list[LogLine]
    url: str | None = Field(description="Its page in Prefect.")

    @classmethod
    def of(cls, run_id: str, details: FlowRunDetails) -> FlowRunModel:
        """The JSON of a flow run."""
        flow_run = details.flow_run
        return cls(
            run_id=run_id,
            flow_run_id=flow_run.id,
            state=flow_run.state,
            state_name=flow_run.state_name,
            message=details.message,
            start_time=flow_run.start_time,
            end_time=flow_run.end_time,
            total_run_time_s=flow_run.total_run_time_s,
            logs=[LogLine.model_validate(dict(line)) for line in details.logs],
            url=details.url,
        )


# --- files ---------------------------------------------------------------------------------------------------------


class FileModel(Answer):
    """One version of one file, as the table's ledger knows it."""

    path: str
    version: str
    state: FileState
    bytes: int
    rows: int | None
    run_id: str | None
    tries: int

    @classmethod
    def of(cls, file: LedgerFile) -> FileModel:
        """The JSON of a file."""
        return cls(
            path=file.key,
            version=file.version,
            state=file.state,
            bytes=file.size_bytes,
            rows=file.rows,
            run_id=file.run_id,
            tries=file.tries,
        )


class FailedFileModel(FileModel):
    """A file that failed, and why."""

    category: str | None
    message: str | None
    line: int | None
    retryable: bool
    next_try_at: datetime | None = Field(description="When it is tried by itself; null where it is not.")

    @classmethod
    def of(cls, file: LedgerFile) -> FailedFileModel:
        """The JSON of a failed file."""
        common = FileModel.of(file).model_dump()
        return cls(
            **common,
            category=file.category,
            message=file.message,
            line=file.line,
            retryable=file.retryable,
            # What is not tried by itself has no next time, whatever the ledger keeps.
            next_try_at=file.next_try_at if file.retryable else None,
        )


class FilesToRetry(Strict):
    """Which failed files to try again."""

    paths: list[str] | None = Field(None, min_length=1, max_length=10_000, description="Null: all that failed.")


# --- webhooks ------------------------------------------------------------------------------------------------------


class DeliveryModel(Answer):
    """A message to a webhook."""

    id: str = Field(description="The header `webhook-id`: the same for every attempt.")
    ingestion_id: str
    webhook: str = Field(description="The name of the webhook, or its url where it has none.")
    event: str
    run_id: str
    state: DeliveryState
    attempts: int = Field(description="Since it was written, or was last asked for again.")
    created_at: datetime
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None = Field(
        description="Not before then; one that is pending waits for those before it."
    )
    delivered_at: datetime | None
    last_status: int | None = Field(description="What the receiver answered last; null where it did not.")
    error: str | None = Field(description="Why the last attempt was none, or why it was given up.")
    payload: dict[str, Any] = Field(description="What is sent.")

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryModel:
        """The JSON of a message."""
        return cls(
            id=delivery.id,
            ingestion_id=delivery.ingestion_id,
            webhook=delivery.webhook,
            event=delivery.event,
            run_id=delivery.run_id,
            state=delivery.state,
            attempts=delivery.attempts,
            created_at=delivery.created_at,
            last_attempt_at=delivery.last_attempt_at,
            next_attempt_at=delivery.next_attempt_at,
            delivered_at=delivery.delivered_at,
            last_status=delivery.last_status,
            error=delivery.error,
            payload=json.loads(delivery.body),
        )


class WebhookToTest(Strict):
    """Which webhook to call."""

    webhook: str | None = Field(
        None, max_length=2_000, description="Its name, or its url where it has none. Null: the only one."
    )


class WebhookTestModel(Answer):
    """What a receiver said to a test call."""

    webhook: str
    delivery_id: str = Field(description="The header `webhook-id` that it was sent.")
    signed: bool
    delivered: bool = Field(description="Whether it answered with a 2xx.")
    status: int | None = Field(description="What it answered; null where it did not.")
    error: str | None = Field(description="What is wrong.")
    answer: str = Field(description="The beginning of what it answered.")
    duration_s: float

    @classmethod
    def of(cls, call: TestCall) -> WebhookTestModel:
        """The JSON of a test call."""
        answer = call.answer
        return cls(
            webhook=call.webhook,
            delivery_id=call.delivery_id,
            signed=call.signed,
            delivered=answer.is_accepted,
            status=answer.status,
            error=answer.error or None,
            answer=answer.beginning,
            duration_s=round(answer.duration_s, 3),
        )


# --- previews ------------------------------------------------------------------------------------------------------


class ColumnModel(Answer):
    """A column as the table would have it."""

    name: str
    type: str
    samples: list[Any] = Field(description="Some of its values.")


class PreviewModel(Answer):
    """What is in a source."""

    source_type: str
    format: str
    files: int
    bytes: int
    complete: bool = Field(description="Whether `files` and `bytes` count all of it.")
    row_estimate: int | None
    columns: list[ColumnModel] = Field(serialization_alias="schema")
    rows: list[dict[str, Any]]
    warnings: list[str]


class ComputeCost(Answer):
    """What loading costs."""

    first_load: float
    per_run: float
    per_month: float


class MonthlyCost(Answer):
    """What something costs in a month."""

    per_month: float


class DiscoveryCost(Answer):
    """What finding files costs."""

    per_run: float
    per_month: float


class CostModel(Answer):
    """What an ingestion would cost."""

    currency: Literal["USD"] = "USD"
    files: int
    bytes: int
    new_bytes_per_month: int
    runs_per_month: float
    compute: ComputeCost
    storage: MonthlyCost
    discovery: DiscoveryCost
    total_per_month: float
    assumptions: list[str]
    warnings: list[str]


# --- migrations ----------------------------------------------------------------------------------------------------


class MigrationWish(Strict):
    """What to do about missing deployments."""

    dry_run: bool = Field(default=False, description="Only say what would be done.")


class MigrationModel(Answer):
    """What was, or would be, done."""

    dry_run: bool
    scheduled: int = Field(description="Ingestions that have to have a deployment.")
    present: int = Field(description="Those that had theirs already.")
    created: list[str] = Field(description="Ids of ingestions that got one.")
    updated: list[str] = Field(description="Ids of ingestions whose deployment was made right.")
    failed: dict[str, str] = Field(description="Id of an ingestion to why it has none.")
    left: int = Field(description="How many were not come to; ask again.")

    @classmethod
    def of(cls, report: MigrationReport) -> MigrationModel:
        """The JSON of a report."""
        return cls(
            dry_run=report.dry_run,
            scheduled=report.scheduled,
            present=report.present,
            created=list(report.created),
            updated=list(report.updated),
            failed=dict(report.failed),
            left=report.left,
        )


# --- health --------------------------------------------------------------------------------------------------------


class HealthModel(Answer):
    """How the service is, as of its last beat."""

    status: Literal["healthy", "unhealthy"]
    database: Literal["connected", "disconnected"]
    prefect: Literal["connected", "disconnected"]
    database_detail: str | None = None
    prefect_detail: str | None = None


class Alive(Answer):
    """The process answers."""

    status: Literal["alive", "ready"]


# --- webhooks ------------------------------------------------------------------------------------------------------


class PrefectHint(BaseModel):
    """What Prefect says; other fields are left alone."""

    flow_run_id: str | None = Field(None, description="Its id, with or without `prefect.flow-run.` before it.")


class Accepted(Answer):
    """It was heard."""

    status: Literal["accepted"]
