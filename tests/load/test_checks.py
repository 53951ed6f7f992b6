"""What `make load` holds its findings against can fail: each defect, planted, is found."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.destinations.catalog import IcebergCatalog
from tests.load.bulk import zone_at
from tests.load.burst import BurstOutcome
from tests.load.checks import (
    SHOWN,
    FileRows,
    WantedDeployment,
    has_grown,
    longest_to_mean,
    percentile,
    shortened,
    wrong_deployments,
    wrong_rows,
)
from tests.load.processes import Memory
from tests.load.report import MB, broken, report
from tests.load.scenario import Outcome, Size
from tests.load.traffic import Answers
from tests.load.worlds import rows_by_file

FILES = [FileRows(f"file:///in/batch_{n}.json", 1_000, 1_000, 499_500 + n * 1_000_000) for n in range(3)]
WANTED = [
    WantedDeployment(f"d{n}", f"i{n}", "0 * * * *", "autoloader-default", frozenset({"autoloader", "tenant-default"}))
    for n in range(3)
]


def deployment(number: int, **changes: Any) -> dict[str, Any]:
    """As Prefect's API has it, and as it has to be but for the changes."""
    return {
        "id": f"d{number}",
        "name": f"ingestion-i{number}",
        "schedules": [{"schedule": {"cron": "0 * * * *", "timezone": "UTC"}, "active": True}],
        "work_queue_name": "autoloader-default",
        "tags": ["autoloader", "tenant-default", "source-local"],
        "parameters": {"ingestion_id": f"i{number}"},
        "paused": False,
        **changes,
    }


def test_a_table_that_nobody_made_lacks_every_file(tmp_path: Path) -> None:
    with closing(IcebergCatalog("local", {"type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db"})) as catalog:
        assert len(wrong_rows(FILES, rows_by_file(catalog, "burst_0"))) == len(FILES)


def test_tables_that_are_exact_are_so_in_any_order() -> None:
    assert wrong_rows(FILES, FILES[::-1]) == []


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (FILES[:2], "batch_2.json: not in the table"),
        ([*FILES, FileRows("file:///in/other.json", 1, 1, 1)], "other.json: in the table, and never landed"),
        # A row that is there twice leaves the number of ids as it is.
        ([replace(FILES[0], rows=1_001, total=FILES[0].total + 7), *FILES[1:]], "1001 rows with 1000 ids"),
        # One that is there twice in place of another.
        ([replace(FILES[0], ids=999), *FILES[1:]], "1000 rows with 999 ids"),
        # As many, and others.
        ([replace(FILES[0], total=0), *FILES[1:]], "that sum up to 0"),
        ([*FILES, FILES[0]], "batch_0.json: told 2 times"),
    ],
)
def test_rows_that_are_not_exact_are_found(found: list[FileRows], reason: str) -> None:
    (amiss,) = wrong_rows(FILES, found)
    assert reason in amiss


def test_deployments_that_are_right_are_so_in_any_order() -> None:
    assert wrong_deployments(WANTED, [deployment(2), deployment(0), deployment(1)]) == []


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([deployment(0), deployment(1)], "ingestion-i2: there 0 times"),
        ([deployment(9), deployment(0), deployment(1), deployment(2)], "ingestion-i9: of no ingestion"),
        ([deployment(0), deployment(1), deployment(2, work_queue_name="default")], "queue is default"),
        ([deployment(0), deployment(1), deployment(2, tags=["autoloader"])], "tags is frozenset({'autoloader'})"),
        ([deployment(0), deployment(1), deployment(2, id="other")], "id is other"),
        ([deployment(0), deployment(1), deployment(2, schedules=[])], "schedules is []"),
        ([deployment(0), deployment(1), deployment(2, paused=True)], "paused is True"),
        ([deployment(0), deployment(1), deployment(2, parameters={})], "ingestion is None"),
    ],
)
def test_deployments_that_are_not_right_are_found(found: list[dict[str, Any]], reason: str) -> None:
    assert any(reason in amiss for amiss in wrong_deployments(WANTED, found))


