"""Rows of every type, edge values too, go in and come out equal: read back by another reader than ours."""

from __future__ import annotations

import decimal
import json
import math
import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.seaweed import Seaweed
from tests.support.worlds import World, make_world

TABLE = "types.all"
ASTRAL = "\U0001f680 größe \uffee"


@pytest.fixture
def place(tmp_path: Path, seaweed: Seaweed) -> World:
    return make_world("local-local", tmp_path, seaweed)


def rows_of(place: World) -> list[dict[str, Any]]:
    """The table's rows, read from its data files by plain Arrow, in order of `n`."""
    files = sorted(place.home.folder.glob("warehouse/**/*.parquet"))
    tables = [pq.read_table(f) for f in files]
    rows = pa.concat_tables(tables, promote_options="permissive").drop_columns(
        ["_file_path", "_file_modified_at", "_batch_id", "_rescued_data"]
    )
    return sorted(rows.to_pylist(), key=lambda row: row["n"])


def types_of(place: World) -> dict[str, str]:
    return {c["name"]: c["type"] for c in place.home.json("table", TABLE)["schema"] if not c["system"]}


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


JSON_ROWS: list[tuple[str, dict[str, Any]]] = [
    (
        ('{"n": 0, "long": 9007199254740993, "big": 99999999999999999999999999999999999999, "d": -0.0, "s": "", '
        '"day": "0001-01-01", "at": "0001-01-01T00:00:00", "tz": "9999-12-31T23:59:59.999999Z", "yes": true, '
        '"list": [], "struct": {"a": 1, "b": null}, "deep": [{"x": [1, null]}, null], "huge": 1e308}'),
        {
            "long": 2**53 + 1, "big": Decimal(10**38 - 1), "d": -0.0, "s": "", "day": date(1, 1, 1),
            "at": datetime(1, 1, 1), "tz": utc(9999, 12, 31, 23, 59, 59, 999999), "yes": True, "list": [],  # noqa: DTZ001
            "struct": {"a": 1, "b": None}, "deep": [{"x": [1, None]}, None], "huge": 1e308,
        },
    ),
    (
        ('{"n": 1, "long": -9223372036854775808, "big": 9223372036854775808, "d": 0.1, '
        '"s": "\\ud83d\\ude80 gr\\u00f6\\u00dfe", '
        '"day": "9999-12-31", "at": "2024-02-29 23:59:59.5", "tz": "2024-01-01T00:00:00+05:30", "yes": false, '
        '"list": ["", null, "x"], "struct": {"a": null, "b": "q"}, "deep": [], "huge": 5e-324}'),
        {
            "long": -(2**63), "big": Decimal(2**63), "d": 0.1, "s": "\U0001f680 größe", "day": date(9999, 12, 31),
            "at": datetime(2024, 2, 29, 23, 59, 59, 500000), "tz": utc(2023, 12, 31, 18, 30), "yes": False,  # noqa: DTZ001
            "list": ["", None, "x"], "struct": {"a": None, "b": "q"}, "deep": [], "huge": 5e-324,
        },
    ),
    (
        '{"n": 2}',
        dict.fromkeys(("long", "big", "d", "s", "day", "at", "tz", "yes", "list", "struct", "deep", "huge")),
    ),
]  # fmt: skip


def test_json(place: World) -> None:
    place.land({"a.json": "\n".join(text for text, _ in JSON_ROWS).encode()})
    place.home.json("load", place.source, "--to", TABLE)
    assert types_of(place) == {
        "n": "long",
        "long": "long",
        "big": "decimal(38, 0)",
        "d": "double",
        "s": "string",
        "day": "date",
        "at": "timestamp",
        "tz": "timestamptz",
        "yes": "boolean",
        "list": "list<string>",
        "struct": "struct<a: long, b: string>",
        "deep": "list<struct<x: list<long>>>",
        "huge": "double",
    }
    found = rows_of(place)
    assert found == [{"n": n, **values} for n, (_, values) in enumerate(JSON_ROWS)]
    assert math.copysign(1, found[0]["d"]) == -1
    # The command's own reading agrees on what NULL is and what is empty.
    shown = place.home.query(TABLE, f"select n, s, list, deep from {TABLE} order by n")
    assert [(r["s"], r["list"]) for r in shown] == [("", []), ("\U0001f680 größe", ["", None, "x"]), (None, None)]


