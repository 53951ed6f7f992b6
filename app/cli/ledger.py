"""`autoloader ledger …`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from app.cli.checking import check
from app.cli.options import Output, OutputOption, TableArgument, VerboseOption
from app.cli.product import product
from app.cli.rebuilding import rebuild
from app.cli.render import count, print_json
from app.domain.errors import ConfirmationNeededError

ledger = typer.Typer(help="Work on a table's ledger.", no_args_is_help=True)


ledger.command()(check)
ledger.command()(rebuild)


@ledger.callback()
def _ledger() -> None:
    """Work on a table's ledger."""


@ledger.command()
def clear(
    table: TableArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """Begin a new generation of a table's ledger: the next run loads every file again."""
    if not yes:
        raise ConfirmationNeededError(
            f"This makes the next run load every file into {table} again, beside the rows that are in it.",
            remedy="Empty or drop the table first if you do not want its rows twice, then say --yes.",
        )
    the_product = product(verbose=verbose)
    name = the_product.table_name(table)
    cleared = the_product.clear(name)
    message = (
        f"Forgot {count(cleared.files, 'loaded file')} of {name}; generation {cleared.generation} begins. "
        "The next run loads every file again."
    )
    if output is Output.JSON:
        print_json(
            {
                "message": message,
                "files_cleared": cleared.files,
                "generation": cleared.generation,
                "table": str(name),
                "warnings": cleared.warnings,
            }
        )
        return
    sys.stdout.write(message + "\n")
    for warning in cleared.warnings:
        sys.stderr.write(f"Note: {warning}\n")
