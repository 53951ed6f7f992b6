"""What Prefect's answers say, in our nouns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from app.domain.ingestions import FlowRun
from app.services.prefect_plans import FoundDeployment
from app.services.schedules import Cron

if TYPE_CHECKING:
    import prefect.client.schemas.objects as theirs
    from prefect.client.schemas.responses import DeploymentResponse


# Prefect Cloud has its pages elsewhere than its API.
_CLOUD = re.compile(r"api\.prefect\.cloud/api/accounts/([\w-]+)/workspaces/([\w-]+)/?")


def deployment(found: DeploymentResponse) -> FoundDeployment:
    """A deployment."""
    return FoundDeployment(
        id=str(found.id),
        name=found.name,
        parameters=found.parameters,
        tags=tuple(sorted(found.tags)),
        pool=found.work_pool_name,
        queue=found.work_queue_name,
        schedules=tuple(_cron(one.schedule) for one in found.schedules if one.active),
        paused=found.paused,
        entrypoint=found.entrypoint,
        job_variables=found.job_variables,
        version=found.version,
    )


def _cron(schedule: Any) -> Cron | None:  # noqa: ANN401 - one of four classes of a library that is imported late
    expression = getattr(schedule, "cron", None)
    return Cron(expression, schedule.timezone or "UTC") if expression else None


def flow_run(found: theirs.FlowRun) -> FlowRun:
    """A flow run; one that is still to begin has no start time, one that began and did not end that of its state."""
    state = found.state
    began: datetime | None = found.start_time
    if began is None and state is not None and not state.is_scheduled():
        began = state.timestamp
    return FlowRun(
        id=str(found.id),
        state=state.type.value if state else "",
        state_name=(state.name if state else "") or "",
        start_time=began,
        end_time=found.end_time,
        total_run_time_s=found.total_run_time.total_seconds(),
        parameters=found.parameters,
    )


def log_line(line: theirs.Log) -> Mapping[str, Any]:
    """One line of a log."""
    return {"at": line.timestamp.isoformat(), "level": line.level, "message": line.message}


def page_of(api_url: str, flow_run_id: str) -> str | None:
    """Address of the page that shows a flow run, without what an address may hold of a password."""
    parts = urlsplit(api_url)
    cloud = _CLOUD.fullmatch(f"{parts.hostname}{parts.path}")
    if cloud:
        return f"https://app.prefect.cloud/account/{cloud[1]}/workspace/{cloud[2]}/runs/flow-run/{flow_run_id}"
    if not parts.path.rstrip("/").endswith("/api") or not parts.hostname:
        return None
    host = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
    path = parts.path.rstrip("/").removesuffix("/api")
    return urlunsplit((parts.scheme, host, f"{path}/runs/flow-run/{flow_run_id}", "", ""))
