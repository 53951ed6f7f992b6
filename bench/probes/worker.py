"""Runs by the warm worker beside the same runs by Prefect's own, on one server; one after the other.

`worker.py HOME RUNS` starts a Prefect server below HOME, makes RUNS ingestions of one small file each, and prints as
JSON what it measured: seconds of CPU of each worker's whole life for all runs, seconds from trigger to running, and
what an idle worker costs.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from app.config import read_settings
from app.domain.ingestions import Deployment, Ingestion, RunRecord, User
from app.domain.runs import RunStatus
from app.telemetry import configure_logging
from app.wiring.service import Service, build_service
from bench.probes.scheduling import server_process

LIMIT = "4"
# A server with SQLite does not bear more at once, beside what it is told by the runs.
PAUSE_S = 0.05
ONE_BY_ONE = 5
IDLE_S = 10.0
LONGEST_S = 600.0
# So long a worker has to stop.
STOP_S, LOOK_S = 60.0, 0.05
WARM = ("app.prefect.worker", "--limit", LIMIT)
STOCK = ("prefect", "worker", "start", "--pool", "autoloader-pool", "--type", "process", "--limit", LIMIT)


class Worker:
    """A worker's process."""

    def __init__(self, home: Path, words: tuple[str, ...], environ: Mapping[str, str]) -> None:
        with (home / f"{words[0]}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", *words], env=dict(environ), stdout=log, stderr=log, cwd=home
            )

    def ended_cpu_s(self) -> float:
        """Stop it: the seconds of CPU that it took, with all that it started and that has ended."""
        self.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while True:
            pid, _, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                # Prefect's own at times does not come to its end, with nothing left to do.
                os.kill(self.process.pid, signal.SIGKILL)
            time.sleep(LOOK_S)
        self.process.returncode = 0
        return usage.ru_utime + usage.ru_stime


class Scene:
    """A service without its API, and its ingestions."""

    def __init__(self, home: Path, service: Service) -> None:
        self._home = home
        self._service = service
        self._made: list[Ingestion] = []

    async def make(self, count: int) -> None:
        """Make ingestions that have a deployment."""
        for n in range(count):
            (self._home / f"in{n}").mkdir()
            document = {
                "name": f"i{n}",
                "source": {"type": "local", "path": str(self._home / f"in{n}")},
                "format": {"type": "json"},
                "destination": {"catalog": "local", "database": "bench", "table": f"t{n}"},
                "schedule": {"frequency": "daily", "time": "03:00", "timezone": "UTC"},
            }
            made = (await self._service.ingestions.create_ingestion(document, User())).ingestion
            # The reconciler, which makes what a busy server refused, does not run here.
            prefect: Any = self._service.scheduler
            with prefect.patiently():
                deployment = Deployment(await prefect.create_deployment(made), prefect.fingerprint(made))
            self._service.store.set_deployment(made.id, deployment)
            self._made.append(made)

    async def trigger(self, ingestions: slice = slice(None)) -> list[str]:
        """Land a file for each, and trigger its run; the runs' ids."""
        ids = []
        for made in self._made[ingestions]:
            _land(Path(made.document["source"]["path"]))
            outcome = await self._service.ingestions.trigger_manual_run(made.id, User())
            ids.append(outcome.run.id)
            await asyncio.sleep(PAUSE_S)
        return ids

    async def until(self, runs: list[str], what: Callable[[RunRecord], bool]) -> list[RunRecord]:
        """The runs, when that holds of all of them."""
        deadline = time.monotonic() + LONGEST_S
        while time.monotonic() < deadline:
            found = [self._service.store.run(one) for one in runs]
            if all(one is not None and what(one) for one in found):
                return [one for one in found if one is not None]
            await asyncio.sleep(0.1)
        raise TimeoutError("The runs do not come to an end.")


def _land(folder: Path) -> None:
    line = json.dumps({"id": time.monotonic_ns(), "city": "Lyon"})
    (folder / f"{time.monotonic_ns()}.json").write_text(f"{line}\n" * 100)


