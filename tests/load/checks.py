"""What a load must have come to, and what is not so. Pure: what was found goes in, sentences come out."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LONGEST_TO_MEAN = 3.0
P99_TO_IDLE = 10.0
# What a process may have more at the end than at the start: allocators give back in their own time.
GROWTH, GROWTH_BYTES = 0.15, 20_000_000
# So many of one kind are told one by one.
SHOWN = 5


@dataclass(frozen=True)
class FileRows:
    """The rows of one file, as they are in a table or have to be.

    Args:
        path: The file, as `_file_path` has it.
        rows: How many.
        ids: How many different ids.
        total: The sum of the ids.
    """

    path: str
    rows: int
    ids: int
    total: int


@dataclass(frozen=True)
class WantedDeployment:
    """A deployment as it has to be in Prefect.

    Args:
        id: As the ingestion names it; None where it names none.
        ingestion_id: Whose it is.
        cron: Its one schedule, in UTC.
        queue: Where its flow runs go.
        tags: What it has to be tagged with, among others.
    """

    id: str | None
    ingestion_id: str
    cron: str
    queue: str
    tags: frozenset[str]


def wrong_rows(expected: Iterable[FileRows], found: Iterable[FileRows]) -> list[str]:
    """How a table differs from the files that landed."""
    there = list(found)
    wanted = {one.path: one for one in expected}
    known = {one.path: one for one in there}
    amiss = [f"{path}: not in the table" for path in wanted.keys() - known.keys()]
    amiss += [f"{path}: in the table, and never landed" for path in known.keys() - wanted.keys()]
    amiss += [f"{path}: told {n} times" for path, n in Counter(one.path for one in there).items() if n > 1]
    for path in wanted.keys() & known.keys():
        want, have = wanted[path], known[path]
        if want != have:
            amiss.append(
                f"{path}: {have.rows} rows with {have.ids} ids that sum up to {have.total}, "
                f"not {want.rows} with {want.ids} and {want.total}"
            )
    return sorted(amiss)


def wrong_deployments(wanted: Sequence[WantedDeployment], found: Sequence[Mapping[str, Any]]) -> list[str]:
    """How Prefect's deployments differ from those that are wanted.

    Args:
        wanted: All that there have to be.
        found: All that there are, as Prefect's API has them.
    """
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for one in found:
        by_name.setdefault(one["name"], []).append(one)
    amiss = []
    for want in wanted:
        name = f"ingestion-{want.ingestion_id}"
        these = by_name.pop(name, [])
        if len(these) != 1:
            amiss.append(f"{name}: there {len(these)} times")
        amiss += [f"{name}: {reason}" for one in these for reason in _differences(want, one)]
    return amiss + [f"{name}: of no ingestion" for name in sorted(by_name)]


def _differences(want: WantedDeployment, have: Mapping[str, Any]) -> list[str]:
    crons = [(one["schedule"].get("cron"), one["schedule"].get("timezone")) for one in have["schedules"]]
    said = {
        "id": (want.id, have["id"]),
        "schedules": ([(want.cron, "UTC")], crons),
        "active": ([True], [one["active"] for one in have["schedules"]]),
        "queue": (want.queue, have["work_queue_name"]),
        "tags": (want.tags, want.tags & set(have["tags"])),
        "ingestion": (want.ingestion_id, have["parameters"].get("ingestion_id")),
        "paused": (False, have["paused"]),
    }
    return [f"{what} is {is_so}, not {should}" for what, (should, is_so) in said.items() if should != is_so]


def longest_to_mean(waits_s: Sequence[float]) -> float:
    """How many times the mean the longest one is; infinite where there is none."""
    return max(waits_s) / statistics.fmean(waits_s) if waits_s and statistics.fmean(waits_s) > 0 else math.inf


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of all does not exceed; infinite where there is none."""
    if not values:
        return math.inf
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def has_grown(start_bytes: int, end_bytes: int) -> bool:
    """Whether a process keeps more than allocators keep for a while; or it is gone, and another one took its place."""
    return end_bytes == 0 or end_bytes > start_bytes * (1 + GROWTH) + GROWTH_BYTES


def shortened(amiss: Sequence[str]) -> list[str]:
    """The first ones, and how many more there are."""
    rest = len(amiss) - SHOWN
    return [*amiss[:SHOWN], *([f"… and {rest} more"] if rest > 0 else [])]
