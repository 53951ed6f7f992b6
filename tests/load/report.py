"""Outcomes as Markdown, and whether what is promised held. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.load.burst import BurstOutcome
from tests.load.checks import (
    LONGEST_TO_MEAN,
    P99_TO_IDLE,
    has_grown,
    percentile,
    shortened,
)
from tests.load.scenario import Outcome

BEGIN = "<!-- figures: written by `make load` -->"
MB = 1_000_000


@dataclass(frozen=True)
class Row:
    """A line of the table: a figure of each world, and the promise that it is held against."""

    name: str
    promised: str
    figure: Callable[[Outcome], str]
    holds: Callable[[Outcome], bool] = lambda _: True


def broken(outcome: Outcome) -> list[str]:
    """The promises that did not hold in a world, and why."""
    found = [f"{row.name}: {row.figure(outcome)}, promised is {row.promised}" for row in ROWS if not row.holds(outcome)]
    return [*found, *_memory_broken(outcome), *_reasons(outcome)]


def report(outcomes: Sequence[Outcome], machine: dict[str, str]) -> str:
    """The tables, and what did not hold."""
    parts = [_table(["machine", ""], [[name, value] for name, value in machine.items()])]
    titles = [one.title for one in outcomes]
    lines = [[row.name, *(_cell(row, one) for one in outcomes), row.promised] for row in ROWS]
    parts.append(_table(["", *titles, "promised"], lines))
    parts.append(_table(["memory of a process, MB: start, peak, end", *titles], _memory(outcomes)))
    parts.append(_table(["idle, with the hourly ones: share of a core", *titles], _idle(outcomes)))
    parts += [_not_held(one.title, amiss) for one in outcomes if (amiss := broken(one))]
    return "\n".join(parts)


def _not_held(title: str, amiss: Sequence[str]) -> str:
    return f"Not held, {title}:\n\n" + "\n".join(f"- {line}" for line in amiss) + "\n"


def _cell(row: Row, outcome: Outcome) -> str:
    text = row.figure(outcome)
    return text if row.holds(outcome) else f"**{text}, not held**"


def _runs_a_minute(outcome: Outcome) -> str:
    took_s = outcome.burst.took_s
    return f"{60 * outcome.burst.succeeded / took_s:.0f}" if took_s else "none"


def _waits(burst: BurstOutcome) -> str:
    longest_s = max(burst.waits_s, default=0)
    return f"{burst.mean_wait_s:.1f} s, {longest_s:.1f} s ({burst.longest_to_mean:.1f} ×)"


def _p99(outcome: Outcome) -> tuple[float, float]:
    return percentile(outcome.idle.latencies_s, 0.99), percentile(outcome.loaded.latencies_s, 0.99)


def _p99_holds(outcome: Outcome) -> bool:
    idle, loaded = _p99(outcome)
    # Without a single answer there is nothing to hold it against.
    return math.isfinite(idle) and loaded <= P99_TO_IDLE * idle


def _latency(outcome: Outcome, share: float) -> str:
    idle, loaded = (percentile(one.latencies_s, share) for one in (outcome.idle, outcome.loaded))
    return f"{1000 * idle:.0f} and {1000 * loaded:.0f} ms ({loaded / idle:.1f} ×)"


def _failed_requests(outcome: Outcome) -> int:
    return outcome.idle.failed.total() + outcome.loaded.failed.total()


def _requests(outcome: Outcome) -> str:
    asked = len(outcome.idle.latencies_s) + len(outcome.loaded.latencies_s)
    return f"{_failed_requests(outcome)} of {asked}"


def _deployed(outcome: Outcome) -> str:
    bulk = outcome.bulk
    deployed = "never all" if bulk.deployed_s is None else f"{bulk.deployed_s:.0f} s"
    return f"{bulk.making_s:.0f} s, {deployed} ({bulk.late} after the answer)"


ROWS = (
    Row(
        "runs that succeeded",
        "all",
        lambda one: f"{one.burst.succeeded} of {one.burst.runs}",
        lambda one: one.burst.succeeded == one.size.ingestions,
    ),
    Row(
        "rows in the tables; files whose rows are not exact",
        "none",
        lambda one: f"{one.rows:,}; {len(one.wrong_rows) or 'none'}",
        lambda one: not one.wrong_rows,
    ),
    Row("first trigger to last end", "", lambda one: f"{one.burst.took_s:.0f} s"),
    Row("runs a minute", "", _runs_a_minute),
    Row("runs by way", "", lambda one: ", ".join(f"{n} {way}" for way, n in one.burst.methods.items())),
    Row(
        "trigger to start: mean, longest",
        f"longest ≤ {LONGEST_TO_MEAN:g} × mean",
        lambda one: _waits(one.burst),
        lambda one: one.burst.longest_to_mean <= LONGEST_TO_MEAN,
    ),
    Row("requests that failed", "none", _requests, lambda one: not _failed_requests(one)),
    Row("API, median, idle and under load", "", lambda one: _latency(one, 0.5)),
    Row(
        "API, 99th percentile, idle and under load", f"≤ {P99_TO_IDLE:g} ×", lambda one: _latency(one, 0.99), _p99_holds
    ),
    Row("memory of all, runs included, at most", "", lambda one: f"{one.peak_of_all_bytes / MB:.0f} MB"),
    Row("hourly ingestions: made, deployed after", "", _deployed),
    Row(
        "deployments that are not right, or doubled",
        "none",
        lambda one: f"{len(one.bulk.amiss) or 'none'} of {one.size.hourly:,}",
        lambda one: one.bulk.made == one.size.hourly and one.bulk.deployed_s is not None and not one.bulk.amiss,
    ),
)


def _memory_broken(outcome: Outcome) -> list[str]:
    return [
        f"memory of {name}: {memory.start_bytes / MB:.0f} MB at the start, {memory.end_bytes / MB:.0f} at the end"
        for name, memory in outcome.memory.items()
        if has_grown(memory.start_bytes, memory.end_bytes)
    ]


def _reasons(outcome: Outcome) -> list[str]:
    refused = [f"{what} ({n} times)" for what, n in (outcome.idle.failed + outcome.loaded.failed).most_common()]
    every = (outcome.burst.amiss, outcome.wrong_rows, refused, outcome.bulk.amiss)
    return [line.replace("\n", " ") for lines in every for line in shortened(lines)]


def _memory(outcomes: Sequence[Outcome]) -> list[list[str]]:
    def cell(outcome: Outcome, name: str) -> str:
        found = outcome.memory.get(name)
        if found is None:
            return ""
        text = ", ".join(f"{n / MB:.0f}" for n in (found.start_bytes, found.peak_bytes, found.end_bytes))
        return f"**{text}, not flat**" if has_grown(found.start_bytes, found.end_bytes) else text

    names = dict.fromkeys(name for one in outcomes for name in one.memory)
    return [[name, *(cell(one, name) for one in outcomes)] for name in names]


def _idle(outcomes: Sequence[Outcome]) -> list[list[str]]:
    names = dict.fromkeys(name for one in outcomes for name in one.idle_cpu)
    shares = [[one.idle_cpu.get(name) for one in outcomes] for name in names]
    return [
        [name, *("" if share is None else f"{100 * share:.1f} %" for share in of_name)]
        for name, of_name in zip(names, shares, strict=True)
    ]


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows) + "\n"