def _is_loaded(run: RunRecord) -> bool:
    if run.is_over and run.status is not RunStatus.SUCCESS:
        raise RuntimeError(f"A run ended {run.status}: {run.errors}")
    return run.is_over


async def all_at_once(scene: Scene, start: Callable[[], Worker]) -> tuple[float, float]:
    """Seconds of CPU of a worker that carries a run of each ingestion out, and of time until all are over."""
    runs = await scene.trigger()
    begin = time.monotonic()
    worker = start()
    await scene.until(runs, _is_loaded)
    took = time.monotonic() - begin
    return await asyncio.to_thread(worker.ended_cpu_s), took


async def one_by_one(scene: Scene, times: int) -> float:
    """Seconds from trigger to running, the median."""
    took = []
    for _ in range(times):
        begin = datetime.now(UTC)
        (run,) = await scene.until(await scene.trigger(slice(1)), _is_loaded)
        took.append(((run.started_at or begin) - begin).total_seconds())
    return statistics.median(took)


async def idle_share(*pids: int) -> float:
    """Of a core, what these processes and all below take while nothing is to do."""
    before = sum(map(_cpu_s, pids))
    await asyncio.sleep(IDLE_S)
    return (sum(map(_cpu_s, pids)) - before) / IDLE_S


def _cpu_s(pid: int) -> float:
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


async def measured(home: Path, url: str, server_pid: int, runs: int) -> dict[str, float]:
    """All figures."""
    settings = {"AUTOLOADER_HOME": str(home), "AUTOLOADER_LOCAL_ROOTS": str(home), "AUTOLOADER_SETTLE_S": "0"}
    settings |= {"PREFECT_API_URL": url, "DATABASE_URL": f"sqlite:///{home}/a.db", "PREFECT_WORKER_QUERY_SECONDS": "1"}
    environ = {**os.environ, **settings}
    os.environ |= settings
    service = build_service(read_settings(), os.environ, configure_logging(verbose=False))
    prefect: Any = service.scheduler
    if not await prefect.initialize():
        raise RuntimeError(prefect.trouble)
    scene = Scene(home, service)
    await scene.make(runs)
    alone = await idle_share(server_pid)
    stock_cpu_s, stock_took_s = await all_at_once(scene, lambda: Worker(home, STOCK, environ))
    warm_cpu_s, warm_took_s = await all_at_once(scene, lambda: Worker(home, WARM, environ))
    worker = Worker(home, WARM, environ)
    # The first one waits until the worker is there.
    await one_by_one(scene, 1)
    warm_trigger_s = await one_by_one(scene, ONE_BY_ONE)
    with_worker = await idle_share(server_pid)
    worker_idle = await idle_share(worker.process.pid)
    worker.ended_cpu_s()
    worker = Worker(home, STOCK, environ)
    await one_by_one(scene, 1)
    stock_trigger_s = await one_by_one(scene, 3)
    worker.ended_cpu_s()
    await prefect.close()
    service.close()
    return {
        "cpu_s": warm_cpu_s,
        "stock_cpu_s": stock_cpu_s,
        "cpu_s_a_run": warm_cpu_s / runs,
        "stock_cpu_s_a_run": stock_cpu_s / runs,
        "took_s": warm_took_s,
        "stock_took_s": stock_took_s,
        "to_running_s": warm_trigger_s,
        "stock_to_running_s": stock_trigger_s,
        "idle_server": with_worker - alone,
        "idle_worker": worker_idle,
    }


def main() -> None:
    """Measure, and print."""
    home, runs = Path(sys.argv[1]), int(sys.argv[2])
    os.environ |= {
        "PREFECT_HOME": f"{home}/prefect-home",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    with server_process(home) as (url, pid):
        figures = asyncio.run(measured(home, url, pid, runs))
    print(json.dumps({**figures, "wall_s": figures["took_s"]}))


if __name__ == "__main__":
    main()
