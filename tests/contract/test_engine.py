"""What every engine promises: one suite on the embedded one, with its processes, and on the fake.

The embedded one comes twice: once it cuts whatever it can, into spans of a few bytes.
"""

from __future__ import annotations

import fcntl
import gzip
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.domain.errors import Category, WriteFailureError
from app.domain.evolution import AddColumn, PromoteColumn, plan_changes
from app.domain.files import SourceFile
from app.domain.formats import FileFormat, FormatOptions
from app.domain.ports import DataSink, Engine, Reading, RewriteOrder, Rewritten, WriteOrder, WriteResult
from app.domain.replacing import RowsOf, StoredData
from app.domain.types import BOOLEAN, DOUBLE, INT, LONG, STRING, Field, Struct
from app.engines.embedded.engine import EmbeddedEngine
from tests.fakes.catalog import FolderSink
from tests.fakes.engine import FakeEngine
from tests.fakes.files import MODIFIED_AT, FolderReader, parquet_bytes, put
from tests.support.tables import table_schema, written, written_rows

SCHEMA = table_schema(Field("id", LONG), Field("name", STRING))


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(processes=2)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def cutting() -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(processes=2, span_bytes=40)
    yield engine
    engine.close()


@pytest.fixture(params=["embedded", "cutting", "fake"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return FakeEngine() if request.param == "fake" else request.getfixturevalue(request.param)


class Counted:
    """Adds up what an engine says that it did."""

    def __init__(self) -> None:
        self.files = self.rows = self.stored_bytes = 0

    def __call__(self, *, files: int = 0, rows: int = 0, stored_bytes: int = 0) -> None:
        self.files += files
        self.rows += rows
        self.stored_bytes += stored_bytes


@dataclass(frozen=True)
class FullSink:
    """A disk that takes `room` files and then no bytes more."""

    folder: str
    room: int

    def create(self, name: str) -> tuple[str, AbstractContextManager[BinaryIO]]:
        path = Path(self.folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(path), self._file(path)

    def delete(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        return Path(path).open("rb")

    @contextmanager
    def _file(self, path: Path) -> Iterator[BinaryIO]:
        with self._made(path) as file:
            yield file

    def _made(self, path: Path) -> BinaryIO:
        # One process at a time, or two of them find the last room.
        with path.parent.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if len(list(path.parent.iterdir())) >= self.room:
                raise OSError(28, "No space left on device")
            return path.open("wb")


def order(
    files: list[SourceFile],
    sink: DataSink,
    file_format: FileFormat = FileFormat.JSON,
    schema: Struct = SCHEMA,
    *,
    provenance: bool = True,
    report_drift: bool = True,
) -> WriteOrder:
    reading = Reading(FolderReader(), FormatOptions(file_format))
    return WriteOrder(
        tuple(files), reading, schema, sink, "ing-00000007", "t7", provenance=provenance, report_drift=report_drift
    )


def outcome(result: WriteResult, files: list[SourceFile]) -> dict[str, str]:
    """File name → what became of it; each file has to be in exactly one place."""
    places = [(f.key, "loaded") for f in result.loaded]
    places += [(f.key, "failed") for f in result.failed] + [(f.key, "drifted") for f in result.drifted]
    assert Counter(key for key, _ in places) == Counter(file.key for file in files)
    return {key.rsplit("/", 1)[-1]: place for key, place in places}


@pytest.fixture
def sink(tmp_path: Path) -> FolderSink:
    (tmp_path / "data").mkdir()
    return FolderSink(str(tmp_path / "data"))


def left_behind(sink: FolderSink | FullSink) -> list[str]:
    folder = Path(sink.folder)
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def lines(*ids: int) -> str:
    return "".join(f'{{"id": {i}, "name": "n{i}"}}\n' for i in ids)


def test_rows_of_json_files_arrive_with_where_they_came_from(engine: Engine, tmp_path: Path, sink: FolderSink) -> None:
    files = [put(tmp_path, "a.json", lines(1, 2)), put(tmp_path, "b.json", lines(3))]
    counted = Counted()

    result = engine.write(order(files, sink), counted)

    assert written_rows(result) == [
        {
            "id": i,
            "name": f"n{i}",
            "_file_path": file.key,
            "_file_modified_at": MODIFIED_AT,
            "_batch_id": "ing-00000007",
            "_rescued_data": None,
        }
        for i, file in ((1, files[0]), (2, files[0]), (3, files[1]))
    ]
    assert [(f.key, f.version, f.rows, f.size_bytes) for f in result.loaded] == [
        (files[0].key, files[0].version, 2, files[0].size_bytes),
        (files[1].key, files[1].version, 1, files[1].size_bytes),
    ]
    assert (counted.files, counted.rows) == (2, 3)
    assert counted.stored_bytes == sum(f.size_bytes for f in files)


def test_data_files_say_their_names_rows_and_sizes(engine: Engine, tmp_path: Path, sink: FolderSink) -> None:
    result = engine.write(order([put(tmp_path, "a.json", lines(1, 2))], sink), Counted())

    (data_file,) = result.data_files
    path = Path(data_file.path)
    assert path.parent == tmp_path / "data"
    assert path.name.startswith("t7-")
    assert (data_file.rows, data_file.size_bytes) == (2, path.stat().st_size)
    assert left_behind(sink) == [path.name]


@pytest.mark.parametrize("provenance", [True, False])
def test_the_schema_of_data_files_is_the_tables_with_its_ids(
    engine: Engine, tmp_path: Path, sink: FolderSink, *, provenance: bool
) -> None:
    schema = table_schema(Field("id", LONG), Field("name", STRING), provenance=provenance)

    result = engine.write(
        order([put(tmp_path, "a.json", lines(1))], sink, schema=schema, provenance=provenance), Counted()
    )

    found = [(f.name, int(f.metadata[b"PARQUET:field_id"])) for f in written(result).schema]
    assert found == [(f.name, f.id) for f in schema.fields]
    assert {f.name for f in written(result).schema} >= {"_rescued_data"}
    assert ("_file_path" in written(result).schema.names) == provenance


@pytest.mark.parametrize("file_format", list(FileFormat))
def test_a_file_much_larger_than_the_others_arrives_in_order(
    engine: Engine, tmp_path: Path, sink: FolderSink, file_format: FileFormat
) -> None:
    ids = list(range(3_000))
    data: dict[FileFormat, bytes] = {
        FileFormat.JSON: lines(*ids).encode(),
        FileFormat.CSV: b"id,name\n" + b"".join(b'%d,"n%d"\n' % (i, i) for i in ids),
        FileFormat.PARQUET: parquet_bytes(pa.table({"id": ids, "name": [f"n{i}" for i in ids]}), row_group_size=1_000),
    }
    small = {FileFormat.JSON: lines(-1).encode(), FileFormat.CSV: b"id,name\n-1,n-1\n"}
    none = parquet_bytes(pa.table({"id": [-1], "name": ["n-1"]}))
    files = [
        put(tmp_path, "a", small.get(file_format, none)),
        put(tmp_path, "b", data[file_format]),
        put(tmp_path, "c", small.get(file_format, none)),
    ]
    counted = Counted()

    result = engine.write(order(files, sink, file_format), counted)

    by_file = {
        key: [(r["id"], r["name"]) for r in written_rows(result) if r["_file_path"] == key]
        for key in (f.key for f in files)
    }
    assert by_file == {
        files[0].key: [(-1, "n-1")],
        files[1].key: [(i, f"n{i}") for i in ids],
        files[2].key: [(-1, "n-1")],
    }
    assert [(f.key, f.rows) for f in result.loaded] == [(f.key, len(by_file[f.key])) for f in files]
    assert left_behind(sink) == sorted(f.path.rsplit("/", 1)[-1] for f in result.data_files)
    assert (counted.files, counted.rows) == (3, 3_002)
    for data_file in result.data_files:
        # Rows stand file by file: each path once, in the order of the files.
        paths = [r["_file_path"] for r in pq.read_table(data_file.path).to_pylist()]
        assert paths == sorted(paths)


def test_a_bad_line_deep_in_a_file_keeps_all_of_it_out(engine: Engine, tmp_path: Path, sink: FolderSink) -> None:
    text = lines(*range(2_000)) + '{"id": "x"}\n' + lines(*range(500))
    files = [put(tmp_path, "a.json", lines(1)), put(tmp_path, "b.json", text)]

    result = engine.write(order(files, sink), Counted())

    assert outcome(result, files) == {"a.json": "loaded", "b.json": "failed"}
    assert result.failed[0].category is Category.SCHEMA_MISMATCH
    if not isinstance(engine, FakeEngine):
        assert result.failed[0].line == 2_001
        assert "line 2001" in result.failed[0].message
    assert [r["id"] for r in written_rows(result)] == [1]
    assert left_behind(sink) == [f.path.rsplit("/", 1)[-1] for f in result.data_files]


def test_columns_that_are_new_deep_in_a_file_are_reported_together(
    engine: Engine, tmp_path: Path, sink: FolderSink
) -> None:
    text = (
        lines(*range(500)) + '{"id": 1, "x": 1}\n' + lines(*range(500)) + '{"id": 2, "x": 2.5, "y": true}\n' + lines(3)
    )
    files = [put(tmp_path, "a.json", text)]

    result = engine.write(order(files, sink), Counted())

    assert outcome(result, files) == {"a.json": "drifted"}
    assert plan_changes(SCHEMA, result.drift) == (AddColumn(("x",), DOUBLE), AddColumn(("y",), BOOLEAN))
    assert left_behind(sink) == []


def test_csv_files_arrive(engine: Engine, tmp_path: Path, sink: FolderSink) -> None:
    files = [put(tmp_path, "a.csv", "id,name\n1,one\n2,\n"), put(tmp_path, "b.csv", "name,id\nthree,3\n")]

    result = engine.write(order(files, sink, FileFormat.CSV), Counted())

    assert [(r["id"], r["name"]) for r in written_rows(result)] == [(1, "one"), (2, None), (3, "three")]


def test_parquet_files_arrive(engine: Engine, tmp_path: Path, sink: FolderSink) -> None:
    table = pa.table({"NAME": ["one", None], "id": pa.array([1, 2], pa.int64())})
    files = [put(tmp_path, "a.parquet", parquet_bytes(table)), put(tmp_path, "b.parquet", parquet_bytes(table[:1]))]

    result = engine.write(order(files, sink, FileFormat.PARQUET), Counted())

    assert [(r["id"], r["name"]) for r in written_rows(result)] == [(1, "one"), (2, None), (1, "one")]


def test_compressed_files_are_known_by_their_content(engine: Engine, tmp_path: Path, sink: FolderSink) -> None:
    data = gzip.compress(lines(1).encode()) + gzip.compress(lines(2, 3).encode())

    result = engine.write(order([put(tmp_path, "a.json", data)], sink), Counted())

    assert [r["id"] for r in written_rows(result)] == [1, 2, 3]


def test_one_bad_file_does_not_hurt_the_others(engine: Engine, tmp_path: Path, sink: FolderSink) -> None:
    files = [
        put(tmp_path, "a.json", lines(1)),
        put(tmp_path, "broken.json", lines(2) + '{"id": 3, "na\n'),
        put(tmp_path, "cut.json.gz", gzip.compress(lines(*range(100)).encode())[:-20]),
        put(tmp_path, "misfit.json", '{"id": "x"}\n'),
        put(tmp_path, "oserror.json", lines(4)),
        put(tmp_path, "vanished.json", lines(5)),
        put(tmp_path, "z.json", lines(6)),
    ]
    (tmp_path / "vanished.json").unlink()
    counted = Counted()

    result = engine.write(order(files, sink), counted)

    assert outcome(result, files) == {
        "a.json": "loaded",
        "broken.json": "failed",
        "cut.json.gz": "failed",
        "misfit.json": "failed",
        "oserror.json": "failed",
        "vanished.json": "failed",
        "z.json": "loaded",
    }
    assert [r["id"] for r in written_rows(result)] == [1, 6]
    failures = {f.key.rsplit("/", 1)[-1]: f for f in result.failed}
    assert {name: f.category for name, f in failures.items()} == {
        "broken.json": Category.DATA_MALFORMED,
        "cut.json.gz": Category.DATA_MALFORMED,
        "misfit.json": Category.SCHEMA_MISMATCH,
        "oserror.json": Category.CONNECTIVITY,
        "vanished.json": Category.PATH_NOT_FOUND,
    }
    assert failures["broken.json"].line == 2
    assert {f.key: f.version for f in result.failed} == {
        f.key: f.version for f in files if f.key in {x.key for x in result.failed}
    }
    assert counted.files == 7


@pytest.mark.parametrize("file_format", [FileFormat.JSON, FileFormat.PARQUET])
def test_a_file_that_needs_another_schema_is_reported_and_left_out(
    engine: Engine, tmp_path: Path, sink: FolderSink, file_format: FileFormat
) -> None:
    if file_format is FileFormat.JSON:
        good, drifting = lines(1), '{"id": 2}\n{"id": 3, "extra": 1}\n{"id": 4, "extra": 2.5}\n'
    else:
        good = parquet_bytes(pa.table({"id": [1]}))  # type: ignore[assignment]
        drifting = parquet_bytes(pa.table({"id": [2, 3, 4], "extra": [None, 1.0, 2.5]}))  # type: ignore[assignment]
    files = [put(tmp_path, "a", good), put(tmp_path, "b", drifting), put(tmp_path, "c", good)]

    result = engine.write(order(files, sink, file_format), Counted())

    assert outcome(result, files) == {"a": "loaded", "b": "drifted", "c": "loaded"}
    assert plan_changes(SCHEMA, result.drift) == (AddColumn(("extra",), DOUBLE),)
    assert [r["id"] for r in written_rows(result)] == [1, 1]


def test_a_wider_type_is_drift_too(engine: Engine, tmp_path: Path, sink: FolderSink) -> None:
    schema = table_schema(Field("id", INT))
    files = [put(tmp_path, "a.json", f'{{"id": {2**40}}}\n')]

    result = engine.write(order(files, sink, schema=schema), Counted())

    assert outcome(result, files) == {"a.json": "drifted"}
    assert plan_changes(schema, result.drift) == (PromoteColumn(("id",), INT, LONG),)
    assert result.data_files == ()


def test_drift_that_is_not_asked_for_fails_the_file(engine: Engine, tmp_path: Path, sink: FolderSink) -> None:
    files = [put(tmp_path, "a.json", lines(1)), put(tmp_path, "b.json", '{"id": 2, "extra": 1}\n')]

    result = engine.write(order(files, sink, report_drift=False), Counted())

    assert outcome(result, files) == {"a.json": "loaded", "b.json": "failed"}
    assert result.failed[0].category is Category.SCHEMA_MISMATCH
    assert "extra" in result.failed[0].message
    assert result.drift == Struct()


@pytest.mark.parametrize(
    ("file_format", "data"),
    [
        (FileFormat.JSON, b""),
        (FileFormat.JSON, b"\n\n"),
        (FileFormat.JSON, gzip.compress(b"", mtime=0)),
        (FileFormat.CSV, b"id,name\n"),
        (FileFormat.CSV, b""),
        (FileFormat.PARQUET, parquet_bytes(pa.table({"id": pa.array([], pa.int64())}))),
    ],
)
def test_a_file_without_rows_is_loaded_and_makes_no_data_file(
    engine: Engine, tmp_path: Path, sink: FolderSink, file_format: FileFormat, data: bytes
) -> None:
    result = engine.write(order([put(tmp_path, "empty", data)], sink, file_format), Counted())

    assert [f.rows for f in result.loaded] == [0]
    assert (result.data_files, result.failed, result.drifted) == ((), (), ())
    assert left_behind(sink) == []


@pytest.mark.parametrize("room", [0, 1])
def test_nothing_is_left_of_an_order_that_could_not_be_written(engine: Engine, tmp_path: Path, room: int) -> None:
    sink = FullSink(str(tmp_path / "data"), room)
    # More than one child's worth, so that one writes its file before the other finds the disk full.
    row = '{"id": 1, "name": "' + "n" * 1000 + '"}\n'
    files = [put(tmp_path, f"{i:03}.json", row * 1000) for i in range(6)]
    if room and isinstance(engine, FakeEngine):
        sink = FullSink(sink.folder, 0)

    with pytest.raises(WriteFailureError, match="No space left"):
        engine.write(order(files, sink), Counted())

    assert left_behind(sink) == []


def test_a_column_named_like_ours_fails_the_file(engine: Engine, tmp_path: Path, sink: FolderSink) -> None:
    files = [put(tmp_path, "a", parquet_bytes(pa.table({"id": [1], "_Batch_Id": ["x"]})))]

    result = engine.write(order(files, sink, FileFormat.PARQUET), Counted())

    assert [f.category for f in result.failed] == [Category.SCHEMA_MISMATCH]
    assert "taken" in result.failed[0].message


def test_a_sample_of_all_files_shows_the_schema(engine: Engine, tmp_path: Path) -> None:
    files = [
        put(tmp_path, "b.json", '{"id": 2, "B": 1.5}\n'),
        put(tmp_path, "a.json", '{"id": 1, "b": 1}\n'),
        put(tmp_path, "broken.json", '{"id": \n'),
        put(tmp_path, "c.json", '{"c": "x", "nothing": null}\n'),
    ]

    inference = engine.infer(files, Reading(FolderReader(), FormatOptions(FileFormat.JSON)))

    changes = plan_changes(Struct(), inference.schema)
    assert changes == (AddColumn(("id",), LONG), AddColumn(("b",), DOUBLE), AddColumn(("c",), STRING))
    assert [(f.key, f.category) for f in inference.failed] == [(files[2].key, Category.DATA_MALFORMED)]
    assert inference.sampled_bytes > 0


def test_what_fits_a_known_schema_is_not_reported(engine: Engine, tmp_path: Path) -> None:
    files = [put(tmp_path, "a.json", '{"id": 1, "name": "x", "extra": true}\n')]

    inference = engine.infer(files, Reading(FolderReader(), FormatOptions(FileFormat.JSON)), Struct(SCHEMA.fields[:2]))

    assert [f.name for f in inference.schema.fields] == ["extra"]


def test_when_no_file_can_be_read_all_are_named(engine: Engine, tmp_path: Path) -> None:
    files = [put(tmp_path, name, "{]\n") for name in ("a.json", "b.json")]

    inference = engine.infer(files, Reading(FolderReader(), FormatOptions(FileFormat.JSON)))

    assert inference.schema == Struct()
    assert {f.key for f in inference.failed} == {f.key for f in files}


def test_an_order_of_no_files_is_done_at_once(engine: Engine, sink: FolderSink) -> None:
    assert engine.write(order([], sink), Counted()) == WriteResult()


def test_closing_twice_is_no_error() -> None:
    for engine in (EmbeddedEngine(), FakeEngine()):
        engine.close()
        engine.close()


# --- rows taken out of data files -------------------------------------------------------------------------------------


def stored_data(result: WriteResult) -> tuple[StoredData, ...]:
    return tuple(StoredData(f.path, f.rows, f.size_bytes) for f in result.data_files)


def loaded(engine: Engine, tmp_path: Path, sink: DataSink, **files: str) -> WriteResult:
    """One data file of those files; each batch is `ing-00000007`."""
    return engine.write(order([put(tmp_path, f"{name}.json", text) for name, text in files.items()], sink), Counted())


def rows_of_file(tmp_path: Path, name: str, batch_id: str = "ing-00000007") -> RowsOf:
    return RowsOf(f"file://{tmp_path}/{name}.json", batch_id)


def rewrite_order(
    data_files: tuple[StoredData, ...], sink: DataSink, *rows: RowsOf, schema: Struct = SCHEMA
) -> RewriteOrder:
    return RewriteOrder(data_files, frozenset(rows), schema, sink, "ing-00000008-1-00000000-0")


def ids_of(rewritten: Rewritten) -> list[int]:
    return [row["id"] for f in rewritten.data_files for row in pq.read_table(f.path).to_pylist()]


def test_exactly_the_rows_asked_for_go(engine: Engine, tmp_path: Path, sink: FolderSink) -> None:
    data = stored_data(loaded(engine, tmp_path, sink, a=lines(1, 2), b=lines(3), c=lines(4, 5)))
    a, b = rows_of_file(tmp_path, "a"), rows_of_file(tmp_path, "b")
    strangers = (rows_of_file(tmp_path, "c", "ing-00000001"), rows_of_file(tmp_path, "nowhere"))

    (one,) = engine.rewrite(rewrite_order(data, sink, a, b, *strangers))

    assert dict(one.removed) == {a: 2, b: 1}
    assert (one.path, one.refusal) == (data[0].path, "")
    assert ids_of(one) == [4, 5]
    (new,) = one.data_files
    assert (new.rows, new.size_bytes) == (2, Path(new.path).stat().st_size)
    assert Path(new.path).name.startswith("ing-00000008-1-00000000-0")
    kept = pq.read_table(new.path).to_pylist()
    assert kept == pq.read_table(data[0].path).to_pylist()[3:]


def test_a_data_file_without_any_of_them_stays_and_one_of_them_alone_goes(
    engine: Engine, tmp_path: Path, sink: FolderSink
) -> None:
    first = stored_data(loaded(engine, tmp_path, sink, a=lines(1, 2)))
    second = stored_data(
        engine.write(replace(order([put(tmp_path, "b.json", lines(3))], sink), name_prefix="t8"), Counted())
    )
    before = left_behind(sink)
    a = rows_of_file(tmp_path, "a")

    gone, kept = engine.rewrite(rewrite_order((*first, *second), sink, a))

    assert gone == Rewritten(first[0].path, {a: 2})
    assert kept == Rewritten(second[0].path)
    assert left_behind(sink) == before


def test_what_is_kept_is_written_under_the_schema_of_now(engine: Engine, tmp_path: Path, sink: FolderSink) -> None:
    data = stored_data(loaded(engine, tmp_path, sink, a=lines(1), b=lines(2)))
    (added,) = (f for f in table_schema(*(Field(f"x{i}", LONG) for i in range(20))).fields if f.id == 20)
    schema = Struct((*SCHEMA.fields, replace(added, name="region")))

    (one,) = engine.rewrite(rewrite_order(data, sink, rows_of_file(tmp_path, "a"), schema=schema))

    (new,) = one.data_files
    assert [(row["id"], row["region"]) for row in pq.read_table(new.path).to_pylist()] == [(2, None)]
    ids = [f.metadata[b"PARQUET:field_id"] for f in pq.read_schema(new.path)]
    assert ids == [str(f.id).encode() for f in schema.fields]


def test_rows_that_another_tool_deleted_do_not_come_back_and_are_not_counted(
    engine: Engine, tmp_path: Path, sink: FolderSink
) -> None:
    (data,) = stored_data(loaded(engine, tmp_path, sink, a=lines(1, 2), b=lines(3, 4, 5)))
    deletes = tmp_path / "deletes.parquet"
    paths = [data.path, data.path, "elsewhere.parquet"]
    pq.write_table(pa.table({"file_path": paths, "pos": pa.array([0, 3, 4], pa.int64())}), deletes)
    a = rows_of_file(tmp_path, "a")

    (one,) = engine.rewrite(rewrite_order((replace(data, deletes=frozenset({str(deletes)})),), sink, a))

    assert dict(one.removed) == {a: 1}
    assert ids_of(one) == [3, 5]


def test_nothing_to_rewrite_is_nothing_done(engine: Engine, sink: FolderSink) -> None:
    assert engine.rewrite(rewrite_order((), sink)) == ()


def test_a_data_file_that_cannot_be_read_is_an_error_and_leaves_nothing(
    engine: Engine, tmp_path: Path, sink: FolderSink
) -> None:
    data = stored_data(loaded(engine, tmp_path, sink, a=lines(1), b=lines(2)))
    broken = Path(sink.folder) / "broken.parquet"
    broken.write_bytes(b"PAR1 this is none PAR1")
    before = left_behind(sink)
    for bad in (StoredData(str(broken), 1, 22), StoredData(f"{sink.folder}/missing.parquet", 1, 22)):
        with pytest.raises(WriteFailureError, match=Path(bad.path).name):
            engine.rewrite(rewrite_order((*data, bad), sink, rows_of_file(tmp_path, "a")))
        assert left_behind(sink) == before


def test_a_full_disk_while_rewriting_leaves_nothing(engine: Engine, tmp_path: Path, sink: FolderSink) -> None:
    data = stored_data(loaded(engine, tmp_path, sink, a=lines(1), b=lines(2)))
    full = FullSink(str(tmp_path / "full"), room=0)
    with pytest.raises(WriteFailureError, match="No space left"):
        engine.rewrite(rewrite_order(data, full, rows_of_file(tmp_path, "a")))
    assert left_behind(full) == []
