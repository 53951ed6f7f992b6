"""Which snapshots a table's own properties let go. Pure."""

from __future__ import annotations

from dataclasses import replace

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType

from app.domain.history import History, PastRef, PastSnapshot, retention


def going(metadata: TableMetadata) -> tuple[int, ...]:
    """Ids of the snapshots that the table's properties let go by now."""
    wanted = retention(metadata.properties)
    if wanted is None:
        return ()
    main = metadata.refs.get(MAIN_BRANCH)
    if main is not None:
        wanted = replace(
            wanted,
            keep=main.min_snapshots_to_keep or wanted.keep,
            max_age_ms=main.max_snapshot_age_ms or wanted.max_age_ms,
        )
    refs = tuple(
        PastRef(
            r.snapshot_id,
            r.snapshot_ref_type is SnapshotRefType.BRANCH,
            r.min_snapshots_to_keep,
            r.max_snapshot_age_ms,
        )
        for r in metadata.refs.values()
    )
    past = {
        s.snapshot_id: PastSnapshot(s.snapshot_id, s.parent_snapshot_id, s.timestamp_ms) for s in metadata.snapshots
    }
    return History(past, metadata.current_snapshot_id, refs).going(wanted)
