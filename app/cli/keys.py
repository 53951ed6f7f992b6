"""`autoloader keys …`."""

from __future__ import annotations

import sys

import typer

from app.cli.options import Output, OutputOption, VerboseOption
from app.cli.render import count, print_json

keys = typer.Typer(help="Work on the key that credentials are kept under.", no_args_is_help=True)


@keys.callback()
def _keys() -> None:
    """Work on the key that credentials are kept under."""


@keys.command()
def rotate(*, output: OutputOption = Output.TEXT, verbose: VerboseOption = False) -> None:
    """Put all stored credentials under a new key.

    Where SECRET_KEY is set it is the new one, and SECRET_KEY_PREVIOUS or the key's file the one of before; else a new
    key takes the place of the one in the file. After a kill in the middle, run it again.
    """
    from app.config import read_settings
    from app.telemetry import configure_logging
    from app.wiring.stores import rotate_keys

    redactor = configure_logging(verbose=verbose)
    rewrapped = rotate_keys(read_settings(), redactor)
    if output is Output.JSON:
        print_json({"rewrapped": rewrapped})
    else:
        sys.stdout.write(f"Put the credentials of {count(rewrapped, 'ingestion')} under the present key.\n")
