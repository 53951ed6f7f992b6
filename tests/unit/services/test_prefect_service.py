"""How Prefect's absence is borne: dead, silent, another server, a wrong address, a refusal."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, nullcontext
from typing import Any, TypeVar
from urllib.error import HTTPError

import pytest

from app.domain.errors import DeploymentGoneError, SchedulerUnavailableError
from app.domain.ingestions import Schedule
from app.services import prefect_connection
from app.services.prefect_plans import PrefectSettings
from app.services.prefect_readings import page_of
from app.services.prefect_service import PrefectService, get_prefect_service, register_prefect_service
from app.services.prefect_stream import flow_run_events
from app.services.schedules import Cron
from tests.support.ingestions import an_ingestion
from tests.support.listener import Listener
from tests.support.prefect_server import PrefectServer
from tests.support.servers import free_ports, is_there
from tests.support.service_process import until

T = TypeVar("T")
NOBODY = "11111111-1111-1111-1111-111111111111"
Run = Callable[[Coroutine[Any, Any, T]], T]


def page(status: str, body: bytes, kind: str = "text/html") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


@pytest.fixture
def run() -> Iterator[Run[Any]]:
    with asyncio.Runner() as runner:
        yield runner.run


def a_service(url: str, **settings: Any) -> PrefectService:
    return PrefectService(PrefectSettings(url, "here", **({"timeout_s": 8.0} | settings)))


def test_a_dead_server_is_said_and_raises_nothing_at_start(run: Run[Any]) -> None:
    (port,) = free_ports(1)
    service = a_service(f"http://127.0.0.1:{port}/api", timeout_s=60)
    assert run(service.initialize()) is False
    assert not service.initialized
    assert "cannot be reached" in service.trouble
    with pytest.raises(SchedulerUnavailableError):
        run(service.create_deployment(an_ingestion()))
    run(service.close())


def test_a_server_that_accepts_and_never_answers_is_waited_for_once(run: Run[Any]) -> None:
    with closing(Listener(None)) as listener:
        service = a_service(listener.url, pause_s=60)
        assert run(service.initialize()) is False
        assert "did not answer within 8 s" in service.trouble
        asked = listener.connections
        assert asked
        calls = (service.trigger_deployment, service.get_flow_runs, service.delete_deployment)
        for call in (service.create_deployment(an_ingestion()), *(one(NOBODY) for one in calls)):
            with pytest.raises(SchedulerUnavailableError):
                run(call)
        assert listener.connections == asked
        # Whoever looks after it asks all the same.
        assert run(service.ping()) is False
        assert listener.connections > asked
        run(service.close())


def test_a_call_that_gets_no_answer_spares_the_next_ones_before_anybody_looks(run: Run[Any]) -> None:
    with closing(Listener(None)) as listener:
        service = a_service(listener.url, pause_s=60)
        run(service._connection.open())
        with pytest.raises(SchedulerUnavailableError, match="did not answer within"):
            run(service.create_deployment(an_ingestion()))
        asked = listener.connections
        with pytest.raises(SchedulerUnavailableError, match="a moment ago"):
            run(service.trigger_deployment(NOBODY))
        assert listener.connections == asked
        run(service.close())


def test_the_stream_of_one_that_is_not_there_is_not_opened(run: Run[Any]) -> None:
    async def told(service: PrefectService) -> list[str]:
        return [one async for one in service.flow_run_events()]

    with closing(Listener(None)) as listener:
        service = a_service(listener.url)
        assert run(told(service)) == []
        assert listener.connections == 0
        run(service.close())


def test_a_stream_whose_server_falls_silent_while_it_is_opened_asks_it_no_more(run: Run[Any]) -> None:
    """Prefect's library asks for the version first, gives that up after a while, and goes on."""

    async def told(listener: Listener) -> list[str]:
        return [one async for one in flow_run_events(listener.url, lambda: listener.connections == 0)]

    with closing(Listener(None)) as listener:
        assert run(told(listener)) == []
        assert listener.connections == 1


def test_after_its_pause_a_call_asks_again(run: Run[Any]) -> None:
    with closing(Listener(None)) as listener:
        service = a_service(listener.url, pause_s=0)
        run(service.initialize())
        asked = listener.connections
        with pytest.raises(SchedulerUnavailableError, match="did not answer within"):
            run(service.create_deployment(an_ingestion()))
        assert listener.connections > asked
        run(service.close())


