"""A file that is cut into spans means what it means uncut: the same rows in the same order, or the same failure."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import Category, FileError, FileFailure
from app.domain.evolution import plan_changes
from app.domain.files import SourceFile
from app.domain.formats import FileFormat, FormatOptions
from app.domain.ports import Reading, WriteOrder, WriteResult
from app.domain.system_columns import data_columns
from app.domain.types import LONG, STRING, Field, Struct
from app.engines.embedded import cutting, loading, stored
from app.engines.embedded.assembly import Assembly
from app.engines.embedded.messages import Beat, CutJob, Cuts, SpanJob, WriteJob
from app.engines.embedded.orders import Part
from app.engines.embedded.parquet import RowGroup
from tests.fakes.files import MODIFIED_AT, parquet_bytes
from tests.support.tables import table_schema
from tests.unit.embedded.text.roads import CSV, JSON, use_small_pieces
from tests.unit.embedded.text.test_roads_agree import csv_cases, json_cases

KEY = "file:///data/one"
SCHEMA = table_schema(Field("id", LONG), Field("name", STRING))


@dataclass(frozen=True)
class OneFile:
    """A source of one file, in memory; what is `gone` cannot be read any more."""

    data: bytes
    gone: tuple[range, ...] = ()

    @property
    def file(self) -> SourceFile:
        return SourceFile(KEY, "v1", len(self.data), MODIFIED_AT)

    def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
        assert file == self.file
        if any(start in places for places in self.gone):
            raise FileError(Category.PATH_NOT_FOUND, "The file is gone or changed.")
        return self.data[start:end]

    def stream(self, file: SourceFile, chunk_bytes: int) -> Iterator[bytes]:
        for start in range(0, len(self.data), chunk_bytes):
            yield self.read(file, start, start + chunk_bytes)


@dataclass(frozen=True)
class MemorySink:
    """Data files in memory."""

    files: dict[str, io.BytesIO] = field(default_factory=dict)

    def create(self, name: str) -> tuple[str, AbstractContextManager[BinaryIO]]:
        assert name not in self.files
        self.files[name] = io.BytesIO()
        return name, self._open(name)

    def delete(self, path: str) -> None:
        self.files.pop(path, None)

    @contextmanager
    def _open(self, path: str) -> Iterator[BinaryIO]:
        yield self.files[path]

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        return self._open(path)

    def rows(self, result: WriteResult) -> str:
        tables = [pq.read_table(pa.BufferReader(self.files[f.path].getvalue())) for f in result.data_files]
        assert [table.num_rows for table in tables] == [f.rows for f in result.data_files]
        assert {f.path for f in result.data_files} == set(self.files)
        if not tables:
            return "[]"
        table = pa.concat_tables(tables)
        plain = [f.with_type(pa.int64()) if pa.types.is_timestamp(f.type) else f for f in table.schema]
        return repr(table.cast(pa.schema(plain)).to_pylist())


@dataclass
class Ground:
    """What an assembly does to its call."""

    sink: MemorySink
    told: Beat = field(default_factory=Beat)
    again: int = 0

    def advance(self, beat: Beat) -> None:
        self.told = Beat(self.told.files + beat.files, self.told.rows + beat.rows)

    def discard(self, paths: Sequence[str], *, stored_bytes: int = 0) -> None:
        self.again += stored_bytes
        for path in paths:
            self.sink.delete(path)


@dataclass
class Told:
    """Adds up what jobs say."""

    told: Beat = field(default_factory=Beat)

    def __call__(self, message: object) -> None:
        if isinstance(message, Beat):
            t = self.told
            self.told = Beat(t.files + message.files, t.rows + message.rows, t.stored_bytes + message.stored_bytes)


def order(source: OneFile, options: FormatOptions, schema: Struct, *, report_drift: bool = True) -> WriteOrder:
    reading = Reading(source, options)
    return WriteOrder((source.file,), reading, schema, MemorySink(), "b-1", "t", report_drift=report_drift)


def in_spans(made: WriteOrder, cuts: Cuts, *, at_once: int = 3, backwards: bool = False) -> tuple[WriteResult, Ground]:
    """Load the file of an order in spans, without processes."""
    assert isinstance(made.sink, MemorySink)
    ground = Ground(made.sink)
    assembly = Assembly(made, at_once=at_once)
    waiting = list(assembly.follow(ground, Part(made.files, cuts=9), cuts))
    for number in range(1, 1000):
        if not waiting:
            break
        part = waiting.pop(-1 if backwards else 0)
        assert part.span is not None
        outcome = cutting.load(SpanJob(made, number, part.span), Told())
        waiting += assembly.follow(ground, part, outcome)
    ((_, result),) = assembly.results
    return result, ground


def whole(made: WriteOrder) -> WriteResult:
    return loading.write(WriteJob(made, 1), Told())


def told(made: WriteOrder, result: WriteResult) -> tuple[object, ...]:
    """All that matters of a result."""
    assert isinstance(made.sink, MemorySink)
    changes = plan_changes(data_columns(made.schema), result.drift)
    return (
        made.sink.rows(result),
        [(f.key, f.version, f.rows, f.size_bytes) for f in result.loaded],
        result.failed,
        result.drifted,
        set(changes),
    )


def check(
    source: OneFile,
    options: FormatOptions,
    schema: Struct,
    starts: Sequence[int],
    *,
    at_once: int = 3,
    backwards: bool = False,
) -> WriteResult:
    """Hold the file cut at `starts` against the same uncut; the result."""
    counted = options.format is FileFormat.PARQUET
    uncut, cut = order(source, options, schema), order(source, options, schema)
    expected = told(uncut, whole(uncut))

    result, ground = in_spans(cut, Cuts(tuple(starts), counted=counted), at_once=at_once, backwards=backwards)

    assert told(cut, result) == expected
    assert ground.told.rows == sum(f.rows for f in result.loaded)
    assert ground.told.files == len(result.loaded) + len(result.failed)
    return result


def line_starts(data: bytes) -> list[int]:
    return [i + 1 for i, byte in enumerate(data[:-1]) if byte == ord("\n")]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces so small that a short file has many, and nothing is too small to be streamed."""
    use_small_pieces(monkeypatch)
    monkeypatch.setattr(stored, "PIECE_BYTES", 30)
    monkeypatch.setattr(loading, "SMALL_FILE_BYTES", 0)
    monkeypatch.setattr(cutting, "FIRST_BYTES", 10)


