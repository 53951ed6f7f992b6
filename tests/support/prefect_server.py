"""A real Prefect server on loopback, of the locked version: one for all workers of a test run."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.services.prefect_connection import ENVIRONMENT
from tests.support.command import ROOT
from tests.support.servers import Server, free_ports, is_alive, shared, spawn, started, stop

DATABASE = "prefect.db"
# 10 seconds on a quiet machine.
START_S = 180
BUSY, BUSY_S = 503, 150


@dataclass(frozen=True)
class PrefectServer(Server):
    """Where a running server answers."""

    port: int
    # What it asks everybody for, "user:password"; empty: nothing.
    auth: str = ""

    @property
    def api_url(self) -> str:
        """A value of PREFECT_API_URL."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs that is to use it."""
        auth = {"PREFECT_API_AUTH_STRING": self.auth} if self.auth else {}
        return {"PREFECT_API_URL": self.api_url, "PREFECT_HOME": f"{self.folder}/home", **auth, **ENVIRONMENT}

    def ask(self, path: str, body: Any = None, *, method: str = "") -> Any:
        """The JSON that the server answers, asked without any code of the product."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310
            f"{self.api_url}{path}",
            data=data,
            method=method or ("GET" if data is None else "POST"),
            headers={"content-type": "application/json"},
        )
        if self.auth:
            request.add_header("authorization", f"Basic {b64encode(self.auth.encode()).decode()}")
        text = _answer(request)
        return json.loads(text) if text else None

    def deployments(self, tag: str = "autoloader") -> list[dict[str, Any]]:
        """All deployments with that tag, sorted by name."""
        found = self.ask("/deployments/filter", {"deployments": {"tags": {"all_": [tag]}}, "sort": "NAME_ASC"})
        return list(found)

    def flow_runs(self, tag: str = "autoloader") -> list[dict[str, Any]]:
        """All flow runs with that tag, the last one first."""
        body = {"flow_runs": {"tags": {"all_": [tag]}}, "sort": "EXPECTED_START_TIME_DESC"}
        return list(self.ask("/flow_runs/filter", body))

    def kill(self) -> None:
        """End it as a crash would."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        while is_alive(self.pid):
            time.sleep(0.01)

    def wipe(self) -> None:
        """Forget everything; it must not run."""
        for path in Path(self.folder).glob(f"{DATABASE}*"):
            path.unlink()

    def start_again(self) -> PrefectServer:
        """Start it where it was, with what it knew; what runs now is given back."""
        again = replace(self, pid=_spawned(self.folder, self.port, self.auth))
        return started(lambda: again, _is_ready, stop, within_s=START_S)


def _answer(request: urllib.request.Request) -> bytes:
    """What it answers. One with SQLite refuses what comes while it is busy, and did nothing of it; or it stands still.

    Where it stood still nobody knows what was done; tests only ask, or say what may be said again.
    """
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                found: bytes = answer.read()
                return found
        except urllib.error.HTTPError as error:
            if error.code != BUSY or time.monotonic() > deadline:
                raise
        except TimeoutError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


@contextmanager
def shared_prefect(folder: Path) -> Iterator[PrefectServer]:
    """A server that all processes with the same `folder` share: the first one starts it, the last one stops it."""
    with shared(folder, PrefectServer, start_prefect, stop) as server:
        yield server


def start_prefect(auth: str = "") -> PrefectServer:
    """Start a server of one's own on a free port, which knows nothing; `stop` ends it.

    Args:
        auth: What it is to ask everybody for, "user:password"; empty: nothing.
    """
    return started(lambda: _launch(auth), _is_ready, stop, within_s=START_S)


def _launch(auth: str) -> PrefectServer:
    folder = tempfile.mkdtemp(prefix="prefect-")
    (port,) = free_ports(1)
    return PrefectServer(_spawned(folder, port, auth), folder, port, auth)


def _spawned(folder: str, port: int, auth: str) -> int:
    environ = {
        **ENVIRONMENT,
        "PYTHONPATH": str(ROOT),
        **({"PREFECT_SERVER_API_AUTH_STRING": auth} if auth else {}),
        "PREFECT_HOME": f"{folder}/home",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder}/{DATABASE}",
        "PREFECT_SERVER_UI_ENABLED": "false",
        # What is due is made ahead every 5 seconds, not once a minute: a test need not wait so long.
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
    }
    return spawn(server_command(port), environ, folder)


def server_command(port: int) -> list[str]:
    """What starts a server; with Prefect's own command it answers nothing for a minute when several write to SQLite."""
    words = ["-m", "app.prefect.server", "server", "start", "--host", "127.0.0.1", "--port"]
    return [sys.executable, *words, str(port)]


def _is_ready(server: PrefectServer) -> bool:
    try:
        return bool(server.ask("/health"))
    except OSError:
        return False
