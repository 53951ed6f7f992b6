"""The page of faults says what the tests of faults see."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.destinations.catalog import TIMEOUT_S
from app.destinations.rest import CONNECT_TIMEOUT_S
from app.persistence import postgres
from app.sources.access import PATIENCE_S, client_options, retry_config
from tests.docs.pages import read, rows, section
from tests.support.fault_pages import sections
from tests.support.postgres import CONNECT_TIMEOUT_S as LEDGER_CONNECT_TIMEOUT_S

PAGE = "reference/faults.md"


@pytest.mark.parametrize("heading", sections())
def test_the_tables_are_those_of_the_tests(heading: str) -> None:
    shown = [line for line in section(read(PAGE), heading).splitlines() if line.startswith("|")]
    assert shown == sections()[heading]


def test_the_times_are_those_of_the_program() -> None:
    described = rows(section(read(PAGE), "## How long a server is waited for"))
    connect = client_options(PATIENCE_S, allow_http=False)["connect_timeout"]
    assert isinstance(connect, timedelta)
    assert described["REST catalog"] == [f"{CONNECT_TIMEOUT_S:.0f} s", f"{TIMEOUT_S:.0f} s", "1; a commit is looked up"]
    assert described["store as the source"] == [
        f"{connect.total_seconds():.0f} s",
        f"{PATIENCE_S} s",
        f"{retry_config(PATIENCE_S)['max_retries'] + 1}",
    ]
    assert described["PostgreSQL"][:2] == [f"{LEDGER_CONNECT_TIMEOUT_S} s", f"{postgres.STATEMENT_TIMEOUT_S} s"]
