"""dlt's filesystem source into its Iceberg tables."""

from __future__ import annotations

import os

import common

TABLE = "events"


def main() -> None:
    """Load."""
    task = common.task()
    # Everything of its own is kept below the home; nothing is reported anywhere.
    os.environ |= {
        "DLT_DATA_DIR": str(task.home / "dlt"),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "CRITICAL",
        "DATA_WRITER__DISABLE_COMPRESSION": "true",
    }
    import dlt  # noqa: PLC0415
    from dlt.destinations import filesystem as destination  # noqa: PLC0415
    from dlt.sources.filesystem import filesystem, read_csv_duckdb, read_jsonl, read_parquet  # noqa: PLC0415

    reader = {"ndjson": read_jsonl, "csv": read_csv_duckdb, "parquet": read_parquet}[task.kind]()
    pipeline = dlt.pipeline(
        "bench",
        pipelines_dir=str(task.home / "dlt"),
        destination=destination(bucket_url=f"file://{task.home}/warehouse"),
        dataset_name="bench",
    )
    files = filesystem(bucket_url=f"file://{task.source}", file_glob="*")
    pipeline.run(
        (files | reader).with_name(TABLE),
        table_format="iceberg",
        loader_file_format="parquet",
        write_disposition="append",
    )
    metadata = task.home / "warehouse" / "bench" / TABLE / "metadata"
    common.done(str(max(metadata.glob("*.metadata.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))))


if __name__ == "__main__":
    main()
