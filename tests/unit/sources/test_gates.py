"""Endpoints that a source names, where not everything may be reached: checked once, and nowhere else than that."""

from __future__ import annotations

import gc
import json
import os
import pickle
import socket
import threading
import weakref
from collections.abc import Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest

from app.domain.errors import (
    AutoloaderError,
    FileError,
    InvalidFieldError,
    SourceNotAllowedError,
    SourceUnreachableError,
)
from app.domain.files import SourceFile
from app.domain.locations import Location
from app.domain.ports import Source
from app.domain.reach import AllowedHosts, Reach, parse_allowed_hosts
from app.sources.aws import AwsKey, AwsSettings
from app.sources.endpoints import Way, checked_way
from app.sources.factory import check_reach, open_source
from app.sources.forward import Gate
from app.sources.gates import gate_of
from app.sources.object_reader import ObjectReader
from app.sources.object_store import ObjectStoreSource
from app.sources.s3 import S3Access
from tests.support.answers import Answer, Answers, Request, answering, s3_listing
from tests.support.azurite import Azurite
from tests.support.fake_gcs import FakeGcs
from tests.support.seaweed import Seaweed
from tests.support.servers import free_ports

KEY = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "not-a-real-secret"}
PUBLIC, INSIDE = "93.184.216.34", "10.0.0.7"
FILE = SourceFile("s3://b/p/a", "abc", 3, datetime(2026, 1, 1, tzinfo=UTC))
HERE = Reach(hosts=parse_allowed_hosts("127.0.0.1"))


def way(endpoint: str, *addresses: str, allowed: str = "") -> Way:
    return checked_way(endpoint, parse_allowed_hosts(allowed), lambda _host, _port: list(addresses))


# --- what is let through -------------------------------------------------------------------------------------------


def test_a_name_of_the_world_is_let_through_with_the_addresses_that_it_had() -> None:
    assert way("https://s3.example.com", PUBLIC) == Way("s3.example.com", 443, (PUBLIC,))
    assert way("http://S3.example.com:9000/path", PUBLIC) == Way("s3.example.com", 9000, (PUBLIC,))


@pytest.mark.parametrize(
    "addresses", [(INSIDE,), (PUBLIC, INSIDE), (INSIDE, PUBLIC), ("::1",), (PUBLIC, "169.254.169.254")]
)
def test_a_name_that_leads_inside_is_not_though_it_leads_out_too(addresses: tuple[str, ...]) -> None:
    with pytest.raises(SourceNotAllowedError, match="inside") as caught:
        way("https://s3.example.com", *addresses)
    assert "10.0.0" not in str(caught.value)


@pytest.mark.parametrize("allowed", ["s3.lan", "s3.lan:9000", INSIDE, "10.0.0.0/8"])
def test_unless_it_is_allowed(allowed: str) -> None:
    assert way("http://s3.lan:9000", INSIDE, allowed=allowed).addresses == (INSIDE,)
    with pytest.raises(SourceNotAllowedError):
        way("http://s3.lan:9000", INSIDE, allowed="s3.lan:9001,other.lan,10.0.0.8")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "localhost", "169.254.169.254", "[::ffff:127.0.0.1]", "0.0.0.0"],  # noqa: S104
)
def test_this_machine_and_the_one_that_rents_it_out_are_not_let_through(host: str) -> None:
    with pytest.raises(SourceNotAllowedError):
        checked_way(f"http://{host}:9000", AllowedHosts())


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f.0.0.1", "0177.0.0.1", "127.0.0.1.", "[::0001]", "a。b"])
def test_odd_spellings_are_not_even_looked_up(host: str) -> None:
    with pytest.raises(SourceNotAllowedError, match=r"no address in its usual form\. Write a name"):
        checked_way(f"http://{host}:9000", AllowedHosts(), lambda _h, _p: pytest.fail("It was looked up."))


def test_a_name_that_is_none_may_be_one_later() -> None:
    def unknown(_host: str, _port: int) -> list[str]:
        raise socket.gaierror

    def none(_host: str, _port: int) -> list[str]:
        return []

    for resolve in (unknown, none):
        with pytest.raises(SourceUnreachableError, match=r"s3\.example\.com"):
            checked_way("https://s3.example.com", AllowedHosts(), resolve)


