"""The service as a user starts it: `uvicorn app.main:app` in a process of its own, with whatever it starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from app.services.prefect_connection import ENVIRONMENT
from tests.support.command import ROOT
from tests.support.servers import free_ports

T = TypeVar("T")

START_S = 90
# What takes a second on a quiet machine may take very long on a busy one; nothing is given up sooner.
PATIENT_S = 150
# Seconds on a quiet machine; a service that waits for something waits for ever.
STOP_S = 150


def until(look: Callable[[], T], within_s: float, what: str | Callable[[], str]) -> T:
    """What `look` gives as soon as it is something; `what` is said where that never comes, as it is by then."""
    within_s = max(within_s, PATIENT_S)
    deadline = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            said = what if isinstance(what, str) else what()
            raise AssertionError(f"Not within {within_s:g} s: {said}.")
        time.sleep(0.25)


@dataclass
class ServiceProcess:
    """A service with a home of its own; what it wrote is in `home/service.log`."""

    home: Path
    environ: Mapping[str, str]
    port: int = field(default_factory=lambda: free_ports(1)[0])
    _process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """All that its processes wrote."""
        return (self.home / "service.log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Of the API process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> ServiceProcess:
        """Start it, and wait until it answers."""
        self.home.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "uvicorn", "app.main:app", "--host", "127.0.0.1", "--port", str(self.port)]
        plain = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        # So long that the answer to a direct run is always how it ended.
        told = {"PYTHONPATH": str(ROOT), "AUTOLOADER_DIRECT_RUN_WAIT_S": str(PATIENT_S)}
        environ = {**plain, **ENVIRONMENT, **told, "PREFECT_HOME": f"{self.home}/prefect-home"}
        with (self.home / "service.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.home, env={**environ, **self.environ}, stdout=log, stderr=log, start_new_session=True
            )
        until(self._answers, START_S, "the service answers")
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/health", trust_env=False)
        except httpx.HTTPError:
            return False
        # Where tokens were made, it answers nobody without one.
        return answer.status_code in {httpx.codes.OK, httpx.codes.UNAUTHORIZED}

    def children(self, *words: str) -> list[psutil.Process]:
        """Processes below it whose command line holds all the words."""
        found = []
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if all(word in " ".join(child.cmdline()) for word in words):
                        found.append(child)
        return found

    def named(self, name: str) -> list[psutil.Process]:
        """Processes below it that the system calls so."""
        found = []
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if child.name() == name:
                        found.append(child)
        return found

    def kill(self) -> None:
        """End the API process as a crash would; what it started is left to itself."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it as a user does, and make sure that nothing of it is left."""
        process, self._process = self._process, None
        if process is None:
            return
        below: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        finally:
            process.kill()
            process.wait()
            for child in below:
                with suppress(psutil.NoSuchProcess):
                    child.kill()

    # --- what a client says -----------------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Any = None, *, status: int | None = None) -> Any:
        """The JSON that it answers."""
        answer = httpx.request(
            method, f"http://127.0.0.1:{self.port}{path}", json=body, timeout=PATIENT_S + 30, trust_env=False
        )
        assert status in (None, answer.status_code), f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def create(self, source: Path, schedule: Mapping[str, str] | None, name: str) -> dict[str, Any]:
        """Make an ingestion of a folder into a table of that name."""
        document: dict[str, Any] = {
            "name": name,
            "source": {"type": "local", "path": str(source), "file_pattern": "*.json"},
            "format": {"type": "json"},
            "destination": {"catalog": "local", "database": "shop", "table": name},
        }
        if schedule is not None:
            document["schedule"] = dict(schedule)
        made: dict[str, Any] = self.call("POST", "/api/v1/ingestions", document, status=201)
        return made

    def ingestion(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """The ingestion as it is now."""
        found: dict[str, Any] = self.call("GET", f"/api/v1/ingestions/{made['id']}", status=200)
        return found

    def runs(self, made: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Its runs, newest first."""
        return list(self.call("GET", f"/api/v1/ingestions/{made['id']}/runs", status=200)["items"])

    def run(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """Run it by hand; the answer."""
        answer: dict[str, Any] = self.call("POST", f"/api/v1/ingestions/{made['id']}/run")
        return answer

    def ended(self, made: Mapping[str, Any], run_id: str, within_s: float = 90) -> dict[str, Any]:
        """A run when it is over."""

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.call("GET", f"/api/v1/ingestions/{made['id']}/runs/{run_id}", status=200)
            return found if found["status"] not in {"queued", "running"} else None

        found = until(look, within_s, f"run {run_id} ends")
        assert found is not None
        return found

    def rows(self, table: str) -> int:
        """How many rows the table has, by the command line."""
        command = [sys.executable, "-m", "app", "table", f"shop.{table}", "--output", "json"]
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "AUTOLOADER_HOME": str(self.home)}
        done = subprocess.run(command, cwd=self.home, env=environ, capture_output=True, check=True)
        return int(json.loads(done.stdout)["rows"])


def land(folder: Path, first: int, count: int, *, records: int = 1000) -> None:
    """Write the scenarios' files `batch_{i}.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        lines = (
            json.dumps({"id": i * records + n, "timestamp": "2026-01-15T12:00:00Z", "user_id": n % 50,
                        "event_type": "click", "value": n * 0.5})
            for n in range(records)
        )  # fmt: skip
        (folder / f".batch_{i}.part").write_text("\n".join(lines) + "\n")
        (folder / f".batch_{i}.part").rename(folder / f"batch_{i}.json")
