from __future__ import annotations

import asyncio
from contextlib import suppress

from app.domain.errors import LedgerBusyError
from app.services.pruning import EVENTS_AGE_S, EVENTS_KEPT, LOGS_AGE_S, prune_forever
from tests.fakes.live import MemoryLive


class Rows(MemoryLive):
    """Notes how it is pruned, and does not answer the first time."""

    def prune(self, *, events: int, events_age_s: float, logs_age_s: float) -> int:
        self.looks += 1
        assert (events, events_age_s, logs_age_s) == (EVENTS_KEPT, EVENTS_AGE_S, LOGS_AGE_S)
        if self.looks == 1:
            raise LedgerBusyError
        return 3


def test_what_is_old_is_forgotten_again_and_again() -> None:
    async def run() -> None:
        rows = Rows()
        task = asyncio.create_task(prune_forever(rows, every_s=0.01))
        async with asyncio.timeout(30):
            while rows.looks < 3:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())
