"""What Prefect is given for an ingestion, and whether what it has is that. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from app.domain.ingestions import Ingestion, IngestionStatus, RunRecord, Trigger
from app.services.schedules import Cron, cron_of

FLOW_NAME = "run_ingestion"
ENTRYPOINT = "app.prefect.flows.run_ingestion.run_ingestion_flow"
PREFIX = "ingestion-"
PRODUCT_TAG = "autoloader"
SCHEDULE_SLUG = "main"
GIB = 1 << 30

# Ids and a word, nothing else: a parameter that is not among them is refused, so that none ever carries a secret.
PARAMETER_SCHEMA: Mapping[str, Any] = {
    "title": "Parameters",
    "type": "object",
    "properties": {
        "ingestion_id": {"title": "ingestion_id", "type": "string", "position": 0},
        "trigger": {
            "title": "trigger",
            "type": "string",
            "enum": [str(t) for t in Trigger],
            "default": "scheduled",
            "position": 1,
        },
        "run_id": {"title": "run_id", "anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "position": 2},
    },
    "required": ["ingestion_id"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class PrefectSettings:
    """Where Prefect is and how it is used.

    Args:
        api_url: Of its API.
        installation: Marks what belongs to this database: several may share one Prefect server.
        pool: The work pool, made when missing.
        high_memory_bytes: An ingestion whose last discovery found more new bytes goes to the queue for high memory.
        timeout_s: So long any call waits.
        pause_s: So long after a call that got no answer no other is made. A look that is answered ends it; one of
            those that come again and again, and is not answered, has it last until one is.
        job_environ: What flow runs get into their environment beside the worker's own. No secrets: Prefect stores it.
    """

    api_url: str
    installation: str
    pool: str = "autoloader-pool"
    default_queue: str = "autoloader-default"
    high_memory_queue: str = "autoloader-high-memory"
    priority_queue: str = "autoloader-priority"
    high_memory_bytes: int = 10 * GIB
    timeout_s: float = 2.0
    pause_s: float = 15.0
    job_environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def queues(self) -> dict[str, int]:
        """Name of each queue → its priority; the lowest number goes first."""
        return {self.priority_queue: 1, self.default_queue: 10, self.high_memory_queue: 20}

    @property
    def installation_tag(self) -> str:
        """The tag that says whose a deployment is."""
        return f"installation-{self.installation}"


@dataclass(frozen=True)
class DeploymentPlan:
    """All of a deployment that is ours to say."""

    name: str
    parameters: Mapping[str, Any]
    tags: tuple[str, ...]
    pool: str
    queue: str
    cron: Cron | None
    paused: bool
    entrypoint: str = ENTRYPOINT
    job_variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The same for the same plan, and for no other."""
        return _digest(asdict(self))

    @property
    def version(self) -> str:
        """The fingerprint of all but the pause, which is set and lifted without making the deployment anew."""
        return _digest({**asdict(self), "paused": None})


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class FoundDeployment:
    """A deployment as Prefect has it.

    Args:
        version: Of the plan that it was made from.
        schedules: Its active schedules; None for one that is no cron.
    """

    id: str
    name: str
    parameters: Mapping[str, Any]
    tags: tuple[str, ...]
    pool: str | None
    queue: str | None
    schedules: tuple[Cron | None, ...]
    paused: bool
    entrypoint: str | None
    job_variables: Mapping[str, Any]
    version: str | None

    @property
    def ingestion_id(self) -> str:
        """Whose it is; empty where its name does not say."""
        return self.name.removeprefix(PREFIX) if self.name.startswith(PREFIX) else ""

    def matches(self, plan: DeploymentPlan) -> bool:
        """Whether there is nothing to send."""
        return (
            self.version == plan.version
            and plan
            == DeploymentPlan(
                name=self.name,
                parameters=dict(self.parameters),
                tags=tuple(sorted(self.tags)),
                pool=self.pool or "",
                queue=self.queue or "",
                cron=self.schedules[0] if len(self.schedules) == 1 else None,
                paused=self.paused,
                entrypoint=self.entrypoint or "",
                job_variables=dict(self.job_variables),
            )
            and len(self.schedules) == (plan.cron is not None)
        )


def plan_deployment(ingestion: Ingestion, settings: PrefectSettings, at: datetime) -> DeploymentPlan:
    """What its deployment has to be.

    Args:
        ingestion: What is wanted.
        settings: Names of pool and queues.
        at: Now; see `cron_of`.
    """
    source = ingestion.document.get("source") or {}
    source_type = source.get("type") or "local"
    variables = {"env": dict(settings.job_environ)} if settings.job_environ else {}
    return DeploymentPlan(
        name=f"{PREFIX}{ingestion.id}",
        parameters={"ingestion_id": ingestion.id, "trigger": str(Trigger.SCHEDULED)},
        tags=tuple(
            sorted((PRODUCT_TAG, f"tenant-{ingestion.tenant}", f"source-{source_type}", settings.installation_tag))
        ),
        pool=settings.pool,
        queue=_scheduled_queue(ingestion, settings),
        cron=cron_of(ingestion.schedule, at) if ingestion.schedule else None,
        paused=ingestion.status is not IngestionStatus.ACTIVE,
        job_variables=variables,
    )


def _scheduled_queue(ingestion: Ingestion, settings: PrefectSettings) -> str:
    is_large = (ingestion.discovered_bytes or 0) > settings.high_memory_bytes
    return settings.high_memory_queue if is_large else settings.default_queue


def queue_of(run: RunRecord, ingestion: Ingestion, settings: PrefectSettings) -> str:
    """The queue that a flow run of this run goes to."""
    if run.handed_over_at is not None:
        return settings.high_memory_queue
    if run.trigger in {Trigger.MANUAL, Trigger.RETRY}:
        return settings.priority_queue
    return _scheduled_queue(ingestion, settings)


def order_of(run: RunRecord) -> dict[str, str]:
    """The parameters of a flow run that is to carry this run out."""
    return {"ingestion_id": run.ingestion_id, "trigger": str(run.trigger), "run_id": run.id}


def run_key(run_id: str, after: str | None) -> str:
    """The idempotency key of a flow run: the same order is never carried out twice.

    Prefect keeps keys by flow, not by deployment, so it must hold an id that nobody else has. An order that is given
    again because its flow run ended without an end names that flow run, and so is another one.
    """
    return f"{run_id}:{after}" if after else run_id
