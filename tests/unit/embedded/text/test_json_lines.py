"""Lines of one layout: read by cutting, with the exact road's result, or not at all."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.types import (
    BOOLEAN,
    DATE,
    DOUBLE,
    INT,
    LONG,
    STRING,
    TIMESTAMP,
    TIMESTAMPTZ,
    DataType,
    Field,
    ListOf,
    Struct,
)
from app.engines.embedded.text import json_lines
from app.engines.embedded.text.json_lines import JsonLines, layouts
from tests.unit.embedded.text.roads import JSON, contents, decoder, shown
from tests.unit.embedded.text.test_roads_agree import JSON_VALUES, NUMBERS, STRINGS, fitting


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces so small that a short text has many, and some lines are longer than one."""
    monkeypatch.setattr(json_lines, "PIECE_BYTES", 40)


KINDS = (BOOLEAN, INT, LONG, DOUBLE, STRING, DATE, TIMESTAMP, TIMESTAMPTZ)
KEYS = ("a", "b", "c d", "ü", "k:1", "x,y")


def exact(schema: Struct, files: list[bytes]) -> object:
    return shown(decoder(JSON, schema, fast=False).decode_group(files))


def columns(**kinds: DataType) -> Struct:
    return Struct(tuple(Field(name, kind) for name, kind in kinds.items()))


@st.composite
def uniform_cases(draw: st.DrawFn) -> tuple[Struct, list[bytes]]:
    """Files of lines that have one form, but for a value here and there that has none."""
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True))
    fields = [Field(k, draw(st.sampled_from(KINDS)), required=draw(st.integers(0, 9)) == 0) for k in keys]
    colon, comma = draw(st.sampled_from([(":", ","), (": ", ", "), (": ", ","), (":", ", ")]))
    ascii_only = draw(st.booleans())
    odd = st.one_of(
        JSON_VALUES,
        NUMBERS,
        STRINGS.map(lambda text: json.dumps(text, ensure_ascii=ascii_only)),
        st.sampled_from(['"', '""', '"a"b"', '"\t"', '"a:b"', '"a,b"', '"null"', "null ", '"1"', '"x","b":"y"']),
    )
    files = []
    for _ in range(draw(st.integers(1, 3))):
        lines = []
        for _ in range(draw(st.integers(0, 4))):
            values = [draw(odd if draw(st.integers(0, 30)) == 0 else fitting(f.type)) for f in fields]
            members = (f"{json.dumps(k, ensure_ascii=False)}{colon}{v}" for k, v in zip(keys, values, strict=True))
            lines.append("{" + comma.join(members) + "}")
        text = "\n".join(lines) + draw(st.sampled_from(["\n", "\n", "", "\n\n", " \n"]))
        files.append(text.encode("utf-8", "surrogatepass"))
    draw(st.randoms()).shuffle(fields)
    kept = fields if draw(st.integers(0, 5)) else fields[1:]
    more = [Field("more", draw(st.sampled_from(KINDS)))] if draw(st.booleans()) else []
    return Struct((*(kept or fields), *more)), files


@settings(max_examples=300, deadline=None)
@given(uniform_cases())
def test_lines_mean_what_the_exact_road_says(case: tuple[Struct, list[bytes]]) -> None:
    schema, files = case
    assert shown(decoder(JSON, schema).decode_group(files)) == exact(schema, files)
    texts = [text if text.endswith(b"\n") or not text else text + b"\n" for text in files]
    buffer = b"".join(texts)
    cut = JsonLines(schema).decode(texts, buffer) if buffer and b"\0" not in buffer and _is_utf8(buffer) else None
    if cut is not None:
        assert (cut[1], contents(cut[0])) == exact(schema, files)


def _is_utf8(buffer: bytes) -> bool:
    try:
        buffer.decode()
    except UnicodeDecodeError:
        return False
    return True


ALL = columns(b=BOOLEAN, i=INT, l=LONG, d=DOUBLE, s=STRING, day=DATE, at=TIMESTAMP, z=TIMESTAMPTZ)
RECORD = (
    '{"b":true,"i":-7,"l":9007199254740993,"d":1.25e3,"s":"é, x","day":"2024-02-29","at":"2024-01-02T03:04:05.25",'
    '"z":"2024-01-02T03:04:05+01:00"}\n'
)
NULLS = '{"b":null,"i":null,"l":null,"d":null,"s":null,"day":null,"at":null,"z":null}\n'


