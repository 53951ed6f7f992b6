"""Progress of a load: bars on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Self

from app.cli.render import count, size

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress

LINE_EVERY_S = 5.0
# Share of the bytes that must be done before the rest is estimated.
LEAST_SHARE = 0.05


class Lines:
    """Tells a run's progress in plain lines, at most one in a few seconds."""

    def __init__(self, every_s: float = LINE_EVERY_S) -> None:
        self._every_s = every_s
        self._lock = threading.Lock()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Another run begins: what was done before does not count for its rate."""
        with self._lock:
            self._began = self._said = time.monotonic()
            self._total_files = self._files = self._rows = self._bytes = self._total_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing to end."""

    def note(self, text: str) -> None:
        """A sentence on a line of its own."""
        sys.stderr.write(text + "\n")

    def batch_begins(self, *, files: int, stored_bytes: int) -> None:
        """So much more is to do."""
        with self._lock:
            self._total_files += files
            self._total_bytes += stored_bytes

    def progress(self, *, files: int = 0, rows: int = 0, stored_bytes: int = 0) -> None:
        """So much more is done."""
        with self._lock:
            self._files += files
            self._rows += rows
            self._bytes += stored_bytes
            now = time.monotonic()
            if now - self._said < self._every_s:
                return
            self._said = now
            line = self._line(now)
        sys.stderr.write(line + "\n")

    def _line(self, now: float) -> str:
        rate = self._bytes / max(now - self._began, 0.001)
        left_s = (self._total_bytes - self._bytes) / rate if rate else 0.0
        line = f"{self._files:,} of {count(self._total_files, 'file')}, {count(self._rows, 'row')}, {size(rate)}/s"
        # Before some of it is done the rate is no promise.
        known = self._bytes >= self._total_bytes * LEAST_SHARE
        return f"{line}, {max(left_s, 0):.0f} s left" if known else line

    def batch_ends(self, *, files: int, rows: int, failed: int) -> None:
        """A batch is in the table."""


class Bars:
    """Tells a run's progress in a bar on the terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._bars: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[files]:,} of {task.fields[total_files]:,} files, {task.fields[rows]:,} rows"),
            BarColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            transient=True,
        )
        self._task = self._bars.add_task("load", total=0, files=0, total_files=0, rows=0)
        self._lock = threading.Lock()
        self._files = self._rows = self._total_files = self._total_bytes = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    def note(self, text: str) -> None:
        """A sentence above the bar."""
        self._bars.console.print(text, highlight=False, markup=False)

    def batch_begins(self, *, files: int, stored_bytes: int) -> None:
        """So much more is to do."""
        with self._lock:
            self._total_files += files
            self._total_bytes += stored_bytes
            self._bars.update(self._task, total=self._total_bytes, total_files=self._total_files)

    def progress(self, *, files: int = 0, rows: int = 0, stored_bytes: int = 0) -> None:
        """So much more is done."""
        with self._lock:
            self._files += files
            self._rows += rows
            self._bars.update(self._task, advance=stored_bytes, files=self._files, rows=self._rows)

    def batch_ends(self, *, files: int, rows: int, failed: int) -> None:
        """A batch is in the table."""


def watcher() -> Lines | Bars:
    """The way to tell progress that fits where stderr goes."""
    return Bars() if sys.stderr.isatty() else Lines()
