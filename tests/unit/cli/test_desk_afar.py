"""A server that is away, is another program, or refuses: said in its words, and nothing that was secret."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from app.cli.desk_afar import AfarDesk
from app.domain.errors import (
    FatalError,
    InvalidFieldError,
    RetriableError,
    ServerNotUnderstoodError,
    ServerUnreachableError,
)
from app.domain.redaction import Redactor
from tests.support.odd_server import OddServer, odd_server
from tests.support.servers import free_ports

TOKEN = "al_a-very-secret-token"


@pytest.fixture
def server() -> Iterator[OddServer]:
    with odd_server() as one:
        yield one


def desk(address: str, token: str | None = TOKEN, notes: list[str] | None = None, timeout_s: float = 20) -> AfarDesk:
    redactor = Redactor([token] if token else [])
    return AfarDesk(address, token, redactor, note=(notes if notes is not None else []).append, timeout_s=timeout_s)


def test_nobody_is_there() -> None:
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(ServerUnreachableError) as raised:
        desk(address).run("x")
    assert raised.value.message == f"The server at {address} does not answer: Connection refused."


def test_a_server_that_is_silent_may_have_done_what_it_was_asked(server: OddServer) -> None:
    server.may_answer.clear()
    with pytest.raises(ServerUnreachableError, match="It may have done what it was asked all the same"):
        desk(server.base, timeout_s=0.2).run("x")
    with pytest.raises(ServerUnreachableError) as raised:
        desk(server.base, timeout_s=0.2).ingestion("x")
    assert "may have done" not in raised.value.message


def test_an_answer_that_breaks_off_is_none(server: OddServer) -> None:
    server.body, server.short_by = b'{"id": 1', 100
    server.headers = {"Connection": "close"}
    with pytest.raises(ServerUnreachableError):
        desk(server.base).ingestion("x")


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>Welcome</html>"), (200, b"[]"), (404, b"<html>"), (404, b'{"detail": "Not Found"}'), (500, b"")],
)
def test_another_program_is_told_as_such(server: OddServer, status: int, body: bytes) -> None:
    server.status, server.body = status, body
    with pytest.raises(ServerNotUnderstoodError, match=server.base):
        desk(server.base).ingestion("x")
    server.status, server.body = 200, b'{"items": 5}'
    with pytest.raises(ServerNotUnderstoodError, match="answered no page"):
        desk(server.base).ingestions(limit=5)


def test_a_token_does_not_follow_a_redirect(server: OddServer) -> None:
    with odd_server() as other:
        server.status, server.headers = 302, {"Location": f"{other.base}/api/v1/ingestions/x"}
        with pytest.raises(ServerNotUnderstoodError, match="answered 302"):
            desk(server.base).ingestion("x")
        assert other.asked == []
    assert server.asked == [("GET", "/api/v1/ingestions/x", f"Bearer {TOKEN}")]


@pytest.mark.parametrize(("status", "retryable", "kind"), [(401, False, FatalError), (503, True, RetriableError)])
def test_a_refusal_is_told_in_the_words_of_the_server(
    server: OddServer, status: int, kind: type[Exception], *, retryable: bool
) -> None:
    problem = {"code": "token_unknown", "detail": f"The token {TOKEN} is unknown.", "remedy": "Make another."}
    server.status, server.body = status, json.dumps(problem | {"retryable": retryable}).encode()
    with pytest.raises(kind) as raised:
        desk(server.base).ingestion("x")
    error = raised.value
    assert (getattr(error, "code", ""), str(error)) == ("token_unknown", "The token *** is unknown. Make another.")


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "token_required", "AUTOLOADER_TOKEN or --token-file"),
        (401, "token_invalid", "AUTOLOADER_TOKEN or --token-file"),
        (403, "role_too_low", "tokens create --role"),
        (404, "not_found", "--server or AUTOLOADER_SERVER"),
    ],
)
def test_the_remedy_is_one_for_a_command(server: OddServer, status: int, code: str, words: str) -> None:
    server.status, server.body = status, json.dumps({"code": code, "detail": "No."}).encode()
    with pytest.raises(FatalError) as raised:
        desk(server.base).ingestion("x")
    assert words in raised.value.advice


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_behind_a_proxy_that_says_so_is_away(server: OddServer, status: int) -> None:
    server.status, server.body = status, b"<html>Bad Gateway</html>"
    with pytest.raises(ServerUnreachableError, match=f"what stands before it says {status}"):
        desk(server.base).ingestion("x")


def test_one_that_speaks_no_tls_is_told_as_such(server: OddServer) -> None:
    with pytest.raises(ServerUnreachableError, match="speaks no TLS; perhaps http:// is meant"):
        desk(server.base.replace("http:", "https:")).ingestion("x")


def test_an_id_is_one_part_of_the_address(server: OddServer) -> None:
    server.body = b"{}"
    desk(server.base + "/api/v1/").ingestion("../x?y#z")
    assert server.asked[0][1] == "/api/v1/ingestions/..%2Fx%3Fy%23z"


@pytest.mark.parametrize(
    "address", ["localhost:8000", "ftp://host", "http://", "http://host:port", "http://[::1", "http://h/?a=b", ""]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidFieldError, match="is no address of a service"):
        desk(address)


def test_secrets_in_an_address_are_refused_and_not_shown() -> None:
    for address in ("https://user:a-password@host", "host://user:a-password@host", "http://user:of/a-password@x@host"):
        with pytest.raises(InvalidFieldError) as raised:
            desk(address)
        assert "a-password" not in str(raised.value)


@pytest.mark.parametrize("token", ["two words", "a-line\nmore", "tökén"])
def test_a_token_that_cannot_be_one_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        desk("http://localhost", token)
    assert token not in str(raised.value)


def test_a_token_that_others_can_read_on_its_way_is_noted() -> None:
    notes: list[str] = []
    for address in ("http://localhost:1", "https://far.example"):
        desk(address, notes=notes)
    assert notes == []
    desk("http://far.example", notes=notes)
    assert notes == ["The token goes to far.example unencrypted; https:// would keep it from others."]
