"""Odd files among good ones: whatever is wrong with one, the others load, and the message says what it is."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.events import event_file
from tests.support.seaweed import Seaweed
from tests.support.worlds import World, make_world

TABLE = "d.t"


@pytest.fixture
def place(tmp_path: Path, seaweed: Seaweed) -> World:
    return make_world("local-local", tmp_path, seaweed)


def partial(place: World) -> dict[str, Any]:
    """A load of which one file fails; its error."""
    report = place.home.json("load", place.source, "--to", TABLE, status=3)
    (error,) = report["errors"]
    return dict(error)


@pytest.mark.parametrize(
    "clash",
    ['{"a.b": 1, "a": {"b": 2}}', '{"s": {"a.b": 1, "a": {"b": 2}}}', '{"a": [1], "a.element": 2}'],
)
def test_a_dotted_name_beside_a_struct_fails_its_file_alone(place: World, clash: str) -> None:
    place.land({"a.json": clash.encode(), "b.json": b'{"x": 1}\n'})
    error = partial(place)
    assert (error["category"], error["file"].endswith("a.json")) == ("schema_mismatch", True)
    assert place.home.query(TABLE, f"select count(*) n, sum(x) x from {TABLE}") == [{"n": 1, "x": 1}]


def nested(kind: str, levels: int) -> bytes:
    """A record whose column `x` is so many levels deep, of which a list is two."""
    if kind == "lists":
        return ('{"x":' + "[" * (levels // 2) + "1" + "]" * (levels // 2) + "}\n").encode()
    return ('{"x":' * (levels + 1) + "1" + "}" * (levels + 1) + "\n").encode()


@pytest.mark.parametrize("kind", ["objects", "lists"])
def test_a_column_deeper_than_a_table_takes_fails_its_file_alone(place: World, kind: str) -> None:
    place.land({"a.json": b'{"id": 1}\n', "b.json": nested(kind, 52)})
    assert partial(place)["category"] == "limit_exceeded"
    place.land({"c.json": nested(kind, 98), "d.json": b'{"id": 2}\n'})
    assert "98 levels" in partial(place)["message"]
    assert place.home.query(TABLE, f"select sum(id) n from {TABLE}") == [{"n": 3}]


@pytest.mark.parametrize("kind", ["objects", "lists"])
def test_a_column_as_deep_as_a_table_takes_is_written_and_read(place: World, kind: str) -> None:
    place.land({"a.json": b'{"id": 1}\n', "b.json": nested(kind, 50)})
    place.home.json("load", place.source, "--to", TABLE)
    place.land({"c.json": nested(kind, 50)})
    place.home.json("load", place.source, "--to", TABLE)
    assert place.home.query(TABLE, f"select count(id) n from {TABLE}") == [{"n": 1}]
    assert place.home.query(TABLE, f"select count(x) n from {TABLE}") == [{"n": 2}]


def test_a_dotted_name_that_comes_later_fails_its_file_alone(place: World) -> None:
    place.land({"a.json": b'{"a": {"b": 2}}\n'})
    place.home.json("load", place.source, "--to", TABLE)
    place.land({"b.json": b'{"a.b": 3}\n', "c.json": b'{"x": 3, "a": {"c": 1}}\n'})
    error = partial(place)
    assert (error["category"], error["file"].endswith("b.json")) == ("schema_mismatch", True)
    assert place.home.columns(TABLE) == ["a", "x"]


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-10:00", "0001-01-01T00:00:00+10:00"])
def test_a_moment_outside_of_all_years_is_text(place: World, moment: str) -> None:
    place.land({"a.json": json.dumps({"moment": moment}).encode(), "b.json": b'{"x": 1}\n'})
    place.home.json("load", place.source, "--to", TABLE)
    assert place.home.query(TABLE, f"select moment from {TABLE} where moment is not null") == [{"moment": moment}]
    place.land({"c.json": b'{"moment": "2024-01-01T00:00:00Z"}\n'})
    assert place.home.json("load", place.source, "--to", TABLE)["files"]["loaded"] == 1


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array([2**62], pa.timestamp("us", "UTC")), "9999"),
        (pa.array([10**7], pa.date32()), "9999"),
        (pa.array([1], pa.duration("us")), "duration"),
        (pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64())), "twice"),
    ],
)
def test_parquet_that_no_column_can_hold_fails_its_file_alone(place: World, column: pa.Array, words: str) -> None:
    folder = Path(place.source)
    pq.write_table(pa.table({"x": [1], "odd": column}), folder / "a.parquet")
    pq.write_table(pa.table({"x": [2], "at": [datetime(2024, 1, 1, tzinfo=UTC)]}), folder / "b.parquet")
    error = partial(place)
    assert (error["category"], words in error["message"]) == ("schema_mismatch", True)
    assert place.home.query(TABLE, f"select x from {TABLE}") == [{"x": 2}]


def test_a_file_has_one_key_by_whichever_link_it_is_reached(place: World) -> None:
    folder = Path(place.source)
    (folder / "src").mkdir()
    (folder / "src/0.json").write_bytes(b'{"id": 0}\n')
    (folder / "link").symlink_to("src")
    (folder / "more").mkdir()
    (folder / "more/sub").symlink_to("../src")
    key = f"file://{folder.resolve()}/src/0.json"
    report = place.home.json("load", f"{folder}/{{src,link}}/*.json", "--to", TABLE)
    assert report["files"]["loaded"] == 1
    for spelling in (
        f"{folder}/*/*.json",
        str(folder),
        f"{folder}/more",
        f"{folder}/more/sub",
        f"{folder}/link/0.json",
    ):
        report = place.home.json("load", spelling, "--to", TABLE)
        assert (report["files"]["loaded"], report["files"]["known"]) == (0, 1), spelling
    assert [f["path"] for f in place.home.json("files", TABLE)] == [key]
    assert place.home.query(TABLE, f"select _file_path p, count(*) n from {TABLE} group by 1") == [{"p": key, "n": 1}]


def test_an_empty_file_has_no_format(place: World) -> None:
    place.land({"a.json": b'{"x": 1}\n', "z": b""})
    report = place.home.json("load", place.source, "--to", TABLE)
    assert (report["files"]["loaded"], report["files"]["skipped"]) == (1, 1)


def test_a_key_in_an_address_is_refused_and_not_repeated(place: World) -> None:
    done = place.home.run("load", "s3://admin:very-secret@bucket/x/", "--to", TABLE, "--output", "json")
    assert (done.status, done.json["code"]) == (2, "invalid_field")
    assert "very-secret" not in done.stdout + done.stderr


def test_what_the_parser_refuses_is_a_document_too(place: World) -> None:
    for arguments in (["load", place.source], ["load", place.source, "--to", TABLE, "--bogus"], ["files"]):
        done = place.home.run(*arguments, "--output", "json")
        assert (done.status, done.json["code"]) == (2, "usage")


def test_what_stops_a_load_before_it_begins_has_the_form_of_a_run(place: World) -> None:
    document = place.home.json("load", "./nowhere", "--to", TABLE, status=1)
    assert (document["status"], document["run_id"], document["code"]) == ("failed", None, "path_not_found")
    assert document["errors"][0]["category"] == "path_not_found"
    assert document["rows"]["loaded"] == 0


def test_numbers_that_json_does_not_have_are_text(place: World) -> None:
    pq.write_table(pa.table({"x": pa.array([float("nan"), float("-inf")], pa.float32())}), f"{place.source}/a.parquet")
    place.home.json("load", place.source, "--to", TABLE)
    done = place.home.run("table", TABLE, "--sql", f"select x, interval 1 day d from {TABLE}", "--output", "json")
    rows = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert sorted(row["x"] for row in rows) == ["-inf", "nan"]


def test_a_load_that_is_stopped_says_what_it_did(place: World) -> None:
    """Ctrl-C: a document, status 130, the lease given back; the next load goes on."""
    place.land({f"{i}.json": event_file(i) for i in range(3)})
    process = place.home.process(
        "load", place.source, "--to", TABLE, "--output", "json", environ={"AUTOLOADER_FAILPOINT": "data_written:pause"}
    )
    while b"T" not in Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()[0]:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGCONT)
    stdout, stderr = process.communicate(timeout=150)
    assert (process.returncode, json.loads(stdout)["status"]) == (130, "cancelled"), stderr
    report = place.home.json("load", place.source, "--to", TABLE, "--wait", "0")
    assert report["rows"]["loaded"] == 3000
    assert place.home.query(TABLE, f"select count(*) n, count(distinct id) i from {TABLE}") == [{"n": 3000, "i": 3000}]
