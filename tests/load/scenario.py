"""What a world goes through, and what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.load.bulk import BulkOutcome, make_in_bulk
from tests.load.burst import BurstOutcome, Made, burst, make_ingestions
from tests.load.checks import wrong_rows
from tests.load.processes import Memory, MemoryWatch, cpu_shares
from tests.load.traffic import PATH, Answers, Api, Clients, document
from tests.load.worlds import World

Say = Callable[[str], None]
BYSTANDERS = 10
# A few go first: what a process does at its first run only, and keeps, is not growth.
WARM, WARM_FILES = 4, 2
# Folders without a file.
NOTHING, HOURLY = "nothing", "hourly"


@dataclass(frozen=True)
class Size:
    """How much is done.

    Args:
        ingestions: Triggered at once.
        files: Of each.
        hourly: Made in bulk.
        baseline_s: So long the API is asked while nothing runs.
        rest_s: After the burst, until memory is looked at for the last time.
        idle_s: So long the CPU is watched while nothing is due.
    """

    ingestions: int = 60
    files: int = 20
    hourly: int = 1_000
    baseline_s: float = 20.0
    rest_s: float = 15.0
    idle_s: float = 40.0

    def scaled(self, scale: float) -> Size:
        """So much of the ingestions; of the times a quarter at least."""
        part = min(1.0, max(0.25, scale))
        return Size(
            ingestions=max(2, round(self.ingestions * scale)),
            files=self.files,
            hourly=max(2, round(self.hourly * scale)),
            baseline_s=self.baseline_s * part,
            rest_s=self.rest_s * part,
            idle_s=self.idle_s * part,
        )


@dataclass
class Outcome:
    """All that was found of a world."""

    title: str
    size: Size
    burst: BurstOutcome = field(default_factory=BurstOutcome)
    rows: int = 0
    wrong_rows: list[str] = field(default_factory=list)
    idle: Answers = field(default_factory=Answers)
    loaded: Answers = field(default_factory=Answers)
    memory: dict[str, Memory] = field(default_factory=dict)
    peak_of_all_bytes: int = 0
    bulk: BulkOutcome = field(default_factory=BulkOutcome)
    idle_cpu: dict[str, float] = field(default_factory=dict)
    took_s: float = 0.0


async def play(world: World, folder: Path, size: Size, say: Say) -> Outcome:
    """Everything, in its order."""
    began = time.monotonic()
    outcome = Outcome(world.title, size)
    for name in (NOTHING, HOURLY):
        await asyncio.to_thread((folder / name).mkdir, parents=True)
    api = Api(world.api_urls)
    try:
        made = await _burst_beside_clients(world, api, folder, outcome, say)
        say("Reading the tables.")
        found = await asyncio.to_thread(_rows, world, made, outcome)
        say(f"{outcome.rows} rows, {found or 'none'} wrong. Making {size.hourly} hourly ingestions.")
        outcome.bulk = await make_in_bulk(api, world, folder / HOURLY, size.hourly)
        say(f"Made in {outcome.bulk.making_s:.0f} s, {len(outcome.bulk.amiss)} amiss. Watching what idling costs.")
        await asyncio.sleep(size.rest_s)
        # What a worker's runs are forked from is below the worker.
        heads = {name: pid for name, pid in world.processes.items() if not name.startswith("fork server")}
        outcome.idle_cpu = await asyncio.to_thread(cpu_shares, heads, size.idle_s)
    finally:
        await api.close()
    outcome.took_s = time.monotonic() - began
    return outcome


async def _burst_beside_clients(world: World, api: Api, folder: Path, outcome: Outcome, say: Say) -> list[Made]:
    size = outcome.size
    say(f"Making {size.ingestions} ingestions of {size.files} files.")
    made = await make_ingestions(api, folder, "burst", size.ingestions, size.files)
    warm = await make_ingestions(api, folder, "warm", WARM, WARM_FILES)
    bystanders = [
        (await api.json("POST", PATH, document(f"b{number}", str(folder / NOTHING), f"b{number}")))["id"]
        for number in range(BYSTANDERS)
    ]
    clients = Clients(api, [one.id for one in made], bystanders, str(folder / NOTHING))
    async with clients.at_work():
        await burst(api, warm)
    await asyncio.sleep(size.rest_s)
    async with clients.at_work() as outcome.idle:
        await asyncio.sleep(size.baseline_s)
    say("Triggering all of them.")
    watch = MemoryWatch(world.processes)
    watch.start()
    async with clients.at_work() as outcome.loaded:
        outcome.burst = await burst(api, made)
    say(f"{outcome.burst.succeeded} of {outcome.burst.runs} succeeded, in {outcome.burst.took_s:.0f} s.")
    await asyncio.sleep(size.rest_s)
    outcome.memory = await asyncio.to_thread(watch.ended)
    outcome.peak_of_all_bytes = watch.peak_of_all_bytes
    return made


def _rows(world: World, made: list[Made], outcome: Outcome) -> int:
    """Hold the tables against what landed; how many files are wrong."""
    found = world.rows([one.table for one in made])
    for one in made:
        there = found[one.table]
        outcome.rows += sum(file.rows for file in there)
        outcome.wrong_rows += wrong_rows(one.files, there)
    return len(outcome.wrong_rows)
