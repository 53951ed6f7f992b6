"""The command line. Commands import their weight when they run, so that `--help` is quick."""

from __future__ import annotations

import os
import signal
import sys
from itertools import pairwise
from typing import NoReturn, cast

import typer

from app.cli.catalogs import catalogs
from app.cli.errors import FAILED, exit_code, first_line, show_error
from app.cli.files import files
from app.cli.ledger import ledger
from app.cli.load import load
from app.cli.plan import plan
from app.cli.sweep import sweep
from app.cli.table import table
from app.domain.errors import AutoloaderError, InternalError, StoppedByUser, UsageError

# What Typer raises for arguments that it cannot parse; it names only the subclass in public.
_ParserError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])

# What a shell reports of a process that a signal ended.
SIGNAL_BASE = 128

cli = typer.Typer(
    name="autoloader",
    help="Keeps Apache Iceberg tables equal to the files that land in folders and object stores.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cli.command()(load)
cli.command()(plan)
cli.command()(files)
cli.command()(table)
cli.command()(catalogs)
cli.command()(sweep)
cli.add_typer(ledger, name="ledger")


def main() -> NoReturn:
    """Run a command and exit with the contract's status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # `nohup` has the hang-up ignored, and that is to stay so.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        _run_in_json() if _wants_json(sys.argv) else cli(prog_name="autoloader")
        sys.exit(0)
    except StoppedByUser as stopped:
        sys.stderr.write("Stopped; what was committed stays, the next run goes on from there.\n")
        sys.exit(SIGNAL_BASE + stopped.signal_number)
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except AutoloaderError as error:
        show_error(error, as_json=_wants_json(sys.argv))
        sys.exit(exit_code(error))
    except Exception as error:
        # The outermost frame: what nobody expected is said in one line, with the way to see more.
        if "--verbose" in sys.argv:
            raise
        show_error(InternalError(f"{type(error).__name__}: {first_line(error)}"), as_json=_wants_json(sys.argv))
        sys.exit(FAILED)


def _run_in_json() -> None:
    """Run a command so that also what its parser refuses is one JSON document on stdout."""
    try:
        status = cli(prog_name="autoloader", standalone_mode=False)
    except _ParserError as error:
        raise UsageError(error.format_message(), remedy="See --help.") from error
    sys.exit(status or 0)


def _stop(number: int, _frame: object) -> NoReturn:
    raise StoppedByUser(number)


def _wants_json(arguments: list[str]) -> bool:
    return "--output=json" in arguments or any(
        name == "--output" and value == "json" for name, value in pairwise(arguments)
    )
