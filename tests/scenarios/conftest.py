"""Every scenario plays in each world."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.seaweed import Seaweed
from tests.support.worlds import World, make_world


@pytest.fixture(params=["local-local", "s3-local", "local-rest", "s3-rest"])
def world(request: pytest.FixtureRequest, tmp_path: Path, seaweed: Seaweed) -> World:
    """A fresh landing place, home and table name."""
    return make_world(request.param, tmp_path, seaweed)
