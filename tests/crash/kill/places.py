"""The four worlds: tables in the SQLite or the REST catalog, the ledger in SQLite or PostgreSQL."""

from __future__ import annotations

import random
import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from pyiceberg.catalog import Catalog, load_catalog

from tests.crash.kill.landing import Bucket, Folder, Landing, Store
from tests.support.postgres import Postgres
from tests.support.seaweed import Seaweed
from tests.support.worlds import rest_environ

WORLDS = ("local-sqlite", "local-postgres", "rest-sqlite", "rest-postgres")
LEASE_S = 2.0
NAMESPACE = "kill"


@dataclass(frozen=True)
class Servers:
    """What the worlds share. `migrated` is a database with the ledger's tables, to be copied."""

    seaweed: Seaweed
    postgres: Postgres
    migrated: str


@dataclass
class Place:
    """One world's table, with all that belongs to it and to nothing else."""

    world: str
    home: Path
    table: str
    landing: Landing
    environ: dict[str, str]
    _catalog: Mapping[str, str] = field(repr=False)

    def catalog(self) -> Catalog | None:
        """The catalog, by means of the library alone; None where it was not made whole yet."""
        name = self.world.partition("-")[0]
        if name == "local" and not _has(self.home / "warehouse/catalog.db", "iceberg_tables"):
            return None
        return load_catalog(name, **self._catalog)

    def ledger(self, query: str) -> list[dict[str, Any]]:
        """Rows of the ledger's database, by means of its driver alone; none where it was not made whole yet."""
        url = self.environ.get("DATABASE_URL")
        if url is not None:
            with psycopg.connect(url, row_factory=dict_row) as connection:
                return connection.execute(query.encode()).fetchall()
        path = self.home / "autoloader.db"
        if not _has(path, "alembic_version"):
            return []
        with closing(sqlite3.connect(path, timeout=60)) as lite:
            lite.row_factory = sqlite3.Row
            return [dict(row) for row in lite.execute(query)]


def _has(path: Path, table: str) -> bool:
    """Whether the SQLite file is there and has that table."""
    if not path.exists():
        return False
    with closing(sqlite3.connect(path, timeout=60)) as lite:
        return bool(lite.execute("select 1 from sqlite_master where name = ?", (table,)).fetchall())


def make_place(world: str, folder: Path, servers: Servers, dice: random.Random) -> Place:
    """A new home, an empty landing place and a table that is not there yet."""
    catalog, ledger = world.split("-")
    home = folder / "home"
    home.mkdir(parents=True)
    environ = {
        "AUTOLOADER_HOME": str(home),
        "AUTOLOADER_LEASE_S": str(LEASE_S),
        # So that most runs commit several times.
        "AUTOLOADER_BATCH_FILES": str(dice.choice((2, 4, 6))),
    }
    if ledger == "postgres":
        environ["DATABASE_URL"] = servers.postgres.copy_database(servers.migrated)
    name = f"{NAMESPACE}.t_{uuid.uuid4().hex[:12]}"
    if catalog == "local":
        properties = {"type": "sql", "uri": f"sqlite:///{home}/warehouse/catalog.db", "warehouse": f"{home}/warehouse"}
        return Place(world, home, name, Landing(_folder(folder), folder / "landed.jsonl"), environ, properties)
    environ |= rest_environ(servers.seaweed)
    store: Store = _folder(folder)
    if dice.random() < 0.5:
        environ |= servers.seaweed.environ
        store = Bucket(servers.seaweed, servers.seaweed.create_bucket(f"k-{uuid.uuid4().hex[:16]}"))
    prefix = "PYICEBERG_CATALOG__REST__"
    properties = {
        name.removeprefix(prefix).lower().replace("__", ".").replace("_", "-"): value
        for name, value in rest_environ(servers.seaweed).items()
    }
    return Place(world, home, f"rest.{name}", Landing(store, folder / "landed.jsonl"), environ, properties)


def _folder(folder: Path) -> Folder:
    path = folder / "landing"
    path.mkdir()
    return Folder(path)
