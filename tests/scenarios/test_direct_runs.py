"""Direct runs of a real service: answered before they end, few at a time, gone on with when the service was killed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.persistence.answers import LONGEST_REQUEST
from tests.support.service_process import PATIENT_S, ServiceProcess, land, until

pytestmark = pytest.mark.timeout(1_200)

SETTINGS = {
    # What stands still does not renew it.
    "AUTOLOADER_LEASE_S": "900",
    "AUTOLOADER_BATCH_FILES": "1",
    "AUTOLOADER_DIRECT_RUN_WAIT_S": "0.5",
    "AUTOLOADER_SETTLE_S": "0",
    "AUTOLOADER_LOCAL_ROOTS": "/",
    "PREFECT_TASK_RETRY_DELAY_SECONDS": "0",
}


# Of runs that stand still in the midst of their work: a batch is in the table, the next one is claimed.
STANDING_STILL = SETTINGS | {"AUTOLOADER_FAILPOINT": "batch_claimed:after:pause:hit=2"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    """A service without scheduling, to be started."""
    land(tmp_path / "in", 0, 3)
    found = ServiceProcess(tmp_path / "home", SETTINGS)
    yield found
    found.stop()


def create(service: ServiceProcess, number: int) -> dict[str, Any]:
    return service.create(service.home.parent / "in", None, f"t{number}")


def rows_of_runs(service: ServiceProcess, columns: str = "status, attempts") -> dict[str, tuple[Any, ...]]:
    """What the database itself says of each run."""
    with closing(sqlite3.connect(service.home / "autoloader.db")) as connection:
        return {row[0]: row[1:] for row in connection.execute(f"select id, {columns} from runs")}


def standing(service: ServiceProcess, run_id: str) -> psutil.Process | None:
    """The process of a run that stands still."""
    found = service.children("app run-order", run_id)
    with suppress(psutil.NoSuchProcess):
        return next((one for one in found if one.status() == psutil.STATUS_STOPPED), None)
    return None


def stood_still(service: ServiceProcess, run_id: str) -> psutil.Process:
    found = until(lambda: standing(service, run_id), 90, f"run {run_id} is in the midst of its work")
    assert found is not None
    return found


def test_one_that_takes_longer_is_answered_as_it_is_and_goes_on(service: ServiceProcess) -> None:
    service.environ = STANDING_STILL
    service.start()
    made = create(service, 0)
    answer = service.call("POST", f"/api/v1/ingestions/{made['id']}/run", status=202)
    assert (answer["status"], answer["method"]) == ("running", "direct")
    # A process of its own carries it out.
    stood_still(service, answer["run_id"]).resume()
    run = service.ended(made, answer["run_id"])
    assert (run["status"], run["rows"]["loaded"]) == ("success", 3000)
    assert service.rows("t0") == 3000


def test_a_service_that_is_killed_is_followed_by_one_that_goes_on(service: ServiceProcess) -> None:
    """Of four runs two are at work: one goes on by itself, one is killed too, and two are queued."""
    service.environ = STANDING_STILL
    service.start()
    some = [create(service, number) for number in range(4)]
    runs = [service.run(made)["run_id"] for made in some]
    goes_on, killed = (stood_still(service, run_id) for run_id in runs[:2])
    assert {run_id: row[0] for run_id, row in rows_of_runs(service).items()} == {
        runs[0]: "running",
        runs[1]: "running",
        runs[2]: "queued",
        runs[3]: "queued",
    }
    assert len(service.children("app run-order")) == 2

    service.kill()
    killed.kill()
    service.environ = SETTINGS
    try:
        service.start()
        until(lambda: rows_of_runs(service)[runs[1]] != ("running", 1), 60, "the dead one is settled")
        assert rows_of_runs(service)[runs[0]] == ("running", 1)
    finally:
        goes_on.resume()
    ended = [service.ended(made, run_id) for made, run_id in zip(some, runs, strict=True)]
    assert [(run["status"], run["rows"]["loaded"]) for run in ended] == [("success", 3000)] * 4
    assert [rows_of_runs(service)[run_id] for run_id in runs] == [("success", 1), ("success", 2), *[("success", 1)] * 2]
    assert [service.rows(made["name"]) for made in some] == [3000] * 4


def run_with_key(service: ServiceProcess, made: dict[str, Any]) -> httpx.Response:
    url = f"http://127.0.0.1:{service.port}/api/v1/ingestions/{made['id']}/run"
    return httpx.post(url, headers={"Idempotency-Key": "once"}, timeout=PATIENT_S, trust_env=False)


def let_requests_grow_old(service: ServiceProcess) -> None:
    """As if those that have no answer had begun before any that may still be at work."""
    age_us = (LONGEST_REQUEST + timedelta(minutes=1)) // timedelta(microseconds=1)
    with closing(sqlite3.connect(service.home / "autoloader.db")) as connection, connection:
        changed = connection.execute(
            f"update idempotency_keys set created_at = created_at - {age_us} where status is null"
        )
        assert changed.rowcount == 1


def test_a_request_whose_service_is_killed_has_its_run_when_it_is_repeated(service: ServiceProcess) -> None:
    """The service dies while it waits for the run that it has begun; the run goes on by itself."""
    service.environ = STANDING_STILL | {"AUTOLOADER_DIRECT_RUN_WAIT_S": str(PATIENT_S)}
    service.start()
    made = create(service, 0)
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(run_with_key, service, made)
        (run_id,) = until(lambda: rows_of_runs(service), 60, "a run is begun")
        standing_still = stood_still(service, run_id)
        service.kill()
        assert isinstance(answer.exception(), httpx.HTTPError)
    service.environ = SETTINGS | {"AUTOLOADER_DIRECT_RUN_WAIT_S": str(PATIENT_S)}
    try:
        service.start()
        assert run_with_key(service, made).json()["code"] == "idempotency_key_at_work"
        let_requests_grow_old(service)
    finally:
        standing_still.resume()
    again = run_with_key(service, made)
    assert (again.status_code, again.json()["run_id"], again.json()["status"]) == (200, run_id, "completed")
    assert rows_of_runs(service) == {run_id: ("success", 1)}
    assert service.rows("t0") == 3000
