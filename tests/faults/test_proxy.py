"""The proxy itself: it lets everything through as it is, does what its rules say, and writes it down."""

from __future__ import annotations

import gc
import http.client
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.support.fault_proxy import HOST, Answer, Cut, Half, Proxy, Rewrite, proxy_before
from tests.support.seaweed import Seaweed

BODY = b"0123456789" * 10


class Echo(BaseHTTPRequestHandler):
    """Gives back what it was sent, in chunks, and the Host header."""

    protocol_version = "HTTP/1.1"
    seen: tuple[str, ...] = ()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(body)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("X-Host", self.headers["Host"])
        self.end_headers()
        for piece in (body[:7], body[7:]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """A server that echoes; `bodies` is what it was sent."""
    echo = ThreadingHTTPServer((HOST, 0), Echo)
    echo.bodies = []  # type: ignore[attr-defined]
    echo.daemon_threads = True
    thread = Thread(target=echo.serve_forever)
    thread.start()
    yield echo
    echo.shutdown()
    thread.join()
    echo.server_close()


@pytest.fixture
def proxy(server: ThreadingHTTPServer) -> Iterator[Proxy]:
    with proxy_before(server.server_port) as running:
        yield running


@pytest.fixture
def client(proxy: Proxy) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(HOST, proxy.port, timeout=60)
    yield connection
    connection.close()


def post(client: http.client.HTTPConnection, body: bytes = BODY, path: str = "/a/b") -> tuple[int, bytes]:
    client.request("POST", path, body)
    answer = client.getresponse()
    return answer.status, answer.read()


def test_one_connection_takes_many_requests(client: http.client.HTTPConnection, proxy: Proxy) -> None:
    assert [post(client, b"x" * n) for n in (8, 100_000)] == [(200, b"x" * 8), (200, b"x" * 100_000)]
    client.request("POST", "/", BODY)
    answer = client.getresponse()
    assert answer.headers["X-Host"] == f"{HOST}:{proxy.port}"
    assert answer.read() == BODY
    assert proxy.asked("POST", "^/a/b$") == 2


def test_a_client_that_waits_for_leave_gets_it(proxy: Proxy) -> None:
    with socket.create_connection((HOST, proxy.port), timeout=60) as raw:
        raw.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 100")
        raw.sendall(b"12345678")
        said = b""
        while not said.endswith(b"0\r\n\r\n"):
            said += raw.recv(1000)
        assert said.startswith(b"HTTP/1.1 200")


def test_rules_count(client: http.client.HTTPConnection, proxy: Proxy) -> None:
    rule = proxy.on("POST", "/a/", Answer(418, applied=False), skip=1, times=2)
    assert [post(client)[0] for _ in range(4)] == [200, 418, 418, 200]
    assert post(client, path="/c")[0] == 200
    assert rule.acted == 2
    assert [entry.action is rule.action for entry in proxy.log] == [False, True, True, False, False]


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_answer_is_dropped(proxy: Proxy, server: ThreadingHTTPServer, how: str, applied: bool) -> None:  # noqa: FBT001
    client = http.client.HTTPConnection(HOST, proxy.port, timeout=60)
    proxy.on("POST", "", Cut(how, applied))
    with pytest.raises(ConnectionResetError if how == "reset" else http.client.RemoteDisconnected):
        post(client)
    client.close()
    assert server.bodies == ([BODY] if applied else [])  # type: ignore[attr-defined]


def test_who_waits_for_the_server_is_kept_when_the_client_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    # What other tests have left.
    gc.collect()
    caplog.clear()
    with socket.create_server((HOST, 0)) as slow, proxy_before(slow.getsockname()[1]) as proxy:
        with socket.create_connection((HOST, proxy.port), timeout=60) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            asked, _ = slow.accept()
        with asked:
            # Nothing tells when the proxy has heard of it.
            for _ in range(20):
                gc.collect()
                time.sleep(0.02)
    assert "destroyed" not in caplog.text


def test_half_a_body_is_not_a_whole_one(client: http.client.HTTPConnection, proxy: Proxy) -> None:
    proxy.on("POST", "", Half())
    with pytest.raises(http.client.IncompleteRead):
        post(client)


def test_a_shorter_body_is_told_as_a_whole_one(client: http.client.HTTPConnection, proxy: Proxy) -> None:
    proxy.on("POST", "", Rewrite(lambda body: body[:5]))
    assert post(client) == (200, BODY[:5])
    assert post(client) == (200, BODY)


def test_a_signed_request_stays_valid(seaweed: Seaweed, s3_proxy: Proxy, bucket: str) -> None:
    s3_proxy.clear()
    behind = Seaweed(seaweed.pid, seaweed.folder, s3_proxy.port, seaweed.rest_port)
    behind.put(bucket, {"a": BODY})
    assert bytes(seaweed.store(bucket).get("a").bytes()) == BODY
    assert s3_proxy.asked("PUT", f"^/{bucket}/a$") == 1
