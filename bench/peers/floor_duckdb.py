"""The floor with DuckDB's parsers: it reads, decompresses, parses and encodes with a thread a core. No catalog."""

from __future__ import annotations

import os

import common
import duckdb


def main() -> None:
    """Write the files' rows as Parquet."""
    task = common.task()
    connection = duckdb.connect(config={"threads": len(os.sched_getaffinity(0))})
    connection.execute("set preserve_insertion_order = false")
    out = task.home / "out"
    out.mkdir(exist_ok=True)
    connection.execute(
        f"copy (select * from {reading(connection, task)}) to '{out}' "
        "(format parquet, compression zstd, per_thread_output true, overwrite_or_ignore true)"
    )


def reading(connection: duckdb.DuckDBPyConnection, task: common.Task) -> str:
    """The table function, with the columns of the example; a floor knows its schema."""
    if task.kind == "parquet":
        return f"read_parquet('{task.pattern}', hive_partitioning=false)"
    form = "header=true" if task.kind == "csv" else "format='newline_delimited'"
    name = "read_csv" if task.kind == "csv" else "read_json"
    found = connection.execute(f"describe select * from {name}('{task.example}', {form})").fetchall()
    columns = ", ".join(f"'{column}': '{kind}'" for column, kind, *_ in found)
    return f"{name}('{task.pattern}', {form}, columns={{{columns}}}, hive_partitioning=false)"


if __name__ == "__main__":
    main()
