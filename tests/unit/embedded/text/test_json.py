"""What JSON files mean, each rule with the values at its edges; on both roads where the fast one may decide."""

from __future__ import annotations

import datetime as dt
import json
import math
from dataclasses import replace
from decimal import Decimal as Number

import pytest

from app.domain.errors import Category, FileError
from app.domain.types import (
    BINARY,
    BOOLEAN,
    DATE,
    DOUBLE,
    EMPTY,
    FLOAT,
    INT,
    LONG,
    STRING,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    UNKNOWN,
    UUID,
    DataType,
    Decimal,
    Field,
    Fixed,
    ListOf,
    MapOf,
    Struct,
)
from app.engines.embedded.decoding import DriftError
from tests.unit.embedded.text.roads import JSON, contents, decoder, stream

BIG = Decimal(38, 0)


def of(kind: DataType, *, required: bool = False) -> Struct:
    return Struct((Field("a", kind, required=required, id=1),))


def observe(text: str | bytes, schema: Struct = EMPTY) -> Struct:
    data = text if isinstance(text, bytes) else text.encode()
    found = decoder(JSON, schema).observe([data])
    assert decoder(JSON, schema, fast=False).observe([data]) == found
    return found


def decode(schema: Struct, text: str | bytes) -> list[dict[str, object]]:
    """The rows of one file, which must decode; the same on both roads."""
    data = text if isinstance(text, bytes) else text.encode()
    fast, exact = (decoder(JSON, schema, fast=road).decode_group([data]) for road in (True, False))
    for result in (fast, exact):
        [outcome] = result.rows
        if not isinstance(outcome, int):
            raise outcome
        assert outcome == len(result.table)
    assert repr(fast.table.to_pylist()) == repr(exact.table.to_pylist())
    assert fast.table.schema.equals(exact.table.schema, check_metadata=True)
    rows: list[dict[str, object]] = fast.table.to_pylist()
    return rows


def fit(kind: DataType, text: str) -> object:
    """The value of one column `a` of which the file has `text`."""
    [row] = decode(of(kind), f'{{"a": {text}}}')
    return row["a"]


def failure(schema: Struct, data: str | bytes) -> FileError:
    with pytest.raises(FileError) as caught:
        decode(schema, data)
    return caught.value


NATURAL: list[tuple[str, DataType]] = [
    ("null", UNKNOWN),
    ("{}", EMPTY),
    ("[]", ListOf(UNKNOWN)),
    ("[null]", ListOf(UNKNOWN)),
    ("true", BOOLEAN),
    ("0", LONG),
    ("-0", LONG),
    ("9223372036854775807", LONG),
    ("-9223372036854775808", LONG),
    ("9223372036854775808", BIG),
    ("-9223372036854775809", BIG),
    ("9" * 38, BIG),
    ("-" + "9" * 38, BIG),
    ("1" + "0" * 38, STRING),
    ("1" * 5000, STRING),
    ("1.0", DOUBLE),
    ("1e3", DOUBLE),
    ("-0.0", DOUBLE),
    ("1e999", STRING),
    ('""', STRING),
    ('"true"', STRING),
    ('"12"', STRING),
    ('"2024-02-29"', DATE),
    ('"2023-02-29"', STRING),
    ('"1900-02-29"', STRING),
    ('"2000-02-29"', DATE),
    ('"0001-01-01"', DATE),
    ('"0000-01-01"', STRING),
    ('"9999-12-31"', DATE),
    ('"2024-13-01"', STRING),
    ('"2024-1-1"', STRING),
    ('"٢٠٢٤-01-01"', STRING),
    ('"2024-01-02T03:04"', TIMESTAMP),
    ('"2024-01-02 03:04:05"', TIMESTAMP),
    ('"2024-01-02T03:04:05.123456789"', TIMESTAMP),
    ('"2024-01-02T03"', STRING),
    ('"2024-01-02T24:00:00"', STRING),
    ('"2024-01-02T23:59:60"', STRING),
    ('"2024-01-02T03:04:05."', STRING),
    ('"2024-01-02t03:04:05"', STRING),
    ('"2024-01-02T03:04Z"', TIMESTAMPTZ),
    ('"2024-01-02T03:04:05z"', STRING),
    ('"2024-01-02T03:04:05+01"', TIMESTAMPTZ),
    ('"2024-01-02T03:04:05-0130"', TIMESTAMPTZ),
    ('"2024-01-02T03:04:05.5+01:30"', TIMESTAMPTZ),
    ('"0001-01-01T01:00:00+01:00"', TIMESTAMPTZ),
    ('"9999-12-31T22:59:59.999999-01:00"', TIMESTAMPTZ),
    ('"0001-01-01T00:00:00+01:00"', STRING),
    ('"9999-12-31T23:59:59-01:00"', STRING),
    ('"2024-01-02T03:04:05+24:00"', STRING),
    ('"2024-01-02\\n"', STRING),
    ('{"b": 1}', Struct((Field("b", LONG),))),
    ("[1, 2.5]", ListOf(DOUBLE)),
    ('[1, "x"]', ListOf(STRING)),
    ('[{"b": 1}, {"c": true}]', ListOf(Struct((Field("b", LONG), Field("c", BOOLEAN))))),
]