def test_this_road_is_taken_for_all_types_and_layouts() -> None:
    """Or else the test above compares other roads."""
    rows = RECORD + RECORD.replace("true", "false").replace("1.25e3", "-0.5")
    for text in (rows, rows.replace('":', '": '), rows.replace(',"', ', "')):
        data = text.encode()
        decoded = JsonLines(ALL).decode([data, b"", data], data + data)
        assert decoded is not None
        assert (decoded[1], contents(decoded[0])) == exact(ALL, [data, b"", data])


def test_nulls_are_not_the_word() -> None:
    schema = columns(s=STRING, n=LONG, w=STRING)
    text = b'{"s":null,"n":null,"w":"null"}\n{"s":"null","n":0,"w":null}\n{"s":null,"n":null,"w":null}\n'
    decoded = JsonLines(schema).decode([text], text)
    assert decoded is not None
    assert decoded[0].to_pylist() == [
        {"s": None, "n": None, "w": "null"},
        {"s": "null", "n": 0, "w": None},
        {"s": None, "n": None, "w": None},
    ]


def test_all_types_may_be_null() -> None:
    # In the first line they would hide how many signs are in the values of the next.
    data = RECORD + '{"b":null,"i":null,"l":null,"d":null,"s":null,"day":null,"at":"0001-01-01T00:00:00","z":null}\n'
    schema = Struct(tuple(f for f in ALL.fields if f.name not in {"z", "at"}))
    assert JsonLines(ALL).decode([data.encode()], data.encode()) is None
    text = "".join(line.split(',"at"')[0] + "}\n" for line in (RECORD + NULLS).splitlines()).encode()
    decoded = JsonLines(schema).decode([text], text)
    assert decoded is not None
    assert (decoded[1], contents(decoded[0])) == exact(schema, [text])


def test_text_with_one_of_the_signs_is_cut_at_the_other() -> None:
    schema = columns(n=LONG, s=STRING)
    commas = b'{"n":1,"s":"a"}\n{"n":2,"s":"a, b, c"}\n'
    colons = b'{"n":1,"s":"a"}\n{"n":2,"s":"a: b: c"}\n'
    both = b'{"n":1,"s":"a"}\n{"n":2,"s":"a: b, c"}\n'
    for text in (commas, colons):
        decoded = JsonLines(schema).decode([text], text)
        assert decoded is not None
        assert contents(decoded[0]) == exact(schema, [text])[1]  # type: ignore[index]
    assert JsonLines(schema).decode([both], both) is None


def test_columns_that_lines_lack_are_null() -> None:
    schema = columns(x=DATE, n=LONG, y=STRING)
    text = b'{"n":1}\n{"n":2}\n'
    decoded = JsonLines(schema).decode([text], text)
    assert decoded is not None
    assert decoded[0].to_pylist() == [{"x": None, "n": 1, "y": None}, {"x": None, "n": 2, "y": None}]


