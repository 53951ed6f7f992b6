"""The command line as a user has it: a process of its own, its exit status, its JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 600


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.stdout)


@dataclass
class Home:
    """A home of the product (ledger and warehouse), and commands that run in it."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def process(
        self, *arguments: str, environ: Mapping[str, str] | None = None, before: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        """Start a command; `before` is the command line of a program that starts it."""
        return subprocess.Popen(
            [*before, sys.executable, "-P", "-m", "app", *arguments],
            cwd=self.folder,
            # Compiled modules are kept: a suite starts hundreds of processes.
            env=os.environ
            | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}
            | self.environ
            | dict(environ or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, environ: Mapping[str, str] | None = None, before: Sequence[str] = ()) -> Done:
        """Run a command to its end."""
        process = self.process(*arguments, environ=environ, before=before)
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        return Done(process.returncode, stdout, stderr)

    def json(self, *arguments: str, status: int = 0, environ: Mapping[str, str] | None = None) -> Any:
        """Run a command and read its JSON, having checked its exit status."""
        done = self.run(*arguments, "--output", "json", environ=environ)
        assert done.status == status, f"{arguments} ended with {done.status}:\n{done.stdout}\n{done.stderr}"
        return done.json

    def query(self, table: str, sql: str) -> list[dict[str, Any]]:
        """Rows of a query over the table."""
        rows: list[dict[str, Any]] = self.json("table", table, "--sql", sql)
        return rows

    def columns(self, table: str) -> list[str]:
        """Names of the table's data columns."""
        return [c["name"] for c in self.json("table", table)["schema"] if not c["system"]]
