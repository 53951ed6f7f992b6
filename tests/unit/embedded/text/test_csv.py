"""What CSV files mean, each rule with the values at its edges; on both roads where the fast one may decide."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import replace
from decimal import Decimal as Number

import pytest

from app.domain.errors import Category, FileError
from app.domain.formats import FormatOptions
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
    UNKNOWN,
    DataType,
    Decimal,
    Field,
    ListOf,
    Struct,
)
from app.engines.embedded.decoding import DriftError
from tests.unit.embedded.text.roads import CSV, contents, cut, decoder, stream

BIG = Decimal(38, 0)
ESCAPED = replace(CSV, escape="\\")


def of(**kinds: DataType) -> Struct:
    return Struct(tuple(Field(name, kind, id=n) for n, (name, kind) in enumerate(kinds.items(), 1)))


def observe(text: str, schema: Struct = EMPTY, options: FormatOptions = CSV) -> Struct:
    found = decoder(options, schema).observe([text.encode()])
    assert decoder(options, schema, fast=False).observe([text.encode()]) == found
    return found


def decode(schema: Struct, text: str | bytes, options: FormatOptions = CSV) -> list[dict[str, object]]:
    """The rows of one file, which must decode; the same on both roads, and streamed."""
    data = text if isinstance(text, bytes) else text.encode()
    fast, exact = (decoder(options, schema, fast=road).decode_group([data]) for road in (True, False))
    for result in (fast, exact):
        [outcome] = result.rows
        if not isinstance(outcome, int):
            raise outcome
        assert outcome == len(result.table)
    rows: list[dict[str, object]] = fast.table.to_pylist()
    assert repr(rows) == repr(exact.table.to_pylist())
    assert fast.table.schema.equals(exact.table.schema, check_metadata=True)
    for size in (1, 7):
        assert stream(decoder(options, schema), cut(data, size), schema) == (len(rows), contents(exact.table))
    return rows


def fit(kind: DataType, text: str) -> object:
    [row] = decode(of(a=kind, b=LONG), f"a,b\n{text},1\n")
    return row["a"]


def failure(schema: Struct, data: str | bytes, options: FormatOptions = CSV) -> FileError:
    with pytest.raises(FileError) as caught:
        decode(schema, data, options)
    return caught.value


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", UNKNOWN),
        ('""', UNKNOWN),
        ("true", BOOLEAN),
        ("FALSE", BOOLEAN),
        ("t", STRING),
        ("0", LONG),
        ("-0", LONG),
        ("9223372036854775807", LONG),
        ("9223372036854775808", BIG),
        ("9" * 38, BIG),
        ("1" + "0" * 38, STRING),
        ('"12"', LONG),
        ("007", STRING),
        ("+49", STRING),
        (" 12", STRING),
        ("12 ", STRING),
        ('"1,000"', STRING),
        ("1.5", DOUBLE),
        (".5", DOUBLE),
        ("-.5e-3", DOUBLE),
        ("1.", STRING),
        ("00.5", STRING),
        ("1e999", STRING),
        ("e5", STRING),
        ("-", STRING),
        ("nan", STRING),
        ("inf", STRING),
        ("0x1F", STRING),
        ("1_0", STRING),
        ("٣", STRING),
        ("2024-02-29", DATE),
        ("2023-02-29", STRING),
        ("2024-01-02 03:04", TIMESTAMP),
        ("2024-01-02T03:04:05.123+0200", TIMESTAMPTZ),
        ("null", STRING),
    ],
)
def test_the_type_that_a_text_shows(text: str, kind: DataType) -> None:
    assert observe(f"a,b\n{text},x\n") == Struct((Field("a", kind), Field("b", STRING)))


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (("1", "2.5"), DOUBLE),
        (("1", ""), LONG),
        (("1", "x"), STRING),
        (("true", "1"), STRING),
        (("2024-01-02", "2024-01-02 03:04"), STRING),
        (("1", "9223372036854775808"), BIG),
    ],
)
def test_types_join_whatever_the_order(texts: tuple[str, str], kind: DataType) -> None:
    for order in (texts, texts[::-1]):
        assert observe("a,b\n" + "".join(f"{t},\n" for t in order)).fields[0].type == kind


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (STRING, "", None),
        (STRING, '""', ""),
        (STRING, "1.50", "1.50"),
        (STRING, "TRUE", "TRUE"),
        (STRING, '"a""b, ""c"""', 'a"b, "c"'),
        (STRING, '"x\ny"', "x\ny"),
        (STRING, '"x\r\ny"', "x\r\ny"),
        (STRING, 'in"ch', 'in"ch'),
        (STRING, " x ", " x "),
        (STRING, "😀", "😀"),
        (LONG, "9223372036854775807", 2**63 - 1),
        (LONG, "-0", 0),
        (LONG, '""', None),
        (INT, "-2147483648", -(2**31)),
        (DOUBLE, "9007199254740992", 2.0**53),
        (DOUBLE, "9007199254740993.5", 9007199254740994.0),
        (DOUBLE, "-.5", -0.5),
        (DOUBLE, "7", 7.0),
        (BIG, "9" * 38, Number("9" * 38)),
        (Decimal(5, 2), "1.5", Number("1.50")),
        (BOOLEAN, "True", True),
        (DATE, "0001-01-01", dt.date(1, 1, 1)),
        (TIMESTAMP, "9999-12-31 23:59:59.999999", dt.datetime(9999, 12, 31, 23, 59, 59, 999999)),  # noqa: DTZ001
        (TIMESTAMPTZ, "2024-01-02T03:04+01", dt.datetime(2024, 1, 2, 2, 4, tzinfo=dt.UTC)),
        (ListOf(LONG), "", None),
    ],
)
def test_a_text_that_fits(kind: DataType, text: str, value: object) -> None:
    assert fit(kind, text) == value


