"""The little of a table's metadata from which a commit is made. Pure.

pyiceberg copies the metadata some twenty times while it makes one commit, so that its cost would grow with the history.
"""

from __future__ import annotations

from collections.abc import Collection

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH


def slim(metadata: TableMetadata, forgotten: Collection[int] = ()) -> TableMetadata:
    """The same table without its history.

    It is for making updates from, which a catalog applies to its own metadata. Nobody may take it for what the table
    is: branches, tags and statistics are missing too.

    Args:
        metadata: As the catalog has it.
        forgotten: Ids of the snapshots to leave out. Those that appeared while a commit was being made are needed, to
            find out what they did, and so is the one that it began on.

    Returns:
        Metadata with the current snapshot and those that are not `forgotten`.
    """
    gone = frozenset(forgotten) - {metadata.current_snapshot_id}
    return metadata.model_copy(
        update={
            "snapshots": [s for s in metadata.snapshots if s.snapshot_id not in gone],
            "refs": {name: ref for name, ref in metadata.refs.items() if name == MAIN_BRANCH},
            "snapshot_log": [],
            "metadata_log": [],
            "statistics": [],
            "partition_statistics": [],
        }
    )


def history(metadata: TableMetadata) -> frozenset[int]:
    """Ids of the snapshots that no commit on the present one needs: all the others."""
    return frozenset(s.snapshot_id for s in metadata.snapshots) - {metadata.current_snapshot_id}
