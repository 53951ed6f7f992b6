"""The API on services in memory, served over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.api_in_memory import Api, served_in_memory


@pytest.fixture(scope="package")
def served() -> Iterator[Api]:
    """One server for all tests of the package."""
    with served_in_memory() as api:
        yield api


@pytest.fixture
def api(served: Api) -> Api:
    """The API with nothing in it, and in good health."""
    served.forget()
    return served
