"""Sort a listing by key on disk, in bounded memory."""

from __future__ import annotations

import gzip
import heapq
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import IO, Literal, TypeAlias

from app.domain.files import SourceFile

# About 30 MB of files at a time.
RUN_FILES = 100_000
PASSED_KEYS = 10_000
# Stands between keys: half a surrogate pair, which no key holds.
_BETWEEN = "\ud800"
_BLOCK_BYTES = 64 * 1024

# What is merged: what was passed on has no file, and comes first.
_Ranked: TypeAlias = tuple[bytes, int, SourceFile | None]


class DiskSorter:
    """Keeps the promise of `Sorter` with sorted runs in a temporary folder.

    A listing of fewer than `run_files` files never touches the disk.
    """

    def __init__(self, *, folder: Path | None = None, run_files: int = RUN_FILES) -> None:
        """Make no file yet.

        Args:
            folder: Where the temporary folder is made; None: where the system keeps such folders.
            run_files: How many files may be in memory at once, above zero.
        """
        self._parent = folder
        self._run_files = run_files
        self._passed_keys = min(run_files, PASSED_KEYS)
        self._passed: list[str] = []
        self._open = ExitStack()
        self._folder: Path | None = None
        self._passed_log: gzip.GzipFile | None = None

    def remember(self, key: str) -> None:
        """Note that a file of this key was passed on; called in rising order of keys."""
        passed = self._passed
        passed.append(key)
        if len(passed) >= self._passed_keys:
            self._spill_passed()

    def sort(self, rest: Iterator[SourceFile]) -> Iterator[SourceFile]:
        """Yield `rest` in key order, each key once, and none that was remembered."""
        streams: list[Iterator[_Ranked]] = [((key.encode(), 0, None) for key in self._all_passed())]
        while chunk := sorted(itertools.islice(rest, self._run_files), key=lambda file: file.order):
            full = len(chunk) == self._run_files
            streams.append(_ranked(self._spill(chunk, f"run-{len(streams)}") if full else chunk))
        last = b""
        # What was passed on comes first among equals, and so hides the rest's files of the same key.
        for order, _, file in heapq.merge(*streams, key=itemgetter(0, 1)):
            if file is not None and order != last:
                yield file
            last = order

    def close(self) -> None:
        """Remove everything that was kept. Idempotent."""
        self._open.close()
        self._passed.clear()
        self._passed_log = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _path(self, name: str) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="autoloader-sort-", dir=self._parent))
        return self._folder / name

    def _spill_passed(self) -> None:
        if self._passed_log is None:
            # Kept open: a listing that stays in order writes one file, well compressed, that nobody reads.
            self._passed_log = self._open.enter_context(gzip.GzipFile(self._path("passed"), "wb", compresslevel=1))
        # Joined and not one by one: in a listing of millions, in order, this is done for each of them in vain.
        self._passed_log.write(_BETWEEN.join([*self._passed, ""]).encode("utf-8", "surrogatepass"))
        self._passed.clear()

    def _all_passed(self) -> Iterator[str]:
        if self._passed_log is not None:
            self._passed_log.close()
            between, rest = _BETWEEN.encode("utf-8", "surrogatepass"), b""
            log = self._open.enter_context(gzip.GzipFile(self._path("passed")))
            while block := log.read(_BLOCK_BYTES):
                *keys, rest = (rest + block).split(between)
                yield from (key.decode() for key in keys)
        yield from self._passed

    def _spill(self, chunk: Iterable[SourceFile], name: str) -> Iterator[SourceFile]:
        with _open(self._path(name), "wt") as log:
            _write(log, chunk)
        return self._read(self._path(name))

    def _read(self, path: Path) -> Iterator[SourceFile]:
        log = self._open.enter_context(_open(path, "rt"))
        for line in log:
            key, version, size_bytes, modified_at = json.loads(line)
            yield SourceFile(key, version, size_bytes, datetime.fromisoformat(modified_at))


def _ranked(files: Iterable[SourceFile]) -> Iterator[_Ranked]:
    return ((file.order, 1, file) for file in files)


def _open(path: Path, mode: Literal["rt", "wt"]) -> IO[str]:
    return gzip.open(path, mode, compresslevel=1, encoding="ascii")


def _write(log: IO[str], files: Iterable[SourceFile]) -> None:
    for file in files:
        log.write(json.dumps([file.key, file.version, file.size_bytes, file.modified_at.isoformat()]) + "\n")
