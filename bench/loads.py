"""Cases that load files into a table: the product, its peers, and the floor."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import duckdb
from pyiceberg.table import StaticTable

from bench.cases import Bench, Case
from bench.contenders import Check, Contender, Prepare, WrongResultError, last_line, run_or_fail
from bench.data import EXAMPLE_ROWS, DataSet
from bench.environments import DLT, DUCKDB, FLOOR_DUCKDB, FLOOR_PYARROW, POLARS, PYARROW, Peer, PeerUnavailableError
from bench.figures import Bar, How
from bench.measuring import Measured
from bench.places import Tree

FLOORS = (FLOOR_DUCKDB.name, FLOOR_PYARROW.name)
EXAMPLE_IDS = (EXAMPLE_ROWS - 1) * EXAMPLE_ROWS // 2
HOME = {"AUTOLOADER_HOME": "{home}"}
FIRST = "first load"


def load_cases() -> list[Case]:
    """The cases, from disk and from an object store."""
    return [
        _case(
            "small",
            "5,000 NDJSON files of 10 KB",
            (DUCKDB, PYARROW, POLARS, DLT),
            Bar("5,000 small NDJSON files", "autoloader", "wall_s", 0.8, (DUCKDB.name,)),
        ),
        _case(
            "gz",
            "300 MB of NDJSON in 10 files, gzip",
            (DUCKDB, PYARROW, POLARS, DLT),
            Bar("300 MB NDJSON.gz", "autoloader", "wall_s", 1.3, FLOORS),
        ),
        _case(
            "csv",
            "300 MB of CSV in 10 files",
            (DUCKDB, PYARROW, POLARS, DLT),
            Bar("300 MB CSV", "autoloader", "wall_s", 1.3, FLOORS),
        ),
        _case(
            "parquet",
            "250 MB of Parquet in 10 files",
            (DUCKDB, PYARROW, POLARS, DLT),
            Bar("250 MB Parquet", "autoloader", "wall_s", 1.0, (DUCKDB.name,)),
        ),
        _case(
            "big",
            "one NDJSON file of 2 GB",
            (DUCKDB,),
            Bar("one 2 GB file: cores at work", "autoloader", "cores", 1.5, how=How.VALUE, at_least=True),
            Bar("one 2 GB file: peak memory, MB", "autoloader", "peak_mb", 700, how=How.VALUE),
            runs=1,
            first=False,
        ),
        _case("wide", "100 MB of NDJSON, 100 columns", (DUCKDB, PYARROW, POLARS), runs=2),
        _case("nested", "100 MB of NDJSON, nested", (DUCKDB, PYARROW), runs=2),
        _case(
            "small-s3",
            "5,000 NDJSON files of 10 KB, from S3",
            (DUCKDB, PYARROW, POLARS),
            Bar("5,000 small NDJSON files from S3", "autoloader", "wall_s", 0.5, (DUCKDB.name,)),
            runs=2,
            remote=True,
        ),
        _case("gz-s3", "300 MB of NDJSON in 10 files, gzip, from S3", (DUCKDB,), runs=2, remote=True),
        _case("csv-s3", "300 MB of CSV in 10 files, from S3", (DUCKDB,), runs=2, remote=True),
        _case("parquet-s3", "250 MB of Parquet in 10 files, from S3", (DUCKDB,), runs=2, remote=True),
        _case(
            "big-s3",
            "one NDJSON file of 2 GB, from S3",
            (DUCKDB,),
            Bar("one 2 GB file from S3: peak memory, MB", "autoloader", "peak_mb", 700, how=How.VALUE),
            runs=1,
            first=False,
            remote=True,
            heavy=True,
        ),
    ]


def _case(
    name: str,
    title: str,
    peers: tuple[Peer, ...],
    *bars: Bar,
    runs: int = 3,
    first: bool = True,
    remote: bool = False,
    heavy: bool = False,
) -> Case:
    data = name.removesuffix("-s3")
    work = bars[0].work if bars else title
    if first:
        first_bar = Bar(f"first load of {work}", f"autoloader: {FIRST}", "wall_s", 1.5, ("autoloader",))
        bars = (*bars, first_bar)
    floors = (FLOOR_PYARROW,) if remote else (FLOOR_DUCKDB, FLOOR_PYARROW)
    return Case(
        name,
        title,
        partial(_ours, data=data, first=first, remote=remote),
        partial(_rivals, data=data, peers=(*floors, *peers), remote=remote),
        bars,
        runs,
        heavy,
    )


def _source(bench: Bench, found: DataSet, *, remote: bool) -> tuple[str, str, dict[str, str]]:
    """Where the files are, where the example is, and the key to both."""
    if not remote:
        return str(found.source), str(found.example), {}
    files = bench.store.put_folder(found.source, f"{found.name}/files")
    example = bench.store.put_folder(found.example, f"{found.name}/example")
    return files, example, bench.store.environ


def _ours(bench: Bench, tree: Tree, *, data: str, first: bool, remote: bool) -> list[Contender]:
    found = bench.data_set(data)
    source, example, key = _source(bench, found, remote=remote)
    environ = {**tree.environ, **HOME, **key}
    load = tree.command("load", source, "--to", "bench.events", "--output", "json")
    make = _prepared(tree.command("load", example, "--to", "bench.events", "--output", "json"), environ)

    def prepare(home: Path) -> None:
        make(home)
        # The data were made long ago, and land after the load of the example all the same.
        os.utime(home / "autoloader.db", (0, 0))

    second = Contender(tree.label, load, environ, prepare, _check(found, _our_table, with_example=True))
    anew = Contender(tree.named(FIRST), load, environ, None, _check(found, _our_table, with_example=False))
    return [second, anew] if first else [second]


def _rivals(bench: Bench, *, data: str, peers: tuple[Peer, ...], remote: bool) -> list[Contender]:
    found = bench.data_set(data)
    source, example, key = _source(bench, found, remote=remote)
    return [_rival(bench, peer, found, source, example, key) for peer in peers]


def _rival(  # noqa: PLR0917 - all of them say what is loaded
    bench: Bench, peer: Peer, found: DataSet, source: str, example: str, key: dict[str, str]
) -> Contender:
    try:
        python = peer.python(bench.places)
    except PeerUnavailableError as error:
        return Contender(peer.name, (), unavailable=str(error))
    common = (str(python), str(_script(peer)), "--kind", found.kind, "--home", "{home}", "--source")
    if peer.name in FLOORS:
        sample = next(found.example.iterdir())
        return Contender(peer.name, (*common, source, "--example", str(sample)), key, check=_check_floor(found))
    return Contender(
        peer.name,
        (*common, source),
        key,
        _prepared((*common, example), key),
        _check(found, _their_table, with_example=True),
        most_runs=1 if peer is DLT else 100,
    )


def _script(peer: Peer) -> Path:
    return Path(__file__).parent / "peers" / f"{peer.script}.py"


def _prepared(command: tuple[str, ...], environ: dict[str, str]) -> Prepare:
    def prepare(home: Path) -> None:
        run_or_fail(command, home, environ)

    return prepare


# --- what is in the tables ------------------------------------------------------------------------------------------


def _check(found: DataSet, table: Callable[[Path, Measured], str], *, with_example: bool) -> Check:
    """Rows and ids of a table."""
    rows = found.rows + EXAMPLE_ROWS * with_example
    ids = found.id_sum + EXAMPLE_IDS * with_example

    def check(home: Path, measured: Measured) -> None:
        loaded = StaticTable.from_metadata(table(home, measured))
        paths = [task.file.file_path.removeprefix("file://") for task in loaded.scan().plan_files()]
        check_rows(paths, rows, ids)

    return check


def _check_floor(found: DataSet) -> Check:
    def check(home: Path, _measured: Measured) -> None:
        check_rows([str(path) for path in (home / "out").glob("*.parquet")], found.rows, found.id_sum)

    return check


def check_rows(paths: list[str], rows: int, id_sum: int) -> None:
    """Hold the rows of Parquet files against what must be in them.

    Raises:
        WrongResultError: They are not that.
    """
    with duckdb.connect() as connection:
        query = "select count(*), sum(event_id), count(happened_at) from read_parquet(?)"
        found = connection.execute(query, [paths]).fetchone() if paths else (0, 0, 0)
    if found is None or tuple(map(int, found)) != (rows, id_sum, rows):
        raise WrongResultError(f"rows, sum of ids and times are {found}, not {(rows, id_sum, rows)}")


def _our_table(home: Path, measured: Measured) -> str:
    report = json.loads(measured.stdout)
    if report["status"] != "success":
        raise WrongResultError(f"the load ended as {report['status']}")
    with closing(sqlite3.connect(home / "warehouse" / "catalog.db")) as catalog:
        (location,) = catalog.execute("select metadata_location from iceberg_tables").fetchone()
    return str(location)


def _their_table(_home: Path, measured: Measured) -> str:
    return str(json.loads(last_line(measured.stdout))["metadata"])