def test_minus_zero_keeps_its_sign() -> None:
    for text in ("-0.0", "-0"):
        value = fit(DOUBLE, text)
        assert isinstance(value, float)
        assert math.copysign(1, value) == -1


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (LONG, "007"),
        (LONG, "+1"),
        (LONG, " 1"),
        (LONG, "1.0"),
        (LONG, "9223372036854775808"),
        (LONG, "x"),
        (DOUBLE, "9007199254740993"),
        (DOUBLE, "1e999"),
        (DOUBLE, "nan"),
        (DOUBLE, "1."),
        (DOUBLE, "01.5"),
        (BOOLEAN, "1"),
        (DATE, "2024-01-02 00:00"),
        (TIMESTAMP, "2024-01-02"),
        (TIMESTAMP, "2024-01-02T03:04:05.1234567"),
        (TIMESTAMPTZ, "2024-01-02T03:04:05"),
        (ListOf(LONG), "[1]"),
    ],
)
def test_a_text_that_does_not_fit(kind: DataType, text: str) -> None:
    error = failure(of(a=kind, b=STRING), f'a,b\n,"x\ny"\n\n{text},\n')
    assert (error.category, error.line) == (Category.SCHEMA_MISMATCH, 5)
    assert 'Column "a" is' in error.message


def test_drift() -> None:
    with pytest.raises(DriftError):
        decode(of(a=INT), "a\n2147483648\n")
    with pytest.raises(DriftError):
        decode(of(a=INT), "a,new\n1,\n2,x\n")
    assert decode(of(a=INT), 'a,new\n1,\n2,""\n') == [{"a": 1}, {"a": 2}]
    assert observe("a,new\n2147483648,x\n", of(a=INT)) == Struct((Field("new", STRING), Field("a", LONG)))


