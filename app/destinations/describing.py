"""What there is to see of a table without reading its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.table import Table

from app.destinations.schemas import from_iceberg
from app.destinations.translation import is_secret
from app.domain.system_columns import is_system
from app.domain.table import TableName


@dataclass(frozen=True, slots=True)
class ColumnDescription:
    """A column; `system` says that it is one of ours."""

    name: str
    type: str
    system: bool


@dataclass(frozen=True)
class TableDescription:
    """A table now. `snapshots` and `files` are counts; `bytes` is the size of its data files."""

    table: TableName
    rows: int
    snapshots: int
    files: int
    bytes: int
    schema: tuple[ColumnDescription, ...]
    properties: Mapping[str, str]


def describe(name: TableName, table: Table) -> TableDescription:
    """Describe the table as it was loaded.

    The counts come from its manifests; only when rows were deleted by delete files, rows are counted by reading.
    """
    metadata = table.metadata
    snapshot = metadata.current_snapshot()
    manifests = snapshot.manifests(table.io) if snapshot else []
    data = [m for m in manifests if m.content == ManifestContent.DATA]
    files, rows, size = _totals(data, table.io)
    if len(data) < len(manifests):
        rows = table.scan().count()
    columns = from_iceberg(metadata.schema()).fields
    return TableDescription(
        table=name,
        rows=rows,
        snapshots=len(metadata.snapshots),
        files=files,
        bytes=size,
        schema=tuple(ColumnDescription(c.name, str(c.type), is_system(c.name)) for c in columns),
        properties={name: value for name, value in metadata.properties.items() if not is_secret(name)},
    )


def _totals(manifests: list[ManifestFile], io: FileIO) -> tuple[int, int, int]:
    files = rows = size = 0
    for manifest in manifests:
        for entry in manifest.fetch_manifest_entry(io):
            files += 1
            rows += entry.data_file.record_count
            size += entry.data_file.file_size_in_bytes
    return files, rows, size
