"""The service with a real Prefect server, its worker and its flow runs: scheduled, degraded, killed, whole again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.prefect.worker.names import FORK_SERVER, WORKER
from tests.support.prefect_server import PrefectServer, start_prefect
from tests.support.servers import is_alive, stop
from tests.support.service_process import ServiceProcess, land, until

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.timeout(1_200)]

# What takes seconds on a quiet machine.
LONG_S = 240
# A run of three batches stands still when two are in; what goes on with it has one, as have all others.
BATCH_FILES = 4
MANY = 3 * BATCH_FILES
SETTINGS = {
    "AUTOLOADER_BATCH_FILES": str(BATCH_FILES),
    "AUTOLOADER_FAILPOINT": "batch_closed:after:delay=600:hit=2",
    "AUTOLOADER_SETTLE_S": "0",
    "AUTOLOADER_LOCAL_ROOTS": "/",
    "PREFECT_TASK_RETRY_DELAY_SECONDS": "1",
}
HOURLY = {"frequency": "hourly", "timezone": "UTC"}
# None of its times comes while a test runs: what runs, the test has begun.
YEARLY = {"frequency": "custom", "cron_expression": "0 0 1 1 *"}


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
    until(lambda: _prefect(found) == "connected", LONG_S, "Prefect is connected")
    yield found
    found.stop()


def _prefect(service: ServiceProcess) -> str:
    return str(service.call("GET", "/health").get("prefect"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    land(tmp_path / "in", 0, 3)
    return tmp_path / "in"


def test_a_cron_fires_and_its_rows_are_in_the_table(service: ServiceProcess, source: Path) -> None:
    made = service.create(source, {"frequency": "custom", "cron_expression": "* * * * *"}, "minutely")
    runs = until(lambda: [r for r in service.runs(made) if r["status"] == "success"], LONG_S, "a scheduled run ends")
    assert {(r["trigger"], r["method"]) for r in runs} == {("scheduled", "prefect")}
    assert service.rows("minutely") == 3000
    path = f"/api/v1/ingestions/{made['id']}"
    service.call("POST", f"{path}/pause", status=200)
    _rests(service, made)
    service.call("DELETE", path, status=204)


def _rests(service: ServiceProcess, made: dict[str, Any]) -> None:
    """Wait until no run of it is queued or at work: it could not be deleted."""
    until(lambda: not {r["status"] for r in service.runs(made)} & {"queued", "running"}, LONG_S, "it rests")


def test_an_hourly_ingestion_lives_its_life(service: ServiceProcess, server: PrefectServer, source: Path) -> None:
    made = _deployed(service, service.create(source, HOURLY, "life"))
    found = _deployment(server, made)
    assert found["name"] == f"ingestion-{made['id']}"
    assert (found["paused"], found["work_pool_name"]) == (False, "autoloader-pool")
    assert {"autoloader", "tenant-default", "source-local"} < set(found["tags"])
    assert _crons(server, made) == ["0 * * * *"]

    answer = _triggered(service, made)
    assert service.ended(made, answer["run_id"], LONG_S)["status"] == "success"
    assert sum(one["files"]["loaded"] for one in service.runs(made)) == 3
    assert sum(one["rows"]["loaded"] for one in service.runs(made)) == service.rows("life") == 3000
    flow_run = server.ask(f"/flow_runs/{answer['flow_run_id']}")
    until(lambda: server.ask(f"/flow_runs/{answer['flow_run_id']}")["state_type"] == "COMPLETED", LONG_S, "Completed")
    assert flow_run["parameters"] == {"ingestion_id": made["id"], "trigger": "manual", "run_id": answer["run_id"]}

    path = f"/api/v1/ingestions/{made['id']}"
    details = f"{path}/runs/{answer['run_id']}/prefect-details"
    told = f"Run {answer['run_id']}: success, "
    # What was logged last is sent when the process ends, after it said how the run did.
    until(lambda: told in str(service.call("GET", details).get("logs")), LONG_S, "its log is there")
    # Where the server is too slow for a request, the reconciler does it.
    far = datetime.now(UTC) + timedelta(hours=12)
    service.call("PUT", path, {"schedule": {"frequency": "daily", "time": f"{far:%H}:30"}}, status=200)
    until(lambda: _crons(server, made) == [f"30 {far.hour} * * *"], LONG_S, "the schedule is changed there")
    for verb, paused in (("pause", True), ("resume", False)):
        service.call("POST", f"{path}/{verb}", status=200)
        until(lambda wanted=paused: _deployment(server, made)["paused"] is wanted, LONG_S, verb)  # type: ignore[misc]
    # An hour may have begun while it was still an hourly one.
    _rests(service, made)
    service.call("DELETE", path, status=204)
    until(lambda: made["prefect_deployment_id"] not in {d["id"] for d in server.deployments()}, LONG_S, "it is gone")
    service.call("GET", path, status=404)


def test_of_the_times_that_were_missed_one_is_carried_out(
    service: ServiceProcess, server: PrefectServer, source: Path
) -> None:
    made = _deployed(service, service.create(source, YEARLY, "late"))
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
    until(lambda: all(kind in final for kind, _ in states()), LONG_S, "the late flow runs are over")
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
    until(lambda: service.ingestion(made)["prefect_deployment_id"], LONG_S, "the ingestion has its deployment")
    return service.ingestion(made)


def _triggered(service: ServiceProcess, made: dict[str, Any]) -> dict[str, Any]:
    """A run by Prefect; where that was too slow to be asked, the run went without it, and another one is made."""

    def look() -> dict[str, Any] | None:
        answer = service.run(made)
        return answer if answer.get("method") == "prefect" else None

    answer = until(look, LONG_S, "Prefect runs it")
    assert answer is not None
    assert answer["status"] == "triggered"
    return answer


def _at_work(
    service: ServiceProcess, server: PrefectServer, folder: Path, name: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """An ingestion and its run, which Prefect has carried out, in the middle of its work."""
    land(folder, 0, MANY)
    made = _deployed(service, service.create(folder, YEARLY, name))
    # By our API it would be a direct run where Prefect is too slow to be asked.
    body = {"state": {"type": "SCHEDULED"}, "work_queue_name": "autoloader-priority", "idempotency_key": made["id"]}
    server.ask(f"/deployments/{made['prefect_deployment_id']}/create_flow_run", body)
    path = f"/api/v1/ingestions/{made['id']}/files"

    def loaded() -> int:
        return sum(one["state"] == "success" for one in service.call("GET", path, status=200)["items"])

    until(lambda: loaded() == 2 * BATCH_FILES, LONG_S, f"the run of {name} is at work")
    (run,) = service.runs(made)
    assert (run["status"], run["method"]) == ("running", "prefect")
    return made, run


def _goes_on(service: ServiceProcess, made: dict[str, Any], run: dict[str, Any]) -> None:
    """Wait until the run has come to its end, as the only one of its ingestion and with every row in once."""
    ended = service.ended(made, run["id"], LONG_S)
    assert (ended["status"], service.rows(made["name"])) == ("success", MANY * 1000)
    assert len(service.runs(made)) == 1


def test_a_flow_run_that_is_killed_goes_on_under_the_same_id(
    service: ServiceProcess, server: PrefectServer, tmp_path: Path
) -> None:
    made, run = _at_work(service, server, tmp_path / "in", "killed")
    (fork_server,) = service.named(FORK_SERVER)[:1]
    # That of the run before may take its time to end.
    (process,) = until(
        lambda: found if len(found := fork_server.children()) == 1 else [], LONG_S, "one run has a process"
    )
    process.send_signal(signal.SIGKILL)
    _goes_on(service, made, run)


def test_a_worker_that_is_killed_is_started_again(
    service: ServiceProcess, server: PrefectServer, tmp_path: Path
) -> None:
    made, run = _at_work(service, server, tmp_path / "in", "orphaned")
    (worker,) = service.named(WORKER)
    for child in [*worker.children(recursive=True), worker]:
        # What one of them has started ends with it.
        with suppress(psutil.NoSuchProcess):
            child.kill()
    until(lambda: [one for one in service.named(WORKER) if one.pid != worker.pid], LONG_S, "a worker is there again")
    _goes_on(service, made, run)


def test_the_api_is_killed_and_started_again(service: ServiceProcess, server: PrefectServer, tmp_path: Path) -> None:
    made, run = _at_work(service, server, tmp_path / "in", "reborn")
    (worker,) = service.named(WORKER)
    service.kill()
    # No worker is left behind by it.
    until(lambda: not is_alive(worker.pid), LONG_S, "the worker ends with its service")
    service.start()
    _goes_on(service, made, run)


def test_prefect_goes_and_comes_back_without_what_it_knew(
    service: ServiceProcess, server: PrefectServer, source: Path, tmp_path: Path
) -> None:
    before = service.create(source, YEARLY, "before")
    server.kill()
    made = service.create(source, YEARLY, "during")
    assert made["prefect_deployment_id"] is None
    assert "Ingestion created but scheduling unavailable" in made["warnings"]
    answer = service.run(made)
    assert (answer["status"], answer["method"]) == ("completed", "direct")
    assert service.rows("during") == 3000
    assert service.run(before)["method"] == "direct"
    service.call("PUT", f"/api/v1/ingestions/{made['id']}", {"schedule": {"frequency": "weekly"}}, status=200)
    gone = service.create(tmp_path / "in", YEARLY, "gone")
    service.call("DELETE", f"/api/v1/ingestions/{gone['id']}", status=204)
    until(lambda: _prefect(service) == "disconnected", LONG_S, "health tells")

    server.wipe()
    back = server.start_again()
    try:
        wanted = {f"ingestion-{one['id']}" for one in (before, made)}
        until(lambda: wanted <= {d["name"] for d in back.deployments()}, LONG_S, "all deployments stand again")
        assert f"ingestion-{gone['id']}" not in {d["name"] for d in back.deployments()}
        until(lambda: service.ingestion(made)["prefect_deployment_id"], LONG_S, "the ingestion names its deployment")
        until(lambda: _prefect(service) == "connected", LONG_S, "health tells that it is back")
        # Refused while the one before is at work.
        until(lambda: service.run(before).get("method") == "prefect", LONG_S, "runs go by Prefect again")
    finally:
        object.__setattr__(server, "pid", back.pid)