@pytest.mark.parametrize(("text", "kind"), NATURAL, ids=[t[:40] for t, _ in NATURAL])
def test_the_type_that_a_value_shows(text: str, kind: DataType) -> None:
    assert observe(f'{{"a": {text}}}') == of(kind).__class__((Field("a", kind),))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ("1, 2.5", DOUBLE),
        ("1, 9223372036854775808", BIG),
        ("2.5, 9223372036854775808", STRING),
        ("null, 1", LONG),
        ("[], 1", STRING),
        ('{}, {"b": 1}', Struct((Field("b", LONG),))),
        ('"2024-01-02", "2024-01-02T03:04"', STRING),
        ('"2024-01-02T03:04", "2024-01-02T03:04Z"', STRING),
        ("1, true", STRING),
        ('{"b": 1}, {"B": 2.5}', Struct((Field("b", DOUBLE),))),
    ],
)
def test_types_join_whatever_the_order(values: str, kind: DataType) -> None:
    items = json.loads(f"[{values}]", parse_int=lambda t: t)
    assert items
    parts = (
        values.split(", ") if "{" not in values else [values[: values.index("}") + 1], values[values.index("}") + 3 :]]
    )
    lines = [f'{{"a": {part}}}' for part in parts]
    for order in (lines, lines[::-1]):
        [field] = observe("\n".join(order)).fields
        assert str(field.type).lower() == str(kind).lower()


def test_without_timestamps_text_stays_text() -> None:
    made = decoder(replace(JSON, infer_timestamps=False))
    assert made.observe([b'{"a": "2024-01-02"}']) == Struct((Field("a", STRING),))


def test_columns_come_in_the_order_in_which_they_are_first_seen() -> None:
    assert [f.name for f in observe('{"b":1,"a":2}\n{"c":null,"a":1}\n{"C":1}').fields] == ["b", "a", "c"]


def test_only_what_does_not_fit_is_observed() -> None:
    schema = Struct(
        (Field("i", INT), Field("d", DOUBLE), Field("s", Struct((Field("x", LONG),))), Field("l", ListOf(INT)))
    )
    text = '{"I": 3000000000, "d": 1, "s": {"x": 1, "y": true}, "l": [1, 3000000000], "n": "t"}'
    expected = (
        Field("i", LONG),
        Field("s", Struct((Field("y", BOOLEAN),))),
        Field("l", ListOf(LONG)),
        Field("n", STRING),
    )
    assert observe(text, schema) == Struct(expected)
    assert observe('{"i": 1, "d": 0.5, "s": null}', schema) == EMPTY


