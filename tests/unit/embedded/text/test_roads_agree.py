"""The fast road gives the exact road's result, for any input; and a file means the same however it is cut."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import FileError
from app.domain.formats import FileFormat, FormatOptions
from app.domain.types import (
    BOOLEAN,
    DATE,
    DOUBLE,
    EMPTY,
    INT,
    LONG,
    STRING,
    TIMESTAMP,
    TIMESTAMPTZ,
    DataType,
    Field,
    ListOf,
    Struct,
    join_structs,
)
from app.engines.embedded.decoding import TextDecoder
from app.engines.embedded.text import csv_decoder
from app.engines.embedded.text.csv_fast import FastCsv
from app.engines.embedded.text.csv_grammar import CsvGrammar
from app.engines.embedded.text.json_fast import FastJson
from tests.unit.embedded.text.roads import CSV, JSON, cut, decoder, observed, shown, stream, use_small_pieces

NAMES = ("a", "A", "b", "c d", "ü", "_file_path", "z")
TEMPORALS = st.sampled_from(
    [
        "2024-02-29",
        "2023-02-29",
        "0001-01-01",
        "0000-01-01",
        "9999-12-31",
        "2024-01-02T03",
        "2024-01-02T03:04",
        "2024-01-02 03:04:05",
        "2024-01-02T03:04:05.1",
        "2024-01-02T03:04:05.123456",
        "2024-01-02T03:04:05.1234560",
        "2024-01-02T03:04:05.1234567",
        "2024-01-02T03:04Z",
        "2024-01-02T03Z",
        "2024-01-02T03:04:05Z",
        "2024-01-02T03:04:05z",
        "2024-01-02T03:04:05.5+01",
        "2024-01-02T03:04:05+0130",
        "2024-01-02T03:04:05-01:30",
        "2024-01-02T03:04:05+24:00",
        "2024-01-02T03:04+23:59",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "2024-01-02T24:00:00",
        "2024-01-02T23:59:60",
        " 2024-01-02",
        "2024-01-02T03:04:05 ",
    ]
)
NUMBERS = st.sampled_from(
    [
        *("0", "-0", "1", "-1", "1.5", "-0.0", "1e3", "1E+2", "1e999", "5e-324", "9007199254740992.5", "0.1"),
        *("2147483647", "2147483648", "9007199254740991", "9007199254740992", "9007199254740993", "-9007199254740993"),
        *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809"),
        *("123456789012345678901234567890", "01", "1.", ".5", "-.5", "+1", "1e", "NaN", "Infinity", "-Infinity"),
        *("-", "0x1", "1_0"),
    ]
)
WORDS = st.sampled_from(
    ["", " ", "x", "true", "FALSE", "True", "null", "NULL", "nan", "inf", "007", " 12", "1,0", "😀"]
)
STRINGS = st.one_of(TEMPORALS, WORDS, st.text(max_size=4))
# Text of JSON values, some of it wrong.
JSON_VALUES = st.recursive(
    st.one_of(
        NUMBERS,
        STRINGS.map(json.dumps),
        STRINGS.map(lambda text: json.dumps(text, ensure_ascii=False)),
        st.sampled_from(["null", "true", "false", "{}", "[]", '"\\ud800"', '"\\udc00"', '"\\u0000"', "nul", '"x']),
    ),
    lambda below: st.one_of(
        st.lists(below, max_size=3).map(lambda items: "[" + ",".join(items) + "]"),
        st.lists(st.tuples(st.sampled_from(NAMES[:4]), below), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{json.dumps(k)}:{v}" for k, v in pairs) + "}"
        ),
    ),
    max_leaves=4,
)
SCALARS = st.sampled_from([BOOLEAN, INT, LONG, DOUBLE, STRING, DATE, TIMESTAMP, TIMESTAMPTZ])


def fitting(kind: DataType) -> st.SearchStrategy[str]:
    """Text of JSON values most of which fit `kind`."""
    if isinstance(kind, Struct):
        parts = [st.one_of(st.just(""), fitting(f.type).map(f"{json.dumps(f.name)}:{{}}".format)) for f in kind.fields]
        made = st.tuples(*parts).map(lambda found: "{" + ",".join(p for p in found if p) + "}")
    elif isinstance(kind, ListOf):
        made = st.lists(fitting(kind.element), max_size=3).map(lambda items: "[" + ",".join(items) + "]")
    elif kind in {INT, LONG}:
        made = st.integers(-(2**33), 2**33).map(str)
    elif kind == DOUBLE:
        made = st.floats(allow_nan=False, allow_infinity=False).map(repr)
    elif kind == BOOLEAN:
        made = st.sampled_from(["true", "false"])
    elif kind == STRING:
        made = STRINGS.map(json.dumps)
    else:
        made = TEMPORALS.map(json.dumps)
    return st.one_of(made, made, made, st.just("null"))


TYPES = st.recursive(
    SCALARS,
    lambda below: st.one_of(
        below.map(ListOf),
        st.lists(below, min_size=1, max_size=2).map(
            lambda kinds: Struct(tuple(Field(n, k) for n, k in zip("ab", kinds, strict=False)))
        ),
    ),
    max_leaves=3,
)


@st.composite
def schemas(draw: st.DrawFn) -> Struct:
    names = draw(st.lists(st.sampled_from(["a", "b", "c d", "ü"]), min_size=1, max_size=3, unique=True))
    return Struct(tuple(Field(n, draw(TYPES), required=draw(st.integers(0, 9)) == 0) for n in names))


@st.composite
def json_files(draw: st.DrawFn, schema: Struct) -> bytes:
    wild = st.lists(st.tuples(st.sampled_from(NAMES), JSON_VALUES), max_size=3)
    records = []
    for _ in range(draw(st.integers(0, 4))):
        pairs = [(f.name, draw(fitting(f.type))) for f in schema.fields if draw(st.integers(0, 5))]
        if draw(st.integers(0, 3)) == 0:
            pairs += draw(wild)
        records.append("{" + ",".join(f"{json.dumps(k)}: {v}" for k, v in pairs) + "}")
    if draw(st.integers(0, 9)) == 0:
        records.append(draw(st.one_of(JSON_VALUES, st.sampled_from(["[", "]", ",", "{", "null", "\0", "\ufeff"]))))
    between = draw(st.sampled_from(["\n", "\r\n", " ", "", "\n\n", ",", "\r"]))
    text = between.join(records)
    if draw(st.integers(0, 5)) == 0:
        text = f"[{text}]"
    data = text.encode("utf-8", "surrogatepass") + draw(st.sampled_from([b"\n", b"", b"\r\n", b"\xff"]))
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 9)) == 0 else data


@st.composite
def json_cases(draw: st.DrawFn) -> tuple[Struct, list[bytes]]:
    schema = draw(schemas())
    return schema, draw(st.lists(json_files(schema), min_size=1, max_size=4))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces so small that a short file has many."""
    use_small_pieces(monkeypatch)


