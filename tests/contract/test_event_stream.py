"""The event stream over HTTP: what it tells, how it ends, and that nobody holds it up."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.services.following import FollowedEvent, parse_stream
from tests.contract.api_rigs import DatabaseRig, MemoryRig
from tests.support.service_process import ServiceProcess, until

EVENTS = "/api/v1/events"


def events(client: httpx.Client, **parameters: Any) -> list[FollowedEvent]:
    """What there is."""
    answer = client.get(EVENTS, params={"after": 0, "timeout_s": 0, **parameters})
    assert answer.status_code == 200, answer.text
    return [event for event in parse_stream(answer.text.split("\n")) if event.kind]


@contextmanager
def listening(client: httpx.Client, **parameters: Any) -> Iterator[Iterator[FollowedEvent]]:
    """The events of a stream as they come; it has begun."""
    with client.stream("GET", EVENTS, params=parameters) as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()
        assert next(lines).startswith("retry:")
        yield (event for event in parse_stream(lines) if event.kind)


def test_a_run_is_told_from_its_queue_to_its_end_whichever_process_works(database: DatabaseRig) -> None:
    made = database.runnable()
    with listening(database.client, ingestion_id=made["id"], after=0) as told:
        answer = database.client.post(f"/api/v1/ingestions/{made['id']}/run").json()
        found: list[FollowedEvent] = []
        for event in told:
            found.append(event)
            if event.ends_run:
                break
    kinds = [event.kind for event in found if event.kind != "run.progress"]
    assert kinds == ["ingestion.created", "run.queued", "run.running", "run.success"]
    assert [event.id for event in found] == sorted({event.id for event in found})
    last = found[-1].data
    assert (last["run_id"], last["ingestion_id"], last["rows"]) == (answer["run_id"], made["id"], {"loaded": 2})
    # And its log is there by then, to the last line.
    lines = database.client.get(f"/api/v1/ingestions/{made['id']}/runs/{answer['run_id']}/logs?limit=2").json()
    assert [line["number"] for line in lines["items"]] == [1, 2]
    rest: list[str] = []
    path = f"/api/v1/ingestions/{made['id']}/runs/{answer['run_id']}/logs"
    while lines["next"]:
        lines = database.client.get(path, params={"cursor": lines["next"]}).json()
        rest += [line["message"] for line in lines["items"]]
    assert rest[-1] == "run_ends status=success files=1 rows=2"
    assert lines["left_out"] == 0


def test_events_are_filtered_and_gone_on_with(memory: MemoryRig) -> None:
    memory.clear()
    rows = memory.api.ingestions.live
    for run_id in ("a", "b", "a"):
        rows.tell(run_id=run_id)
    client = memory.client
    assert [event.id for event in events(client)] == [1, 2, 3]
    assert [event.id for event in events(client, run_id="a")] == [1, 3]
    assert [event.id for event in events(client, ingestion_id="i", limit=2)] == [1, 2]
    assert events(client, after=3) == []
    headers = {"Last-Event-ID": "2"}
    answer = client.get(EVENTS, params={"after": 0, "timeout_s": 0}, headers=headers)
    assert [event.id for event in parse_stream(answer.text.split("\n")) if event.kind] == [3]
    assert client.get(EVENTS, params={"run_id": "nobody"}).status_code == 404
    rows.prune(events=1, events_age_s=0, logs_age_s=0)
    assert [(event.kind, event.id) for event in events(client, after=1)] == [("reset", 2), ("run.queued", 3)]


def test_how_it_goes_out(memory: MemoryRig) -> None:
    memory.clear()
    event = memory.api.ingestions.live.tell(run_id="a", status="queued")
    answer = memory.client.get(EVENTS, params={"after": 0, "timeout_s": 0})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert "content-length" not in answer.headers
    assert answer.text == (
        "retry: 2000\n\n"
        'id: 1\nevent: run.queued\ndata: {"at": "2026-11-25T10:00:00Z", "status": "queued"}\n\n'
        f":\nid: {event.id}\n\n"
    )


def test_whoever_asks_for_headers_alone_does_not_stay(memory: MemoryRig) -> None:
    memory.clear()
    answer = memory.client.head(EVENTS)
    assert (answer.status_code, answer.content) == (200, b"")
    until(lambda: _readers(memory) == 0, 30, "the reader is gone")


def test_one_who_goes_away_is_noticed(memory: MemoryRig) -> None:
    memory.clear()
    with listening(memory.client):
        until(lambda: _readers(memory) == 1, 30, "it reads")
    until(lambda: _readers(memory) == 0, 30, "the reader is gone")


def _readers(memory: MemoryRig) -> float:
    text = memory.client.get("/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith("autoloader_event_readers ")).split()[1])


def test_one_who_takes_nothing_is_cut_off_and_the_others_go_on(
    memory: MemoryRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.clear()
    monkeypatch.setattr("app.api.event_stream.STUCK_S", 10.0)
    rows = memory.api.ingestions.live
    address = (str(memory.client.base_url.host), int(memory.client.base_url.port or 0))
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(address)
        stuck.sendall(f"GET {EVENTS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        until(lambda: _readers(memory) == 1, 30, "it reads")
        with listening(memory.client) as told:
            deadline = time.monotonic() + 180
            while _readers(memory) > 1 and time.monotonic() < deadline:
                rows.tell(filler="x" * 100_000)
                # Whoever takes what comes is none the worse.
                assert next(told).data["filler"]
            assert _readers(memory) == 1
    assert "autoloader_event_readers_dropped_total 1.0" in memory.client.get("/metrics").text


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    found = ServiceProcess(tmp_path / "home", {"AUTOLOADER_SETTLE_S": "0"}).start()
    yield found
    found.stop()


def test_streams_end_with_their_service_and_hold_it_up_in_nothing(service: ServiceProcess) -> None:
    """A stream that is open, and one whose client stands still: the process waits for neither."""
    begun, ended = threading.Event(), threading.Event()

    def read() -> None:
        address = f"http://127.0.0.1:{service.port}{EVENTS}"
        # A service that stands still while it ends cuts it off.
        cut = suppress(httpx.RemoteProtocolError)
        with cut, httpx.stream("GET", address, trust_env=False, timeout=200) as answer:
            begun.set()
            for _ in answer.iter_lines():
                pass
        ended.set()

    _fill(service.home / "autoloader.db")
    thread = threading.Thread(target=read, daemon=True)
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", service.port))
        stuck.sendall(f"GET {EVENTS}?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert stuck.recv(15) == b"HTTP/1.1 200 OK"
        thread.start()
        assert begun.wait(60)
        # Fails where it does not end by itself.
        service.stop()
    thread.join(60)
    assert ended.is_set()
    assert "Traceback" not in service.log
    assert "returned without completing" not in service.log


def _fill(database: Path) -> None:
    """More events than the buffers between two processes hold."""
    row = (0, "default", "i", "r", "run.updated", json.dumps({"filler": "x" * 200_000}))
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        names = "created_at, tenant, ingestion_id, run_id, kind, body"
        connection.executemany(f"insert into events ({names}) values (?, ?, ?, ?, ?, ?)", [row] * 100)
        connection.commit()
