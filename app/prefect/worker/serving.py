"""A worker's process, from its start to its end."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from app.config import Settings, read_settings
from app.domain.addresses import without_password
from app.domain.errors import AutoloaderError, SchedulerUnavailableError, UsageError
from app.domain.events import EventLog
from app.domain.redaction import Redactor, secrets_of
from app.prefect.worker import names
from app.prefect.worker.admission import Queues
from app.prefect.worker.forks import ENVIRONMENT, ForkServer
from app.prefect.worker.forkserver import Forked, fork_one, prepare, thread_count
from app.services.prefect_worker import worker_name
from app.telemetry import configure_logging
from app.wiring.environment import worker_environ
from app.wiring.scheduling import WorkerParts, open_worker

if TYPE_CHECKING:
    from app.prefect.worker.warm import WarmWorker

log = EventLog(__name__)

FAILED, USAGE = 1, 2
SIGNAL_BASE = 128
LOOK_EVERY_S = 1.0
WAIT_S = 2.0
TEARDOWN_S = 5.0
# A worker whose parent is gone and that does not come to an end by itself is ended, with all that it started.
LAST_S = 20.0
STOPPED = (signal.SIGTERM, signal.SIGINT)


def main() -> None:
    """Serve until told to stop, and exit with the status that says how it went."""
    options = _options(sys.argv[1:])
    try:
        settings = _settings()
    except AutoloaderError as error:
        configure_logging(verbose=True)
        _fail(error, options)
    early = _noted_signals()
    prepare()
    # While this process has one thread, and logs nothing: a run sees to its own log. What happens in the new process is
    # none of this one's errors.
    first = fork_one()
    names.show_as(names.WORKER)
    # Prefect's library has set its own logging up when it was imported, which knows of no secrets.
    redactor = configure_logging(verbose=True, alone=True)
    redactor.learn(secrets_of(os.environ))
    if first is None:
        log.warning("fork_server_not_forked", threads=thread_count())
    _stop_at_signals(early)
    try:
        status = _served(options, settings, redactor, first)
    except AutoloaderError as error:
        _fail(error, options)
    sys.stdout.flush()
    sys.exit(status)


def _fail(error: AutoloaderError, options: argparse.Namespace) -> NoReturn:
    """Say what failed, and exit."""
    _tell_error(error, as_json=options.output == "json", is_child=options.parent is not None)
    sys.stdout.flush()
    sys.exit(USAGE if isinstance(error, UsageError) else FAILED)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="autoloader worker")
    parser.add_argument("--queue", action="append", default=[])
    parser.add_argument("--limit", type=int)
    parser.add_argument("--grace", type=float)
    parser.add_argument("--parent", type=int)
    # Of whoever is not going to kill it some seconds after its grace.
    parser.add_argument("--patience", type=float)
    parser.add_argument("--output", default="text")
    return parser.parse_args(arguments)


def _settings() -> Settings:
    """The settings; the environment is what the processes below are given."""
    settings = read_settings()
    if settings.prefect_api_url is None:
        raise UsageError(
            "PREFECT_API_URL is not set, so there is no Prefect server whose runs could be carried out.",
            remedy="Set it to the address of the server's API, such as http://localhost:4200/api.",
        )
    # Prefect's library and Arrow's read their own part of it when they are imported.
    os.environ.update({**worker_environ(settings, os.environ), **ENVIRONMENT})
    return settings


def _noted_signals() -> list[int]:
    """Signals to stop that come while all is imported: a library must not be left half of it."""
    noted: list[int] = []
    for number in STOPPED:
        # Also where a shell started it with these ignored.
        signal.signal(number, lambda number, _frame: noted.append(number))
    return noted


def _stop_at_signals(early: Sequence[int]) -> None:
    """Exit where a signal to stop has come, and with the next one, until there is a loop that hears them."""

    def leave(number: int, _frame: object = None) -> NoReturn:
        sys.exit(SIGNAL_BASE + number)

    for number in STOPPED:
        signal.signal(number, leave)
    if early:
        leave(early[0])


def _served(options: argparse.Namespace, settings: Settings, redactor: Redactor, first: Forked | None) -> int:
    if options.parent is not None:
        threading.Thread(target=_end_with, args=(options.parent,), name="parent-watch", daemon=True).start()
    with open_worker(settings, os.environ, redactor) as parts:
        return asyncio.run(_Serving(settings, parts, options, first).until_stopped())


class _Serving:
    """One worker at work."""

    def __init__(
        self, settings: Settings, parts: WorkerParts, options: argparse.Namespace, first: Forked | None
    ) -> None:
        self._settings = settings
        self._first = first
        self._parts = parts
        self._queues = tuple(dict.fromkeys(options.queue))
        self._limit = options.limit or settings.autoloader_worker_limit or max(2, os.cpu_count() or 2)
        self._grace_s = settings.autoloader_worker_grace_s if options.grace is None else options.grace
        self._patience_s: float | None = options.patience
        self._as_json = options.output == "json"
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._signal = 0

    async def until_stopped(self) -> int:
        """Wait for Prefect, serve, drain; the exit status.

        Raises:
            AutoloaderError: It cannot serve, or not any more.
        """
        loop = asyncio.get_running_loop()
        for number in STOPPED:
            loop.add_signal_handler(number, self._on_signal, number)
        self._say_what()
        if not await self._prefect_came():
            return self._ended(0, 0)
        await self._check_queues()
        return await self._serve()

    async def _serve(self) -> int:
        # Prefect's library takes a second, and reads its settings when it is imported.
        from app.prefect.worker.warm import (  # noqa: PLC0415
            HAND_OVER_S,
            LAST_WORDS_S,
            WarmWorker,
            WorkerSettings,
        )

        prefect = self._parts.prefect.settings
        forks = ForkServer(os.environ, self._first)
        settings = WorkerSettings(
            pool=prefect.pool,
            queues=self._queues,
            name=worker_name(),
            limit=self._limit,
            special=Queues(prefect.high_memory_queue, prefect.priority_queue),
            memory_limit_gb=self._settings.autoloader_run_memory_gb,
            hand_over_s=HAND_OVER_S if self._patience_s is None else self._patience_s,
            last_words_s=LAST_WORDS_S if self._patience_s is None else self._patience_s,
        )
        worker = WarmWorker(settings, forks, self._parts.runs)
        forking = asyncio.create_task(forks.run(), name="forks")
        serving = asyncio.create_task(worker.start(printer=_say_nothing), name="worker")
        watching = asyncio.create_task(worker.watch(), name="watch")
        asked = asyncio.create_task(self._stop.wait(), name="stop")
        tasks: tuple[asyncio.Task[Any], ...] = (asked, watching, serving, forking)
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await self._drain(worker)
        for task in tasks:
            # In this order: what is said to Prefect is said before the connection closes.
            task.cancel()
            await asyncio.wait({task}, timeout=TEARDOWN_S)
        for task in done - {asked}:
            _raise_of(task)
        return self._ended(worker.begun, worker.handed_over)

    async def _drain(self, worker: WarmWorker) -> None:
        at_work = len(worker.at_work)
        if at_work:
            self._say(
                "worker_drains",
                f"Stopping: {at_work} at work, up to {self._grace_s:g} s for them; once more stops at once.",
                at_work=at_work,
                grace_s=self._grace_s,
            )
        await worker.drain(self._grace_s, self._hurry)

    def _on_signal(self, number: int) -> None:
        if self._stop.is_set():
            self._hurry.set()
            self._signal = number
        self._stop.set()

    # --- Prefect ----------------------------------------------------------------------------------------------------

    async def _prefect_came(self) -> bool:
        """Wait until Prefect is there; False where we were told to stop before."""
        prefect = self._parts.prefect
        told = ""
        while not self._stop.is_set() and not await prefect.initialize():
            if prefect.trouble != told:
                told = prefect.trouble
                self._say("worker_waits_for_prefect", f"Waiting for Prefect: {told}", reason=told)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), WAIT_S)
        if self._stop.is_set():
            return False
        self._say("worker_connected", f"Prefect is there; the pool has the type {prefect.pool_type}.")
        return True

    async def _check_queues(self) -> None:
        from prefect.client.orchestration import get_client  # noqa: PLC0415

        if not self._queues:
            return
        pool = self._parts.prefect.settings.pool
        async with get_client() as client:
            known = sorted(one.name for one in await client.read_work_queues(work_pool_name=pool))
        unknown = [name for name in self._queues if name not in known]
        if unknown:
            raise UsageError(
                f"The pool {pool} has no queue {unknown[0]!r}.", remedy=f"Its queues are {', '.join(known)}."
            )

    # --- what is said -----------------------------------------------------------------------------------------------

    def _say_what(self) -> None:
        prefect = self._parts.prefect.settings
        queues = ", ".join(self._queues) or "all queues"
        runs = "1 run" if self._limit == 1 else f"{self._limit} runs"
        limit = self._settings.autoloader_run_memory_gb
        memory = "" if limit is None else f", {limit:g} GB of memory each"
        address = without_password(prefect.api_url)
        self._say(
            "worker_serves",
            f"Serving {prefect.pool} ({queues}), {runs} at once{memory}.\n"
            f"Database: {self._parts.database}\nPrefect:  {address}",
            pool=prefect.pool,
            queues=list(self._queues) or "all",
            limit=self._limit,
            memory_gb=limit,
            database=self._parts.database,
            prefect=address,
        )

    def _say(self, event: str, line: str, **fields: Any) -> None:  # noqa: ANN401 - whatever goes into a log
        if sys.stderr.isatty():
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
        else:
            log.info(event, **fields)

    def _ended(self, begun: int, handed_over: int) -> int:
        told = f"Stopped. Runs begun: {begun}, handed over: {handed_over}."
        self._say("worker_stopped", told, begun=begun, handed_over=handed_over)
        if self._as_json:
            _print_json({"status": "stopped", "runs": {"begun": begun, "handed_over": handed_over}})
        return SIGNAL_BASE + self._signal if self._signal else 0


def _raise_of(task: asyncio.Task[Any]) -> None:
    """Say what ended a task that was to go on."""
    error = task.exception()
    if error is None or isinstance(error, AutoloaderError):
        raise error or SchedulerUnavailableError("The worker came to its end by itself.")
    # The base class gives up on what Prefect refuses.
    raise SchedulerUnavailableError(f"Prefect refused the worker ({type(error).__name__}: {error}).") from error


def _say_nothing(*_texts: object) -> None:
    """What the base class prints is told as events."""


def _print_json(document: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")


def _tell_error(error: AutoloaderError, *, as_json: bool, is_child: bool) -> None:
    if as_json:
        _print_json({"status": "failed", "code": error.code, "detail": error.message, "remedy": error.advice or None})
    elif is_child:
        log.error("worker_failed", code=error.code, reason=str(error))
    else:
        sys.stderr.write(f"Error ({error.code}): {error.message}\n  {error.advice}\n")


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_S)
    os.killpg(os.getpgid(0), signal.SIGKILL)
