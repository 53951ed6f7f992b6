"""Run a command and measure it whole: wall time, CPU time and peak memory of the process and all it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

# Memory is looked at so often, and never for more than a fiftieth of one core's time.
SAMPLE_EVERY_S = 0.05
SAMPLE_SHARE = 50
KIB = 1024
MB = 1_000_000


@dataclass(frozen=True)
class Command:
    """What to run. `environ` is put over this process's own environment."""

    arguments: Sequence[str]
    cwd: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 900.0


@dataclass(frozen=True)
class Measured:
    """A command that has ended. `status` is its exit status, negative for the signal that ended it."""

    status: int
    wall_s: float
    cpu_s: float
    peak_mb: float
    stdout: str
    stderr: str


def measure(command: Command) -> Measured:
    """Run the command to its end; what is left of its session after that is killed.

    CPU time is that of the process and of every descendant that was waited for, as the system counts it. Memory is the
    sum over the tree, sampled: proportional (PSS), so that pages in common count once, where the system tells it.
    """
    output = command.cwd / ".bench-output"
    output.mkdir(parents=True, exist_ok=True)
    with (output / "stdout").open("w") as stdout, (output / "stderr").open("w") as stderr:
        began = time.monotonic()
        process = subprocess.Popen(
            list(command.arguments),
            cwd=command.cwd,
            env={**os.environ, **command.environ},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        watch = _Watch(process.pid, command.timeout_s)
        watch.start()
        try:
            _, wait_status, usage = os.wait4(process.pid, 0)
            wall_s = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(wait_status)
        finally:
            watch.stop()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # Somebody stopped us, and nobody has waited for it yet.
            process.wait()
    return Measured(
        process.returncode,
        wall_s,
        usage.ru_utime + usage.ru_stime,
        watch.peak_bytes / MB,
        (output / "stdout").read_text(errors="replace"),
        (output / "stderr").read_text(errors="replace"),
    )


class _Watch(threading.Thread):
    """Samples a tree's memory until it is stopped, and kills the tree when its time is over."""

    def __init__(self, pid: int, timeout_s: float) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._pid = pid
        self._deadline = time.monotonic() + timeout_s
        self._ended = threading.Event()

    def run(self) -> None:
        pause_s = SAMPLE_EVERY_S
        while not self._ended.wait(pause_s):
            began = time.thread_time()
            self.peak_bytes = max(self.peak_bytes, tree_memory_bytes(self._pid))
            if time.monotonic() > self._deadline:
                with suppress(ProcessLookupError):
                    os.killpg(self._pid, signal.SIGKILL)
            pause_s = max(SAMPLE_EVERY_S, SAMPLE_SHARE * (time.thread_time() - began))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def tree_memory_bytes(pid: int) -> int:
    """Memory of the process and its descendants now; one that has just ended counts nothing."""
    return sum(process_memory_bytes(one) for one in tree(pid))


def tree(pid: int) -> Iterator[int]:
    """The process and its descendants."""
    yield pid
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - called twenty times a second
            with suppress(OSError):
                for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                    yield from tree(int(child))


def process_memory_bytes(pid: int) -> int:
    """Proportional memory of one process, else what is resident; 0 when it is gone."""
    for file, name in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
                if line.startswith(name):
                    return int(line.split()[1]) * KIB
    return 0