agree = settings(max_examples=40, deadline=None)


@agree
@given(json_cases(), st.data(), st.booleans(), st.integers(1, 4))
def test_json_cut_anywhere_at_ends_of_lines(
    case: tuple[Struct, list[bytes]],
    data: st.DataObject,
    backwards: bool,  # noqa: FBT001
    at_once: int,
) -> None:
    schema, files = case
    # A file is only cut when its first line is a record.
    content = b"{}\n" + b"\n".join(files)
    starts = sorted(data.draw(st.sets(st.sampled_from(line_starts(content) or [3]), min_size=1, max_size=4)))
    check(OneFile(content), JSON, table_schema(*schema.fields), starts, backwards=backwards, at_once=at_once)


@agree
@given(csv_cases(), st.data(), st.booleans(), st.integers(1, 4))
def test_csv_cut_anywhere_at_ends_of_lines(
    case: tuple[FormatOptions, Struct, list[bytes]],
    data: st.DataObject,
    backwards: bool,  # noqa: FBT001
    at_once: int,
) -> None:
    options, schema, files = case
    content = b"\n".join(files)
    starts = line_starts(content)
    if starts:
        chosen = sorted(data.draw(st.sets(st.sampled_from(starts), min_size=1, max_size=4)))
        check(OneFile(content), options, table_schema(*schema.fields), chosen, backwards=backwards, at_once=at_once)


CUTS_IN_QUOTES = b'id,name\n1,"a\nb"\n2,"c\nd\ne"\n3,f\n'