def test_another_cron_is_found() -> None:
    schedules = [{"schedule": {"cron": "30 * * * *", "timezone": "UTC"}, "active": True}]
    (amiss,) = wrong_deployments(WANTED[:1], [deployment(0, schedules=schedules)])
    assert "30 * * * *" in amiss


def test_a_doubled_deployment_is_found() -> None:
    amiss = wrong_deployments(WANTED[:1], [deployment(0), deployment(0, id="again")])
    assert "ingestion-i0: there 2 times" in amiss


def test_figures() -> None:
    assert longest_to_mean([1, 2, 9]) == pytest.approx(2.25)
    assert math.isinf(longest_to_mean([]))
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99
    assert percentile([5.0], 0.99) == 5
    assert not has_grown(200 * MB, 240 * MB)
    assert has_grown(200 * MB, 260 * MB)
    # It ended, and what took its place is another process.
    assert has_grown(200 * MB, 0)
    assert shortened(["x"] * (SHOWN + 2)) == ["x"] * SHOWN + ["… and 2 more"]


def test_nothing_is_due_while_it_is_measured() -> None:
    assert zone_at(datetime(2026, 1, 1, 12, 10, tzinfo=UTC)) == "UTC"
    assert zone_at(datetime(2026, 1, 1, 12, 45, tzinfo=UTC)) == "Asia/Kolkata"


def outcome() -> Outcome:
    """One in which all that is promised holds."""
    found = Outcome("A world", Size(ingestions=2, files=3, hourly=4))
    found.burst = BurstOutcome(runs=2, succeeded=2, waits_s=[1.0, 2.0], took_s=4.0)
    found.idle, found.loaded = Answers([0.01] * 100), Answers([0.05] * 100)
    found.memory = {"API": Memory(100 * MB, 150 * MB, 101 * MB)}
    found.bulk.made, found.bulk.deployed_s = 4, 2.0
    found.idle_cpu = {"API": 0.02}
    return found


def test_what_holds_is_told_without_a_complaint() -> None:
    assert broken(outcome()) == []
    text = report([outcome(), outcome()], {"cores": "2"})
    assert "not held" not in text.lower()
    assert "| runs a minute | 30 | 30 |" in text
    assert "| API | 100, 150, 101 | 100, 150, 101 |" in text


def test_every_promise_can_be_broken() -> None:
    found = outcome()
    found.burst.succeeded, found.burst.waits_s = 1, [1.0, 1.0, 1.0, 1.0, 30.0]
    found.burst.amiss = ["burst_1: failed"]
    found.wrong_rows = ["batch_0.json: not in the table"]
    found.loaded = Answers([0.2] * 100)
    found.loaded.failed["one: 500"] += 1
    found.memory = {"API": Memory(100 * MB, 300 * MB, 300 * MB)}
    found.bulk.amiss = ["ingestion-i2: there 0 times"]
    amiss = "\n".join(broken(found))
    for reason in (
        "runs that succeeded: 1 of 2",
        "files whose rows are not exact: 0; 1",
        "(4.4 ×)",
        "(20.0 ×)",
        "requests that failed: 1 of 200",
        "memory of API: 100 MB at the start, 300 at the end",
        "1 of 4",
        "burst_1: failed",
        "ingestion-i2: there 0 times",
        "one: 500 (1 times)",
    ):
        assert reason in amiss
    assert "**1 of 2, not held**" in report([found], {"cores": "2"})


def test_a_run_that_was_never_answered_is_missed() -> None:
    found = outcome()
    found.burst = BurstOutcome(runs=2)
    found.bulk.deployed_s = None
    assert len(broken(found)) == 3


def test_without_answers_there_is_no_promise_kept() -> None:
    found = outcome()
    found.idle = Answers()
    assert any("99th percentile" in line for line in broken(found))
