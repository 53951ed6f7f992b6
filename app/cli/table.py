"""`autoloader table`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from app.cli.options import Output, OutputOption, TableArgument, VerboseOption
from app.cli.product import product
from app.cli.render import count, print_json, print_rows, size


def table(
    table: TableArgument,
    *,
    sql: Annotated[str | None, typer.Option(metavar="QUERY", help="A SELECT over the table.")] = None,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """Look at a table: its size and columns, or the result of a query."""
    the_product = product(verbose=verbose)
    name = the_product.table_name(table)
    catalog = the_product.catalog(name.catalog)
    if sql is not None:
        rows = catalog.query(name, sql)
        if output is Output.JSON:
            print_json(rows)
        else:
            print_rows(list(rows[0]) if rows else [], [list(row.values()) for row in rows])
        return
    described = catalog.describe(name)
    if output is Output.JSON:
        print_json(
            {
                "table": str(described.table),
                "rows": described.rows,
                "snapshots": described.snapshots,
                "files": described.files,
                "bytes": described.bytes,
                "schema": [asdict(column) for column in described.schema],
                "properties": dict(described.properties),
            }
        )
        return
    sys.stdout.write(
        f"{described.table}: {count(described.rows, 'row')} in {count(described.files, 'data file')} "
        f"({size(described.bytes)}), {count(described.snapshots, 'snapshot')}\n\n"
    )
    print_rows(
        ("column", "type", "kind"), [(c.name, c.type, "system" if c.system else "data") for c in described.schema]
    )
