"""Files land, a load is run, the table equals the files: through the command line, on real stores and catalogs."""

from __future__ import annotations

from tests.support.events import event_files
from tests.support.worlds import World

COLUMNS = ["id", "timestamp", "user_id", "event_type", "value"]


def test_a_table_stays_equal_to_its_files(world: World) -> None:
    """Three files, then two more, then nothing new."""
    home, table = world.home, world.table
    world.land(event_files(0, 1, 2))
    first = home.json("load", world.source, "--to", table)
    assert first["status"] == "success"
    assert first["files"] == {"loaded": 3, "failed": 0, "skipped": 0, "known": 0}
    assert first["rows"] == {"loaded": 3000, "rescued": 0, "quarantined": 0, "dropped": 0}
    assert home.columns(table) == COLUMNS
    count = f"select count(*) n, count(distinct id) ids, sum(id) total from {table}"
    assert home.query(table, count) == [{"n": 3000, "ids": 3000, "total": sum(range(3000))}]

    world.land(event_files(3, 4))
    second = home.json("load", world.source, "--to", table)
    assert (second["files"]["loaded"], second["files"]["known"], second["rows"]["loaded"]) == (2, 3, 2000)
    assert home.query(table, count) == [{"n": 5000, "ids": 5000, "total": sum(range(5000))}]
    assert second["snapshot_id"] != first["snapshot_id"]

    third = home.json("load", world.source, "--to", table)
    assert third["status"] == "success"
    assert (third["files"]["loaded"], third["files"]["known"], third["snapshot_id"]) == (0, 5, None)
    assert home.json("table", table)["snapshots"] == 2


def test_new_columns_come_with_the_data_that_has_them(world: World) -> None:
    """Old rows read NULL in columns that came later."""
    home, table = world.home, world.table
    world.land(event_files(0, 1, 2))
    home.json("load", world.source, "--to", table)
    world.land(event_files(3, 4, region="eu-west", metadata={"device": "phone", "build": 7}))
    planned = home.json("plan", world.source, "--to", table)
    assert planned["files"] == 2
    assert planned["changes"] == ["add region string", "add metadata struct<device: string, build: long>"]
    home.json("load", world.source, "--to", table)
    assert home.columns(table) == [*COLUMNS, "region", "metadata"]
    assert home.query(
        table,
        f"select count(*) n, count(region) regions, count(metadata) structs, max(metadata.build) build from {table}",
    ) == [{"n": 5000, "regions": 2000, "structs": 2000, "build": 7}]
    assert home.query(table, f"select count(*) n from {table} where id < 3000 and region is null") == [{"n": 3000}]
    assert home.json("table", table)["snapshots"] == 2


def test_one_bad_file_stops_no_other(world: World) -> None:
    """The good files load, the run is partial, and the bad ones are listed with what is wrong where."""
    home, table = world.home, world.table
    broken = b'{"id": 1}\n{"id": 2}\n{"id": oops}\n'
    world.land({**event_files(0, 1), "data/broken.json": broken, "data/picture.json": b"\x89PNG\r\n\x1a\n" + bytes(64)})
    report = home.json("load", world.source, "--to", table, status=3)
    assert report["status"] == "partial"
    assert (report["files"]["loaded"], report["files"]["failed"], report["rows"]["loaded"]) == (2, 2, 2000)
    errors = {e["file"].rsplit("/", 1)[1]: e for e in report["errors"]}
    assert errors["broken.json"]["category"] == "data_malformed"
    assert errors["broken.json"]["line"] == 3
    assert not errors["broken.json"]["retryable"]
    assert errors["picture.json"]["category"] == "data_malformed"
    listed = home.json("files", table, "--failed")
    assert [f["path"].rsplit("/", 1)[1] for f in listed] == ["broken.json", "picture.json"]
    assert all(f["state"] == "failed" and f["tries"] == 1 and f["message"] for f in listed)
    assert home.query(table, f"select count(*) n from {table}") == [{"n": 2000}]

    again = home.json("load", world.source, "--to", table)
    assert (again["status"], again["files"]["loaded"], again["files"]["failed"]) == ("success", 0, 0)
    assert "--retry-failed" in again["warnings"][0]

    world.land({"data/broken.json": broken.replace(b"oops", b"3")})
    mended = home.json("load", world.source, "--to", table)
    assert (mended["files"]["loaded"], mended["rows"]["loaded"]) == (1, 3)
    assert [f["path"].rsplit("/", 1)[1] for f in home.json("files", table, "--failed")] == ["picture.json"]


def test_rows_say_where_they_came_from(world: World) -> None:
    """The system columns name file, time and batch of every row."""
    home, table = world.home, world.table
    world.land(event_files(0, 1))
    home.json("load", world.source, "--to", table)
    rows = home.query(
        table,
        "select _file_path p, count(*) n, count(distinct _batch_id) b, count(_file_modified_at) t, "
        f"count(_rescued_data) r, min(id) low from {table} group by 1 order by 1",
    )
    assert [(row["n"], row["b"], row["t"], row["r"], row["low"]) for row in rows] == [
        (1000, 1, 1000, 0, 0),
        (1000, 1, 1000, 0, 1000),
    ]
    paths = [f["path"] for f in home.json("files", table)]
    assert [row["p"] for row in rows] == paths
    assert all(path.endswith(f"data/batch_{i}.json") for i, path in enumerate(paths))
