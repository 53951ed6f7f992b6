"""From a process that carries a run out to the scheduler: the run goes on in another one, of another queue."""

from __future__ import annotations

import asyncio

from app.domain.errors import SchedulerUnavailableError
from app.domain.ingestions import Ingestion, RunRecord
from app.services.prefect_plans import PrefectSettings, order_of
from app.services.prefect_service import PrefectService


def hand_on(settings: PrefectSettings, ingestion: Ingestion, run: RunRecord) -> str:
    """Have Prefect begin a flow run in the queue where the run belongs; its id.

    Again for the same run and the same flow run before it, by whomever: the same flow run.

    Raises:
        SchedulerUnavailableError: Prefect does not answer, or the ingestion has no deployment there.
    """
    return asyncio.run(_handed_on(PrefectService(settings), ingestion, run))


async def _handed_on(prefect: PrefectService, ingestion: Ingestion, run: RunRecord) -> str:
    if ingestion.deployment is None:
        raise SchedulerUnavailableError("The ingestion has no deployment.")
    with prefect.patiently():
        try:
            if not await prefect.initialize():
                raise SchedulerUnavailableError(prefect.trouble, remedy="The service hands the run on meanwhile.")
            queue = prefect.queue_of(run, ingestion)
            return await prefect.trigger_deployment(
                ingestion.deployment.id, order_of(run), after=run.flow_run_id, queue=queue
            )
        finally:
            await prefect.close()