def test_required_columns() -> None:
    schema = Struct((Field("a", LONG, required=True), Field("b", LONG)))
    assert failure(schema, "a,b\n1,1\n,1\n").line == 3
    assert failure(schema, "b\n1\n").category == Category.SCHEMA_MISMATCH


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"a,b\n1,2\n1\n", 3),
        (b"a,b\n1,2,3\n", 2),
        (b"a,b\n1,2\n1,2,\n", 3),
        (b'a,b\n"x"y,1\n', 2),
        (b'a,b\n"x" ,1\n', 2),
        (b'a,b\n"x""y,1\n"x"z,1\n', 2),
        (b'a,b\n""x,1\n', 2),
        (b'a,b\n"x"""y,1\n', 2),
        (b'a,b\n1,2\n"x,1\n1,2\n', 3),
        (b'a,b\n1,2\n1,"', 3),
        (b'a,"b\n', 1),
        (b"a,b\n\xff,1\n", 2),
        (b"a\xff,b\n", 1),
        (b"a,b\n1,2\n1,\0\n", 3),
        (b'a,b\n"x\n\ny",2\n\n1\n', 6),
    ],
)
def test_what_cannot_be_read(data: bytes, line: int) -> None:
    error = failure(of(a=STRING, b=STRING), data)
    assert (error.category, error.line) == (Category.DATA_MALFORMED, line)


def test_the_number_of_fields_is_told() -> None:
    assert failure(of(a=STRING), "a,b\n1,2,3\n").message == "Line 2 has 3 fields; 2 were expected."


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("a,b", ["a", "b"]),
        ("a,,b,", ["a", "column_2", "b", "column_4"]),
        ("a,A,a", ["a", "A_2", "a_3"]),
        ("a,a,a_2", ["a", "a_2", "a_2_2"]),
        (' a ,"b,""c",d e', [" a ", 'b,"c', "d e"]),
        ("\ufeffa,b", ["a", "b"]),
        ("ä.x,😀", ["ä.x", "😀"]),
    ],
)
def test_names(header: str, names: list[str]) -> None:
    assert [f.name for f in observe(header + "\n" + ",".join("1" for _ in names) + "\n").fields] == names


def test_names_that_are_taken() -> None:
    error = failure(of(a=STRING), "a,_Batch_Id\n")
    assert (error.category, error.line) == (Category.SCHEMA_MISMATCH, 1)


def test_no_header() -> None:
    options = replace(CSV, header=False)
    assert observe("1,x\n2,y\n", options=options) == Struct((Field("column_1", LONG), Field("column_2", STRING)))
    assert decode(of(column_1=LONG, column_2=STRING), "\n1,x\n2,y", options) == [
        {"column_1": 1, "column_2": "x"},
        {"column_1": 2, "column_2": "y"},
    ]
    assert failure(of(column_1=LONG), "1\nx\n", options).line == 2


def test_files_are_matched_by_name() -> None:
    made = decoder(CSV, of(a=LONG, b=STRING))
    decoded = made.decode_group([b"a,b\n1,x\n", b"a,b\n2,y", b"", b"B,A\nz,3\n", b"a\n4\n", b"a,b\n", b"a,b\n5,\n"])
    assert decoded.rows == (1, 1, 0, 1, 1, 0, 1)
    assert decoded.table.column("a").to_pylist() == [1, 2, 3, 4, 5]
    assert decoded.table.column("b").to_pylist() == ["x", "y", "z", None, None]


def test_one_bad_file_leaves_the_others_alone() -> None:
    files = [b"a,b\n%d,x\n" % n for n in range(40)]
    files[7], files[31] = b'a,b\n1,"x\n', b"a,b\n1\n"
    decoded = decoder(CSV, of(a=LONG, b=STRING)).decode_group(files)
    assert [n for n, r in enumerate(decoded.rows) if r != 1] == [7, 31]
    assert decoded.table.column("a").to_pylist() == [n for n in range(40) if n not in {7, 31}]


@pytest.mark.parametrize(
    "data",
    [
        b"a,b\r\n1,x\r\n\r\n2,y\r\n",
        b"\n\na,b\n1,x\n\n\n2,y",
        b"\xef\xbb\xbfa,b\n1,x\n2,y\n",
        b"a,b\r1,x\r2,y\r",
        b'"a","b"\n"1","x"\n"2","y"\n',
        "a,b\n1,x\n2,y\n".encode("utf-16"),
        "a,b\n1,x\n2,y\n".encode("utf-32"),
    ],
)
def test_layouts_and_marks(data: bytes) -> None:
    assert decode(of(a=LONG, b=STRING), data) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"a,b\n", b"a,b", b"\xef\xbb\xbf"])