FITS: list[tuple[DataType, str, object]] = [
    (LONG, "9223372036854775807", 2**63 - 1),
    (LONG, "-9223372036854775808", -(2**63)),
    (LONG, "-0", 0),
    (INT, "2147483647", 2**31 - 1),
    (DOUBLE, "9007199254740992", 2.0**53),
    (DOUBLE, "-9007199254740992", -(2.0**53)),
    (DOUBLE, "9007199254740993.5", 9007199254740994.0),
    (DOUBLE, "5e-324", 5e-324),
    (FLOAT, "0.5", 0.5),
    (FLOAT, "16777216", 16777216.0),
    (BIG, "9" * 38, Number("9" * 38)),
    (Decimal(5, 2), "123.4", Number("123.40")),
    (Decimal(5, 2), "1.2e1", Number("12.00")),
    (Decimal(5, 2), "1.200", Number("1.20")),
    (Decimal(5, 2), "0e999999", Number("0.00")),
    (DATE, '"0001-01-01"', dt.date(1, 1, 1)),
    (DATE, '"9999-12-31"', dt.date(9999, 12, 31)),
    (DATE, '"1969-12-31"', dt.date(1969, 12, 31)),
    (TIMESTAMP, '"1969-12-31T23:59:59.999999"', dt.datetime(1969, 12, 31, 23, 59, 59, 999999)),  # noqa: DTZ001
    (TIMESTAMP, '"2024-01-02 03:04"', dt.datetime(2024, 1, 2, 3, 4)),  # noqa: DTZ001
    (TIMESTAMP, '"2024-01-02T03:04:05.123456000"', dt.datetime(2024, 1, 2, 3, 4, 5, 123456)),  # noqa: DTZ001
    (TIMESTAMPTZ, '"2024-01-02T03:04:05+0130"', dt.datetime(2024, 1, 2, 1, 34, 5, tzinfo=dt.UTC)),
    (TIMESTAMPTZ, '"2024-01-02T03:04:05-01"', dt.datetime(2024, 1, 2, 4, 4, 5, tzinfo=dt.UTC)),
    (TIME, '"23:59:59.000001"', dt.time(23, 59, 59, 1)),
    (STRING, '"\\ud83d\\ude00"', "😀"),
    (STRING, '"😀\\u0000"', "😀\0"),
    (STRING, "1.50", "1.50"),
    (STRING, "1e999", "1e999"),
    (STRING, "true", "true"),
    (STRING, '{"ü": [1.0, null, "\\u00fc\\n"]}', '{"ü":[1.0,null,"ü\\n"]}'),
    (ListOf(LONG), "[]", []),
    (ListOf(LONG), "[null, 1]", [None, 1]),
    (Struct((Field("b", LONG),)), "{}", {"b": None}),
    (Struct((Field("b", LONG),)), '{"B": 1, "n": null, "m": [{}]}', {"b": 1}),
    (MapOf(STRING, LONG), '{"k": 1, "K": null}', [("k", 1), ("K", None)]),
]


@pytest.mark.parametrize(("kind", "text", "value"), FITS, ids=[f"{k} {t[:30]}" for k, t, _ in FITS])
def test_a_value_that_fits(kind: DataType, text: str, value: object) -> None:
    assert fit(kind, text) == value


def test_minus_zero_keeps_its_sign() -> None:
    for text in ("-0.0", "-0"):
        value = fit(DOUBLE, text)
        assert isinstance(value, float)
        assert math.copysign(1, value) == -1


def test_a_uuid_also_inside_a_struct() -> None:
    text = '"12345678-1234-1234-1234-1234567890AB"'
    assert str(fit(UUID, text)) == "12345678-1234-1234-1234-1234567890ab"
    [row] = decode(of(Struct((Field("u", UUID),))), f'{{"a": {{"u": {text}}}}}')
    assert str(row["a"]["u"]) == "12345678-1234-1234-1234-1234567890ab"  # type: ignore[index]


