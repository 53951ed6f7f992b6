"""What endpoints call, and how they get it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request

from app.domain.files import LedgerFile
from app.domain.ingestions import Ingestion, RunRecord, User
from app.domain.live import EventFilter, RunLog
from app.domain.service import IngestionQuery, KeptAnswers
from app.domain.webhooks import Delivery, DeliveryState
from app.services.access import AccessControl
from app.services.costs import CostEstimate
from app.services.event_feed import EventReader
from app.services.health import HealthBoard
from app.services.metrics import Family
from app.services.migrating import MigrationReport
from app.services.prefect_service import FlowRunDetails
from app.services.source_preview import SourcePreview
from app.services.webhook_service import TestCall


class Changed(Protocol):
    """An ingestion as it is now, and what its owner should know."""

    @property
    def ingestion(self) -> Ingestion:
        """The ingestion."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """A sentence each."""
        ...


class Begun(Protocol):
    """A run that was begun, as it is now."""

    @property
    def run(self) -> RunRecord:
        """The run."""
        ...


class IngestionCalls(Protocol):
    """What `IngestionService` promises, as far as endpoints ask for it."""

    async def create_ingestion(
        self, document: Mapping[str, Any], current_user: User, *, made_id: str | None = None
    ) -> Changed:
        """Keep a new one, under that id where one is given, and have it scheduled; the one that has the id already."""
        ...

    async def update_ingestion(
        self,
        ingestion_id: str,
        changes: Mapping[str, Any],
        expected_versions: Collection[int] | None,
        current_user: User,
    ) -> Changed:
        """Change what is named: null removes, what is absent stays."""
        ...

    async def delete_ingestion(
        self,
        ingestion_id: str,
        *,
        delete_table: bool,
        expected_versions: Collection[int] | None,
        current_user: User,
    ) -> None:
        """Delete it."""
        ...

    async def pause_ingestion(
        self, ingestion_id: str, current_user: User, *, expected_versions: Collection[int] | None = None
    ) -> Changed:
        """Let it run no more until it is resumed."""
        ...

    async def resume_ingestion(
        self, ingestion_id: str, current_user: User, *, expected_versions: Collection[int] | None = None
    ) -> Changed:
        """Let it run again."""
        ...

    async def get_ingestion(self, ingestion_id: str, current_user: User) -> Ingestion:
        """The ingestion."""
        ...

    async def list_ingestions(self, query: IngestionQuery, current_user: User) -> list[Ingestion]:
        """A page of the user's tenant; one more than `query.limit` where there are more."""
        ...

    async def trigger_manual_run(
        self, ingestion_id: str, current_user: User, *, waits: bool = True, made_id: str | None = None
    ) -> Begun:
        """Begin a run, and wait for a direct one as long as the settings say, or not at all without `waits`.

        Its id is `made_id` where one is given; where there is a run of that id, it is the one.
        """
        ...

    async def list_runs(
        self, ingestion_id: str, *, limit: int, after: tuple[datetime, str] | None, current_user: User
    ) -> list[RunRecord]:
        """A page of its runs, newest first; one more than `limit` where there are more."""
        ...

    async def get_run(self, ingestion_id: str, run_id: str, current_user: User) -> RunRecord:
        """The run of that ingestion."""
        ...

    async def retry_run(
        self, ingestion_id: str, run_id: str, current_user: User, *, made_id: str | None = None
    ) -> Begun:
        """Begin a run of the files that failed in that run; `made_id` as for any run."""
        ...

    async def retry_files(
        self, ingestion_id: str, paths: Sequence[str] | None, current_user: User, *, made_id: str | None = None
    ) -> Begun:
        """Begin a run of failed files, those or all; `made_id` as for any run."""
        ...

    async def cancel_run(self, ingestion_id: str, run_id: str, current_user: User) -> RunRecord:
        """Ask for a run's end."""
        ...

    async def run_log(self, ingestion_id: str, run_id: str, *, after: int, limit: int, current_user: User) -> RunLog:
        """Lines of its log with higher numbers; one more than `limit` where there are more."""
        ...

    async def list_files(
        self, ingestion_id: str, *, failed: bool, limit: int, after: str | None, current_user: User
    ) -> list[LedgerFile]:
        """A page of the ledger of its table: `limit` rows in key order, and the other versions of the last key."""
        ...

    async def clear_processed_files(self, ingestion_id: str, *, confirm: bool, current_user: User) -> int:
        """Begin a new generation of its table's ledger; how many files were forgotten."""
        ...


