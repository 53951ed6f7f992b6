"""The service with a Prefect server that is there in some way, and does not do what it should."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.fault_proxy import Action, Answer, Cut, Proxy, proxy_before
from tests.support.prefect_server import PrefectServer, start_prefect
from tests.support.servers import stop
from tests.support.service_process import ServiceProcess, land, until

pytestmark = [pytest.mark.xdist_group("degraded"), pytest.mark.timeout(1_200)]

PATH = "/api/v1/ingestions"
HOURLY = {"frequency": "hourly", "timezone": "UTC"}
# A call waits two seconds for Prefect, which is more on a busy machine. One that waited for its library's own time-out
# would take a minute, and for its tries again more than that.
AT_MOST_S = 45
GONE = Cut("reset", applied=False)
# What the beat logs, each after the other.
CONNECTED, LOST = '"prefect_connected"', '"prefect_lost"'


@dataclass(frozen=True)
class Place:
    """A service, a Prefect server of its own, and what stands between them."""

    service: ServiceProcess
    prefect: Proxy
    server: PrefectServer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The service was started while Prefect was gone."""
    server = start_prefect()
    with ExitStack() as stack:
        stack.callback(stop, server)
        proxy = stack.enter_context(proxy_before(server.port))
        proxy.on(".*", "", GONE, times=None)
        settings = {
            "PREFECT_API_URL": f"{proxy.url}/api",
            "AUTOLOADER_WORKER": "off",
            "AUTOLOADER_SETTLE_S": "0",
            "AUTOLOADER_LOCAL_ROOTS": "/",
        }
        service = ServiceProcess(tmp_path_factory.mktemp("service"), settings)
        stack.callback(service.stop)
        yield Place(service.start(), proxy, server)


def ask(service: ServiceProcess, method: str, path: str, body: Any = None) -> httpx.Response:
    """An answer that comes soon."""
    url = f"http://127.0.0.1:{service.port}{path}"
    return httpx.request(method, url, json=body, timeout=AT_MOST_S, trust_env=False)


def health(service: ServiceProcess) -> dict[str, Any]:
    """How it is, its database being there; on a busy machine the beat that tells of that may be late."""

    def look() -> dict[str, Any] | None:
        answer = ask(service, "GET", "/health")
        found: dict[str, Any] = answer.json()
        is_well = (answer.status_code, found["status"], found["database"]) == (200, "healthy", "connected")
        return found if is_well else None

    found = until(look, 60, "the database is there")
    assert found is not None
    return found


def create(service: ServiceProcess, source: Path, name: str) -> dict[str, Any]:
    document = {
        "name": name,
        "source": {"type": "local", "path": str(source)},
        "destination": {"database": "shop", "table": name},
        "schedule": HOURLY,
    }
    answer = ask(service, "POST", PATH, document)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def stands(service: ServiceProcess, server: PrefectServer, made: dict[str, Any]) -> None:
    """The ingestion has its deployment, without anybody asking."""
    name = f"ingestion-{made['id']}"
    until(lambda: name in {one["name"] for one in server.deployments()}, 60, f"{name} stands")
    until(lambda: service.ingestion(made)["prefect_deployment_id"], 60, "the ingestion names its deployment")


