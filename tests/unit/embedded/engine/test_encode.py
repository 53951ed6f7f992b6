"""Data files: their names, sizes, columns, and that an abandoned one leaves nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.domain.errors import SourceAuthError, WriteFailureError
from app.domain.types import DATE, LONG, STRING, UUID, Decimal, Field, ListOf, MapOf, Struct
from app.engines.embedded import encode
from app.engines.embedded.arrow_types import arrow_schema
from app.engines.embedded.encode import DataFileNames, DataFileWriter, TableShape
from tests.fakes.catalog import FolderSink
from tests.fakes.files import MODIFIED_AT, put
from tests.support.tables import table_schema

SCHEMA = table_schema(Field("id", LONG), Field("name", STRING))


def rows(count: int, start: int = 0) -> pa.Table:
    ids = range(start, start + count)
    return pa.table({"id": pa.array(ids, pa.int64()), "name": [f"name {i * 7919}" for i in ids]})


def writer(folder: Path, shape: TableShape, opened: list[str] | None = None) -> DataFileWriter:
    tell = opened.append if opened is not None else lambda _: None
    return DataFileWriter(FolderSink(str(folder / "data")), shape.schema, DataFileNames("p", 3), tell)


def ids(fields: Iterable[pa.Field]) -> Iterator[tuple[str, int]]:
    """Names and ids of fields and of what is inside them."""
    for field in fields:
        yield field.name, int(field.metadata[b"PARQUET:field_id"])
        if pa.types.is_map(field.type):
            yield from ids([field.type.key_field, field.type.item_field])
        elif pa.types.is_nested(field.type):
            yield from ids([field.type.field(i) for i in range(field.type.num_fields)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "data").glob("*"))


def test_rows_of_many_files_stand_in_order_with_their_paths(tmp_path: Path) -> None:
    files = [put(tmp_path, f"{i}.json", "x") for i in range(5)]
    files[2] = files[2]._replace(modified_at=MODIFIED_AT.replace(year=2000))
    shape = TableShape(SCHEMA, "b-1")
    data = writer(tmp_path, shape)

    data.write(shape.complete(rows(6), [(files[0], 3), (files[1], 0), (files[2], 3)]))
    data.write(shape.complete(rows(2, 6), [(files[3], 2)]))
    (data_file,) = data.finish()

    table = pq.read_table(data_file.path)
    assert table["id"].to_pylist() == list(range(8))
    assert table["_file_path"].to_pylist() == [files[0].key] * 3 + [files[2].key] * 3 + [files[3].key] * 2
    assert [when.year for when in table["_file_modified_at"].to_pylist()] == [2026] * 3 + [2000] * 3 + [2026] * 2
    assert set(table["_batch_id"].to_pylist()) == {"b-1"}
    assert table["_rescued_data"].null_count == 8
    assert (data_file.rows, data_file.size_bytes) == (8, Path(data_file.path).stat().st_size)


def test_columns_stand_where_the_table_has_them_also_ours(tmp_path: Path) -> None:
    schema = Struct((SCHEMA.fields[5], SCHEMA.fields[0], SCHEMA.fields[2], SCHEMA.fields[1]))
    shape = TableShape(schema, "b-1")
    data = writer(tmp_path, shape)

    data.write(shape.complete(rows(2).select(["id", "name"]), [(put(tmp_path, "a", "x"), 2)]))
    (data_file,) = data.finish()

    assert pq.read_table(data_file.path).schema.names == ["_rescued_data", "id", "_file_path", "name"]


def test_every_field_has_its_id_at_any_depth(tmp_path: Path) -> None:
    nested = Struct((Field("x", LONG), Field("d", DATE)))
    schema = table_schema(
        Field("s", nested),
        Field("l", ListOf(nested)),
        Field("m", MapOf(STRING, ListOf(LONG))),
        Field("u", UUID),
        Field("n", Decimal(12, 2)),
    )
    shape = TableShape(schema, "b")
    data = writer(tmp_path, shape)
    columns = arrow_schema(Struct(schema.fields[:5]))

    data.write(shape.complete(columns.empty_table(), []))
    data.write(shape.complete(pa.Table.from_pylist([{"l": [None]}], schema=columns), [(put(tmp_path, "a", "x"), 1)]))
    (data_file,) = data.finish()

    written = pq.ParquetFile(data_file.path, arrow_extensions_enabled=True)
    assert list(ids(written.schema_arrow)) == list(ids(arrow_schema(schema)))
    assert written.schema_arrow.field("u").type == pa.uuid()
    assert b"ARROW:schema" not in (written.metadata.metadata or {})
    assert written.metadata.row_group(0).column(0).compression == "ZSTD"
    assert pq.read_table(data_file.path)["l"].to_pylist() == [[None]]


def test_paths_and_batches_cost_little_and_have_their_bounds_in_the_footer(tmp_path: Path) -> None:
    shape = TableShape(SCHEMA, "b-1")
    data = writer(tmp_path, shape)
    file = put(tmp_path, "a" * 100, "x")
    for start in range(0, 100_000, 1000):
        data.write(shape.complete(rows(1000, start), [(file, 1000)]))
    (data_file,) = data.finish()

    metadata = pq.ParquetFile(data_file.path).metadata
    assert metadata.num_row_groups == 1
    by_name = {metadata.row_group(0).column(i).path_in_schema: metadata.row_group(0).column(i) for i in range(6)}
    assert by_name["_file_path"].total_compressed_size < 3000
    assert by_name["_file_path"].statistics.min == by_name["_file_path"].statistics.max == file.key
    assert by_name["_batch_id"].total_compressed_size < 2000


def test_files_roll_and_row_groups_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "TARGET_FILE_BYTES", 50_000)
    monkeypatch.setattr(encode, "ROW_GROUP_BYTES", 100_000)
    monkeypatch.setattr(encode, "MAX_ROW_GROUP_BYTES", 200_000)
    shape = TableShape(SCHEMA, "b")
    opened: list[str] = []
    data = writer(tmp_path, shape, opened)
    file = put(tmp_path, "a", "x")

    data.write(shape.complete(rows(50_000), [(file, 50_000)]))
    for start in range(50_000, 100_000, 500):
        data.write(shape.complete(rows(500, start), [(file, 500)]))
    done = data.finish()

    assert len(done) > 3
    assert [f.path for f in done] == opened
    assert names(tmp_path) == [f"p-00003-{i:04}.parquet" for i in range(1, len(done) + 1)]
    tables = [pq.read_table(f.path) for f in done]
    assert pa.concat_tables(tables)["id"].to_pylist() == list(range(100_000))
    assert [f.rows for f in done] == [table.num_rows for table in tables]
    groups = [pq.ParquetFile(f.path).metadata for f in done]
    assert max(m.row_group(i).num_rows for m in groups for i in range(m.num_row_groups)) < 10_000


def test_without_rows_there_is_no_file(tmp_path: Path) -> None:
    shape = TableShape(SCHEMA, "b")
    data = writer(tmp_path, shape)

    data.write(shape.complete(rows(0), []))

    assert data.finish() == ()
    assert names(tmp_path) == []


def test_an_abandoned_writer_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "TARGET_FILE_BYTES", 50_000)
    monkeypatch.setattr(encode, "ROW_GROUP_BYTES", 50_000)
    shape = TableShape(SCHEMA, "b")
    opened: list[str] = []
    data = writer(tmp_path, shape, opened)
    file = put(tmp_path, "a", "x")
    for start in range(0, 20_000, 1000):
        data.write(shape.complete(rows(1000, start), [(file, 1000)]))
    assert len(opened) > 1

    data.abandon()

    assert names(tmp_path) == []


@dataclass(frozen=True)
class BrokenSink:
    """Fails where it is told to."""

    folder: str
    where: str
    error: Exception

    def create(self, name: str) -> tuple[str, AbstractContextManager[BinaryIO]]:
        if self.where == "create":
            raise self.error
        return f"{self.folder}/{name}", self._file(name)

    def delete(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        return Path(path).open("rb")

    @contextmanager
    def _file(self, name: str) -> Iterator[BinaryIO]:
        if self.where == "open":
            raise self.error
        with Path(self.folder, name).open("wb") as file:
            yield file if self.where == "close" else _Full(self.error)  # type: ignore[misc]
        if self.where == "close":
            raise self.error


class _Full:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def write(self, data: bytes) -> int:
        del data
        raise self._error


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SourceAuthError("No space left for you")])
@pytest.mark.parametrize("where", ["create", "open", "write", "close"])
def test_whatever_the_sink_does_not_take_is_a_write_failure(tmp_path: Path, where: str, error: Exception) -> None:
    shape = TableShape(SCHEMA, "b")
    data = DataFileWriter(BrokenSink(str(tmp_path), where, error), shape.schema, DataFileNames("p", 1), lambda _: None)

    with pytest.raises(WriteFailureError, match="No space left"):  # noqa: PT012 - where it fails depends
        data.write(shape.complete(rows(10), [(put(tmp_path, "a", "x"), 10)]))
        data.finish()