def test_json_that_mixes_keeps_the_source_text(place: World) -> None:
    values = ["1", "1.50", '"x"', "true", '{"a": [1.0]}', "null", '""', "1e5", str(10**40), '"2024-01-01"']
    place.land({"a.json": "\n".join(f'{{"n": {n}, "v": {v}}}' for n, v in enumerate(values)).encode()})
    report = place.home.json("load", place.source, "--to", TABLE)
    assert types_of(place)["v"] == "string"
    found = [row["v"] for row in rows_of(place)]
    assert found[:4] == ["1", "1.50", "x", "true"]
    assert json.loads(found[4]) == {"a": [1.0]}
    assert found[5:] == [None, "", "1e5", str(10**40), "2024-01-01"]
    assert any('"v"' in warning for warning in report["warnings"])


def test_integers_that_a_double_would_round_fail_their_file(place: World) -> None:
    place.land({"a.json": b'{"n": 1, "d": 1.5}\n', "b.json": b'{"n": 2, "d": 9007199254740993}\n'})
    report = place.home.json("load", place.source, "--to", TABLE, status=3)
    (error,) = report["errors"]
    assert (error["category"], error["line"]) == ("schema_mismatch", 1)
    assert "9007199254740993" in error["message"]
    assert rows_of(place) == [{"n": 1, "d": 1.5}]


def test_csv(place: World) -> None:
    lines = [
        "n,long,big,d,s,day,tz,yes,code,quoted",
        '0,9007199254740993,99999999999999999999999999999999999999,-0.0,"",0001-01-01,2024-01-01T00:00:00Z,true,007,"a,b"',
        (
            "1,-9223372036854775808,9223372036854775808,1e-7,,9999-12-31,2024-01-01T01:00:00.25+01:00,FALSE,+49 30,"
            '"say ""hi""\nthere"'
        ),
        "2,,,,x,,,,,",
    ]
    place.land({"a.csv": "\r\n".join(lines).encode() + b"\r\n"})
    place.home.json("load", place.source, "--to", TABLE)
    assert types_of(place) == {
        "n": "long", "long": "long", "big": "decimal(38, 0)", "d": "double", "s": "string", "day": "date",
        "tz": "timestamptz", "yes": "boolean", "code": "string", "quoted": "string",
    }  # fmt: skip
    found = rows_of(place)
    assert math.copysign(1, found[0].pop("d")) == -1
    assert found == [
        {
            "n": 0, "long": 2**53 + 1, "big": Decimal(10**38 - 1), "s": "", "day": date(1, 1, 1),
            "tz": utc(2024, 1, 1), "yes": True, "code": "007", "quoted": "a,b",
        },
        {
            "n": 1, "long": -(2**63), "big": Decimal(2**63), "d": 1e-7, "s": None, "day": date(9999, 12, 31),
            "tz": utc(2024, 1, 1, 0, 0, 0, 250000), "yes": False, "code": "+49 30", "quoted": 'say "hi"\nthere',
        },
        {"n": 2, "long": None, "big": None, "d": None, "s": "x", "day": None, "tz": None, "yes": None, "code": None,
         "quoted": None},
    ]  # fmt: skip


def test_parquet(place: World, tmp_path: Path) -> None:
    values: dict[str, tuple[pa.DataType, str, list[Any], list[Any]]] = {
        "i8": (pa.int8(), "int", [-128, 127, None], [-128, 127, None]),
        "u16": (pa.uint16(), "int", [0, 65535, None], [0, 65535, None]),
        "u32": (pa.uint32(), "long", [0, 2**32 - 1, None], [0, 2**32 - 1, None]),
        "i64": (pa.int64(), "long", [-(2**63), 2**63 - 1, None], [-(2**63), 2**63 - 1, None]),
        "u64": (pa.uint64(), "decimal(20, 0)", [0, 2**64 - 1, None], [Decimal(0), Decimal(2**64 - 1), None]),
        "f32": (pa.float32(), "float", [-0.0, 1.5, None], [-0.0, 1.5, None]),
        "f64": (pa.float64(), "double", [1e308, 5e-324, None], [1e308, 5e-324, None]),
        "dec": (pa.decimal128(10, 2), "decimal(10, 2)", [Decimal("-1.10"), Decimal("99999999.99"), None], []),
        "dec76": (pa.decimal256(76, 0), "string", [Decimal(10**70), Decimal(-1), None], [str(10**70), "-1", None]),
        "flag": (pa.bool_(), "boolean", [True, False, None], []),
        "day": (pa.date32(), "date", [date(1, 1, 1), date(9999, 12, 31), None], []),
        "clock": (pa.time64("us"), "time", [time(0, 0), time(23, 59, 59, 999999), None], []),
        "ms": (pa.timestamp("ms"), "timestamp", [datetime(1, 1, 1), datetime(2024, 1, 1, 0, 0, 0, 5000), None], []),  # noqa: DTZ001
        "ns": (pa.timestamp("ns", "UTC"), "timestamptz", [utc(1700, 1, 1), utc(2024, 1, 1, 0, 0, 0, 7), None], []),
        "text": (pa.large_string(), "string", ["", ASTRAL, None], []),
        "raw": (pa.binary(), "binary", [b"", b"\x00\xff", None], []),
        "fix": (pa.binary(3), "fixed[3]", [b"abc", b"\x00\x00\x00", None], []),
        "dict": (pa.dictionary(pa.int8(), pa.string()), "string", ["a", "b", None], []),
        "list": (pa.list_(pa.int32()), "list<int>", [[], [1, None], None], []),
        "struct": (pa.struct([("a", pa.int64())]), "struct<a: long>", [{"a": None}, {"a": 1}, None], []),
        "map": (pa.map_(pa.string(), pa.int64()), "map<string, long>", [[], [("k", 1)], None], []),
        "lists": (
            pa.list_(pa.struct([("x", pa.string())])), "list<struct<x: string>>", [[], [None, {"x": ""}], None], [],
        ),
    }  # fmt: skip
    table = pa.table(
        {"n": pa.array([0, 1, 2], pa.int64()), **{k: pa.array(v, t) for k, (t, _, v, _) in values.items()}}
    )
    pq.write_table(table, tmp_path / "a.parquet", version="2.6")
    place.land({"a.parquet": (tmp_path / "a.parquet").read_bytes()})
    place.home.json("load", place.source, "--to", TABLE)
    assert types_of(place) == {"n": "long", **{name: kind for name, (_, kind, _, _) in values.items()}}
    found = rows_of(place)
    for name, (_, _, given, expected) in values.items():
        assert [row[name] for row in found] == (expected or given), name


