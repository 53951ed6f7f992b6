from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.persistence.ledger import SqlLedger
from tests.support.postgres import Postgres
from tests.unit.persistence.desk import Desk, open_desk


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def postgres_url(postgres: Postgres, migrated: str) -> str:
    """A ledger without a table in it."""
    return postgres.copy_database(migrated)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def desk(url: str) -> Iterator[Desk]:
    desk = open_desk(url)
    yield desk
    desk.ledger.dispose()


@pytest.fixture
def ledger(desk: Desk) -> SqlLedger:
    return desk.ledger
