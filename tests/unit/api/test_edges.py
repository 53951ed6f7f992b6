"""What stands before the endpoints: who may ask, how large a body may be, what JSON is, and how errors leave."""

from __future__ import annotations

import gzip
import json
import re
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.api.openapi import operations
from app.domain.access import Role
from app.domain.runs import RunStatus
from tests.support.api_in_memory import Api

MEDIA_TYPE = "application/problem+json"


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of an answer, which has to have that status and code."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["code"] == code
    assert document["title"]
    assert document["detail"]
    assert document["type"].endswith(code)
    # Whatever is refused, its reader learns what to do, and a program whether to ask again.
    assert document["remedy"]
    assert document["retryable"] in {True, False}
    return document


# --- who may ask ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1", "127.1.2.3:80", "[::1]:8000"])
def test_this_machine_may_ask(api: Api, host: str) -> None:
    assert api.client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "example.com"},
        {"Host": "example.com:8000"},
        {"Host": "localhost.example.com"},
        {"Host": "192.168.1.5"},
        {"Host": "0.0.0.0"},  # noqa: S104 - an address of nobody
        {"Host": "[::1"},
        {"Host": ""},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Host": "localhost"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X_Forwarded_For": "127.0.0.1"},
        {"Fastly-Client-IP": "127.0.0.1"},
        {"Host": "someone@localhost"},
        {"Host": "localhost:http"},
        {"Host": "localhost, example.com"},
    ],
)
@pytest.mark.parametrize("path", ["/health", "/api/v1/ingestions", "/docs", "/openapi.json", "/nothing"])
def test_nobody_else_may(api: Api, headers: dict[str, str], path: str) -> None:
    answer = api.client.get(path, headers=headers)
    problem(answer, 401, "tokens_required")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_probes_may_come_from_anywhere(api: Api, path: str) -> None:
    assert api.client.get(path, headers={"Host": "10.0.0.7:8000", "X-Forwarded-For": "1.2.3.4"}).status_code == 200


def test_a_page_of_another_site_may_not_ask(api: Api) -> None:
    made = api.created()
    path = f"/api/v1/ingestions/{made['id']}/run"
    problem(api.client.post(path, headers={"Origin": "https://example.com"}), 403, "foreign_origin")
    problem(api.client.post(path, headers={"Origin": "null"}), 403, "foreign_origin")
    assert api.ingestions.runs == {}
    assert api.client.post(path, headers={"Origin": "http://localhost:8000"}).status_code == 200


# --- bodies --------------------------------------------------------------------------------------------------------


def post(api: Api, body: bytes, content_type: str = "application/json") -> httpx.Response:
    return api.client.post("/api/v1/ingestions", content=body, headers={"Content-Type": content_type})


def test_a_body_of_100_mb_is_refused_unread(api: Api) -> None:
    problem(post(api, b" " * 100_000_000), 413, "body_too_large")


def test_so_is_one_that_does_not_say_its_size(api: Api) -> None:
    sent = 0

    def pieces() -> Any:
        nonlocal sent
        for _ in range(100):
            sent += 1_000_000
            yield b" " * 1_000_000

    answer = api.client.post("/api/v1/ingestions", content=pieces(), headers={"Content-Type": "application/json"})
    problem(answer, 413, "body_too_large")


