"""The service's process: `uvicorn app.main:app`."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Any

from fastapi import FastAPI

from app.api.application import application
from app.api.services import Services
from app.config import read_settings
from app.services.access import AccessControl
from app.services.health import HealthBoard, Part, beat_database, watch_database
from app.services.prefect_beat import WithoutPrefect
from app.services.previews import PreviewService
from app.services.pruning import prune_forever
from app.supervision.marked import VARIABLE
from app.telemetry import configure_logging, redact_handlers, say_at_start
from app.wiring.service import Service, build_orchestration, build_service

STARTING = "Starting IOMETE Autoloader"
DATABASE = "Database initialized"
CONNECTED = "Prefect service initialized and connected"
NOT_CONNECTED = ("Failed to connect to Prefect server", "Prefect features will be unavailable")
# So long the start waits to hear whether Prefect is there: who asks right away then finds it. It waits no longer.
FIRST_NEWS_S = 5.0


def create_app() -> FastAPI:
    """The application. Settings and database are those of the environment in which it is started."""
    return application(_open, _version())


@asynccontextmanager
async def _open() -> AsyncIterator[Services]:
    """Open the database, say so, and run what stands beside the API until the end.

    Raises:
        AutoloaderError: The settings or the database cannot be used.
    """
    redactor = configure_logging(verbose=True)
    redact_handlers(redactor, "uvicorn", "uvicorn.error", "uvicorn.access")
    say_at_start(STARTING)
    service = await asyncio.to_thread(build_service, read_settings(), os.environ, redactor)
    say_at_start(DATABASE)
    async with serving(service, os.environ) as services:
        with told_of_the_end(service.events.end):
            yield services


@asynccontextmanager
async def serving(service: Service, environ: Mapping[str, str]) -> AsyncIterator[Services]:
    """What the API calls, with everything beside it at work; ended and closed, `service` too, when the block ends."""
    async with AsyncExitStack() as stack:
        stack.callback(service.close)
        yield await _begin(service, environ, stack)


async def _begin(service: Service, environ: Mapping[str, str], stack: AsyncExitStack) -> Services:
    """Begin everything that runs beside the API; `stack` ends it, the last one first."""
    access = AccessControl(service.store)
    stack.push_async_callback(access.close)
    stack.push_async_callback(service.events.close)
    pruning = asyncio.create_task(prune_forever(service.store), name="pruning")
    stack.push_async_callback(_ended, pruning)
    board = HealthBoard()
    await beat_database(service.store.ping, board)
    watching = asyncio.create_task(watch_database(service.store.ping, board), name="database")
    stack.push_async_callback(_ended, watching)
    await service.runner.start()
    stack.push_async_callback(service.runner.close)
    await service.webhook_sender.start()
    stack.push_async_callback(service.webhook_sender.close)
    settings = service.settings
    previews = PreviewService(service.product, default_catalog=settings.autoloader_default_catalog, home=settings.home)
    stack.callback(previews.close)
    # Below `autoloader up` Prefect comes up beside the API, and the head of both tells how far it is.
    is_alone = VARIABLE not in environ
    news = _PrefectNews(board, service.clean, says_absence=is_alone)
    orchestration = build_orchestration(service, environ, news)
    if orchestration is None:
        without = asyncio.create_task(
            WithoutPrefect(service.store, service.retry, tell=news).run(), name="without-prefect"
        )
        stack.push_async_callback(_ended, without)
    else:
        await stack.enter_async_context(orchestration.running())
    if is_alone:
        with suppress(TimeoutError):
            await asyncio.wait_for(news.came.wait(), FIRST_NEWS_S)
    return Services(
        ingestions=service.ingestions,
        previews=previews,
        answers=service.store,
        health=board,
        access=access,
        events=service.events,
        metrics=service.metrics(),
        migrations=None if orchestration is None else orchestration.migration,
        flow_runs=None if orchestration is None else orchestration.prefect,
        hints=None if orchestration is None else orchestration.hints,
        webhooks=service.webhooks,
    )


@contextmanager
def told_of_the_end(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` in the event loop when the process is told to end, until the block ends.

    The server waits for answers that are on their way before it lets go of what is behind them; one that goes on for
    ever has to hear of it before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(tell)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    # Where nobody handles a signal it ends the process, which needs no help.
    ours = [number for number, handler in before.items() if callable(handler)]
    for number in ours:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number in ours:
            if signal.getsignal(number) is on_signal:
                signal.signal(number, before[number])


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class _PrefectNews:
    """Puts each beat of Prefect's on the board, and says it when it comes, or is not there at the start."""

    def __init__(self, board: HealthBoard, clean: Callable[[str], str], *, says_absence: bool) -> None:
        self._board = board
        self._clean = clean
        self._says_absence = says_absence
        self._was_up: bool | None = None
        self.came = asyncio.Event()

    def __call__(self, up: bool, detail: str, facts: Mapping[str, Any]) -> None:  # noqa: FBT001 - the beat's form
        # It may quote what a server answered.
        detail = self._clean(detail)
        self._board.prefect(Part(up=up, detail=detail, facts=facts))
        if up and not self._was_up:
            say_at_start(CONNECTED)
        elif self._was_up is None and self._says_absence:
            for line in (*NOT_CONNECTED, detail):
                say_at_start(line)
        self._was_up = up
        self.came.set()


def _version() -> str:
    try:
        return version("iceberg-autoloader")
    except PackageNotFoundError:
        # Run from its sources.
        return "0.0.0"


app = create_app()
