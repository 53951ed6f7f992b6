"""Every route × nobody, viewer, operator, admin × the own tenant and a foreign one, on the service itself.

The routes are those that are served. One that is not in the table of roles, or of a kind that is not known here, fails.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.routing import Route as PlainRoute

from app.api.application import application
from app.api.roles import ROLES
from app.api.routes import Route
from app.domain.access import NewToken, Role, digest_of, new_token, new_token_id
from app.domain.ingestions import IngestionStatus, Method, Trigger
from app.domain.runs import RunReport, RunStatus
from app.domain.service import NewIngestion, NewRun, RetryPolicy
from app.persistence.service import SqlServiceStore
from tests.contract.api_rigs import DatabaseRig

DOCUMENT = {"name": "new", "source": {"path": "s3://b/p/"}, "destination": {"database": "d", "table": "new"}}
# A body of each operation that needs one.
BODIES: dict[str, Any] = {
    "create_ingestion": DOCUMENT,
    "update_ingestion": {"name": "changed"},
    "clear_processed_files": {"confirm": True},
    # Refused for what they say, after the role was looked at: nothing is looked for in the world.
    "preview_ingestion": {"source": {}},
    "estimate_cost": {"source": {}},
}
# Of what would not end by itself.
QUERIES = {"stream_events": "?timeout_s=0"}
# Asks for a token that is no user's; without Prefect there is none.
PREFECTS = "prefect_webhook"
OWN, FOREIGN = "acme", "beta"


def served() -> list[tuple[str, str, str]]:
    """Name, method and path of everything that is served."""
    return list(of_routes(application(nothing, "0").routes, ""))


def nothing() -> Any:
    raise AssertionError("Nothing is opened.")


def of_routes(routes: Sequence[Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from of_routes(inner.routes, prefix + route.include_context.prefix)
            continue
        # Ours hold roles by themselves; the two others are the document and its page, for whoever is let in.
        known = isinstance(route, Route) or (type(route) is PlainRoute and route.name in {"openapi", "docs"})
        assert known, f"Nobody knows who may call {route!r}."
        methods = (route.methods or set()) - {"HEAD"}
        assert methods, route
        for method in sorted(methods):
            yield route.name, method, prefix + route.path


@dataclass
class World:
    """Two tenants with everything that has an id."""

    client: httpx.Client
    store: SqlServiceStore
    tokens: dict[tuple[str, Role], str]
    numbers: Iterator[int]

    def ids(self, tenant: str) -> dict[str, str]:
        """Ids of a draft of that tenant's, which is at rest, and of a run of it."""
        number = next(self.numbers)
        document = {"source": {"type": "s3", "path": "s3://b/p/"}, "webhooks": [{"url": "https://nobody.invalid/"}]}
        ingestion_id, run_id = f"{tenant}-{number}", f"run-{number}"
        table = f"local.d.{tenant}_{number}"
        new = NewIngestion(ingestion_id, tenant, f"n{number}", IngestionStatus.DRAFT, table, document)
        self.store.add_ingestion(new)
        run = NewRun(run_id, ingestion_id, Trigger.MANUAL, Method.DIRECT)
        self.store.queue_run(run, active_only=False)
        self.store.end_run(RunReport(run_id, table, status=RunStatus.SUCCESS), None, RetryPolicy())
        (delivery,) = self.store.list_deliveries(ingestion_id, state=None, limit=1, before=None)
        return {"ingestion_id": ingestion_id, "run_id": run_id, "delivery_id": delivery.id}

    def ask(self, name: str, method: str, path: str, ids: dict[str, str], token: str | None) -> httpx.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self.client.request(
            method, path.format(**ids) + QUERIES.get(name, ""), json=BODIES.get(name), headers=headers
        )


@pytest.fixture
def world(database: DatabaseRig) -> Iterator[World]:
    database.clear()
    store = database.service.store
    tokens = {}
    for tenant, role in itertools.product((OWN, FOREIGN), Role):
        tokens[tenant, role] = token = new_token()
        store.add_token(NewToken(new_token_id(), f"{tenant} {role}", tenant, role), digest_of(token))
    yield World(database.client, store, tokens, itertools.count())
    database.clear()


def test_every_route_has_its_role_and_no_role_is_without_a_route() -> None:
    assert {name for name, _, _ in served()} == ROLES.keys()


