"""Two API processes and two workers on one PostgreSQL and one Prefect server, as a team runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import httpx
import pytest

from app.domain.ingestions import IngestionStatus
from app.domain.service import NewIngestion
from app.persistence.keys import Keyring
from app.persistence.service import open_service_store
from app.services.prefect_connection import ENVIRONMENT
from tests.support.command import ROOT
from tests.support.postgres import Postgres
from tests.support.prefect_server import PrefectServer, start_prefect
from tests.support.servers import stop
from tests.support.service_process import PATIENT_S, ServiceProcess, land, until

pytestmark = [pytest.mark.xdist_group("several"), pytest.mark.timeout(1_200)]

PATH = "/api/v1/ingestions"
POOL = "autoloader-pool"
PASSPHRASE = "a passphrase of the tests"
# None of its times comes while a test runs: what runs, the test has begun.
YEARLY = {"frequency": "custom", "cron_expression": "0 0 1 1 *"}
MADE_BEFORE = 6
# What takes seconds on a quiet machine.
LONG_S = 240
TRIES = 8
# What a service tells when Prefect was slow to answer it: another one may have reconciled then, or what was made is
# counted by nobody.
DISTURBANCES = {"prefect_lost", "reconciling_ended_early", "deployment_not_reconciled"}
STARTED, CONFLICT = {httpx.codes.OK, httpx.codes.ACCEPTED}, httpx.codes.CONFLICT


@dataclass
class Team:
    """All of it."""

    postgres: Postgres
    url: str
    server: PrefectServer
    services: list[ServiceProcess]
    source: Path

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        return self.postgres.execute(statement, self.url)

    def reconciler(self) -> ServiceProcess | None:
        """Which of them has the lease for reconciling, and lives."""
        found = self.query("select pid from leases where ingestion_id = 'reconciler' and run_id is not null")
        living = {one.pid: one for one in self.services}
        return living.get(found[0][0]) if found else None

    def at_once(self, method: str, path: str, body: Any = None, **headers: str) -> list[httpx.Response]:
        """What each of them answers, asked at the same time."""

        def ask(service: ServiceProcess) -> httpx.Response:
            url = f"http://127.0.0.1:{service.port}{path}"
            return httpx.request(method, url, json=body, headers=headers, timeout=PATIENT_S, trust_env=False)

        with ThreadPoolExecutor(len(self.services)) as pool:
            return list(pool.map(ask, self.services))

    @property
    def is_undisturbed(self) -> bool:
        """Whether Prefect has answered all of them until now."""
        told = [line for service in self.services for line in logged(service)]
        return not any(line["event"] in DISTURBANCES or line.get("left") for line in told)

    def create(self, name: str, schedule: dict[str, str] | None = None) -> dict[str, Any]:
        made = self.services[0].create(self.source, schedule, name)
        if schedule is not None:
            until(lambda: self.services[1].ingestion(made)["prefect_deployment_id"], LONG_S, f"{name} is deployed")
        return made

    def run_once(self, name: str, schedule: dict[str, str] | None = None) -> tuple[dict[str, Any], str]:
        """A new ingestion, run through both at once: one does, the other one says which run that is. The run's id."""
        for number in range(TRIES):
            made = self.create(f"{name}_{number}", schedule)
            first, second = sorted(self.at_once("POST", f"{PATH}/{made['id']}/run"), key=lambda one: one.status_code)
            if second.status_code == CONFLICT:
                # 200 where another one was so quick that it was over before the answer.
                assert first.status_code in STARTED, first.text
                assert second.json()["code"] == "run_in_progress"
                run_id: str = first.json()["run_id"]
                assert second.json()["run_id"] == run_id
                return made, run_id
            self._came_one_after_the_other(made, first, second)
        raise AssertionError(f"Never were both asked at once in {TRIES} tries.")

    def _came_one_after_the_other(self, made: dict[str, Any], *answers: httpx.Response) -> None:
        """Make sure that of two runs one was over before the other one was asked for."""
        assert {one.status_code for one in answers} <= STARTED, [one.text for one in answers]
        runs = [self.services[0].ended(made, one.json()["run_id"], LONG_S) for one in answers]
        first, second = sorted(runs, key=lambda run: datetime.fromisoformat(run["created_at"]))
        assert datetime.fromisoformat(first["ended_at"]) <= datetime.fromisoformat(second["created_at"])


