"""Where the manifests of batches are kept, and how they are found again."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlparse

from pyiceberg.io import FileIO
from pyiceberg.table.metadata import TableMetadata

from app.destinations.refusal import property_number
from app.destinations.sink import write_whole
from app.domain.batch import BatchManifest, BatchRef
from app.domain.errors import WriteFailureError
from app.domain.table import MANIFEST_FOLDER, SNAPSHOT_BATCH_ID, SNAPSHOT_MANIFEST, epoch_property, last_batch_property

# Epochs are tried one by one, for file I/O lists nothing.
MOST_EPOCHS = 100


def last_manifest_property(ingestion_id: str) -> str:
    """Name of the table property that holds the path of the manifest of the ingestion's last committed batch.

    The snapshot's summary says the same, but snapshots expire.
    """
    return f"autoloader.{ingestion_id}.last-manifest"


def manifest_path(folder: str, batch: BatchRef) -> str:
    """Path of the manifest in that folder: every try of a batch has its own."""
    folder = folder.rstrip("/")
    # Some storage takes nothing but the kinds of files it knows from Iceberg. Statistics of a foreign kind are a file
    # that readers of tables leave alone.
    suffix = "stats" if folder.endswith("/metadata") else "json"
    return f"{folder}/{batch.batch_id}.{batch.epoch}.{suffix}"


def folders(location: str, uuid: str, warehouse: str) -> Iterator[str]:
    """Folders where manifests may be kept, the best first.

    Outside the table's location they are safe from other tools, which remove there what no metadata names.
    """
    location, warehouse = location.rstrip("/"), warehouse.rstrip("/")
    address = urlparse(location)
    if warehouse and location.startswith(warehouse + "/"):
        yield f"{warehouse}/.autoloader/manifests/{uuid}"
    elif address.scheme not in ("", "file") and address.netloc:
        yield f"{address.scheme}://{address.netloc}/.autoloader/manifests/{uuid}"
    yield f"{location}-autoloader-manifests/{uuid}"
    yield f"{location}/metadata/autoloader-manifests"
    yield f"{location}/metadata"


def write_manifest(manifest: BatchManifest, metadata: TableMetadata, io: FileIO, warehouse: str) -> str:
    """Write the manifest into the table's folder for them, else into the first that takes it.

    Returns:
        The manifest's path; its folder is to be recorded with the commit.

    Raises:
        WriteFailureError: No folder takes it.
    """
    recorded = metadata.properties.get(MANIFEST_FOLDER)
    candidates = [recorded] if recorded else list(folders(metadata.location, str(metadata.table_uuid), warehouse))
    failures = []
    for folder in candidates:
        path = manifest_path(folder, manifest.batch)
        try:
            write_whole(path, manifest.to_json(), io)
        except WriteFailureError as error:
            failures.append(error.message)
        else:
            return path
    raise WriteFailureError("The batch's manifest could not be written. " + " ".join(failures))


def read_manifest(path: str, io: FileIO) -> BatchManifest | None:
    """The manifest at `path`; None where there is none, or where it is not one of ours.

    Raises:
        OSError: The storage does not answer.
    """
    try:
        with io.new_input(path).open() as stream:
            data = stream.read()
    except FileNotFoundError:
        return None
    try:
        return BatchManifest.from_json(data)
    except (ValueError, KeyError, TypeError):
        return None


def find_manifest(metadata: TableMetadata, batch: BatchRef, io: FileIO) -> BatchManifest | None:
    """The manifest of the try of the batch that is in the table; None where that cannot be told.

    Raises:
        OSError: The storage does not answer.
    """
    known = _known_path(metadata, batch)
    if known is not None:
        return read_manifest(known, io)
    folder = metadata.properties.get(MANIFEST_FOLDER)
    if not folder:
        return None
    latest = max(batch.epoch, property_number(metadata, epoch_property(batch.ingestion_id)) or 0)
    epochs = range(latest, max(-1, latest - MOST_EPOCHS), -1)
    tries = (BatchRef(batch.ingestion_id, batch.number, epoch) for epoch in epochs)
    found = [m for m in (read_manifest(manifest_path(folder, one), io) for one in tries) if m is not None]
    # Of several tries nobody knows any more which one got in.
    return found[0] if len(found) == 1 else None


def _known_path(metadata: TableMetadata, batch: BatchRef) -> str | None:
    for snapshot in reversed(metadata.snapshots):
        if snapshot.summary and snapshot.summary[SNAPSHOT_BATCH_ID] == batch.batch_id:
            return snapshot.summary[SNAPSHOT_MANIFEST] or None
    if property_number(metadata, last_batch_property(batch.ingestion_id)) == batch.number:
        return metadata.properties.get(last_manifest_property(batch.ingestion_id))
    return None
