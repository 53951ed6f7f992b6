"""Parquet sources: what each type becomes in a table's column, exactly or not at all."""

from __future__ import annotations

import datetime as dt
import io
import uuid
from dataclasses import dataclass, field
from decimal import Decimal as Number
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.domain.errors import Category, FileError
from app.domain.files import SourceFile
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
    DataType,
    Decimal,
    Field,
    Fixed,
    ListOf,
    MapOf,
    Struct,
)
from app.engines.embedded.arrow_types import arrow_schema
from app.engines.embedded.decoding import DriftError
from app.engines.embedded.parquet import ParquetSource, StoredFile, news
from tests.fakes.files import MODIFIED_AT, FolderReader, parquet_bytes, put

UTC = dt.UTC
DAY = dt.date(2026, 2, 3)
NOON = dt.datetime(2026, 2, 3, 12, 0, 0, 123456)  # noqa: DTZ001 - a time without a zone is what is tested
NANOS = 1_770_120_000_123_456_789


@dataclass
class BytesReader:
    """One file's bytes; remembers what was asked for."""

    data: bytes
    asked: list[tuple[int, int]] = field(default_factory=list)
    failing: bool = False

    def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
        del file
        if self.failing:
            raise OSError("connection reset")
        found = self.data[start:end]
        self.asked.append((start, start + len(found)))
        return found

    def stream(self, file: SourceFile, chunk_bytes: int) -> Any:
        raise NotImplementedError


def source(data: bytes) -> ParquetSource:
    return opened(BytesReader(data))


def opened(reader: BytesReader) -> ParquetSource:
    return ParquetSource(StoredFile(reader, SourceFile("s3://b/f", "v", len(reader.data), MODIFIED_AT)))


def read(data: bytes, schema: Struct) -> pa.Table:
    parquet = source(data)
    parquet.check_drift(schema)
    tables = list(parquet.tables(schema))
    for table in tables:
        table.validate(full=True)
        assert table.schema == arrow_schema(schema)
    return pa.concat_tables(tables) if tables else arrow_schema(schema).empty_table()


def convert(array: pa.Array, kind: DataType, **options: Any) -> list[Any]:
    data = parquet_bytes(pa.table({"a": array}), **options)
    return read(data, Struct((Field("a", kind, id=1),))).column("a").to_pylist()  # type: ignore[no-any-return]


