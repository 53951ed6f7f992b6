"""Metrics, ids of requests, and Prefect's calls, as the API tells and takes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.domain.events import FIELDS
from app.domain.ingestions import Method
from app.domain.live import Readings, RunLogLine, RunProgress
from app.domain.runs import RunStatus
from app.services.metrics import METRICS, MetricType, of_database
from tests.support.api_in_memory import Api
from tests.unit.api.test_edges import problem

FLOW_RUN = "3f6c1c0e-8a58-4f0e-9d5b-0f6f3a9a2b7d"
WEBHOOK = "/api/v1/webhooks/prefect"
NOW = datetime(2026, 1, 1, tzinfo=UTC)

# --- metrics -------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(api: Api) -> Iterator[Api]:
    api.ingestions.live.counted = Readings(
        counters={
            "runs_ended": {"success": 4, "failed": 1},
            "run_duration": {"1": 2, "60": 2, "+Inf": 1},
            "run_duration_ms": {"": 4_100_500},
            "stops": {"lease_lost": 3, "timed_out": 1},
            "deaths": {"": 2},
            "rows": {"": 1 << 60},
            "files": {"loaded": 7},
        },
        not_over={("queued", "direct"): 2},
        due_since={"direct": datetime.now(UTC) - timedelta(seconds=100)},
        ingestions={"active": 3},
        last_success={"i-1": datetime.now(UTC) - timedelta(hours=1)},
        left_out=9,
    )
    yield api
    api.ingestions.live.counted = Readings()
    api.ingestions.live.is_away = False


def scraped(api: Api) -> dict[tuple[str, tuple[str, ...]], float]:
    """Name and values of the labels, in the order of their names → value."""
    answer = api.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert api.client.get("/api/v1/metrics").status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {
        (one.name, tuple(v for _, v in sorted(one.labels.items()))): one.value
        for family in families
        for one in family.samples
    }


def test_what_the_database_counted_is_scraped(counted: Api) -> None:
    found = scraped(counted)
    assert found["autoloader_database_up", ()] == 1
    assert found["autoloader_runs_total", ("success",)] == 4
    assert found["autoloader_runs_total", ("cancelled",)] == 0
    assert found["autoloader_runs_open", ("direct", "queued")] == 2
    assert found["autoloader_runs_open", ("prefect", "running")] == 0
    assert found["autoloader_lease_losses_total", ()] == 3
    assert found["autoloader_run_stops_total", ("timed_out",)] == 1
    assert found["autoloader_rows_total", ()] == 1 << 60
    assert found["autoloader_files_total", ("failed",)] == 0
    assert 100 <= found["autoloader_queue_age_seconds", ("direct",)] < 200
    assert found["autoloader_queue_age_seconds", ("prefect",)] == 0
    assert 3600 <= found["autoloader_ingestion_freshness_seconds", ("i-1",)] < 3700
    assert found["autoloader_ingestions_not_shown", ()] == 9


def test_durations_are_a_histogram(counted: Api) -> None:
    found = scraped(counted)
    bounds = ("1", "5", "15", "60", "300", "900", "3600", "+Inf")
    assert [found["autoloader_run_duration_seconds_bucket", (one,)] for one in bounds] == [2, 2, 2, 4, 4, 4, 4, 5]
    assert found["autoloader_run_duration_seconds_count", ()] == 5
    assert found["autoloader_run_duration_seconds_sum", ()] == 4100.5


def test_without_its_database_the_rest_is_scraped(counted: Api) -> None:
    counted.ingestions.live.is_away = True
    found = scraped(counted)
    assert found["autoloader_database_up", ()] == 0
    assert found["autoloader_event_readers", ()] == 0
    assert ("autoloader_rows_total", ()) not in found


def test_names_are_as_such_names_have_to_be() -> None:
    for metric in METRICS.values():
        assert re.fullmatch(r"autoloader_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") is (metric.type is MetricType.COUNTER), metric.name
        assert metric.text.endswith((".", ". At 0 what comes from it is missing.")), metric.name
    told = {family.metric.name for family in of_database(Readings(), NOW)}
    own = {"database_up", "event_readers", "event_readers_dropped_total"}
    prefect = {name for name in METRICS if name.startswith("prefect_")}
    assert told == {metric.name for name, metric in METRICS.items() if name not in own | prefect}


# --- ids of requests -----------------------------------------------------------------------------------------------


def test_a_request_keeps_its_id_and_its_lines_carry_it(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    del api.ingestions.kept
    answer = api.client.get("/api/v1/ingestions/one", headers={"X-Request-ID": "from.outside:1"})
    problem(answer, 500, "internal")
    assert answer.headers["X-Request-ID"] == "from.outside:1"
    (record,) = [one for one in caplog.records if one.message == "request_failed"]
    assert getattr(record, FIELDS)["request_id"] == "from.outside:1"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\tb", "ä"])
def test_what_is_no_id_is_replaced(api: Api, given: str) -> None:
    answers = [api.client.get("/health/live", headers=[(b"X-Request-ID", given.encode())]) for _ in range(2)]
    made = {answer.headers["X-Request-ID"] for answer in answers}
    assert len(made) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in made)


def test_refusals_before_any_route_have_one_too(api: Api) -> None:
    assert api.client.get("/health", headers={"Host": "elsewhere"}).headers["X-Request-ID"]


# --- Prefect's calls -----------------------------------------------------------------------------------------------


def test_prefects_word_is_taken_as_a_hint(api: Api) -> None:
    headers = {"Authorization": f"Bearer {api.hints.TOKEN}"}
    bodies = [
        {"flow_run_id": f"prefect.flow-run.{FLOW_RUN}", "event": "prefect.flow-run.Crashed"},
        {"flow_run_id": FLOW_RUN.upper()},
        {"flow_run_id": "../../etc/passwd"},
        {"anything": {"else": 1}},
    ]
    for body in bodies:
        answer = api.client.post(WEBHOOK, json=body, headers=headers)
        assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
    assert api.hints.told == [FLOW_RUN, FLOW_RUN, None, None]
    problem(api.client.post(WEBHOOK, content=b"[]", headers=headers), 415, "unsupported_media_type")


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", "Basic x", "Bearer a b"])
def test_nobody_else_is_heard(api: Api, given: str | None) -> None:
    told = len(api.hints.told)
    headers = {} if given is None else {"Authorization": given}
    problem(api.client.post(WEBHOOK, json={"flow_run_id": FLOW_RUN}, headers=headers), 401, "webhook_token_invalid")
    # Nor is his body looked at.
    problem(api.client.post(WEBHOOK, content=b"{", headers=headers), 401, "webhook_token_invalid")
    assert len(api.hints.told) == told


def test_a_run_at_work_shows_how_far_it_is(api: Api) -> None:

    api.ingestions.method, api.ingestions.ends = Method.DIRECT, RunStatus.RUNNING
    path = api.client.post(f"/api/v1/ingestions/{api.created()['id']}/run").headers["location"]
    run_id = path.rpartition("/")[2]
    assert api.client.get(path).json()["progress"] is None
    progress = RunProgress(1, 10, 100, 2, 200)
    api.ingestions.runs[run_id] = replace(api.ingestions.runs[run_id], progress=progress)
    shown = {"files": 1, "rows": 10, "bytes": 100, "total_files": 2, "total_bytes": 200}
    assert api.client.get(path).json()["progress"] == shown
    api.ingestions.live.logs[run_id] = [RunLogLine(number, NOW, "info", f"l{number}") for number in (1, 2, 5)]
    log = api.client.get(f"{path}/logs", params={"after": 1, "limit": 1}).json()
    assert (log["items"][0]["message"], log["left_out"]) == ("l2", 2)
    following = api.client.get(f"{path}/logs", params={"cursor": log["next"]}).json()
    assert ([line["number"] for line in following["items"]], following["next"]) == ([5], None)
    problem(api.client.get(f"{path}/logs", params={"cursor": "WzEuNV0"}), 422, "invalid_field")
