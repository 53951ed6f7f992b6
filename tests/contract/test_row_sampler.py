"""What every row sampler promises: one suite on the embedded engine, with its processes, and on the fake."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from app.domain.errors import Category
from app.domain.formats import FileFormat, FormatOptions
from app.domain.ports import Reading
from app.domain.sampling import RowSampler
from app.domain.types import DOUBLE, LONG, STRING, Field, Struct
from app.engines.embedded.engine import EmbeddedEngine
from tests.fakes.engine import FakeEngine
from tests.fakes.files import FolderReader, parquet_bytes, put

SCHEMA = Struct((Field("id", LONG), Field("name", STRING)))


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(processes=2)
    yield engine
    engine.close()


@pytest.fixture(params=["embedded", "fake"])
def sampler(request: pytest.FixtureRequest, embedded: EmbeddedEngine) -> RowSampler:
    return embedded if request.param == "embedded" else FakeEngine()


def reading(kind: FileFormat) -> Reading:
    return Reading(FolderReader(), FormatOptions(kind))


def lines(start: int, count: int) -> bytes:
    return b"".join(b'{"id": %d, "name": "n%d"}\n' % (i, i) for i in range(start, start + count))


def test_the_first_rows_of_each_file_in_their_order(sampler: RowSampler, tmp_path: Path) -> None:
    files = [put(tmp_path, "a.json", lines(0, 3)), put(tmp_path, "b.json", lines(10, 3))]
    seen = sampler.sample_rows(files, reading(FileFormat.JSON), SCHEMA, 5)
    assert [row["id"] for row in seen.rows] == [0, 1, 2, 10, 11]
    assert seen.counted == 6
    assert seen.stored_bytes == sum(file.size_bytes for file in files)
    assert seen.failed == ()
    assert seen.estimate(10 * seen.stored_bytes) == 60


def test_no_file_has_no_row(sampler: RowSampler) -> None:
    seen = sampler.sample_rows([], reading(FileFormat.JSON), SCHEMA, 5)
    assert seen.rows == ()
    assert seen.estimate(100) is None


def test_a_file_that_cannot_be_read_is_named_and_harms_no_other(sampler: RowSampler, tmp_path: Path) -> None:
    files = [put(tmp_path, "a.json", b'{"id": 1, "na'), put(tmp_path, "b.json", lines(10, 3))]
    seen = sampler.sample_rows(files, reading(FileFormat.JSON), SCHEMA, 5)
    assert [row["id"] for row in seen.rows] == [10, 11, 12]
    assert [(f.key, f.category) for f in seen.failed] == [(files[0].key, Category.DATA_MALFORMED)]


def test_csv_and_parquet(sampler: RowSampler, tmp_path: Path) -> None:
    csv = put(tmp_path, "a.csv", b"id,name\n1,x\n2,\n")
    seen = sampler.sample_rows([csv], reading(FileFormat.CSV), SCHEMA, 5)
    assert seen.rows == ({"id": 1, "name": "x"}, {"id": 2, "name": None})
    table = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "name": ["x", "y", None]})
    stored = put(tmp_path, "a.parquet", parquet_bytes(table))
    seen = sampler.sample_rows([stored], reading(FileFormat.PARQUET), SCHEMA, 2)
    assert seen.rows == ({"id": 1, "name": "x"}, {"id": 2, "name": "y"})
    assert seen.counted == 3


def test_a_part_that_shows_more_than_the_schema_has_is_shown_whole(sampler: RowSampler, tmp_path: Path) -> None:
    file = put(tmp_path, "a.json", lines(0, 1) + b'{"id": 7, "name": "x", "more": true}\n')
    seen = sampler.sample_rows([file], reading(FileFormat.JSON), SCHEMA, 5)
    assert [row["id"] for row in seen.rows] == [0, 7]
    assert [row["more"] for row in seen.rows] == [None, True]


def test_of_a_large_file_the_start_is_read_and_the_rest_estimated(embedded: EmbeddedEngine, tmp_path: Path) -> None:
    content = lines(1_000_000, 100_000)
    for name, stored in (("a.json", content), ("a.json.gz", gzip.compress(content))):
        file = put(tmp_path, name, stored)
        seen = embedded.sample_rows([file], reading(FileFormat.JSON), SCHEMA, 3)
        assert [row["id"] for row in seen.rows] == [1_000_000, 1_000_001, 1_000_002]
        assert seen.counted < 100_000
        assert seen.estimate(file.size_bytes) == pytest.approx(100_000, rel=0.35)


def test_values_have_a_json_form(embedded: EmbeddedEngine, tmp_path: Path) -> None:
    long = "x" * 5_000
    row = {"id": 1, "at": "2026-11-25T10:00:00Z", "day": "2026-11-25", "list": [1, 2], "in": {"a": long}, "f": 1.5}
    file = put(tmp_path, "a.json", json.dumps(row).encode() + b"\n")
    source = reading(FileFormat.JSON)
    schema = embedded.infer([file], source).schema
    (shown,) = embedded.sample_rows([file], source, schema, 1).rows
    assert json.loads(json.dumps(dict(shown), allow_nan=False)) == dict(shown)
    assert shown["at"].startswith("2026-11-25T10:00:00")
    assert shown["day"] == "2026-11-25"
    assert shown["list"] == [1, 2]
    assert len(shown["in"]["a"]) == 1_001


def test_numbers_that_json_does_not_have_are_texts(embedded: EmbeddedEngine, tmp_path: Path) -> None:
    table = pa.table({"id": [float("nan"), float("inf"), 1.0], "raw": [b"\xff", None, b""]})
    file = put(tmp_path, "a.parquet", parquet_bytes(table))
    schema = Struct((Field("id", DOUBLE),))
    seen = embedded.sample_rows([file], reading(FileFormat.PARQUET), schema, 5)
    assert [row["id"] for row in seen.rows] == ["nan", "inf", 1.0]
    assert [row["raw"] for row in seen.rows] == ["/w==", None, ""]