# --- what a source needs for that ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "credentials"),
    [
        ("s3://b/", {"endpoint_url": "http://127.0.0.1:9000"}),
        ("az://c/", {"endpoint_url": "http://127.0.0.1:9000", "account_name": "a"}),
        ("gs://b/", {"endpoint_url": "http://127.0.0.1:9000"}),
        ("s3://b/", {"endpoint_url": "http://127.0.0.1:9000", "aws_region": "r", "aws_secret_access_key": "x"}),
    ],
)
def test_the_services_own_key_is_not_sent_to_an_endpoint_of_a_sources(path: str, credentials: dict[str, str]) -> None:
    with pytest.raises(InvalidFieldError, match="own is not sent"):
        check_reach(path, credentials, HERE)


@pytest.mark.parametrize("path", ["s3://b/", "az://c/", "gs://b/", "az://c@account.dfs.core.windows.net/"])
def test_without_an_endpoint_of_its_own_there_is_no_gate(path: str) -> None:
    check_reach(path.replace("az://c@", "abfss://c@"), {}, Reach())
    assert gate_of("s3", KEY, Reach()) is None


SERVICE_KEY = {"client_email": "e", "private_key": "PRIVATE KEY", "private_key_id": "i"}


def test_an_endpoint_inside_a_service_accounts_key_is_one() -> None:
    named = {"service_account_key": json.dumps({**SERVICE_KEY, "gcs_base_url": "http://169.254.169.254"})}
    with pytest.raises(SourceNotAllowedError):
        check_reach("gs://b/", named, Reach())
    check_reach("gs://b/", {"service_account_key": json.dumps(SERVICE_KEY)}, Reach())


def test_nothing_is_asked_of_an_endpoint_that_is_not_allowed() -> None:
    with answering(lambda _: s3_listing("p/a")) as server:
        with pytest.raises(SourceNotAllowedError):
            opened("s3://b/p/", {**KEY, "endpoint_url": server.endpoint}, Reach())
        assert server.requests == []
        # On the machine itself nobody is kept from it.
        assert [file.key for file in opened("s3://b/p/", {**KEY, "endpoint_url": server.endpoint}, None).discover()]


def opened(path: str, credentials: Mapping[str, str], reach: Reach | None) -> Source:
    return open_source(path, file_pattern=None, credentials=credentials, environ={}, reach=reach)


# --- through the gate ----------------------------------------------------------------------------------------------


def by_gate(server: Answers, host: str = "store.example", scheme: str = "http", patience_s: int = 10) -> S3Access:
    """What leads by a name that no resolver knows to a server of this machine."""
    port = urlsplit(server.endpoint).port or 0
    settings = AwsSettings(AwsKey("a", "b"), "r", f"{scheme}://{host}:{port}", patience_s=patience_s)
    return S3Access(settings, Gate(Way(host, port, ("127.0.0.1",))))


def source_of(access: S3Access) -> ObjectStoreSource:
    return ObjectStoreSource(Location("s3", "b", "p/"), access)


def test_a_name_leads_where_it_was_found_to_lead_and_is_never_looked_up_again() -> None:
    def answer(request: Request) -> Answer:
        return s3_listing("p/a") if "list-type" in request.path else Answer(body=b"abc", headers={"etag": '"abc"'})

    with answering(answer) as server:
        access = pickle.loads(pickle.dumps(by_gate(server)))  # noqa: S301 - our own
        assert [file.key for file in source_of(access).discover()] == ["s3://b/p/a"]
        with pytest.raises(FileError):
            # It has no answer to ranges; that it was asked is what counts.
            ObjectReader(access).read(FILE, 0, 2)
        assert {request.headers["host"] for request in server.requests} == {
            server.endpoint.replace("http://127.0.0.1", "store.example")
        }
        assert all(request.path.startswith("/b") for request in server.requests)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("kind", ["another port", "another name", "this machine"])
def test_a_redirect_leads_nowhere(status: int, kind: str) -> None:
    with answering(lambda _: Answer(body=b"secret")) as secret:
        port = urlsplit(secret.endpoint).port
        target = {"another port": f"http://store.example:{port}", "another name": f"http://localhost:{port}"}.get(
            kind, secret.endpoint
        )
        with answering(lambda _: Answer(status, headers={"location": f"{target}/latest"})) as server:
            access = by_gate(server)
            with pytest.raises(AutoloaderError) as caught:
                list(source_of(access).discover())
            with pytest.raises(FileError):
                ObjectReader(access).read(FILE)
            assert server.requests
        assert secret.requests == []
    assert isinstance(caught.value, SourceUnreachableError)
    assert "where we do not go" in caught.value.message


