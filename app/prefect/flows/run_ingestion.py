"""The flow: which run it is goes in by ids, all the rest is in our database."""

from __future__ import annotations

import os
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import Abort
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from app.config import read_settings
from app.domain.ingestions import Trigger
from app.domain.redaction import Redactor
from app.domain.runs import RunStatus
from app.services.execution import Execution
from app.telemetry import configure_logging, redact_handlers, told_without_secrets
from app.wiring.scheduling import open_executor


@flow(name="run_ingestion", persist_result=False)
def run_ingestion_flow(ingestion_id: str, trigger: str = "scheduled", run_id: str | None = None) -> State[Any]:
    """Carry out one run of an ingestion, and tell Prefect how it ended; our own row is what counts."""
    is_scheduled = trigger == Trigger.SCHEDULED and run_id is None
    redactor = own_log()
    with told_without_secrets(redactor), open_executor(read_settings(), os.environ, redactor) as executor:
        execution = executor.execute(
            ingestion_id,
            Trigger(trigger),
            run_id=run_id,
            flow_run_id=flow_run.id,
            scheduled_for=flow_run.scheduled_start_time if is_scheduled else None,
            queue=_work_queue(),
        )
    if execution.given_back:
        # Whoever ends this process says what becomes of the flow run.
        raise Abort
    state = state_of(execution)
    get_run_logger().info(state.message)
    return state


def own_log() -> Redactor:
    """See to it that nothing that this process logs holds a secret that the redactor is told of."""
    redactor = configure_logging(verbose=True)
    # What the library writes down and sends to its server of a run goes through it too, and what others write by it.
    redact_handlers(redactor, "root", "prefect", "prefect.flow_runs")
    return redactor


def _work_queue() -> str | None:
    context = FlowRunContext.get()
    return context.flow_run.work_queue_name if context and context.flow_run else None


def state_of(execution: Execution) -> State[Any]:
    """What Prefect is told of it."""
    run = execution.run
    if run is None or execution.reason:
        return Completed(message=execution.reason)
    message = f"Run {run.id}: {run.status}, {run.files_loaded} files and {run.rows_loaded} rows loaded."
    if run.status is RunStatus.CANCELLED:
        return Cancelled(message=message)
    if run.status in {RunStatus.SUCCESS, RunStatus.PARTIAL}:
        return Completed(message=message)
    told = [str(error.get("message")) for error in run.errors if error.get("file") is None]
    later = f" It goes on at {run.next_attempt_at:%H:%M:%S} UTC." if run.next_attempt_at else ""
    return Failed(message=f"{message} {' '.join(told)}{later}")
