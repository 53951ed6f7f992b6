"""The API over real HTTP: a server in a thread of its own, on a free port."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.types import ASGIApp

TIMEOUT_S = 180
START_S = 120


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The base address of `app`, while it is served."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=5, timeout_keep_alive=600
        )
        server = uvicorn.Server(config)
        started = threading.Event()
        failure: list[BaseException] = []

        async def serve() -> None:
            task = asyncio.create_task(server.serve([listener]))
            while not server.started and not task.done():  # noqa: ASYNC110 - it tells nobody else
                await asyncio.sleep(0.005)
            started.set()
            await task

        def run() -> None:
            try:
                asyncio.run(serve())
            except BaseException as error:  # noqa: BLE001 - the thread's outermost frame
                failure.append(error)
            finally:
                started.set()

        thread = threading.Thread(target=run, name="api-server", daemon=True)
        thread.start()
        try:
            assert started.wait(START_S)
            assert server.started, failure
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(START_S)
            assert not thread.is_alive()


@contextmanager
def client_of(base: str) -> Iterator[httpx.Client]:
    """A client of a server, which takes no proxy from the environment."""
    with httpx.Client(base_url=base, timeout=TIMEOUT_S, trust_env=False) as client:
        yield client