MISFITS: list[tuple[DataType, str]] = [
    (BOOLEAN, "1"),
    (BOOLEAN, '"true"'),
    (LONG, "9223372036854775808"),
    (LONG, "1.0"),
    (LONG, "1e3"),
    (LONG, '"1"'),
    (LONG, "true"),
    (DOUBLE, "9007199254740993"),
    (DOUBLE, "-9007199254740993"),
    (DOUBLE, "9007199254740994"),
    (DOUBLE, "1e999"),
    (DOUBLE, '"1.5"'),
    (BIG, "1" + "0" * 38),
    (Decimal(5, 2), "1.234"),
    (Decimal(5, 2), "1e999999999999999999999"),
    (DATE, '"2024-01-02T00:00"'),
    (TIMESTAMP, '"2024-01-02"'),
    (TIMESTAMP, '"2024-01-02T03:04:05.1234567"'),
    (TIMESTAMP, '"2024-01-02T03:04:05Z"'),
    (TIMESTAMPTZ, '"2024-01-02T03:04:05"'),
    (UUID, '"12345678"'),
    (TIME, '"24:00"'),
    (BINARY, '"aGk="'),
    (Fixed(2), '"hi"'),
    (ListOf(LONG), "{}"),
    (ListOf(LONG), '["x"]'),
    (Struct((Field("b", LONG),)), "[]"),
    (Struct((Field("b", LONG),)), '{"b": "x"}'),
    (MapOf(STRING, LONG), '{"k": "x"}'),
    (MapOf(LONG, LONG), '{"1": 1}'),
]


@pytest.mark.parametrize(("kind", "text"), MISFITS, ids=[f"{k} {t[:30]}" for k, t in MISFITS])
def test_a_value_that_does_not_fit(kind: DataType, text: str) -> None:
    error = failure(of(kind), f'{{"a": null}}\n\n{{"a": {text}}}')
    assert (error.category, error.line) == (Category.SCHEMA_MISMATCH, 3)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (INT, "2147483648"),
        (FLOAT, "0.1"),
        (FLOAT, "16777217"),
        (Decimal(10, 2), "123456789.00"[:-3]),
        (ListOf(INT), "[2147483648]"),
        (Struct((Field("b", LONG),)), '{"c": 1}'),
        (ListOf(Struct((Field("b", LONG),))), '[{"c": [[1]]}]'),
    ],
)
def test_a_value_that_the_table_could_be_made_to_hold_is_drift(kind: DataType, text: str) -> None:
    with pytest.raises(DriftError):
        decode(of(kind), f'{{"a": {text}}}')


def test_a_new_column_is_drift_once_it_shows_a_type() -> None:
    assert decode(of(LONG), '{"a": 1, "n": null, "e": {}, "l": [[]], "d": {"x": null}}') == [{"a": 1}]
    with pytest.raises(DriftError):
        decode(of(LONG), '{"a": 1}\n{"n": 0}')


def test_messages_name_column_value_and_line() -> None:
    text = '{"amount": 1}\n{"amount": "12,5"}'
    error = failure(Struct((Field("amount", LONG),)), text)
    assert error.message == 'Column "amount" is long; the value "12,5" on line 2 does not fit.'
    assert "double would round it" in failure(of(DOUBLE), '{"a": 9007199254740993}').message
    assert "--no-infer-timestamps" in failure(of(TIMESTAMP), '{"a": "2024-01-02T03:04:05.1234567"}').message
    deep = failure(of(ListOf(Struct((Field("b", LONG),)))), '{"a": [{"b": "' + "x" * 500 + '"}]}')
    assert 'Column "a.element.b"' in deep.message
    assert len(deep.message) < 200


@pytest.mark.parametrize("text", ["{}", '{"a": null}', '{"b": null}'])
def test_a_required_column_needs_a_value(text: str) -> None:
    error = failure(of(LONG, required=True), f'{{"a": 1}}\n{text}')
    assert (error.category, error.line) == (Category.SCHEMA_MISMATCH, 2)
    assert "required" in error.message


