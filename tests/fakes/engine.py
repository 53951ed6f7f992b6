"""An engine without processes that works: small files in, real Parquet files out. Types are those of plain values."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal as Number
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.domain import system_columns
from app.domain.errors import AutoloaderError, Category, EngineDiedError, FileError, FileFailure, WriteFailureError
from app.domain.evolution import apply_changes, plan_changes
from app.domain.files import LoadedFile, SourceFile
from app.domain.formats import FileFormat, FormatOptions
from app.domain.ports import (
    DataFile,
    DataSink,
    Inference,
    Progress,
    Reading,
    RewriteOrder,
    Rewritten,
    WriteOrder,
    WriteResult,
)
from app.domain.replacing import RowsOf, StoredData
from app.domain.sampling import SampledRows
from app.domain.types import (
    BINARY,
    BOOLEAN,
    DATE,
    DOUBLE,
    EMPTY,
    LONG,
    STRING,
    TIMESTAMP,
    TIMESTAMPTZ,
    UNKNOWN,
    DataType,
    Decimal,
    Field,
    ListOf,
    Struct,
    join,
    join_structs,
)
from app.engines.embedded.arrow_types import arrow_schema

Row = dict[str, Any]


class FakeEngine:
    """Keeps the Engine port's promises. `orders` remembers what was asked of it."""

    def __init__(self) -> None:
        self.orders: list[WriteOrder] = []
        self.expected: list[tuple[SourceFile, ...]] = []
        self.rewrites: list[RewriteOrder] = []
        self.closed = False

    def expect(self, files: Sequence[SourceFile]) -> None:
        """Remember that it was told."""
        self.expected.append(tuple(files))

    def infer(self, files: Sequence[SourceFile], reading: Reading, known: Struct = EMPTY) -> Inference:
        """Look at all of all files."""
        seen, failed = EMPTY, []
        for file in sorted(files, key=lambda f: f.order):
            try:
                seen = join_structs(seen, _news(known, _observe(_rows(file, reading))))
            except FileError as error:
                failed.append(FileFailure.of(file.key, file.version, error))
        return Inference(seen, tuple(failed), sum(file.size_bytes for file in files))

    def write(self, order: WriteOrder, progress: Progress) -> WriteResult:
        """One data file for all rows."""
        if self.closed:
            raise EngineDiedError("The engine is closed.")
        self.orders.append(order)
        columns = system_columns.data_columns(order.schema)
        loaded: list[LoadedFile] = []
        failed: list[FileFailure] = []
        drifted: list[SourceFile] = []
        drift, rows = EMPTY, []
        for file in sorted(order.files, key=lambda f: f.order):
            try:
                found = _rows(file, order.reading)
                observed = _observe(found)
                if _drifts(columns, observed, report=order.report_drift):
                    drifted.append(file)
                    drift = join_structs(drift, observed)
                    continue
                fitted = [_fit_row(row, columns) for row in found]
            except FileError as error:
                failed.append(FileFailure.of(file.key, file.version, error))
                progress(files=1)
                continue
            rows += [{**row, **_ours(file, order)} for row in fitted]
            loaded.append(LoadedFile(file.key, file.version, len(fitted), file.size_bytes))
            progress(files=1, rows=len(fitted), stored_bytes=file.size_bytes)
        data_files = _write(order, rows) if rows else ()
        return WriteResult(data_files, tuple(loaded), tuple(failed), tuple(drifted), drift)

    def rewrite(self, order: RewriteOrder) -> tuple[Rewritten, ...]:
        """Each data file in turn, all of its rows in memory."""
        if self.closed:
            raise EngineDiedError("The engine is closed.")
        self.rewrites.append(order)
        done: list[Rewritten] = []
        try:
            for number, stored in enumerate(order.data_files, start=1):
                done.append(_rewrite(order, stored, number))
        except WriteFailureError:
            for one in done:
                for data_file in one.data_files:
                    order.sink.delete(data_file.path)
            raise
        return tuple(done)

    def sample_rows(self, files: Sequence[SourceFile], reading: Reading, schema: Struct, limit: int) -> SampledRows:
        """All rows of all files, and the first of them to show."""
        rows: list[Row] = []
        failed: list[FileFailure] = []
        for file in files:
            try:
                found = _rows(file, reading)
            except FileError as error:
                failed.append(FileFailure.of(file.key, file.version, error))
                continue
            columns = apply_changes(schema, plan_changes(schema, _observe(found)))
            rows += [_fit_row(row, columns) for row in found]
        whole = sum(file.size_bytes for file in files if file.key not in {f.key for f in failed})
        return SampledRows(tuple(rows[:limit]), len(rows), whole, tuple(failed))

    def close(self) -> None:
        """Take no more orders."""
        self.closed = True


