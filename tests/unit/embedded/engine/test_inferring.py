"""Samples of large files: what is far inside them is seen, what cannot be cut is left out."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pytest

from app.domain.errors import Category, FileFailure
from app.domain.files import SourceFile
from app.domain.formats import FileFormat, FormatOptions
from app.domain.ports import Reading
from app.domain.types import DOUBLE, EMPTY, LONG, STRING, DataType, Field, Struct
from app.engines.embedded.inferring import infer
from app.engines.embedded.messages import InferJob, Observed
from app.engines.embedded.sampling import plan_samples
from tests.fakes.files import FolderReader, parquet_bytes, put

SAMPLE_BYTES = 60_000


def look(
    files: list[SourceFile], file_format: FileFormat, known: Struct = EMPTY, *, sample_bytes: int = SAMPLE_BYTES
) -> Observed:
    options = FormatOptions(file_format, sample_bytes=sample_bytes)
    samples = plan_samples(files, sample_bytes)
    return infer(InferJob(samples, Reading(FolderReader(), options), known), lambda _: None)


def types(observed: Observed) -> dict[str, DataType]:
    (seen,) = observed.seen
    assert isinstance(seen, Struct), seen
    return {field.name: field.type for field in seen.fields}


def ndjson(count: int) -> bytes:
    middle, last = count // 2, count - 1
    extra: dict[int, dict[str, object]] = {middle: {"middle": "x"}, last: {"last": 1.5}}
    return b"".join(json.dumps({"id": i, "pad": "é" * 40, **extra.get(i, {})}).encode() + b"\n" for i in range(count))


def test_start_middle_and_end_of_lines_are_seen(tmp_path: Path) -> None:
    observed = look([put(tmp_path, "a.json", ndjson(10_001))], FileFormat.JSON)

    assert types(observed) == {"id": LONG, "pad": STRING, "middle": STRING, "last": DOUBLE}
    assert observed.sampled_bytes <= SAMPLE_BYTES


def test_csv_slices_have_the_header(tmp_path: Path) -> None:
    lines = [f"{i},{i},name {i}" for i in range(20_000)]
    lines[-1] = "1.5,7,x"
    data = "id,n,name\n" + "\n".join(lines) + "\n"

    observed = look([put(tmp_path, "a.csv", data)], FileFormat.CSV)

    assert types(observed) == {"id": DOUBLE, "n": LONG, "name": STRING}


def test_compressed_files_are_seen_further_on_too(tmp_path: Path) -> None:
    rows = [json.dumps({"id": i, "hash": f"{hash((i, 'x')):x}"}) for i in range(200_000)]
    late = [json.dumps({"id": i, "late": f"{hash((i, 'y')):x}"}) for i in range(200_000)]
    data = gzip.compress("\n".join(rows + late).encode(), 1)
    assert len(data) > 2**21

    observed = look([put(tmp_path, "a.json.gz", data)], FileFormat.JSON)

    assert {"id", "hash"} <= set(types(observed))
    assert observed.sampled_bytes < 10 * 2**20


def test_of_an_array_the_head_is_seen(tmp_path: Path) -> None:
    data = json.dumps([{"id": i, "pad": "x" * 50} for i in range(5000)])

    assert types(look([put(tmp_path, "a.json", data)], FileFormat.JSON)) == {"id": LONG, "pad": STRING}


def test_a_record_longer_than_the_sample_is_seen_whole(tmp_path: Path) -> None:
    data = json.dumps({"id": 1, "pad": "x" * 10 * SAMPLE_BYTES}) + "\n"

    assert types(look([put(tmp_path, "a.json", data)], FileFormat.JSON)) == {"id": LONG, "pad": STRING}


def test_a_slice_inside_quotes_does_no_harm(tmp_path: Path) -> None:
    # Quoted line breaks only where the head does not show them.
    plain = "".join(f"{i},x\n" for i in range(10_000))
    quoted = "".join(f'{i},"a\nb,c,""d\n"\n' for i in range(10_000))

    observed = look([put(tmp_path, "a.csv", "id,name\n" + plain + quoted)], FileFormat.CSV)

    assert set(types(observed)) == {"id", "name"}


DEEP = b'{"x":' * 60 + b"1" + b"}" * 60 + b"\n"


@pytest.mark.parametrize("bad", [DEEP, b'{"id": \n', b"{]\n", gzip.compress(b'{"id": 1}\n' * 100, mtime=0)[:-9]])
def test_files_looked_at_together_fail_alone(tmp_path: Path, bad: bytes) -> None:
    files = [put(tmp_path, f"{i}.json", f'{{"id": {i}, "c{i}": 1}}') for i in range(4)]
    files.insert(2, put(tmp_path, "1b.json", bad))

    observed = look(files, FileFormat.JSON)

    failed = [seen for seen in observed.seen if isinstance(seen, FileFailure)]
    names = {f.name for seen in observed.seen if isinstance(seen, Struct) for f in seen.fields}
    assert [f.key for f in failed] == [files[2].key]
    assert names == {"id", "c0", "c1", "c2", "c3"}


@pytest.mark.parametrize("name", ["a.json.gz", "a.csv.gz"])
def test_what_a_file_showed_before_it_failed_does_not_hide_it_in_others(tmp_path: Path, name: str) -> None:
    """It is not loaded, so that its columns are to be had from the others alone."""
    kind = FileFormat.CSV if "csv" in name else FileFormat.JSON
    numbers = random.Random(7)  # noqa: S311
    values = [f"{numbers.getrandbits(128):x}-" for _ in range(100_000)]
    csv = "id,hash\n" + "".join(f"{i},{value}\n" for i, value in enumerate(values))
    rows = "".join(f'{{"id": {i}, "hash": "{value}"}}\n' for i, value in enumerate(values))
    data = gzip.compress((csv if kind is FileFormat.CSV else rows).encode(), 1)
    # Behind what is read first, and before the last that is looked at.
    damaged = data[:1_200_000] + bytes(1_000) + data[1_201_000:]
    files = [put(tmp_path, name, damaged), put(tmp_path, f"b{name}", data)]

    broken, whole = look(files, kind, sample_bytes=2_000_000).seen

    assert isinstance(broken, FileFailure)
    assert isinstance(whole, Struct)
    assert {field.name: field.type for field in whole.fields} == {"id": LONG, "hash": STRING}


def test_files_like_others_show_nothing_new(tmp_path: Path) -> None:
    files = [put(tmp_path, f"{i}.json", ndjson(1_000)) for i in range(3)]
    first, *others = look(files, FileFormat.JSON).seen
    assert isinstance(first, Struct)
    assert [field.name for field in first.fields] == ["id", "pad", "middle", "last"]
    assert others
    assert set(others) == {EMPTY}


def test_of_parquet_the_footers_tell(tmp_path: Path) -> None:
    table = pa.table({"id": [1], "f": pa.array([1.5], pa.float64())})
    files = [put(tmp_path, "a.parquet", parquet_bytes(table)), put(tmp_path, "b.parquet", b"no")]

    observed = look(files, FileFormat.PARQUET)

    assert [type(seen) for seen in observed.seen] == [Struct, FileFailure]


def test_a_column_too_deep_for_a_table_is_no_part_of_what_is_joined(tmp_path: Path) -> None:
    array = pa.array([1])
    for _ in range(51):
        array = pa.array([[1]]) if array.type == pa.int64() else pa.ListArray.from_arrays([0, 1], array)
    files = [put(tmp_path, "a.parquet", parquet_bytes(pa.table({"x": array})))]
    files.append(put(tmp_path, "b.parquet", parquet_bytes(pa.table({"x": [1]}))))

    deep, other = look(files, FileFormat.PARQUET).seen

    assert isinstance(deep, FileFailure)
    assert deep.category is Category.LIMIT_EXCEEDED
    assert other == Struct((Field("x", LONG),))


def test_an_empty_file_shows_nothing(tmp_path: Path) -> None:
    assert look([put(tmp_path, "a.json", b"")], FileFormat.JSON).seen == (EMPTY,)
