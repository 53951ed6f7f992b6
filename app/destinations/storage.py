"""What lies beside a table, and what its metadata holds on to."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata

from app.destinations.heads import table_head
from app.destinations.manifests import last_manifest_property
from app.destinations.sink import is_local, local_path, storage_properties
from app.domain.batch import BatchRef
from app.domain.errors import WriteFailureError
from app.domain.table import (
    MANIFEST_FOLDER,
    SNAPSHOT_BATCH_ID,
    SNAPSHOT_EPOCH,
    SNAPSHOT_MANIFEST,
    TableName,
    last_batches,
)
from app.domain.upkeep import BatchCommit, References, StoredObject

_MANIFEST_EPOCH = re.compile(r"\.(\d+)\.(?:json|stats)$")


def data_folder(table: Table) -> Iterator[StoredObject]:
    """The files of the folder that data files are written to."""
    provider = load_location_provider(table.metadata.location, table.metadata.properties)
    return list_folder(provider.data_path, table.io)


def manifest_folder(table: Table) -> Iterator[StoredObject]:
    """The files of the folder of the batches' manifests."""
    folder = table.metadata.properties.get(MANIFEST_FOLDER)
    return list_folder(folder, table.io) if folder else iter(())


def list_folder(folder: str, io: FileIO) -> Iterator[StoredObject]:
    """The files of a folder, not of those below it, under paths as a sink gives them; none where there is no folder.

    Raises:
        OSError: It cannot be listed.
    """
    folder = folder.rstrip("/")
    return _local(folder) if is_local(folder) else _remote(folder, io)


def _local(folder: str) -> Iterator[StoredObject]:
    with suppress(FileNotFoundError), os.scandir(local_path(folder)) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    seen = entry.stat(follow_symlinks=False)
                    yield StoredObject(
                        f"{folder}/{entry.name}", seen.st_size, datetime.fromtimestamp(seen.st_mtime, UTC)
                    )


def _remote(folder: str, io: FileIO) -> Iterator[StoredObject]:
    # Imported here: a load with nothing to sweep does not pay for Arrow.
    from pyiceberg.io import pyarrow as arrow_io  # noqa: PLC0415

    # Whichever library the catalog reads and writes with, this one lists; both take the same properties.
    files = arrow_io.PyArrowFileIO(storage_properties(io.properties))
    scheme, netloc, path = files.parse_location(folder)
    library: Any = arrow_io
    selector = library.pyarrow.fs.FileSelector(path, allow_not_found=True)
    for seen in files.fs_by_scheme(scheme, netloc).get_file_info(selector):
        if seen.is_file:
            yield StoredObject(f"{folder}/{seen.base_name}", seen.size, seen.mtime or datetime.now(UTC))


def remove(path: str, io: FileIO) -> None:
    """Remove a file; one that is gone already is no error.

    Raises:
        WriteFailureError: It cannot be removed.
    """
    try:
        with suppress(FileNotFoundError):
            if is_local(path):
                local_path(path).unlink()
            else:
                io.delete(path)
    except OSError as error:
        raise WriteFailureError(f"{path} could not be removed: {error.strerror or error}.") from error


def references(
    name: TableName, table: Table, names: Collection[str], expired: Iterable[ManifestFile] = ()
) -> References:
    """What the metadata of the table as it was loaded holds on to, and what does beside it.

    Args:
        name: The table's.
        table: As it was loaded.
        names: Those that are asked about.
        expired: Manifests of snapshots that the metadata has forgotten.

    Raises:
        OSError: A manifest cannot be read; then nothing can be said.
    """
    asked = frozenset(names)
    held = frozenset(n for n in _named(table, expired) if n in asked) if asked else frozenset()
    return References(table_head(name, table.metadata), held, tuple(commits(table.metadata)))


def _named(table: Table, expired: Iterable[ManifestFile]) -> Iterator[str]:
    """The names of all data and delete files in the manifests of all snapshots, and in the others.

    Entries of deleted files count: some older snapshot, or a reader of it, may still need them.
    """
    seen: set[str] = set()
    for manifest in (m for snapshot in table.metadata.snapshots for m in snapshot.manifests(table.io)):
        if manifest.manifest_path not in seen:
            seen.add(manifest.manifest_path)
            yield from _names_in(manifest, table.io)
    for manifest in expired:
        if manifest.manifest_path not in seen:
            seen.add(manifest.manifest_path)
            # A sweep may have been at it already.
            with suppress(FileNotFoundError):
                yield from _names_in(manifest, table.io)


def _names_in(manifest: ManifestFile, io: FileIO) -> Iterator[str]:
    for entry in manifest.fetch_manifest_entry(io, discard_deleted=False):
        yield entry.data_file.file_path.rpartition("/")[2]


def commits(metadata: TableMetadata) -> Iterator[BatchCommit]:
    """The tries of batches that the metadata says were committed, as far as it still knows."""
    history = {s.snapshot_id for s in _ancestors(metadata)}
    for snapshot in metadata.snapshots:
        summary = snapshot.summary
        batch = _batch(summary[SNAPSHOT_BATCH_ID], summary[SNAPSHOT_EPOCH]) if summary else None
        if summary is not None and batch is not None:
            yield BatchCommit(
                batch,
                summary[SNAPSHOT_MANIFEST],
                snapshot.snapshot_id,
                snapshot.sequence_number,
                snapshot.snapshot_id in history,
            )
    for ingestion_id, number in last_batches(metadata.properties).items():
        path = metadata.properties.get(last_manifest_property(ingestion_id), "")
        epoch = _MANIFEST_EPOCH.search(path)
        name = path.rpartition("/")[2]
        if epoch is not None and name.startswith(f"{BatchRef(ingestion_id, number, 0).batch_id}."):
            yield BatchCommit(BatchRef(ingestion_id, number, int(epoch[1])), path)


def _ancestors(metadata: TableMetadata) -> Iterator[Any]:
    by_id = {s.snapshot_id: s for s in metadata.snapshots}
    current = metadata.current_snapshot_id
    while current is not None and current in by_id:
        snapshot = by_id.pop(current)
        yield snapshot
        current = snapshot.parent_snapshot_id


def _batch(batch_id: str | None, epoch: str | None) -> BatchRef | None:
    ingestion_id, _, number = (batch_id or "").rpartition("-")
    if not ingestion_id or not number.isdecimal():
        return None
    return BatchRef(ingestion_id, int(number), int(epoch) if epoch and epoch.isdecimal() else 0)