def test_what_is_encrypted_goes_by_a_tunnel_to_the_same_place() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hello: list[bytes] = []
        listener.settimeout(120)

        def take() -> None:
            while not any(hello):
                connection, _ = listener.accept()
                with connection, suppress(ConnectionError):
                    hello.append(connection.recv(4096))

        thread = threading.Thread(target=take)
        thread.start()
        server = Answers(f"http://127.0.0.1:{listener.getsockname()[1]}")
        # A client that gave up before it had said anything is sent again.
        while not any(hello):
            with pytest.raises(SourceUnreachableError):
                list(source_of(by_gate(server, scheme="https", patience_s=1)).discover())
        thread.join(30)
    # A TLS handshake, for the name.
    assert hello[-1][0] == 0x16
    assert b"store.example" in hello[-1]


@pytest.mark.parametrize(
    "asked",
    [
        b"CONNECT localhost:{port} HTTP/1.1\r\n\r\n",
        b"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n",
        b"CONNECT store.example:1 HTTP/1.1\r\n\r\n",
        b"CONNECT store.example.:{port} HTTP/1.1\r\n\r\n",
        b"GET http://localhost:{port}/ HTTP/1.1\r\nHost: store.example:{port}\r\n\r\n",
        b"GET http://store.example/ HTTP/1.1\r\n\r\n",
        b"GET http://store.example:{port}@localhost:{port}/ HTTP/1.1\r\n\r\n",
        b"GET https://store.example:{port}/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: store.example:{port}\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"\xff\xfe\r\n\r\n",
    ],
)
def test_whoever_asks_the_gate_for_another_place_is_sent_away(asked: bytes) -> None:
    with answering(lambda _: Answer(body=b"secret")) as server:
        port = urlsplit(server.endpoint).port or 0
        gate = Gate(Way("store.example", port, ("127.0.0.1",)))
        assert said(gate, asked.replace(b"{port}", b"%d" % port)).startswith(b"HTTP/1.1 421 ")
        assert server.requests == []
        assert b"secret" in said(gate, b"GET http://store.example:%d/x HTTP/1.1\r\nHost: x\r\n\r\n" % port)
        assert [request.path for request in server.requests] == ["/x"]


def said(gate: Gate, asked: bytes) -> bytes:
    parts = urlsplit(gate.proxy_url)
    with closing(socket.create_connection((parts.hostname, parts.port), timeout=30)) as connection:
        connection.sendall(asked)
        return b"".join(iter(lambda: connection.recv(4096), b""))


def test_a_place_that_is_not_there_is_unreachable() -> None:
    (port,) = free_ports(1)
    assert said(Gate(Way("x.example", port, ("127.0.0.1",))), b"CONNECT x.example:%d HTTP/1.1\r\n\r\n" % port) == (
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )


def test_the_environments_proxies_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(lambda _: Answer(status=404)) as proxy, answering(lambda _: s3_listing("p/a")) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "AWS_PROXY_URL"):
            monkeypatch.setenv(name, proxy.endpoint)
        for name in ("NO_PROXY", "no_proxy", "AWS_PROXY_EXCLUDES"):
            monkeypatch.setenv(name, "*")
        assert [file.key for file in source_of(by_gate(server)).discover()] == ["s3://b/p/a"]
        assert proxy.requests == []


def test_a_gate_ends_with_whoever_holds_it() -> None:
    gate = Gate(Way("x.example", 1, ("127.0.0.1",)))
    address = urlsplit(gate.proxy_url)
    gone = weakref.ref(gate)
    del gate
    gc.collect()
    assert gone() is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname, address.port), timeout=30)


# --- real stores, allowed by name ----------------------------------------------------------------------------------


def read_whole(path: str, credentials: Mapping[str, str]) -> dict[str, bytes]:
    source = opened(path, credentials, HERE)
    reader = pickle.loads(pickle.dumps(source.reader()))  # noqa: S301 - our own
    return {file.key.rpartition("/")[2]: reader.read(file) for file in source.discover()}


def test_s3_through_the_gate(seaweed: Seaweed, bucket: str) -> None:
    large = bytes(range(256)) * 20_000
    seaweed.put(bucket, {"a": b"1", "b": large})
    assert read_whole(f"s3://{bucket}/", seaweed.credentials) == {"a": b"1", "b": large}


def test_azure_through_the_gate(azurite: Azurite) -> None:
    container = azurite.create_bucket(f"gate-{os.getpid()}")
    azurite.put(container, {"a": b"1"})
    assert read_whole(f"az://{container}/", azurite.credentials) == {"a": b"1"}


def test_google_through_the_gate(fake_gcs: FakeGcs) -> None:
    made = fake_gcs.create_bucket(f"gate-{os.getpid()}")
    fake_gcs.put(made, {"a": b"1"})
    assert read_whole(f"gs://{made}/", fake_gcs.credentials) == {"a": b"1"}
