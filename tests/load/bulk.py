"""Many hourly ingestions that are made in bulk, and what they cost while nothing is due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from app.services.prefect_plans import PrefectSettings
from tests.load.checks import WantedDeployment, wrong_deployments
from tests.load.traffic import PATH, Api, document
from tests.load.worlds import World

AT_ONCE = 4
PAGE = 500
# How long what Prefect was late with may take after the last request: the reconciler makes some five in a second.
LONGEST_S = 240.0
LOOK_EVERY_S = 2.0
TAGS = frozenset({"autoloader", "tenant-default", "source-local"})
# Zone → the minute of the hour in UTC at which an hourly ingestion of that zone is due.
ZONES = {"UTC": 0, "Asia/Kolkata": 30}


@dataclass
class BulkOutcome:
    """What became of them.

    Args:
        made: How many there are.
        making_s: Until the last request was answered.
        deployed_s: Until each had its deployment; None where some have none.
        late: How many the reconciler had to see to after the request was answered.
        amiss: What did not go well, as sentences.
    """

    made: int = 0
    making_s: float = 0.0
    deployed_s: float | None = None
    late: int = 0
    amiss: list[str] = field(default_factory=list)


def zone_at(now: datetime) -> str:
    """The zone whose hours are farthest off: what is due meanwhile would be measured too."""
    return max(ZONES, key=lambda zone: (ZONES[zone] - now.minute) % 60)


async def make_in_bulk(api: Api, world: World, folder: Path, count: int) -> BulkOutcome:
    """Make them, wait until each has a deployment, and hold Prefect's against what they have to be."""
    outcome = BulkOutcome()
    zone = zone_at(datetime.now(UTC))
    before = {one["id"] for one in await asyncio.to_thread(world.deployments)}
    turns = asyncio.Semaphore(AT_ONCE)

    async def make(number: int) -> str | None:
        schedule = {"frequency": "hourly", "timezone": zone}
        async with turns:
            name = f"hourly_{number}"
            try:
                answer = await api.ask("POST", PATH, document(name, str(folder), name, schedule))
            except httpx.HTTPError as error:
                outcome.amiss.append(f"{name}: the request ended with {type(error).__name__}")
                return None
        if not answer.is_success:
            outcome.amiss.append(f"{name}: {answer.status_code} {answer.text[:200]}")
            return None
        found: dict[str, Any] = answer.json()
        outcome.late += found["prefect_deployment_id"] is None
        return str(found["id"])

    began = time.monotonic()
    ids = [one for one in await asyncio.gather(*(make(number) for number in range(count))) if one]
    outcome.made, outcome.making_s = len(ids), time.monotonic() - began
    given = await _deployed(api, ids, began, outcome)
    wanted = [
        WantedDeployment(given[one], one, f"{ZONES[zone]} * * * *", PrefectSettings.default_queue, TAGS) for one in ids
    ]
    found = [one for one in await asyncio.to_thread(world.deployments) if one["id"] not in before]
    outcome.amiss += wrong_deployments(wanted, found)
    return outcome


async def _deployed(api: Api, ids: Sequence[str], began: float, outcome: BulkOutcome) -> dict[str, str | None]:
    """Ingestion → its deployment, when all have one or the time is over."""
    until = time.monotonic() + LONGEST_S
    while True:
        every = await _deployments_of_all(api)
        given = {one: every.get(one) for one in ids}
        if all(given.values()):
            outcome.deployed_s = time.monotonic() - began
            return given
        if time.monotonic() > until:
            return given
        await asyncio.sleep(LOOK_EVERY_S)


async def _deployments_of_all(api: Api) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    query = f"?limit={PAGE}"
    while query:
        page = await api.json("GET", f"{PATH}{query}")
        found |= {one["id"]: one["prefect_deployment_id"] for one in page["items"]}
        query = f"?limit={PAGE}&cursor={page['next']}" if page["next"] else ""
    return found
