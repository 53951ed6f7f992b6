"""The warm worker with a real Prefect server: runs apart, cancelled, handed over, killed; queues."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from app.persistence.keys import Keyring
from app.persistence.service import open_service_store
from app.services.prefect_worker import MODULE
from app.services.yielding import NICENESS
from tests.support.prefect_server import PrefectServer, start_prefect
from tests.support.servers import is_alive, stop
from tests.support.service_process import ServiceProcess, land, until
from tests.support.worker_process import COMMAND, WorkerProcess

pytestmark = [pytest.mark.xdist_group("worker"), pytest.mark.timeout(1_200)]

# What takes seconds on a quiet machine.
LONG_S = 240
SETTINGS = {
    "AUTOLOADER_SETTLE_S": "0",
    "AUTOLOADER_LOCAL_ROOTS": "/",
    "AUTOLOADER_BATCH_FILES": "1",
    "PREFECT_TASK_RETRY_DELAY_SECONDS": "1",
}
# None of its times comes while a test runs: what runs, the test has begun.
YEARLY = {"frequency": "custom", "cron_expression": "0 0 1 1 *"}
# One worker may take all that is due before the other one looks.
MOST_ROUNDS = 12
# Two files are in, and the run does not come to another one: what happens to it, happens in the midst of it.
IN_THE_MIDST = {"AUTOLOADER_FAILPOINT": "batch_closed:after:delay=600:hit=2"}

MakeWorker = Callable[..., WorkerProcess]


@pytest.fixture(scope="module")
def server() -> Iterator[PrefectServer]:
    found = start_prefect()
    yield found
    stop(found)


@pytest.fixture(scope="module")
def service(server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A service that starts no worker."""
    home = tmp_path_factory.mktemp("service")
    found = ServiceProcess(home, {**SETTINGS, "PREFECT_API_URL": server.api_url, "AUTOLOADER_WORKER": "off"}).start()
    _connected(found)
    yield found
    found.stop()


def _connected(service: ServiceProcess) -> None:
    until(lambda: service.call("GET", "/health").get("prefect") == "connected", LONG_S, "Prefect is connected")


@pytest.fixture
def worker(server: PrefectServer, service: ServiceProcess, tmp_path: Path) -> Iterator[MakeWorker]:
    """Starts workers that end with the test."""
    workers: list[WorkerProcess] = []

    def make(
        *options: str, environ: dict[str, str] | None = None, ready: bool = True, command: Sequence[str] = COMMAND
    ) -> WorkerProcess:
        folder = tmp_path / f"w{len(workers)}"
        workers.append(WorkerProcess(folder, {**_environ(server, service), **(environ or {})}, options, command))
        return workers[-1].start(ready=ready)

    yield make
    for one in workers:
        one.stop()


def _environ(server: PrefectServer, service: ServiceProcess) -> dict[str, str]:
    database = {"AUTOLOADER_HOME": str(service.home), "DATABASE_URL": f"sqlite:///{service.home}/autoloader.db"}
    return {**SETTINGS, **database, "PREFECT_API_URL": server.api_url}


def _ingestion(service: ServiceProcess, folder: Path, name: str, files: int = 4) -> dict[str, Any]:
    land(folder / name, 0, files)
    made = service.create(folder / name, YEARLY, name)
    until(lambda: service.ingestion(made)["prefect_deployment_id"], LONG_S, "the ingestion has its deployment")
    return service.ingestion(made)


def _due(server: PrefectServer, made: dict[str, Any], queue: str = "autoloader-priority") -> str:
    """A flow run of it that is due. By our API it would be a direct run where the machine is too slow for Prefect."""
    body = {"state": {"type": "SCHEDULED"}, "work_queue_name": queue, "idempotency_key": uuid4().hex}
    return str(server.ask(f"/deployments/{made['prefect_deployment_id']}/create_flow_run", body)["id"])


def _begun(server: PrefectServer, service: ServiceProcess, made: dict[str, Any]) -> dict[str, Any]:
    """Ids of a run that a worker has taken up."""
    flow_run_id = _due(server, made)
    (run,) = until(lambda: service.runs(made), LONG_S, f"the run of {made['name']} has begun")
    assert run["flow_run_id"] == flow_run_id
    return {"flow_run_id": flow_run_id, "run_id": run["id"]}


def _at_work(server: PrefectServer, service: ServiceProcess, made: dict[str, Any]) -> dict[str, Any]:
    """A run in the midst of its work, with two files in the table."""
    answer = _begun(server, service, made)
    assert _in_the_midst(service, made) == answer
    return answer


def _in_the_midst(service: ServiceProcess, made: dict[str, Any]) -> dict[str, Any]:
    until(lambda: _files_in(service, made) == 2, LONG_S, f"two files of {made['name']} are in")
    (run,) = service.runs(made)
    return {"flow_run_id": run["flow_run_id"], "run_id": run["id"]}


