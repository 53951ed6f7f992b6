"""Runs of the program as processes: started by a fork or anew, watched, killed whole or in part."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.command import ROOT

# A machine under load is slow; a run that takes longer hangs.
LONGEST_RUN_S = 180
# How long children may outlive the process that they work for.
GRACE_S = 20


class Template:
    """The process that runs are forked from; may be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.crash.kill.template"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Else Arrow's allocator starts a thread.
            env=plain_environ() | {"JE_ARROW_MALLOC_CONF": "background_thread:false"},
        )
        self._read()

    def fork(self, order: Mapping[str, Any]) -> int:
        """Become a run; its process id."""
        return int(self._ask(order)["pid"])

    def reap(self, pid: int) -> int:
        """The exit status of a run that has ended, negative for a signal."""
        return int(self._ask({"reap": pid})["status"])

    def close(self) -> None:
        """End it; what it forked goes on."""
        self._process.communicate()

    def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that runs are forked from has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


def plain_environ() -> dict[str, str]:
    """An environment without settings of this machine's user."""
    kept = ("PATH", "TMPDIR", "LANG", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONPATH": str(ROOT)}


@dataclass
class Run:
    """A process of the program at work, the leader of a session of its own."""

    pid: int
    out: Path
    err: Path
    began: float
    _wait: Callable[[], int]
    status: int | None = None
    killed: bool = False
    ended: float = 0.0

    @property
    def duration_s(self) -> float:
        """How long it ran."""
        return self.ended - self.began

    def ends_within(self, seconds: float) -> bool:
        """Wait so long at most; whether it has ended. It is not reaped."""
        with suppress(ProcessLookupError):
            if self.status is None:
                descriptor = os.pidfd_open(self.pid)
                try:
                    poll = select.poll()
                    poll.register(descriptor, select.POLLIN)
                    if not poll.poll(max(0.0, seconds) * 1000):
                        return False
                finally:
                    os.close(descriptor)
        self.ended = self.ended or time.monotonic()
        return True

    def stops(self) -> bool:
        """Wait until it, or a child of it, has stopped itself; False where it ended instead."""
        while not self.ends_within(0.01):
            if any(_state(pid) == "T" for pid in (self.pid, *self._children())):
                return True
        return False

    def wake_until_it_ends(self) -> None:
        """Let it and its children go on, also where it stops itself again."""
        deadline = time.monotonic() + LONGEST_RUN_S
        while time.monotonic() < deadline:
            self.send(signal.SIGCONT, whole=True)
            if self.ends_within(0.1):
                return

    def wait(self) -> int:
        """Its exit status, when it has ended."""
        assert self.ends_within(LONGEST_RUN_S), f"run {self.pid} hangs, see {self.err}"
        if self.status is None:
            self.status = self._wait()
        return self.status

    def send(self, number: signal.Signals, *, whole: bool) -> None:
        """Send a signal to the process, with `whole` to its children too."""
        with suppress(ProcessLookupError):
            if whole:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)
        self.killed = self.killed or number is signal.SIGKILL

    def kill_child(self, dice: random.Random) -> bool:
        """Kill one of its children; False where it has none at the moment."""
        children = self._children()
        if not children:
            return False
        with suppress(ProcessLookupError):
            os.kill(dice.choice(children), signal.SIGKILL)
        return True

    def _children(self) -> list[int]:
        found: list[int] = []
        for thread in Path(f"/proc/{self.pid}/task").glob("*/children"):
            with suppress(OSError):
                found.extend(map(int, thread.read_text().split()))
        return sorted(found)

    @property
    def report(self) -> dict[str, Any]:
        """The JSON document that it printed; empty where it did not come to that."""
        text = self.out.read_text()
        try:
            report: dict[str, Any] = json.loads(text)
        except ValueError:
            return {}
        return report

    @property
    def notes(self) -> str:
        """What it told people."""
        return self.err.read_text(errors="replace")


def _state(pid: int) -> str:
    """The letter for what the process does; "" for one that is gone."""
    with suppress(OSError):
        # The name, in parentheses, may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def processes() -> dict[int, tuple[int, int]]:
    """Every process that is no zombie: id → (parent, session)."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # The name, in parentheses, may hold anything.
                words = (entry / "stat").read_text().rpartition(")")[2].split()
                if words[0] != "Z":
                    found[int(entry.name)] = (int(words[1]), int(words[3]))
    return found


def left_of(sessions: set[int]) -> list[int]:
    """Processes of these sessions that still run when they had time to end."""
    deadline = time.monotonic() + GRACE_S
    while True:
        left = sorted(pid for pid, (_, session) in processes().items() if session in sessions)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


@dataclass
class Starter:
    """Starts runs in one home."""

    template: Template
    home: Path
    environ: dict[str, str]
    outputs: Path
    defect: str = ""
    # On how many a run may work.
    cores: int = 2
    started: int = 0

    def __post_init__(self) -> None:
        self.sessions: set[int] = set()

    def start(self, *arguments: str, fresh: bool = False, stop_at: str = "", lease_s: float | None = None) -> Run:
        """Start the program; `fresh`: a new interpreter, as a user's shell would; it stops itself at `stop_at`.

        Its lease is that of the home's other runs, where it is to have no other.
        """
        self.started += 1
        out, err = (self.outputs / f"{self.started:05}.{kind}" for kind in ("out", "err"))
        for path in (out, err):
            # It may be killed before it makes them.
            path.touch()
        environ = plain_environ() | {"HOME": str(self.home)} | self.environ
        if lease_s is not None:
            environ["AUTOLOADER_LEASE_S"] = str(lease_s)
        if stop_at:
            environ["AUTOLOADER_FAILPOINT"] = f"{stop_at}:pause"
        run = self._anew(arguments, environ, out, err) if fresh else self._forked(arguments, environ, out, err)
        self.sessions.add(run.pid)
        return run

    def _forked(self, arguments: tuple[str, ...], environ: dict[str, str], out: Path, err: Path) -> Run:
        order = {
            "arguments": arguments,
            "environ": environ,
            "cwd": str(self.home),
            "out": str(out),
            "err": str(err),
            "defect": self.defect,
            "cores": self.cores,
        }
        began = time.monotonic()
        pid = self.template.fork(order)
        return Run(pid, out, err, began, lambda: self.template.reap(pid))

    def _anew(self, arguments: tuple[str, ...], environ: dict[str, str], out: Path, err: Path) -> Run:
        with out.open("w") as to, err.open("w") as errors:
            began = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "app", *arguments],
                cwd=self.home,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=to,
                stderr=errors,
                start_new_session=True,
            )
        return Run(process.pid, out, err, began, process.wait)

    def stop_all(self) -> None:
        """Kill whatever still runs."""
        for pid, (_, session) in processes().items():
            if session in self.sessions:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
