"""The service with a real Prefect server, its worker and its flow runs: scheduled, degraded, killed, whole again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.prefect.worker.names import FORK_SERVER, WORKER
from tests.support.prefect_server import PrefectServer, start_prefect
from tests.support.servers import stop
from tests.support.service_process import ServiceProcess, land, until

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.timeout(1_200)]

LEASE_S = 6
SETTINGS = {
    "AUTOLOADER_LEASE_S": str(LEASE_S),
    "AUTOLOADER_SETTLE_S": "0",
    "AUTOLOADER_LOCAL_ROOTS": "/",
    "PREFECT_TASK_RETRY_DELAY_SECONDS": "1",
}
HOURLY = {"frequency": "hourly", "timezone": "UTC"}


@pytest.fixture(scope="module")
def server() -> Iterator[PrefectServer]:
    """A Prefect server that may be killed and wiped."""
    found = start_prefect()
    yield found
    stop(found)


@pytest.fixture(scope="module")
def service(server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A service that starts a worker by itself."""
    home = tmp_path_factory.mktemp("service")
    found = ServiceProcess(home, {**SETTINGS, "PREFECT_API_URL": server.api_url}).start()
    until(lambda: _prefect(found) == "connected", 60, "Prefect is connected")
    yield found
    found.stop()


def _prefect(service: ServiceProcess) -> str:
    return str(service.call("GET", "/health", status=200)["prefect"])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    land(tmp_path / "in", 0, 3)
    return tmp_path / "in"


def test_a_cron_fires_and_its_rows_are_in_the_table(service: ServiceProcess, source: Path) -> None:
    made = service.create(source, {"frequency": "custom", "cron_expression": "* * * * *"}, "minutely")
    runs = until(lambda: [r for r in service.runs(made) if r["status"] == "success"], 150, "a scheduled run ends")
    assert {(r["trigger"], r["method"]) for r in runs} == {("scheduled", "prefect")}
    assert service.rows("minutely") == 3000
    service.call("DELETE", f"/api/v1/ingestions/{made['id']}", status=204)


def test_an_hourly_ingestion_lives_its_life(service: ServiceProcess, server: PrefectServer, source: Path) -> None:
    made = _deployed(service, service.create(source, HOURLY, "life"))
    found = _deployment(server, made)
    assert found["name"] == f"ingestion-{made['id']}"
    assert (found["paused"], found["work_pool_name"]) == (False, "autoloader-pool")
    assert {"autoloader", "tenant-default", "source-local"} < set(found["tags"])
    assert _crons(server, made) == ["0 * * * *"]

    answer = _triggered(service, made)
    assert service.ended(made, answer["run_id"])["status"] == "success"
    assert sum(one["files"]["loaded"] for one in service.runs(made)) == 3
    assert sum(one["rows"]["loaded"] for one in service.runs(made)) == service.rows("life") == 3000
    flow_run = server.ask(f"/flow_runs/{answer['flow_run_id']}")
    until(lambda: server.ask(f"/flow_runs/{answer['flow_run_id']}")["state_type"] == "COMPLETED", 30, "Completed")
    assert flow_run["parameters"] == {"ingestion_id": made["id"], "trigger": "manual", "run_id": answer["run_id"]}

    path = f"/api/v1/ingestions/{made['id']}"
    details = f"{path}/runs/{answer['run_id']}/prefect-details"
    told = f"Run {answer['run_id']}: success, "
    # What was logged last is sent when the process ends, after it said how the run did.
    until(lambda: told in str(service.call("GET", details, status=200)["logs"]), 30, "its log is there")
    # Where the server is too slow for a request, the reconciler does it.
    service.call("PUT", path, {"schedule": {"frequency": "daily", "time": "14:30"}}, status=200)
    until(lambda: _crons(server, made) == ["30 14 * * *"], 90, "the schedule is changed there")
    for verb, paused in (("pause", True), ("resume", False)):
        service.call("POST", f"{path}/{verb}", status=200)
        until(lambda wanted=paused: _deployment(server, made)["paused"] is wanted, 90, verb)  # type: ignore[misc]
    service.call("DELETE", path, status=204)
    until(lambda: made["prefect_deployment_id"] not in {d["id"] for d in server.deployments()}, 90, "it is gone there")
    service.call("GET", path, status=404)


def test_of_the_times_that_were_missed_one_is_carried_out(
    service: ServiceProcess, server: PrefectServer, source: Path
) -> None:
    made = _deployed(service, service.create(source, HOURLY, "late"))
    now = datetime.now(UTC)
    late = []
    for hours in (5, 4, 3, 2, 1):
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": (now - timedelta(hours=hours)).isoformat()}}
        body = {"state": state, "idempotency_key": f"{made['id']}-{hours}"}
        late.append(server.ask(f"/deployments/{made['prefect_deployment_id']}/create_flow_run", body)["id"])

    def states() -> list[tuple[str, str]]:
        found = [server.ask(f"/flow_runs/{one}")["state"] for one in late]
        return [(state["type"], state["message"]) for state in found]

    final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    until(lambda: all(kind in final for kind, _ in states()), 120, "the late flow runs are over")
    ended = states()
    assert {kind for kind, _ in ended} == {"COMPLETED"}, ended
    (run,) = service.runs(made)
    assert (run["trigger"], run["status"], run["rows"]["loaded"]) == ("scheduled", "success", 3000)
    assert service.rows("late") == 3000


