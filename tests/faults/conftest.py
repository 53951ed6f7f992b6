"""Real servers behind proxies that misbehave as told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.engines.embedded.engine import EmbeddedEngine
from app.persistence.ledger import open_ledger
from tests.support.fault_proxy import Proxy, proxy_before
from tests.support.fault_worlds import FaultWorld, make_fault_world
from tests.support.seaweed import Seaweed


@pytest.fixture(scope="session")
def rest_proxy(seaweed: Seaweed) -> Iterator[Proxy]:
    """A proxy before the REST catalog."""
    with proxy_before(seaweed.rest_port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def s3_proxy(seaweed: Seaweed) -> Iterator[Proxy]:
    """A proxy before the object store."""
    with proxy_before(seaweed.s3_port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def engine() -> Iterator[EmbeddedEngine]:
    """One engine for all tests: starting its children takes longer than a load."""
    engine = EmbeddedEngine(processes=1)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty ledger, to be copied."""
    path = tmp_path_factory.mktemp("ledger") / "autoloader.db"
    open_ledger(f"sqlite:///{path}").dispose()
    return path


@pytest.fixture
def world(  # noqa: PLR0917 - each is needed once
    seaweed: Seaweed,
    rest_proxy: Proxy,
    s3_proxy: Proxy,
    engine: EmbeddedEngine,
    tmp_path: Path,
    migrated_file: Path,
) -> FaultWorld:
    """A fresh landing folder, ledger and table name; the proxies let everything through."""
    return make_fault_world(seaweed, rest_proxy, s3_proxy, engine, tmp_path, migrated_file)