agree = settings(max_examples=60, deadline=None)


@agree
@given(json_cases())
def test_json_files_in_a_group(case: tuple[Struct, list[bytes]]) -> None:
    schema, files = case
    exact = decoder(JSON, schema, fast=False).decode_group(files)
    assert shown(decoder(JSON, schema).decode_group(files)) == shown(exact)


@agree
@given(json_cases(), st.integers(1, 60))
def test_json_streamed_and_whole(case: tuple[Struct, list[bytes]], size: int) -> None:
    schema, files = case
    whole = shown(decoder(JSON, schema, fast=False).decode_group(files[:1]))
    for fast in (True, False):
        rows, table = stream(decoder(JSON, schema, fast=fast), cut(files[0], size), schema)
        assert ([rows], table) == whole


@agree
@given(json_cases(), st.booleans(), st.integers(1, 60))
def test_json_observed(case: tuple[Struct, list[bytes]], known: bool, size: int) -> None:  # noqa: FBT001
    schema, files = case
    data = b"".join(files)
    table = schema if known else EMPTY
    exact = observed(decoder(JSON, table, fast=False), [data])
    assert observed(decoder(JSON, table), cut(data, size)) == exact


def one_after_the_other(made: TextDecoder, files: list[bytes], *, told: bool) -> tuple[Struct, list[object]]:
    """What the files show together, and how each ended; `told`: each look knows what those before have seen."""
    seen = EMPTY
    outcomes: list[object] = []
    for data in files:
        try:
            seen = join_structs(seen, made.observe([data], seen if told else EMPTY))
            outcomes.append(None)
        except FileError as error:
            outcomes.append((error.category, error.line, error.message))
    return seen, outcomes


@agree
@given(json_cases(), st.booleans())
def test_json_observed_one_after_the_other(case: tuple[Struct, list[bytes]], known: bool) -> None:  # noqa: FBT001
    schema, files = case
    table = schema if known else EMPTY
    exact = one_after_the_other(decoder(JSON, table, fast=False), files, told=False)
    assert one_after_the_other(decoder(JSON, table), files, told=True) == exact


CSV_FIELDS = st.one_of(
    NUMBERS,
    STRINGS,
    st.sampled_from(
        ['""', '"x"', '"a,b"', '"a""b"', '"a\nb"', '"a\r\nb"', 'a"b', '"a"b', '"a', ' "a"', "\r", "NA", '"NA"']
    ),
)