def test_a_client_that_waits_for_leave_to_send_a_large_body_gets_none(api: Api) -> None:
    place = urlsplit(api.base)
    with socket.create_connection((place.hostname, place.port), timeout=180) as wire:
        wire.sendall(
            b"POST /api/v1/ingestions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100000000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert wire.recv(12) == b"HTTP/1.1 413"


def test_a_body_that_breaks_off_makes_nothing(api: Api) -> None:
    place = urlsplit(api.base)
    body = json.dumps({"name": "x", "source": {"path": "s3://b/"}, "destination": {"table": "t"}}).encode()
    with socket.create_connection((place.hostname, place.port), timeout=180) as wire:
        head = b"POST /api/v1/ingestions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        wire.sendall(head + b"Content-Length: %d\r\n\r\n" % (len(body) + 1) + body)
    assert api.client.get("/api/v1/ingestions").json()["items"] == []
    assert api.ingestions.calls == 0


@pytest.mark.parametrize("levels", [33, 10_000, 200_000])
@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_json_is_refused(api: Api, levels: int, begin: bytes, end: bytes) -> None:
    body = b'{"name": ' + begin * levels + b"1" + end * levels + b"}"
    problem(
        post(api, body),
        413 if len(body) > 1 << 20 else 422,
        "body_too_large" if len(body) > 1 << 20 else "invalid_json",
    )


def test_brackets_in_texts_are_no_levels(api: Api) -> None:
    name = "[" * 60 + '"\\' + "{" * 60
    assert api.created(name=name)["name"] == name


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b'"text"',
        b"null",
        b"12",
        b'{"name": NaN}',
        b'{"name": 1e999999999}' * 2,
        b'{"name": "a", "name": "b"}',
        b'{"source": {"path": "a", "path": "b"}}',
        b'{"name": ' + b"9" * 5000 + b"}",
        b'{"name": "\xff"}',
        b'{"name": 1' + b"0" * 1000 + b"}",
        b'{"name": "a\x01"}',
        b"\xff\xfe{\x00}\x00",
    ],
)
def test_what_is_no_json_object_is_refused(api: Api, body: bytes) -> None:
    problem(post(api, body), 422, "invalid_json")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"name": "a\\u0000b"}', "name"),
        (b'{"name": "\\ud800"}', "name"),
        (b'{"source": {"path": "s3://b/\\udfff"}}', "source.path"),
        (b'{"format": {"options": {"null_values": ["a", "\\u0000"]}}}', "format.options.null_values.1"),
        (b'{"\\ud800": 1}', "body"),
    ],
)
def test_text_that_no_database_keeps_is_refused(api: Api, body: bytes, field: str) -> None:
    document = problem(post(api, body), 422, "invalid_field")
    assert document["errors"][0]["field"] == field


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data"])
def test_a_body_of_another_type_is_refused(api: Api, content_type: str) -> None:
    problem(post(api, b"{}", content_type), 415, "unsupported_media_type")


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip"])
def test_a_body_that_is_compressed_is_refused(api: Api, coding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    answer = api.client.post("/api/v1/ingestions", content=gzip.compress(b"{}"), headers=headers)
    document = problem(answer, 415, "unsupported_media_type")
    assert "Content-Encoding" in document["detail"]


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json"]
)
def test_json_by_another_name_is_json(api: Api, content_type: str) -> None:
    problem(post(api, b"{}", content_type), 422, "invalid_field")


def calls_without_body(api: Api) -> list[tuple[str, str]]:
    """Method and path of each, as the API describes itself; ids are nobody's."""
    found = operations(api.client.get("/openapi.json").json())
    names = [re.sub(r"\{\w+\}", "nobody", name) for name, one in found if "requestBody" not in one]
    assert "POST /api/v1/ingestions/nobody/run" in names
    return [(method, path) for method, path in map(str.split, names)]


@pytest.mark.parametrize("body", [b'{"delete_table": true}', b"[]", b"null", b"{", b"x=1", b"\x00", b'{"":{}}'])
def test_a_body_where_none_is_taken_is_refused(api: Api, body: bytes) -> None:
    for method, path in calls_without_body(api):
        answer = api.client.request(method, path, content=body, headers={"Content-Type": "application/json"})
        document = problem(answer, 422, "invalid_field")
        assert document["errors"] == [{"field": "body", "message": "This operation takes no body."}], path
        assert "/docs" in document["remedy"]


@pytest.mark.parametrize("body", [b"", b"{}", b" \r\n\t", b"{ }\n"])
def test_an_empty_body_is_none(api: Api, body: bytes) -> None:
    for method, path in calls_without_body(api):
        query = "?timeout_s=0" if path.endswith("/events") else ""
        answer = api.client.request(method, path + query, content=body)
        assert answer.status_code == (404 if "nobody" in path else 200), (path, answer.text)


