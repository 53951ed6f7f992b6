"""`autoloader sweep`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from app.cli.options import Output, OutputOption, TableArgument, VerboseOption
from app.cli.product import product
from app.cli.render import count, print_json, size


def sweep(
    table: TableArgument,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """Remove the files that killed loads and expired snapshots left beside a table: ours, and named by no snapshot."""
    the_product = product(verbose=verbose)
    report = the_product.sweep(the_product.table_name(table), dry_run=dry_run)
    if output is Output.JSON:
        print_json(
            {
                "table": report.table,
                "dry_run": report.dry_run,
                "bytes": report.size_bytes,
                "data_files": [{"path": f.path, "bytes": f.size_bytes} for f in report.data_files],
                "manifests": [{"path": f.path, "bytes": f.size_bytes} for f in report.manifests],
                "metadata_files": [{"path": f.path, "bytes": f.size_bytes} for f in report.metadata_files],
            }
        )
        return
    for file in (*report.metadata_files, *report.data_files, *report.manifests):
        sys.stdout.write(f"{file.path}\n")
    expired = count(len(report.metadata_files), "file") + " of expired snapshots, " if report.metadata_files else ""
    verb = "Would remove" if report.dry_run else "Removed"
    sys.stdout.write(
        f"{verb} {expired}{count(len(report.data_files), 'data file')} and {count(len(report.manifests), 'manifest')}, "
        f"{size(report.size_bytes)}, beside {report.table}.\n"
    )
