"""Writes the table's data files: rows go in as Arrow tables, Parquet files of a good size come out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import accumulate
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.domain import system_columns
from app.domain.errors import AutoloaderError, WriteFailureError
from app.domain.files import SourceFile
from app.domain.ports import DataFile, DataSink
from app.domain.types import Struct
from app.engines.embedded.arrow_types import arrow_schema
from app.engines.embedded.dictionaries import dictionary_columns

TARGET_FILE_BYTES = 256 * 1024 * 1024
ROW_GROUP_BYTES = 64 * 1024 * 1024
MAX_ROW_GROUP_BYTES = 2 * ROW_GROUP_BYTES
MAX_ROW_GROUP_ROWS = 1024 * 1024
GOOD_CHUNK_ROWS = 16 * 1024
CHUNK_BYTES = 1024 * 1024

Opened = Callable[[str], None]


class TableShape:
    """The Arrow form of a table's rows: the files' own columns as decoded, and ours beside them."""

    def __init__(self, schema: Struct, batch_id: str, repeating: frozenset[str] = frozenset()) -> None:
        """Keep what is the same for every row.

        Args:
            schema: The whole table's schema, with field ids, system columns among the others.
            batch_id: The value of `_batch_id`.
            repeating: Columns of text that come as dictionaries.
        """
        self._batch_id = batch_id
        self._fields = [_encoded(field, repeating) for field in arrow_schema(schema)]
        self.schema = pa.schema(self._fields)

    def complete(self, rows: pa.Table, files: Sequence[tuple[SourceFile, int]]) -> pa.Table:
        """`rows` with the system columns, in the table's order.

        Args:
            rows: The data columns by their names, exact types.
            files: Which file the rows are from, and how many of them, in the order of the rows.
        """
        ours = {
            system_columns.FILE_PATH: lambda: _paths(files),
            system_columns.FILE_MODIFIED_AT: lambda: _times(files),
            system_columns.BATCH_ID: lambda: _constant(self._batch_id, rows.num_rows),
            system_columns.RESCUED_DATA: lambda: pa.nulls(rows.num_rows, pa.string()),
        }
        columns = [
            ours[field.name.lower()]() if system_columns.is_system(field.name) else rows.column(field.name)
            for field in self._fields
        ]
        return pa.Table.from_arrays(columns, schema=self.schema)


def _encoded(field: pa.Field, repeating: frozenset[str]) -> pa.Field:
    # A dictionary, because the same text stands in thousands of rows; in the file it is a plain string column.
    if field.name in repeating or field.name.lower() in {system_columns.FILE_PATH, system_columns.BATCH_ID}:
        return field.with_type(pa.dictionary(pa.int32(), pa.string()))
    return field


def _paths(files: Sequence[tuple[SourceFile, int]]) -> pa.Array:
    numbers = _each(pa.array(range(len(files)), pa.int32()), files)
    return pa.DictionaryArray.from_arrays(numbers, pa.array([file.key for file, _ in files], pa.string()))


def _times(files: Sequence[tuple[SourceFile, int]]) -> pa.Array:
    return _each(pa.array([file.modified_at for file, _ in files], pa.timestamp("us", tz="UTC")), files)


def _each(values: pa.Array, files: Sequence[tuple[SourceFile, int]]) -> pa.Array:
    """A file's value for each of its rows."""
    # Runs may not be empty, and where there is none there is nothing to decode.
    some = [at for at, (_, rows) in enumerate(files) if rows]
    if not some:
        return values.slice(0, 0)
    ends = pa.array(accumulate(files[at][1] for at in some), pa.int32())
    values = values if len(some) == len(values) else values.take(pa.array(some))
    return pc.run_end_decode(pa.RunEndEncodedArray.from_arrays(ends, values))


def _constant(text: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array([text], pa.string()))


class DataFileNames:
    """Gives the data files of one job their names, each once."""

    def __init__(self, prefix: str, number: int) -> None:
        self._stem = f"{prefix}-{number:05d}"
        self._sequence = 0

    def __next__(self) -> str:
        self._sequence += 1
        return f"{self._stem}-{self._sequence:04d}.parquet"