def test_where_somebody_looks_again_and_again_it_is_spared_until_it_answers_him(run: Run[Any]) -> None:
    """However late he is: there is no pause here."""
    fails, hello = page("500 Internal Server Error", b"oops"), page("200 OK", '"👋"'.encode(), "application/json")
    with closing(Listener(hello, first=[fails])) as listener:
        service = a_service(listener.url, pause_s=0, timeout_s=60)
        assert run(service.ping()) is False
        with pytest.raises(SchedulerUnavailableError, match="a moment ago"):
            run(service.create_deployment(an_ingestion()))
        assert run(service._answers())
        asked = listener.connections
        with pytest.raises(SchedulerUnavailableError, match="does not speak as Prefect does"):
            run(service.create_deployment(an_ingestion()))
        assert listener.connections > asked
        run(service.close())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (page("200 OK", b"<html>hello</html>"), "does not speak as Prefect does"),
        (page("200 OK", b'{"hello": 1}', "application/json"), "is not Prefect's API"),
        (page("404 Not Found", b"nothing here"), "is not Prefect's API"),
        (page("401 Unauthorized", b"{}", "application/json"), "refuses our key"),
        (page("429 Too Many Requests", b"slower"), "answered 429"),
        (page("503 Service Unavailable", b"locked"), "answered 503"),
        (page("500 Internal Server Error", b"oops"), "answered 500"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "cannot be reached"),
    ],
)
def test_another_server_or_a_refusal_is_told_apart(
    answer: bytes, message: str, run: Run[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long a busy one is asked again: a second of the minute.
    monkeypatch.setattr(prefect_connection, "BUSY_SHARE", 1 / 60)
    with closing(Listener(answer)) as listener:
        service = a_service(listener.url, timeout_s=60)
        assert run(service.initialize()) is False
        assert message in service.trouble
        # Until it is looked at again nobody waits for it.
        asked = listener.connections
        for call in (service.create_deployment(an_ingestion()), service.pause_deployment(NOBODY)):
            with pytest.raises(SchedulerUnavailableError):
                run(call)
        assert listener.connections == asked
        run(service.close())


def test_a_server_that_is_busy_is_asked_again_until_it_is_not(run: Run[Any]) -> None:
    """Prefect on SQLite answers 503 while others write, longer than a second when many do."""
    busy, gone = page("503 Service Unavailable", b"locked"), page("404 Not Found", b"{}", "application/json")
    with closing(Listener(gone, first=[busy] * 8)) as listener:
        service = a_service(listener.url, timeout_s=60)
        run(service._connection.open())
        with pytest.raises(DeploymentGoneError):
            run(service.trigger_deployment(NOBODY))
        assert not listener.first
        run(service.close())


def test_a_server_that_answers_others_is_there_although_a_look_was_late(run: Run[Any]) -> None:
    async def answered(_client: object) -> None:
        """At once."""

    async def looked(service: PrefectService) -> tuple[bool, bool]:
        await service._connection.ask(answered)
        assert not await service._answers()
        alone = service.initialized
        look = asyncio.create_task(service._answers())
        await asyncio.sleep(0)
        await service._connection.ask(answered, anyway=True)
        return alone, await look

    with closing(Listener(None)) as listener:
        service = a_service(listener.url, timeout_s=0.5)
        run(service._connection.open())
        assert run(looked(service)) == (False, True)
        run(service.close())


def test_what_it_was_not_told_is_kept_in_mind_unless_the_reconciler_told_it(run: Run[Any]) -> None:
    with closing(Listener(page("500 Internal Server Error", b"oops"))) as listener:
        service = a_service(listener.url, timeout_s=60)
        run(service._connection.open())

        async def fails(*, patiently: bool) -> bool:
            with service.patiently() if patiently else nullcontext(), pytest.raises(SchedulerUnavailableError):
                await service.create_deployment(an_ingestion())
            return service.missed()

        assert run(fails(patiently=True)) is False
        assert run(fails(patiently=False)) is True
        assert service.missed() is False
        run(service.close())


@pytest.mark.parametrize("url", ["http://nobody.invalid:4200/api", "nonsense", "ftp://host/api", "http://[::1"])
def test_an_address_that_leads_nowhere_is_said(url: str, run: Run[Any]) -> None:
    service = a_service(url)
    assert run(service.initialize()) is False
    assert service.trouble
    run(service.close())


def test_the_page_of_a_flow_run_shows_no_password() -> None:
    assert page_of("http://localhost:4200/api", "f1") == "http://localhost:4200/runs/flow-run/f1"
    assert page_of("https://me:secret@host/prefect/api/", "f1") == "https://host/prefect/runs/flow-run/f1"
    assert page_of("http://localhost:4200/", "f1") is None
    cloud = "https://app.prefect.cloud/account/a-1/workspace/w-2/runs/flow-run/f1"
    assert page_of("https://api.prefect.cloud/api/accounts/a-1/workspaces/w-2", "f1") == cloud


def test_there_is_one_service_in_a_process(run: Run[Any]) -> None:
    with pytest.raises(SchedulerUnavailableError, match="Scheduling is off"):
        run(get_prefect_service())
    service = a_service("http://127.0.0.1:9/api")
    register_prefect_service(service)
    try:
        assert run(get_prefect_service()) is service
    finally:
        register_prefect_service(None)


# --- a real server ----------------------------------------------------------------------------------------------------


@pytest.fixture
def service(prefect: PrefectServer, run: Run[Any]) -> Iterator[PrefectService]:
    found = a_service(prefect.api_url, timeout_s=150)
    assert run(found.initialize())
    yield found
    run(found.close())


def test_pool_and_queues_are_made_with_their_priorities(service: PrefectService, prefect: PrefectServer) -> None:
    pool = prefect.ask("/work_pools/autoloader-pool")
    queues = prefect.ask("/work_pools/autoloader-pool/queues/filter", {})
    assert pool["type"] == service.pool_type == "process"
    order = sorted((q["priority"], q["name"]) for q in queues if q["name"] != "default")
    assert [name for _, name in order] == ["autoloader-priority", "autoloader-default", "autoloader-high-memory"]


def test_a_pool_of_another_type_is_used_and_named(prefect: PrefectServer, run: Run[Any]) -> None:
    assert is_there(lambda: prefect.ask("/work_pools/", {"name": "elsewhere", "type": "docker"}))
    found = a_service(prefect.api_url, pool="elsewhere", timeout_s=150)
    assert run(found.initialize())
    assert found.pool_type == "docker"
    run(found.close())


def test_two_installations_do_not_see_each_other(
    service: PrefectService, prefect: PrefectServer, run: Run[Any]
) -> None:
    other = PrefectService(PrefectSettings(prefect.api_url, "there", timeout_s=150))
    run(other.initialize())
    made = run(other.create_deployment(an_ingestion()))
    assert made not in {one.id for one in run(service.list_deployments())}
    assert [one.id for one in run(other.list_deployments())] == [made]
    run(other.close())


def test_a_schedule_is_replaced_and_taken_away(service: PrefectService, run: Run[Any]) -> None:
    made = run(service.create_deployment(an_ingestion()))
    run(service.update_deployment_schedule(made, Schedule("daily", time="14:30", timezone="Europe/Berlin")))
    info = run(service.get_deployment_info(made))
    assert info is not None
    assert (info.schedule, info.paused) == (Cron("30 14 * * *", "Europe/Berlin"), False)
    assert info.work_queue_name == "autoloader-default"
    run(service.update_deployment_schedule(made, None))
    info = run(service.get_deployment_info(made))
    assert info is not None
    assert info.schedule is None
    run(service.delete_deployment(made))
    assert run(service.get_deployment_info(made)) is None
    with pytest.raises(DeploymentGoneError):
        run(service.update_deployment_schedule(made, Schedule("hourly")))


def test_parameters_hold_ids_alone(service: PrefectService, prefect: PrefectServer, run: Run[Any]) -> None:
    ingestion = an_ingestion()
    made = run(service.create_deployment(ingestion))
    found = prefect.ask(f"/deployments/{made}")
    assert found["parameters"] == {"ingestion_id": ingestion.id, "trigger": "scheduled"}
    assert "secret" not in str(found)
    with pytest.raises(SchedulerUnavailableError, match="answered 4"):
        run(service.trigger_deployment(made, {"credentials": "secret"}))


def test_a_manual_run_waits_in_the_priority_queue_and_tells_of_itself(
    service: PrefectService, prefect: PrefectServer, run: Run[Any]
) -> None:
    made = run(service.create_deployment(an_ingestion(schedule=None)))
    flow_run_id = run(service.trigger_deployment(made, {"run_id": "r-1", "trigger": "manual"}))
    assert prefect.ask(f"/flow_runs/{flow_run_id}")["work_queue_name"] == "autoloader-priority"
    after = run(service.trigger_deployment(made, {"run_id": "r-1"}, after=flow_run_id, queue="autoloader-high-memory"))
    assert prefect.ask(f"/flow_runs/{after}")["work_queue_name"] == "autoloader-high-memory"
    details = run(service.flow_run_details(flow_run_id))
    assert details is not None
    assert (details.flow_run.id, details.flow_run.state, details.logs) == (flow_run_id, "SCHEDULED", ())
    assert details.url == f"{prefect.api_url.removesuffix('/api')}/runs/flow-run/{flow_run_id}"
    run(service.end_flow_run(flow_run_id, "Not wanted any more.", crashed=False))
    assert prefect.ask(f"/flow_runs/{flow_run_id}")["state_type"] in {"CANCELLED", "CANCELLING"}
    assert run(service.flow_run_details(NOBODY)) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"type": "FAILED", "message": "It needed too much memory."}, "FAILED"),
        ({"type": "COMPLETED"}, "COMPLETED"),
        ({"type": "RUNNING"}, "CRASHED"),
        ({"type": "PENDING"}, "CRASHED"),
        # Somebody wanted its end, and here it is.
        ({"type": "CANCELLING", "name": "Cancelling"}, "CANCELLED"),
    ],
)
def test_that_a_flow_run_crashed_is_said_unless_it_has_said_how_it_ended(
    service: PrefectService, prefect: PrefectServer, run: Run[Any], before: dict[str, str], after: str
) -> None:
    made = run(service.create_deployment(an_ingestion(schedule=None)))
    flow_run_id = run(service.trigger_deployment(made, {"run_id": uuid.uuid4().hex, "trigger": "manual"}))
    _ask_again(prefect, f"/flow_runs/{flow_run_id}/set_state", {"state": before, "force": True})
    run(service.end_flow_run(flow_run_id, "Its process died.", crashed=True))
    state = prefect.ask(f"/flow_runs/{flow_run_id}")["state"]
    assert (state["type"], state["message"]) == (
        after,
        "Its process died." if after == "CRASHED" else before.get("message"),
    )


