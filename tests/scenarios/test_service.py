"""The service over HTTP: the contract's scenarios by direct runs, its start, and a Prefect that never answers."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.api_rigs import DatabaseRig, database_rig
from tests.support.servers import free_ports
from tests.support.service_process import PATIENT_S, until

ROOT = Path(__file__).resolve().parents[2]
PATH = "/api/v1/ingestions"
START_S = 90
# Longer than a call of Prefect's may hold the API up, on a busy machine too, and shorter than a silent server would.
PATIENCE_S = 45

# --- scenarios -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseRig]:
    with database_rig(tmp_path_factory.mktemp("service")) as rig:
        yield rig


def land(folder: Path, numbers: range) -> None:
    folder.mkdir(exist_ok=True)
    for i in numbers:
        records = (
            {"id": i * 1000 + n, "timestamp": "2026-11-25T10:00:00Z", "user_id": n % 9, "event_type": "x", "value": 0.5}
            for n in range(1000)
        )
        (folder / f"batch_{i}.json").write_text("".join(json.dumps(record) + "\n" for record in records))


def create(client: httpx.Client, folder: Path, table: str, **fields: Any) -> str:
    document = {
        "name": table,
        "source": {"path": str(folder), "file_pattern": "*.json"},
        "destination": {"database": "d", "table": table},
        **fields,
    }
    answer = client.post(PATH, json=document)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def paged(client: httpx.Client, path: str, limit: int) -> list[dict[str, Any]]:
    """All items of a list, page by page."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = client.get(f"{path}?limit={limit}{cursor}").json()
        found += page["items"]
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"


def run(client: httpx.Client, ingestion: str) -> dict[str, Any]:
    """A run to its end."""
    answer = client.post(f"{PATH}/{ingestion}/run")
    assert answer.status_code == 200, answer.text
    assert answer.json()["method"] == "direct"
    found: dict[str, Any] = client.get(answer.headers["location"]).json()
    return found


def counted(api: DatabaseRig, table: str) -> Mapping[str, Any]:
    """How many rows a table has, and how many ids."""
    name = api.service.product.table_name(f"d.{table}")
    query = f"select count(*) n, count(distinct id) i from {table}"
    (found,) = api.service.product.catalog("local").query(name, query)
    return found


def columns(api: DatabaseRig, table: str) -> list[str]:
    """Its columns, but for the system's."""
    name = api.service.product.table_name(f"d.{table}")
    (row,) = api.service.product.catalog("local").query(name, f"select * from {table} limit 1")
    return [column for column in row if not column.startswith("_")]


def test_new_files_are_loaded_once(api: DatabaseRig, tmp_path: Path) -> None:
    """Scenarios 1 and 2."""
    land(tmp_path / "in", range(3))
    ingestion = create(api.client, tmp_path / "in", "events")
    first = run(api.client, ingestion)
    assert (first["status"], first["files"]["loaded"], first["rows"]["loaded"]) == ("success", 3, 3_000)
    assert first["snapshot_id"] is not None
    assert counted(api, "events") == {"n": 3_000, "i": 3_000}
    assert columns(api, "events") == ["id", "timestamp", "user_id", "event_type", "value"]
    land(tmp_path / "in", range(3, 5))
    second = run(api.client, ingestion)
    assert (second["status"], second["files"]["loaded"], second["rows"]["loaded"]) == ("success", 2, 2_000)
    assert second["files"]["known"] == 3
    third = run(api.client, ingestion)
    assert (third["status"], third["files"]["loaded"], third["snapshot_id"]) == ("success", 0, None)
    assert counted(api, "events") == {"n": 5_000, "i": 5_000}
    files = api.client.get(f"{PATH}/{ingestion}/files").json()["items"]
    assert [Path(one["path"]).name for one in files] == [f"batch_{i}.json" for i in range(5)]
    assert {(one["state"], one["rows"]) for one in files} == {("success", 1_000)}
    assert paged(api.client, f"{PATH}/{ingestion}/files", 2) == files
    fixed = api.client.put(f"{PATH}/{ingestion}", json={"destination": {"table": "other"}})
    assert (fixed.status_code, fixed.json()["code"]) == (409, "destination_fixed")
    unnamed = api.client.put(f"{PATH}/{ingestion}", json={"destination": {"provenance": False}})
    assert (unnamed.status_code, unnamed.json()["code"]) == (409, "destination_fixed")
    assert "destination.provenance" in unnamed.json()["detail"]
    assert api.client.put(f"{PATH}/{ingestion}", json={"destination": {"provenance": True}}).status_code == 200