@pytest.mark.parametrize("starts", [[i] for i in line_starts(CUTS_IN_QUOTES)] + [line_starts(CUTS_IN_QUOTES)])
def test_a_newline_in_quotes_is_never_cut_through(starts: list[int]) -> None:
    result = check(OneFile(CUTS_IN_QUOTES), CSV, SCHEMA, starts)
    assert [f.rows for f in result.loaded] == [3]


@pytest.mark.parametrize(
    ("options", "data"),
    [
        pytest.param(JSON, b'\xef\xbb\xbf{"id": 1}\r\n\r\n{"id": 2}\r\n{"id": 3}', id="mark, CRLF, blank, no end"),
        pytest.param(JSON, b'{"id": 1}\n\xef\xbb\xbf{"id": 2}\n{"id": 3}\n', id="a mark further on"),
        pytest.param(JSON, b'{"id": 1}\n[{"id": 2}]\n{"id": 3}\n', id="an array further on"),
        pytest.param(JSON, b'{"id": 1}\n{"id":\n2\n}\n{"id": 3}\n', id="a record of some lines"),
        pytest.param(JSON, b'{"id": 1}\n{"id": 2}\n{"id": \n', id="cut in a record"),
        pytest.param(JSON, b'{"id": 1}\n\n\n{"id": "x"}\n{"id": }\n', id="two errors"),
        pytest.param(JSON, b'{"id": 1}\n{"id": 2, "new": 1}\n{"id": "x"}\n{"new": 2.5}\n', id="drift, then a misfit"),
        pytest.param(JSON, b'{"id": 1}\n{"id": 2, "new": 1}\n{"id": }\n{"new": 2.5}\n', id="drift, then an error"),
        pytest.param(JSON, b'{"id": 1}\n{"new": 1}\n{"id": 2}\n{"new": {"a": 2}}\n', id="new types that mix"),
        pytest.param(JSON, b'{"id": 1}\n{"id": 2, "_Batch_Id": 1}\n{"id": 3}\n', id="a name of ours"),
        pytest.param(JSON, b'{"id": 1}\n{"name": "\xff"}\n{"id": 3}\n', id="no UTF-8"),
        pytest.param(CSV, b"\xef\xbb\xbfid,name\r\n1,a\r\n\r\n2,b\r\n3,c", id="mark, CRLF, blank, no end"),
        pytest.param(CSV, b"id,name\n1,a\r2,b\n3,c\n4,d,e\n", id="lone returns are lines too"),
        pytest.param(CSV, b"id,name\n1,a\n\xef\xbb\xbf2,b\n3,c\n", id="a mark further on"),
        pytest.param(CSV, b'id,name\n1,a\n2,"b\n3,c\n', id="a quote that is never closed"),
        pytest.param(CSV, b"id,name,new\n1,a,\n2,b,7\n3,c,2024-01-02\n", id="a new column"),
        pytest.param(replace(CSV, header=False), b"1,a\n2,b\n3,c\n", id="no header"),
        pytest.param(replace(CSV, skip_rows=2), b"x\ny\nid,name\n1,a\nx,b\n", id="lines before the header"),
        pytest.param(replace(CSV, escape="\\"), b'id,name\n1,a\\\nb\n2,"c\\"\nd"\n3,e\n', id="escapes"),
        pytest.param(replace(CSV, max_columns=3), b"id,name,x,y\n1,a,1,1\n2,b,2,2\n", id="too many columns"),
    ],
)
def test_what_a_file_means_does_not_depend_on_its_cuts(options: FormatOptions, data: bytes) -> None:
    starts = line_starts(data)
    for chosen in ([*([start] for start in starts)], [starts]):
        for cuts in chosen:
            check(OneFile(data), options, SCHEMA, cuts)
            check(OneFile(data), options, SCHEMA, cuts, backwards=True)


def test_columns_that_are_too_many_only_together_fail_the_file() -> None:
    data = b'{"id": 1}\n' + b"".join(b'{"new%d": 1}\n' % i for i in range(6))
    result = check(OneFile(data), replace(JSON, max_columns=6), SCHEMA, line_starts(data))
    assert [(f.category, f.line) for f in result.failed] == [(Category.LIMIT_EXCEEDED, 6)]


