"""The application: routes, what stands before them, and how errors leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from app.api import docs_page
from app.api.body_limit import BodyLimit
from app.api.codes import MEANINGS
from app.api.connections import Application
from app.api.doors import Doors
from app.api.head import HeadAsGet
from app.api.last_resort import LastResort
from app.api.methods import Methods
from app.api.openapi import DESCRIPTION, TITLE, openapi_document
from app.api.problems import add_problem_handlers
from app.api.request_ids import RequestIds
from app.api.services import Services
from app.api.start import PlainStart
from app.api.v1 import deliveries, events, files, health, ingestions, metrics, migrations, previews, runs, webhooks

OpenServices = Callable[[], AbstractAsyncContextManager[Services]]
PREFIX = "/api/v1"
# So many calls wait for the database at once before the next one waits for a thread. Writers wait for each other, and a
# reader must not wait for them.
THREADS = 64


def application(open_services: OpenServices, version: str) -> FastAPI:
    """The application; its services are opened when it starts and closed when it ends.

    Args:
        open_services: Builds them, and lets them go.
        version: Of the program.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="service")
        asyncio.get_running_loop().set_default_executor(threads)
        async with open_services() as services:
            app.state.services = services
            yield

    app = Application(
        title=TITLE,
        version=version,
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_name,
    )
    for module in (previews, ingestions, runs, files, deliveries, events, webhooks, migrations):
        app.include_router(module.router, prefix=PREFIX)
    for module in (health, metrics):
        app.include_router(module.router)
        app.include_router(module.router, prefix=PREFIX, include_in_schema=False)
    _add_documents(app, version)
    add_problem_handlers(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(HeadAsGet)
    app.add_middleware(Doors)
    app.add_middleware(LastResort)
    app.add_middleware(RequestIds)
    app.add_middleware(PlainStart)
    return app


def _name(route: APIRoute) -> str:
    return route.name


def _add_documents(app: FastAPI, version: str) -> None:
    document = openapi_document(app.routes, version)
    paths = document["paths"]
    also = {f"{PREFIX}{path}": methods for path, methods in paths.items() if path.startswith(("/health", "/metrics"))}
    app.state.methods = Methods({**paths, **also})

    async def openapi(_request: Request) -> Response:
        return JSONResponse(document)

    async def docs(_request: Request) -> Response:
        headers = {"Content-Security-Policy": docs_page.CONTENT_SECURITY_POLICY}
        return HTMLResponse(docs_page.render(document, MEANINGS), headers=headers)

    app.openapi = lambda: document  # type: ignore[method-assign]
    app.add_route("/openapi.json", openapi, include_in_schema=False)
    app.add_route("/docs", docs, include_in_schema=False)
