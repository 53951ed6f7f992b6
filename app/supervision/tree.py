"""Which processes the tree of one machine has, and how each is started. The only place that has their command lines."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.domain.addresses import without_password
from app.supervision.asking import ApiAsking, PrefectAsking
from app.supervision.children import ChildSpec, Look
from app.supervision.marked import VARIABLE
from app.supervision.ports import shown_host

API, PREFECT, WORKER = "api", "prefect", "worker"
PREFECT_HOST = "127.0.0.1"
# What it greets with: its name in big letters, and what to do by hand, which `up` has done.
_GREETING = re.compile(
    r"[\W_]+$|Configure Prefect to|\s*prefect config set|View the API reference|The dashboard is disabled"
    r"|Check out the dashboard|Starting server at"
)
# So long requests that are being answered have when the API ends; streams have no end of their own.
API_GRACE_S = 3
# So long its runs go on; the others go on after the next start. A run that does not even give itself back is killed
# some seconds later, and then the worker still has to tell Prefect, which is asked to end after that.
WORKER_GRACE_S = "2"


@dataclass(frozen=True)
class TreePlan:
    """What is to be run.

    Args:
        host: The address that the API listens on.
        port: Its port.
        prefect_port: Of a Prefect server of its own; None where another one is used.
        prefect_url: Address of the API of the Prefect server, its own or not.
        pool: The work pool.
        home: The folder that everything is kept under.
        mark: What its processes are found by.
        access_log: Whether the API tells every request.
        prefect_user: "user:password" that Prefect is asked with, if any.
    """

    host: str
    port: int
    prefect_port: int | None
    prefect_url: str
    pool: str
    home: Path
    mark: str
    access_log: bool = False
    prefect_user: str | None = field(default=None, repr=False)

    @property
    def api_url(self) -> str:
        """Where the API answers, as seen from this machine."""
        return f"http://{shown_host(self.host)}:{self.port}"


def children(plan: TreePlan, api_environ: Mapping[str, str], worker_environ: Mapping[str, str]) -> list[ChildSpec]:
    """The processes of a tree.

    Args:
        plan: What is to be run.
        api_environ: The environment of the API.
        worker_environ: The environment of the worker, of its runs, and of a Prefect server.
    """
    mark = {VARIABLE: plan.mark}
    prefect = PrefectAsking(plan.prefect_url, worker_environ, plan.pool)
    # Nobody here starts the other one, so that it may be waited for in vain.
    where = without_password(plan.prefect_url)
    other = f"the Prefect server at {where} to answer (unset PREFECT_API_URL, and one is started here)"
    answers = Look("the Prefect server to answer" if plan.prefect_port else other, lambda _: prefect.is_up())
    specs = [_api(plan, {**api_environ, **mark}), _worker(plan, {**worker_environ, **mark}, prefect, answers)]
    if plan.prefect_port:
        specs.insert(0, _prefect(plan, {**worker_environ, **mark}, answers))
    return specs


def _api(plan: TreePlan, environ: Mapping[str, str]) -> ChildSpec:
    api = ApiAsking(plan.api_url)
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--host", plan.host, "--port", str(plan.port)]
    command += ["--log-level", "info" if plan.access_log else "warning", "--no-use-colors"]
    command += ["--timeout-graceful-shutdown", str(API_GRACE_S)]
    looks = (
        Look("the API to answer", lambda _: api.is_up()),
        Look("the API to reach the Prefect server", lambda _: api.has_prefect()),
    )
    return ChildSpec(API, "The API", tuple(command), environ, looks=looks)


def _prefect(plan: TreePlan, environ: Mapping[str, str], answers: Look) -> ChildSpec:
    command = [sys.executable, "-P", "-m", "app.prefect.server", "server", "start", "--host", PREFECT_HOST]
    command += ["--port", str(plan.prefect_port)]
    folder = plan.home / "prefect"
    usual = {
        # A page of another site in this machine's browser is not to have it do anything.
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": plan.prefect_url.removesuffix("/api"),
        "PREFECT_SERVER_UI_ENABLED": "false",
        # Left alone it never forgets a flow run.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder / 'prefect.db'}",
    }
    # It is the server, and not a client of one.
    inherited = {name: value for name, value in environ.items() if name != "PREFECT_API_URL"}
    given = {**usual, **inherited, "PREFECT_HOME": str(folder)}
    return ChildSpec(
        PREFECT, "The Prefect server", tuple(command), given, looks=(answers,), last=True, left_out=_GREETING
    )


def _worker(plan: TreePlan, environ: Mapping[str, str], prefect: PrefectAsking, answers: Look) -> ChildSpec:
    command = (
        sys.executable,
        "-P",
        "-m",
        "app.prefect.worker",
        "--parent",
        str(os.getpid()),
        "--grace",
        WORKER_GRACE_S,
    )
    online = Look(f"the worker to be online in {plan.pool}", prefect.has_worker)
    return ChildSpec(WORKER, "The worker", command, environ, needs=(answers,), looks=(online,))
