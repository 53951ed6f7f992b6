"""What is imported before runs are forked: everything that one would else import itself, seconds of work each time."""

from __future__ import annotations

from importlib import import_module

# A run imports these late, in the function that needs them; what they import comes with them.
MODULES = (
    "app.prefect.worker.child",
    "app.persistence.leases",
    "app.persistence.service",
    "app.services.execution",
    "app.services.loading",
    "app.services.resting",
    "app.destinations.catalog",
    "app.destinations.configured",
    "app.destinations.durable",
    "app.destinations.rest",
    "app.destinations.sql",
    "app.engines.embedded.engine",
    "app.sources.azure",
    "app.sources.factory",
    "app.sources.gcs",
    "app.sources.local",
    "app.sources.object_store",
    "app.sources.s3",
    "app.sources.settling",
    "app.sources.sorting",
    # Libraries import these late themselves.
    "anyio._backends._asyncio",
    "pyiceberg.catalog.rest",
    "pyiceberg.catalog.sql",
    "pyiceberg.io.pyarrow",
    "sqlalchemy.dialects.sqlite",
    "sqlalchemy.orm",
    "structlog",
)

# What the worker needs beside it. It is imported before the fork server is forked too, for what one of two processes
# imports alone is in memory beside what both have.
WORKER_MODULES = ("app.prefect.worker.warm", "app.wiring.scheduling", "prefect.client.orchestration")


def preload() -> None:
    """Import all of it."""
    for name in (*MODULES, *WORKER_MODULES):
        import_module(name)
