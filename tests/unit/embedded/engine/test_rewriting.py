"""A data file without some of its rows: the others are kept value for value, whatever their types."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal as Number
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.domain.ports import RewriteOrder, Rewritten
from app.domain.replacing import RowsOf, StoredData
from app.domain.system_columns import BATCH_ID, FILE_PATH
from app.domain.types import (
    BINARY,
    BOOLEAN,
    DATE,
    DOUBLE,
    FLOAT,
    INT,
    LONG,
    STRING,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    UUID,
    Decimal,
    Field,
    Fixed,
    ListOf,
    MapOf,
    Struct,
)
from app.engines.embedded import rewriting
from app.engines.embedded.messages import Beat, Opened, RewriteJob
from tests.fakes.catalog import FolderSink
from tests.support.parquet_files import parquet_bytes
from tests.support.tables import table_schema

GONE = RowsOf("s3://b/gone.json", "i-00000001")
EVERYTHING = table_schema(
    Field("bo", BOOLEAN),
    Field("i", INT),
    Field("l", LONG),
    Field("f", FLOAT),
    Field("do", DOUBLE),
    Field("da", DATE),
    Field("ti", TIME),
    Field("ts", TIMESTAMP),
    Field("tz", TIMESTAMPTZ),
    Field("s", STRING),
    Field("u", UUID),
    Field("by", BINARY),
    Field("de", Decimal(38, 9)),
    Field("fi", Fixed(3)),
    Field("st", Struct((Field("a", LONG), Field("in", Struct((Field("b", STRING),)))))),
    Field("li", ListOf(Struct((Field("x", LONG),)))),
    Field("ll", ListOf(ListOf(STRING))),
    Field("ma", MapOf(STRING, Struct((Field("y", DOUBLE),)))),
)
WHOLE = {
    "bo": True,
    "i": -(2**31),
    "l": 2**63 - 1,
    "f": 0.5,
    "do": float("-inf"),
    "da": date(1, 1, 1),
    "ti": time(23, 59, 59, 999999),
    "ts": datetime(9999, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001 - it has no zone
    "tz": datetime(2026, 1, 1, 12, 30, 0, 1, tzinfo=UTC),
    "s": "é\0𝄞",
    "u": uuid.UUID(int=7),
    "by": b"\0\xff",
    "de": Number("12345678901234567890123456789.123456789"),
    "fi": b"abc",
    "st": {"a": 1, "in": {"b": None}},
    "li": [{"x": 1}, None, {"x": None}],
    "ll": [["a", None], [], None],
    "ma": {"k": {"y": 1.5}, "": None},
}
HOLLOW: dict[str, Any] = {"st": {"a": None, "in": None}, "li": [], "ll": None, "ma": {}, "do": -0.0, "s": ""}


def named(
    row: dict[str, Any], key: str | None = "s3://b/kept.json", batch: str | None = "i-00000001"
) -> dict[str, Any]:
    return {**row, FILE_PATH: key, BATCH_ID: batch}


def gone() -> dict[str, Any]:
    return named(WHOLE, GONE.key, GONE.batch_id)


def rewritten(
    folder: Path,
    data: bytes,
    schema: Struct,
    deletes: frozenset[str] = frozenset(),
    told: list[object] | None = None,
) -> Rewritten:
    path = folder / "old.parquet"
    path.write_bytes(data)
    stored = StoredData(str(path), pq.ParquetFile(path).metadata.num_rows, len(data), deletes)
    order = RewriteOrder((stored,), frozenset({GONE}), schema, FolderSink(str(folder)), "p")
    (one,) = rewriting.rewrite(RewriteJob(order, 1), (told if told is not None else []).append).rewritten
    return one


def rows_of(one: Rewritten) -> list[dict[str, Any]]:
    return [row for f in one.data_files for row in pq.read_table(f.path).to_pylist()]


def kept_of(data: bytes) -> list[dict[str, Any]]:
    found = pq.read_table(pa.BufferReader(data)).to_pylist()
    return [row for row in found if (row[FILE_PATH], row[BATCH_ID]) != (GONE.key, GONE.batch_id)]


def test_every_type_is_kept(tmp_path: Path) -> None:
    rows = [gone(), named(WHOLE), named(HOLLOW), gone(), named({}), named(WHOLE, GONE.key, "another-00000001")]
    data = parquet_bytes(EVERYTHING, [*rows, named(WHOLE, None, GONE.batch_id), named(WHOLE, GONE.key, None)])
    one = rewritten(tmp_path, data, EVERYTHING)
    assert dict(one.removed) == {GONE: 2}
    assert repr(rows_of(one)) == repr(kept_of(data))
    (new,) = one.data_files
    assert new.rows == 6
    assert pq.ParquetFile(new.path).schema.equals(pq.ParquetFile(pa.BufferReader(data)).schema)


def test_many_row_groups_keep_their_order(tmp_path: Path) -> None:
    schema = table_schema(Field("id", LONG))
    table = pa.Table.from_pylist(
        [{"id": i, FILE_PATH: GONE.key if i % 3 else "s3://b/k", BATCH_ID: GONE.batch_id} for i in range(40_000)],
        schema=pq.read_schema(pa.BufferReader(parquet_bytes(schema, []))),
    )
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, row_group_size=7_000)
    told: list[object] = []
    one = rewritten(tmp_path, buffer.getvalue().to_pybytes(), schema, told=told)
    assert [row["id"] for row in rows_of(one)] == list(range(0, 40_000, 3))
    assert one.removed[GONE] == 40_000 - 13_334
    # Whoever watches hears that it is alive, and which files to remove should it die.
    assert sum(isinstance(t, Beat) for t in told) > 5
    assert [t.path for t in told if isinstance(t, Opened)] == [f.path for f in one.data_files]


OLD = table_schema(
    Field("a", INT),
    Field("b", FLOAT),
    Field("c", Decimal(9, 2)),
    Field("s", Struct((Field("x", INT), Field("y", LONG)))),
)


def test_columns_are_told_by_their_ids(tmp_path: Path) -> None:
    """Since the file was written, columns were renamed, widened, moved, dropped and added, inside a struct too."""
    by_name = {f.name: f for f in OLD.fields}
    inner = by_name["s"].type
    assert isinstance(inner, Struct)
    x, _ = inner.fields
    now = Struct(
        (
            Field("s2", Struct((Field("b", STRING, id=90), Field("wide", LONG, id=x.id))), id=by_name["s"].id),
            Field("c", Decimal(20, 2), id=by_name["c"].id),
            Field("b", LONG, id=by_name["a"].id),
            Field("a", DOUBLE, id=by_name["b"].id),
            Field("y", LONG, id=91),
            *(f for f in OLD.fields if f.name.startswith("_")),
        )
    )
    row = {"a": 7, "b": 0.5, "c": Number("1.25"), "s": {"x": 3, "y": 4}}
    one = rewritten(tmp_path, parquet_bytes(OLD, [gone_of(row), named(row), named({})]), now)
    first, second = ({k: v for k, v in r.items() if not k.startswith("_")} for r in rows_of(one))
    assert first == {"s2": {"b": None, "wide": 3}, "c": Number("1.25"), "b": 7, "a": 0.5, "y": None}
    assert set(second.values()) == {None}


def gone_of(row: dict[str, Any]) -> dict[str, Any]:
    return named(row, GONE.key, GONE.batch_id)


def test_a_file_without_our_columns_holds_none_of_the_rows(tmp_path: Path) -> None:
    data = parquet_bytes(Struct((Field("id", LONG, id=1),)), [{"id": 1}])
    assert rewritten(tmp_path, data, table_schema(Field("id", LONG))) == Rewritten(str(tmp_path / "old.parquet"))


def test_a_file_whose_columns_carry_no_ids_is_refused_where_it_holds_rows_that_go(tmp_path: Path) -> None:
    nameless = Struct(tuple(Field(f.name, f.type) for f in table_schema(Field("id", LONG)).fields))
    schema = table_schema(Field("id", LONG))
    one = rewritten(tmp_path, parquet_bytes(nameless, [gone_of({"id": 1}), named({"id": 2})]), schema)
    assert "carry no ids" in one.refusal
    assert (dict(one.removed), one.data_files) == ({GONE: 1}, ())
    assert rewritten(tmp_path, parquet_bytes(nameless, [named({"id": 2})]), schema).refusal == ""


def test_rows_that_do_not_fit_their_column_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    old = table_schema(Field("id", STRING), Field("n", LONG))
    now = Struct((Field("id", LONG, id=1), *old.fields[1:]))
    one = rewritten(tmp_path, parquet_bytes(old, [gone_of({"id": "1"}), named({"id": "x"})]), now)
    assert "the column id" in one.refusal
    required = Struct((*old.fields, Field("must", LONG, required=True, id=99)))
    one = rewritten(tmp_path, parquet_bytes(old, [gone_of({"id": "1"}), named({"id": "x"})]), required)
    assert "the column must is required" in one.refusal
    assert [p.name for p in tmp_path.iterdir()] == ["old.parquet"]


@pytest.mark.parametrize("deleted", [[0], [1], [0, 1, 2], list(range(4))])
def test_positions_of_other_tools(tmp_path: Path, deleted: list[int]) -> None:
    schema = table_schema(Field("id", LONG))
    data = parquet_bytes(schema, [gone_of({"id": 0}), named({"id": 1}), gone_of({"id": 2}), named({"id": 3})])
    deletes = tmp_path / "deletes.parquet"
    pq.write_table(
        pa.table({"file_path": [str(tmp_path / "old.parquet")] * len(deleted), "pos": pa.array(deleted, pa.int64())}),
        deletes,
    )
    one = rewritten(tmp_path, data, schema, frozenset({str(deletes)}))
    assert one.removed.get(GONE, 0) == 2 - len({0, 2} & set(deleted))
    if one.removed:
        assert [row["id"] for row in rows_of(one)] == [i for i in (1, 3) if i not in deleted]