def logged(service: ServiceProcess) -> list[dict[str, Any]]:
    """The events of its log; a line without its end is still being written."""
    lines = service.log.splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]


def reconciled(service: ServiceProcess) -> list[dict[str, Any]]:
    """What its passes did, as its log tells."""
    return [line for line in logged(service) if line["event"] == "reconciled"]


@pytest.fixture(scope="module")
def team(postgres: Postgres, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Both services begin at the same moment, and there is something to reconcile."""
    folder = tmp_path_factory.mktemp("team")
    land(folder / "in", 0, 2)
    url = postgres.copy_database(migrated)
    _keep_some(url, folder)
    with ExitStack() as stack:
        server = start_prefect()
        stack.callback(stop, server)
        environ = {
            "DATABASE_URL": url,
            "SECRET_KEY": PASSPHRASE,
            "AUTOLOADER_HOME": str(folder / "0"),
            "PREFECT_API_URL": server.api_url,
            "AUTOLOADER_WORKER": "off",
            "AUTOLOADER_DIRECT_RUNS": "1",
            "AUTOLOADER_DIRECT_RUN_WAIT_S": "0",
            "AUTOLOADER_SETTLE_S": "0",
            "AUTOLOADER_LOCAL_ROOTS": "/",
        }
        services = [ServiceProcess(folder / str(number), environ) for number in range(2)]
        for one in services:
            stack.callback(one.stop)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(ServiceProcess.start, services))
        for number in range(2):
            stack.enter_context(_worker(folder / f"worker-{number}", environ))
        yield Team(postgres, url, server, services, folder / "in")


def _keep_some(url: str, folder: Path) -> None:
    store = open_service_store(url, Keyring(PASSPHRASE, None, folder), lambda _: None)
    document = {"source": {"type": "local", "path": str(folder / "in")}, "schedule": YEARLY}
    for number in range(MADE_BEFORE):
        name = f"before-{number}"
        store.add_ingestion(NewIngestion(name, "default", name, IngestionStatus.ACTIVE, "local.shop.b", document))
    store.dispose()


@contextmanager
def _worker(home: Path, environ: dict[str, str]) -> Iterator[None]:
    """A worker of the pool, as the service would start it."""
    home.mkdir()
    plain = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    own = {**ENVIRONMENT, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(home), "PREFECT_WORKER_QUERY_SECONDS": "2"}
    with (home / "log").open("wb") as log:
        command = [sys.executable, "-m", "app.prefect.worker", "--parent", str(os.getpid())]
        process = subprocess.Popen(
            command, env={**plain, **own, **environ}, cwd=home, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(PATIENT_S)
        finally:
            process.kill()
            process.wait()


def test_one_of_them_reconciles(team: Team) -> None:
    names = {f"ingestion-before-{number}" for number in range(MADE_BEFORE)}
    until(lambda: names <= {one["name"] for one in team.server.deployments()}, LONG_S, "all deployments stand")

    def done() -> list[int]:
        return [sum(one["made"] for one in reconciled(service)) for service in team.services]

    until(lambda: sum(done()) >= MADE_BEFORE or not team.is_undisturbed, LONG_S, "it is logged")
    made, reconciler = done(), team.reconciler()
    if team.is_undisturbed:
        assert sorted(made) == [0, MADE_BEFORE]
        assert reconciler is team.services[made.index(MADE_BEFORE)]
    # Whoever made them, each is there once.
    assert sorted(one["name"] for one in team.server.deployments() if one["name"] in names) == sorted(names)


def test_what_is_triggered_through_both_at_once_runs_once(team: Team) -> None:
    def workers() -> int:
        found = team.server.ask(f"/work_pools/{POOL}/workers/filter", {})
        return sum(one["status"] == "ONLINE" for one in found)

    until(lambda: workers() == 2, LONG_S, "both workers are online")
    for made, run_id in [team.run_once(f"scheduled_{number}", YEARLY) for number in range(2)]:
        run = team.services[1].ended(made, run_id, LONG_S)
        assert (run["status"], run["rows"]["loaded"]) == ("success", 2000)
        assert team.services[0].rows(made["name"]) == 2000
        assert team.query(f"select id, attempts from runs where ingestion_id = '{made['id']}'") == [(run_id, 1)]
        mine = [one for one in team.server.flow_runs() if one["parameters"].get("run_id") == run_id]
        # None where the server was too slow to be waited for.
        assert len(mine) <= 1


def test_direct_runs_are_few_at_a_time_and_each_is_carried_out_once(team: Team) -> None:
    some = [team.run_once(f"direct_{number}") for number in range(5)]
    ended = [team.services[n % 2].ended(*which, LONG_S) for n, which in enumerate(some)]
    assert {(run["status"], run["method"], run["rows"]["loaded"]) for run in ended} == {("success", "direct", 2000)}
    assert set(team.query("select attempts from runs where method = 'direct'")) == {(1,)}
    assert [team.services[0].rows(made["name"]) for made, _ in some] == [2000] * len(some)
    # One for each of the two processes.
    assert at_work_at_once(ended) <= 2


def at_work_at_once(runs: list[dict[str, Any]]) -> int:
    """How many of them were at work at the same time, at most."""
    steps = [(datetime.fromisoformat(run["started_at"]), 1) for run in runs]
    steps += [(datetime.fromisoformat(run["ended_at"]), -1) for run in runs]
    now = most = 0
    for _, change in sorted(steps):
        now += change
        most = max(most, now)
    return most


def test_one_idempotency_key_makes_one_ingestion(team: Team) -> None:
    for number in range(4):
        document = {
            "name": f"keyed_{number}",
            "source": {"type": "local", "path": str(team.source)},
            "destination": {"database": "shop", "table": "keyed"},
        }
        answers = team.at_once("POST", PATH, document, **{"Idempotency-Key": f"key-{number}"})
        made = {one.json()["id"] for one in answers if one.status_code == httpx.codes.CREATED}
        assert len(made) == 1, [one.text for one in answers]
        others = {one.json()["code"] for one in answers if one.status_code != httpx.codes.CREATED}
        assert others <= {"idempotency_key_at_work"}
        # Asked again, both give the one answer.
        again = team.at_once("POST", PATH, document, **{"Idempotency-Key": f"key-{number}"})
        assert [(one.status_code, one.json()["id"]) for one in again] == [(201, made_id) for made_id in made] * 2
        assert team.query(f"select count(*) from ingestions where name = 'keyed_{number}'") == [(1,)]


def test_another_one_reconciles_when_the_one_that_did_is_killed(team: Team) -> None:
    first = until(team.reconciler, LONG_S, "one of them reconciles")
    assert first is not None
    (second,) = [one for one in team.services if one is not first]
    before = len(reconciled(second))
    if team.is_undisturbed:
        assert before == 0
    first.kill()
    lost = team.server.deployments()[0]
    _delete(team.server, lost)
    until(lambda: lost["name"] in {one["name"] for one in team.server.deployments()}, LONG_S, "it stands again")
    until(lambda: len(reconciled(second)) > before, LONG_S, "the other one has done it")
    first.start()
    until(lambda: first.call("GET", "/health").get("prefect") == "connected", LONG_S, "the first one is back")
    reconciler = team.reconciler()
    if team.is_undisturbed:
        assert reconciler is second


def _delete(server: PrefectServer, deployment: dict[str, Any]) -> None:
    try:
        server.ask(f"/deployments/{deployment['id']}", method="DELETE")
    except HTTPError as error:
        # It was asked again, for it did at once what it was late to answer.
        with error:
            if error.code != httpx.codes.NOT_FOUND:
                raise
