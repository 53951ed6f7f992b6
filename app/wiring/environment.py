"""What child processes and workers are told by their environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from app.config import Settings

if TYPE_CHECKING:
    from app.domain.redaction import Redactor


def child_environ(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that works for this one: relative paths are resolved, once and here."""
    handed_on = {"AUTOLOADER_HOME": str(settings.home), "DATABASE_URL": settings.ledger_url}
    return {**environ, **handed_on}


def worker_environ(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker and of the flow runs below it, which find no `.env` where they are."""
    from app.services.prefect_connection import ENVIRONMENT, IMPATIENT

    handed_on = _given(settings)
    inherited = {name: value for name, value in environ.items() if name not in IMPATIENT}
    # How often the worker asks for work: its own default makes a run wait for 10 to 15.
    usual = {"PREFECT_WORKER_QUERY_SECONDS": "1"}
    known = {**inherited, **handed_on, **_prefect_user(settings)}
    return {**usual, **child_environ(settings, known), **ENVIRONMENT, **_import_path(environ)}


def _prefect_user(settings: Settings) -> dict[str, str]:
    """Who Prefect is asked as, apart from its address, which Prefect's library writes down with every run."""
    from app.domain.addresses import parted

    address, user = parted(settings.prefect_api_url or "")
    return {"PREFECT_API_URL": address, "PREFECT_API_AUTH_STRING": user} if user else {}


def _plain(value: object) -> str | None:
    from pydantic import SecretStr

    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return None if value is None else str(value)


def job_environ(settings: Settings) -> dict[str, str]:
    """What every flow run is told of where it belongs, whoever's worker carries it out.

    Of a database on a server its address is not handed on, for it holds a password, and no folder, for the worker of
    another machine has its own.
    """
    routing = {
        "HIGH_MEMORY_THRESHOLD_GB": str(settings.high_memory_threshold_gb),
        "PREFECT_HIGH_MEMORY_WORK_QUEUE": settings.prefect_high_memory_work_queue,
    }
    if not settings.ledger_url.startswith("sqlite:"):
        return routing
    return {**routing, "AUTOLOADER_HOME": str(settings.home), "DATABASE_URL": settings.ledger_url, **_import_path({})}


def _import_path(environ: Mapping[str, str]) -> dict[str, str]:
    """Where the program is found by a process that starts in another folder; nothing where it is installed."""
    root = Path(__file__).resolve().parent.parent.parent
    if "site-packages" in root.parts:
        return {}
    others = [part for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != str(root)]
    return {"PYTHONPATH": os.pathsep.join([str(root), *others])}


def learn_secrets(settings: Settings, environ: Mapping[str, str], redactor: Redactor) -> None:
    """Tell the redactor what is secret in the settings and in the environment."""
    from app.domain.redaction import secrets_of

    redactor.learn(secrets_of(environ))
    redactor.learn(secrets_of(_given(settings)))


def _given(settings: Settings) -> dict[str, str]:
    """The settings that were given, by the names of their variables."""
    given = {name.upper(): _plain(getattr(settings, name)) for name in settings.model_fields_set}
    return {name: value for name, value in given.items() if value is not None}
