"""Ledger and table are held against each other, and mended, through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table

from tests.support.command import Home
from tests.support.events import event_files
from tests.support.seaweed import Seaweed
from tests.support.worlds import World, make_world


@pytest.fixture(params=["local-local", "s3-rest"])
def world(request: pytest.FixtureRequest, tmp_path: Path, seaweed: Seaweed) -> World:
    return make_world(request.param, tmp_path, seaweed)


@pytest.fixture
def home(world: World) -> Home:
    return world.home


def by_hand(world: World, work: Callable[[Table], None]) -> None:
    """Another program writes to the table."""
    name, *identifier = (
        world.table.split(".") if world.table.startswith("rest.") else ["local", *world.table.split(".")]
    )
    if name == "local":
        warehouse = world.home.folder / "warehouse"
        properties = {"type": "sql", "uri": f"sqlite:///{warehouse}/catalog.db", "warehouse": str(warehouse)}
    else:
        prefix = "PYICEBERG_CATALOG__REST__"
        properties = {
            k.removeprefix(prefix).lower().replace("__", ".").replace("_", "-"): v
            for k, v in world.home.environ.items()
            if k.startswith(prefix)
        }
    catalog = load_catalog(name, **properties)
    try:
        work(catalog.load_table(tuple(identifier)))
    finally:
        catalog.close()


def counts(report: dict[str, Any]) -> dict[str, int]:
    return {kind: found["count"] for kind, found in report["differences"].items() if found["count"]}


# --- check ------------------------------------------------------------------------------------------------------------


def test_a_check_finds_what_others_did_to_the_table(world: World, home: Home) -> None:
    world.land(event_files(0, 1))
    home.json("load", world.source, "--to", world.table)
    report = home.json("ledger", "check", world.table, world.source)
    assert report["equal"]
    assert report["files"] == {"listed": 2, "ledger": 2, "table": 2}
    assert report["rows"] == {"ledger": 2000, "table": 2000, "of_no_file": 0}

    by_hand(world, lambda table: table.delete("id = 5"))
    report = home.json("ledger", "check", world.table, world.source, status=1)
    assert counts(report) == {"rows_differ": 1}
    (row,) = report["differences"]["rows_differ"]["files"]
    assert row["path"].endswith("/data/batch_0.json")
    assert (row["rows_ledger"], row["rows_table"]) == (1000, 999)

    by_hand(world, lambda table: table.append(table.scan(row_filter="id = 1500").to_arrow()))
    by_hand(world, lambda table: table.delete("id < 1000"))
    world.land(event_files(2))
    report = home.json("ledger", "check", world.table, world.source, status=1)
    assert counts(report) == {"not_loaded": 1, "not_in_table": 1, "rows_differ": 1}
    assert counts(home.json("ledger", "check", world.table, status=1)) == {"not_in_table": 1, "rows_differ": 1}
    text = home.run("ledger", "check", world.table, world.source)
    assert text.status == 1
    assert "are NOT equal" in text.stdout
    assert "batch_2.json" in text.stdout