def test_objects_of_too_many_keys_together_become_text_as_uncut() -> None:
    one, other = (
        b'{"new": {' + b",".join(b'"k%d": 1' % i for i in range(start, start + 600)) + b"}}\n" for start in (0, 600)
    )
    data = b'{"id": 1}\n' + one + other
    result = check(OneFile(data), JSON, SCHEMA, line_starts(data))
    assert [f.type for f in result.drift.fields] == [STRING]


@pytest.mark.parametrize("options", [JSON, CSV])
def test_a_long_record_at_the_end_of_a_span_is_no_reason_to_read_on(options: FormatOptions) -> None:
    long = "x" * 5_000
    row = b'{"id": 1, "name": "%s"}\n' if options is JSON else b'1,"%s"\n'
    data = (b"" if options is JSON else b"id,name\n") + row % long.encode() * 4
    cut = order(OneFile(data), options, SCHEMA)
    result, ground = in_spans(cut, Cuts(tuple(line_starts(data)[1:])))
    assert ([f.rows for f in result.loaded], ground.again) == ([4], 0)


def test_drift_fails_the_file_where_the_table_may_not_change() -> None:
    source = OneFile(b'{"id": 1}\n{"id": 2, "new": 1}\n{"id": 3}\n')
    cut, uncut = (order(source, JSON, SCHEMA, report_drift=False) for _ in range(2))
    result, _ = in_spans(cut, Cuts((10, 30)))
    assert told(cut, result) == told(uncut, whole(uncut))
    assert "new" in result.failed[0].message


def test_a_file_that_is_bad_early_is_left_early() -> None:
    data = b'{"id": 1}\n{"id": }\n' + b'{"id": 3}\n' * 50
    starts = line_starts(data)
    read: list[int] = []

    @dataclass(frozen=True)
    class Noting(OneFile):
        def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
            read.append(start)
            return super().read(file, start, end)

    in_spans(order(Noting(data), JSON, SCHEMA), Cuts(tuple(starts)), at_once=2)
    assert max(read) < len(data) // 4


def test_what_is_read_again_is_told() -> None:
    source = OneFile(b'{"id": 1}\n{"id": }\n{"id": 3}\n')
    _, ground = in_spans(order(source, JSON, SCHEMA), Cuts((10, 19)))
    assert ground.again == len(source.data) - 10


def test_a_file_that_is_gone_amid_its_spans_fails_whole() -> None:
    data = b'{"id": 1}\n' * 30
    made = order(OneFile(data, gone=(range(100, 200),)), JSON, SCHEMA)
    result, _ = in_spans(made, Cuts(tuple(range(50, 300, 50))))
    assert ([f.category for f in result.failed], result.loaded) == ([Category.PATH_NOT_FOUND], ())
    assert made.sink == MemorySink({})


def test_a_span_that_kills_its_child_takes_the_others_along() -> None:
    made = order(OneFile(b'{"id": 1}\n' * 3), JSON, SCHEMA)
    assert isinstance(made.sink, MemorySink)
    ground, assembly = Ground(made.sink), Assembly(made, at_once=2)
    first, second = assembly.follow(ground, Part(made.files, cuts=9), Cuts((10, 20)))
    assert first.span is not None
    outcome = cutting.load(SpanJob(made, 1, first.span), Told())
    (third,) = assembly.follow(ground, first, outcome)

    failure = FileFailure(KEY, "v1", Category.DATA_MALFORMED, "It was stopped, twice.")
    assert assembly.follow(ground, second, failure) == ()
    assert third.span is not None
    assert assembly.follow(ground, third, cutting.load(SpanJob(made, 2, third.span), Told())) == ()
    assert ([result for _, result in assembly.results], made.sink.files) == ([WriteResult()], {})


# --- where files are cut ---------------------------------------------------------------------------------------------


