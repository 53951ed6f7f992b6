"""The page of the API has what the API has, and the walk through it works."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.api.codes import MEANINGS
from app.api.event_stream import STUCK_S
from app.api.openapi import openapi_document, operations
from app.api.problems import CODES_OF_HTTP
from app.api.roles import ROLES
from app.api.v1 import deliveries, events, files, health, ingestions, metrics, migrations, previews, runs, webhooks
from app.domain.access import Role
from app.domain.live import EventKind
from app.persistence.live import FIRST_LINES, LAST_LINES, LINE_LENGTH
from app.services.event_feed import BEAT_S, KEPT, MOST_READERS
from app.services.pruning import EVENTS_AGE_S, EVENTS_KEPT, LOGS_AGE_S
from tests.contract.api_rigs import database_rig
from tests.docs.pages import blocks, codes, read, rows, section
from tests.docs.test_examples import missing_lines, run_blocks

PAGE = "reference/api.md"
WALK = "how-to/run-the-service.md"


@pytest.fixture(scope="module")
def calls() -> dict[str, str]:
    """Every call that the service describes, and its operation."""
    app = FastAPI(generate_unique_id_function=lambda route: route.name)
    for module in (previews, ingestions, runs, files, deliveries, events, webhooks, migrations):
        app.include_router(module.router, prefix="/api/v1")
    app.include_router(health.router)
    app.include_router(metrics.router)
    return {name: one["operationId"] for name, one in operations(openapi_document(app.routes, "0"))}


def test_every_call_is_documented_and_none_that_does_not_exist(calls: dict[str, str]) -> None:
    assert set(rows(section(read(PAGE), "## Calls"))) - {"call", "---"} == calls.keys()


@pytest.mark.parametrize("code", sorted(MEANINGS.keys() - {"internal"}))
def test_every_code_is_explained_somewhere(code: str) -> None:
    assert f"`{code}`" in read(PAGE) or f"`{code}`" in read("reference/errors.md")


def test_the_codes_of_the_edge_are_those_of_the_program() -> None:
    shown = rows(section(read(PAGE), "## What holds for every call"))
    documented = {name for name in shown if name.isidentifier() and name not in {"code", "status", "role", *Role}}
    assert documented == (CODES_OF_HTTP.keys() - {"internal"}) | {
        "not_ready",
        "scheduling_off",
        "webhook_token_invalid",
    }


def test_the_roles_are_as_the_page_says(calls: dict[str, str]) -> None:
    described = rows(section(read(PAGE), "### Who may ask"))
    assert [role for role in described if role in set(Role)] == list(Role)
    admins = set(codes(described["admin"][0]))
    for call, name in calls.items():
        if ROLES[name] is not None:
            plain = Role.VIEWER if call.startswith("GET ") else Role.OPERATOR
            assert ROLES[name] is (Role.ADMIN if call in admins else plain), call
    assert admins <= calls.keys()


def test_what_is_different_for_clients_of_the_old_answer_is_told() -> None:
    assert '`{"run_id": …, "status": "accepted"}`' in section(read(PAGE), "## Run an ingestion")


def test_the_walk_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(read(WALK))
    steps = [(step, after) for step, after in pairwise([*found, None]) if step is not None and step.mark == "service"]
    assert len(steps) > 3
    folder = tmp_path / "walk"
    folder.mkdir()
    with database_rig(tmp_path / "home") as rig:
        monkeypatch.setenv("API", str(rig.client.base_url).rstrip("/"))
        monkeypatch.setenv("NO_PROXY", "*")
        printed = run_blocks([step.text for step, _ in steps], folder)
    for (_, after), output in zip(steps, printed, strict=False):
        if after is not None and after.mark == "prints":
            assert missing_lines(after.text, output) == [], output
    assert re.search(r'"row_estimate":9\b', printed[-2] if "row_estimate" in printed[-2] else printed[-1])


def test_every_event_is_documented_and_none_that_does_not_exist() -> None:
    told = section(read(PAGE), "## Events")
    described = {name for line in told.splitlines() if line.startswith("| `") for name in codes(line.split("|")[1])}
    assert described == {kind.value for kind in EventKind} | {"reset"}
    for number in (EVENTS_KEPT, KEPT, MOST_READERS):
        assert f"{number:,}" in told
    for seconds in (EVENTS_AGE_S / 86_400, BEAT_S, STUCK_S):
        assert f"{seconds:g} " in told
    log = section(read(PAGE), "### The log of a run")
    for number in (FIRST_LINES, LAST_LINES, LINE_LENGTH, int(LOGS_AGE_S / 86_400)):
        assert f"{number:,}" in log
