"""Create and trigger over HTTP, beside the bare calls of Prefect's client on the same server, turn by turn.

`scheduling.py HOME TIMES` starts a Prefect server and the service below HOME, and prints medians as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import PrefectHTTPStatusError

from app.services.prefect_plans import PARAMETER_SCHEMA

START_S = 90
FIGURES = ("create_ms", "bare_create_ms", "trigger_ms", "bare_trigger_ms")


@contextmanager
def server(home: Path) -> Iterator[str]:
    """Address of the API of a server of its own."""
    with server_process(home) as (url, _):
        yield url


@contextmanager
def server_process(home: Path) -> Iterator[tuple[str, int]]:
    """The same, and its process."""
    port = _free_port()
    environ = {**os.environ, "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/prefect.db"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}/api"
    with _process(command, environ, home / "prefect.log") as pid:
        _wait(f"{url}/health")
        yield url, pid


@contextmanager
def service(home: Path, prefect_url: str) -> Iterator[str]:
    """Address of a service with that Prefect server, in a process of its own as people run it; no worker beside it."""
    port = _free_port()
    environ = {
        **os.environ,
        "PREFECT_API_URL": prefect_url,
        "AUTOLOADER_HOME": str(home),
        "AUTOLOADER_WORKER": "off",
        "AUTOLOADER_DIRECT_RUN_WAIT_S": "0",
    }
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with _process(command, environ, home / "service.log"):
        _wait(f"{url}/health", lambda told: json.loads(told)["prefect"] == "connected")
        yield url


@contextmanager
def _process(command: list[str], environ: dict[str, str], log: Path) -> Iterator[int]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environ, stdout=out, stderr=out, start_new_session=True)
    try:
        yield process.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait(url: str, is_right: Callable[[bytes], bool] = bool) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own servers
            if is_right(answer.read()):
                return
        time.sleep(0.2)
    raise TimeoutError(f"{url} did not become ready.")


class BusyError(Exception):
    """The server refused us."""


async def timed(call: Callable[[], Awaitable[Any]], into: list[float]) -> Any:  # noqa: ANN401 - what the call gives
    """The call's answer; its milliseconds are kept."""
    begin = time.perf_counter()
    answer = await call()
    into.append(1000 * (time.perf_counter() - begin))
    return answer


class Turns:
    """One turn after the other: each call of the bare client's, and ours over HTTP."""

    def __init__(self, home: Path, bare: PrefectClient, api: httpx.AsyncClient, flow_id: uuid.UUID) -> None:
        self._source = str(home / "in")
        self._bare = bare
        self._api = api
        self._flow_id = flow_id

    async def turn(self, *, ours_first: bool) -> dict[str, float]:
        """Milliseconds of each call. Who comes first pays for what the server has yet to do of the call before.

        Raises:
            BusyError: The server refused one, as one with SQLite does when it is busy.
        """
        took: dict[str, list[float]] = {name: [] for name in FIGURES}
        try:
            await timed(self._bare_create, took["bare_create_ms"])
            made = await timed(self._create, took["create_ms"])
            if made["prefect_deployment_id"] is None:
                raise BusyError
            # The same deployment, for what it checks of parameters takes the server time too.
            deployment_id = uuid.UUID(made["prefect_deployment_id"])
            for ours in (ours_first, not ours_first):
                if not ours:
                    await timed(lambda: self._bare_trigger(deployment_id), took["bare_trigger_ms"])
                    continue
                begun = await timed(lambda: self._post(f"/{made['id']}/run"), took["trigger_ms"])
                if begun["method"] != "prefect":
                    raise BusyError
        except PrefectHTTPStatusError as error:
            raise BusyError from error
        return {name: one for name, (one,) in took.items()}

    async def _bare_create(self) -> uuid.UUID:
        schedule = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 * * * *", timezone="UTC"), active=True)
        return await self._bare.create_deployment(
            flow_id=self._flow_id,
            name=uuid.uuid4().hex,
            schedules=[schedule],
            work_pool_name="autoloader-pool",
            work_queue_name="autoloader-default",
            entrypoint="app.prefect.flows.run_ingestion.run_ingestion_flow",
            parameters={"ingestion_id": uuid.uuid4().hex, "trigger": "scheduled"},
            tags=["bare"],
            enforce_parameter_schema=True,
            parameter_openapi_schema=dict(PARAMETER_SCHEMA),
        )

    async def _bare_trigger(self, deployment_id: uuid.UUID) -> FlowRun:
        order = {"ingestion_id": uuid.uuid4().hex, "trigger": "manual", "run_id": uuid.uuid4().hex}
        return await self._bare.create_flow_run_from_deployment(
            deployment_id,
            parameters=order,
            idempotency_key=order["run_id"],
            work_queue_name="autoloader-priority",
        )

    async def _create(self) -> Any:  # noqa: ANN401 - JSON
        return await self._post(
            "",
            {
                "name": uuid.uuid4().hex,
                "source": {"type": "local", "path": self._source},
                "format": {"type": "json"},
                "destination": {"catalog": "local", "database": "bench", "table": "events"},
                "schedule": {"frequency": "hourly", "timezone": "UTC"},
            },
        )

    async def _post(self, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        answer = await self._api.post(f"/api/v1/ingestions{path}", json=body)
        answer.raise_for_status()
        return answer.json()


async def measured(home: Path, prefect_url: str, service_url: str, times: int) -> dict[str, float]:
    """Medians of both ways. A turn in which the server refused anybody counts for nobody."""
    (home / "in").mkdir()
    turns: list[dict[str, float]] = []
    bare = PrefectClient(prefect_url)
    async with bare, httpx.AsyncClient(base_url=service_url, timeout=60, trust_env=False) as api:
        both = Turns(home, bare, api, await bare.create_flow_from_name("bare"))
        for number in range(3 * times):
            with suppress(BusyError):
                turns.append(await both.turn(ours_first=number % 2 == 1))
            # The first one opened connections.
            if len(turns) > times:
                break
    if len(turns) <= times:
        raise TimeoutError("The Prefect server refused too many calls.")
    return {name: statistics.median(turn[name] for turn in turns[1:]) for name in FIGURES}


def main() -> None:
    """Measure, and print."""
    home, times = Path(sys.argv[1]), int(sys.argv[2])
    os.environ |= {
        "PREFECT_HOME": f"{home}/prefect-home",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    with server(home) as prefect_url, service(home, prefect_url) as service_url:
        medians = asyncio.run(measured(home, prefect_url, service_url, times))
    print(json.dumps({**medians, "wall_s": (medians["create_ms"] + medians["trigger_ms"]) / 1000}))


if __name__ == "__main__":
    main()