@pytest.mark.parametrize("schema", [EMPTY, of(LONG)], ids=["new", "known"])
@pytest.mark.parametrize(
    ("text", "part"),
    [('{"a": 1, "A": 2}', '"a" and "A"'), ('{"_File_Path": null}', "taken"), ('{"_rescued_data": 1}', "taken")],
)
def test_names_that_cannot_have_a_column(schema: Struct, text: str, part: str) -> None:
    for action in (lambda: decode(schema, "\n" + text), lambda: observe("\n" + text, schema)):
        with pytest.raises(FileError, match=part) as caught:
            action()
        assert (caught.value.category, caught.value.line) == (Category.SCHEMA_MISMATCH, 2)


MALFORMED: list[tuple[bytes, int]] = [
    (b'{"a": 1}\n{"a": 1', 2),
    (b'{"a": 1}\n{"a": "x', 2),
    (b'{"a": 1}\n{"a": tr', 2),
    (b'{"a": 1}\n{"a": 1.', 2),
    (b'{"a": 1}\n{"a": 1} x', 2),
    (b'{"a": 1},\n{"a": 1}', 1),
    (b'{"a": 1, "a": 1}', 1),
    (b'{"n": {"x": 1, "x": 1}}', 1),
    (b'{"a": 1,}', 1),
    (b'{"a": 01}', 1),
    (b'{"a": NaN}', 1),
    (b'\n{"a": -Infinity}', 2),
    (b'{"a": 1}\nnull', 2),
    (b'{"a": 1}\n5', 2),
    (b'"x"', 1),
    (b'{"a": 1}\n[{"a": 1}]', 2),
    (b'[{"a": 1},\n5]', 2),
    (b'[{"a": 1}\n{"a": 1}]', 2),
    (b'[{"a": 1},\n]', 2),
    (b'[{"a": 1}\n', 2),
    (b"[\n", 2),
    (b'[{"a": 1}]\n{"a": 1}', 2),
    (b'{"a": 1}\n{"s": "\\ud800"}', 2),
    (b'{"a": 1}\n{"s": "\\udc00x"}', 2),
    (b'{"a": 1}\n{"s": "\xff"}', 2),
    (b'{"a": 1}\n{"s": "\xc3', 2),
    (b'{"a": 1}\n\xed\xa0\x80', 2),
    (b'{"s": "a\nb"}', 1),
    (b'{"s": "\\x"}', 1),
    (b'{"a": 1}\0', 1),
    (b'{"a": 1}\xef\xbb\xbf{"a": 1}', 1),
]


@pytest.mark.parametrize(("data", "line"), MALFORMED, ids=[repr(d) for d, _ in MALFORMED])
def test_what_is_not_json(data: bytes, line: int) -> None:
    schema = Struct((Field("a", LONG), Field("s", STRING)))
    error = failure(schema, data)
    assert (error.category, error.line) == (Category.DATA_MALFORMED, line)


def test_depth_has_a_limit() -> None:
    fits = '{"s": ' + "[" * 99 + "]" * 99 + "}"
    assert decode(Struct((Field("s", STRING),)), fits) == [{"s": "[" * 99 + "]" * 99}]
    for depth in (100, 990, 200_000):
        text = '{"s": 1}\n{"s": ' + "[" * depth + "]" * depth + "}"
        error = failure(Struct((Field("s", STRING),)), text)
        assert (error.category, error.line) == (Category.LIMIT_EXCEEDED, 2)


@pytest.mark.parametrize("opening", ["[", '{"k":', "[\n", '{"k":\n', '[{}\n,{"k":'])
def test_a_new_column_that_is_too_deep_does_not_end_the_process(opening: str) -> None:
    depth = 50_000
    closing = "".join("]}"[sign == "{"] for sign in reversed(opening) if sign in "[{")[: opening.count("k") or 1]
    for tail in ("1" + closing * depth + "}\n", ""):
        text = '{"a": 1}\n{"a": 1, "x": ' + opening * depth + tail
        [outcome] = decoder(JSON, of(LONG)).decode_group([text.encode()]).rows
        assert isinstance(outcome, FileError)
        assert (outcome.category, outcome.line) == (Category.LIMIT_EXCEEDED, 2)


