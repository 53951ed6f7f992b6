"""Files in a folder as a source's files: for engines that read in other processes."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from app.domain.errors import Category, FileError
from app.domain.files import SourceFile

MODIFIED_AT = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)


def key_of(path: Path) -> str:
    """The key of a local file."""
    return f"file://{path}"


def version_of(data: bytes) -> str:
    """A version that changes with the content."""
    return hashlib.sha256(data).hexdigest()[:16]


def put(folder: Path, name: str, data: bytes | str) -> SourceFile:
    """Write a file and list it."""
    content = data.encode() if isinstance(data, str) else data
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return SourceFile(key_of(path), version_of(content), len(content), MODIFIED_AT)


def parquet_bytes(table: pa.Table, **options: object) -> bytes:
    """`table` as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


@dataclass(frozen=True)
class FolderReader:
    """Keeps the port's promise: bytes of exactly the version that was listed, or an error.

    What the names of files contain makes trouble: `kill-once` and `kill-always` end the process that reads, `hang`
    keeps it waiting, `oserror` fails as a disk does.
    """

    def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
        return self._content(file)[start:end]

    def stream(self, file: SourceFile, chunk_bytes: int) -> Iterator[bytes]:
        data = self._content(file)
        for start in range(0, len(data), chunk_bytes):
            yield data[start : start + chunk_bytes]

    def _content(self, file: SourceFile) -> bytes:
        path = Path(file.key.removeprefix("file://"))
        _make_trouble(path)
        data = path.read_bytes() if path.exists() else b""
        if version_of(data) != file.version:
            raise FileError(Category.PATH_NOT_FOUND, f"{path.name} is gone or changed.")
        return data


def _make_trouble(path: Path) -> None:
    once = path.with_name(path.name + ".done")
    if "kill-always" in path.name or ("kill-once" in path.name and not once.exists()):
        once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if "hang" in path.name:
        time.sleep(600)
    if "oserror" in path.name:
        raise OSError("the disk is on fire")