def _files_in(service: ServiceProcess, made: dict[str, Any]) -> int:
    """How many files are in its table, as the ledger has it; `service.rows` would start a process at each look."""
    found = service.call("GET", f"/api/v1/ingestions/{made['id']}/files", status=200)["items"]
    return len([one for one in found if one["state"] == "success"])


def _goes_on(service: ServiceProcess, made: dict[str, Any], answer: dict[str, Any], *, rows: int) -> dict[str, Any]:
    """The run when it has come to its end, as the only one of its ingestion and with no row lost or doubled."""
    run = service.ended(made, answer["run_id"], LONG_S)
    assert (run["status"], service.rows(made["name"]), len(service.runs(made))) == ("success", rows, 1)
    return run


def _state(server: PrefectServer, answer: dict[str, Any]) -> tuple[str, str]:
    found = server.ask(f"/flow_runs/{answer['flow_run_id']}")["state"]
    return found["type"], found["message"] or ""


def _status(service: ServiceProcess, made: dict[str, Any], answer: dict[str, Any]) -> str:
    path = f"/api/v1/ingestions/{made['id']}/runs/{answer['run_id']}"
    return str(service.call("GET", path, status=200)["status"])


def _all_gone(processes: list[psutil.Process]) -> bool:
    return not any(is_alive(one.pid) for one in processes)


def test_what_becomes_of_runs_when_they_or_their_worker_end(
    server: PrefectServer, service: ServiceProcess, worker: MakeWorker, tmp_path: Path
) -> None:
    """One tale of four workers, for each takes a while to start: what one leaves, the next one goes on with."""
    first = worker("--limit", "3", "--grace", "600", environ=IN_THE_MIDST)
    assert f'"database": "sqlite:///{service.home}/autoloader.db"' in first.log
    assert len(list(Path(f"/proc/{first.fork_server.pid}/task").iterdir())) == 1
    _each_ends_alone(server, service, first, tmp_path)
    hurried = _what_they_are_forked_from_is_replaced(server, service, first, tmp_path)
    _told_twice_it_stops_at_once(first)

    # What the command becomes: only there it can be told that nobody is going to kill it some seconds after its grace.
    patient = ("--grace", "0", "--patience", str(LONG_S), "--output", "json")
    second = worker(*patient, environ=IN_THE_MIDST, command=("-P", "-m", MODULE))
    handed = _ingestion(service, tmp_path, "handed")
    answer = _at_work(server, service, handed)
    # This one was left by the first worker.
    _goes_on(service, *hurried, rows=3000)
    second.signal(signal.SIGTERM)
    assert second.ended() == 0
    told = json.loads((second.folder / "worker.out").read_text())
    assert told == {"status": "stopped", "runs": {"begun": 2, "handed_over": 1}}
    assert _state(server, answer)[0] == "SCHEDULED"
    assert _status(service, handed, answer) == "queued"

    # It goes on with the next one, in the same flow run; of its two files one is in when that one dies.
    third = worker(environ={"AUTOLOADER_FAILPOINT": "batch_closed:after:delay=600:hit=1"})
    until(lambda: _files_in(service, handed) == 3, LONG_S, "the third file is in")
    assert service.runs(handed)[0]["flow_run_id"] == answer["flow_run_id"]
    below = third.below()
    assert len(below) >= 3
    third.signal(signal.SIGKILL)
    until(lambda: _all_gone(below), LONG_S, "nothing is left of it")
    until(lambda: _status(service, handed, answer) == "queued", LONG_S, "its run is settled")
    until(lambda: _state(server, answer)[0] == "CRASHED", LONG_S, "Prefect knows it")

    worker()
    run = _goes_on(service, handed, answer, rows=4000)
    assert (run["files"]["loaded"], run["rows"]["loaded"]) == (4, 4000)


