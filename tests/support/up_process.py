"""`autoloader up` as a user has it, in a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from app.services.prefect_connection import ENVIRONMENT, IMPATIENT
from tests.support.command import ROOT, Done
from tests.support.service_process import until

# On a quiet machine it takes 15 seconds.
READY_S = 240
GONE_S = 150


@dataclass
class UpProcess:
    """One that was started, and what it said."""

    home: Path
    process: subprocess.Popen[str]

    @property
    def log(self) -> str:
        """All that it and its children wrote."""
        return (self.home / "up.log").read_text(errors="replace")

    def ready(self) -> dict[str, Any]:
        """Wait for the one document on standard output."""
        until(
            lambda: (self.home / "up.json").read_text().strip() or self.process.poll() is not None,
            READY_S,
            lambda: self.log,
        )
        text = (self.home / "up.json").read_text()
        assert text, self.log
        found: dict[str, Any] = json.loads(text)
        return found

    def said(self, text: str, *, times: int = 1) -> None:
        """Wait until the log has it so often."""
        until(lambda: self.log.count(text) >= times, READY_S, lambda: f"it says {text!r}\n{self.log}")

    def below(self) -> list[psutil.Process]:
        """Every process below it."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def ingestions(self, *arguments: str, server: str, stdin: str = "") -> Done:
        """A command on ingestions, at its API."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "app", "ingestions", *arguments],
            cwd=self.home,
            env=_environ(self.home) | {"AUTOLOADER_SERVER": server},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=READY_S,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def started_up(home: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> Iterator[UpProcess]:
    """One on free ports, which is ended with everything below it when the block ends."""
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-P", "-m", "app", "up", "--free-ports", "--output", "json", *arguments]
    with (home / "up.log").open("a") as log, (home / "up.json").open("w") as answer:
        process = subprocess.Popen(
            command,
            cwd=home,
            env=_environ(home) | dict(environ or {}),
            stdout=answer,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    running = UpProcess(home, process)
    below: list[psutil.Process] = []
    try:
        yield running
    finally:
        with suppress(psutil.NoSuchProcess):
            below = running.below()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GONE_S)
        process.kill()
        process.wait()
        for one in below:
            with suppress(psutil.NoSuchProcess):
                one.kill()


def _environ(home: Path) -> dict[str, str]:
    plain = {
        name: value for name, value in os.environ.items() if name not in {*ENVIRONMENT, *IMPATIENT, "PREFECT_HOME"}
    }
    return {**plain, "PYTHONPATH": str(ROOT), "AUTOLOADER_HOME": str(home), "AUTOLOADER_SETTLE_S": "0"}
