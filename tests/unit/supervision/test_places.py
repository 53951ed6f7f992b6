"""What a tree needs before it starts: ports, a folder, and servers that say how they are."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.domain.errors import AlreadyUpError, HomeUnwritableError, PortTakenError, PrefectUnusableError, UsageError
from app.supervision.asking import ApiAsking, Asking, PrefectAsking
from app.supervision.home import LOCK, leave_word, prefect_at_work, take_home
from app.supervision.ports import check_port, free_port, is_loopback, shown_host
from tests.support.odd_server import OddServer, odd_server
from tests.support.servers import free_ports

# Of whoever waits for an answer that comes.
PATIENT_S = 60.0


def test_a_port_that_is_taken_is_told_with_its_owner() -> None:
    (port,) = free_ports(1)
    with closing(socket.create_server(("127.0.0.1", port))):
        with pytest.raises(PortTakenError) as raised:
            check_port("127.0.0.1", port, "--port")
        assert raised.value.message.startswith(f"Port {port} of 127.0.0.1 is taken. Process {os.getpid()} (")
        assert raised.value.advice == "End what listens there, give another one by --port, or say --free-ports."
        assert free_port("127.0.0.1") != port
    check_port("127.0.0.1", port, "--port")


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(UsageError, match=r"192\.0\.2\.1 cannot be listened on"):
        free_port("192.0.2.1")


@pytest.mark.parametrize(
    ("host", "loopback", "shown"),
    [
        ("127.0.0.1", True, "127.0.0.1"),
        ("127.9.9.9", True, "127.9.9.9"),
        ("localhost", True, "localhost"),
        ("::1", True, "[::1]"),
        ("0.0.0.0", False, "127.0.0.1"),  # noqa: S104 - nothing is bound
        ("::", False, "[::1]"),
        ("10.0.0.1", False, "10.0.0.1"),
        ("127.0.0.1.example", False, "127.0.0.1.example"),
    ],
)
def test_what_reaches_beyond_this_machine(host: str, shown: str, *, loopback: bool) -> None:
    assert (is_loopback(host), shown_host(host)) == (loopback, shown)


def test_a_home_tells_where_its_prefect_server_is_while_it_is_at_work(tmp_path: Path) -> None:
    database = "sqlite:////home/autoloader.db"
    assert prefect_at_work(tmp_path, database) is None
    lock = take_home(tmp_path)
    assert prefect_at_work(tmp_path, database) is None
    leave_word(lock, "http://127.0.0.1:4200/api", database)
    assert prefect_at_work(tmp_path, database) == "http://127.0.0.1:4200/api"
    # Its worker knows no other database's ingestions.
    assert prefect_at_work(tmp_path, "postgresql://me@there/other") is None
    # A second one still learns who has it; what looks at it for a moment only delays it.
    with pytest.raises(AlreadyUpError, match=f"as process {os.getpid()}"):
        take_home(tmp_path, leftovers_s=0.3)
    os.close(lock)
    assert prefect_at_work(tmp_path, database) is None
    (tmp_path / LOCK).write_text("no\nword\n")
    os.close(take_home(tmp_path))
    assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HomeUnwritableError, match="cannot be written: Not a directory"):
        take_home(tmp_path / "file" / "home")
    with pytest.raises(HomeUnwritableError, match="/proc/home, cannot be written"):
        take_home(Path("/proc/home"))


def test_a_lock_that_a_dead_process_wrote_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "up.lock").write_text("4194305\n")
    os.close(take_home(tmp_path))
    assert (tmp_path / "up.lock").read_text() == f"{os.getpid()}\n"


@pytest.fixture
def server() -> Iterator[OddServer]:
    with odd_server() as one:
        yield one


def test_a_server_that_answers_otherwise_is_not_up(server: OddServer) -> None:
    api, prefect = ApiAsking(server.base), PrefectAsking(f"{server.base}/api", {}, "pool", timeout_s=PATIENT_S)
    for body in (b"<html>", b"[]", b"", b'"3"', b"{}"):
        server.body = body
        assert not api.has_prefect()
        assert not prefect.is_up()
        assert not prefect.has_worker(1)
    server.status = 500
    assert not api.is_up()


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_prefect_server_that_cannot_answer_now_may_come(server: OddServer, status: int) -> None:
    server.status = status
    assert PrefectAsking(f"{server.base}/api", {}, "pool", timeout_s=PATIENT_S).version() is None


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, b"<html>", "not Prefect's API"),
        (404, b"", "not Prefect's API"),
        (302, b"", "not Prefect's API"),
        (401, b"", "refuses our key"),
        (403, b"", "refuses our key"),
    ],
)
def test_what_is_no_prefect_server_is_told(server: OddServer, status: int, body: bytes, told: str) -> None:
    server.status, server.body = status, body
    with pytest.raises(PrefectUnusableError, match=told) as raised:
        PrefectAsking(f"{server.base}/api", {}, "pool", timeout_s=PATIENT_S).version()
    assert "PREFECT_API_" in raised.value.advice


def test_a_server_that_is_well_and_tells_no_version_is_used(server: OddServer) -> None:
    server.body = b"true"
    assert PrefectAsking(f"{server.base}/api", {}, "pool", timeout_s=PATIENT_S).version() is None


def test_a_password_in_an_address_is_sent_as_one(server: OddServer) -> None:
    server.body = b'"3.8.8"'
    address = server.base.replace("://", "://me:se%63ret@")
    assert PrefectAsking(f"{address}/api", {}, "pool", timeout_s=PATIENT_S).version() == "3.8.8"
    assert server.asked[-1] == ("GET", "/api/admin/version", "Basic bWU6c2VjcmV0")


def test_a_server_that_is_silent_holds_nobody_up(server: OddServer) -> None:
    server.may_answer.clear()
    assert Asking(server.base, timeout_s=0.1).ask("/health") == (0, None)


def test_a_worker_is_known_by_its_process(server: OddServer) -> None:
    server.body = json.dumps(
        [{"name": "w-host-12", "status": "ONLINE"}, {"name": "w-host-5", "status": "OFFLINE"}]
    ).encode()
    environ = {"PREFECT_API_AUTH_STRING": "me:secret"}
    prefect = PrefectAsking(f"{server.base}/api", environ, "pool", timeout_s=PATIENT_S)
    assert [pid for pid in (12, 2, 5) if prefect.has_worker(pid)] == [12]
    assert server.asked[-1] == ("POST", "/api/work_pools/pool/workers/filter", "Basic bWU6c2VjcmV0")
