"""Forgets what was told long ago: events, and the lines of runs' logs."""

from __future__ import annotations

import asyncio

from app.domain.errors import AutoloaderError
from app.domain.events import EventLog
from app.domain.live import LiveRows

log = EventLog(__name__)

# So many events are kept, and none for longer.
EVENTS_KEPT = 100_000
EVENTS_AGE_S = 7 * 86_400.0
LOGS_AGE_S = 30 * 86_400.0
EVERY_S = 60.0


async def prune_forever(rows: LiveRows, *, every_s: float = EVERY_S) -> None:
    """Forget now and again, until cancelled. Several processes may do it on one database."""
    while True:
        try:
            gone = await asyncio.to_thread(
                rows.prune, events=EVENTS_KEPT, events_age_s=EVENTS_AGE_S, logs_age_s=LOGS_AGE_S
            )
        except AutoloaderError as error:
            log.warning("not_pruned", code=error.code, reason=str(error))
        else:
            if gone:
                log.info("events_pruned", events=gone)
        await asyncio.sleep(every_s)
