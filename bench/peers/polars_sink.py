"""polars streams the files into a Parquet file, pyiceberg adds it to the table."""

from __future__ import annotations

import os
import uuid

import common
import polars as pl
import pyarrow.parquet as pq

NAMES = {"AWS_ENDPOINT_URL": "endpoint_url", "AWS_ACCESS_KEY_ID": "access_key_id"}
NAMES |= {"AWS_SECRET_ACCESS_KEY": "secret_access_key", "AWS_REGION": "region"}
TYPES = {"long": pl.Int64, "double": pl.Float64, "string": pl.String, "boolean": pl.Boolean}
TIME = pl.Datetime("us", "UTC")


def main() -> None:
    """Load."""
    task = common.task()
    table, catalog = common.find_table(task.home)
    out = task.home / "warehouse" / "data" / f"{uuid.uuid4().hex}.parquet"
    out.parent.mkdir(parents=True, exist_ok=True)
    known = None if table is None else table.schema()
    frame = scan(task, known)
    if frame.collect_schema().get("happened_at") == pl.String:
        frame = frame.with_columns(
            pl.col("happened_at").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us", time_zone="UTC")
        )
    frame.sink_parquet(out, compression="zstd")
    if table is None:
        table = common.make_table(catalog, pq.read_schema(out))
    table.add_files([str(out)])
    common.done(table.metadata_location)


def scan(task: common.Task, schema) -> pl.LazyFrame:  # noqa: ANN001 - pyiceberg's schema, or None
    """The files, unread. Times are texts yet: polars parses them in a step of its own."""
    options = {}
    if task.is_remote:
        options = {"storage_options": {f"aws_{to}": os.environ[name] for name, to in NAMES.items()}}
        options["storage_options"]["aws_allow_http"] = "true"
    if task.kind == "parquet":
        return pl.scan_parquet(task.pattern, hive_partitioning=False, **options)
    if schema is not None:
        options["schema"] = {field.name: kind(field.field_type) for field in schema.fields}
    if task.kind == "csv":
        return pl.scan_csv(task.pattern, **options)
    return pl.scan_ndjson(task.pattern, **options)


def kind(iceberg):  # noqa: ANN001, ANN201 - types of two libraries
    """The type in polars' words."""
    if iceberg.is_struct:
        return pl.Struct({field.name: kind(field.field_type) for field in iceberg.fields})
    if str(iceberg).startswith("list"):
        return pl.List(kind(iceberg.element_type))
    return TYPES.get(str(iceberg), pl.String)


if __name__ == "__main__":
    main()