def beside_the_beat(prefect: Proxy) -> int:
    """How many requests came, up to now, that were no look whether it is there."""
    # It takes connections in their order, and may be at an older one still.
    mark = f"/hello?{uuid.uuid4().hex}"
    with socket.create_connection(("127.0.0.1", prefect.port)) as probe:
        probe.sendall(f"GET {mark} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        until(lambda: any(one.target == mark for one in tuple(prefect.log)), 120, "the proxy has come so far")
    return sum("/hello" not in one.target for one in tuple(prefect.log))


def is_lost(service: ServiceProcess) -> bool:
    """Whether the beat said last that Prefect is lost: until it is there again, nobody else asks it."""
    log = service.log
    return log.rfind(LOST) > log.rfind(CONNECTED)


def test_gone_at_the_start(place: Place, tmp_path: Path) -> None:
    service, prefect, server = place.service, place.prefect, place.server
    # The start does not wait long for the first beat, which imports a library before it can tell.
    until(lambda: "Failed to connect to Prefect server" in service.log, 60, "its start says that Prefect is not there")
    assert health(service)["prefect"] == "disconnected"
    made = create(service, tmp_path, "early")
    assert made["prefect_deployment_id"] is None
    assert "Ingestion created but scheduling unavailable" in made["warnings"]
    prefect.clear()
    stands(service, server, made)
    until(lambda: health(service)["prefect"] == "connected", 30, "health tells that it is there")
    assert "Prefect service initialized and connected" in service.log


@pytest.mark.parametrize(
    ("name", "trouble", "detail"),
    [
        ("gone", GONE, "Prefect cannot be reached"),
        ("silent", Cut("stall", applied=False), "Prefect did not answer within 2 s."),
        ("busy", Answer(503, applied=False, body=b"locked"), "Prefect answered 503"),
        ("broken", Answer(500, applied=False, body=b"oops"), "Prefect answered 500"),
        (
            "another",
            Answer(404, applied=False, body=b"<html>", content_type="text/html"),
            "What answers at PREFECT_API_URL is not Prefect's API.",
        ),
    ],
)
def test_in_trouble_later(place: Place, tmp_path: Path, name: str, trouble: Action, detail: str) -> None:
    service, prefect, server = place.service, place.prefect, place.server
    prefect.clear()
    until(lambda: health(service)["prefect"] == "connected", 60, "Prefect is there")
    land(tmp_path / "in", 0, 1)
    known = create(service, tmp_path / "in", f"{name}_before")
    stands(service, server, known)

    prefect.on(".*", "", trouble, times=None)
    # Nobody has noticed yet.
    first = create(service, tmp_path / "in", f"{name}_first")
    assert first["warnings"] == ["Ingestion created but scheduling unavailable"]
    until(lambda: detail in health(service).get("prefect_detail", ""), 30, "health tells what is wrong")
    assert health(service)["prefect"] == "disconnected"
    # The same detail is told by a beat that was greeted before, and refused what it asked then.
    until(lambda: is_lost(service), 60, "the beat has lost it")

    # From now on nobody but the beat asks it for anything.
    asked = beside_the_beat(prefect)
    second = create(service, tmp_path / "in", f"{name}_second")
    assert second["warnings"] == ["Ingestion created but scheduling unavailable"]
    path = f"{PATH}/{known['id']}"
    assert ask(service, "PUT", path, {"schedule": {"frequency": "daily", "time": "14:30"}}).status_code == 200
    for verb, status in (("pause", "paused"), ("resume", "active")):
        told = ask(service, "POST", f"{path}/{verb}").json()
        assert (told["status"], len(told["warnings"])) == (status, 1)
    assert ask(service, "DELETE", f"{PATH}/{first['id']}").status_code == 204
    direct = service.run(known)
    assert (direct["status"], direct["method"]) == ("completed", "direct")
    assert ask(service, "GET", f"{path}/runs/{direct['run_id']}").json()["rows"]["loaded"] == 1000
    assert ask(service, "POST", "/api/v1/migrations/prefect", {"dry_run": True}).status_code == 503
    assert beside_the_beat(prefect) == asked

    prefect.clear()
    stands(service, server, second)
    until(lambda: _told(server, known) == (False, "30 14 * * *"), 60, "what was changed has come to Prefect")
    assert f"ingestion-{first['id']}" not in {one["name"] for one in server.deployments()}


def _told(server: PrefectServer, made: dict[str, Any]) -> tuple[bool, str]:
    """Whether its deployment is paused, and its cron."""
    (found,) = [one for one in server.deployments() if one["name"] == f"ingestion-{made['id']}"]
    return found["paused"], found["schedules"][0]["schedule"]["cron"]