def _ask_again(prefect: PrefectServer, path: str, body: dict[str, Any], *, method: str = "POST") -> None:
    """Ask until it is done: a server with SQLite refuses while somebody else writes."""

    def is_done() -> bool:
        try:
            prefect.ask(path, body, method=method)
        except HTTPError as busy:
            busy.close()
            return False
        return True

    until(is_done, 60, f"{path} is answered")


def test_a_queue_is_served_where_a_worker_asked_for_its_runs(prefect: PrefectServer, run: Run[Any]) -> None:
    pool = f"pool-{uuid.uuid4().hex}"
    service = a_service(prefect.api_url, pool=pool, timeout_s=150)
    assert run(service.initialize())
    priority, default, high_memory = service.settings.queues
    assert run(service.unserved_queues()) == [priority, default, high_memory]
    # As a worker asks that was started for two of them.
    _ask_again(prefect, f"/work_pools/{pool}/get_scheduled_flow_runs", {"work_queue_names": [priority, default]})

    def unserved() -> list[str]:
        return list(run(service.unserved_queues()))

    # Prefect notes it a moment later.
    until(lambda: unserved() == [high_memory], 60, "two queues are served")

    def all_are_served() -> bool:
        # A worker asks again and again; what is noted of one look may be lost.
        _ask_again(prefect, f"/work_pools/{pool}/get_scheduled_flow_runs", {})
        return unserved() == []

    until(all_are_served, 60, "a worker of the whole pool serves all of them")
    _ask_again(prefect, f"/work_pools/{pool}/queues/{default}", {"is_paused": True}, method="PATCH")
    assert unserved() == [default]
    run(service.close())


def test_no_worker_is_online_where_none_was_started(service: PrefectService, run: Run[Any]) -> None:
    assert run(service.workers_online()) == []