@st.composite
def csv_cases(draw: st.DrawFn) -> tuple[FormatOptions, Struct, list[bytes]]:
    names = draw(st.lists(st.sampled_from(["a", "b", "c d", "ü"]), min_size=1, max_size=3, unique=True))
    schema = Struct(tuple(Field(n, draw(SCALARS), required=draw(st.integers(0, 9)) == 0) for n in names))
    options = FormatOptions(
        FileFormat.CSV,
        header=draw(st.integers(0, 4)) > 0,
        delimiter=draw(st.sampled_from([",", ",", ",", "\t", " ", "-"])),
        quote=draw(st.sampled_from(['"', '"', '"', "", "'"])),
        null_values=draw(st.sampled_from([("",), ("", "NA"), ("NA",), ()])),
        skip_rows=draw(st.sampled_from([0, 0, 0, 1])),
    )
    return options, schema, draw(st.lists(csv_files(schema, options.delimiter), min_size=1, max_size=4))


@st.composite
def csv_files(draw: st.DrawFn, schema: Struct, delimiter: str) -> bytes:
    names = [f.name for f in schema.fields]
    if draw(st.integers(0, 4)) == 0:
        names = draw(st.lists(st.sampled_from([*NAMES, "", '"q"', "NA"]), min_size=1, max_size=4))
    rows = [names]
    kinds = [schema.find(n) for n in names]
    for _ in range(draw(st.integers(0, 4))):
        row = [draw(csv_field(f.type if f else STRING)) for f in kinds]
        rows.append(row[:-1] if draw(st.integers(0, 15)) == 0 else row)
    end = draw(st.sampled_from(["\n", "\r\n", "\n", "\n\n", "\r"]))
    text = end.join(delimiter.join(row) for row in rows) + draw(st.sampled_from(["", end, "\n\n"]))
    return text.encode("utf-8", "surrogatepass") + draw(st.sampled_from([b"", b"", b"", b"\xff", b"\0"]))


def csv_field(kind: DataType) -> st.SearchStrategy[str]:
    strategies: dict[DataType, st.SearchStrategy[str]] = {
        INT: st.integers(-(2**31), 2**31 - 1).map(str),
        LONG: st.integers(-(2**63), 2**63 - 1).map(str),
        DOUBLE: st.floats(allow_nan=False, allow_infinity=False).map(repr),
        BOOLEAN: st.sampled_from(["true", "FALSE", "True"]),
        STRING: CSV_FIELDS,
    }
    fits = strategies.get(kind, TEMPORALS)
    return st.one_of(fits, fits, fits, fits.map(lambda t: f'"{t}"'), CSV_FIELDS, st.just(""))


# What Arrow's parser takes for a number or a day, and CSV may not mean as one.
SPELLINGS = (
    *(
        "007",
        "-007",
        "00",
        "-00",
        "0x1F",
        "-0x1f",
        "0X1",
        "+5",
        "+0.5",
        "5.",
        "-5.",
        "5.e3",
        "5.E3",
        "00.5",
        "1e5",
        "1E+5",
    ),
    *(
        " 5",
        "5 ",
        "\t5",
        "5\t",
        " -5",
        " .5",
        ".5 ",
        "5. ",
        " +5",
        " 007",
        "5e",
        "1e5 ",
        "0",
        "-0",
        "-0.0",
        "-.5",
        "- 5",
    ),
    *(
        " 2024-01-02",
        "2024-01-02 ",
        "\t2024-01-02",
        "0001-01-01",
        "9999-12-31",
        "+2024-01-02",
        "inf",
        "nan",
        "-inf",
        " inf",
    ),
    *(
        " true",
        "true ",
        "tRuE",
        "FALSE\t",
        "1",
        "T",
        "yes",
        "\u00a05",
        "\x0b5",
        "1_0",
        "1.5.",
        "1..5",
        ".",
        "-",
        "+",
        "",
    ),
)


