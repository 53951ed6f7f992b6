"""A worker as a user starts it: `autoloader worker` in a process of its own, with all that it forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from app.prefect.worker.names import FORK_SERVER
from app.services.prefect_connection import ENVIRONMENT
from tests.support.command import ROOT
from tests.support.service_process import until

READY_S = 150
COMMAND = ("-m", "app", "worker")


@dataclass
class WorkerProcess:
    """A worker; `folder` is where it runs and keeps its log."""

    folder: Path
    environ: Mapping[str, str]
    options: Sequence[str] = ()
    command: Sequence[str] = COMMAND
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> str:
        """All that it and its runs wrote to stderr."""
        return (self.folder / "worker.log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Of the worker itself."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, ready: bool = True) -> WorkerProcess:
        """Start it, and wait until it can fork."""
        self.folder.mkdir(parents=True, exist_ok=True)
        plain = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        environ = {**plain, **ENVIRONMENT, "PYTHONPATH": str(ROOT), "PREFECT_HOME": f"{self.folder}/prefect-home"}
        with (self.folder / "worker.log").open("ab") as log, (self.folder / "worker.out").open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, *self.command, *self.options],
                cwd=self.folder,
                env={**environ, **self.environ},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )
        if ready:
            until(self._is_ready, READY_S, lambda: f"the worker is ready: {self.log}")
        return self

    def _is_ready(self) -> bool:
        assert self.is_running, self.log
        # The one that its runs are forked from is single until it is ready, and says nothing: so does a run of its own.
        return "worker_is_ready" in self.log

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def fork_server(self) -> psutil.Process:
        """The process that its runs are forked from."""
        found = [one for one in psutil.Process(self.pid).children() if one.name() == FORK_SERVER]
        (server,) = found
        return server

    def runs(self) -> list[psutil.Process]:
        """The processes of its runs."""
        with suppress(psutil.NoSuchProcess, ValueError):
            return self.fork_server.children()
        return []

    def below(self) -> list[psutil.Process]:
        """Every process that it and what it started has started."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def ended(self, within_s: float = 150) -> int:
        """Its exit status, when it has ended."""
        assert self._process is not None
        return self._process.wait(within_s)

    def stop(self) -> None:
        """Make sure that nothing of it is left."""
        below = self.below() if self.is_running else []
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for child in below:
            with suppress(psutil.NoSuchProcess):
                child.kill()