def cuts(data: bytes, options: FormatOptions = JSON, count: int = 4) -> Cuts:
    source = OneFile(data)
    return cutting.cut(CutJob(source.file, Reading(source, options), count), Told())


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40), st.integers(2, 6), st.sampled_from([b"\n", b"\r\n"]))
def test_cuts_are_where_lines_begin(lengths: list[int], count: int, end: bytes) -> None:
    data = b"".join(b'{"a":"%s"}%s' % (b"x" * length, end) for length in lengths)
    starts = cuts(data, count=count).starts

    assert set(starts) <= set(line_starts(data))
    assert list(starts) == sorted(set(starts))
    assert len(starts) < count


def test_cuts_are_about_as_far_apart_as_wanted() -> None:
    data = b'{"id": 1}\n' * 1_000
    assert cuts(data).starts == (2_500, 5_000, 7_500)
    # A newline right before the place that is wanted is as good as one behind it.
    assert cuts(data[:-10], count=3).starts == (3_330, 6_660)


def test_a_line_longer_than_spans_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "WINDOW_BYTES", 16)
    data = b'{"id": 1}\n{"name": "' + b"x" * 5_000 + b'"}\n' + b'{"id": 2}\n' * 100
    (start,) = cuts(data).starts
    assert data[start - 3 : start] in {b'"}\n', b"1}\n", b"2}\n"}
    monkeypatch.setattr(cutting, "LINE_BYTES", 100)
    assert all(start > 5_000 for start in cuts(data).starts)


@pytest.mark.parametrize(
    ("options", "data"),
    [
        (JSON, gzip.compress(b'{"id": 1}\n' * 1_000, mtime=0)),
        (replace(JSON, compression="gzip"), b'{"id": 1}\n' * 1_000),
        (JSON, ('{"id": 1}\n' * 1_000).encode("utf-16")),
        (replace(JSON, encoding="latin-1"), b'{"id": 1}\n' * 1_000),
        (replace(JSON, encoding="no-such-thing"), b'{"id": 1}\n' * 1_000),
        (JSON, b"[" + b'{"id": 1},\n' * 1_000 + b"{}]"),
        (JSON, b'{\n  "id": 1\n}\n' * 1_000),
        (JSON, b'{"id": 1} ' * 1_000),
        (replace(CSV, escape="\\"), b"id,name\n" + b"2,c\n" * 1_000),
        (CSV, ("id,name\n" + "2,c\n" * 1_000).encode("utf-16")),
        (CSV, b"id,name\r" + b"2,c\r" * 1_000),
        (FormatOptions(FileFormat.PARQUET), b"no such thing"),
    ],
)
def test_what_cannot_be_cut_is_not(options: FormatOptions, data: bytes) -> None:
    assert cuts(data, options) == Cuts()


TEXTS = st.text(st.sampled_from('ab,"\n\r;'), max_size=12)


@st.composite
def records(draw: st.DrawFn) -> list[bytes]:
    """Records of CSV, quoted where they have to be or by chance."""

    def field(text: str) -> str:
        plain = not set(text) & set(',"\r\n') and draw(st.booleans())
        return text if plain else '"' + text.replace('"', '""') + '"'

    rows = draw(st.lists(st.tuples(st.integers(0, 9), TEXTS), min_size=8, max_size=60))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return [f"{number},{field(text)}{end}".encode() for number, text in rows]


@settings(max_examples=60, deadline=None)
@given(records(), st.integers(2, 5))
def test_csv_is_cut_right_or_repaired(rows: list[bytes], count: int) -> None:
    data = b"id,name\n" + b"".join(rows)
    check(OneFile(data), CSV, SCHEMA, cuts(data, CSV, count).starts or [8])


def test_a_cut_is_found_outside_of_quotes_also_where_every_record_has_line_breaks() -> None:
    text = 'lines, and\nmore lines\n, of text with ""quotes"" and\ncommas'
    rows = [f'{i},"{text * (i % 3)}"\n'.encode() for i in range(3_000)]
    ends = {8 + sum(map(len, rows[:i])) for i in range(len(rows))}
    data = b"id,name\n" + b"".join(rows)
    starts = cuts(data, CSV, 8).starts
    assert len(starts) == 7
    assert set(starts) <= ends


