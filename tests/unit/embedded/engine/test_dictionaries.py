"""Which columns of a data file get a dictionary, and that those of Parquet files are taken over as they are."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.formats import FileFormat, FormatOptions
from app.domain.ports import Reading, WriteOrder, WriteResult
from app.domain.system_columns import data_columns
from app.domain.types import BINARY, DOUBLE, LONG, STRING, UUID, Field, ListOf, MapOf, Struct
from app.engines.embedded import loading
from app.engines.embedded.arrow_types import arrow_schema
from app.engines.embedded.dictionaries import SAMPLE_ROWS, dictionary_columns, distinct_among
from app.engines.embedded.encode import DataFileNames, DataFileWriter, TableShape
from app.engines.embedded.messages import WriteJob
from app.engines.embedded.parquet import ParquetSource, StoredFile
from tests.fakes.catalog import FolderSink
from tests.fakes.files import FolderReader, parquet_bytes, put
from tests.support.tables import table_schema

ROWS = 40_000


def few(rows: int = ROWS) -> list[str]:
    return [f"word {i * 7919 % 50}" for i in range(rows)]


def many(rows: int = ROWS) -> list[str]:
    return [f"word {i * 7919}" for i in range(rows)]


def chosen(values: Iterable[object], group_rows: int = 1 << 20) -> bool:
    return dictionary_columns(pa.table({"a": pa.array(values)}), group_rows) == ["a"]


def test_values_that_come_again_get_a_dictionary() -> None:
    assert chosen(few())
    assert not chosen(many())
    assert chosen(i // 1000 for i in range(ROWS))
    assert not chosen(range(ROWS))
    assert chosen([None, *few(5000)])
    assert chosen([None] * 10)
    assert not chosen(["only one"])


def test_rows_are_looked_at_in_several_places() -> None:
    alike = [0] * SAMPLE_ROWS
    assert not chosen([*alike[: SAMPLE_ROWS // 4], *range(3 * SAMPLE_ROWS)])


def test_a_dictionary_has_to_pay_within_a_row_group() -> None:
    values = [i * 7919 % 8_000 for i in range(ROWS)]
    assert chosen(values)
    assert not chosen(values, group_rows=16_000)


def test_a_dictionary_must_not_overflow() -> None:
    assert chosen(["x" * 100 + str(i % 2000) for i in range(ROWS)])
    assert not chosen(["x" * 1000 + str(i % 2000) for i in range(ROWS)])


@settings(max_examples=30, deadline=None)
@given(st.integers(10, 20_000), st.integers(0, 9))
def test_the_number_of_values_is_guessed_from_those_seen(distinct: int, seed: int) -> None:
    seen = 8_000
    dice = random.Random(seed)  # noqa: S311 - no secret
    drawn = len({dice.randrange(distinct) for _ in range(seen)})
    assert distinct * 0.8 - 5 <= distinct_among(1_000_000, seen, drawn) <= distinct * 1.25 + 5


def test_of_values_that_were_all_seen_nothing_is_guessed() -> None:
    assert distinct_among(100, 100, 60) == 60
    assert distinct_among(10_000, 100, 100) >= 9_800


def test_columns_inside_others_are_chosen_by_their_own_values(tmp_path: Path) -> None:
    kind = Struct((Field("few", STRING), Field("many", STRING)))
    fields = [
        Field("s", kind),
        Field("l", ListOf(kind)),
        Field("m", MapOf(STRING, LONG)),
        Field("b", BINARY),
        Field("u", UUID),
        Field("d", DOUBLE),
    ]
    schema = table_schema(*fields)
    pairs = [{"few": f, "many": m} for f, m in zip(few(5000), many(5000), strict=True)]
    values: dict[str, list[object]] = {
        "s": [*pairs],
        "l": [[pair, None, pair] if i % 3 else None for i, pair in enumerate(pairs)],
        "m": [[(f"k{i % 5}", i)] for i in range(5000)],
        "b": [str(i % 5).encode() for i in range(5000)],
        "u": [str(i).zfill(16).encode() for i in range(5000)],
        "d": [i / 7 for i in range(5000)],
    }
    exact = arrow_schema(data_columns(schema))
    rows = pa.Table.from_arrays([pa.array(values[f.name], f.type) for f in exact], schema=exact)
    shape = TableShape(schema, "b-1")
    file = put(tmp_path, "a", "x")
    writer = DataFileWriter(FolderSink(str(tmp_path / "d")), shape.schema, DataFileNames("p", 1), lambda _: None)
    writer.write(shape.complete(rows, [(file, 5000)]))
    (written,) = writer.finish()

    group = pq.ParquetFile(written.path).metadata.row_group(0)
    stored = [group.column(i) for i in range(group.num_columns)]
    with_dictionary = {c.path_in_schema for c in stored if c.has_dictionary_page}
    wanted = {"s.few", "l.list.element.few", "m.key_value.key", "b"}
    ours = {"_file_path", "_file_modified_at", "_batch_id", "_rescued_data"}
    assert with_dictionary - ours == wanted
    assert {"_file_path", "_batch_id"} <= with_dictionary
    back = pq.read_table(written.path)
    for name in ("s", "l", "m", "b", "d"):
        assert back[name].to_pylist() == rows[name].to_pylist()


# --- dictionaries of the source ----------------------------------------------------------------------------------

SCHEMA = Struct((Field("n", LONG, id=1), Field("few", STRING, id=2), Field("many", STRING, id=3)))


def table(rows: int = ROWS) -> pa.Table:
    holed = [None if i % 11 == 0 else text for i, text in enumerate(few(rows))]
    return pa.table({"n": range(rows), "few": holed, "many": many(rows)})


def source(folder: Path, data: bytes) -> ParquetSource:
    file = put(folder, "f.parquet", data)
    return ParquetSource(StoredFile(FolderReader(), file))


@pytest.mark.parametrize("version", ["1.0", "2.4"])
@pytest.mark.parametrize("group_rows", [ROWS, ROWS // 7])
def test_dictionaries_of_a_file_are_taken_over(tmp_path: Path, version: str, group_rows: int) -> None:
    data = parquet_bytes(table(), version=version, row_group_size=group_rows)
    assert source(tmp_path, data).repeating(SCHEMA) == {"few"}

    plain = pa.concat_tables(source(tmp_path, data).tables(SCHEMA))
    taken = pa.concat_tables(source(tmp_path, data).tables(SCHEMA, frozenset({"few"})))

    assert taken.schema.field("few").type == pa.dictionary(pa.int32(), pa.string())
    assert taken.schema.field("few").metadata == plain.schema.field("few").metadata
    assert taken.column_names == plain.column_names
    assert taken.to_pylist() == plain.to_pylist() == table().to_pylist()


def test_only_text_that_the_table_has_as_text_is_taken_over(tmp_path: Path) -> None:
    data = parquet_bytes(table())
    for field in (Field("few", BINARY, id=2), Field("FEW", STRING, id=2), Field("few", STRING, id=2, required=True)):
        assert source(tmp_path, data).repeating(Struct((field,))) == frozenset()
    inside = parquet_bytes(pa.table({"s": [{"few": text} for text in few(2000)]}))
    schema = Struct((Field("few", STRING, id=1), Field("s", Struct((Field("few", STRING, id=3),)), id=2)))
    assert source(tmp_path, inside).repeating(schema) == frozenset()
    undone = parquet_bytes(table(), use_dictionary=False)
    assert source(tmp_path, undone).repeating(SCHEMA) == frozenset()
    given_up = parquet_bytes(table(), dictionary_pagesize_limit=64)
    assert "many" not in source(tmp_path, given_up).repeating(SCHEMA)
    old = parquet_bytes(
        table().append_column("t", pa.array([0] * ROWS, pa.timestamp("ns"))), use_deprecated_int96_timestamps=True
    )
    assert source(tmp_path, old).repeating(SCHEMA) == frozenset()


def written(folder: Path, name: str) -> WriteResult:
    data = parquet_bytes(table(), row_group_size=ROWS // 5)
    file = put(folder, "f.parquet", data)
    schema = table_schema(*SCHEMA.fields)
    reading = Reading(FolderReader(), FormatOptions(FileFormat.PARQUET))
    order = WriteOrder((file,), reading, schema, FolderSink(str(folder / name)), "b-1", "p")
    return loading.write(WriteJob(order, 1), lambda _: None)


def test_a_large_file_keeps_its_dictionaries_and_its_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = written(tmp_path, "whole")
    monkeypatch.setattr(loading, "SMALL_FILE_BYTES", 0)
    streamed = written(tmp_path, "streamed")

    assert not whole.failed
    assert not streamed.failed
    one, other = (pa.concat_tables(pq.read_table(d.path) for d in r.data_files) for r in (whole, streamed))
    assert one.schema.equals(other.schema, check_metadata=True)
    assert one.to_pylist() == other.to_pylist()
    assert one.select(["n", "few", "many"]).to_pylist() == table().to_pylist()
