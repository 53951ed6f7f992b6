"""What tests of faults work on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.engines.embedded.engine import EmbeddedEngine
from tests.support.worksite import Worksite


@pytest.fixture(scope="module")
def engine() -> Iterator[EmbeddedEngine]:
    """Children that stay for all tests of a module."""
    made = EmbeddedEngine(processes=1)
    yield made
    made.close()


MakeSite = Callable[[Path], Worksite]


@pytest.fixture
def make_site(engine: EmbeddedEngine) -> MakeSite:
    """Makes, below a folder, a table with one file in it, by children that know nothing of the fault to come."""

    def make(folder: Path) -> Worksite:
        made = Worksite(folder / "landing", folder / "home", engine)
        made.land(0)
        made.load()
        return made

    return make


@pytest.fixture
def site(tmp_path: Path, make_site: MakeSite) -> Worksite:
    """One of them."""
    return make_site(tmp_path)