def test_a_bad_file_among_good_ones(api: DatabaseRig, tmp_path: Path) -> None:
    """Scenario 8, and what can be done about it."""
    land(tmp_path / "in", range(2))
    (tmp_path / "in" / "batch_7.json").write_text('{"id": 1}\n{"id": \n')
    ingestion = create(api.client, tmp_path / "in", "mixed")
    answer = api.client.post(f"{PATH}/{ingestion}/run")
    assert (answer.status_code, answer.json()["status"]) == (200, "partial")
    (error,) = answer.json()["errors"]
    assert (error["category"], error["line"], error["retryable"]) == ("data_malformed", 2, False)
    told = api.client.get(answer.headers["location"]).json()
    assert (told["files"]["loaded"], told["files"]["failed"], told["rows"]["loaded"]) == (2, 1, 2_000)
    assert counted(api, "mixed") == {"n": 2_000, "i": 2_000}
    (failed,) = api.client.get(f"{PATH}/{ingestion}/files/failed").json()["items"]
    assert failed["path"].endswith("batch_7.json")
    assert (failed["category"], failed["line"]) == ("data_malformed", 2)
    (tmp_path / "in" / "batch_7.json").write_text('{"id": 1}\n')
    run_id = answer.json()["run_id"]
    assert run(api.client, ingestion)["files"]["loaded"] == 1
    assert api.client.get(f"{PATH}/{ingestion}/files/failed").json()["items"] == []
    retried = api.client.post(f"{PATH}/{ingestion}/runs/{run_id}/retry")
    assert (retried.status_code, retried.json()["code"]) == (409, "nothing_to_retry")


def test_both_versions_of_a_changed_file_are_listed(api: DatabaseRig, tmp_path: Path) -> None:
    land(tmp_path / "in", range(2))
    source = {"path": str(tmp_path / "in"), "on_file_change": "append"}
    ingestion = create(api.client, tmp_path / "in", "versions", source=source)
    run(api.client, ingestion)
    (tmp_path / "in" / "batch_0.json").write_text('{"id": 7}\n')
    assert run(api.client, ingestion)["new_versions"] == {"replaced": 0, "appended": 1}
    path = f"{PATH}/{ingestion}/files"
    names = [Path(one["path"]).name for one in paged(api.client, path, 1)]
    assert names == ["batch_0.json", "batch_0.json", "batch_1.json"]


def test_files_that_are_forgotten_are_loaded_again(api: DatabaseRig, tmp_path: Path) -> None:
    land(tmp_path / "in", range(1))
    ingestion = create(api.client, tmp_path / "in", "again")
    run(api.client, ingestion)

    def clear() -> httpx.Response | None:
        """Refused while the run's process has still to give its lease back."""
        answer = api.client.request("DELETE", f"{PATH}/{ingestion}/processed-files", json={"confirm": True})
        return None if answer.status_code == httpx.codes.CONFLICT else answer

    cleared = until(clear, START_S, "they are forgotten")
    assert cleared is not None
    assert (cleared.status_code, cleared.json()["files_cleared"]) == (200, 1)
    assert run(api.client, ingestion)["files"]["loaded"] == 1


@pytest.mark.parametrize(
    ("fields", "code", "word"),
    [
        ({"source": {"path": "/nowhere/at/all"}}, "path_not_found", "/nowhere/at/all"),
        ({"cluster_id": "cluster_123"}, "cluster_unknown", "cluster_123"),
        ({"destination": {"catalog": "nobodys", "database": "d", "table": "t"}}, "catalog_not_configured", "nobodys"),
    ],
    ids=str,
)
def test_a_run_that_cannot_work_says_what_to_do(
    api: DatabaseRig, tmp_path: Path, fields: Mapping[str, Any], code: str, word: str
) -> None:
    land(tmp_path / "in", range(1))
    ingestion = create(api.client, tmp_path / "in", f"no_{code}", **fields)
    answer = api.client.post(f"{PATH}/{ingestion}/run")
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    (error,) = answer.json()["errors"]
    assert (error["file"], error["category"]) == (None, code)
    assert word in error["message"]


# --- processes -----------------------------------------------------------------------------------------------------


