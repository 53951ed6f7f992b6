"""Costs follow from what is in the source, and say what they assume."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from app.domain.files import SourceFile
from app.domain.ingestions import Schedule
from app.services.costs import BYTES_PER_SECOND, DAYS_PER_MONTH, SECONDS_PER_RUN, Prices, estimate
from app.services.preflight import Prepared
from app.services.previews import runs_per_month
from app.services.source_looks import KEPT_FILES, RECENT, SourceLook

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
PRICES = Prices(per_dbu_hour=3600.0, storage_per_gb_month=2.0, per_1000_list_operations=1000.0)


def source(kind: str, *files: tuple[int, timedelta]) -> SourceLook:
    """A source of files, by size and age."""
    seen = SourceLook(cast("Prepared", None), kind)
    for number, (size, age) in enumerate(files):
        seen.add(SourceFile(f"s3://b/{number}", "v", size, NOW - age), NOW - RECENT)
    return seen


def days(number: float) -> timedelta:
    return timedelta(days=number)


def test_a_source_that_gets_as_much_each_day() -> None:
    size = int(BYTES_PER_SECOND)
    cost = estimate(source("s3", *((size, days(age + 0.5)) for age in range(60))), PRICES, 730.5, NOW)
    assert (cost.files, cost.stored_bytes) == (60, 60 * size)
    assert cost.new_bytes_per_month == pytest.approx(DAYS_PER_MONTH * size, rel=0.01)
    # At these prices a second costs a dollar.
    assert cost.first_load == pytest.approx(SECONDS_PER_RUN + 60 + 1)
    assert cost.compute_per_month == pytest.approx(730.5 * SECONDS_PER_RUN + DAYS_PER_MONTH, rel=0.01)
    assert cost.compute_per_run == pytest.approx(cost.compute_per_month / 730.5)
    assert cost.storage_per_month == pytest.approx(60 * size / 1e9 * 2)
    assert cost.discovery_per_run == 1
    assert cost.discovery_per_month == pytest.approx(730.5)
    assert cost.total_per_month == pytest.approx(
        cost.compute_per_month + cost.storage_per_month + cost.discovery_per_month
    )


def test_a_young_source_grows_at_the_pace_it_has_had() -> None:
    cost = estimate(source("s3", (1_000, days(10)), (1_000, days(5))), PRICES, None, NOW)
    assert cost.new_bytes_per_month == round(2_000 * DAYS_PER_MONTH / 10)
    assert cost.runs_per_month == 1


def test_one_that_is_a_moment_old_counts_as_a_day() -> None:
    cost = estimate(source("s3", (1_000, timedelta(seconds=1))), PRICES, None, NOW)
    assert cost.new_bytes_per_month == round(1_000 * DAYS_PER_MONTH)


def test_an_old_source_that_gets_nothing_grows_by_nothing() -> None:
    cost = estimate(source("s3", (10**9, days(300))), PRICES, None, NOW)
    assert cost.new_bytes_per_month == 0
    assert cost.compute_per_run == pytest.approx(SECONDS_PER_RUN)


def test_a_file_from_the_future_is_taken_for_new() -> None:
    assert estimate(source("s3", (1_000, days(-3))), PRICES, None, NOW).new_bytes_per_month > 0


def test_an_empty_source_costs_its_runs() -> None:
    cost = estimate(source("s3"), PRICES, 10, NOW)
    assert (cost.files, cost.storage_per_month, cost.new_bytes_per_month) == (0, 0, 0)
    assert cost.compute_per_month == pytest.approx(10 * SECONDS_PER_RUN)


@pytest.mark.parametrize(
    ("kind", "files", "lists"), [("s3", 1, 1), ("s3", 1001, 2), ("azure_blob", 1001, 1), ("local", 1001, 0)]
)
def test_listing_costs_by_the_page_of_the_store(kind: str, files: int, lists: int) -> None:
    cost = estimate(source(kind, *((1, days(1)) for _ in range(files))), PRICES, 1, NOW)
    assert cost.discovery_per_run == lists


def test_it_says_what_it_assumed() -> None:
    text = " ".join(estimate(source("s3", (1, days(1))), PRICES, None, NOW).assumptions)
    for word in ("3600 USD", "2 USD a GB", "1000 USD for 1,000 requests", "COST_PER_DBU_HOUR", "No schedule"):
        assert word in text


def test_so_many_files_are_kept_to_look_into() -> None:
    seen = source("s3", *((1, days(1)) for _ in range(KEPT_FILES + 5)), (0, days(1)))
    assert seen.files == KEPT_FILES + 6
    assert len(seen.kept) == KEPT_FILES


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule("hourly"), 730.5),
        (Schedule("daily", time="14:30", timezone="Europe/Berlin"), DAYS_PER_MONTH),
        (Schedule("weekly"), DAYS_PER_MONTH / 7),
        (Schedule("custom", cron_expression="* * * * *"), 730.5 * 60),
        (Schedule("custom", cron_expression="0 0 29 2 *"), 1 / 48),
        (Schedule("custom", cron_expression="0 9-17 * * MON-FRI"), 9 * 5 * DAYS_PER_MONTH / 7),
    ],
)
def test_how_often_a_schedule_is_due(schedule: Schedule, expected: float) -> None:
    assert runs_per_month(schedule, NOW) == pytest.approx(expected, rel=0.03)
