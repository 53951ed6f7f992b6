from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.persistence.ledger import SqlLedger
from tests.unit.persistence.desk import Desk, open_desk


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def desk(url: str) -> Iterator[Desk]:
    desk = open_desk(url)
    yield desk
    desk.ledger.dispose()


@pytest.fixture
def ledger(desk: Desk) -> SqlLedger:
    return desk.ledger
