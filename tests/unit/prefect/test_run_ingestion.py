"""What Prefect is told of a run."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.domain.ingestions import Method, RunRecord, Trigger
from app.domain.runs import RunStatus
from app.prefect.flows.run_ingestion import run_ingestion_flow, state_of
from app.services.execution import Execution
from app.services.prefect_plans import ENTRYPOINT, FLOW_NAME, PARAMETER_SCHEMA

RUN = RunRecord(
    "r1",
    "i1",
    "local.shop.events",
    Trigger.MANUAL,
    Method.PREFECT,
    RunStatus.SUCCESS,
    created_at=datetime(2026, 1, 15, 12, tzinfo=UTC),
    files_loaded=3,
    rows_loaded=3000,
)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (RunStatus.SUCCESS, "COMPLETED"),
        (RunStatus.PARTIAL, "COMPLETED"),
        (RunStatus.FAILED, "FAILED"),
        (RunStatus.CANCELLED, "CANCELLED"),
        (RunStatus.QUEUED, "FAILED"),
    ],
)
def test_a_flow_run_ends_as_its_run_does(status: RunStatus, state: str) -> None:
    told = state_of(Execution(replace(RUN, status=status)))
    assert told.type.value == state
    assert told.message is not None
    assert told.message.startswith(f"Run r1: {status}, 3 files and 3000 rows loaded.")


def test_a_failed_one_says_why_and_when_it_goes_on() -> None:
    errors = ({"file": None, "message": "The source does not answer."}, {"file": "s3://b/a.json", "message": "no"})
    later = datetime(2026, 1, 15, 13, 30, tzinfo=UTC)
    told = state_of(Execution(replace(RUN, status=RunStatus.QUEUED, errors=errors, next_attempt_at=later)))
    assert told.message is not None
    assert told.message.endswith("The source does not answer. It goes on at 13:30:00 UTC.")


def test_one_that_had_nothing_to_do_is_completed_with_the_reason() -> None:
    for run in (None, replace(RUN, status=RunStatus.RUNNING)):
        told = state_of(Execution(run, "Run r0 is at work on this ingestion."))
        assert (told.type.value, told.message) == ("COMPLETED", "Run r0 is at work on this ingestion.")


def test_the_flow_is_what_deployments_name() -> None:
    assert run_ingestion_flow.name == FLOW_NAME
    module, _, name = ENTRYPOINT.rpartition(".")
    assert (run_ingestion_flow.fn.__module__, run_ingestion_flow.fn.__name__) == (module, name)
    assert set(run_ingestion_flow.parameters.properties) == set(PARAMETER_SCHEMA["properties"])
    # Our own rows say how often and how long; Prefect's retries are not used when a process is killed.
    assert (run_ingestion_flow.retries, run_ingestion_flow.timeout_seconds) == (0, None)
