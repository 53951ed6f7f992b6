"""Prefect's own stream of events."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from app.services.prefect_callback import STATES

if TYPE_CHECKING:
    from prefect.events.clients import PrefectEventSubscriber

PREFIX = "prefect.flow-run."
LOOK_EVERY_S = 0.2


async def flow_run_events(api_url: str, is_there: Callable[[], bool]) -> AsyncIterator[str]:
    """Ids of flow runs that came to an end or are to, as Prefect tells of them; those of the last minute first.

    It ends where the server ends it, and is none where the server is not there. What the library and its socket raise
    goes through.
    """
    # The import takes long, and would hold up everything else in this loop.
    await asyncio.to_thread(importlib.import_module, "prefect.events.clients")
    # It may have gone meanwhile.
    if not is_there():
        return
    async with AsyncExitStack() as stack:
        opening = asyncio.create_task(stack.enter_async_context(_subscriber(api_url)))
        if not await _is_open(opening, is_there):
            return
        async for event in opening.result():
            found = event.resource.id
            if found.startswith(PREFIX):
                yield found.removeprefix(PREFIX)


async def _is_open(opening: asyncio.Task[PrefectEventSubscriber], is_there: Callable[[], bool]) -> bool:
    """Whether it came to be open; it asks several things, each for itself, and is broken off once nobody is there."""
    try:
        while not opening.done() and is_there():
            await asyncio.wait({opening}, timeout=LOOK_EVERY_S)
        is_open = opening.done()
    finally:
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
    return is_open


def _subscriber(api_url: str) -> PrefectEventSubscriber:
    from prefect.events.clients import PrefectCloudEventSubscriber, PrefectEventSubscriber  # noqa: PLC0415
    from prefect.events.filters import EventFilter, EventNameFilter  # noqa: PLC0415
    from prefect.settings import PREFECT_API_KEY, PREFECT_CLOUD_API_URL  # noqa: PLC0415

    names = EventNameFilter(name=[f"{PREFIX}{state}" for state in STATES])
    wanted = EventFilter.model_validate({"event": names})
    # Not the library's own choice between the two: that takes the address from the environment alone.
    if api_url.startswith(PREFECT_CLOUD_API_URL.value()):
        return PrefectCloudEventSubscriber(api_url, PREFECT_API_KEY.value(), wanted, reconnection_attempts=0)
    return PrefectEventSubscriber(api_url, wanted, reconnection_attempts=0)
