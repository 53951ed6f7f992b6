"""Which desk a command works at, by its options and the settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.domain.errors import InvalidFieldError, LedgerUnreadableError

if TYPE_CHECKING:
    from app.cli.desk import Desk
    from app.config import Settings

ServerOption = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="A service to ask, such as http://localhost:8000; else the database."),
]
TokenOption = Annotated[
    str | None, typer.Option("--token", metavar="TOKEN", help="Token for it; better by AUTOLOADER_TOKEN or a file.")
]
TokenFileOption = Annotated[
    str | None, typer.Option("--token-file", metavar="FILE", help="A file that holds the token; - reads it from stdin.")
]


@contextmanager
def open_desk(
    server: str | None,
    token: str | None,
    token_file: str | None,
    *,
    verbose: bool,
    makes: bool = False,
) -> Iterator[Desk]:
    """The desk that options and settings ask for, until the block ends.

    Args:
        server: Address of a service; None: what the settings say.
        token: For it.
        token_file: Where the token is.
        verbose: Show what a developer wants to know.
        makes: Whether an SQLite database is made where there is none; who only looks is in the wrong folder then.

    Raises:
        AutoloaderError: The settings or the database cannot be used, or the address is none.
    """
    from app.config import read_settings
    from app.telemetry import configure_logging

    redactor = configure_logging(verbose=verbose)
    settings = read_settings()
    address = server or settings.autoloader_server
    if address is not None:
        from app.cli.desk_afar import AfarDesk
        from app.domain.addresses import passwords_of

        kept = settings.autoloader_token
        secret = _token(token, token_file) or (kept.get_secret_value() if kept else None)
        redactor.learn([secret] if secret else [])
        redactor.learn(passwords_of(address))
        yield AfarDesk(address, secret, redactor, note=_note)
        return
    if token is not None or token_file is not None:
        raise InvalidFieldError("A token is for a server.", remedy="Say which: --server URL, or AUTOLOADER_SERVER.")
    from app.cli.desk_at_hand import open_at_hand

    settings = _with_prefect(settings)
    _see_to_database(settings, makes=makes)
    with open_at_hand(settings, os.environ, redactor, verbose=verbose) as desk:
        yield desk


def _with_prefect(settings: Settings) -> Settings:
    """The settings, with the Prefect server of `autoloader up` where that is at work and no other one is named."""
    from app.cli.up import without_proxy
    from app.config import read_settings
    from app.domain.addresses import without_password
    from app.supervision.home import prefect_at_work

    # An empty one says that there is to be none.
    if "prefect_api_url" in settings.model_fields_set:
        return settings
    found = prefect_at_work(settings.home, without_password(settings.ledger_url))
    if found is None:
        return settings
    os.environ.update({"PREFECT_API_URL": found, **without_proxy(os.environ)})
    return read_settings()


def _see_to_database(settings: Settings, *, makes: bool) -> None:
    from app.persistence.ledger import ledger_exists, shown_url

    if not settings.ledger_url.startswith("sqlite:") or ledger_exists(settings.ledger_url):
        return
    if not makes:
        raise LedgerUnreadableError(
            f"There is no database {shown_url(settings.ledger_url)}.",
            remedy="Check AUTOLOADER_HOME and DATABASE_URL; `autoloader ingestions create` makes one.",
        )
    _note(f"Making a new database (AUTOLOADER_HOME is {settings.home}).")


def _token(given: str | None, file: str | None) -> str | None:
    if given is not None and file is not None:
        raise InvalidFieldError("--token and --token-file are two ways to say the same: give one.")
    if file is None:
        return given
    try:
        token = (sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidFieldError(f"The token in {file} cannot be read: {reason}.") from None
    if not token:
        raise InvalidFieldError(f"There is no token in {file}.")
    return token


def _note(line: str) -> None:
    sys.stderr.write(f"Note: {line}\n")