@contextmanager
def started(home: Path, stderr: int, **environ: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`uvicorn app.main:app` in `home`; the process, and its address."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port)]
    plain = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    # So long that the answer to a direct run is always how it ended.
    told = {"PYTHONPATH": str(ROOT), "AUTOLOADER_DIRECT_RUN_WAIT_S": str(PATIENT_S)}
    given = {**plain, **told, "PREFECT_HOME": f"{home}/prefect", **environ}
    process = subprocess.Popen(command, cwd=home, env=given, stdout=subprocess.DEVNULL, stderr=stderr)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


class Lines:
    """What comes out of a terminal, line by line."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._text = b""

    def until(self, line: str) -> list[str]:
        """All lines up to this one."""
        while True:
            found = [one.strip() for one in self._text.decode(errors="replace").splitlines()]
            if line in found:
                return found[: found.index(line) + 1]
            readable, _, _ = select.select([self._descriptor], [], [], START_S)
            assert readable, found
            self._text += os.read(self._descriptor, 4096)


def test_the_start_says_its_lines_on_a_terminal_and_ends_cleanly(tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    with started(tmp_path, end) as (process, base):
        os.close(end)
        lines = Lines(terminal).until("Prefect features will be unavailable")
        wanted = [
            "Starting IOMETE Autoloader",
            "Database initialized",
            "Failed to connect to Prefect server",
            "Prefect features will be unavailable",
        ]
        assert [line for line in lines if line in wanted] == wanted
        health = until_it_answers(process, base)
        assert health["status"] == "healthy"
        assert (health["database"], health["prefect"]) == ("connected", "disconnected")
        until(lambda: "PREFECT_API_URL" in until_it_answers(process, base)["prefect_detail"], START_S, "it says why")
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_S) in (0, -signal.SIGTERM)
    os.close(terminal)


def until_it_answers(process: subprocess.Popen[bytes], base: str) -> dict[str, Any]:
    """Its health, as soon as it tells that the database is there; on a busy machine that news may be late."""

    def look() -> dict[str, Any] | None:
        assert process.poll() is None
        with suppress(httpx.ConnectError):
            found: dict[str, Any] = httpx.get(f"{base}/health", trust_env=False, timeout=PATIENCE_S).json()
            return found if found["database"] == "connected" else None
        return None

    found = until(look, START_S, "it answers, and has its database")
    assert found is not None
    return found


def events_in(log: Path) -> list[str]:
    """Names of the events that are whole in a log."""
    *lines, _ = log.read_text().split("\n")
    return [json.loads(line)["event"] for line in lines if line.startswith("{")]


def test_a_database_that_cannot_be_used_ends_the_start_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "autoloader.db").write_bytes(b"this is no database" * 100)
    with started(tmp_path, subprocess.PIPE) as (process, _):
        _, written = process.communicate(timeout=START_S)
    assert process.returncode != 0
    events = [json.loads(line) for line in written.decode().splitlines() if line.startswith("{")]
    assert [one["event"] for one in events] == ["Starting IOMETE Autoloader", "start_failed"]
    assert events[1]["code"] == "ledger_unreadable"
    assert "Traceback" not in written.decode()


@contextmanager
def silent_server() -> Iterator[int]:
    """A port where every connection is accepted and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    kept.append(listener.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in kept:
            connection.close()


def test_a_prefect_that_never_answers_holds_nothing_up(tmp_path: Path) -> None:
    land(tmp_path / "in", range(1))
    with (
        silent_server() as port,
        (tmp_path / "log").open("wb") as log,
        started(tmp_path, log.fileno(), PREFECT_API_URL=f"http://127.0.0.1:{port}/api") as (process, base),
        httpx.Client(base_url=base, timeout=PATIENCE_S, trust_env=False) as client,
    ):
        health = until_it_answers(process, base)
        assert (health["status"], health["prefect"]) == ("healthy", "disconnected")
        answer = client.post(
            PATH,
            json={
                "name": "hourly",
                "source": {"path": str(tmp_path / "in")},
                "destination": {"database": "d", "table": "t"},
                "schedule": {"frequency": "hourly", "timezone": "UTC"},
            },
        )
        assert answer.status_code == 201
        made = answer.json()
        assert made["prefect_deployment_id"] is None
        assert "Ingestion created but scheduling unavailable" in made["warnings"]
        path = f"{PATH}/{made['id']}"
        changed = client.put(path, json={"schedule": {"frequency": "daily", "time": "14:30"}})
        assert changed.status_code == 200
        for verb, status in (("pause", "paused"), ("resume", "active")):
            answer = client.post(f"{path}/{verb}")
            assert (answer.status_code, answer.json()["status"]) == (200, status)
            assert answer.json()["warnings"]
        told = client.post(f"{path}/run", timeout=PATIENT_S + 30).json()
        assert (told["status"], told["method"]) == ("completed", "direct")
        assert client.get(f"{path}/runs/{told['run_id']}").json()["rows"]["loaded"] == 1_000
        # A migration asks Prefect itself, and says that it does not answer.
        migrated = client.post("/api/v1/migrations/prefect", json={"dry_run": True})
        assert (migrated.status_code, migrated.json()["code"]) == (503, "scheduler_unavailable")
        assert client.delete(path).status_code == 204
        # The start does not wait long for the first beat, which imports a library before it can tell.
        until(lambda: "Prefect features will be unavailable" in events_in(tmp_path / "log"), START_S, "it is told")
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_S) in (0, -signal.SIGTERM)
    names = events_in(tmp_path / "log")
    assert names[:2] == ["Starting IOMETE Autoloader", "Database initialized"]
    assert "Failed to connect to Prefect server" in names
    assert "Prefect features will be unavailable" in names