class DataFileWriter:
    """Rolls from data file to data file as they fill. Rows stay in the order in which they come."""

    def __init__(self, sink: DataSink, schema: pa.Schema, names: DataFileNames, opened: Opened) -> None:
        """Make nothing yet: without rows there is no file.

        Args:
            sink: Where files go.
            schema: What every table that comes has.
            names: Shared with the other writers of a job.
            opened: Told the path of each file as soon as it is there.
        """
        self._sink = sink
        self._schema = schema
        self._names = names
        self._opened = opened
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0
        self._waiting_rows = 0
        self._file: _OpenFile | None = None
        self._done: list[DataFile] = []

    def write(self, table: pa.Table) -> None:
        """Add rows.

        Raises:
            WriteFailureError: The sink does not take them.
        """
        if not table.num_rows:
            return
        self._waiting.append(table)
        self._waiting_bytes += table.nbytes
        self._waiting_rows += table.num_rows
        if self._waiting_bytes >= ROW_GROUP_BYTES or self._waiting_rows >= MAX_ROW_GROUP_ROWS:
            self._encode()

    def finish(self) -> tuple[DataFile, ...]:
        """Close the last file; all files that were written.

        Raises:
            WriteFailureError: The sink does not take the rest.
        """
        self._encode()
        self._roll()
        return tuple(self._done)

    def abandon(self) -> None:
        """Leave nothing of what was written.

        Raises:
            WriteFailureError: A file cannot be removed.
        """
        self._waiting = []
        with _sink_errors("unfinished data files"):
            if self._file is not None:
                self._file.abandon()
                self._sink.delete(self._file.path)
                self._file = None
            for data_file in self._done:
                self._sink.delete(data_file.path)
        self._done = []

    def _encode(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).unify_dictionaries()
        small = self._waiting_bytes < CHUNK_BYTES * len(self._waiting)
        if small and table.num_rows < GOOD_CHUNK_ROWS * table.column(0).num_chunks:
            # Thousands of little chunks cost more to encode than to copy together first; of large ones the copy would
            # only be memory.
            table = table.combine_chunks()
        group_rows = max(1, min(MAX_ROW_GROUP_ROWS, table.num_rows * MAX_ROW_GROUP_BYTES // max(1, table.nbytes)))
        self._waiting, self._waiting_bytes, self._waiting_rows = [], 0, 0
        if self._file is None:
            self._file = self._open_next(dictionary_columns(table, group_rows))
        with _sink_errors(self._file.path):
            self._file.write(table, group_rows)
        if self._file.size_bytes >= TARGET_FILE_BYTES:
            self._roll()

    def _open_next(self, dictionaries: list[str]) -> _OpenFile:
        name = next(self._names)
        with _sink_errors(name):
            path, context = self._sink.create(name)
            self._opened(path)
        with _sink_errors(path):
            return _OpenFile(path, context, self._schema, dictionaries)

    def _roll(self) -> None:
        if self._file is not None:
            with _sink_errors(self._file.path):
                self._done.append(self._file.close())
            self._file = None


@contextlib.contextmanager
def _sink_errors(what: str) -> Iterator[None]:
    try:
        yield
    except WriteFailureError:
        raise
    except (OSError, AutoloaderError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise WriteFailureError(f"{what} could not be written: {reason}.") from error


class _AbandonedError(Exception):
    """Tells a sink's file that it shall not become whole."""


class _OpenFile:
    """A data file that is being written."""

    def __init__(
        self, path: str, context: AbstractContextManager[BinaryIO], schema: pa.Schema, dictionaries: list[str]
    ) -> None:
        self.path = path
        self._rows = 0
        self._context = context
        self._stream = _Counted(context.__enter__())
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._stream, mode="w"),
            schema,
            compression="zstd",
            use_dictionary=dictionaries,
            # The Arrow schema would tell readers of our dictionaries; the Parquet schema with its ids is the truth.
            store_schema=False,
        )

    @property
    def size_bytes(self) -> int:
        return self._stream.written

    def write(self, table: pa.Table, group_rows: int) -> None:
        self._writer.write_table(table, row_group_size=group_rows)
        self._rows += table.num_rows

    def close(self) -> DataFile:
        self._writer.close()
        self._context.__exit__(None, None, None)
        return DataFile(self.path, self._rows, self._stream.written)

    def abandon(self) -> None:
        error = _AbandonedError()
        self._stream.muted = True
        self._writer.close()
        with contextlib.suppress(_AbandonedError):
            self._context.__exit__(_AbandonedError, error, None)


class _Counted:
    """What pyarrow writes to: counts bytes; muted, it takes the footer of an abandoned file and drops it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.written = 0
        self.muted = False
        self.closed = False

    def write(self, data: object) -> int:
        size = memoryview(cast("bytes", data)).nbytes
        if not self.muted:
            self._stream.write(cast("bytes", data))
            self.written += size
        return size

    def tell(self) -> int:
        return self.written

    def flush(self) -> None:
        """Nothing to do: the sink flushes when it closes."""

    def close(self) -> None:
        """Nothing to do: the sink's context closes the stream."""
        self.closed = True
