"""The command line. Commands import their weight when they run, so that `--help` is quick."""

from __future__ import annotations

import atexit
import gc
import signal
import sys
from itertools import pairwise
from typing import NoReturn, cast

import typer

from app.cli.catalogs import catalogs
from app.cli.errors import FAILED, exit_code, first_line, show_error, tell_whole
from app.cli.files import files
from app.cli.ingestions import ingestions, migrate_to_prefect
from app.cli.keys import keys
from app.cli.ledger import ledger
from app.cli.load import load
from app.cli.plan import plan
from app.cli.run_order import run_order
from app.cli.streams import STDOUT, drop, finish, install
from app.cli.sweep import sweep
from app.cli.table import table
from app.cli.tokens import tokens
from app.cli.up import up
from app.cli.worker import worker
from app.domain.errors import AutoloaderError, InternalError, OutputError, StoppedByUser, UsageError

# What Typer raises for arguments that it cannot parse; it names only the subclass in public.
_ParserError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])

# What a shell reports of a process that a signal ended.
SIGNAL_BASE = 128

# So many new objects are worth a look for garbage among them: some ten megabytes.
COLLECT_OBJECTS = 100_000

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
cli.command()(up)
cli.command()(migrate_to_prefect)
cli.command()(worker)
cli.command("run-order", hidden=True)(run_order)
cli.add_typer(ledger, name="ledger")
cli.add_typer(keys, name="keys")
cli.add_typer(tokens, name="tokens")
cli.add_typer(ingestions, name="ingestions")


def main() -> NoReturn:
    """Run a command and exit with the contract's status."""
    _collect_seldom()
    _hide_token()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # `nohup` has the hang-up ignored, and that is to stay so.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    install()
    try:
        _carry_out()
    except StoppedByUser as stopped:
        sys.stderr.write("Stopped; what was committed stays, the next run goes on from there.\n")
        sys.exit(SIGNAL_BASE + stopped.signal_number)
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody left to tell.
        drop(STDOUT)
        sys.exit(FAILED)
    except OutputError as error:
        show_error(error, as_json=False)
        sys.exit(exit_code(error))
    except AutoloaderError as error:
        show_error(error, as_json=_wants_json(sys.argv))
        sys.exit(exit_code(error))
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - see below
        # The outermost frame: what nobody expected is said in one line, with the way to see more. A panic in a
        # library's native code is no `Exception`.
        if "--verbose" in sys.argv:
            tell_whole()
            sys.exit(FAILED)
        show_error(InternalError(f"{type(error).__name__}: {first_line(error)}"), as_json=_wants_json(sys.argv))
        sys.exit(FAILED)


def _hide_token() -> None:
    """As early as it goes: until then everybody on the machine can read it."""
    if any(argument.startswith("--token") for argument in sys.argv):
        from app.cli.hiding import hide_values

        hide_values("--token")


def _collect_seldom() -> None:
    """Look for cyclic garbage when there may be much of it.

    A start makes some hundred thousand objects that stay. By Python's own measure it would look through them again and
    again, and once more before the process ends, when the system takes all of them back anyway.
    """
    gc.set_threshold(COLLECT_OBJECTS)
    atexit.register(gc.freeze)


def _carry_out() -> NoReturn:
    try:
        _run_in_json() if _wants_json(sys.argv) else cli(prog_name="autoloader")
        sys.exit(0)
    finally:
        # Now, while it can still be told that it does not go.
        finish()


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
