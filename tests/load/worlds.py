"""The two installations that are loaded: all of it by one word, and as a team has it."""

from __future__ import annotations

import itertools
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from app.destinations.catalog import IcebergCatalog
from app.domain.errors import TableNotFoundError
from app.domain.table import TableName
from app.prefect.worker.names import FORK_SERVER
from app.services.prefect_connection import ENVIRONMENT
from tests.load.checks import FileRows
from tests.support.postgres import Postgres, migrated_database, start_postgres, stop_postgres
from tests.support.prefect_server import START_S, PrefectServer, server_command
from tests.support.servers import free_ports, spawn, started, stop
from tests.support.service_process import ServiceProcess, until
from tests.support.up_process import started_up
from tests.support.worker_process import WorkerProcess

PAGE = 200
BY_FILE = (
    "select _file_path path, count(*) n, count(distinct id) ids, cast(sum(id) as bigint) total "
    "from loaded.{table} group by 1 order by 1"
)


@dataclass(frozen=True)
class World:
    """An installation that is up.

    Args:
        title: What it is, for the report.
        api_urls: Where its API answers.
        prefect_url: Where Prefect's does.
        warehouse: The folder of its tables.
        processes: Name → process id, of those that stay.
    """

    title: str
    api_urls: tuple[str, ...]
    prefect_url: str
    warehouse: Path
    processes: Mapping[str, int]

    def rows(self, tables: list[str]) -> dict[str, list[FileRows]]:
        """What is in its tables, file by file, read without any of its processes."""
        properties = {
            "type": "sql",
            "uri": f"sqlite:///{self.warehouse}/catalog.db",
            "warehouse": str(self.warehouse),
        }
        with closing(IcebergCatalog("local", properties)) as catalog:
            return {table: rows_by_file(catalog, table) for table in tables}

    def deployments(self) -> list[dict[str, Any]]:
        """All that Prefect has, read without any code of the product."""
        with httpx.Client(base_url=self.prefect_url, timeout=60, trust_env=False) as client:
            headers = _csrf(client)
            found: list[dict[str, Any]] = []
            for offset in itertools.count(0, PAGE):
                body = {"sort": "NAME_ASC", "limit": PAGE, "offset": offset}
                answer = client.post("/deployments/filter", json=body, headers=headers)
                answer.raise_for_status()
                found += answer.json()
                if len(answer.json()) < PAGE:
                    break
            return found


def rows_by_file(catalog: IcebergCatalog, table: str) -> list[FileRows]:
    """What is in a table, file by file; nothing where there is no table."""
    name = TableName("local", ("loaded",), table)
    try:
        found: list[dict[str, Any]] = catalog.query(name, BY_FILE.format(table=table))
    except TableNotFoundError:
        # No run of its ingestion came so far; each of its files will be told as missing.
        return []
    return [FileRows(one["path"], one["n"], one["ids"], one["total"]) for one in found]


def _csrf(client: httpx.Client) -> dict[str, str]:
    """What a server that guards itself against pages of others wants to see."""
    name = str(uuid.uuid4())
    answer = client.get("/csrf-token", params={"client": name})
    if not answer.is_success:
        return {}
    return {"Prefect-Csrf-Token": answer.json()["token"], "Prefect-Csrf-Client": name}


@contextmanager
def one_machine(folder: Path) -> Iterator[World]:
    """`autoloader up`, as it is without any setting: SQLite, one worker."""
    with started_up(folder) as up:
        ready = up.ready()
        pids: dict[str, int] = ready["children"]
        worker = pids["worker"]
        yield World(
            "SQLite, one worker",
            (ready["api_url"],),
            ready["prefect_api_url"],
            folder / "warehouse",
            {"API": pids["api"], "worker": worker, **_fork_server(worker, ""), "Prefect server": pids["prefect"]},
        )


@contextmanager
def team(folder: Path) -> Iterator[World]:
    """Two API processes and two workers, with PostgreSQL for us and for Prefect."""
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        postgres = start_postgres()
        stack.callback(stop_postgres, postgres)
        _durable(postgres)
        prefect = _start_prefect(postgres)
        stack.callback(stop, prefect)
        environ = {
            "DATABASE_URL": migrated_database(postgres),
            "SECRET_KEY": "a passphrase of the tests",
            "AUTOLOADER_HOME": str(folder / "home"),
            "PREFECT_API_URL": prefect.api_url,
            "AUTOLOADER_WORKER": "off",
            "AUTOLOADER_SETTLE_S": "0",
            # As it is by default; other tests wait longer.
            "AUTOLOADER_DIRECT_RUN_WAIT_S": "30",
        }
        services = [ServiceProcess(folder / f"api-{number}", environ) for number in range(2)]
        workers = [WorkerProcess(folder / f"worker-{number}", environ) for number in range(2)]
        for service in services:
            stack.callback(service.stop)
        for worker in workers:
            stack.callback(worker.stop)
        (folder / "home").mkdir()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(ServiceProcess.start, services))
        for worker in workers:
            worker.start()
        yield World(
            "PostgreSQL, two workers, two API processes",
            tuple(f"http://127.0.0.1:{one.port}" for one in services),
            prefect.api_url,
            folder / "home" / "warehouse",
            _of_team(services, workers, prefect, postgres),
        )


def _of_team(
    services: list[ServiceProcess], workers: list[WorkerProcess], prefect: PrefectServer, postgres: Postgres
) -> dict[str, int]:
    postmaster = int(Path(postgres.folder, "data", "postmaster.pid").read_text().split()[0])
    found: dict[str, int] = {}
    for service, suffix in zip(services, ("", " 2"), strict=True):
        found[f"API{suffix}"] = service.pid
    for worker, suffix in zip(workers, ("", " 2"), strict=True):
        found |= {f"worker{suffix}": worker.pid, **_fork_server(worker.pid, suffix)}
    return {**found, "Prefect server": prefect.pid, "PostgreSQL": postmaster}


def _fork_server(worker: int, suffix: str) -> dict[str, int]:
    """The process that a worker's runs are forked from."""

    def look() -> list[int]:
        children = psutil.Process(worker).children(recursive=True)
        return [one.pid for one in children if one.name() == FORK_SERVER]

    (pid, *_) = until(look, START_S, "the worker has its fork server")
    return {f"fork server{suffix}": pid}


def _durable(postgres: Postgres) -> None:
    """Have it write to disk as a server of people does; other tests go without."""
    postgres.execute("alter system set fsync = on")
    postgres.execute("select pg_reload_conf()")


def _start_prefect(postgres: Postgres) -> PrefectServer:
    database = postgres.create_database().replace("postgresql://", "postgresql+asyncpg://")

    def launch() -> PrefectServer:
        folder = tempfile.mkdtemp(prefix="prefect-")
        (port,) = free_ports(1)
        environ = {
            **ENVIRONMENT,
            "PREFECT_HOME": f"{folder}/home",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
            "PREFECT_SERVER_UI_ENABLED": "false",
        }
        return PrefectServer(spawn(server_command(port), environ, folder), folder, port)

    return started(launch, _is_ready, stop, within_s=START_S)


def _is_ready(server: PrefectServer) -> bool:
    try:
        return bool(server.ask("/health"))
    except OSError:
        return False


WORLDS = {"sqlite": one_machine, "postgres": team}
