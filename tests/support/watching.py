"""A watch as a user has it: a process that stays, and one line of JSON for each of its runs."""

from __future__ import annotations

import json
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from subprocess import Popen
from typing import Any

from tests.support.command import Home

# Long enough for a machine that does many other things.
TIMEOUT_S = 150


@dataclass
class Watching:
    """A watch that runs."""

    process: Popen[str]
    lines: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    notes: list[str] = field(default_factory=list)

    def next_run(self) -> dict[str, Any]:
        """The document of the next run that did something."""
        line = self.lines.get(timeout=TIMEOUT_S)
        assert line, f"the watch has ended: {''.join(self.notes)}"
        document: dict[str, Any] = json.loads(line)
        return document

    def loaded(self, files: int) -> list[dict[str, Any]]:
        """The documents of the next runs, until they have loaded so many files."""
        runs: list[dict[str, Any]] = []
        while sum(run["files"]["loaded"] for run in runs) < files:
            runs.append(self.next_run())
        return runs

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)

    def rest(self) -> list[str]:
        """The lines that nobody asked for, of a watch that has ended."""
        left = []
        while line := self.lines.get(timeout=TIMEOUT_S):
            left.append(line)
        return left


@contextmanager
def watching(home: Home, *arguments: str, environ: dict[str, str] | None = None) -> Iterator[Watching]:
    """`autoloader load … --watch --output json`; killed at the end if it still runs."""
    process = home.process("load", *arguments, "--watch", "--output", "json", environ=environ)
    one = Watching(process)
    threads = [threading.Thread(target=_read, args=(one,)), threading.Thread(target=_read_notes, args=(one,))]
    for thread in threads:
        thread.start()
    try:
        yield one
    finally:
        process.kill()
        process.wait()
        for thread in threads:
            thread.join()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def _read(one: Watching) -> None:
    assert one.process.stdout is not None
    for line in one.process.stdout:
        one.lines.put(line)
    one.lines.put("")


def _read_notes(one: Watching) -> None:
    assert one.process.stderr is not None
    one.notes.extend(one.process.stderr)
