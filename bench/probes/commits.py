"""Commit batches one after the other through the commit port alone, each of one row.

    commits.py ours HOME N       on a table that the first commit makes
    commits.py foreign HOME N    on a table that another program made

What is timed of a commit is head, draft, manifest and commit; the data file is written outside the clock. Old snapshots
are let go as a run does it, after the commit that says that there are many, and swept as if an hour had passed. That is
timed too, as a part of the mean of all commits, and of no single one.
"""

from __future__ import annotations

import io
import json
import sqlite3
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.serializers import ToOutputFile
from pyiceberg.types import LongType, NestedField

from app.destinations.catalog import IcebergCatalog
from app.destinations.configured import local_catalog
from app.domain.batch import BatchManifest, BatchRef
from app.domain.files import LoadedFile
from app.domain.ports import CommitOrder, Committed, DataFile, Draft
from app.domain.system_columns import system_columns
from app.domain.table import TableName
from app.domain.types import LONG, Field, Struct

TABLE = TableName("local", ("bench",), "events")
SCHEMA = Struct((Field("event_id", LONG), *system_columns(provenance=True)))
# So many commits are taken together: a hundred manifests are merged into one every so often, which is no usual commit.
WINDOW = 50
# Where else than at its ends one looks.
MILESTONES = (100, 1_000)
# So many commits are measured at each length of a history that was given.
FEW = 10


def main() -> None:
    """Commit and print figures."""
    kind, home, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    warehouse = home / "warehouse"
    catalog = local_catalog(warehouse)
    figures = ours(catalog, count) if kind == "ours" else foreign(catalog, warehouse, count)
    metadata = max(
        (warehouse / "bench" / "events" / "metadata").glob("*.metadata.json"), key=lambda p: p.stat().st_mtime
    )
    figures["snapshots"] = catalog.describe(TABLE).snapshots
    figures["metadata_mb"] = metadata.stat().st_size / 1e6
    print(json.dumps(figures))
    catalog.close()


def ours(catalog: IcebergCatalog, count: int) -> dict[str, float]:
    """So many commits one after the other."""
    commit(catalog.draft_new(TABLE, SCHEMA, {}), 1)
    times, upkeep = [], []
    for number in range(2, count + 2):
        seconds, committed = timed(catalog, number)
        times.append(seconds)
        # A tree that is measured beside this one may not know of it.
        if getattr(committed, "history_is_long", False):
            upkeep.append(let_go(catalog, number))
    window = min(WINDOW, max(1, count // 2))
    return {
        "wall_s": sum(times) + sum(upkeep),
        "first_s": statistics.median(times[:window]),
        "last_s": statistics.median(times[-window:]),
        **{f"at_{n}_s": around(times, n, window) for n in MILESTONES if n + window < count},
        "mean_s": (sum(times) + sum(upkeep)) / count,
        "expiry_s": statistics.median(upkeep) if upkeep else 0.0,
    }


def foreign(catalog: IcebergCatalog, warehouse: Path, count: int) -> dict[str, float]:
    """A few commits each at several lengths of the history, which is not made by commits: that would take hours."""
    make_foreign(warehouse)
    figures: dict[str, float] = {}
    number = 2
    for length in (0, *(n for n in MILESTONES if n < count), count):
        if length:
            give_history(warehouse, length)
        times = []
        for _ in range(FEW):
            times.append(timed(catalog, number)[0])
            number += 1
        name = {0: "first_s", count: "last_s"}.get(length, f"at_{length}_s")
        figures[name] = statistics.median(times)
    return {"wall_s": figures["last_s"], **figures}


def make_foreign(warehouse: Path) -> None:
    """A table as another program makes one."""
    warehouse.mkdir(parents=True)
    with closing(another(warehouse)) as catalog:
        catalog.create_namespace("bench")
        catalog.create_table("bench.events", Schema(NestedField(1, "event_id", LongType())))


def another(warehouse: Path) -> SqlCatalog:
    """The catalog as another program has it."""
    return SqlCatalog("local", uri=f"sqlite:///{warehouse}/catalog.db", warehouse=str(warehouse))


def give_history(warehouse: Path, count: int) -> None:
    """Leave the table with so many snapshots, as a program does that never lets one go."""
    with closing(another(warehouse)) as catalog:
        table = catalog.load_table("bench.events")
        now = table.metadata
        head = now.snapshots[-1]
        base = head.sequence_number or 0
        line = [*range(1, count), head.snapshot_id]
        snapshots = [
            head.model_copy(
                update={
                    "snapshot_id": snapshot_id,
                    "parent_snapshot_id": line[place - 1] if place else None,
                    "sequence_number": base + place,
                }
            )
            for place, snapshot_id in enumerate(line)
        ]
        entry = now.snapshot_log[-1]
        log = [entry.model_copy(update={"snapshot_id": s.snapshot_id}) for s in snapshots]
        grown = now.model_copy(
            update={"snapshots": snapshots, "snapshot_log": log, "last_sequence_number": base + count}
        )
    location = table.metadata_location.replace(".metadata.json", "-grown.metadata.json")
    ToOutputFile.table_metadata(grown, table.io.new_output(location))
    with closing(sqlite3.connect(warehouse / "catalog.db")) as connection, connection:
        connection.execute("update iceberg_tables set metadata_location = ?", [location])


def around(times: Sequence[float], number: int, window: int) -> float:
    """Seconds of a commit at that place."""
    return statistics.median(times[number - window // 2 : number + window // 2])


def let_go(catalog: IcebergCatalog, number: int) -> float:
    """Seconds of letting old snapshots go, and of removing their files."""
    began = time.perf_counter()
    catalog.expire(TABLE, BatchRef("bench", number, 1), lambda: None)
    catalog.remove(TABLE, [file.path for file in catalog.expired(TABLE, datetime.now(UTC)).files])
    return time.perf_counter() - began


def timed(catalog: IcebergCatalog, number: int) -> tuple[float, Committed]:
    """Seconds of one commit, and what came of it."""
    began = time.perf_counter()
    catalog.head(TABLE)
    draft = catalog.draft(TABLE, ())
    spent = time.perf_counter() - began
    seconds, committed = commit(draft, number)
    return spent + seconds, committed


def commit(draft: Draft, number: int) -> tuple[float, Committed]:
    """Seconds of manifest and commit, and what came of it; the data file is not counted."""
    batch = BatchRef("bench", number, 1)
    data_file = write(draft, f"{batch.batch_id}.parquet", number)
    began = time.perf_counter()
    path = draft.write_manifest(BatchManifest(batch, 1, files=(LoadedFile(f"s3://b/{number}.json", "v", 1, 10),)))
    committed = draft.commit(CommitOrder(batch, (data_file,), path, {}, lambda: None))
    return time.perf_counter() - began, committed


def write(draft: Draft, name: str, value: int) -> DataFile:
    """A data file of one row."""
    field_id = next(f.id for f in draft.schema.fields if f.name == "event_id")
    column = pa.field("event_id", pa.int64(), metadata={b"PARQUET:field_id": str(field_id).encode()})
    buffer = io.BytesIO()
    pq.write_table(pa.table([[value]], schema=pa.schema([column])), buffer)
    path, stream = draft.sink().create(name)
    with stream as file:
        file.write(buffer.getvalue())
    return DataFile(path, 1, buffer.tell())


if __name__ == "__main__":
    main()
