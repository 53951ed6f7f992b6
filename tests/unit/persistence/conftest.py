from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.persistence.ledger import SqlLedger
from app.persistence.service import SqlServiceStore
from tests.unit.persistence.desk import Desk, open_desk
from tests.unit.persistence.service_desk import ServiceDesk


@pytest.fixture
def desk(url: str) -> Iterator[Desk]:
    desk = open_desk(url)
    yield desk
    desk.ledger.dispose()


@pytest.fixture
def ledger(desk: Desk) -> SqlLedger:
    return desk.ledger


@pytest.fixture
def service(url: str, tmp_path: Path) -> ServiceDesk:
    return ServiceDesk(url, tmp_path)


@pytest.fixture
def store(service: ServiceDesk) -> Iterator[SqlServiceStore]:
    store = service.open()
    yield store
    store.dispose()
