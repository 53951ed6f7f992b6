"""Two walks as a user takes them: commands in two terminals and curl; then Prefect is stopped, and comes back."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.services.prefect_connection import ENVIRONMENT
from tests.support.command import ROOT
from tests.support.prefect_server import PrefectServer, start_prefect
from tests.support.servers import free_ports, is_alive, stop
from tests.support.service_process import PATIENT_S, land, until

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.timeout(1_200)]

START_S = 120
PATH = "/api/v1/ingestions"
# Word for word as clients send it.
PROMISED = """{"name": "Test Hourly Ingestion", "cluster_id": "cluster_123",
 "source": {"type": "s3", "path": "s3://test-bucket/data/", "file_pattern": "*.json",
   "credentials": {"aws_access_key_id": "test", "aws_secret_access_key": "test", "aws_region": "us-east-1"}},
 "format": {"type": "json", "schema": {"inference": "auto", "evolution_enabled": true}},
 "destination": {"catalog": "spark_catalog", "database": "default", "table": "test_table", "write_mode": "append"},
 "schedule": {"frequency": "hourly", "timezone": "UTC"}}"""


class Terminal:
    """A terminal with `uvicorn app.main:app --reload` in it, started in a user's folder."""

    def __init__(self, home: Path, api_url: str) -> None:
        self._home = home
        (self.port,) = free_ports(1)
        plain = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        told = {"PREFECT_API_URL": api_url, "DATABASE_URL": "sqlite:///./autoloader.db", "AUTOLOADER_SETTLE_S": "0"}
        # So long that the answer to a direct run is always how it ended.
        told["AUTOLOADER_DIRECT_RUN_WAIT_S"] = str(PATIENT_S)
        self._environ = {**plain, **ENVIRONMENT, **told, "PYTHONPATH": str(ROOT), "PREFECT_HOME": f"{home}/prefect"}
        self._text = b""
        self._fd = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)

    def command(self, *words: str) -> str:
        """What a command of Python's packages prints, run to its end in the same folder."""
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, cwd=self._home, env=self._environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        """Start the service, and wait until its last line of the start is there."""
        self._fd, end = pty.openpty()
        words = ["-m", "uvicorn", "app.main:app", "--reload", "--port", str(self.port)]
        # The terminal is its session's own: then Ctrl-C reaches all that runs in front.
        take_it = (
            "import fcntl as f, os, sys, termios as t; f.ioctl(0, t.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
        )
        command = [sys.executable, "-c", take_it, sys.executable, *words]
        self._process = subprocess.Popen(
            command, cwd=self._home, env=self._environ, stdin=end, stdout=end, stderr=end, start_new_session=True
        )
        os.close(end)
        self._reader.start()
        until(self._has_started, START_S, "the service has started")

    def _has_started(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.text
        if "Application startup complete." not in self.text:
            return False
        # It says so before it listens.
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 60):
            return True
        return False

    def _read(self) -> None:
        # Always, for whoever writes to a terminal that nobody reads stands still.
        try:
            while True:
                self._text += os.read(self._fd, 65536)
        except OSError:
            return

    @property
    def text(self) -> str:
        """What stands in it."""
        return self._text.decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        """The same, line by line."""
        return [line.strip() for line in self.text.splitlines()]

    @property
    def last_text(self) -> str:
        """What stands in it when nobody writes to it any more."""
        self._reader.join(START_S)
        assert not self._reader.is_alive()
        return self.text

    def below(self) -> list[psutil.Process]:
        """Everything that runs because of it."""
        assert self._process is not None
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]

    def ctrl_c(self) -> int:
        """Press it, and wait; the exit status."""
        assert self._process is not None
        os.write(self._fd, b"\x03")
        return self._process.wait(START_S)

    def close(self) -> None:
        """Leave nothing behind."""
        if self._process is not None and self._process.poll() is None:
            below: list[psutil.Process] = []
            with suppress(psutil.NoSuchProcess):
                below = self.below()
            for process in below:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.kill()
            self._process.wait()
        if self._fd >= 0:
            os.close(self._fd)

    def curl(self, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        sent = [] if body is None else ["-H", "Content-Type: application/json", "-d", body]
        url = f"http://localhost:{self.port}{path}"
        command = ["curl", "-s", "--noproxy", "*", "-w", "\n%{http_code}", "-X", method, *sent, url]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        text, status = printed.rsplit("\n", 1)
        return int(status), json.loads(text) if text else None

    def triggered(self, path: str) -> dict[str, Any]:
        """Have Prefect run it; where it was too slow to be asked, the run went without it, and another one is made."""

        def look() -> dict[str, Any] | None:
            status, found = self.curl("POST", f"{path}/run")
            return found if status == httpx.codes.ACCEPTED and found["method"] == "prefect" else None

        run = until(look, START_S, "Prefect runs it")
        assert run is not None
        told = ("triggered", "Ingestion run triggered via Prefect")
        assert (run["status"], run["message"]) == told
        return run

    def ended(self, path: str, run_id: str) -> dict[str, Any]:
        """A run when it is over."""

        def look() -> dict[str, Any] | None:
            status, found = self.curl("GET", f"{path}/runs/{run_id}")
            assert status == 200, found
            return found if found["status"] not in {"queued", "running"} else None

        found = until(look, START_S, f"run {run_id} ends")
        assert found is not None
        return found

    def counted(self) -> dict[str, int]:
        """How many rows the table has, and how many ids."""
        query = "select count(*) n, count(distinct id) ids from test_table"
        printed = self.command("app", "table", "default.test_table", "--sql", query, "--output", "json")
        (found,) = json.loads(printed)
        return dict(found)


@pytest.fixture
def server() -> Iterator[PrefectServer]:
    found = start_prefect()
    yield found
    stop(found)


@pytest.fixture
def terminal(server: PrefectServer, tmp_path: Path) -> Iterator[Terminal]:
    found = Terminal(tmp_path, server.api_url)
    yield found
    found.close()


def crons(server: PrefectServer, deployment: str) -> list[tuple[str, str]]:
    found = server.ask(f"/deployments/{deployment}")["schedules"]
    return [(one["schedule"]["cron"], one["schedule"]["timezone"]) for one in found]


def test_the_walk_with_prefect_and_the_walk_without(terminal: Terminal, server: PrefectServer, tmp_path: Path) -> None:
    started(terminal)
    made = asked_word_for_word(terminal, server)
    path, deployment = f"{PATH}/{made['id']}", made["prefect_deployment_id"]
    moved_and_loaded(terminal, server, path, tmp_path / "data")
    paused_and_changed(terminal, server, path, deployment)
    server.kill()
    other = without_prefect(terminal, path, tmp_path / "data")
    back = server.start_again()
    try:
        stands_again(terminal, back, made, other)
        ended_by_ctrl_c(terminal)
    finally:
        object.__setattr__(server, "pid", back.pid)


def started(terminal: Terminal) -> None:
    terminal.command("alembic", "-c", str(ROOT / "alembic.ini"), "upgrade", "head")
    terminal.start()
    health = {"status": "healthy", "database": "connected", "prefect": "connected"}
    until(lambda: terminal.curl("GET", "/health") == (200, health), START_S, "a worker is online")
    told = ["Starting IOMETE Autoloader", "Database initialized", "Prefect service initialized and connected"]
    # Where the machine is slow, the start does not wait for Prefect, and says first that it is not there; or it is lost
    # for a moment, and then there again.
    until(
        lambda: list(dict.fromkeys(line for line in terminal.lines if line in told)) == told,
        START_S,
        lambda: terminal.text,
    )


def asked_word_for_word(terminal: Terminal, server: PrefectServer) -> dict[str, Any]:
    """Its cluster is nobody's: a run of it says what to do."""
    status, made = terminal.curl("POST", PATH, PROMISED)
    assert status == 201, made
    assert any("cluster_123" in warning for warning in made["warnings"])
    path = f"{PATH}/{made['id']}"
    # Where Prefect was too slow for the request, the reconciler makes it.
    until(lambda: terminal.curl("GET", path)[1]["prefect_deployment_id"], START_S, "it has its deployment")
    made = terminal.curl("GET", path)[1]
    found = server.ask(f"/deployments/name/run_ingestion/ingestion-{made['id']}")
    assert (found["id"], found["paused"]) == (made["prefect_deployment_id"], False)
    assert crons(server, found["id"]) == [("0 * * * *", "UTC")]
    run = terminal.triggered(path)
    ended = terminal.ended(path, run["run_id"])
    assert (ended["status"], ended["errors"][0]["category"]) == ("failed", "cluster_unknown")
    assert "cluster_123" in ended["errors"][0]["message"]
    return dict(made)


def moved_and_loaded(terminal: Terminal, server: PrefectServer, path: str, data: Path) -> None:
    """Where there is something to load, its flow run loads it."""
    land(data, 0, 3)
    here = {"type": "local", "path": str(data), "credentials": None}
    change = {"cluster_id": "local", "source": here, "destination": {"catalog": "local"}}
    status, changed = terminal.curl("PUT", path, json.dumps(change))
    assert (status, changed["cluster_id"], changed["credential_names"]) == (200, "local", [])
    assert not any("cluster_123" in warning for warning in changed["warnings"])
    run = terminal.triggered(path)
    assert terminal.ended(path, run["run_id"])["status"] == "success"
    runs = terminal.curl("GET", f"{path}/runs")[1]["items"]
    assert sum(one["files"]["loaded"] for one in runs) == 3
    assert sum(one["rows"]["loaded"] for one in runs) == 3000
    until(lambda: server.ask(f"/flow_runs/{run['flow_run_id']}")["state_name"] == "Completed", START_S, "Completed")
    table = json.loads(terminal.command("app", "table", "default.test_table", "--output", "json"))
    columns = [column["name"] for column in table["schema"] if not column["system"]]
    assert columns == ["id", "timestamp", "user_id", "event_type", "value"]
    assert terminal.counted() == {"n": 3000, "ids": 3000}


def paused_and_changed(terminal: Terminal, server: PrefectServer, path: str, deployment: str) -> None:
    # With a warning where Prefect was too slow to be told.
    status, answer = terminal.curl("POST", f"{path}/pause")
    assert (status, answer["status"]) == (200, "paused")
    until(lambda: server.ask(f"/deployments/{deployment}")["paused"], START_S, "it is paused there")
    status, refused = terminal.curl("POST", f"{path}/run")
    assert (status, refused["code"]) == (409, "not_active")
    status, answer = terminal.curl("POST", f"{path}/resume")
    assert (status, answer["status"]) == (200, "active")
    until(lambda: not server.ask(f"/deployments/{deployment}")["paused"], START_S, "it is resumed there")
    assert terminal.curl("PUT", path, '{"schedule": {"frequency": "daily", "time": "14:30"}}')[0] == 200
    until(lambda: crons(server, deployment) == [("30 14 * * *", "UTC")], START_S, "its schedule is changed there")


def without_prefect(terminal: Terminal, path: str, data: Path) -> dict[str, Any]:
    """What is asked is kept and done; the ingestion that was made."""
    second = PROMISED.replace("Test Hourly Ingestion", "Second").replace("test_table", "second_table")
    status, other = terminal.curl("POST", PATH, second)
    assert (status, other["prefect_deployment_id"]) == (201, None)
    assert "Ingestion created but scheduling unavailable" in other["warnings"]
    land(data, 3, 2)
    message = "Ingestion run completed via direct execution"
    for files, rows, has_snapshot in ((2, 2000, True), (0, 0, False)):
        status, run = terminal.curl("POST", f"{path}/run")
        answer = {"status": "completed", "method": "direct", "run_id": run["run_id"], "message": message}
        assert (status, run) == (200, answer)
        ended = terminal.ended(path, run["run_id"])
        assert (ended["status"], ended["files"]["loaded"], ended["rows"]["loaded"]) == ("success", files, rows)
        assert (ended["snapshot_id"] is not None) is has_snapshot
    assert terminal.counted() == {"n": 5000, "ids": 5000}
    status, changed = terminal.curl("PUT", path, '{"schedule": {"frequency": "weekly"}}')
    assert status == 200
    assert changed["warnings"]
    until(lambda: terminal.curl("GET", "/health")[1]["prefect"] == "disconnected", 60, "health tells")
    until(lambda: is_healthy_alone(terminal), 60, "health tells that the rest is well")
    return dict(other)


def is_healthy_alone(terminal: Terminal) -> bool:
    """Whether it is healthy; on a busy machine the beat that tells of the database may be late."""
    status, found = terminal.curl("GET", "/health")
    assert (found["prefect"], bool(found["prefect_detail"])) == ("disconnected", True)
    return (status, found["status"], found["database"]) == (200, "healthy", "connected")


def stands_again(terminal: Terminal, back: PrefectServer, made: dict[str, Any], other: dict[str, Any]) -> None:
    """Everything is as wanted, and nobody asked for it."""
    deployment = made["prefect_deployment_id"]
    until(lambda: crons(back, deployment) == [("0 0 * * 0", "UTC")], 90, "what was changed is changed there")
    wanted = {f"ingestion-{one['id']}" for one in (made, other)}
    until(lambda: {one["name"] for one in back.deployments()} == wanted, 90, "what was made is made there")
    path = f"{PATH}/{other['id']}"
    until(lambda: terminal.curl("GET", path)[1]["prefect_deployment_id"], 30, "the ingestion names its deployment")
    assert crons(back, terminal.curl("GET", path)[1]["prefect_deployment_id"]) == [("0 * * * *", "UTC")]
    for one in (made, other):
        until(partial(deleted, terminal, one), 60, "it is deleted")
        assert terminal.curl("GET", f"{PATH}/{one['id']}")[0] == 404
    until(lambda: back.deployments() == [], START_S, "they are gone there")


def deleted(terminal: Terminal, made: dict[str, Any]) -> bool:
    """Whether it is; at the full hour a run of its schedule may be at work, and is waited for."""
    status, answer = terminal.curl("DELETE", f"{PATH}/{made['id']}")
    if status == httpx.codes.CONFLICT:
        assert answer["code"] == "run_in_progress"
        return False
    assert (status, answer) == (204, None)
    return True


def is_worker(process: psutil.Process) -> bool:
    try:
        return "app.prefect.worker" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def ended_by_ctrl_c(terminal: Terminal) -> None:
    below = terminal.below()
    assert any(is_worker(one) for one in below)
    assert terminal.ctrl_c() == 0
    # Those that lost their parent may stay as zombies, where nobody looks after them.
    until(lambda: not any(is_alive(one.pid) for one in below), 60, "nothing of it is left")
    text = terminal.last_text
    # With `--reload` the server is told twice, by the terminal and by its reloader. When both come before it looks, it
    # takes that for a second Ctrl-C and leaves the application's own shutdown out: nothing may depend on that.
    assert "Finished server process" in text
    if "Waiting for application shutdown." in text:
        assert "Application shutdown complete." in text
