"""A table as its metadata shows it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from app.destinations.schemas import from_iceberg
from app.domain.table import TableHead, TableName


def table_head(name: TableName, metadata: TableMetadata) -> TableHead:
    """The head that `metadata` shows."""
    current = metadata.current_snapshot()
    ancestors = tuple(_ancestors(metadata))
    oldest = metadata.snapshot_by_id(ancestors[-1]) if ancestors else None
    return TableHead(
        name=name,
        uuid=str(metadata.table_uuid),
        location=metadata.location,
        schema=from_iceberg(metadata.schema()),
        properties=dict(metadata.properties),
        snapshot_id=current.snapshot_id if current else None,
        sequence_number=(current.sequence_number or 0) if current else 0,
        ancestors=ancestors,
        history_cut=oldest is not None and _has_forgotten_parent(oldest),
        oldest_sequence_number=(oldest.sequence_number or 0) if oldest else 0,
    )


def _has_forgotten_parent(oldest: Snapshot) -> bool:
    # Some programs forget the parent together with it; but only the first snapshot of a table has the number 1.
    return oldest.parent_snapshot_id is not None or (oldest.sequence_number or 0) > 1


def _ancestors(metadata: TableMetadata) -> Iterator[int]:
    parents = {s.snapshot_id: s.parent_snapshot_id for s in metadata.snapshots}
    current = metadata.current_snapshot_id
    while current is not None and current in parents:
        yield current
        # Popped, so that a chain that bites its tail ends.
        current = parents.pop(current)