def _each_ends_alone(server: PrefectServer, service: ServiceProcess, one: WorkerProcess, folder: Path) -> None:
    """Three at once: one is cancelled with us, one with Prefect, and the third one's process is killed."""
    by_us, by_prefect, killed = (_ingestion(service, folder, name, 3) for name in ("by_us", "by_prefect", "killed"))
    for made in (by_us, by_prefect, killed):
        _due(server, made)
    answers = [_in_the_midst(service, made) for made in (by_us, by_prefect, killed)]
    processes = one.runs()
    # Whoever answers people goes first.
    assert {process.nice() for process in processes} == {NICENESS}
    assert len(processes) == 3
    # Nothing of a run is told on a command line, and what the engine started is below its run.
    assert not [a for a in answers if a["run_id"] in str([p.cmdline() for p in one.below()])]
    assert all("app.engines.embedded.child" in str([c.cmdline() for c in p.children()]) for p in processes)

    service.call("POST", f"/api/v1/ingestions/{by_us['id']}/runs/{answers[0]['run_id']}/cancel", status=202)
    body = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False}
    server.ask(f"/flow_runs/{answers[1]['flow_run_id']}/set_state", body)
    for made, answer in ((by_us, answers[0]), (by_prefect, answers[1])):
        assert service.ended(made, answer["run_id"])["status"] == "cancelled"
        until(lambda a=answer: _state(server, a)[0] == "CANCELLED", LONG_S, "Prefect knows it")  # type: ignore[misc]
        assert service.rows(made["name"]) == 2000
    until(lambda: len(one.runs()) == 1, LONG_S, "only the third is there")
    (process,) = one.runs()
    below = process.children(recursive=True)
    process.kill()
    until(lambda: _state(server, answers[2])[0] == "CRASHED", LONG_S, "the third crashed")
    until(lambda: _all_gone(below), LONG_S, "what it had started is gone")
    # It goes on under its own id, from where it was.
    _goes_on(service, killed, answers[2], rows=3000)