def test_files_without_records(data: bytes) -> None:
    assert decode(of(a=LONG), data) == []


def test_a_header_alone_shows_names() -> None:
    assert observe("a,b\n") == Struct((Field("a", UNKNOWN), Field("b", UNKNOWN)))


def test_null_values_mean_null_unless_quoted() -> None:
    options = replace(CSV, null_values=("NA", "-"))
    rows = decode(of(a=STRING, n=LONG), 'a,n\nNA,-\n"NA",1\n,2\n"-",\n', options)
    assert rows == [{"a": None, "n": None}, {"a": "NA", "n": 1}, {"a": "", "n": 2}, {"a": "-", "n": None}]


def test_other_signs() -> None:
    tabs = replace(CSV, delimiter="\t", quote="'")
    assert decode(of(a=STRING, b=STRING), "a\tb\n'x\ty'\t\"\n", tabs) == [{"a": "x\ty", "b": '"'}]
    unquoted = replace(CSV, quote="")
    assert decode(of(a=STRING, b=STRING), 'a,b\n"x","\n', unquoted) == [{"a": '"x"', "b": '"'}]
    wide = replace(CSV, delimiter="¦")
    assert decode(of(a=STRING, b=LONG), "a¦b\nx¦1\n", wide) == [{"a": "x", "b": 1}]
    special = replace(CSV, delimiter="^", quote="]")
    assert decode(of(a=STRING, b=STRING), "a^b\n]x^y]^-\n", special) == [{"a": "x^y", "b": "-"}]


def test_escapes() -> None:
    text = 'a,b\n"x\\"y","p""q"\nl\\,m,n\\\\\n"\\\\",z\n'
    assert decode(of(a=STRING, b=STRING), text, ESCAPED) == [
        {"a": 'x"y', "b": 'p"q'},
        {"a": "l,m", "b": "n\\"},
        {"a": "\\", "b": "z"},
    ]
    same = replace(CSV, escape='"')
    assert decode(of(a=STRING), 'a\n"x""y"\n', same) == [{"a": 'x"y'}]


def test_skipped_rows_are_lines() -> None:
    options = replace(CSV, skip_rows=2)
    assert decode(of(a=LONG), '# made by "us\n\na\n1\n', options) == [{"a": 1}]
    assert failure(of(a=LONG), "#\n#\na\nx\n", options).line == 4


def test_other_encodings() -> None:
    options = replace(CSV, encoding="cp1252")
    assert decode(of(ä=STRING), "ä\n€\n".encode("cp1252"), options) == [{"ä": "€"}]


@pytest.mark.parametrize(
    "options",
    [
        replace(CSV, delimiter=""),
        replace(CSV, delimiter=",,"),
        replace(CSV, delimiter='"'),
        replace(CSV, delimiter="\n"),
        replace(CSV, quote="''"),
        replace(CSV, escape=","),
        replace(CSV, escape="\\\\"),
        replace(CSV, encoding="no-such"),
        replace(CSV, skip_rows=-1),
    ],
    ids=str,
)
def test_options_that_make_no_sense(options: FormatOptions) -> None:
    with pytest.raises(FileError) as caught:
        decoder(options)
    assert caught.value.category == Category.FORMAT_OPTIONS_INVALID


def test_too_many_columns() -> None:
    with pytest.raises(FileError) as caught:
        decoder(replace(CSV, max_columns=2)).observe([b"a,b,c\n"])
    assert caught.value.category == Category.LIMIT_EXCEEDED


def test_a_table_without_these_columns_gets_empty_rows() -> None:
    assert decode(of(z=LONG), "a\n\n") == []
    assert decode(of(z=LONG), 'a,b\n,""\n') == [{"z": None}]
