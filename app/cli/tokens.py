"""`autoloader tokens …`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from app.cli.options import Output, OutputOption, VerboseOption
from app.cli.render import print_json, print_rows
from app.domain.access import (
    DEFAULT_TENANT,
    AccessToken,
    AccessTokens,
    NewToken,
    Role,
    TokenState,
    checked_tenant,
    checked_token_name,
    digest_of,
    new_token,
    new_token_id,
)
from app.domain.errors import InvalidFieldError

tokens = typer.Typer(
    help="Say who may ask the service. With the first token, nobody may without one.", no_args_is_help=True
)

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"([1-9]\d{0,4})([mhdw])")
_NO_ADMIN = (
    "No admin's token is good any more. The service still answers nobody without a token; "
    "`autoloader tokens create --role admin` makes another one.\n"
)


_DOOR_CLOSES = (
    "This is the first token. From now on the service answers nobody without one, and:\n"
    "  - folders are read only below AUTOLOADER_LOCAL_ROOTS: until the service and its workers are started with it,\n"
    "    runs of local sources fail with source_not_allowed;\n"
    "  - stores and webhook receivers at private or loopback addresses need AUTOLOADER_ALLOWED_HOSTS.\n"
)


@tokens.callback()
def _tokens() -> None:
    """Say who may ask the service. With the first token, nobody may without one."""


@tokens.command()
def create(
    *,
    role: Annotated[Role, typer.Option(help="viewer reads, operator makes and runs ingestions, admin does all.")],
    tenant: Annotated[str, typer.Option(help="Whose ingestions it is for; others are not seen.")] = DEFAULT_TENANT,
    name: Annotated[str, typer.Option(help="What it is for, to tell it from others.")] = "",
    expires_in: Annotated[
        str | None, typer.Option("--expires-in", metavar="TIME", help="Such as 12h or 90d; by default it stays good.")
    ] = None,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """Make a token. It is shown this once: only its hash is kept."""
    now = datetime.now(UTC)
    new = NewToken(new_token_id(), checked_token_name(name), checked_tenant(tenant), role, _expiry(expires_in, now))
    token = new_token()
    with _opened(verbose=verbose, create=True) as store:
        is_first = not store.list_tokens()
        made = store.add_token(new, digest_of(token))
    if is_first:
        sys.stderr.write(_DOOR_CLOSES)
    if output is Output.JSON:
        print_json({"token": token, **_document(made, now)})
        return
    sys.stderr.write(
        f"Token {made.id}: {made.role.value} of tenant {made.tenant}. Keep it now: it is never shown again.\n"
    )
    sys.stdout.write(token + "\n")


@tokens.command("list")
def list_(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only those of this tenant.")] = None,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """Show the tokens: whose they are, whether they are good, and when they were last used; never themselves."""
    now = datetime.now(UTC)
    with _opened(verbose=verbose) as store:
        found = store.list_tokens(None if tenant is None else checked_tenant(tenant))
    if output is Output.JSON:
        print_json([_document(one, now) for one in found])
        return
    headers = ("id", "state", "role", "tenant", "name", "created (UTC)", "last used", "expires")
    print_rows(headers, [_row(one, now) for one in found])


@tokens.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
    *,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """Let a token be good no more, from the next request on."""
    now = datetime.now(UTC)
    with _opened(verbose=verbose) as store:
        revoked = store.revoke_token(token_id)
        others = store.list_tokens()
    if output is Output.JSON:
        print_json(_document(revoked, now))
    else:
        sys.stdout.write(f"Revoked the token {revoked.id}.\n")
    if not _has_admin(others, now):
        sys.stderr.write(_NO_ADMIN)


def _has_admin(found: Iterable[AccessToken], now: datetime) -> bool:
    return any(one.role is Role.ADMIN and one.state(now) is TokenState.ACTIVE for one in found)


def _opened(*, verbose: bool, create: bool = False) -> AbstractContextManager[AccessTokens]:
    from app.config import read_settings
    from app.telemetry import configure_logging
    from app.wiring.stores import open_access_tokens

    configure_logging(verbose=verbose)
    return open_access_tokens(read_settings(), on_new=_say if create else None)


def _say(note: str) -> None:
    sys.stderr.write(note + "\n")


def _expiry(text: str | None, now: datetime) -> datetime | None:
    if text is None:
        return None
    found = _DURATION.fullmatch(text)
    if found is None:
        raise InvalidFieldError(
            f"--expires-in {text!r} is no time.", remedy="Write a number and m, h, d or w, such as 90d."
        )
    return now + timedelta(**{_UNITS[found[2]]: int(found[1])})


def _document(token: AccessToken, now: datetime) -> dict[str, Any]:
    return {
        "id": token.id,
        "state": token.state(now).value,
        "role": token.role.value,
        "tenant": token.tenant,
        "name": token.name,
        "created_at": token.created_at,
        "last_used_at": token.last_used_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
    }


def _row(token: AccessToken, now: datetime) -> tuple[str, ...]:
    times = (token.created_at, token.last_used_at, token.expires_at)
    shown = (f"{time:%Y-%m-%d %H:%M}" if time else "" for time in times)
    return token.id, token.state(now).value, token.role.value, token.tenant, token.name, *shown
