"""Prefect: its client, and what its workers run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.config import Settings
from app.wiring.environment import job_environ
from app.wiring.limits import reach_in_server_mode
from app.wiring.product import Product
from app.wiring.stores import existing_store

if TYPE_CHECKING:
    from app.domain.ingestions import Ingestion, RunRecord
    from app.domain.redaction import Redactor
    from app.domain.service import RetryPolicy
    from app.persistence.service import SqlServiceStore
    from app.services.execution import HandOn, RunExecutor
    from app.services.prefect_plans import PrefectSettings
    from app.services.prefect_service import PrefectService
    from app.services.worker_runs import WorkerRuns


def prefect_service(settings: Settings, store: SqlServiceStore, *, patient: bool = False) -> PrefectService:
    """Prefect, as this installation uses it. It is not called, and its library is not imported yet.

    Args:
        settings: What `read_settings` read.
        store: The open database.
        patient: Whether this process's other calls of Prefect's library may try again by themselves for a minute.
    """
    from app.services.prefect_connection import ENVIRONMENT, IMPATIENT
    from app.services.prefect_service import PrefectService

    # Its library reads them when it is imported, and only from there.
    os.environ.update(ENVIRONMENT if patient else {**ENVIRONMENT, **IMPATIENT})
    return PrefectService(_prefect_settings(settings, store))


def _prefect_settings(settings: Settings, store: SqlServiceStore) -> PrefectSettings:
    from app.services.prefect_plans import PrefectSettings

    return PrefectSettings(
        api_url=settings.prefect_api_url or "",
        installation=store.installation_id(),
        default_queue=settings.prefect_default_work_queue,
        high_memory_queue=settings.prefect_high_memory_work_queue,
        priority_queue=settings.prefect_priority_work_queue,
        high_memory_bytes=_high_memory_bytes(settings),
        job_environ=job_environ(settings),
    )


def _high_memory_bytes(settings: Settings) -> int:
    return int(settings.high_memory_threshold_gb * (1 << 30))


def _hand_on(settings: Settings, store: SqlServiceStore) -> HandOn | None:
    """The way from a process that carries a run out to Prefect; None where there is none."""
    if not settings.prefect_api_url:
        return None

    def hand_on(ingestion: Ingestion, run: RunRecord) -> str:
        from app.services.handing_on import hand_on

        return hand_on(_prefect_settings(settings, store), ingestion, run)

    return hand_on


@dataclass(frozen=True)
class WorkerParts:
    """What a worker works with.

    Args:
        prefect: The server that it takes runs from.
        runs: Our rows of them.
        database: Their address, passwords masked.
    """

    prefect: PrefectService
    runs: WorkerRuns
    database: str


@contextmanager
def open_worker(settings: Settings, environ: Mapping[str, str], redactor: Redactor) -> Iterator[WorkerParts]:
    """The parts of a worker's process, on the database as it is.

    Raises:
        WrongDatabaseError: There is no database; none is made.
        AutoloaderError: It cannot be used, or stands at another migration.
    """
    from app.services.worker_runs import WorkerRuns

    with existing_store(settings, environ, redactor) as store:
        prefect = prefect_service(settings, store, patient=True)
        runs = WorkerRuns(store, retry_policy(settings))
        yield WorkerParts(prefect, runs, Product(settings, environ).shown_ledger())


@contextmanager
def open_executor(settings: Settings, environ: Mapping[str, str], redactor: Redactor) -> Iterator[RunExecutor]:
    """What carries runs out in this process, on the database as it is.

    Raises:
        WrongDatabaseError: There is no database; none is made.
        AutoloaderError: It cannot be used.
    """
    from app.persistence.leases import this_process
    from app.services.execution import ExecutionSettings, RunExecutor

    with existing_store(settings, environ, redactor) as store:
        product = Product(settings, environ, reach_in_server_mode(settings, store), redactor.learn)
        execution = ExecutionSettings(
            lease_s=settings.autoloader_lease_s,
            timeout_s=settings.prefect_flow_run_timeout_seconds,
            retry=retry_policy(settings),
            home=str(settings.home),
            database=product.shown_ledger(),
            high_memory_queue=settings.prefect_high_memory_work_queue,
            high_memory_bytes=_high_memory_bytes(settings),
            clean=redactor.text,
        )
        try:
            yield RunExecutor(store, product.load, this_process(), execution, _hand_on(settings, store))
        finally:
            product.close()


def retry_policy(settings: Settings) -> RetryPolicy:
    """How often and how late a run goes on that failed for now."""
    from app.domain.service import RetryPolicy

    return RetryPolicy(settings.prefect_max_task_retries, settings.prefect_task_retry_delay_seconds)
