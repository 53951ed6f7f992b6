"""A worker's process before it serves: what it logs, and that it can be stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.command import ROOT

SECRET = "a-secret-of-many-letters"
LOGGED = """
import logging, sys
from app.prefect.flows.run_ingestion import own_log
from app.prefect.worker.forkserver import prepare
from app.telemetry import configure_logging

prepare()
redactor = configure_logging(verbose=True, alone=True) if sys.argv[1] == "worker" else own_log()
redactor.learn([sys.argv[2]])
logging.getLogger("some.library").warning("of a library: %s", sys.argv[2])
logging.getLogger("prefect.flow_runs.worker").error("of Prefect's: %s", sys.argv[2])
"""


def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    plain = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    prefect = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"}
    return {**plain, **prefect, "AUTOLOADER_HOME": str(tmp_path), **more}


def test_no_line_of_a_library_holds_a_secret_whatever_the_library_has_set_up(tmp_path: Path) -> None:
    for who in ("worker", "run"):
        done = subprocess.run(
            [sys.executable, "-P", "-c", LOGGED, who, SECRET],
            env=environ(tmp_path),
            capture_output=True,
            text=True,
            timeout=90,
            check=True,
        )
        assert SECRET not in done.stderr, (who, done.stderr)
        assert "of a library: ***" in done.stderr, (who, done.stderr)
        assert "of Prefect's: ***" in done.stderr, (who, done.stderr)


@contextmanager
def worker(tmp_path: Path, database: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "app.prefect.worker"],
        env=environ(tmp_path, DATABASE_URL=database),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def silent_database(listener: socket.socket) -> str:
    """One that a worker waits for, and is still waiting for when a test that stood still goes on."""
    port = listener.getsockname()[1]
    return f"postgresql://me:{SECRET}@127.0.0.1:{port}/db?connect_timeout=600"


def test_it_can_be_stopped_while_its_database_says_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, worker(tmp_path, silent_database(silent)) as process:
        # It is there, has everything imported, and waits for what never comes.
        silent.settimeout(150)
        connection, _ = silent.accept()
        with connection:
            connection.settimeout(150)
            assert connection.recv(1)
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=150)
    assert process.returncode == 128 + signal.SIGTERM, out
    assert SECRET not in out


def test_one_that_cannot_serve_says_so_alone(tmp_path: Path) -> None:
    with worker(tmp_path, f"sqlite:///{tmp_path}/none.db") as process:
        out, _ = process.communicate(timeout=150)
    assert process.returncode == 1
    # What was forked from it has the same stderr, and ends without a word.
    assert out.startswith("Error (wrong_database): There is no database at")
    assert len(out.splitlines()) == 2, out


def test_it_can_be_stopped_while_it_imports(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        worker(tmp_path, silent_database(silent)) as process,
    ):
        time.sleep(1.0)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=150)
    # Before its first line has run the system ends it; after that it ends by itself, and begins nothing.
    assert process.returncode in {128 + signal.SIGTERM, -signal.SIGTERM}, out
    assert "Traceback" not in out