@pytest.mark.parametrize(
    ("part", "start"),
    [
        (b'b"\n1,"x', 3),
        (b'b\nb"\n1,x\n', 5),
        (b"b,c\n1,x", 4),
        (b'b,"c\nd",e\nf', 10),
        (b'b""c\nd",e\nf', 10),
        (b'"\n"x', 2),
        (b"b", None),
        (b'a"b\nc"d\ne"f', None),
    ],
)
def test_where_a_record_begins_in_a_part(part: bytes, start: int | None) -> None:
    assert cutting.first_record(part, CSV) == start


def test_a_file_that_cannot_be_looked_at_is_left_to_whoever_loads_it() -> None:
    source = OneFile(b'{"id": 1}\n' * 100, gone=(range(1_000),))
    assert cutting.cut(CutJob(source.file, Reading(source, JSON), 2), Told()) == Cuts()


@given(st.lists(st.integers(1, 100), max_size=30), st.integers(2, 8))
def test_row_groups_are_shared_evenly(sizes: list[int], count: int) -> None:
    starts = cutting.share_groups(tuple(RowGroup(1, size) for size in sizes), count)

    assert len(starts) < count
    assert list(starts) == sorted(set(starts))
    costs = [sum(sizes[a:b]) for a, b in zip([0, *starts], [*starts, None], strict=True)]
    assert max(costs) <= sum(sizes) / count + max(sizes, default=0)


# --- Parquet ---------------------------------------------------------------------------------------------------------

PARQUET = FormatOptions(FileFormat.PARQUET)


def groups(ids: list[int | str], size: int, **columns: list[object]) -> bytes:
    names = [f"n{i}" for i in range(len(ids))]
    return parquet_bytes(pa.table({"id": ids, "name": names, **columns}), row_group_size=size)


@pytest.mark.parametrize("starts", [[1], [2, 3], [1, 2, 3, 4]])
def test_parquet_cut_between_row_groups(starts: list[int]) -> None:
    result = check(OneFile(groups(list(range(47)), 10)), PARQUET, SCHEMA, starts)
    assert [f.rows for f in result.loaded] == [47]


def test_an_error_in_a_row_group_names_the_row_of_the_file() -> None:
    schema = table_schema(Field("id", LONG), Field("name", LONG))
    table = pa.table({"id": pa.array(range(40), pa.uint64())})
    high = table.set_column(0, "id", pa.array([*range(25), 2**63 + 1, *range(14)], pa.uint64()))
    result = check(OneFile(parquet_bytes(high, row_group_size=10)), PARQUET, schema, [1, 2, 3])
    assert "Row 26" in result.failed[0].message


def test_new_columns_of_parquet_are_drift() -> None:
    result = check(OneFile(groups(list(range(40)), 10, extra=[1.5] * 40)), PARQUET, SCHEMA, [1, 2, 3])
    assert [f.key for f in result.drifted] == [KEY]


def test_parquet_is_cut_by_its_row_groups_and_one_alone_not_at_all() -> None:
    assert cuts(groups(list(range(80)), 10), PARQUET) == Cuts((2, 4, 6), counted=True)
    assert cuts(groups(list(range(80)), 80), PARQUET) == Cuts((), counted=True)


@pytest.mark.parametrize("place", [10, 300])
def test_a_damaged_row_group_fails_the_whole_file(place: int) -> None:
    data = bytearray(groups(list(range(400)), 100))
    data[place : place + 40] = b"\xff" * 40
    uncut, cut = (order(OneFile(bytes(data)), PARQUET, SCHEMA) for _ in range(2))
    expected = whole(uncut)
    result, _ = in_spans(cut, Cuts((1, 2, 3), counted=True))
    assert [f.category for f in expected.failed] == [Category.DATA_MALFORMED]
    assert told(cut, result) == told(uncut, expected)
