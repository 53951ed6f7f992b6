"""Environments of peers: each has its own, from a file of exact versions, made when it is first needed."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.places import HERE, Places

PEERS = HERE / "peers"
SHOWN = ("duckdb", "pyarrow", "pyiceberg", "polars", "dlt", "isal", "obstore")


class PeerUnavailableError(Exception):
    """A peer's environment cannot be made."""


@dataclass(frozen=True)
class Peer:
    """A script, and the environment that it runs in."""

    name: str
    script: str
    environment: str

    def python(self, places: Places) -> Path:
        """The interpreter of its environment, which is made or brought up to date first.

        Raises:
            PeerUnavailableError: That failed; the message says how.
        """
        return environment(places, self.environment)


DUCKDB = Peer("duckdb", "duckdb_copy", "duckdb")
PYARROW = Peer("pyarrow", "pyarrow_append", "pyarrow")
POLARS = Peer("polars", "polars_sink", "polars")
DLT = Peer("dlt", "dlt_pipeline", "dlt")
FLOOR_PYARROW = Peer("floor (pyarrow)", "floor_pyarrow", "floor")
FLOOR_DUCKDB = Peer("floor (duckdb)", "floor_duckdb", "floor")


def environment(places: Places, name: str) -> Path:
    """The interpreter of the environment of that name. Raises as `Peer.python`."""
    requirements = PEERS / f"{name}.txt"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    folder = places.environments / name
    python = folder / "bin" / "python"
    stamp = folder / "requirements.sha256"
    if stamp.exists() and stamp.read_text() == wanted and python.exists():
        return python
    _run(str(places.uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
    _run(str(places.uv), "pip", "install", "--quiet", "--python", str(python), "-r", str(requirements))
    stamp.write_text(wanted)
    return python


def versions(name: str) -> dict[str, str]:
    """The versions of the libraries that matter, by the environment's requirements."""
    found = dict(re.findall(r"^([\w-]+)(?:\[[\w,-]+\])?==([\w.]+)", (PEERS / f"{name}.txt").read_text(), re.MULTILINE))
    return {library: found[library] for library in SHOWN if library in found}


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise PeerUnavailableError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PeerUnavailableError(f"`{Path(command[0]).name} {command[1]}` ended with {done.returncode}: {last}")
