"""Delete files as other tools write them beside a table's data files: merge-on-read, which pyiceberg reads only."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestContent, ManifestWriter, ManifestWriterV2
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _FastAppendFiles
from pyiceberg.typedef import Record

_PATH = 2147483546


class _DeletesWriter(ManifestWriterV2):
    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


class _Deleting(_FastAppendFiles):
    def new_manifest_writer(self, spec: PartitionSpec) -> ManifestWriter:
        return _DeletesWriter(spec, self.schema(), self.new_manifest_output(), self.snapshot_id, self._compression)


def delete_positions(table: Table, path: str, positions: Sequence[int], *, name: str = "deletes") -> str:
    """Delete rows of one data file by their positions; the path of the delete file."""
    rows = pa.table({"file_path": [path] * len(positions), "pos": pa.array(positions, pa.int64())})
    bound = {_PATH: path.encode()}
    return _append(table, DataFileContent.POSITION_DELETES, rows, name, bound)


def delete_equal(table: Table, column: str, values: Sequence[int]) -> str:
    """Delete the rows of all data files that have one of the values."""
    field = table.schema().find_field(column)
    rows = pa.table({column: pa.array(values, pa.int64())})
    return _append(table, DataFileContent.EQUALITY_DELETES, rows, "equal", {}, [field.field_id])


def _append(  # noqa: PLR0917 - a delete file and what is told of it
    table: Table,
    content: DataFileContent,
    rows: pa.Table,
    name: str,
    bounds: dict[int, bytes],
    equality_ids: list[int] | None = None,
) -> str:
    buffer = io.BytesIO()
    pq.write_table(rows, buffer)
    path = f"{table.location()}/data/{name}.parquet"
    with table.io.new_output(path).create() as stream:
        stream.write(buffer.getvalue())
    delete_file = DataFile.from_args(
        content=content,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=rows.num_rows,
        file_size_in_bytes=buffer.tell(),
        lower_bounds=bounds,
        upper_bounds=bounds,
        equality_ids=equality_ids,
    )
    delete_file.spec_id = 0
    with table.transaction() as transaction:
        producer = _Deleting(operation=Operation.DELETE, transaction=transaction, io=table.io)
        producer.append_data_file(delete_file)
        producer.commit()
    return path
