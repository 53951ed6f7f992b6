"""A job's reader and sink whose work is steps of the run, in a child process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from app.domain.failpoints import Failpoints
from app.domain.files import SourceFile
from app.domain.ports import DataSink, SourceReader
from app.engines.embedded.messages import CutJob, InferJob, Job, RewriteJob, ShowJob


def in_steps(job: Job, failpoints: Failpoints) -> Job:
    """The same job, known to the failpoints."""
    if isinstance(job, InferJob | CutJob | ShowJob):
        return replace(job, reading=replace(job.reading, reader=SteppedReader(job.reading.reader, failpoints)))
    if isinstance(job, RewriteJob):
        return replace(job, order=replace(job.order, sink=SteppedSink(job.order.sink, failpoints)))
    reading = replace(job.order.reading, reader=SteppedReader(job.order.reading.reader, failpoints))
    return replace(job, order=replace(job.order, reading=reading, sink=SteppedSink(job.order.sink, failpoints)))


@dataclass(frozen=True)
class SteppedReader:
    """Reads as `inner` does."""

    inner: SourceReader
    failpoints: Failpoints

    def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
        """As the port says."""
        with self.failpoints.step("file_read"):
            return self.inner.read(file, start, end)

    def stream(self, file: SourceFile, chunk_bytes: int) -> Iterator[bytes]:
        """As the port says."""
        with self.failpoints.step("file_read"):
            yield from self.inner.stream(file, chunk_bytes)


@dataclass(frozen=True)
class SteppedSink:
    """Makes files as `inner` does."""

    inner: DataSink
    failpoints: Failpoints

    def create(self, name: str) -> tuple[str, AbstractContextManager[BinaryIO]]:
        """As the port says."""
        path, context = self.inner.create(name)
        return path, self._file(context)

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """As the port says."""
        return self.inner.open(path)

    def delete(self, path: str) -> None:
        """As the port says."""
        self.inner.delete(path)

    @contextmanager
    def _file(self, context: AbstractContextManager[BinaryIO]) -> Iterator[BinaryIO]:
        self.failpoints.before("data_file_made")
        with context as stream:
            self.failpoints.after("data_file_made")
            yield cast("BinaryIO", _SteppedStream(stream, self.failpoints))
            self.failpoints.before("data_file_closed")
        self.failpoints.after("data_file_closed")


class _SteppedStream:
    """What a data file is written to."""

    def __init__(self, inner: BinaryIO, failpoints: Failpoints) -> None:
        self._inner = inner
        self._failpoints = failpoints

    def write(self, data: bytes) -> int:
        with self._failpoints.step("data_file_written"):
            return self._inner.write(data)
