"""The worker as the library knows it, as far as it needs no server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed, Crashed, Running
from prefect.utilities.dispatch import get_registry_for_type
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessWorker

from app.domain.errors import LedgerUnreachableError, MemoryLimitError
from app.prefect.worker.admission import Queues
from app.prefect.worker.forks import ForkServer
from app.prefect.worker.warm import AtWork, WarmWorker, WorkerSettings
from app.services.worker_runs import OfFlowRun, WorkerRuns

SETTINGS = WorkerSettings("pool", (), "w", 2, Queues("high", "first"))


@pytest.fixture
def worker() -> WarmWorker:
    # None of them is asked here.
    return WarmWorker(SETTINGS, ForkServer({}), WorkerRuns(None, None))  # type: ignore[arg-type]


@contextmanager
def told(logger: str) -> Iterator[list[str]]:
    """Names of the events that are logged meanwhile."""
    names: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            names.append(record.getMessage())

    handler = Keep()
    logging.getLogger(logger).addHandler(handler)
    try:
        yield names
    finally:
        logging.getLogger(logger).removeHandler(handler)


def refused(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://prefect/api")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))


def test_it_serves_what_the_stock_worker_serves_and_takes_its_place_nowhere() -> None:
    assert WarmWorker.type == ProcessWorker.type == "process"
    kinds = get_registry_for_type(BaseWorker)
    assert kinds is not None
    assert kinds["process"] is ProcessWorker


def test_what_it_overrides_is_there() -> None:
    # Were one renamed in a later version, runs would be taken without being chosen.
    own = [name for name in vars(WarmWorker) if callable(getattr(BaseWorker, name, None))]
    assert {"get_and_submit_flow_runs", "sync_with_backend", "run", "kill_infrastructure"} < set(own)
    assert {"_get_scheduled_flow_runs", "_submit_run", "__dispatch_key__"} < set(own)


def test_prefect_s_absence_is_told_once_and_borne(worker: WarmWorker) -> None:
    with told("app.prefect.worker.warm") as events:
        for error in (httpx.ConnectError("gone"), refused(503), httpx.ReadTimeout("slow")):
            worker._note_away(error)
    assert events == ["prefect_lost"]


def test_what_prefect_refuses_is_not_borne(worker: WarmWorker) -> None:
    with pytest.raises(httpx.HTTPStatusError):
        worker._note_away(refused(401))


def test_a_flow_run_that_prefect_does_not_let_begin_ends_nothing_else(worker: WarmWorker) -> None:
    class Away:
        async def read_deployment(self, _deployment_id: object) -> None:
            raise httpx.ConnectError("gone")

    flow_run = FlowRun(flow_id=uuid4(), deployment_id=uuid4(), name="f")
    worker._client = Away()  # type: ignore[assignment]
    worker._submitting_flow_run_ids.add(flow_run.id)
    with told("app.prefect.worker.warm") as events:
        asyncio.run(worker._submit_run(flow_run))
    assert events == ["flow_run_not_begun"]
    # It can be taken again.
    assert worker._submitting_flow_run_ids == set()


class Unreachable:
    """A database that does not answer: what is told to Prefect does not wait for it."""

    def run_of_flow_run(self, _flow_run_id: str) -> None:
        raise LedgerUnreachableError


class OneFlowRun:
    """A server that knows one flow run."""

    def __init__(self, flow_run: FlowRun) -> None:
        self.flow_run = flow_run

    async def read_flow_run(self, _flow_run_id: object) -> FlowRun:
        return self.flow_run

    async def set_flow_run_state(self, _flow_run_id: object, state: State[Any], *, force: bool) -> None:
        assert force
        self.flow_run.state = state


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Running(), "too large"),
        # Somebody else has seen that its process is gone, and not why.
        (Crashed(message="Its process died."), "too large"),
        (Completed(message="It is done."), "It is done."),
    ],
)
def test_why_a_run_was_too_large_is_said_whoever_said_before_that_it_died(before: State[Any], after: str) -> None:
    worker = WarmWorker(SETTINGS, ForkServer({}), WorkerRuns(Unreachable(), None))  # type: ignore[arg-type]
    flow_run = FlowRun(flow_id=uuid4(), name="f", state=before)
    worker._client = OneFlowRun(flow_run)  # type: ignore[assignment]
    at_work = AtWork(OfFlowRun(str(flow_run.id), {}), flow_run, None)  # type: ignore[arg-type]
    at_work.too_large = MemoryLimitError("too large")
    # It is no crash for the base class, which would say so.
    assert asyncio.run(worker._told(at_work, -9)) == 0
    assert flow_run.state is not None
    assert after in str(flow_run.state.message)
