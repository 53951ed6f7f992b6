"""`autoloader up`: the whole service of one machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from app.cli.options import Output, OutputOption, VerboseOption
from app.domain.addresses import parted, without_password
from app.domain.errors import (
    LedgerUnreadableError,
    PrefectUnusableError,
    PrefectVersionError,
    TokensRequiredError,
    UsageError,
)

if TYPE_CHECKING:
    from app.config import Settings
    from app.supervision.tree import TreePlan

PORT, PREFECT_PORT, HOST = 8000, 4200, "127.0.0.1"
# A Prefect server that is busy is waited for before anything is started: what it is then need not be found out later.
PREFECT_TIMEOUT_S = 10.0


def up(
    *,
    host: Annotated[str, typer.Option(help="Address that the API listens on.")] = HOST,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help=f"Of the API; {PORT} unless given.")] = None,
    prefect_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help=f"Of the Prefect server; {PREFECT_PORT} unless given.")
    ] = None,
    free_ports: Annotated[bool, typer.Option("--free-ports", help="Choose free ports where none is given.")] = False,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """Run the service on this machine: API, Prefect server and worker, until it is stopped."""
    from app.config import read_settings
    from app.supervision.home import take_home

    settings = read_settings()
    _require_libraries()
    refuse_strangers(host, settings)
    lock = take_home(settings.home)
    plan = _plan(settings, host, (port, prefect_port), free_ports=free_ports, verbose=verbose)
    _become_head(plan, settings, lock, output)


def _become_head(plan: TreePlan, settings: Settings, lock: int, output: Output) -> NoReturn:
    from app.supervision.head import Orders, become
    from app.supervision.home import leave_word

    if plan.prefect_port:
        leave_word(lock, plan.prefect_url, without_password(settings.ledger_url))
    api, worker = _environs(plan, settings)
    orders = Orders(
        plan=plan,
        told="\n".join(_told(plan, settings)),
        document=_document(plan, settings) if output is Output.JSON else None,
        api_environ=api,
        worker_environ=worker,
        secrets=tuple(_secrets(settings)),
    )
    # It finds the program where the worker finds it.
    become(orders, lock, {**os.environ, **{name: worker[name] for name in ("PYTHONPATH",) if name in worker}})


# --- what is to be run ---------------------------------------------------------------------------------------------


def _plan(
    settings: Settings, host: str, ports: tuple[int | None, int | None], *, free_ports: bool, verbose: bool
) -> TreePlan:
    """What is to be run, on ports that are free now."""
    import secrets

    from app.services.prefect_plans import PrefectSettings
    from app.supervision.tree import PREFECT_HOST, TreePlan

    given, prefect_port = settings.prefect_api_url, None
    # Who we are is told apart from the address: what shows the address, Prefect's library among others, tells nobody.
    url, user = parted(given or "")
    if not url:
        prefect_port = _port(PREFECT_HOST, ports[1], PREFECT_PORT, "--prefect-port", free_ports=free_ports)
    else:
        _check_prefect(url, _known_as(user, os.environ))
    return TreePlan(
        host=host,
        port=_port(host, ports[0], PORT, "--port", free_ports=free_ports, taken=prefect_port),
        prefect_port=prefect_port,
        prefect_user=user,
        prefect_url=url or f"http://{PREFECT_HOST}:{prefect_port}/api",
        pool=PrefectSettings.pool,
        home=settings.home,
        mark=secrets.token_hex(16),
        access_log=verbose,
    )


def _port(host: str, given: int | None, usual: int, option: str, *, free_ports: bool, taken: int | None = None) -> int:
    from app.supervision.ports import check_port, free_port

    if given is None and free_ports:
        free = free_port(host)
        while free == taken:
            # The system may give the same one twice, for nobody listens on it yet.
            free = free_port(host)
        return free
    port = given or usual
    if port == taken:
        raise UsageError(f"Port {port} is to be the Prefect server's and the API's.", remedy=f"Give another {option}.")
    check_port(host, port, option)
    return port


def _known_as(user: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of what asks Prefect as that user."""
    return {**environ, **({"PREFECT_API_AUTH_STRING": user} if user else {})}


def _check_prefect(url: str, environ: Mapping[str, str]) -> None:
    """Refuse what is no Prefect server, or one of another line than the library that we call it with; silence may pass.

    Raises:
        PrefectVersionError: It is of another line.
        PrefectUnusableError: It is something else, or refuses our key.
    """
    from importlib.metadata import version

    from app.supervision.asking import PrefectAsking

    ours, where = version("prefect"), without_password(url)
    try:
        theirs = PrefectAsking(url, environ, "", timeout_s=PREFECT_TIMEOUT_S).version()
    except PrefectUnusableError as error:
        raise PrefectUnusableError(
            f"PREFECT_API_URL is {where}, and what answers there cannot be used. {error.message}",
            remedy=error.advice,
        ) from None
    if theirs is not None and theirs.split(".")[:2] != ours.split(".")[:2]:
        raise PrefectVersionError(
            f"The Prefect server at {where} is of version {theirs}, and this program works with {_line(ours)}.",
            remedy=f"Run Prefect {ours} there, or unset PREFECT_API_URL: then `up` starts a server of its own.",
        )


