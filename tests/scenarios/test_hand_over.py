"""A run that finds more than its queue is meant for goes on in the high-memory queue, on a real Prefect server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.prefect_server import PrefectServer, start_prefect
from tests.support.servers import stop
from tests.support.service_process import ServiceProcess, land, until

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.timeout(1_200)]

SETTINGS = {
    "AUTOLOADER_SETTLE_S": "0",
    "AUTOLOADER_LOCAL_ROOTS": "/",
    "HIGH_MEMORY_THRESHOLD_GB": "0.001",
    # An attempt that is counted is the last one.
    "PREFECT_MAX_TASK_RETRIES": "0",
}
YEARLY = {"frequency": "custom", "cron_expression": "0 0 1 1 *"}
# About 1.9 MB; the threshold is 1.07.
LARGE = 20
TRIES = 5
# What takes seconds on a quiet machine.
LONG_S = 240


@pytest.fixture(scope="module")
def server() -> Iterator[PrefectServer]:
    """A Prefect server whose pool no other service uses: a worker's own settings decide."""
    found = start_prefect()
    yield found
    stop(found)


@pytest.fixture(scope="module")
def service(server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A service that starts a worker by itself."""
    found = ServiceProcess(tmp_path_factory.mktemp("service"), {**SETTINGS, "PREFECT_API_URL": server.api_url})
    yield found
    found.stop()


def _started(service: ServiceProcess, **settings: str) -> None:
    service.stop()
    service.environ = {**{k: v for k, v in service.environ.items() if k != "AUTOLOADER_FAILPOINT"}, **settings}
    service.start()
    until(lambda: service.call("GET", "/health").get("prefect") == "connected", LONG_S, "Prefect is connected")


def _large_one(service: ServiceProcess, folder: Path, name: str) -> dict[str, Any]:
    land(folder, 0, LARGE)
    made = service.create(folder, YEARLY, name)
    until(lambda: service.ingestion(made)["prefect_deployment_id"], LONG_S, "the ingestion has its deployment")
    return made


def _begun(service: ServiceProcess, folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A large one, and the answer to its run; another one where Prefect was too slow, so that the run was direct."""
    for n in range(TRIES):
        made = _large_one(service, folder / f"{n}", f"{name}_{n}")
        answer = service.run(made)
        if answer["method"] == "prefect":
            return made, answer
    raise AssertionError(answer)


def _flow_runs(server: PrefectServer, run_id: str) -> list[dict[str, Any]]:
    """Those that were made for the run, the first one first."""
    found = [one for one in server.flow_runs() if one["parameters"].get("run_id") == run_id]
    return sorted(found, key=lambda one: str(one["created"]))


def test_a_run_that_finds_much_goes_on_in_the_high_memory_queue(
    service: ServiceProcess, server: PrefectServer, tmp_path: Path
) -> None:
    _started(service)
    made, answer = _begun(service, tmp_path, "handed")
    run = service.ended(made, answer["run_id"], LONG_S)
    assert (run["status"], run["trigger"], run["rows"]["loaded"]) == ("success", "manual", LARGE * 1000)
    assert service.rows(made["name"]) == LARGE * 1000
    assert [one["id"] for one in service.runs(made)] == [answer["run_id"]]

    def both() -> list[dict[str, Any]]:
        found = _flow_runs(server, answer["run_id"])
        return found if {one["state_type"] for one in found} == {"COMPLETED"} else []

    first, second = until(both, LONG_S, "both flow runs are over")
    assert (first["id"], second["id"]) == (answer["flow_run_id"], run["flow_run_id"])
    assert [one["work_queue_name"] for one in (first, second)] == ["autoloader-priority", "autoloader-high-memory"]
    assert "handed over to the work queue autoloader-high-memory" in first["state"]["message"]
    order = {"ingestion_id": made["id"], "trigger": "manual", "run_id": answer["run_id"]}
    assert first["parameters"] == second["parameters"] == order


def test_a_run_whose_process_is_killed_while_it_is_handed_over_goes_on_there(
    service: ServiceProcess, server: PrefectServer, tmp_path: Path
) -> None:
    # Between our row, which says so, and the flow run that is to be made; and again when the load is over.
    _started(service, AUTOLOADER_FAILPOINT="run_finished:after:kill")
    made, answer = _begun(service, tmp_path, "struck")
    run = service.ended(made, answer["run_id"], LONG_S)
    assert (run["status"], run["rows"]["loaded"], run["attempts"]) == ("success", LARGE * 1000, 2)
    assert service.rows(made["name"]) == LARGE * 1000
    until(lambda: _flow_runs(server, answer["run_id"])[0]["state_type"] == "CRASHED", LONG_S, "Prefect knows it")
    _, second = _flow_runs(server, answer["run_id"])
    assert (second["work_queue_name"], second["id"]) == ("autoloader-high-memory", run["flow_run_id"])