def test_brackets_beside_each_other_are_no_depth() -> None:
    assert decode(of(STRING), '{"a": [' + ",".join(["[]"] * 500) + "]}")


def test_a_table_may_have_so_many_columns() -> None:
    made = decoder(replace(JSON, max_columns=3), of(LONG))
    assert len(made.observe([b'{"a":1,"b":1,"c":1}']).fields) == 2
    with pytest.raises(FileError) as caught:
        made.observe([b'{"b":1}\n{"c":1}\n{"d":null}'])
    assert (caught.value.category, caught.value.line) == (Category.LIMIT_EXCEEDED, 3)


def test_a_nested_object_of_too_many_keys_is_text() -> None:
    made = decoder(JSON)
    records = [json.dumps({"m": {f"k{n}": 1 for n in range(start, start + 400)}}) for start in (0, 400, 800)]
    assert made.observe(["\n".join(records).encode()]) == Struct((Field("m", STRING),))
    assert 'column "m"' in made.warnings[0]
    [field] = made.observe(["\n".join(records[:2]).encode()]).fields
    assert isinstance(field.type, Struct)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1}\n{"a":2}\n',
        b'{"a":1}{"a":2}',
        b'\xef\xbb\xbf{"a":1}\r\n\r\n{"a":2}',
        b'{\n  "a": 1\n}\n{\n  "a": 2\n}\n',
        b' [ {"a":1} , {"a":2} ] ',
        '{"a":1}\n{"a":2}'.encode("utf-16"),
        '{"a":1}\n{"a":2}'.encode("utf-32"),
        b"\xfe\xff" + '[{"a":1},{"a":2}]'.encode("utf-16-be"),
    ],
)
def test_layouts_and_marks(data: bytes) -> None:
    assert decode(of(LONG), data) == [{"a": 1}, {"a": 2}]
    whole = decoder(JSON, of(LONG)).decode_group([data]).table
    for size in (1, 3, 1000):
        chunks = [data[i : i + size] for i in range(0, len(data), size)]
        assert stream(decoder(JSON, of(LONG)), chunks, of(LONG)) == (2, contents(whole))


@pytest.mark.parametrize("data", [b"", b" \n", b"[]", b"\xef\xbb\xbf", b"[ ]\n"])
def test_files_without_records(data: bytes) -> None:
    assert decode(of(LONG), data) == []
    assert observe(data) == EMPTY


def test_other_encodings() -> None:
    schema = Struct((Field("s", STRING),))
    made = decoder(replace(JSON, encoding="latin-1"), schema)
    assert made.decode_group(['{"s": "é"}'.encode("latin-1")]).table.to_pylist() == [{"s": "é"}]
    ascii_only = decoder(replace(JSON, encoding="ascii"), schema)
    [error] = ascii_only.decode_group([b'{"s": "\xe9"}']).rows
    assert isinstance(error, FileError)
    assert error.category == Category.DATA_MALFORMED
    for name in ("no-such", "base64", "rot13"):
        with pytest.raises(FileError) as caught:
            decoder(replace(JSON, encoding=name))
        assert caught.value.category == Category.FORMAT_OPTIONS_INVALID


def test_null_and_empty_stay_apart_when_nested() -> None:
    kind = ListOf(Struct((Field("t", ListOf(TIMESTAMPTZ)), Field("s", Struct((Field("d", DATE),))))))
    text = """{"a": null}
        {"a": []}
        {"a": [null, {}]}
        {"a": [{"t": null, "s": null}, {"t": [], "s": {}}, {"t": [null, "2024-01-02T00:00:00Z"], "s": {"d": null}}]}"""
    moment = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)
    assert [row["a"] for row in decode(of(kind), text)] == [
        None,
        [],
        [None, {"t": None, "s": None}],
        [{"t": None, "s": None}, {"t": [], "s": {"d": None}}, {"t": [None, moment], "s": {"d": None}}],
    ]