@pytest.mark.parametrize(("name", "method", "path"), served())
def test_a_route_is_for_those_whose_role_is_enough_and_of_their_tenant(
    world: World, name: str, method: str, path: str
) -> None:
    needed = ROLES[name]
    # Nobody.
    answer = world.ask(name, method, path, world.ids(OWN), None)
    if name == PREFECTS:
        assert answer.json()["code"] == "scheduling_off"
        return
    assert answer.status_code == (200 if needed is None else 401), answer.text
    if needed is None:
        return
    for role in Role:
        own = world.ask(name, method, path, world.ids(OWN), world.tokens[OWN, role])
        if not role.includes(needed):
            assert (own.status_code, own.json()["code"], own.json()["required_role"]) == (403, "role_too_low", needed)
        else:
            assert own.status_code not in {401, 403, 500}, own.text
            # A direct run has no flow run.
            assert own.status_code != 404 or own.json()["code"] == "no_flow_run", own.text
        if "{" not in path:
            continue
        ids = world.ids(FOREIGN)
        foreign = world.ask(name, method, path, ids, world.tokens[OWN, role])
        nobodys = world.ask(name, method, path, dict.fromkeys(ids, "nobodys"), world.tokens[OWN, role])
        if not role.includes(needed):
            assert foreign.status_code == 403
        else:
            assert foreign.status_code == 404, foreign.text
            assert foreign.json()["code"] == "not_found"
        # What is another's looks like what is nobody's.
        said = foreign.text
        for one in ids.values():
            said = said.replace(one, "nobodys")
        assert said == nobodys.text
        kept = world.store.ingestion(ids["ingestion_id"])
        assert kept is not None
        assert kept.version == 1


def test_a_run_of_the_own_tenant_is_not_found_below_another_ingestion(world: World) -> None:
    mine, also_mine, theirs = world.ids(OWN), world.ids(OWN), world.ids(FOREIGN)
    token = world.tokens[OWN, Role.ADMIN]
    for name, method, path in served():
        if "{run_id}" in path:
            for run_id in (also_mine["run_id"], theirs["run_id"]):
                mixed = {**mine, "run_id": run_id}
                assert world.ask(name, method, path, mixed, token).status_code == 404


def test_lists_are_the_tenants_own(world: World) -> None:
    mine, theirs = world.ids(OWN), world.ids(FOREIGN)
    for tenant, shown, hidden in ((OWN, mine, theirs), (FOREIGN, theirs, mine)):
        headers = {"Authorization": f"Bearer {world.tokens[tenant, Role.VIEWER]}"}
        answer = world.client.get("/api/v1/ingestions", headers=headers).text
        assert shown["ingestion_id"] in answer
        assert hidden["ingestion_id"] not in answer


def test_events_and_series_are_the_tenants_own(world: World) -> None:
    mine, theirs = world.ids(OWN), world.ids(FOREIGN)
    # Of what is at rest no freshness is told.
    with world.store._engine.begin() as connection:
        connection.exec_driver_sql("update ingestions set status = 'active'")
    for tenant, shown, hidden in ((OWN, mine, theirs), (FOREIGN, theirs, mine)):
        headers = {"Authorization": f"Bearer {world.tokens[tenant, Role.VIEWER]}"}
        for address in ("/api/v1/events?after=0&timeout_s=0", "/metrics"):
            answer = world.client.get(address, headers=headers).text
            assert shown["ingestion_id"] in answer, address
            assert hidden["ingestion_id"] not in answer, address
        for name in ("ingestion_id", "run_id"):
            refused = world.client.get(f"/api/v1/events?timeout_s=0&{name}={hidden[name]}", headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (404, "not_found")


def created(world: World, tenant: str, **changes: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {world.tokens[tenant, Role.OPERATOR]}", "Idempotency-Key": "the-same"}
    return world.client.post("/api/v1/ingestions", json={**DOCUMENT, **changes}, headers=headers)


def test_what_is_made_is_the_tenants_its_names_and_keys_too(world: World) -> None:
    mine = created(world, OWN)
    theirs = created(world, FOREIGN, destination={"database": "d", "table": "theirs"})
    assert (mine.status_code, theirs.status_code) == (201, 201)
    assert mine.json()["id"] != theirs.json()["id"]
    assert "idempotency-replayed" not in theirs.headers
    for first, again in (
        (mine, created(world, OWN)),
        (theirs, created(world, FOREIGN, destination={"database": "d", "table": "theirs"})),
    ):
        assert (again.headers["idempotency-replayed"], again.json()) == ("true", first.json())


def test_a_table_of_another_tenant_can_neither_be_written_nor_seen(world: World) -> None:
    mine = created(world, OWN)
    assert mine.status_code == 201
    answer = created(world, FOREIGN)
    assert (answer.status_code, answer.json()["code"]) == (409, "table_taken")
    assert OWN not in answer.text
    other = created(world, FOREIGN, destination={"database": "d", "table": "theirs"}).json()
    headers = {"Authorization": f"Bearer {world.tokens[FOREIGN, Role.OPERATOR]}"}
    moved = world.client.put(
        f"/api/v1/ingestions/{other['id']}", json={"destination": {"table": "new"}}, headers=headers
    )
    assert (moved.status_code, moved.json()["code"]) == (409, "table_taken")
