"""What a table, its storage and its ledger are found to hold, read without any code of the program."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import obstore
from obstore.store import S3Store
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
from pyiceberg.table import Table

from tests.crash.kill.places import Place

Row = dict[str, Any]
# A batch's manifest, whole or unfinished; some stores keep them beside files of the catalog's own.
MANIFEST = re.compile(r"\.?[0-9a-f]{32}-\d{8,}\.\d+\.(json|stats)(\.[0-9a-f]{32}\.part)?")


@dataclass(frozen=True)
class TableFound:
    """The table at one moment."""

    rows: list[Row] = field(default_factory=list)
    # Summaries of all snapshots, oldest first.
    summaries: list[dict[str, str]] = field(default_factory=list)
    properties: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LedgerFound:
    """The ledger's rows."""

    files: list[Row]
    batches: list[Row]
    leases: list[Row]
    runs: list[Row]


@dataclass(frozen=True)
class StorageFound:
    """The files beside the table, and those that its metadata names; as last parts of paths."""

    data: set[str] = field(default_factory=set)
    named_data: set[str] = field(default_factory=set)
    # Name → content of those whose content matters: no snapshot names them.
    stray_manifests: dict[str, Row] = field(default_factory=dict)


@dataclass(frozen=True)
class Traces:
    """What a try of a batch left."""

    committed: bool
    manifest: bool
    data: bool


def find_table(place: Place) -> TableFound:
    """Read the table; an empty one where it was not made yet."""
    with _table(place) as table:
        if table is None:
            return TableFound()
        summaries = [_summary(s) for s in sorted(table.metadata.snapshots, key=lambda s: s.sequence_number or 0)]
        return TableFound(table.scan().to_arrow().to_pylist(), summaries, table.metadata.properties)


def find_ledger(place: Place) -> LedgerFound:
    """Read the ledger."""
    return LedgerFound(
        place.ledger("select * from files where generation = (select max(generation) from tables) order by key"),
        place.ledger("select * from batches order by number"),
        place.ledger("select * from leases"),
        place.ledger("select * from runs order by created_at"),
    )


def find_storage(place: Place) -> StorageFound:
    """List what lies beside the table, and go through all that its metadata names."""
    with _table(place) as table:
        if table is None:
            return StorageFound()
        folder = table.metadata.properties.get("autoloader.manifests", "")
        known = {_summary(s).get("autoloader.manifest", "") for s in table.metadata.snapshots}
        strays = {
            name: json.loads(_read(f"{folder}/{name}", table) or "{}")
            for name in _list(folder, table)
            if f"{folder}/{name}" not in known and MANIFEST.fullmatch(name)
        }
        named = {path.rpartition("/")[2] for path in _named(table)}
        return StorageFound(set(_list(f"{table.location()}/data", table)), named, strays)


def find_traces(place: Place, batch_id: str, epoch: int) -> Traces | None:
    """What the try of a batch under that epoch left; None where there is no table yet."""
    with _table(place) as table:
        if table is None:
            return None
        ingestion_id, _, number = batch_id.rpartition("-")
        properties = table.metadata.properties
        folder = properties.get("autoloader.manifests", "")
        return Traces(
            int(properties.get(f"autoloader.{ingestion_id}.last-batch", 0)) >= int(number),
            any(name.startswith(f"{batch_id}.{epoch}.") for name in _list(folder, table)),
            any(name.startswith(f"{batch_id}-{epoch}-") for name in _list(f"{table.location()}/data", table)),
        )


def fences(found: TableFound) -> int:
    """How often a run shut out an older one."""
    return sum("autoloader.fence" in summary for summary in found.summaries)


def doubled_batches(found: TableFound) -> list[str]:
    """Batches that were committed more than once."""
    count = Counter(s["autoloader.batch-id"] for s in found.summaries if "autoloader.batch-id" in s)
    return sorted(batch for batch, times in count.items() if times > 1)


@contextmanager
def _table(place: Place) -> Iterator[Table | None]:
    """The table as it is now; None where there is none yet."""
    catalog = place.catalog()
    if catalog is None:
        yield None
        return
    try:
        try:
            table = catalog.load_table(tuple(place.table.split(".")[-2:]))
        except (NoSuchTableError, NoSuchNamespaceError):
            table = None
        yield table
    finally:
        catalog.close()


def _summary(snapshot: Any) -> dict[str, str]:
    return dict(snapshot.summary.additional_properties) if snapshot.summary else {}


def _named(table: Table) -> Iterator[str]:
    for snapshot in table.metadata.snapshots:
        for manifest in snapshot.manifests(table.io):
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
                yield entry.data_file.file_path


def _list(folder: str, table: Table) -> list[str]:
    """Names of the files in a folder."""
    if not folder:
        return []
    address = urlparse(folder)
    if address.scheme in ("", "file"):
        path = Path(address.path)
        return sorted(entry.name for entry in path.iterdir() if entry.is_file()) if path.exists() else []
    found = obstore.list(_store(address.netloc, table), prefix=f"{address.path.strip('/')}/").collect()
    # The folder's own marker is no file in it.
    paths = [str(meta["path"]) for meta in found if str(meta["path"]) != address.path.strip("/")]
    return sorted(path.rpartition("/")[2] for path in paths)


def _read(path: str, table: Table) -> str:
    address = urlparse(path)
    if address.scheme in ("", "file"):
        return Path(address.path).read_text()
    return bytes(obstore.get(_store(address.netloc, table), address.path.strip("/")).bytes()).decode()


def _store(bucket: str, table: Table) -> S3Store:
    properties = table.io.properties
    return S3Store(
        bucket,
        endpoint=properties["s3.endpoint"],
        access_key_id=properties["s3.access-key-id"],
        secret_access_key=properties["s3.secret-access-key"],
        region=properties["s3.region"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