FITS: list[tuple[pa.Array, DataType, list[Any]]] = [
    (pa.array([True, None]), BOOLEAN, [True, None]),
    (pa.array([1, None], pa.int8()), INT, [1, None]),
    (pa.array([2**16 - 1], pa.uint16()), INT, [2**16 - 1]),
    (pa.array([1, -(2**31)], pa.int32()), LONG, [1, -(2**31)]),
    (pa.array([2**32 - 1], pa.uint32()), LONG, [2**32 - 1]),
    (pa.array([2**63 - 1], pa.int64()), LONG, [2**63 - 1]),
    (pa.array([2**63 - 1], pa.uint64()), LONG, [2**63 - 1]),
    (pa.array([2**64 - 1], pa.uint64()), Decimal(20, 0), [Number(2**64 - 1)]),
    (pa.array([7], pa.int64()), Decimal(38, 2), [Number("7.00")]),
    (pa.array([Number("1.50")], pa.decimal128(5, 2)), Decimal(5, 2), [Number("1.50")]),
    (pa.array([Number("1.50")], pa.decimal128(5, 2)), Decimal(9, 2), [Number("1.50")]),
    (pa.array([Number("1.500")], pa.decimal128(5, 3)), Decimal(5, 2), [Number("1.50")]),
    (pa.array([Number("2.00")], pa.decimal128(5, 2)), LONG, [2]),
    (pa.array([Number(10) ** 50], pa.decimal256(60, 2)), STRING, ["1" + "0" * 50 + ".00"]),
    (pa.array([1.5], pa.float16()), FLOAT, [1.5]),
    (pa.array([1.5, None], pa.float32()), FLOAT, [1.5, None]),
    (pa.array([1.5], pa.float32()), DOUBLE, [1.5]),
    (pa.array([2**53, -(2**53)], pa.int64()), DOUBLE, [2.0**53, -(2.0**53)]),
    (pa.array([3.0], pa.float64()), LONG, [3]),
    (pa.array([DAY]), DATE, [DAY]),
    (pa.array([DAY], pa.date64()), DATE, [DAY]),
    (pa.array([dt.time(1, 2, 3)], pa.time32("ms")), TIME, [dt.time(1, 2, 3)]),
    (pa.array([3_000], pa.time64("ns")), TIME, [dt.time(0, 0, 0, 3)]),
    (pa.array([NOON], pa.timestamp("us")), TIMESTAMP, [NOON]),
    (pa.array([1_000], pa.timestamp("ms")), TIMESTAMP, [dt.datetime(1970, 1, 1, 0, 0, 1)]),  # noqa: DTZ001
    (pa.array([NANOS // 1000 * 1000], pa.timestamp("ns")), TIMESTAMP, [NOON]),
    (pa.array([NOON], pa.timestamp("us", tz="Europe/Berlin")), TIMESTAMPTZ, [NOON.replace(tzinfo=UTC)]),
    (pa.array(["a", None]), STRING, ["a", None]),
    (pa.array(["a", None], pa.large_string()), STRING, ["a", None]),
    (pa.array(["b", "a", "b"]).dictionary_encode(), STRING, ["b", "a", "b"]),
    (pa.array([b"\x00\xff"]), BINARY, [b"\x00\xff"]),
    (pa.array([b"abcd"], pa.binary(4)), Fixed(4), [b"abcd"]),
    (pa.array([b"abcd"], pa.binary(4)), BINARY, [b"abcd"]),
    (pa.array([uuid.UUID(int=7).bytes], pa.uuid()), UUID, [uuid.UUID(int=7)]),
    (pa.array([uuid.UUID(int=7).bytes], pa.binary(16)), UUID, [uuid.UUID(int=7)]),
    (pa.array([None, None], pa.null()), LONG, [None, None]),
    (pa.array([None, None], pa.string()), LONG, [None, None]),
    # Into text, as long as it is the whole value.
    (pa.array([2**63 - 1]), STRING, [str(2**63 - 1)]),
    (pa.array([2**64 - 1], pa.uint64()), STRING, [str(2**64 - 1)]),
    (pa.array([Number("1.50")]), STRING, ["1.50"]),
    (pa.array([True, False]), STRING, ["true", "false"]),
    (pa.array([DAY]), STRING, ["2026-02-03"]),
    (pa.array([NOON], pa.timestamp("us")), STRING, ["2026-02-03T12:00:00.123456"]),
    (pa.array([NANOS], pa.timestamp("ns")), STRING, ["2026-02-03T12:00:00.123456789"]),
    (pa.array([NOON], pa.timestamp("us", tz="Europe/Berlin")), STRING, ["2026-02-03T12:00:00.123456Z"]),
    (pa.array(["ä".encode()]), STRING, ["ä"]),
    (pa.array([[1, 2], None]), STRING, ["[1, 2]", None]),
    (pa.array([{"x": "ü"}]), STRING, ['{"x": "ü"}']),
]


@pytest.mark.parametrize(("array", "kind", "expected"), FITS, ids=[f"{a.type}-{k}" for a, k, _ in FITS])
def test_a_value_that_fits_is_stored_exactly(array: pa.Array, kind: DataType, expected: list[Any]) -> None:
    assert convert(array, kind) == expected


@pytest.mark.parametrize("value", [0.1, 1e300, 5e-324, -0.0, 1.0, 123456789.125, 2.0**80])
def test_a_double_as_text_is_that_double(value: float) -> None:
    (text,) = convert(pa.array([value]), STRING)

    assert float(text) == value


MISFITS: list[tuple[pa.Array, DataType, str]] = [
    (pa.array([1, 2**63], pa.uint64()), LONG, str(2**63)),
    (pa.array([1, 2**53 + 1]), DOUBLE, str(2**53 + 1)),
    (pa.array([1.0, 1.5]), LONG, "1.5"),
    (pa.array([Number("1.50"), Number("1.55")]), LONG, "1.5"),
    (pa.array([Number("1.500"), Number("1.555")]), Decimal(5, 2), "1.555"),
    (pa.array([1, 10**10]), Decimal(38, 30), str(10**10)),
    (pa.array([1.0, None]), Decimal(5, 2), "1.0"),
    (pa.array(["1"]), LONG, "1"),
    (pa.array([True]), LONG, "True"),
    (pa.array([1]), BOOLEAN, "1"),
    (pa.array([DAY]), TIMESTAMP, "2026-02-03"),
    (pa.array([NOON], pa.timestamp("us")), DATE, "2026-02-03 12:00"),
    (pa.array([NOON], pa.timestamp("us")), TIMESTAMPTZ, "2026-02-03 12:00"),
    (pa.array([NOON], pa.timestamp("us", tz="UTC")), TIMESTAMP, "2026-02-03 12:00"),
    (pa.array([1000, NANOS], pa.timestamp("ns")), TIMESTAMP, "nanoseconds"),
    (pa.array([1000, NANOS], pa.timestamp("ns", tz="UTC")), TIMESTAMPTZ, "nanoseconds"),
    (pa.array([1000, 1001], pa.time64("ns")), TIME, "nanoseconds"),
    (pa.array([b"\xff\xfe"]), STRING, "xff"),
    (pa.array([b"abc"], pa.binary(3)), Fixed(4), "abc"),
    (pa.array([[1]]), LONG, "[1]"),
    (pa.array([1]), ListOf(LONG), "1"),
    (pa.array([1]), Struct((Field("x", LONG),)), "1"),
]


@pytest.mark.parametrize(("array", "kind", "text"), MISFITS, ids=[f"{a.type}-{k}" for a, k, _ in MISFITS])
def test_a_value_that_does_not_fit_fails_the_file_and_is_named(array: pa.Array, kind: DataType, text: str) -> None:
    with pytest.raises(FileError) as caught:
        convert(array, kind)

    assert caught.value.category is Category.SCHEMA_MISMATCH
    assert "column a" in caught.value.message
    assert text in caught.value.message


def test_the_row_of_a_misfit_is_counted_through_the_whole_file() -> None:
    table = pa.table({"a": pa.array([1.0] * 200_000 + [1.5, 2.5])})

    with pytest.raises(FileError, match=r"Row 200,001, column a: the value 1\.5 does not fit"):
        read(parquet_bytes(table, row_group_size=150_000), Struct((Field("a", LONG),)))


def test_inside_a_list_the_row_is_that_of_the_list() -> None:
    kind = ListOf(Struct((Field("x", LONG),)))
    rows = [[{"x": 1.0}, {"x": 2.0}], [], None, [{"x": 3.0}, {"x": 4.5}]]

    with pytest.raises(FileError, match=r"Row 4, column a\.element\.x: the value 4\.5"):
        convert(pa.array(rows, pa.list_(pa.struct([("x", pa.float64())]))), kind)


NEWS: list[tuple[pa.Array, DataType]] = [
    (pa.array([1], pa.int64()), INT),
    (pa.array([1], pa.uint32()), INT),
    (pa.array([1.5], pa.float64()), FLOAT),
    (pa.array([1], pa.int64()), FLOAT),
    (pa.array([Number("1.50")], pa.decimal128(9, 2)), Decimal(5, 2)),
    (pa.array([{"x": 1, "y": 2}]), Struct((Field("x", LONG),))),
    (pa.array([[{"x": 1, "y": 2}]]), ListOf(Struct((Field("x", LONG),)))),
    (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), MapOf(STRING, INT)),
]


@pytest.mark.parametrize(("array", "kind"), NEWS, ids=[f"{a.type}-{k}" for a, k in NEWS])
def test_what_the_table_can_grow_to_hold_is_drift(array: pa.Array, kind: DataType) -> None:
    schema = Struct((Field("a", kind, id=1),))
    data = parquet_bytes(pa.table({"a": array}))

    with pytest.raises(DriftError):
        read(data, schema)

    assert news(schema, source(data).schema) != Struct()


def test_a_new_column_is_drift_and_one_of_nulls_is_not() -> None:
    schema = Struct((Field("a", LONG, id=1),))

    with pytest.raises(DriftError, match="add b string"):
        read(parquet_bytes(pa.table({"a": [1], "b": ["x"]})), schema)
    nulls = parquet_bytes(pa.table({"a": [1], "b": pa.nulls(1)}))
    assert read(nulls, schema).to_pylist() == [{"a": 1}]
    assert source(nulls).schema.fields[1].name == "b"


def test_news_are_only_what_is_new() -> None:
    known = Struct((Field("a", INT), Field("s", Struct((Field("x", LONG),))), Field("t", STRING)))
    seen = Struct(
        (Field("A", LONG), Field("s", Struct((Field("x", LONG), Field("y", DATE)))), Field("t", LONG), Field("n", DATE))
    )

    assert news(known, seen) == Struct(
        (Field("A", LONG), Field("s", Struct((Field("y", DATE),))), Field("n", DATE)),
    )


def nested(levels: int) -> pa.Array:
    """A number within so many structs."""
    array = pa.array([1])
    for _ in range(levels):
        array = pa.StructArray.from_arrays([array], ["x"])
    return array


def test_a_column_too_deep_for_a_table_fails_its_file() -> None:
    with pytest.raises(DriftError):
        source(parquet_bytes(pa.table({"a": nested(50)}))).check_drift(Struct())
    deep = parquet_bytes(pa.table({"id": [1], "A": nested(51)}))
    with pytest.raises(FileError, match=r'Column "A" is nested 51 levels deep') as failure:
        source(deep).check_drift(Struct((Field("a", Struct((Field("y", LONG),))),)))
    assert failure.value.category is Category.LIMIT_EXCEEDED


def test_a_deep_column_that_the_table_has_as_text_or_already_is_read() -> None:
    deep = parquet_bytes(pa.table({"a": nested(60)}))
    assert read(deep, Struct((Field("a", STRING),)))["a"][0].as_py().count('"x"') == 60
    source(deep).check_drift(source(deep).schema)


PAIRS = pa.map_(pa.string(), pa.int64())
# A file of its own clash; or a table, and a file that has the other name.
CLASHES = [
    (Struct(), pa.table({"a": [{"b": 2}], "a.b": [1]}), "a.b"),
    (Struct(), pa.table({"l": [[1]], "l.element": [5]}), "l.element"),
    (Struct(), pa.table({"m": pa.array([[("k", 1)]], PAIRS), "M.Key": [1]}), "M.Key"),
    (Struct(), pa.table({"m": pa.array([[("k", 1)]], PAIRS), "m.value": [1]}), "m.value"),
    (Struct((Field("a.b", LONG),)), pa.table({"a": [{"b": 2, "c": 3}]}), "a.b"),
    (Struct((Field("a.b", LONG), Field("l", ListOf(Struct((Field("x", LONG),)))))), pa.table({"a": [{"b": 2}]}), "a"),
]


@pytest.mark.parametrize(("schema", "table", "name"), CLASHES, ids=[str(i) for i in range(len(CLASHES))])
def test_a_column_whose_dotted_name_is_taken_fails_its_file(schema: Struct, table: pa.Table, name: str) -> None:
    with pytest.raises(
        FileError, match=rf'cannot take a column of this file \("{name}"\): its name is taken'
    ) as failure:
        source(parquet_bytes(table)).check_drift(schema)
    assert failure.value.category is Category.SCHEMA_MISMATCH


def test_nulls_of_a_name_that_is_taken_are_none_lost() -> None:
    source(parquet_bytes(pa.table({"a": pa.nulls(1)}))).check_drift(Struct((Field("a.b", LONG),)))


def test_a_new_field_in_the_keys_of_a_map_fails_its_file() -> None:
    kind = MapOf(Struct((Field("a", LONG),)), LONG)
    keys = pa.map_(pa.struct([("a", pa.int64()), ("b", pa.int64())]), pa.int64())
    data = parquet_bytes(pa.table({"m": pa.array([[({"a": 1, "b": 1}, 10), ({"a": 1, "b": 2}, 20)]], keys)}))
    with pytest.raises(FileError, match=r'"m\.key\.b".* keys take no new fields') as failure:
        source(data).check_drift(Struct((Field("m", kind),)))
    assert failure.value.category is Category.SCHEMA_MISMATCH


def test_a_uuid_as_text_has_its_usual_form() -> None:
    text = "12345678-1234-5678-1234-567812345678"
    array = pa.array([uuid.UUID(text).bytes, None], pa.uuid())
    assert convert(array, STRING) == [text, None]
    lists = pa.ListArray.from_arrays([0, 2], array)
    assert convert(lists, ListOf(STRING)) == [[text, None]]


def test_what_no_walk_can_follow_is_refused_at_once() -> None:
    with pytest.raises(FileError, match="nested deeper than 100 levels") as failure:
        source(parquet_bytes(pa.table({"a": nested(101)}), store_schema=False))
    assert failure.value.category is Category.LIMIT_EXCEEDED


def test_names_match_without_case_and_missing_columns_are_null_at_any_depth() -> None:
    kind = Struct((Field("X", LONG, id=2), Field("gone", STRING, id=3)))
    schema = Struct((Field("missing", DATE, id=4), Field("A", ListOf(kind, element_id=5), id=1)))
    table = pa.table({"a": pa.array([[{"x": 1}], None, []], pa.list_(pa.struct([("x", pa.int32())])))})

    assert read(parquet_bytes(table), schema).to_pylist() == [
        {"missing": None, "A": [{"X": 1, "gone": None}]},
        {"missing": None, "A": None},
        {"missing": None, "A": []},
    ]


NESTED: list[tuple[list[Any], pa.DataType, DataType]] = [
    ([[1], None, [], [None, 2]], pa.list_(pa.int32()), ListOf(LONG)),
    ([[1], None, [], [2]], pa.large_list(pa.int64()), ListOf(LONG)),
    ([[1, 2], [3, 4]], pa.list_(pa.int64(), 2), ListOf(LONG)),
    ([[[1], None], None, [[]]], pa.list_(pa.list_(pa.int64())), ListOf(ListOf(LONG))),
    ([{"x": 1}, None, {"x": None}], pa.struct([("x", pa.int64())]), Struct((Field("x", LONG),))),
    ([[("k", 1)], None, [], [("l", None)]], pa.map_(pa.string(), pa.int32()), MapOf(STRING, LONG)),
    (
        [[("k", [{"x": 1}])], None],
        pa.map_(pa.string(), pa.list_(pa.struct([("x", pa.int32())]))),
        MapOf(STRING, ListOf(Struct((Field("x", LONG),)))),
    ),
]


@pytest.mark.parametrize(("rows", "arrow", "kind"), NESTED, ids=[str(a) for _, a, _ in NESTED])
def test_nested_values_keep_their_nulls(rows: list[Any], arrow: pa.DataType, kind: DataType) -> None:
    assert convert(pa.array(rows * 3, arrow), kind, row_group_size=2) == rows * 3


def test_nulls_in_a_required_column_fail_the_file() -> None:
    schema = Struct((Field("a", LONG, required=True),))

    assert read(parquet_bytes(pa.table({"a": [1, 2]})), schema).num_rows == 2
    for table in (pa.table({"a": [1, None]}), pa.table({"b": pa.nulls(1)})):
        with pytest.raises(FileError, match="required"):
            read(parquet_bytes(table), schema)


# --- INT96 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("year", [1, 1600, 1970, 2026, 2262, 2500, 9999])
def test_int96_is_read_to_the_microsecond_in_any_year(year: int) -> None:
    when = dt.datetime(year, 7, 8, 9, 10, 11, 123456)  # noqa: DTZ001

    found = convert(pa.array([when, None], pa.timestamp("us")), TIMESTAMP, use_deprecated_int96_timestamps=True)

    assert found == [when, None]


def test_int96_with_nanoseconds_does_not_fit() -> None:
    for rows, arrow in (([1000, NANOS], pa.timestamp("ns")), ([[1000], [NANOS]], pa.list_(pa.timestamp("ns")))):
        kind: DataType = ListOf(TIMESTAMP) if pa.types.is_list(arrow) else TIMESTAMP
        with pytest.raises(FileError, match="nanoseconds") as caught:
            convert(pa.array(rows, arrow), kind, use_deprecated_int96_timestamps=True)
        assert caught.value.category is Category.SCHEMA_MISMATCH


# --- files that are not what they should be -----------------------------------------------------------------------

GOOD = parquet_bytes(pa.table({"a": list(range(1000))}), compression="none")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PAR1",
        b"PAR1PAR1",
        b"{}\n" * 100,
        GOOD[:-1],
        GOOD[: len(GOOD) // 2],
        GOOD[4:],
        b"PAR1" + b"x" * 50 + b"PAR1",
    ],
)
def test_what_is_not_parquet_is_said_so(data: bytes) -> None:
    with pytest.raises(FileError) as caught:
        source(data)

    assert caught.value.category is Category.DATA_MALFORMED
    assert "Parquet" in caught.value.message


def test_damaged_pages_are_an_error() -> None:
    data = bytearray(parquet_bytes(pa.table({"a": list(range(10_000))}), write_page_checksum=True))
    data[100:200] = b"\xff" * 100

    with pytest.raises(FileError, match="damaged") as caught:
        read(bytes(data), Struct((Field("a", LONG),)))

    assert caught.value.category is Category.DATA_MALFORMED


def test_an_encrypted_file_is_said_so() -> None:
    with pytest.raises(FileError, match="encrypted") as caught:
        source(b"PARE" + b"x" * 50 + b"PARE")

    assert caught.value.category is Category.DATA_MALFORMED


@pytest.mark.parametrize("names", [("a", "a"), ("a", "A")])
def test_a_column_that_is_there_twice_fails_the_file(names: tuple[str, str]) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=list(names))

    with pytest.raises(FileError, match=r"'[aA]'") as caught:
        source(parquet_bytes(table))

    assert caught.value.category is Category.DATA_MALFORMED