def test_uuids(place: World, tmp_path: Path) -> None:
    one = uuid.uuid4()
    column = pa.array([one.bytes, None], pa.binary(16))
    table = pa.table({"n": [0, 1], "id": pa.ExtensionArray.from_storage(pa.uuid(), column)})
    pq.write_table(table, tmp_path / "a.parquet")
    place.land({"a.parquet": (tmp_path / "a.parquet").read_bytes()})
    place.home.json("load", place.source, "--to", TABLE)
    assert types_of(place)["id"] == "uuid"
    assert place.home.query(TABLE, f"select id from {TABLE} order by n") == [{"id": str(one)}, {"id": None}]


def test_int96_and_nanoseconds_that_do_not_fit(place: World, tmp_path: Path) -> None:
    at = datetime(2024, 1, 1, 12, 0, 0, 1)  # noqa: DTZ001
    pq.write_table(
        pa.table({"n": [0], "at": pa.array([at], pa.timestamp("ns"))}),
        tmp_path / "old",
        use_deprecated_int96_timestamps=True,
    )
    pq.write_table(pa.table({"n": [1], "at": pa.array([1], pa.timestamp("ns"))}), tmp_path / "fine", version="2.6")
    place.land({f"{name}.parquet": (tmp_path / name).read_bytes() for name in ("old", "fine")})
    report = place.home.json("load", place.source, "--to", TABLE, status=3)
    assert rows_of(place) == [{"n": 0, "at": at}]
    (error,) = report["errors"]
    assert (error["category"], "fine.parquet" in error["file"]) == ("schema_mismatch", True)


def test_files_that_disagree_meet_in_the_wider_type(place: World) -> None:
    place.land(
        {
            "a.json": b'{"n": 0, "v": 1, "w": 1, "x": {"p": 1}}\n',
            "b.json": b'{"n": 1, "v": 2.5, "w": 99999999999999999999, "x": {"q": "s"}}\n',
        }
    )
    place.home.json("load", place.source, "--to", TABLE)
    kinds = types_of(place)
    assert (kinds["v"], kinds["w"], kinds["x"]) == ("double", "decimal(38, 0)", "struct<p: long, q: string>")
    with decimal.localcontext(prec=50):
        assert rows_of(place) == [
            {"n": 0, "v": 1.0, "w": Decimal(1), "x": {"p": 1, "q": None}},
            {"n": 1, "v": 2.5, "w": Decimal(99999999999999999999), "x": {"p": None, "q": "s"}},
        ]


def test_timestamps_stay_text_where_asked(place: World) -> None:
    place.land({"a.json": b'{"n": 0, "at": "2024-01-01T00:00:00.123456789Z"}\n'})
    refused = place.home.json("load", place.source, "--to", TABLE, status=1)
    assert "--no-infer-timestamps" in refused["errors"][0]["message"]
    place.home.json("load", place.source, "--to", TABLE, "--no-infer-timestamps", "--retry-failed")
    assert rows_of(place) == [{"n": 0, "at": "2024-01-01T00:00:00.123456789Z"}]
