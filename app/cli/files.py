"""`autoloader files`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from app.cli.options import Output, OutputOption, TableArgument, VerboseOption
from app.cli.product import product
from app.cli.render import print_json, print_rows

DEFAULT_LIMIT = 1000


def files(
    table: TableArgument,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="Only files that failed.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = DEFAULT_LIMIT,
    after: Annotated[str | None, typer.Option(metavar="PATH", help="Only files behind this one.")] = None,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """Show the ledger of a table: every file, its state, its rows, and why it failed."""
    the_product = product(verbose=verbose)
    # One more than asked for tells whether there are more.
    found = the_product.files(the_product.table_name(table), failed=failed, limit=limit + 1, after=after)
    page = found[:limit]
    if output is Output.JSON:
        print_json(
            [
                {
                    "path": f.key,
                    "version": f.version,
                    "state": f.state.value,
                    "rows": f.rows,
                    "bytes": f.size_bytes,
                    "run_id": f.run_id,
                    "category": f.category,
                    "message": f.message,
                    "tries": f.tries,
                }
                for f in page
            ]
        )
    else:
        print_rows(
            ("state", "rows", "bytes", "tries", "path", "why"),
            [
                (
                    f.state.value,
                    _shown(f.rows),
                    f.size_bytes,
                    f.tries,
                    f.key,
                    _why(f.category, f.message),
                )
                for f in page
            ],
        )
    if len(found) > limit:
        sys.stderr.write(f"There are more: --after {page[-1].key!r}\n")


def _why(category: str | None, message: str | None) -> str:
    return "" if category is None else f"{category}: {message}"


def _shown(rows: int | None) -> str:
    return "" if rows is None else str(rows)
