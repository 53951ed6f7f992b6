"""What a table and its ledger hold, looked at without the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.destinations.catalog import IcebergCatalog
from app.domain.files import FileState, LedgerFile
from app.domain.table import TableName, parse_table_name
from app.persistence.ledger import open_ledger
from tests.support.events import RECORDS
from tests.support.worlds import World


def name_of(world: World) -> TableName:
    """The world's table by its full name."""
    return parse_table_name(world.table, default_catalog="local")


def catalog_properties(world: World) -> dict[str, str]:
    """The world's catalog in pyiceberg's words."""
    if name_of(world).catalog == "local":
        warehouse = world.home.folder / "warehouse"
        return {"type": "sql", "uri": f"sqlite:///{warehouse}/catalog.db", "warehouse": str(warehouse)}
    prefix = "PYICEBERG_CATALOG__REST__"
    return {
        name.removeprefix(prefix).lower().replace("__", ".").replace("_", "-"): value
        for name, value in world.home.environ.items()
        if name.startswith(prefix)
    }


def rows(world: World, sql: str) -> list[dict[str, Any]]:
    """Rows of a query over the world's table, which it names `t`."""
    name = name_of(world)
    catalog = IcebergCatalog(name.catalog, catalog_properties(world))
    try:
        return catalog.query(name, sql.replace(" t ", f" {name.within_catalog} "))
    finally:
        catalog.close()


def ledger_files(world: World) -> list[LedgerFile]:
    """Every row of the ledger's files, in key order."""
    home = world.home
    ledger = open_ledger(home.environ.get("DATABASE_URL", f"sqlite:///{home.folder}/autoloader.db"))
    try:
        record = ledger.table(str(name_of(world)))
        return list(ledger.files_after(record, "")) if record else []
    finally:
        ledger.dispose()


def assert_exact(world: World, numbers: range | tuple[int, ...]) -> None:
    """Count, distinct ids and a checksum, file by file, of the files of those numbers; and the ledger says the same."""
    found = rows(
        world,
        "select _file_path path, count(*) n, count(distinct id) ids, sum(id) total, count(distinct _batch_id) batches "
        "from t where _file_path is not null group by 1 order by 1",
    )
    files = sorted((f"file://{Path(world.source).resolve()}/data/batch_{n}.json", n) for n in numbers)
    assert found == [
        {"path": path, "n": RECORDS, "ids": RECORDS, "total": sum(range(n * RECORDS, (n + 1) * RECORDS)), "batches": 1}
        for path, n in files
    ]
    ledger = [(f.key, f.state, f.rows) for f in ledger_files(world)]
    assert ledger == [(path, FileState.SUCCESS, RECORDS) for path, _ in files]