@pytest.mark.parametrize(
    ("method", "more"), [("DELETE", ""), ("POST", "/run"), ("POST", "/pause"), ("POST", "/runs/{}/cancel")]
)
def test_nothing_is_done_for_a_body_that_nobody_reads(api: Api, method: str, more: str) -> None:
    api.ingestions.ends = RunStatus.RUNNING
    made = api.created()
    path = f"/api/v1/ingestions/{made['id']}"
    run_id = "" if more == "/run" else api.client.post(f"{path}/run").json()["run_id"]
    before = dict(api.ingestions.kept), dict(api.ingestions.runs)
    key = {"Idempotency-Key": "key"}
    problem(
        api.client.request(method, path + more.format(run_id), json={"all": True}, headers=key), 422, "invalid_field"
    )
    assert (api.ingestions.kept, api.ingestions.runs) == before
    # The key is free, and what was meant may be asked for under it.
    api.ingestions.ends = RunStatus.SUCCESS
    if method == "POST":
        assert api.client.post(path + more.format(run_id), headers=key).is_success


def test_whose_role_is_too_low_learns_that_first(api: Api) -> None:
    made = api.created()
    token = api.tokens.made(Role.VIEWER)
    answer = api.client.post(
        f"/api/v1/ingestions/{made['id']}/run", json={"a": 1}, headers={"Authorization": f"Bearer {token}"}
    )
    problem(answer, 403, "role_too_low")


def test_a_large_body_where_none_is_taken_is_too_large(api: Api) -> None:
    problem(api.client.post("/api/v1/ingestions/1/run", content=b" " * 2_000_000), 413, "body_too_large")


# --- addresses, methods, parameters --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/api/v1", "/api/v1/nothing", "/api/v1/ingestions/", "/api/v2/ingestions", "/numbers"]
)
def test_an_unknown_address(api: Api, path: str) -> None:
    problem(api.client.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/api/v1/ingestions", {"GET", "HEAD", "POST"}),
        ("PATCH", "/api/v1/ingestions/1", {"GET", "HEAD", "PUT", "DELETE"}),
        ("GET", "/api/v1/ingestions/1/run", {"POST"}),
        ("POST", "/health", {"GET", "HEAD"}),
        ("TRACE", "/health/live", {"GET", "HEAD"}),
        ("GET", "/api/v1/ingestions/test", {"POST"}),
    ],
)
def test_another_method_is_refused_with_those_that_are_there(
    api: Api, method: str, path: str, allowed: set[str]
) -> None:
    answer = api.client.request(method, path)
    problem(answer, 405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("path", ["/health", "/health/live", "/api/v1/ingestions", "/docs", "/openapi.json"])
def test_head_is_get_without_its_body(api: Api, path: str) -> None:
    answer, whole = api.client.head(path), api.client.get(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == whole.headers["content-type"]
    assert answer.headers["content-length"] == whole.headers["content-length"]


@pytest.mark.parametrize("call", ["clusters"])
def test_what_is_to_come_is_not_there(api: Api, call: str) -> None:
    problem(api.client.get(f"/api/v1/{call}"), 404, "not_found")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "query.limit"),
        ("limit=501", "query.limit"),
        ("limit=ten", "query.limit"),
        ("status=asleep", "query.status"),
        ("source_type=ftp", "query.source_type"),
        ("source_type=", "query.source_type"),
        ("sort=size", "query.sort"),
        ("order=up", "query.order"),
        ("nonsense=1", "query.nonsense"),
        ("q=%00", "query.q"),
        ("status=active&status=paused", "query.status"),
        ("cursor=nonsense", "query.cursor"),
        ("cursor=W10", "query.cursor"),
        ("cursor=" + "W1tb" * 2000, "query.cursor"),
    ],
)
def test_a_parameter_that_is_not_allowed_is_named(api: Api, query: str, field: str) -> None:
    document = problem(api.client.get(f"/api/v1/ingestions?{query}"), 422, "invalid_field")
    assert document["errors"][0]["field"] == field


@pytest.mark.parametrize("name", ["nobody", "%00", "a%2Fb", "é", "x" * 5000, "..%2f"])
def test_what_cannot_be_an_id_is_nobodys(api: Api, name: str) -> None:
    problem(api.client.get(f"/api/v1/ingestions/{name}"), 404, "not_found")