def _line(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _require_libraries() -> None:
    from importlib.util import find_spec

    if any(find_spec(name) is None for name in ("uvicorn", "fastapi", "prefect", "cryptography")):
        raise UsageError(
            "The service's libraries are not installed.",
            remedy="Install them: pip install 'iceberg-autoloader[server]'.",
        )


def refuse_strangers(host: str, settings: Settings) -> None:
    """Listen beyond this machine only where tokens say who may ask.

    Raises:
        TokensRequiredError: There are none.
    """
    from app.supervision.ports import is_loopback

    if not is_loopback(host) and not _has_tokens(settings):
        raise TokensRequiredError(
            f"--host {host} would let other machines ask, and no tokens are configured that say who may.",
            remedy="Make one by `autoloader tokens create`, or leave --host away and reach it through "
            "`ssh -L 8000:localhost:8000 HOST`.",
        )


def _has_tokens(settings: Settings) -> bool:
    """Whether tokens are configured."""
    from app.wiring.stores import open_access_tokens

    with suppress(LedgerUnreadableError), open_access_tokens(settings) as tokens:
        return tokens.look_up_token(None).is_server_mode
    return False


def _environs(plan: TreePlan, settings: Settings) -> tuple[dict[str, str], dict[str, str]]:
    """The environments of API and worker."""
    from app.services.prefect_connection import ENVIRONMENT
    from app.wiring.environment import child_environ, worker_environ

    # The worker is ours to start, and where Prefect is we say.
    told = {"PREFECT_API_URL": plan.prefect_url, "AUTOLOADER_WORKER": "off"}
    known = settings.model_copy(update={name.lower(): value for name, value in told.items()})
    inherited = _known_as(plan.prefect_user, os.environ)
    api = {**child_environ(settings, inherited), **ENVIRONMENT, **told, **without_proxy(os.environ)}
    if plan.prefect_port:
        # Its own server reaches it so.
        api.setdefault("AUTOLOADER_PUBLIC_URL", plan.api_url)
    worker = {**worker_environ(known, inherited), **without_proxy(os.environ)}
    for environ in (api, worker):
        # It opens services to this machine's commands, and is none of theirs.
        environ.pop("AUTOLOADER_TOKEN", None)
    if plan.prefect_port:
        api["PREFECT_HOME"] = worker["PREFECT_HOME"] = str(plan.home / "prefect")
    return api, worker


def without_proxy(environ: Mapping[str, str]) -> dict[str, str]:
    """Keep what the processes of one machine say to each other from a proxy that others are asked through."""
    if not any(environ.get(name) for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")):
        return {}
    given = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    text = ",".join(part for part in (given, "127.0.0.1", "localhost", "::1") if part)
    return {"no_proxy": text, "NO_PROXY": text}


# --- what is told --------------------------------------------------------------------------------------------------


def _secrets(settings: Settings) -> Iterator[str]:
    from app.domain.addresses import passwords_of
    from app.domain.redaction import secrets_of

    yield from secrets_of(os.environ)
    yield from passwords_of(settings.database_url)
    yield from passwords_of(settings.prefect_api_url or "")
    kept = (settings.secret_key, settings.secret_key_previous, settings.autoloader_token)
    yield from (key.get_secret_value() for key in kept if key is not None)


def _is_sqlite(settings: Settings) -> bool:
    return settings.ledger_url.startswith("sqlite:")


def _document(plan: TreePlan, settings: Settings) -> dict[str, Any]:
    return {
        "status": "ready",
        "api_url": plan.api_url,
        "prefect_api_url": without_password(plan.prefect_url),
        "home": str(plan.home),
        "database": "sqlite" if _is_sqlite(settings) else "postgresql",
        "pid": os.getpid(),
    }


def _told(plan: TreePlan, settings: Settings) -> list[str]:
    whose = "" if plan.prefect_port else " (not ours to stop)"
    lines = [
        "",
        "Autoloader is ready.",
        f"  API       {plan.api_url}, every call at {plan.api_url}/docs",
        f"  Prefect   {without_password(plan.prefect_url)}{whose}",
        f"  worker    online in {plan.pool}",
        f"  kept in   {plan.home}",
        f"  stop      Ctrl-C, or kill {os.getpid()}",
    ]
    if _is_sqlite(settings):
        lines.append(
            "The database is SQLite: good for this one machine. Several need PostgreSQL and a Prefect of theirs."
        )
    return [*lines, ""]
