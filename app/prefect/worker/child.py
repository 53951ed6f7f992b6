"""What a forked process does: carry out one flow run, then end as any program does."""

from __future__ import annotations

from prefect.client.schemas.objects import FlowRun
from prefect.engine import handle_engine_signals
from prefect.flow_engine import run_flow
from prefect.logging.loggers import flow_run_logger

from app.prefect.flows.run_ingestion import run_ingestion_flow
from app.prefect.worker.messages import Order


def carry_out(order: Order) -> None:
    """Run the flow under Prefect's engine, which tells Prefect how it ended; exits as that wants it."""
    flow_run = FlowRun.model_validate_json(order.flow_run)
    with handle_engine_signals(flow_run.id):
        run_flow(
            run_ingestion_flow,
            flow_run=flow_run,
            return_type="state",
            error_logger=flow_run_logger(flow_run),  # type: ignore[arg-type]  # an adapter of one
        )