def test_one_bad_file_leaves_the_others_alone() -> None:
    files = [b'{"a": %d}\n' % n for n in range(40)]
    files[7], files[31], files[33] = b"{", b'{"b": 1}', b""
    decoded = decoder(JSON, of(LONG)).decode_group(files)
    assert [r for r in decoded.rows if isinstance(r, int)] == [1] * 31 + [0] + [1] * 6
    assert isinstance(decoded.rows[7], FileError)
    assert isinstance(decoded.rows[31], DriftError)
    assert decoded.table.column("a").to_pylist() == [n for n in range(40) if n not in {7, 31, 33}]


def test_files_that_meet_in_one_parse_do_not_run_into_each_other() -> None:
    files = [b'{"a": 1, "s": {"x":', b'{"a": 2}}', b'{"a": 3}', b'{"a": 4}\n{"a": ', b"5}"]
    schema = Struct((Field("a", LONG), Field("s", Struct((Field("x", LONG),)))))
    decoded = decoder(JSON, schema).decode_group(files)
    assert [isinstance(r, int) for r in decoded.rows] == [False, False, True, False, False]
    assert decoded.table.column("a").to_pylist() == [3]


def test_a_part_that_ends_inside_a_record_is_observed_up_to_there() -> None:
    assert observe('{"a": 1}\n{"b": 1, "c') == Struct((Field("a", LONG),))
    assert observe('[{"a": 1}, {"b"') == Struct((Field("a", LONG),))
    with pytest.raises(FileError):
        observe('{"a": 1')


def test_records_that_no_file_should_have_are_refused_before_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    from app.engines.embedded.text import feed

    monkeypatch.setattr(feed, "MAX_RECORD_CHARACTERS", 1000)
    endless = (b'{"a": "' if n == 0 else b"x" * 100 for n in range(10**6))
    rows, _ = stream(decoder(JSON, of(STRING)), endless, of(STRING))
    assert rows[:2] == ("limit_exceeded", 1)  # type: ignore[index]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_an_offset_may_not_lead_out_of_the_years_that_readers_know(moment: str) -> None:
    (outcome,) = decoder(JSON, of(TIMESTAMPTZ)).decode_group([b'{"a": "%s"}\n' % moment.encode()]).rows
    assert isinstance(outcome, FileError)
    assert outcome.category is Category.SCHEMA_MISMATCH


def objects(levels: int, inside: str = "1") -> str:
    """A record in which a value lies within so many objects, the record not counted."""
    return '{"x":' * (levels + 1) + inside + "}" * (levels + 1) + "\n"


@pytest.mark.parametrize(
    "text",
    [objects(51), objects(99), '{"x":' + "[" * 26 + "1" + "]" * 26 + "}", objects(25, "[" * 13 + "1" + "]" * 13)],
)
def test_a_column_too_deep_for_a_table_fails_its_file(text: str) -> None:
    with pytest.raises(FileError, match=r'Column "x" is nested \d+ levels deep, and a table takes 50') as failure:
        observe('{"id": 1}\n' + text)
    assert failure.value.category is Category.LIMIT_EXCEEDED


def test_what_is_as_deep_as_a_table_takes_or_becomes_text_is_observed() -> None:
    assert [f.name for f in observe(objects(50)).fields] == ["x"]
    assert observe(objects(99) + '{"x": 1}') == Struct((Field("x", STRING),))
    assert observe(objects(99), Struct((Field("x", STRING),))) == EMPTY


def test_nulls_are_no_column_however_deep_they_lie() -> None:
    assert observe('{"id": 1}\n' + objects(99, "null")) == Struct((Field("id", LONG),))
    assert observe(objects(98, "{}")) == EMPTY