def _drifts(columns: Struct, observed: Struct, *, report: bool) -> bool:
    changes = plan_changes(columns, observed)
    if changes and not report:
        raise FileError(Category.SCHEMA_MISMATCH, f"The file needs {changes[0]}.")
    return bool(changes)


def _ours(file: SourceFile, order: WriteOrder) -> Row:
    values = (file.key, file.modified_at, order.batch_id, None)
    names = (f.name for f in system_columns.system_columns(provenance=True))
    return dict(zip(names, values, strict=True))


def _write(order: WriteOrder, rows: list[Row]) -> tuple[DataFile, ...]:
    table = pa.Table.from_pylist(rows, schema=arrow_schema(order.schema))
    return (_put(order.sink, f"{order.name_prefix}-00001-0001.parquet", table),)


def _put(sink: DataSink, name: str, table: pa.Table) -> DataFile:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", store_schema=False)
    path, context = sink.create(name)
    try:
        with context as stream:
            stream.write(buffer.getvalue())
    except (OSError, AutoloaderError) as error:
        sink.delete(path)
        raise WriteFailureError(f"Data could not be written: {error}.") from error
    return DataFile(path, table.num_rows, len(buffer.getvalue()))


def _rewrite(order: RewriteOrder, stored: StoredData, number: int) -> Rewritten:
    rows = _live_rows(order, stored)
    whose = [RowsOf(row.get(system_columns.FILE_PATH) or "", row.get(system_columns.BATCH_ID) or "") for row in rows]
    removed = Counter(one for one in whose if one in order.rows)
    kept = [row for row, one in zip(rows, whose, strict=True) if one not in order.rows]
    if not removed:
        return Rewritten(stored.path)
    if not kept:
        return Rewritten(stored.path, removed)
    table = pa.Table.from_pylist(kept, schema=arrow_schema(order.schema))
    return Rewritten(stored.path, removed, (_put(order.sink, f"{order.name_prefix}-{number:05d}-0001.parquet", table),))


def _live_rows(order: RewriteOrder, stored: StoredData) -> list[Row]:
    try:
        rows = _read(order.sink, stored.path)
        deletes = [row for path in stored.deletes for row in _read(order.sink, path)]
    except (OSError, pa.ArrowException) as error:
        raise WriteFailureError(f"The data file {stored.path} cannot be read: {error}.") from error
    dead = {row["pos"] for row in deletes if row["file_path"] == stored.path}
    return [row for position, row in enumerate(rows) if position not in dead]


def _read(sink: DataSink, path: str) -> list[Row]:
    """The rows of a file, by the names of its columns of now: a fake's columns keep theirs."""
    with sink.open(path) as stream:
        rows: list[Row] = pq.read_table(io.BytesIO(stream.read())).to_pylist()
    return rows


# --- reading ------------------------------------------------------------------------------------------------------


def _rows(file: SourceFile, reading: Reading) -> list[Row]:
    try:
        data = reading.reader.read(file)
    except OSError as error:
        raise FileError(Category.CONNECTIVITY, f"The file could not be read: {error}.") from error
    if reading.options.format is FileFormat.PARQUET:
        return _parquet(data)
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError) as error:
            raise FileError(Category.DATA_MALFORMED, f"The gzip stream is damaged: {error}.") from error
    parse = _json if reading.options.format is FileFormat.JSON else _csv
    return list(parse(data.decode(), reading.options))