@pytest.mark.parametrize(
    "line",
    [
        # Values of another kind, also where two columns are wrong in turn.
        '{"n":"5","s":7}',
        '{"n":"5","s":"x"}',
        '{"n":5,"s":7}',
        '{"n":5,"s":true}',
        '{"n":5,"s":nul}',
        '{"n":5,"s":x}',
        '{"n":5,"s":}',
        '{"n":,"s":"x"}',
        # Numbers that Arrow's cast takes.
        *(f'{{"n":{n},"s":"x"}}' for n in ("007", "0x1F", "+5", "-0", "5.0", "1e2", " 5", "5 ", "-", "9" * 19)),
        # Quotes and signs of control.
        '{"n":5,"s":"}',
        '{"n":5,"s":"xyz}',
        '{"n":5,"s":xyz"}',
        '{"n":5,"s":"xyz"',
        '{"n":5,"s":"a"b"}',
        '{"n":5,"s":"a"""}',
        '{"n":5,"s":"\t"}',
        '{"n":5,"s":"\x1f"}',
        '{"n":5,"s":"a\\"b"}',
        '{"n":5,"s":"\\u0041"}',
        # Other forms.
        '{"s":"x","n":5}',
        '{"n":5}',
        '{"n":5,"s":"x","s":"y"}',
        '{"n":5,"s":"x","t":1}',
        '{"n": 5,"s":"x"}',
        '{"n":5, "s":"x"}',
        '{"n":5,"s":"x"} ',
        ' {"n":5,"s":"x"}',
        '{"n":5,"s":"x"},',
        '{"n":5,"s":"x"}{"n":5,"s":"x"}',
        '{"n":5,"s":"x"}\r',
        '{"n":5,\n"s":"x"}',
        '{"N":5,"s":"x"}',
        '{"n":5,"s":["x"]}',
        '{"n":5,"s":{"x":1}}',
        "[]",
        "null",
        "\ufeff",
    ],
)
def test_a_line_that_is_otherwise_is_left_to_other_roads(line: str) -> None:
    schema = columns(n=LONG, s=STRING)
    good = '{"n":1,"s":"a"}\n'
    for text in (good + line + "\n", good + line + "\n" + good, line + "\n" + good):
        data = text.encode()
        assert JsonLines(schema).decode([data], data) is None
        assert shown(decoder(JSON, schema).decode_group([data])) == exact(schema, [data])


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (DOUBLE, "00.5"),
        (DOUBLE, "-00.5"),
        (DOUBLE, ".5"),
        (DOUBLE, "-.5"),
        (DOUBLE, "5."),
        (DOUBLE, "5.e3"),
        (DOUBLE, "1e"),
        (DOUBLE, "01e3"),
        (DOUBLE, "+1e3"),
        (DOUBLE, "NaN"),
        (DOUBLE, "nan"),
        (DOUBLE, "inf"),
        (DOUBLE, "1e999"),
        (DOUBLE, "9007199254740993"),
        (DOUBLE, '"1.5"'),
        (INT, "2147483648"),
        (BOOLEAN, "True"),
        (BOOLEAN, '"true"'),
        (BOOLEAN, "1"),
        (DATE, '"2023-02-29"'),
        (DATE, '"0000-01-01"'),
        (DATE, "2024-01-01"),
        (TIMESTAMP, '"2024-01-02"'),
        (TIMESTAMP, '"2024-01-02T03:04:05Z"'),
        (TIMESTAMPTZ, '"2024-01-02T03:04:05"'),
        (TIMESTAMPTZ, '"9999-12-31T23:59:59-01:00"'),
        (TIMESTAMP, '"2024-01-02T03:04:05.1234567"'),
    ],
)
def test_a_value_that_does_not_fit_is_left_to_other_roads(kind: DataType, value: str) -> None:
    schema = columns(v=kind)
    data = f'{{"v":{value}}}\n'.encode()
    assert JsonLines(schema).decode([data], data) is None
    assert shown(decoder(JSON, schema).decode_group([data])) == exact(schema, [data])


def test_a_key_twice_is_left_to_other_roads() -> None:
    schema = columns(n=LONG, s=STRING)
    data = b'{"n":5,"s":"x","s":"y"}\n'
    assert JsonLines(schema).decode([data], data) is None
    assert shown(decoder(JSON, schema).decode_group([data])) == exact(schema, [data])


def test_a_required_column_must_have_a_value() -> None:
    schema = Struct((Field("n", LONG, required=True), Field("s", STRING)))
    for text in (b'{"n":1,"s":"a"}\n{"n":null,"s":"a"}\n', b'{"s":"a"}\n'):
        assert JsonLines(schema).decode([text], text) is None


def test_columns_with_others_inside_are_left_to_other_roads() -> None:
    schema = columns(n=LONG, s=STRING, l=ListOf(LONG))
    flat = b'{"n":1,"s":"a"}\n'
    assert JsonLines(schema).decode([flat], flat) is not None
    for text in (b'{"n":1,"l":null}\n', b'{"n":1,"l":[1]}\n'):
        assert JsonLines(schema).decode([text], text) is None


def test_empty_lines_are_no_rows_and_tell_no_file_apart() -> None:
    schema = columns(n=LONG)
    text = b'{"n":1}\n\n{"n":2}\n'
    assert JsonLines(schema).decode([text, b""], text) is None
    assert shown(decoder(JSON, schema).decode_group([text, b"\n", text])) == exact(schema, [text, b"\n", text])


def test_texts_of_other_kinds_are_soon_not_tried_any_more() -> None:
    lines = JsonLines(columns(n=LONG))
    good, bad = b'{"n":1}\n', b'{"n":1 }\n'
    assert lines.decode([bad], bad) is None
    assert lines.decode([good], good) is not None
    for _ in range(3):
        assert lines.decode([bad], bad) is None
    assert lines.decode([good], good) is None


@pytest.mark.parametrize(
    "line",
    ["", "{", "{}", "[1]", '{"a":1', '{"a":1,}', '{"a" :1}', '{"a":[1]}', '{"a\\u0041":1}', '{"a":1}x', '"a":1}'],
)
def test_a_line_without_a_layout(line: str) -> None:
    assert layouts(line) == ()


def test_a_key_with_one_of_the_signs_is_cut_at_the_other() -> None:
    assert [layout.sign for layout in layouts('{"a:b":1}')] == [","]
    assert [layout.sign for layout in layouts('{"a,b":1}')] == [":"]
    assert layouts('{"a,b":1,"c:d":2}') == ()
