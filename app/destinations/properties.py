"""Table properties that we set, and why."""

from __future__ import annotations

from collections.abc import Mapping

from app.domain.history import NEW_TABLE_HISTORY
from app.domain.system_columns import FILE_PATH

FILE_PATH_METRICS = f"write.metadata.metrics.column.{FILE_PATH}"

NEW_TABLE = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    # Without it every commit leaves one more manifest, and planning a read opens them all.
    "commit.manifest-merge.enabled": "true",
    # What is merged is read and written anew, so that it must not be much: each megabyte costs most of a second.
    "commit.manifest.target-size-bytes": "1048576",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    **NEW_TABLE_HISTORY,
    # Four writers exhaust the library's own four retries.
    "commit.retry.num-retries": "20",
    "commit.retry.min-wait-ms": "20",
    "commit.retry.max-wait-ms": "2000",
}


def new_table_properties(given: Mapping[str, str], *, provenance: bool) -> dict[str, str]:
    """The properties a table of ours begins with; given ones win."""
    return {**NEW_TABLE, **_metrics(provenance=provenance), **given}


def missing_properties(present: Mapping[str, str], *, provenance: bool) -> dict[str, str]:
    """What a table made elsewhere lacks."""
    return {name: value for name, value in _metrics(provenance=provenance).items() if name not in present}


def _metrics(*, provenance: bool) -> dict[str, str]:
    # Bounds are cut to 16 characters by default: then every data file is a candidate for the rows of any one file.
    return {FILE_PATH_METRICS: "full"} if provenance else {}
