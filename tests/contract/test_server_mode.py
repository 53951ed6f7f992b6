"""With tokens, what a source may be is held when it is named, by previews, and by the processes that load."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.config import Settings
from app.domain.access import NewToken, Role, digest_of, new_token, new_token_id
from app.wiring.product import build
from tests.contract.api_rigs import DatabaseRig, database_rig
from tests.support.answers import answering, s3_listing

PATH = "/api/v1/ingestions"
KEY = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "not-a-real-secret"}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseRig]:
    """A service whose local sources may lie in its landing folder alone."""
    folder = tmp_path_factory.mktemp("service")
    with database_rig(folder, autoloader_local_roots="landing", prefect_max_task_retries=0) as rig:
        yield rig


@pytest.fixture
def service(rig: DatabaseRig) -> DatabaseRig:
    rig.clear()
    rig.land("a.json", {"id": 1})
    return rig


def close(rig: DatabaseRig, role: Role = Role.OPERATOR) -> dict[str, str]:
    """Make the first token; the header of one who has it."""
    token = new_token()
    rig.service.store.add_token(NewToken(new_token_id(), "", "default", role), digest_of(token))
    return {"Authorization": f"Bearer {token}"}


def definition(path: str | Path, **source: Any) -> dict[str, Any]:
    name = f"n-{new_token_id()}"
    destination = {"database": "d", "table": name.replace("-", "_")}
    return {"name": name, "source": {"path": str(path), **source}, "destination": destination}


def refused(answer: httpx.Response) -> None:
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "source_not_allowed"


def test_local_sources_are_refused_beyond_the_roots_wherever_they_are_named(
    service: DatabaseRig, tmp_path: Path
) -> None:
    (tmp_path / "x.json").write_text('{"secret": 1}\n')
    headers, client = close(service), service.client
    made = client.post(PATH, json=definition(service.home / "landing"), headers=headers)
    assert made.status_code == 201, made.text
    for path in (tmp_path, tmp_path / "x.json", service.home / "autoloader.db", "/proc/self/environ", "../etc"):
        refused(client.post(PATH, json=definition(path), headers=headers))
        refused(client.post(f"{PATH}/test", json={"source": {"path": str(path)}}, headers=headers))
        refused(client.post(f"{PATH}/estimate-cost", json={"source": {"path": str(path)}}, headers=headers))
        change = {"source": {"path": str(path)}}
        refused(client.put(f"{PATH}/{made.json()['id']}", json=change, headers=headers))
    seen = client.post(f"{PATH}/test", json={"source": {"path": "landing"}}, headers=headers)
    assert seen.json()["files"] == 1


def test_an_endpoint_inside_is_asked_nothing(service: DatabaseRig) -> None:
    headers = close(service)
    with answering(lambda _: s3_listing("p/a.json")) as server:
        source = definition("s3://b/p/", credentials={**KEY, "endpoint_url": server.endpoint})
        refused(service.client.post(PATH, json=source, headers=headers))
        refused(service.client.post(f"{PATH}/test", json={"source": source["source"]}, headers=headers))
        refused(service.client.post(f"{PATH}/estimate-cost", json={"source": source["source"]}, headers=headers))
        assert server.requests == []


def test_a_run_holds_it_too_and_knows_it_from_the_database(service: DatabaseRig, tmp_path: Path) -> None:
    """Ingestions from before there were tokens: their runs are in processes that only have the database."""
    (tmp_path / "x.json").write_text('{"secret": 1}\n')
    with answering(lambda _: s3_listing("p/a.json")) as server:
        bad = [
            service.client.post(PATH, json=definition(tmp_path)),
            service.client.post(
                PATH, json=definition("s3://b/p/", credentials={**KEY, "endpoint_url": server.endpoint})
            ),
        ]
        assert [one.status_code for one in bad] == [201, 201]
        good = service.runnable()
        headers = close(service)
        for made in bad:
            answer = service.client.post(f"{PATH}/{made.json()['id']}/run", headers=headers).json()
            assert answer["status"] == "failed", answer
            assert "may read" in answer["errors"][0]["message"] or "inside" in answer["errors"][0]["message"]
        assert server.requests == []
    answer = service.client.post(f"{PATH}/{good['id']}/run", headers=headers).json()
    assert answer["status"] == "completed", answer


def test_a_person_on_the_machine_itself_is_not_bound(service: DatabaseRig, tmp_path: Path) -> None:
    from app.services.preflight import LoadRequest

    close(service)
    (tmp_path / "x.json").write_text(json.dumps({"id": 1}) + "\n")
    product = build(Settings(autoloader_home=service.home, autoloader_settle_s=0), os.environ)
    seen = product.preview(LoadRequest(str(tmp_path), product.table_name("d.t"), {}))
    product.close()
    assert seen.files == 1