def _what_they_are_forked_from_is_replaced(
    server: PrefectServer, service: ServiceProcess, one: WorkerProcess, folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Kill it with a run at work; the run that is at work afterwards, in its midst."""
    made = _ingestion(service, folder, "reforked", files=3)
    answer = _at_work(server, service, made)
    before = one.fork_server
    below = before.children(recursive=True)
    before.kill()
    until(lambda: _all_gone(below), LONG_S, "its runs are gone with it")
    hurried = _ingestion(service, folder, "hurried", files=3)
    its = _at_work(server, service, hurried)
    _goes_on(service, made, answer, rows=3000)
    assert one.is_running
    assert one.fork_server.pid != before.pid
    return hurried, its


def _told_twice_it_stops_at_once(one: WorkerProcess) -> None:
    below = one.below()
    one.signal(signal.SIGINT)
    until(lambda: "worker_drains" in one.log, LONG_S, "it waits for its run")
    assert one.runs()
    one.signal(signal.SIGINT)
    assert one.ended() == 130
    until(lambda: _all_gone(below), LONG_S, "nothing is left of it")


def test_a_run_that_needs_too_much_memory_is_ended_and_says_so(
    server: PrefectServer, service: ServiceProcess, worker: MakeWorker, tmp_path: Path
) -> None:
    one = worker(environ={**IN_THE_MIDST, "AUTOLOADER_RUN_MEMORY_GB": "0.01"})
    number = count()

    def by_prefect() -> tuple[dict[str, Any], dict[str, Any]] | None:
        """By our API, so that it has a row however early it is ended.

        Where Prefect is too slow it is a direct one, which leaves so little to do that the next one of the same
        ingestion may be over before its memory is looked at.
        """
        made = _ingestion(service, tmp_path, f"large_{next(number)}")
        found = service.run(made)
        return (made, found) if found.get("method") == "prefect" else None

    begun = until(by_prefect, LONG_S, "a run is Prefect's")
    assert begun is not None
    made, answer = begun
    run = service.ended(made, answer["run_id"], LONG_S)
    assert run["status"] == "failed"
    (error,) = run["errors"]
    assert (error["category"], error["retryable"]) == ("memory_limit", False)
    assert "its limit is 0.01 GB" in error["message"]
    assert "AUTOLOADER_RUN_MEMORY_GB" in error["message"]
    until(lambda: _state(server, answer)[0] == "FAILED", LONG_S, "Prefect knows it")
    assert "its limit is 0.01 GB" in _state(server, answer)[1]
    assert one.is_running


def test_queues_are_kept_to_and_the_stock_worker_serves_the_same_pool(
    server: PrefectServer, service: ServiceProcess, worker: MakeWorker, tmp_path: Path
) -> None:
    kinds = ("high-memory", "high-memory", "default", "default", "default", "priority")
    made = [_ingestion(service, tmp_path, f"queue_{n}", files=1) for n in range(len(kinds))]
    # In this order they are due; the worker begins when all are.
    flow_runs = [_due(server, one, f"autoloader-{kind}") for one, kind in zip(made, kinds, strict=True)]
    one = worker("--limit", "1", "--queue", "autoloader-default", "--queue", "autoloader-priority")
    others = [_the_run(service, *which) for which in zip(made[2:], flow_runs[2:], strict=True)]
    assert min(others, key=lambda run: run["started_at"])["ingestion_id"] == made[5]["id"]
    assert not [one for one in made[:2] if service.runs(one)]
    one.stop()

    stock = WorkerProcess(
        tmp_path / "stock",
        {**_environ(server, service), "PREFECT_WORKER_QUERY_SECONDS": "1"},
        ("--pool", "autoloader-pool", "--type", "process", "--limit", "1", "--name", "stock"),
        # What has high memory is left to ours.
        command=("-m", "prefect", "worker", "start", "--work-queue", "autoloader-default"),
    )
    try:
        stock.start(ready=False)
        # It must not have done everything before the other one looks.
        ours = worker("--limit", "4", environ={"AUTOLOADER_FAILPOINT": "batch_closed:after:delay=4"})
        high = [_the_run(service, *which) for which in zip(made[:2], flow_runs[:2], strict=True)]
        first, second = sorted(high, key=lambda run: str(run["started_at"]))
        assert first["ended_at"] < second["started_at"]

        names = {"stock", f"autoloader-{socket.gethostname()}-{ours.pid}"}
        # Those of other tests are thought to be there for a while.
        until(lambda: names <= set(_online(server)), LONG_S, "both are online")
        carried: set[str] = set()
        rounds = 0
        while carried != names and rounds < MOST_ROUNDS:
            rounds += 1
            carried |= _one_more_each(server, service, made, tmp_path, rounds)
        assert carried == names
        assert [service.rows(made[n]["name"]) for n in (0, 5)] == [1000 * (rounds + 1)] * 2
    finally:
        stock.stop()


def _one_more_each(
    server: PrefectServer, service: ServiceProcess, made: list[dict[str, Any]], folder: Path, known: int
) -> set[str]:
    """Have each load one file more than the `known` ones, all of them due at once; the workers that carried them."""
    for n in range(len(made)):
        land(folder / f"queue_{n}", known, 1)
    flow_runs = [_due(server, ingestion, "autoloader-default") for ingestion in made]
    for ingestion, flow_run_id in zip(made, flow_runs, strict=True):
        assert _the_run(service, ingestion, flow_run_id)["rows"]["loaded"] == 1000
        assert (len(service.runs(ingestion)), _files_in(service, ingestion)) == (known + 1, known + 1)
    return {server.ask(f"/flow_runs/{one}")["labels"]["prefect.worker.name"] for one in flow_runs}


def _the_run(service: ServiceProcess, made: dict[str, Any], flow_run_id: str) -> dict[str, Any]:
    """The run that a flow run carried out, when it is over."""

    def look() -> list[dict[str, Any]]:
        return [run for run in service.runs(made) if run["flow_run_id"] == flow_run_id]

    (found,) = until(look, LONG_S, f"{made['name']} has its run")
    run = service.ended(made, found["id"], LONG_S)
    assert run["status"] == "success"
    return run


def _online(server: PrefectServer) -> list[str]:
    found = server.ask("/work_pools/autoloader-pool/workers/filter", {})
    return [one["name"] for one in found if one["status"] == "ONLINE"]


def test_a_queue_that_is_not_there_is_refused(worker: MakeWorker) -> None:
    one = worker("--queue", "autoloader-defualt", ready=False)
    assert one.ended() == 2
    assert "The pool autoloader-pool has no queue 'autoloader-defualt'" in one.log
    assert "autoloader-default, " in one.log


def test_it_waits_for_prefect_bears_its_absence_and_serves_a_pool_of_another_type(
    server: PrefectServer, service: ServiceProcess, worker: MakeWorker, tmp_path: Path
) -> None:
    server.kill()
    service.stop()
    server.wipe()
    object.__setattr__(server, "pid", server.start_again().pid)
    # While nobody else is there who would make it, as another type.
    server.ask("/work_pools/", {"name": "autoloader-pool", "type": "docker"})
    server.kill()
    # One that has nothing to make anew in Prefect.
    alone = ServiceProcess(tmp_path / "alone", service.environ)
    alone.home.mkdir()
    open_service_store(
        f"sqlite:///{alone.home}/autoloader.db", Keyring(None, None, alone.home), lambda _: None
    ).dispose()
    one = worker(environ=_environ(server, alone), ready=False)
    until(lambda: "worker_waits_for_prefect" in one.log, LONG_S, "it says that it waits")
    object.__setattr__(server, "pid", server.start_again().pid)
    try:
        alone.start()
        _connected(alone)
        made = _ingestion(alone, tmp_path, "docker", files=1)
        first = _begun(server, alone, made)
        assert alone.ended(made, first["run_id"], LONG_S)["status"] == "success"
        until(lambda: _state(server, first)[0] == "COMPLETED", LONG_S, "Prefect knows it")

        server.kill()
        object.__setattr__(server, "pid", server.start_again().pid)
        land(tmp_path / "docker", 1, 1)
        _the_run(alone, made, _due(server, made))
        assert alone.rows("docker") == 2000
        assert one.is_running
    finally:
        alone.stop()