def _parquet(data: bytes) -> list[Row]:
    try:
        rows: list[Row] = pq.read_table(io.BytesIO(data)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise FileError(Category.DATA_MALFORMED, f"This is not a Parquet file: {error}.") from error
    return rows


def _json(text: str, _: FormatOptions) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise FileError(Category.DATA_MALFORMED, f"Line {number} is no JSON: {error}.", line=number) from error
        yield row


def _csv(text: str, options: FormatOptions) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text), delimiter=options.delimiter)
    names: list[str] = []
    for record in reader:
        if not names:
            names = record
        elif len(record) != len(names):
            message = f"Line {reader.line_num} has {len(record)} fields, the header has {len(names)}."
            raise FileError(Category.DATA_MALFORMED, message, line=reader.line_num)
        else:
            yield {name: _guess(value, options) for name, value in zip(names, record, strict=True)}


def _guess(text: str, options: FormatOptions) -> int | float | bool | str | None:
    if text in options.null_values:
        return None
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    kinds: tuple[Callable[[str], int | float], ...] = (int, float)
    for kind in kinds:
        try:
            value = kind(text)
        except ValueError:
            continue
        if str(value) == text:
            return value
    return text


# --- types --------------------------------------------------------------------------------------------------------

_TYPES: tuple[tuple[type, DataType], ...] = (
    (bool, BOOLEAN),
    (int, LONG),
    (float, DOUBLE),
    (str, STRING),
    (date, DATE),
    (bytes, BINARY),
)


def _type_of(value: object) -> DataType:
    if value is None:
        return UNKNOWN
    if isinstance(value, dict):
        return Struct(tuple(Field(name, _type_of(v)) for name, v in value.items()))
    if isinstance(value, list):
        nothing: DataType = UNKNOWN
        return ListOf(reduce(join, map(_type_of, value), nothing))
    if isinstance(value, datetime):
        return TIMESTAMP if value.tzinfo is None else TIMESTAMPTZ
    if isinstance(value, Number):
        exponent = value.as_tuple().exponent
        return Decimal(38, -exponent if isinstance(exponent, int) else 0)
    return next(kind for python, kind in _TYPES if isinstance(value, python))


def _observe(rows: Sequence[Row]) -> Struct:
    for row in rows:
        if taken := [name for name in row if system_columns.is_system(name)]:
            raise FileError(Category.SCHEMA_MISMATCH, f"The name {taken[0]!r} is taken.")
    kinds = (Struct(tuple(Field(name, _type_of(value)) for name, value in row.items())) for row in rows)
    return reduce(join_structs, kinds, EMPTY)


def _news(known: Struct, seen: Struct) -> Struct:
    return Struct(tuple(f for f in seen.fields if known.find(f.name) is None or plan_changes(known, Struct((f,)))))


def _fit_row(row: Row, schema: Struct) -> Row:
    folded = {name.lower(): value for name, value in row.items()}
    return {f.name: _fit(folded.get(f.name.lower()), f.type, f.name) for f in schema.fields}


def _fit(value: Any, kind: DataType, name: str) -> Any:
    if value is None:
        return None
    if isinstance(kind, Struct) and isinstance(value, dict):
        return _fit_row(value, kind)
    if isinstance(kind, ListOf) and isinstance(value, list):
        return [_fit(v, kind.element, name) for v in value]
    if kind == STRING and not isinstance(value, str):
        return json.dumps(value, default=str)
    if kind == DOUBLE and type(value) is int and abs(value) <= 2**53:
        return float(value)
    if join(_type_of(value), kind) != kind and not isinstance(kind, Decimal):
        raise FileError(Category.SCHEMA_MISMATCH, f"Column {name}: the value {value!r} does not fit.")
    return value
