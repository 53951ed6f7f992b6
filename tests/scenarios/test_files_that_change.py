"""New versions of loaded files through the command line, with versions as a real store gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Home
from tests.support.events import event_file, event_files
from tests.support.seaweed import Seaweed
from tests.support.worlds import World, make_world


@pytest.fixture
def world(tmp_path: Path, seaweed: Seaweed) -> World:
    return make_world("s3-rest", tmp_path, seaweed)


@pytest.fixture
def home(world: World) -> Home:
    return world.home


def load(world: World, policy: str) -> dict[str, Any]:
    report: dict[str, Any] = world.home.json("load", world.source, "--to", world.table, "--on-file-change", policy)
    return report


def test_a_file_changes_and_changes_back(world: World, home: Home) -> None:
    world.land(event_files(0, 1))
    load(world, "ignore")
    world.land({"data/batch_0.json": event_file(7, region="north")})
    planned = home.json("plan", world.source, "--to", world.table, "--on-file-change", "replace")
    assert (planned["files"], planned["new_versions"]) == (1, {"replaced": 1, "appended": 0})
    report = load(world, "replace")
    assert (report["files"]["loaded"], report["new_versions"]) == (1, {"replaced": 1, "appended": 0})
    ids = f"select min(id) low, max(id) high, count(distinct id) ids, count(*) n from {world.table} group by _file_path"
    assert home.query(world.table, f"{ids} order by 1") == [
        {"low": 1000, "high": 1999, "ids": 1000, "n": 1000},
        {"low": 7000, "high": 7999, "ids": 1000, "n": 1000},
    ]

    # The same bytes have the same etag: it is the version that was superseded.
    world.land(event_files(0))
    shown = home.run("load", world.source, "--to", world.table, "--on-file-change", "replace")
    assert shown.status == 0, shown.stderr
    assert "1 file of them replaced the rows of an earlier version." in shown.stdout
    states = [(f["path"].rpartition("/")[2], f["state"], f["rows"]) for f in home.json("files", world.table)]
    assert sorted(states) == [
        ("batch_0.json", "success", 1000),
        ("batch_0.json", "superseded", 1000),
        ("batch_1.json", "success", 1000),
    ]
    assert home.query(world.table, f"{ids} order by 1")[0] == {"low": 0, "high": 999, "ids": 1000, "n": 1000}

    world.land({"data/batch_1.json": event_file(8)})
    assert load(world, "append")["new_versions"] == {"replaced": 0, "appended": 1}
    assert home.json("ledger", "check", world.table, world.source)["rows"]["table"] == 3000


def test_rows_that_name_no_file_are_not_to_be_replaced(world: World, home: Home) -> None:
    error = home.json(
        "load", world.source, "--to", world.table, "--on-file-change", "replace", "--no-provenance", status=2
    )
    assert error["code"] == "invalid_field"
    assert "provenance" in error["detail"]
