"""Many ingestions triggered at once, while clients go on asking the API."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from tests.load.checks import FileRows, longest_to_mean
from tests.load.traffic import PATH, Api, document
from tests.support.service_process import land

RECORDS = 1_000
LONGEST_S = 420.0
LOOK_EVERY_S = 0.25
# Prefect is given so many at a time.
AT_ONCE = 2
WORKING = {"queued", "running"}


@dataclass(frozen=True)
class Made:
    """An ingestion with its files.

    Args:
        id: As the API has it.
        table: The last part of its table's name.
        files: What its table has to hold.
    """

    id: str
    table: str
    files: list[FileRows]


@dataclass
class BurstOutcome:
    """What became of the runs.

    Args:
        waits_s: From the request to the start, of each run that began.
        took_s: From the first request to the last end.
        methods: How they were carried out, as the answers said.
        amiss: What did not go well, as sentences.
    """

    runs: int = 0
    succeeded: int = 0
    waits_s: list[float] = field(default_factory=list)
    took_s: float = 0.0
    methods: Counter[str] = field(default_factory=Counter)
    amiss: list[str] = field(default_factory=list)

    @property
    def mean_wait_s(self) -> float:
        """Of all that began."""
        return statistics.fmean(self.waits_s) if self.waits_s else 0.0

    @property
    def longest_to_mean(self) -> float:
        """How many times the mean wait the longest one is."""
        return longest_to_mean(self.waits_s)


@dataclass(frozen=True)
class Triggered:
    """A run that was asked for."""

    made: Made
    run_id: str
    asked_at: datetime


async def make_ingestions(api: Api, folder: Path, name: str, count: int, files: int) -> list[Made]:
    """Ingestions with files, none of them loaded, each with its deployment in Prefect."""
    # Half a day off: none is due while we measure.
    far = (datetime.now(UTC) + timedelta(hours=12)).strftime("%H:%M")
    schedule = {"frequency": "daily", "time": far, "timezone": "UTC"}
    turns = asyncio.Semaphore(AT_ONCE)

    async def make(number: int) -> Made:
        table = f"{name}_{number}"
        source = folder / table
        await asyncio.to_thread(land, source, number * files, files, records=RECORDS)
        async with turns:
            found = await api.json("POST", PATH, document(f"{name}-{number}", str(source), table, schedule))
        return Made(found["id"], table, expected_rows(source, number * files, files))

    made = list(await asyncio.gather(*(make(number) for number in range(count))))
    await _deployed(api, made)
    return made


def expected_rows(source: Path, first: int, count: int) -> list[FileRows]:
    """What a table has to hold of files that `land` wrote."""
    return [
        FileRows(
            path=f"file://{source.resolve()}/batch_{number}.json",
            rows=RECORDS,
            ids=RECORDS,
            total=sum(range(number * RECORDS, (number + 1) * RECORDS)),
        )
        for number in range(first, first + count)
    ]


async def _deployed(api: Api, made: Sequence[Made]) -> None:
    deadline = asyncio.get_running_loop().time() + LONGEST_S
    for one in made:
        while not (await api.json("GET", f"{PATH}/{one.id}"))["prefect_deployment_id"]:
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"{one.table} gets no deployment.")
            await asyncio.sleep(LOOK_EVERY_S)


async def burst(api: Api, made: Sequence[Made]) -> BurstOutcome:
    """Trigger all at once, and wait until all are over."""
    outcome = BurstOutcome(runs=len(made))
    began = datetime.now(UTC)
    triggered = [one for one in await asyncio.gather(*(_trigger(api, one, outcome) for one in made)) if one]
    ends = await _ended(api, triggered, outcome)
    outcome.took_s = (max(ends, default=began) - began).total_seconds()
    return outcome


async def _trigger(api: Api, made: Made, outcome: BurstOutcome) -> Triggered | None:
    asked_at = datetime.now(UTC)
    try:
        answer = await api.ask("POST", f"{PATH}/{made.id}/run")
    except httpx.HTTPError as error:
        outcome.amiss.append(f"{made.table}: the request to run ended with {type(error).__name__}")
        return None
    if not answer.is_success:
        outcome.amiss.append(f"{made.table}: the request to run was answered {answer.status_code} {answer.text[:200]}")
        return None
    told = answer.json()
    outcome.methods[told["method"]] += 1
    return Triggered(made, told["run_id"], asked_at)


async def _ended(api: Api, triggered: Sequence[Triggered], outcome: BurstOutcome) -> list[datetime]:
    """When each run ended; one look after the other, so that looking is no load of its own."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LONGEST_S
    waiting, ends = list(triggered), []
    while waiting and loop.time() < deadline:
        one = waiting.pop(0)
        run = await api.json("GET", f"{PATH}/{one.made.id}/runs/{one.run_id}")
        if run["status"] in WORKING:
            waiting.append(one)
        else:
            ends.append(datetime.fromisoformat(run["ended_at"]))
            _note(one, run, outcome)
        await asyncio.sleep(LOOK_EVERY_S)
    outcome.amiss += [f"{one.made.table}: not over after {LONGEST_S:g} s" for one in waiting]
    return ends


def _note(one: Triggered, run: dict[str, Any], outcome: BurstOutcome) -> None:
    if run["started_at"]:
        outcome.waits_s.append((datetime.fromisoformat(run["started_at"]) - one.asked_at).total_seconds())
    files = len(one.made.files)
    if run["status"] == "success" and run["files"]["loaded"] == files:
        outcome.succeeded += 1
    else:
        loaded = run["files"]["loaded"]
        outcome.amiss.append(f"{one.made.table}: {run['status']}, {loaded} of {files} files, {run['errors'][:1]}")
