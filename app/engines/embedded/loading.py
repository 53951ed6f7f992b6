"""Carries out a write job inside a child process: stored bytes in, data files out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from app.domain import system_columns
from app.domain.errors import FileError, FileFailure
from app.domain.files import LoadedFile, SourceFile
from app.domain.formats import FileFormat
from app.domain.ports import DataFile, WriteResult
from app.domain.types import EMPTY, Struct, join_structs
from app.engines.embedded.codecs import decompress, is_plain
from app.engines.embedded.decoding import Decoded, DriftError, TextDecoder
from app.engines.embedded.drifting import drift_failure
from app.engines.embedded.encode import DataFileNames, DataFileWriter, TableShape
from app.engines.embedded.messages import Beat, Opened, Reads, Tell, WriteJob
from app.engines.embedded.parquet import ParquetSource, StoredFile
from app.engines.embedded.stored import read_ahead, stream_stored
from app.engines.embedded.text import text_decoder

SMALL_FILE_BYTES = 8 * 1024 * 1024
GROUP_BYTES = 24 * 1024 * 1024
# A small file that decompresses to more is treated like a large one.
LARGE_BYTES = 32 * 1024 * 1024


def write(job: WriteJob, tell: Tell) -> WriteResult:
    """Write the rows of the job's files.

    Raises:
        WriteFailureError: The sink takes no files; what this job wrote may still be there.
        MemoryError: The process may not have so much.
    """
    return _Loading(job, tell).run()


def write_alone(
    writer: DataFileWriter, shape: TableShape, file: SourceFile, tables: Iterator[pa.Table], beat: Callable[[int], None]
) -> tuple[tuple[DataFile, ...], int]:
    """Write rows of one file into data files of their own: all of them or nothing.

    Args:
        writer: A new one.
        shape: The table's.
        file: Which file they are of.
        tables: The rows.
        beat: Called after each table.

    Returns:
        The data files, and how many rows are in them.

    Raises:
        FileError, DriftError: What `tables` raised; nothing is left that was written.
        WriteFailureError: The sink takes no files.
    """
    rows = 0
    try:
        for table in tables:
            writer.write(shape.complete(table, ((file, table.num_rows),)))
            rows += table.num_rows
            beat(0)
    except (FileError, DriftError):
        writer.abandon()
        raise
    return writer.finish(), rows


@dataclass
class _Account:
    """What became of the files so far."""

    loaded: list[LoadedFile] = field(default_factory=list)
    failed: list[FileFailure] = field(default_factory=list)
    drifted: list[SourceFile] = field(default_factory=list)
    drift: Struct = EMPTY
    data_files: list[DataFile] = field(default_factory=list)


class _Loading:
    def __init__(self, job: WriteJob, tell: Tell) -> None:
        self._job = job
        self._order = job.order
        self._tell = tell
        self._reader = job.order.reading.reader
        self._options = job.order.reading.options
        self._columns = system_columns.data_columns(job.order.schema)
        self._shape = TableShape(job.order.schema, job.order.batch_id)
        self._names = DataFileNames(job.order.name_prefix, job.number)
        self._shared = self._writer(self._shape)
        self._account = _Account()
        self._index = {file.key: i for i, file in enumerate(job.order.files)}

    def run(self) -> WriteResult:
        if self._options.format is FileFormat.PARQUET:
            self._run_parquet()
        else:
            self._run_text(text_decoder(self._options, self._columns))
        self._account.data_files.extend(self._shared.finish())
        account = self._account
        return WriteResult(
            tuple(account.data_files),
            tuple(account.loaded),
            tuple(account.failed),
            tuple(account.drifted),
            account.drift,
        )

    def _writer(self, shape: TableShape) -> DataFileWriter:
        return DataFileWriter(self._order.sink, shape.schema, self._names, lambda path: self._tell(Opened(path)))

    def _small_and_large(self) -> tuple[list[SourceFile], list[SourceFile]]:
        # What killed a child before is read piece by piece, whatever its size.
        limit = 0 if self._job.careful else SMALL_FILE_BYTES
        small = [file for file in self._order.files if file.size_bytes <= limit]
        large = [file for file in self._order.files if file.size_bytes > limit]
        return small, large

    def _reads(self, first: SourceFile, last: SourceFile | None = None) -> None:
        self._tell(Reads(self._index[first.key], self._index[(last or first).key] + 1))

    def _beat(self, stored_bytes: int) -> None:
        self._tell(Beat(stored_bytes=stored_bytes))

    # --- what became of a file ---------------------------------------------------------------------------------

    def _loaded(self, file: SourceFile, rows: int) -> None:
        self._account.loaded.append(LoadedFile(file.key, file.version, rows, file.size_bytes))
        self._tell(Beat(files=1, rows=rows))

    def _failed(self, file: SourceFile, error: FileError) -> None:
        self._account.failed.append(FileFailure.of(file.key, file.version, error))
        self._tell(Beat(files=1))

    def _drifted(self, file: SourceFile, observed: Struct) -> None:
        failure = drift_failure(self._columns, observed, report_drift=self._order.report_drift)
        if failure is not None:
            self._failed(file, failure)
        else:
            self._account.drifted.append(file)
            self._account.drift = join_structs(self._account.drift, observed)

    # --- text --------------------------------------------------------------------------------------------------

    def _run_text(self, decoder: TextDecoder) -> None:
        small, large = self._small_and_large()
        group: list[tuple[SourceFile, bytes]] = []
        held = 0
        for file, stored in read_ahead(self._reader, small):
            content = self._content(stored)
            if content is None:
                large.append(file)
            elif isinstance(content, FileError):
                self._failed(file, content)
            else:
                group.append((file, content))
                held += len(content)
            if held >= GROUP_BYTES:
                self._decode_group(decoder, group)
                group, held = [], 0
        if group:
            self._decode_group(decoder, group)
        for file in large:
            self._reads(file)
            self._stream_text(decoder, file)

    def _content(self, stored: bytes | FileError) -> bytes | FileError | None:
        """The decompressed bytes of a small file; None when they are too many for one piece."""
        if isinstance(stored, FileError):
            return stored
        self._beat(len(stored))
        pieces: list[bytes] = []
        size = 0
        try:
            if is_plain(stored, self._options.compression):
                return stored
            for piece in decompress((stored,), self._options.compression):
                pieces.append(piece)
                size += len(piece)
                if size > LARGE_BYTES:
                    return None
        except FileError as error:
            return error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _decode_group(self, decoder: TextDecoder, group: list[tuple[SourceFile, bytes]]) -> None:
        self._reads(group[0][0], group[-1][0])
        decoded = decoder.decode_group([content for _, content in group])
        self._keep_group(decoded, [file for file, _ in group])
        for (file, content), outcome in zip(group, decoded.rows, strict=True):
            if isinstance(outcome, DriftError):
                self._observe_text(decoder, file, (content,))
            elif isinstance(outcome, FileError):
                self._failed(file, outcome)

    def _keep_group(self, decoded: Decoded, files: list[SourceFile]) -> None:
        kept = [(f, rows) for f, rows in zip(files, decoded.rows, strict=True) if isinstance(rows, int)]
        self._shared.write(self._shape.complete(decoded.table, kept))
        self._account.loaded.extend(LoadedFile(file.key, file.version, rows, file.size_bytes) for file, rows in kept)
        self._tell(Beat(files=len(kept), rows=sum(rows for _, rows in kept)))

    def _observe_text(self, decoder: TextDecoder, file: SourceFile, content: Iterable[bytes]) -> None:
        try:
            observed = decoder.observe(content)
        except FileError as error:
            self._failed(file, error)
        else:
            self._drifted(file, observed)

    def _decompressed(self, file: SourceFile) -> Iterator[bytes]:
        return decompress(stream_stored(self._reader, file, self._beat), self._options.compression)

    def _stream_text(self, decoder: TextDecoder, file: SourceFile) -> None:
        content = self._decompressed(file)
        if self._stream(file, decoder.decode_stream(content), self._shape) is not None:
            self._observe_text(decoder, file, self._decompressed(file))

    def _stream(self, file: SourceFile, tables: Iterator[pa.Table], shape: TableShape) -> DriftError | None:
        """Write one file into data files of its own, all of it or nothing.

        Returns:
            The drift that kept it out, which is left to the caller to look at.
        """
        try:
            data_files, rows = write_alone(self._writer(shape), shape, file, tables, self._beat)
        except FileError as error:
            self._failed(file, error)
        except DriftError as drift:
            return drift
        else:
            self._account.data_files.extend(data_files)
            self._loaded(file, rows)
        return None

    # --- Parquet -----------------------------------------------------------------------------------------------

    def _run_parquet(self) -> None:
        small, large = self._small_and_large()
        for file, stored in read_ahead(self._reader, small):
            self._reads(file)
            if isinstance(stored, FileError):
                self._failed(file, stored)
            else:
                self._beat(len(stored))
                self._load_parquet(file, StoredFile(self._reader, file, stored))
        for file in large:
            self._reads(file)
            self._load_parquet(file, StoredFile(self._reader, file))
            self._beat(file.size_bytes)

    def _load_parquet(self, file: SourceFile, stored: StoredFile) -> None:
        try:
            source = ParquetSource(stored)
        except FileError as error:
            self._failed(file, error)
            return
        try:
            source.check_drift(self._columns)
        except FileError as error:
            self._failed(file, error)
            return
        except DriftError:
            self._drifted(file, source.schema)
            return
        if self._job.careful or file.size_bytes > SMALL_FILE_BYTES or source.decoded_bytes > LARGE_BYTES:
            # Into data files of its own, which may take its dictionaries over.
            repeating = source.repeating(self._columns)
            shape = TableShape(self._order.schema, self._order.batch_id, repeating)
            self._stream(file, source.tables(self._columns, repeating), shape)
        else:
            self._keep_whole(file, source.tables(self._columns))

    def _keep_whole(self, file: SourceFile, tables: Iterator[pa.Table]) -> None:
        try:
            # Whole before the first row is written: the data file is shared with other source files.
            whole = list(tables)
        except FileError as error:
            self._failed(file, error)
            return
        for table in whole:
            self._shared.write(self._shape.complete(table, ((file, table.num_rows),)))
        self._loaded(file, sum(table.num_rows for table in whole))
