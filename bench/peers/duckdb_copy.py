"""DuckDB copies the files to Parquet, pyiceberg adds the files to the table."""

from __future__ import annotations

import importlib.resources
import os
import uuid

import common
import duckdb
import pyarrow.parquet as pq

TYPES = {"long": "BIGINT", "double": "DOUBLE", "string": "VARCHAR", "boolean": "BOOLEAN"}


def main() -> None:
    """Load."""
    task = common.task()
    table, catalog = common.find_table(task.home)
    connection = duckdb.connect()
    connection.execute("set preserve_insertion_order = false")
    if task.is_remote:
        use_store(connection)
    out = task.home / "warehouse" / "data" / uuid.uuid4().hex
    out.mkdir(parents=True)
    known = None if table is None else table.schema()
    connection.execute(
        f"copy (select * from {reading(task, known)}) to '{out}' "
        "(format parquet, compression zstd, per_thread_output true)"
    )
    files = [str(path) for path in sorted(out.glob("*.parquet"))]
    if table is None:
        table = common.make_table(catalog, pq.read_schema(files[0]))
    table.add_files(files)
    common.done(table.metadata_location)


def reading(task: common.Task, schema) -> str:  # noqa: ANN001 - pyiceberg's schema, or None
    """The table function that reads the files, with the table's columns where they are known."""
    if task.kind == "parquet":
        return f"read_parquet('{task.pattern}', hive_partitioning=false)"
    given = ""
    if schema is not None:
        columns = ", ".join(f"'{field.name}': '{kind(field.field_type)}'" for field in schema.fields)
        given = f", columns={{{columns}}}"
    if task.kind == "csv":
        return f"read_csv('{task.pattern}', header=true, hive_partitioning=false{given})"
    return f"read_json('{task.pattern}', format='newline_delimited', hive_partitioning=false{given})"


def kind(iceberg) -> str:  # noqa: ANN001 - a type of pyiceberg
    """The type in DuckDB's words."""
    if iceberg.is_struct:
        return f"STRUCT({', '.join(f'{field.name} {kind(field.field_type)}' for field in iceberg.fields)})"
    if str(iceberg).startswith("list"):
        return f"{kind(iceberg.element_type)}[]"
    return TYPES.get(str(iceberg), "TIMESTAMPTZ" if str(iceberg) == "timestamptz" else "TIMESTAMP")


def use_store(connection: duckdb.DuckDBPyConnection) -> None:
    """Give DuckDB the store's key."""
    package = importlib.resources.files("duckdb_extension_httpfs")
    path = package / "extensions" / f"v{duckdb.__version__}" / "httpfs.duckdb_extension"
    connection.execute(f"load '{path}'")
    endpoint = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    connection.execute(
        f"create secret (type s3, key_id '{os.environ['AWS_ACCESS_KEY_ID']}', "
        f"secret '{os.environ['AWS_SECRET_ACCESS_KEY']}', region '{os.environ['AWS_REGION']}', "
        f"endpoint '{endpoint}', use_ssl false, url_style 'path')"
    )


if __name__ == "__main__":
    main()
