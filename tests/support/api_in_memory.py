"""The API on services in memory, served over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from app.api.application import application
from app.api.services import Services
from app.domain.ingestions import FlowRun, User
from app.services.access import AccessControl
from app.services.costs import CostEstimate
from app.services.event_feed import EventFeed
from app.services.health import HealthBoard, Part
from app.services.metrics import MetricsService, ReaderReadings
from app.services.migrating import MigrationReport
from app.services.prefect_service import FlowRunDetails
from app.services.source_preview import SourcePreview
from tests.fakes.access import MemoryTokens
from tests.fakes.service import FLOW_RUN_ID, START, FakeAnswers, FakeIngestions, FakeWebhooks
from tests.support.api_server import client_of, serving


class FakePreviews:
    """A source of nothing."""

    async def preview(self, document: Mapping[str, Any], current_user: User) -> SourcePreview:
        return SourcePreview(
            "s3",
            "json",
            0,
            0,
            complete=True,
            row_estimate=0,
            columns=(),
            rows=(),
            warnings=("No file of the source matches.",),
        )

    async def estimate_cost(self, document: Mapping[str, Any], current_user: User) -> CostEstimate:
        return CostEstimate(0, 0, 1.0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, ("None.",), ())


class FakeMigrations:
    """Every ingestion has its deployment."""

    async def migrate(self, current_user: User, *, dry_run: bool) -> MigrationReport:
        return MigrationReport(dry_run, 1, 1, (), ())


class FakeFlowRuns:
    """Knows the flow run that `FakeIngestions` gives its runs, and no other."""

    async def flow_run_details(self, flow_run_id: str, *, limit: int, offset: int) -> FlowRunDetails | None:
        if flow_run_id != FLOW_RUN_ID:
            return None
        lines = tuple({"at": START.isoformat(), "level": 20, "message": f"line {i}"} for i in range(3))
        flow_run = FlowRun(flow_run_id, "RUNNING", "Running", START, None, 1.5)
        return FlowRunDetails(flow_run, "", lines[offset : offset + limit], "http://localhost:4200/runs/flow-run/x")


class FakeHints:
    """Takes one token, and keeps what it is told."""

    TOKEN = "the-token-that-prefect-was-given"

    def __init__(self) -> None:
        self.told: list[str | None] = []

    async def accepts(self, token: str) -> bool:
        return token == self.TOKEN

    def tell(self, flow_run_id: str | None) -> None:
        self.told.append(flow_run_id)


@dataclass
class Api:
    """A served API and what is behind it."""

    client: httpx.Client
    base: str
    ingestions: FakeIngestions
    webhooks: FakeWebhooks
    board: HealthBoard
    answers: FakeAnswers
    tokens: MemoryTokens
    hints: FakeHints

    def forget(self) -> None:
        """Begin with nothing, in good health."""
        self.ingestions.forget()
        self.webhooks.forget()
        self.answers.forget()
        self.tokens.forget()
        self.board.database(Part(up=True, detail=""))
        self.board.prefect(Part(up=True, detail=""))

    def created(self, **fields: Any) -> dict[str, Any]:
        """A new ingestion, as the API answered."""
        document = {
            "name": "one",
            "source": {"path": "s3://b/p/"},
            "destination": {"database": "d", "table": "t"},
            **fields,
        }
        answer = self.client.post("/api/v1/ingestions", json=document)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made


@contextmanager
def served_in_memory() -> Iterator[Api]:
    """The API, served over HTTP, on services in memory."""
    ingestions, answers, board, hints = FakeIngestions(), FakeAnswers(), HealthBoard(lambda: 0.0), FakeHints()
    webhooks = FakeWebhooks(ingestions)
    tokens = MemoryTokens()
    access = AccessControl(tokens)

    @asynccontextmanager
    async def open_services() -> AsyncIterator[Services]:
        feed = EventFeed(ingestions.live, poll_s=0.02)
        metrics = MetricsService(ingestions.live, lambda: ReaderReadings(feed.readers, feed.dropped), None)
        fakes = {"webhooks": webhooks, "migrations": FakeMigrations(), "flow_runs": FakeFlowRuns(), "hints": hints}
        yield Services(ingestions, FakePreviews(), answers, board, access, feed, metrics, **fakes)  # type: ignore[arg-type]
        await feed.close()
        await access.close()

    with serving(application(open_services, "0.0.0")) as base, client_of(base) as client:
        yield Api(client, base, ingestions, webhooks, board, answers, tokens, hints)
