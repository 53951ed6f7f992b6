"""Carries out a rewrite job inside a child process: a table's data files in, the same without certain rows out.

Each data file is read twice: first the two columns that say whose its rows are, then, where some of them go and some
stay, all of it. Memory holds a few thousand rows and what the writer gathers, however large the file is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.domain.errors import WriteFailureError
from app.domain.ports import RewriteOrder, Rewritten
from app.domain.replacing import RowsOf, StoredData
from app.domain.system_columns import BATCH_ID, FILE_PATH
from app.domain.types import Struct
from app.engines.embedded.arrow_types import arrow_schema
from app.engines.embedded.encode import DataFileNames, DataFileWriter
from app.engines.embedded.messages import Beat, Opened, RewriteJob, RewrittenAll, Tell
from app.engines.embedded.projection import ProjectionError, field_id, project

BATCH_ROWS = 16 * 1024
# Stands between a file's key and a batch's id; an id never holds it, so that the last one parts the two.
_BETWEEN = "\0"


def rewrite(job: RewriteJob, tell: Tell) -> RewrittenAll:
    """Rewrite the job's data files.

    Raises:
        WriteFailureError: One cannot be read, or the sink takes no files; what this job wrote may still be there.
        MemoryError: The process may not have so much.
    """
    names = DataFileNames(job.order.name_prefix, job.number)
    return RewrittenAll(tuple(_rewrite_one(job.order, stored, names, tell) for stored in job.order.data_files))


def _rewrite_one(order: RewriteOrder, stored: StoredData, names: DataFileNames, tell: Tell) -> Rewritten:
    with _opened(order, stored.path) as parquet:
        file = _File(stored, parquet, order, _deleted(order, stored))
        removed, kept = file.count(tell)
        if not removed:
            return Rewritten(stored.path)
        if not file.has_ids:
            reason = (
                f"The data file {stored.path} was written by another tool and its columns carry no ids: its rows "
                "cannot be kept apart. Have that tool rewrite the table's data files, then load again."
            )
            return Rewritten(stored.path, removed, refusal=reason)
        if not kept:
            return Rewritten(stored.path, removed)
        schema = arrow_schema(order.schema)
        writer = DataFileWriter(order.sink, schema, names, lambda path: tell(Opened(path)))
        try:
            for rows in file.kept(order.schema):
                writer.write(pa.Table.from_arrays(rows, schema=schema))
                tell(Beat())
        except ProjectionError as error:
            writer.abandon()
            return Rewritten(
                stored.path, removed, refusal=f"Rows beside those that go could not be kept in {stored.path}: {error}."
            )
        return Rewritten(stored.path, removed, writer.finish())


@contextmanager
def _opened(order: RewriteOrder, path: str) -> Iterator[pq.ParquetFile]:
    """The Parquet file at `path`.

    Raises:
        WriteFailureError: It cannot be read, at any time while it is open.
    """
    try:
        stream: AbstractContextManager[BinaryIO] = order.sink.open(path)
        with stream as source, pq.ParquetFile(source) as parquet:
            yield parquet
    except MemoryError:
        raise
    except (OSError, pa.ArrowException) as error:
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise WriteFailureError(
            f"The table's data file {path} cannot be read, so it was not changed: {reason}"
        ) from error


def _deleted(order: RewriteOrder, stored: StoredData) -> pa.Array:
    """The positions in the data file of rows that do not count any more."""
    positions: list[pa.Array] = []
    for path in sorted(stored.deletes):
        with _opened(order, path) as parquet:
            for batch in parquet.iter_batches(BATCH_ROWS, columns=["file_path", "pos"], use_threads=False):
                here = pc.equal(batch.column("file_path").cast(pa.string()), stored.path)
                positions.append(batch.column("pos").filter(here).cast(pa.int64()))
    return pa.concat_arrays(positions) if positions else pa.array([], pa.int64())


@dataclass
class _File:
    """One data file, open."""

    stored: StoredData
    parquet: pq.ParquetFile
    order: RewriteOrder
    deleted: pa.Array

    def __post_init__(self) -> None:
        self._fields = list(self.parquet.schema_arrow)
        self.has_ids = any(field_id(field) is not None for field in self._fields)
        self._path, self._batch = (self._name(name) for name in (FILE_PATH, BATCH_ID))
        self._keys = pa.array(sorted({rows.key for rows in self.order.rows}), pa.string())
        self._pairs = pa.array(sorted(f"{r.key}{_BETWEEN}{r.batch_id}" for r in self.order.rows), pa.string())

    def _name(self, column: str) -> str | None:
        """What the file calls a column of the table."""
        if not self.has_ids:
            return next((f.name for f in self._fields if f.name == column), None)
        wanted = next((f.id for f in self.order.schema.fields if f.name.lower() == column), None)
        return next((f.name for f in self._fields if wanted is not None and field_id(f) == wanted), None)

    def count(self, tell: Tell) -> tuple[dict[RowsOf, int], int]:
        """How many rows of each go, and how many stay."""
        removed: Counter[str] = Counter()
        kept = 0
        if self._path is None or self._batch is None:
            return {}, self.stored.rows
        for batch, live in self._batches([self._path, self._batch]):
            pairs, goes = self._goes(batch)
            if pairs is not None:
                gone = pc.value_counts(pairs.filter(pc.and_(live, goes)))
                removed.update({v["values"]: v["counts"] for v in gone.to_pylist()})
            kept += int(pc.sum(pc.and_not(live, goes)).as_py() or 0)
            tell(Beat())
        return {_rows(pair): count for pair, count in removed.items()}, kept

    def kept(self, schema: Struct) -> Iterator[list[pa.Array]]:
        """The rows that stay, as columns of the table.

        Raises:
            ProjectionError: They do not fit it.
        """
        for batch, live in self._batches(None):
            _, goes = self._goes(batch)
            rows = batch.filter(pc.and_not(live, goes))
            if rows.num_rows:
                yield project(rows, schema)

    def _batches(self, columns: list[str] | None) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
        """Rows, and which of them count at all."""
        start = 0
        for batch in self.parquet.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
            positions = pa.array(range(start, start + batch.num_rows), pa.int64()) if len(self.deleted) else None
            start += batch.num_rows
            if positions is None:
                yield batch, pa.repeat(pa.scalar(value=True), batch.num_rows)
            else:
                yield batch, pc.invert(pc.is_in(positions, self.deleted))

    def _goes(self, batch: pa.RecordBatch) -> tuple[Any, pa.Array]:
        """Whose each row is, where any of them may be one that goes; and which do."""
        paths = batch.column(self._path).cast(pa.string())
        if not pc.any(pc.is_in(paths, self._keys)).as_py():
            return None, pa.repeat(pa.scalar(value=False), batch.num_rows)
        pairs = pc.binary_join_element_wise(paths, batch.column(self._batch).cast(pa.string()), _BETWEEN)
        # A row that does not name both is nobody's: it stays.
        return pairs, pc.is_in(pairs, self._pairs)


def _rows(pair: str) -> RowsOf:
    key, _, batch_id = pair.rpartition(_BETWEEN)
    return RowsOf(key, batch_id)
