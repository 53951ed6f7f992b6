"""Real processes of the command line at a tenth of their price: forked from a process that has imported everything.

A `Template` is a process with the product in its memory and nothing at work. Each `start` forks one run from it, with
its own working folder, environment and output, and a process id of its own: it can be killed, stopped and continued
like any other. Between the two stands a keeper, the run's parent, which tells every change of its state and takes it
along when the template ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120.0
_MOST_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1


class Template:
    """A process to fork runs from. One thread may use it at a time."""

    def __init__(self) -> None:
        self._control, far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            # Arrow's allocator has a thread of its own, and a process of several threads is not to be forked.
            "JE_ARROW_MALLOC_CONF": "background_thread:false",
        }
        with far_end:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tests.support.forked", str(far_end.fileno())],
                env=environ,
                pass_fds=[far_end.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def start(self, argv: list[str], environ: Mapping[str, str], *, cwd: Path) -> Run:
        """Fork a run of the command line.

        Args:
            argv: The arguments, without the program's name.
            environ: The whole environment.
            cwd: The working folder.
        """
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stdout, stderr = tempfile.TemporaryFile("w+b"), tempfile.TemporaryFile("w+b")  # noqa: SIM115 - the run's
        with far:
            order = json.dumps({"argv": argv, "environ": dict(environ), "cwd": str(cwd)}).encode()
            assert len(order) < _MOST_BYTES
            socket.send_fds(self._control, [order], [stdout.fileno(), stderr.fileno(), far.fileno()])
        run = Run(near, stdout, stderr)
        run.await_start()
        return run

    def close(self) -> None:
        """End the template, and with it every run that is still there."""
        self._control.close()
        self._process.wait(TIMEOUT_S)


@dataclass
class Run:
    """A run that was started. `returncode` is None while it is there, and negative where a signal ended it."""

    _states: socket.socket
    _stdout: Any
    _stderr: Any
    pid: int = 0
    returncode: int | None = None
    stopped: bool = False
    _said: dict[str, str] = field(default_factory=dict)

    def await_start(self) -> None:
        """Wait until it has its process id."""
        self._await(lambda: self.pid > 0, "did not start", TIMEOUT_S)

    def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """Wait for its end; its exit status, or the negative number of the signal that ended it."""
        self._await(lambda: self.returncode is not None, "did not end", timeout_s)
        assert self.returncode is not None
        return self.returncode

    def wait_until_stopped(self, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until it stands still (SIGSTOP); one that ends instead fails the test."""
        self._await(lambda: self.stopped or self.returncode is not None, "did not stop", timeout_s)
        assert self.stopped, f"ended with {self.returncode} instead of standing still:\n{self.stdout}\n{self.stderr}"

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; it must not have ended."""
        assert self.returncode is None
        os.kill(self.pid, number)

    def go_on(self) -> None:
        """Let one that stands still go on (SIGCONT)."""
        self.stopped = False
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, if it is still there, and wait until it is gone."""
        if self.returncode is None:
            # It may end by itself in this moment; nobody else has its id before its keeper has told.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()

    @property
    def stdout(self) -> str:
        """What it has written so far to its standard output."""
        return _content(self._stdout)

    @property
    def stderr(self) -> str:
        """What it has written so far to its standard error."""
        return _content(self._stderr)

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.stdout)

    def close(self) -> None:
        """Kill it and let go of its files."""
        self.kill()
        for file in (self._states, self._stdout, self._stderr):
            file.close()

    def _await(self, is_so: Callable[[], bool], complaint: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_so():
            ready, _, _ = select.select([self._states], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{complaint} within {timeout_s:g} s:\n{self.stdout}\n{self.stderr}"
            told = self._states.recv(64)
            assert told, f"{complaint}: its keeper is gone\n{self.stderr}"
            self._hear(told.decode())

    def _hear(self, told: str) -> None:
        what, _, number = told.partition(" ")
        if what == "pid":
            self.pid = int(number)
        elif os.WIFSTOPPED(int(number)):
            self.stopped = True
        elif not os.WIFCONTINUED(int(number)):
            self.returncode = os.waitstatus_to_exitcode(int(number))


def _content(file: Any) -> str:
    # Not moved: the run writes at the same position.
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode(errors="replace")


@contextlib.contextmanager
def template() -> Iterator[Template]:
    """A template that ends with the block."""
    made = Template()
    try:
        yield made
    finally:
        made.close()


# --- inside the template ----------------------------------------------------------------------------------------------


def _import_everything() -> None:
    """Import what a load needs, so that no run has to.

    Not Arrow: its object stores hang in a process that was forked behind the import.
    """
    import alembic.command
    import pyiceberg.catalog.rest
    import pyiceberg.catalog.sql

    import app.cli.progress
    import app.cli.rebuilding
    import app.destinations.configured
    import app.engines.embedded.engine
    import app.persistence.ledger
    import app.sources.local
    import app.sources.sorting
    import app.wiring

    del alembic, app, pyiceberg


def _serve(control: socket.socket) -> None:
    """Fork a run for every order that comes; returns in the run, and ends the process where there is no more to do."""
    # Keepers are reaped by the kernel.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        order, fds, _, _ = socket.recv_fds(control, _MOST_BYTES, 3)
        if not order:
            os._exit(0)
        assert len(list(Path("/proc/self/task").iterdir())) == 1, "A template with threads is not to be forked."
        if os.fork() == 0:
            control.close()
            _keep(json.loads(order), *fds)
            return
        for fd in fds:
            os.close(fd)


def _keep(order: dict[str, Any], stdout: int, stderr: int, states: int) -> None:
    """Fork the run, in which this returns; the keeper itself ends after it."""
    _end_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        _end_with_parent()
        os.close(states)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.close(stdout)
        os.close(stderr)
        # One core, so that the engine makes do with one child.
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[os.getpid() % len(os.sched_getaffinity(0))]})
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["environ"])
        sys.argv = ["autoloader", *order["argv"]]
        return
    _tell_states(pid, states)


def _tell_states(pid: int, states: int) -> NoReturn:
    os.write(states, f"pid {pid}".encode())
    while True:
        _, status = os.waitpid(pid, os.WUNTRACED | os.WCONTINUED)
        # Whoever started the run may have let go of it.
        with contextlib.suppress(OSError):
            os.write(states, f"status {status}".encode())
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            os._exit(0)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _main() -> None:
    _import_everything()
    # A run's collector, which goes through everything when it ends, need not go through what was here before.
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from app.cli import main

    main()


if __name__ == "__main__":
    _main()
