"""A scheduler in memory, which can be away."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from app.domain.errors import DeploymentGoneError, SchedulerUnavailableError
from app.domain.ingestions import FlowRun, Ingestion, RunRecord
from app.services.prefect_plans import (
    DeploymentPlan,
    FoundDeployment,
    PrefectSettings,
    plan_deployment,
    queue_of,
    run_key,
)
from app.services.reconciling import FINAL

SETTINGS = PrefectSettings("http://nowhere.invalid/api", "fake")


@dataclass
class MemoryScheduler:
    """Keeps the promises of `domain.ingestions.Scheduler`, and what the reconciler needs beside them."""

    settings: PrefectSettings = SETTINGS
    is_away: bool = False
    deployments: dict[str, DeploymentPlan] = field(default_factory=dict)
    flow_runs: dict[str, FlowRun] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    queues: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    is_silent: bool = False

    @property
    def initialized(self) -> bool:
        """Whether it is there."""
        return not self.is_away

    def _asked(self, what: str) -> None:
        if self.is_away:
            raise SchedulerUnavailableError
        self.sent.append(what)

    def patiently(self) -> AbstractContextManager[None]:
        """It answers at once anyway."""
        return nullcontext()

    def fingerprint(self, ingestion: Ingestion) -> str:
        """Of everything that `create_deployment` would send for it."""
        return self.plan(ingestion).fingerprint

    def plan(self, ingestion: Ingestion) -> DeploymentPlan:
        """What `create_deployment` would send for it."""
        return plan_deployment(ingestion, self.settings, datetime.now(UTC))

    async def create_deployment(self, ingestion: Ingestion) -> str:
        """Make or replace it."""
        self._asked(f"create {ingestion.id}")
        plan = self.plan(ingestion)
        known = [one for one, other in self.deployments.items() if other.name == plan.name]
        deployment_id = known[0] if known else str(uuid.uuid4())
        self.deployments[deployment_id] = plan
        return deployment_id

    async def pause_deployment(self, deployment_id: str) -> None:
        """Stop its schedule."""
        self._asked(f"pause {deployment_id}")
        self._set_paused(deployment_id, paused=True)

    async def resume_deployment(self, deployment_id: str) -> None:
        """Let its schedule go on."""
        self._asked(f"resume {deployment_id}")
        self._set_paused(deployment_id, paused=False)

    def _set_paused(self, deployment_id: str, *, paused: bool) -> None:
        if deployment_id in self.deployments:
            old = self.deployments[deployment_id]
            self.deployments[deployment_id] = DeploymentPlan(**{**old.__dict__, "paused": paused})

    async def delete_deployment(self, deployment_id: str) -> None:
        """Remove it."""
        self._asked(f"delete {deployment_id}")
        self.deployments.pop(deployment_id, None)

    def queue_of(self, run: RunRecord, ingestion: Ingestion) -> str:
        """The queue that a flow run of this run goes to."""
        return queue_of(run, ingestion, self.settings)

    async def trigger_deployment(
        self,
        deployment_id: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        after: str | None = None,
        queue: str | None = None,
    ) -> str:
        """Begin a flow run."""
        self._asked(f"trigger {deployment_id}")
        if deployment_id not in self.deployments:
            raise DeploymentGoneError
        given = {**self.deployments[deployment_id].parameters, **(parameters or {})}
        key = run_key(str(given["run_id"]), after) if given.get("run_id") else str(uuid.uuid4())
        if key not in self.keys:
            self.keys[key] = str(uuid.uuid4())
            self.flow_runs[self.keys[key]] = FlowRun(
                self.keys[key], "SCHEDULED", "Scheduled", None, None, 0.0, parameters=given
            )
            self.owners[self.keys[key]] = deployment_id
            self.queues[self.keys[key]] = queue or self.settings.priority_queue
        return self.keys[key]

    async def get_flow_runs(self, deployment_id: str, limit: int = 50) -> list[FlowRun]:
        """Newest first."""
        self._asked(f"runs {deployment_id}")
        found = [run for one, run in self.flow_runs.items() if self.owners[one] == deployment_id]
        return found[::-1][:limit]

    async def list_deployments(self) -> list[FoundDeployment]:
        """All of them."""
        self._asked("list")
        return [
            FoundDeployment(
                id=one,
                name=plan.name,
                parameters=plan.parameters,
                tags=plan.tags,
                pool=plan.pool,
                queue=plan.queue,
                schedules=(plan.cron,) if plan.cron else (),
                paused=plan.paused,
                entrypoint=plan.entrypoint,
                job_variables=plan.job_variables,
                version=plan.version,
            )
            for one, plan in self.deployments.items()
        ]

    async def flow_runs_by_id(self, ids: list[str]) -> dict[str, FlowRun]:
        """Those of them that are known."""
        self._asked("states")
        return {one: self.flow_runs[one] for one in ids if one in self.flow_runs}

    async def open_flow_runs(self) -> list[FlowRun]:
        """Those that began and did not end."""
        self._asked("open")
        return [run for run in self.flow_runs.values() if run.state in {"RUNNING", "PENDING", "CANCELLING"}]

    async def has_runs_to_come(self) -> bool:
        """Whether it schedules."""
        self._asked("to come")
        return not self.is_silent

    async def end_flow_run(self, flow_run_id: str, message: str, *, crashed: bool) -> None:
        """Say that it crashed, or that it is to end."""
        self._asked(f"end {flow_run_id} {message}")
        if flow_run_id in self.flow_runs and self.flow_runs[flow_run_id].state not in FINAL:
            state = "CRASHED" if crashed else "CANCELLED"
            old = self.flow_runs[flow_run_id]
            self.flow_runs[flow_run_id] = FlowRun(**{**old.__dict__, "state": state, "state_name": state.capitalize()})
