"""Prefect's side of a process of the service: what runs beside the API, from its start to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from app.services.migrating import Migration
from app.services.prefect_beat import PrefectBeat
from app.services.prefect_hints import PrefectHints, PrefectStream
from app.services.prefect_service import PrefectService, register_prefect_service
from app.services.prefect_worker import WorkerChild


@dataclass(frozen=True)
class Orchestration:
    """The parts, connected. `worker` is None where it is not ours to start one."""

    prefect: PrefectService
    beat: PrefectBeat
    migration: Migration
    worker: WorkerChild | None
    hints: PrefectHints
    stream: PrefectStream

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Beat, reconcile and see to the worker until the block ends. Begins at once, whatever Prefect does."""
        register_prefect_service(self.prefect)
        runs = {"prefect": self.beat.run, "prefect-hints": self.hints.run, "prefect-stream": self.stream.run}
        tasks = [asyncio.create_task(run(), name=name) for name, run in runs.items()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            if self.worker is not None:
                await self.worker.stop()
            await self.prefect.close()
            register_prefect_service(None)