def test_a_file_without_columns_has_its_rows() -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": [1, 2]}).select([]), buffer)

    assert read(buffer.getvalue(), Struct((Field("a", LONG),))).num_rows == source(buffer.getvalue()).rows


def test_a_file_without_rows_is_read() -> None:
    assert read(parquet_bytes(pa.table({"a": pa.array([], pa.int64())})), Struct((Field("a", LONG),))).num_rows == 0


def test_columns_that_the_table_does_not_have_yet_leave_rows_without_columns() -> None:
    tables = list(source(parquet_bytes(pa.table({"a": pa.nulls(3)}))).tables(Struct()))

    assert [table.num_rows for table in tables] == [3]


def test_errors_of_the_source_stay_what_they_are() -> None:
    reader = BytesReader(parquet_bytes(pa.table({"a": list(range(100_000))}), row_group_size=20_000))
    parquet = opened(reader)
    reader.failing = True

    with pytest.raises(FileError) as caught:
        list(parquet.tables(Struct((Field("a", LONG),))))

    assert caught.value.category is Category.CONNECTIVITY


def test_a_large_file_is_read_by_few_requests_each_a_row_group() -> None:
    rows = 400_000
    table = pa.table({name: pa.array(range(rows)) for name in "abcdef"})
    reader = BytesReader(parquet_bytes(table, row_group_size=rows // 4, compression="none", use_dictionary=False))
    schema = Struct(tuple(Field(name, LONG) for name in "abcdef"))

    assert sum(t.num_rows for t in opened(reader).tables(schema)) == rows

    assert len(reader.asked) <= 4 + 4
    assert max(stop - start for start, stop in reader.asked) < len(reader.data) / 3


def test_a_file_in_a_folder_is_read(tmp_path: Path) -> None:
    file = put(tmp_path, "a.parquet", GOOD)

    assert ParquetSource(StoredFile(FolderReader(), file)).rows == 1000
