"""What the contract suites run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.api_rigs import DatabaseRig, MemoryRig, Rig, database_rig, memory_rig
from tests.support.postgres import Postgres


@pytest.fixture(scope="module")
def memory() -> Iterator[MemoryRig]:
    with memory_rig() as rig:
        yield rig


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseRig]:
    with database_rig(tmp_path_factory.mktemp("service")) as rig:
        yield rig


@pytest.fixture(scope="module")
def on_postgres(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, migrated: str) -> Iterator[DatabaseRig]:
    folder, url = tmp_path_factory.mktemp("service"), postgres.copy_database(migrated)
    with database_rig(folder, database_url=url, secret_key="of the tests") as rig:
        yield rig


@pytest.fixture(params=["memory", "database", "on_postgres"])
def api(request: pytest.FixtureRequest) -> Rig:
    """The API with nothing in it."""
    rig: MemoryRig | DatabaseRig = request.getfixturevalue(request.param)
    rig.clear()
    return rig