def _deployment(server: PrefectServer, made: dict[str, Any]) -> dict[str, Any]:
    return dict(server.ask(f"/deployments/{made['prefect_deployment_id']}"))


def _crons(server: PrefectServer, made: dict[str, Any]) -> list[str]:
    return [one["schedule"]["cron"] for one in _deployment(server, made)["schedules"]]


def _deployed(service: ServiceProcess, made: dict[str, Any]) -> dict[str, Any]:
    """The ingestion with its deployment: where the server was too slow for the request, the reconciler makes it."""
    until(lambda: service.ingestion(made)["prefect_deployment_id"], 90, "the ingestion has its deployment")
    return service.ingestion(made)


def _triggered(service: ServiceProcess, made: dict[str, Any]) -> dict[str, Any]:
    """A run by Prefect; where that was too slow to be asked, the run went without it, and another one is made."""

    def look() -> dict[str, Any] | None:
        answer = service.run(made)
        return answer if answer.get("method") == "prefect" else None

    answer = until(look, 90, "Prefect runs it")
    assert answer is not None
    assert answer["status"] == "triggered"
    return answer


def _at_work(service: ServiceProcess, made: dict[str, Any]) -> dict[str, Any]:
    """A run in the middle of its work."""
    answer = service.run(_deployed(service, made))
    assert answer["method"] == "prefect", answer

    def look() -> bool:
        runs = service.call("GET", f"/api/v1/ingestions/{made['id']}/runs/{answer['run_id']}")
        return bool(runs["status"] == "running")

    until(look, 90, "the run is at work")
    return answer


def test_a_flow_run_that_is_killed_goes_on_under_the_same_id(service: ServiceProcess, tmp_path: Path) -> None:
    land(tmp_path / "in", 0, 60, records=5000)
    made = service.create(tmp_path / "in", HOURLY, "killed")
    answer = _at_work(service, made)
    (fork_server,) = service.named(FORK_SERVER)[:1]
    # That of the run before may take its time to end.
    (process,) = until(lambda: found if len(found := fork_server.children()) == 1 else [], 60, "one run has a process")
    process.send_signal(signal.SIGKILL)
    run = service.ended(made, answer["run_id"], 120)
    assert (run["status"], service.rows("killed")) == ("success", 300_000)
    assert len(service.runs(made)) == 1


def test_a_worker_that_is_killed_is_started_again(service: ServiceProcess, tmp_path: Path) -> None:
    land(tmp_path / "in", 0, 60, records=5000)
    made = service.create(tmp_path / "in", HOURLY, "orphaned")
    answer = _at_work(service, made)
    (worker,) = service.named(WORKER)
    for child in [*worker.children(recursive=True), worker]:
        child.kill()
    run = service.ended(made, answer["run_id"], 150)
    assert (run["status"], service.rows("orphaned")) == ("success", 300_000)
    again = until(lambda: service.named(WORKER), 60, "a worker is there again")
    assert again[0].pid != worker.pid


def test_the_api_is_killed_and_started_again(service: ServiceProcess, tmp_path: Path) -> None:
    land(tmp_path / "in", 0, 60, records=5000)
    made = service.create(tmp_path / "in", HOURLY, "reborn")
    answer = _at_work(service, made)
    (worker,) = service.named(WORKER)
    service.kill()
    # No worker is left behind by it.
    until(lambda: not worker.is_running(), 40, "the worker ends with its service")
    service.start()
    run = service.ended(made, answer["run_id"], 150)
    assert (run["status"], service.rows("reborn")) == ("success", 300_000)


def test_prefect_goes_and_comes_back_without_what_it_knew(
    service: ServiceProcess, server: PrefectServer, source: Path, tmp_path: Path
) -> None:
    before = service.create(source, HOURLY, "before")
    server.kill()
    made = service.create(source, HOURLY, "during")
    assert made["prefect_deployment_id"] is None
    assert "Ingestion created but scheduling unavailable" in made["warnings"]
    answer = service.run(made)
    assert (answer["status"], answer["method"]) == ("completed", "direct")
    assert service.rows("during") == 3000
    assert service.run(before)["method"] == "direct"
    service.call("PUT", f"/api/v1/ingestions/{made['id']}", {"schedule": {"frequency": "weekly"}}, status=200)
    gone = service.create(tmp_path / "in", HOURLY, "gone")
    service.call("DELETE", f"/api/v1/ingestions/{gone['id']}", status=204)
    until(lambda: _prefect(service) == "disconnected", 30, "health tells")

    server.wipe()
    back = server.start_again()
    try:
        wanted = {f"ingestion-{one['id']}" for one in (before, made)}
        until(lambda: wanted <= {d["name"] for d in back.deployments()}, 60, "all deployments stand again")
        assert f"ingestion-{gone['id']}" not in {d["name"] for d in back.deployments()}
        until(lambda: service.ingestion(made)["prefect_deployment_id"], 10, "the ingestion names its deployment")
        until(lambda: _prefect(service) == "connected", 60, "health tells that it is back")
        # Refused while the one before is at work.
        until(lambda: service.run(before).get("method") == "prefect", 60, "runs go by Prefect again")
    finally:
        object.__setattr__(server, "pid", back.pid)