class PreviewCalls(Protocol):
    """Looks into sources, without writing anything."""

    async def preview(self, document: Mapping[str, Any], current_user: User) -> SourcePreview:
        """What a load would find."""
        ...

    async def estimate_cost(self, document: Mapping[str, Any], current_user: User) -> CostEstimate:
        """What it would cost."""
        ...


class FlowRunLooks(Protocol):
    """Prefect's side of a run."""

    async def flow_run_details(self, flow_run_id: str, *, limit: int, offset: int) -> FlowRunDetails | None:
        """State, times, logs and page of a flow run; None where it is gone."""
        ...


class MigrationCalls(Protocol):
    """Gives scheduled ingestions the deployments that they lack."""

    async def migrate(self, current_user: User, *, dry_run: bool) -> MigrationReport:
        """Do it, a bounded time long; or only say what would be done."""
        ...


class EventCalls(Protocol):
    """What happens, for readers."""

    async def read(self, wanted: EventFilter, after: int | None) -> EventReader:
        """A reader of what comes after that event."""
        ...


class MetricCalls(Protocol):
    """What is measured."""

    async def families(self, tenant: str) -> Sequence[Family]:
        """Every metric with its present values."""
        ...


class HintCalls(Protocol):
    """Prefect's word that something of it has changed."""

    async def accepts(self, token: str) -> bool:
        """Whether that is the token that Prefect was given."""
        ...

    def tell(self, flow_run_id: str | None) -> None:
        """Have somebody ask Prefect about that flow run, or about all."""
        ...


class WebhookCalls(Protocol):
    """What `WebhookService` promises."""

    async def list_deliveries(
        self,
        ingestion_id: str,
        *,
        state: DeliveryState | None,
        limit: int,
        before: int | None,
        current_user: User,
    ) -> list[Delivery]:
        """A page of what was sent or is to be, newest first; one more than `limit` where there are more."""
        ...

    async def redeliver(self, ingestion_id: str, delivery_id: str, current_user: User) -> Delivery:
        """Have a message sent once more."""
        ...

    async def test(self, ingestion_id: str, webhook: str | None, current_user: User) -> TestCall:
        """Call a receiver, and say what it answered."""
        ...


@dataclass(frozen=True)
class Services:
    """All of them. `migrations`, `flow_runs` and `hints` are None where scheduling is off."""

    ingestions: IngestionCalls
    previews: PreviewCalls
    answers: KeptAnswers
    health: HealthBoard
    access: AccessControl
    events: EventCalls
    metrics: MetricCalls
    webhooks: WebhookCalls
    migrations: MigrationCalls | None = None
    flow_runs: FlowRunLooks | None = None
    hints: HintCalls | None = None


def services_of(request: Request) -> Services:
    """Those of the application that got the request."""
    found = request.app.state.services
    assert isinstance(found, Services)  # noqa: S101 - the lifespan sets it
    return found


def user_of(request: Request) -> User:
    """Who asks; told at the door."""
    found = request.scope["user"]
    assert isinstance(found, User)  # noqa: S101 - the door sets it
    return found


# FastAPI has each dependency that is not `async` wait for a thread.
async def _ingestions(request: Request) -> IngestionCalls:
    return services_of(request).ingestions


async def _previews(request: Request) -> PreviewCalls:
    return services_of(request).previews


async def _health(request: Request) -> HealthBoard:
    return services_of(request).health


async def _migrations(request: Request) -> MigrationCalls | None:
    return services_of(request).migrations


async def _flow_runs(request: Request) -> FlowRunLooks | None:
    return services_of(request).flow_runs


async def _current_user(request: Request) -> User:
    return user_of(request)


async def _events(request: Request) -> EventCalls:
    return services_of(request).events


async def _metrics(request: Request) -> MetricCalls:
    return services_of(request).metrics


async def _hints(request: Request) -> HintCalls | None:
    return services_of(request).hints


async def _webhooks(request: Request) -> WebhookCalls:
    return services_of(request).webhooks


IngestionsDep = Annotated[IngestionCalls, Depends(_ingestions)]
PreviewsDep = Annotated[PreviewCalls, Depends(_previews)]
MigrationsDep = Annotated[MigrationCalls | None, Depends(_migrations)]
FlowRunsDep = Annotated[FlowRunLooks | None, Depends(_flow_runs)]
EventsDep = Annotated[EventCalls, Depends(_events)]
MetricsDep = Annotated[MetricCalls, Depends(_metrics)]
HintsDep = Annotated[HintCalls | None, Depends(_hints)]
WebhooksDep = Annotated[WebhookCalls, Depends(_webhooks)]
HealthDep = Annotated[HealthBoard, Depends(_health)]
CurrentUser = Annotated[User, Depends(_current_user)]
