"""Direct runs of a real service: answered before they end, few at a time, gone on with when the service was killed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.service_process import ServiceProcess, land, until

pytestmark = pytest.mark.timeout(1_200)

LEASE_S = 6
SETTINGS = {
    "AUTOLOADER_LEASE_S": str(LEASE_S),
    "AUTOLOADER_BATCH_FILES": "1",
    "AUTOLOADER_DIRECT_RUN_WAIT_S": "0.5",
    "AUTOLOADER_SETTLE_S": "0",
    "AUTOLOADER_LOCAL_ROOTS": "/",
    "PREFECT_TASK_RETRY_DELAY_SECONDS": "0",
}


def dawdle(seconds: int) -> dict[str, str]:
    """Settings of runs that stay in the midst of their work: a batch is in the table, the next one is claimed."""
    return SETTINGS | {"AUTOLOADER_FAILPOINT": f"batch_claimed:after:delay={seconds}:hit=2"}


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


def committed(service: ServiceProcess, run_id: str) -> bool:
    with closing(sqlite3.connect(service.home / "autoloader.db")) as connection:
        found = "select count(*) from batches where run_id = ? and state = 'committed'"
        return bool(connection.execute(found, (run_id,)).fetchone()[0])


def test_one_that_takes_longer_is_answered_as_it_is_and_goes_on(service: ServiceProcess) -> None:
    service.environ = dawdle(4)
    service.start()
    made = create(service, 0)
    answer = service.call("POST", f"/api/v1/ingestions/{made['id']}/run", status=202)
    assert (answer["status"], answer["method"]) == ("running", "direct")
    until(lambda: service.children("run-order", answer["run_id"]), 60, "a process of its own carries it out")
    run = service.ended(made, answer["run_id"])
    assert (run["status"], run["rows"]["loaded"]) == ("success", 3000)
    assert service.rows("t0") == 3000


def test_a_service_that_is_killed_is_followed_by_one_that_goes_on(service: ServiceProcess) -> None:
    """Of four runs two are at work: one goes on by itself, one is killed too, and two are queued."""
    service.environ = dawdle(20)
    service.start()
    some = [create(service, number) for number in range(4)]
    runs = [service.run(made)["run_id"] for made in some]
    until(lambda: all(committed(service, run_id) for run_id in runs[:2]), 90, "two are in the midst of their work")
    assert {run_id: row[0] for run_id, row in rows_of_runs(service).items()} == {
        runs[0]: "running",
        runs[1]: "running",
        runs[2]: "queued",
        runs[3]: "queued",
    }
    at_work = service.children("app run-order")
    assert len(at_work) == 2
    (killed,) = service.children("app run-order", runs[1])

    service.kill()
    killed.kill()
    service.environ = SETTINGS
    service.start()
    until(lambda: rows_of_runs(service)[runs[1]] != ("running", 1), LEASE_S + 5, "the dead one is settled")
    ended = [service.ended(made, run_id) for made, run_id in zip(some, runs, strict=True)]
    assert [(run["status"], run["rows"]["loaded"]) for run in ended] == [("success", 3000)] * 4
    assert [rows_of_runs(service)[run_id] for run_id in runs] == [("success", 1), ("success", 2), *[("success", 1)] * 2]
    assert [service.rows(made["name"]) for made in some] == [3000] * 4