@pytest.mark.parametrize("kind", [BOOLEAN, INT, LONG, DOUBLE, STRING, DATE, TIMESTAMP], ids=str)
def test_csv_numbers_in_every_spelling(kind: DataType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a field stands and however it is set off, the parser's own notion of a number never gets through."""
    monkeypatch.setattr(csv_decoder, "PIECE_BYTES", 1_000)
    schema = Struct((Field("a", kind), Field("b", kind), Field("n", LONG)))
    for delimiter, (quote, end) in product((",", "\t", " "), (("", "\r\n"), ('"', "\n"))):
        options = FormatOptions(FileFormat.CSV, delimiter=delimiter, header=False)
        files = [
            f"{end.join(rows)}{end}".encode()
            for text in SPELLINGS
            for field in [f"{quote}{text}{quote}"]
            for rows in [
                [f"{field}{delimiter}{delimiter}1"],
                [f"{delimiter}{field}{delimiter}1", f"{delimiter}{delimiter}{field}"],
            ]
        ]
        named = Struct(tuple(replace(f, name=f"column_{i}") for i, f in enumerate(schema.fields, 1)))
        for data in files:
            exact = decoder(options, named, fast=False).decode_group([data])
            assert shown(decoder(options, named).decode_group([data])) == shown(exact), (data, delimiter)


@agree
@given(csv_cases(), st.booleans())
def test_csv_observed_one_after_the_other(case: tuple[FormatOptions, Struct, list[bytes]], known: bool) -> None:  # noqa: FBT001
    options, schema, files = case
    table = schema if known else EMPTY
    exact = one_after_the_other(decoder(options, table, fast=False), files, told=False)
    assert one_after_the_other(decoder(options, table), files, told=True) == exact


@agree
@given(csv_cases())
def test_csv_files_in_a_group(case: tuple[FormatOptions, Struct, list[bytes]]) -> None:
    options, schema, files = case
    exact = decoder(options, schema, fast=False).decode_group(files)
    assert shown(decoder(options, schema).decode_group(files)) == shown(exact)


@agree
@given(csv_cases(), st.integers(1, 60))
def test_csv_streamed_and_whole(case: tuple[FormatOptions, Struct, list[bytes]], size: int) -> None:
    options, schema, files = case
    whole = shown(decoder(options, schema, fast=False).decode_group(files[:1]))
    for fast in (True, False):
        rows, table = stream(decoder(options, schema, fast=fast), cut(files[0], size), schema)
        assert ([rows], table) == whole


@agree
@given(csv_cases(), st.booleans(), st.integers(1, 60))
def test_csv_observed(case: tuple[FormatOptions, Struct, list[bytes]], known: bool, size: int) -> None:  # noqa: FBT001
    options, schema, files = case
    table = schema if known else EMPTY
    exact = observed(decoder(options, table, fast=False), [files[0]])
    assert observed(decoder(options, table), cut(files[0], size)) == exact


def test_the_fast_road_is_taken() -> None:
    """Or else the tests above compare the exact road with itself."""
    schema = Struct((Field("a", LONG), Field("t", TIMESTAMPTZ), Field("l", ListOf(Struct((Field("d", DOUBLE),))))))
    made = FastJson(schema)
    text = b'{"a":1,"t":"2024-01-02T03:04:05Z","l":[{"d":0.5},null],"new":null}\n'
    decoded = made.decode([text, b"", text])
    assert decoded is not None
    assert decoded[1] == [1, 0, 1]
    columns = Struct((Field("a", LONG), Field("t", DATE), Field("s", STRING)))
    fast = FastCsv(CsvGrammar.of(CSV), ("a", "t", "s"), columns)
    done = fast.decode([b'1,2024-01-02,"a ""b"", c"\n', b'2,,""'])
    assert done is not None
    assert done[1] == [1, 1]
    # Text that looks like a number sends all fields through the check by text, and no further.
    doubtful = fast.decode([b"1,2024-01-02,007\n"])
    assert doubtful is not None
    assert doubtful[0].column("s").to_pylist() == ["007"]


@pytest.mark.parametrize("kind", [BOOLEAN, INT, LONG, DOUBLE, STRING, DATE, TIMESTAMP, TIMESTAMPTZ], ids=str)
def test_columns_of_nulls_do_not_leave_the_fast_road(kind: DataType) -> None:
    schema = Struct((Field("a", LONG), Field("n", kind)))
    assert FastJson(schema).holds(b'{"a":1,"n":null}\n{"a":2}\n')
    assert FastCsv(CsvGrammar.of(CSV), ("a", "n"), schema).holds(b"1,\r\n2,\r\n")


def test_an_ignored_column_must_be_a_known_one() -> None:
    fast = FastJson(Struct((Field("a", LONG),)), ignored=frozenset({"n"}))
    assert fast.holds(b'{"a":1,"n":null}\n')
    assert not fast.holds(b'{"a":1,"m":null}\n')


def test_quotes_that_stand_where_they_must_are_read_fast() -> None:
    fast = FastCsv(CsvGrammar.of(CSV), ("a", "b"), Struct((Field("a", STRING), Field("b", STRING))))
    for good in (b'"",""\n', b'"a""","""b"\n"x\n",y\n', b'1,2\n3,"4"', b'"a,"",b",c\r\n'):
        assert fast.holds(good)
    for bad in (b'"a"b,c\n', b'"a,"b",c"\n', b'a"b,c\n', b'"a"""b,c\n', b'"a,b\n', b' "a",b\n'):
        assert not fast.holds(bad)
