"""`autoloader worker` where it cannot serve, or not yet. No Prefect server answers here."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.persistence.keys import Keyring
from app.persistence.service import open_service_store
from tests.support.servers import free_ports
from tests.support.service_process import until
from tests.support.worker_process import WorkerProcess

pytestmark = pytest.mark.timeout(1_200)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    open_service_store(f"sqlite:///{tmp_path}/autoloader.db", Keyring(None, None, tmp_path), lambda _: None).dispose()
    return tmp_path / "autoloader.db"


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerProcess]:
    (port,) = free_ports(1)
    address = f"http://somebody:hidden-word@127.0.0.1:{port}/api"
    found = WorkerProcess(tmp_path, {"PREFECT_API_URL": address}, ("--output", "json"))
    yield found
    found.stop()


def document(worker: WorkerProcess) -> dict[str, object]:
    found: dict[str, object] = json.loads((worker.folder / "worker.out").read_text())
    return found


def test_it_waits_for_prefect_and_stops_when_it_is_told(worker: WorkerProcess, database: Path) -> None:
    worker.start(ready=False)
    until(lambda: "worker_waits_for_prefect" in worker.log, 60, "it says for what it waits")
    told = json.loads(worker.log.splitlines()[0])
    assert (told["event"], told["pool"], told["queues"]) == ("worker_serves", "autoloader-pool", "all")
    assert told["database"] == f"sqlite:///{database}"
    assert told["prefect"].startswith("http://127.0.0.1:")
    worker.signal(signal.SIGINT)
    assert worker.ended() == 0
    assert document(worker) == {"status": "stopped", "runs": {"begun": 0, "handed_over": 0}}
    assert "hidden-word" not in worker.log


def test_without_an_address_it_is_refused(worker: WorkerProcess, database: Path) -> None:
    assert database.exists()
    worker.environ = {}
    assert worker.start(ready=False).ended() == 2
    assert "PREFECT_API_URL is not set" in str(document(worker)["detail"])
    assert "http://localhost:4200/api" in str(document(worker)["remedy"])


def test_a_database_that_is_not_there_or_another_one_is_refused(worker: WorkerProcess, tmp_path: Path) -> None:
    assert worker.start(ready=False).ended() == 1
    assert document(worker)["code"] == "wrong_database"
    assert not (tmp_path / "autoloader.db").exists()
    open_service_store(f"sqlite:///{tmp_path}/autoloader.db", Keyring(None, None, tmp_path), lambda _: None).dispose()
    with sqlite3.connect(tmp_path / "autoloader.db") as connection:
        connection.execute("update alembic_version set version_num = '0001'")
    connection.close()
    worker.options = ()
    assert worker.start(ready=False).ended() == 1
    assert "stands at migration 0001" in worker.log
    assert "alembic upgrade head" in worker.log
