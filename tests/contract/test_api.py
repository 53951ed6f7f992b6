"""What the API promises, over HTTP: one suite on the services with their database, and on those in memory."""

from __future__ import annotations

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.contract.api_rigs import Rig
from tests.support.service_process import until

PATH = "/api/v1/ingestions"
# Where nothing depends on what stands behind the API, once is enough.
ON_THE_DATABASE = pytest.mark.parametrize("api", ["database"], indirect=True)


def definition(**fields: Any) -> dict[str, Any]:
    return {
        "name": "Orders",
        "source": {"path": "s3://bucket/orders/", "file_pattern": "*.json"},
        "destination": {"database": "sales", "table": "orders"},
        **fields,
    }


def create(api: Rig, **fields: Any) -> dict[str, Any]:
    answer = api.client.post(PATH, json=definition(**fields))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def problem(answer: httpx.Response, status: int, code: str, field: str | None = None) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert (document["status"], document["code"]) == (status, code), document
    assert document["remedy"], document
    assert document["retryable"] in {True, False}, document
    if field is not None:
        assert document["errors"][0]["field"] == field, document
    return document


def names(api: Rig, query: str = "") -> list[str]:
    return [one["name"] for one in api.client.get(f"{PATH}?{query}").json()["items"]]


# --- create and read -----------------------------------------------------------------------------------------------


def test_what_was_made_is_what_was_asked_for(api: Rig) -> None:
    asked = definition(
        cluster_id="local",
        format={"type": "json", "schema": {"inference": "auto", "evolution_enabled": True}},
        schedule={"frequency": "daily", "time": "14:30", "timezone": "Europe/Berlin"},
    )
    answer = api.client.post(PATH, json=asked)
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["location"] == f"{PATH}/{made['id']}"
    assert answer.headers["etag"] == '"v1"'
    assert made["name"] == "Orders"
    assert made["status"] == "active"
    assert made["source"] == {"type": "s3", "path": "s3://bucket/orders/", "file_pattern": "*.json"}
    assert made["schedule"] == asked["schedule"]
    assert made["table"] == "local.sales.orders"
    assert made["prefect_deployment_id"] is None
    read = api.client.get(answer.headers["location"])
    assert read.status_code == 200
    assert read.headers["etag"] == '"v1"'
    assert read.json() == {**made, "warnings": []}


def test_the_request_of_the_contract_word_for_word(api: Rig) -> None:
    asked = json.loads("""{"name": "Test Hourly Ingestion", "cluster_id": "cluster_123",
     "source": {"type": "s3", "path": "s3://test-bucket/data/", "file_pattern": "*.json",
       "credentials": {"aws_access_key_id": "test", "aws_secret_access_key": "test", "aws_region": "us-east-1"}},
     "format": {"type": "json", "schema": {"inference": "auto", "evolution_enabled": true}},
     "destination": {"catalog": "spark_catalog", "database": "default", "table": "test_table", "write_mode": "append"},
     "schedule": {"frequency": "hourly", "timezone": "UTC"}}""")
    answer = api.client.post(PATH, json=asked)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["cluster_id"] == "cluster_123"
    assert made["destination"] == asked["destination"]
    assert made["credential_names"] == ["aws_access_key_id", "aws_region", "aws_secret_access_key"]
    assert "Ingestion created but scheduling unavailable" in made["warnings"]


def test_credentials_are_never_shown(api: Rig) -> None:
    secret = "Zx9-not-to-be-seen-anywhere"
    keys = {"aws_access_key_id": f"{secret}1", "aws_secret_access_key": f"{secret}2"}
    made = create(api, source={"path": "s3://bucket/orders/", "credentials": keys})
    path = f"{PATH}/{made['id']}"
    shown = [
        json.dumps(made),
        api.client.get(path).text,
        api.client.get(PATH).text,
        api.client.put(path, json={"name": "Other"}).text,
        api.client.post(PATH, json=definition(source={"path": "s3://b/", "credentials": {"nonsense": secret}})).text,
        api.client.post(PATH, json=definition(source={"path": "s3://b/", "credentials": secret})).text,
        api.client.post(
            PATH, json=definition(source={"path": "s3://b/", "credentials": {"aws_region": [secret]}})
        ).text,
    ]
    assert [text for text in shown if secret in text] == []


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"name": None}, "invalid_field", "name"),
    ({"name": ""}, "invalid_field", "name"),
    ({"name": 7}, "invalid_field", "name"),
    ({"name": "x" * 1000}, "invalid_field", "name"),
    ({"nonsense": 1}, "invalid_field", "nonsense"),
    ({"source": {}}, "invalid_field", "source.path"),
    ({"source": "s3://b/"}, "invalid_field", "source"),
    ({"source": {"path": "nonsense://b/"}}, "invalid_field", "source.path"),
    ({"source": {"path": "s3://b/", "type": "gcs"}}, "invalid_field", "source.type"),
    ({"source": {"path": "s3://b/", "type": "sftp"}}, "not_supported", "source.type"),
    ({"source": {"path": "s3://b/", "credentials": {"password": "x"}}}, "invalid_field", "source.credentials.password"),
    ({"source": {"path": "s3://b/", "typo": 1}}, "invalid_field", "source.typo"),
    ({"format": {"schema": {"deep": {"er": 1}}}}, "invalid_field", "format.schema.deep"),
    ({"format": {"type": "avro"}}, "not_supported", "format.type"),
    ({"format": {"options": {"header": "yes"}}}, "invalid_field", "format.options.header"),
    ({"format": {"schema": {"hints": {"a": "int"}}}}, "not_supported", "format.schema.hints"),
    ({"destination": {"database": "d"}}, "invalid_field", "destination.table"),
    (
        {"destination": {"database": "d", "table": "t", "write_mode": "merge"}},
        "not_supported",
        "destination.write_mode",
    ),
    ({"schedule": {"frequency": "sometimes"}}, "invalid_field", "schedule.frequency"),
    ({"schedule": {"frequency": "daily", "time": "25:99"}}, "invalid_field", "schedule.time"),
    ({"schedule": {"frequency": "daily", "timezone": "Mars/Olympus"}}, "invalid_field", "schedule.timezone"),
    ({"schedule": {"frequency": "daily", "timezone": "../../etc/passwd"}}, "invalid_field", "schedule.timezone"),
    (
        {"schedule": {"frequency": "custom", "cron_expression": "61 * * * *"}},
        "invalid_field",
        "schedule.cron_expression",
    ),
    (
        {"schedule": {"frequency": "custom", "cron_expression": "every day"}},
        "invalid_field",
        "schedule.cron_expression",
    ),
    ({"schedule": {"frequency": "custom"}}, "invalid_field", "schedule.cron_expression"),
    ({"schedule": {"time": "12:00"}}, "invalid_field", "schedule.frequency"),
    ({"schedule": {"frequency": "hourly", "backfill": {"from": "2026-01-01"}}}, "not_supported", "schedule.backfill"),
    ({"schedule": {}}, "invalid_field", "schedule.frequency"),
    ({"schedule": []}, "invalid_field", "schedule"),
    ({"webhooks": ["https://example.com"]}, "invalid_field", "webhooks.0"),
    ({"webhooks": [{"url": "https://me:x@example.com"}]}, "invalid_field", "webhooks.0.url"),
    ({"status": "paused"}, "invalid_field", "status"),
]


@ON_THE_DATABASE
@pytest.mark.parametrize(("fields", "code", "field"), BAD, ids=lambda value: json.dumps(value)[:50])
def test_a_definition_that_is_wrong_makes_nothing(api: Rig, fields: dict[str, Any], code: str, field: str) -> None:
    problem(api.client.post(PATH, json=definition(**fields)), 422, code, field)
    assert names(api) == []


def test_so_with_a_change(api: Rig) -> None:
    made = create(api)
    for fields, code, field in BAD:
        if fields not in ({"source": {}}, {"destination": {"database": "d"}}, {"status": "paused"}, {"schedule": []}):
            answer = api.client.put(f"{PATH}/{made['id']}", json=fields)
            assert (answer.status_code, answer.json()["code"]) == (422, code), (fields, answer.text)
            assert answer.json()["errors"][0]["field"] == field
    assert api.client.get(f"{PATH}/{made['id']}").json() == {**made, "warnings": []}


def test_a_name_is_given_once(api: Rig) -> None:
    create(api)
    problem(api.client.post(PATH, json=definition()), 409, "name_taken")
    other = create(api, name="Other")
    problem(api.client.put(f"{PATH}/{other['id']}", json={"name": "Orders"}), 409, "name_taken")
    assert sorted(names(api)) == ["Orders", "Other"]


@ON_THE_DATABASE
@pytest.mark.parametrize("call", ["GET ", "PUT ", "DELETE ", "POST /run", "POST /pause", "POST /resume", "GET /runs"])
@pytest.mark.parametrize("more", ["", "/files", "/files/failed", "/runs/x", "/processed-files"])
def test_an_unknown_id_is_not_found(api: Rig, call: str, more: str) -> None:
    method, end = call.split(" ")
    if more:
        method, end = ("DELETE" if more == "/processed-files" else "GET"), more
    body = {"confirm": True} if more == "/processed-files" else {"name": "x"} if method == "PUT" else None
    answer = api.client.request(method, f"{PATH}/0190a5c4b1de7c3e8f21d0a9c6b3e7f4{end}", json=body)
    problem(answer, 404, "not_found")


# --- change --------------------------------------------------------------------------------------------------------


def test_a_change_takes_just_what_is_sent(api: Rig) -> None:
    made = create(api, schedule={"frequency": "hourly", "timezone": "UTC"}, format={"type": "json"})
    path = f"{PATH}/{made['id']}"
    changed = api.client.put(path, json={"schedule": {"frequency": "daily", "time": "14:30"}})
    assert changed.status_code == 200
    assert changed.headers["etag"] == '"v2"'
    document = changed.json()
    assert document["schedule"] == {"frequency": "daily", "time": "14:30", "timezone": "UTC"}
    assert {name: document[name] for name in ("name", "source", "format", "destination")} == {
        name: made[name] for name in ("name", "source", "format", "destination")
    }
    removed = api.client.put(path, json={"schedule": None, "format": {"type": None}}).json()
    assert removed["schedule"] is None
    assert removed["format"] == {}
    assert removed["version"] == 3


def test_a_change_can_pause(api: Rig) -> None:
    made = create(api)
    path = f"{PATH}/{made['id']}"
    assert api.client.put(path, json={"status": "paused"}).json()["status"] == "paused"
    problem(api.client.post(f"{path}/run"), 409, "not_active")
    assert api.client.put(path, json={"status": "active"}).json()["status"] == "active"


def test_a_change_of_what_was_changed_meanwhile_is_refused(api: Rig) -> None:
    made = create(api)
    path, old = f"{PATH}/{made['id']}", {"If-Match": '"v1"'}
    assert api.client.put(path, json={"name": "Second"}, headers=old).status_code == 200
    problem(api.client.put(path, json={"name": "Third"}, headers=old), 412, "version_mismatch")
    problem(api.client.delete(path, headers=old), 412, "version_mismatch")
    for nonsense in ('W/"v2"', "v2", '"2"', '"v99999999999999999999"', "", '"v2'):
        problem(api.client.put(path, json={"name": "Third"}, headers={"If-Match": nonsense}), 412, "version_mismatch")
    assert names(api) == ["Second"]
    assert api.client.put(path, json={"name": "Third"}, headers={"If-Match": '"x", "v2"'}).status_code == 200
    assert api.client.put(path, json={"name": "Fourth"}, headers={"If-Match": "*"}).status_code == 200
    assert api.client.delete(path, headers={"If-Match": '"v4"'}).status_code == 204


def test_of_several_versions_any_will_do(api: Rig) -> None:
    path = f"{PATH}/{create(api)['id']}"
    assert api.client.put(path, json={"name": "Second"}, headers={"If-Match": '"v99", "v1"'}).status_code == 200
    lines = [("If-Match", '"v99"'), ("If-Match", '"v2"')]
    assert api.client.put(path, json={"name": "Third"}, headers=lines).headers["etag"] == '"v3"'
    assert api.client.post(f"{path}/pause", headers=[*lines, ("If-Match", '"v3"')]).headers["etag"] == '"v4"'
    problem(api.client.delete(path, headers=lines), 412, "version_mismatch")
    assert api.client.delete(path, headers=[*lines, ("If-Match", '"v4"')]).status_code == 204


def test_what_was_changed_meanwhile_is_neither_paused_nor_resumed(api: Rig) -> None:
    path, old = f"{PATH}/{create(api)['id']}", {"If-Match": '"v1"'}
    assert api.client.put(path, json={"name": "Second"}, headers=old).status_code == 200
    for verb in ("pause", "resume"):
        problem(api.client.post(f"{path}/{verb}", headers=old), 412, "version_mismatch")
        problem(api.client.post(f"{path}/{verb}", headers={"If-Match": "v2"}), 412, "version_mismatch")
    assert api.client.get(path).json()["status"] == "active"
    paused = api.client.post(f"{path}/pause", headers={"If-Match": '"v2"'})
    assert (paused.status_code, paused.headers["etag"]) == (200, '"v3"')
    resumed = api.client.post(f"{path}/resume", headers={"If-Match": paused.headers["etag"]})
    assert resumed.headers["etag"] == api.client.get(path).headers["etag"] == '"v4"'


def test_of_two_changes_at_once_one_is_refused(api: Rig) -> None:
    path = f"{PATH}/{create(api)['id']}"
    begin = threading.Barrier(4)

    def change(number: int) -> int:
        begin.wait()
        if number % 2:
            return api.client.post(f"{path}/pause", headers={"If-Match": '"v1"'}).status_code
        return api.client.put(path, json={"name": f"n{number}"}, headers={"If-Match": '"v1"'}).status_code

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(change, range(4))) == [200, 412, 412, 412]


def test_changes_at_once_that_ask_of_no_version_are_all_made(api: Rig) -> None:
    path = f"{PATH}/{create(api)['id']}"
    changes: list[tuple[str, str, dict[str, Any] | None]] = [
        ("PUT", "", {"name": "Renamed"}),
        ("PUT", "", {"source": {"file_pattern": "*.jsonl"}}),
        ("PUT", "", {"format": {"schema": {"max_columns": 7}}}),
        ("PUT", "", {"destination": {"table": "moved"}}),
        ("POST", "/pause", None),
    ]
    begin = threading.Barrier(len(changes))

    def change(one: tuple[str, str, dict[str, Any] | None]) -> int:
        begin.wait()
        return api.client.request(one[0], f"{path}{one[1]}", json=one[2]).status_code

    with ThreadPoolExecutor(len(changes)) as threads:
        assert set(threads.map(change, changes)) == {200}
    found = api.client.get(path).json()
    assert (found["version"], found["name"], found["status"]) == (6, "Renamed", "paused")
    assert found["source"]["file_pattern"] == "*.jsonl"
    assert found["format"]["schema"]["max_columns"] == 7
    assert found["destination"]["table"] == "moved"


def test_what_is_deleted_is_gone_and_its_name_is_free(api: Rig) -> None:
    path = f"{PATH}/{create(api)['id']}"
    answer = api.client.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    problem(api.client.get(path), 404, "not_found")
    problem(api.client.delete(path), 404, "not_found")
    assert names(api) == []
    create(api)


def test_pause_and_resume(api: Rig) -> None:
    path = f"{PATH}/{create(api)['id']}"
    for verb, status in (("pause", "paused"), ("pause", "paused"), ("resume", "active"), ("resume", "active")):
        answer = api.client.post(f"{path}/{verb}")
        assert (answer.status_code, answer.json()) == (200, {"status": status})
        assert api.client.get(path).json()["status"] == status


@pytest.mark.parametrize("status", ["draft", "paused"])
def test_what_is_not_active_does_not_run(api: Rig, status: str) -> None:
    made = create(api, status="draft")
    path = f"{PATH}/{made['id']}"
    if status == "paused":
        api.client.post(f"{path}/pause")
    document = problem(api.client.post(f"{path}/run"), 409, "not_active")
    assert document["remedy"]
    assert api.client.get(f"{path}/runs").json() == {"items": [], "next": None}


# --- lists ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sort", ["name", "created_at", "updated_at"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_list_comes_in_pages_without_gaps_or_repeats(api: Rig, sort: str, order: str) -> None:
    made = [create(api, name=f"{'ab'[i % 2]}-{i}")["name"] for i in range(7)]
    expected = sorted(made) if sort == "name" else made
    seen: list[str] = []
    query, pages = f"sort={sort}&order={order}&limit=3", 0
    following = ""
    while True:
        page = api.client.get(f"{PATH}?{query}{following}").json()
        seen += [one["name"] for one in page["items"]]
        pages += 1
        if page["next"] is None:
            break
        following = f"&cursor={page['next']}"
    assert pages == 3
    assert seen == (expected if order == "asc" else expected[::-1])


@pytest.mark.parametrize("sort", ["name", "created_at", "updated_at"])
@pytest.mark.parametrize(
    "keys",
    [["name", "a", "b"], ["created_at", "nonsense", "b"], ["updated_at", "0001-01-01T00:00:00+14:00", ""], ["a", 1]],
)
def test_a_cursor_that_somebody_made_up_does_no_harm(api: Rig, sort: str, keys: list[Any]) -> None:
    create(api)
    cursor = base64.urlsafe_b64encode(json.dumps(keys).encode()).decode()
    answer = api.client.get(f"{PATH}?sort={sort}&cursor={cursor}")
    if keys[0] == sort == "name":
        assert answer.status_code == 200
    else:
        problem(answer, 422, "invalid_field", "query.cursor")


def test_a_page_that_is_just_full_is_the_last(api: Rig) -> None:
    for i in range(3):
        create(api, name=f"n{i}")
    assert api.client.get(f"{PATH}?limit=3").json()["next"] is None


def test_a_list_is_filtered(api: Rig) -> None:
    create(api, name="Orders 100%")
    create(api, name="orders_2", status="draft")
    create(api, name="Clicks", source={"path": "gs://bucket/clicks/"})
    assert sorted(names(api, "q=ORDERS")) == ["Orders 100%", "orders_2"]
    assert names(api, "q=100%25") == ["Orders 100%"]
    assert names(api, "q=s_2") == ["orders_2"]
    assert names(api, "q=nothing") == []
    assert names(api, "status=draft") == ["orders_2"]
    assert names(api, "source_type=gcs") == ["Clicks"]
    assert names(api, "source_type=gcs&status=draft") == []


# --- the same request again ----------------------------------------------------------------------------------------


def test_the_same_key_and_request_have_the_same_answer(api: Rig) -> None:
    headers = {"Idempotency-Key": "first"}
    one = api.client.post(PATH, json=definition(), headers=headers)
    two = api.client.post(PATH, json=definition(), headers=headers)
    assert (one.status_code, two.status_code) == (201, 201)
    assert one.content == two.content
    assert two.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in one.headers
    assert two.headers["etag"] == one.headers["etag"]
    assert two.headers["location"] == one.headers["location"]
    assert names(api) == ["Orders"]


def test_the_same_key_for_another_request_is_refused(api: Rig) -> None:
    headers = {"Idempotency-Key": "first"}
    made = api.client.post(PATH, json=definition(), headers=headers).json()
    problem(api.client.post(PATH, json=definition(name="Other"), headers=headers), 409, "idempotency_key_reused")
    problem(api.client.post(f"{PATH}/{made['id']}/pause", headers=headers), 409, "idempotency_key_reused")
    assert names(api) == ["Orders"]


def test_a_request_that_was_refused_may_be_corrected_under_its_key(api: Rig) -> None:
    headers = {"Idempotency-Key": "first"}
    problem(api.client.post(PATH, json=definition(nonsense=1), headers=headers), 422, "invalid_field")
    assert api.client.post(PATH, json=definition(), headers=headers).status_code == 201


@pytest.mark.parametrize("key", ["x" * 256, "with space", "\x7f"])
def test_a_key_that_is_none_is_refused(api: Rig, key: str) -> None:
    problem(api.client.post(PATH, json=definition(), headers={"Idempotency-Key": key}), 422, "invalid_field")
    assert names(api) == []


def test_two_keys_in_one_request_are_refused(api: Rig) -> None:
    keys = [("Idempotency-Key", "first"), ("Idempotency-Key", "second")]
    problem(api.client.post(PATH, json=definition(), headers=keys), 422, "invalid_field", "header.Idempotency-Key")
    assert names(api) == []
    assert api.client.post(PATH, json=definition(), headers=dict(keys[:1])).status_code == 201


def test_of_many_requests_with_one_key_at_once_one_is_done(api: Rig) -> None:
    begin = threading.Barrier(5)

    def post(_: int) -> httpx.Response:
        begin.wait()
        return api.client.post(PATH, json=definition(), headers={"Idempotency-Key": "k"})

    with ThreadPoolExecutor(5) as threads:
        answers = list(threads.map(post, range(5)))
    made = {answer.json()["id"] for answer in answers if answer.status_code == 201}
    others = {answer.json()["code"] for answer in answers if answer.status_code != 201}
    assert len(made) == 1
    assert others <= {"idempotency_key_at_work"}
    assert names(api) == ["Orders"]


def test_a_request_whose_process_died_is_answered_with_what_it_made(api: Rig) -> None:
    headers = {"Idempotency-Key": "first"}
    one = api.client.post(PATH, json=definition(), headers=headers)
    api.abandon()
    problem(api.client.post(PATH, json=definition(name="Other"), headers=headers), 409, "idempotency_key_reused")
    two = api.client.post(PATH, json=definition(), headers=headers)
    assert (one.status_code, two.status_code) == (201, 201)
    assert two.json() == one.json()
    assert two.headers["location"] == one.headers["location"]
    assert names(api) == ["Orders"]
    assert api.client.post(PATH, json=definition(), headers=headers).headers["idempotency-replayed"] == "true"


def test_a_run_whose_request_died_is_begun_once(api: Rig) -> None:
    path = f"{PATH}/{api.runnable()['id']}"
    headers = {"Idempotency-Key": "run-1"}
    one = api.client.post(f"{path}/run", headers=headers)
    for _ in range(2):
        api.abandon()
        two = api.client.post(f"{path}/run", headers=headers)
        assert (two.status_code, two.json()["run_id"]) == (200, one.json()["run_id"])
    assert len(api.client.get(f"{path}/runs").json()["items"]) == 1
    other = api.client.post(f"{path}/run", headers={"Idempotency-Key": "run-2"})
    assert other.json()["run_id"] != one.json()["run_id"]


# --- runs and files ------------------------------------------------------------------------------------------------


def test_an_ingestion_that_never_ran_has_no_runs_and_no_files(api: Rig) -> None:
    path = f"{PATH}/{create(api)['id']}"
    for end in ("runs", "files", "files/failed"):
        assert api.client.get(f"{path}/{end}").json() == {"items": [], "next": None}
    problem(api.client.get(f"{path}/runs/none"), 404, "not_found")
    problem(api.client.post(f"{path}/runs/none/retry"), 404, "not_found")
    problem(api.client.post(f"{path}/runs/none/cancel"), 404, "not_found")
    problem(api.client.post(f"{path}/files/retry"), 409, "nothing_to_retry")
    problem(api.client.post(f"{path}/files/retry", json={"paths": []}), 422, "invalid_field", "paths")
    problem(api.client.post(f"{path}/files/retry", json={"paths": "a"}), 422, "invalid_field", "paths")
    problem(api.client.post(f"{path}/files/retry", json={"path": ["a"]}), 422, "invalid_field", "path")


@pytest.mark.parametrize("body", [{}, {"confirm": "yes"}, {"confirm": 1}, {"confirm": True, "more": 1}])
def test_files_are_forgotten_only_when_it_is_meant(api: Rig, body: dict[str, Any]) -> None:
    path = f"{PATH}/{create(api)['id']}/processed-files"
    problem(api.client.request("DELETE", path, json=body), 422, "invalid_field")
    problem(api.client.request("DELETE", path, json={"confirm": False}), 422, "confirmation_needed")


def test_what_is_done_by_a_run_is_told(api: Rig) -> None:
    made = api.runnable()
    path = f"{PATH}/{made['id']}"
    answer = api.client.post(f"{path}/run")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told == {
        "status": "completed",
        "method": "direct",
        "run_id": told["run_id"],
        "message": "Ingestion run completed via direct execution",
    }
    assert "Preference-Applied" not in answer.headers
    run = api.client.get(answer.headers["location"]).json()
    assert run["id"] == run["run_id"] == told["run_id"]
    assert (run["status"], run["trigger"], run["method"]) == ("success", "manual", "direct")
    assert run["ingestion_id"] == made["id"]
    assert run["started_at"] <= run["ended_at"]
    other = create(api, name="Other")
    problem(api.client.get(f"{PATH}/{other['id']}/runs/{run['id']}"), 404, "not_found")
    problem(api.client.post(f"{path}/runs/{run['id']}/retry"), 409, "nothing_to_retry")
    problem(api.client.post(f"{path}/runs/{run['id']}/cancel"), 409, "run_over")


def test_runs_come_newest_first_in_pages(api: Rig) -> None:
    path = f"{PATH}/{api.runnable()['id']}"
    ids = [api.client.post(f"{path}/run").json()["run_id"] for _ in range(3)]
    page = api.client.get(f"{path}/runs?limit=2").json()
    assert [run["id"] for run in page["items"]] == ids[:0:-1]
    rest = api.client.get(f"{path}/runs?limit=2&cursor={page['next']}").json()
    assert [run["id"] for run in rest["items"]] == ids[:1]
    assert rest["next"] is None
    problem(api.client.get(f"{path}/runs?cursor=WyJhIiwgImIiXQ"), 422, "invalid_field", "query.cursor")


def test_a_run_with_a_key_is_begun_once(api: Rig) -> None:
    path = f"{PATH}/{api.runnable()['id']}"
    headers = {"Idempotency-Key": "run-1"}
    one = api.client.post(f"{path}/run", headers=headers).json()
    assert api.client.post(f"{path}/run", headers=headers).json() == one
    assert len(api.client.get(f"{path}/runs").json()["items"]) == 1


@pytest.mark.parametrize("prefer", ["respond-async", "wait=10, Respond-Async"])
def test_one_who_does_not_want_to_wait_for_a_run_is_answered_while_it_goes_on(api: Rig, prefer: str) -> None:
    path = f"{PATH}/{api.runnable()['id']}"
    answer = api.client.post(f"{path}/run", headers={"Prefer": prefer})
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert (told["status"], told["method"]) == ("running", "direct")
    assert answer.headers["Preference-Applied"] == "respond-async"
    location = answer.headers["location"]
    until(lambda: api.client.get(location).json()["status"] == "success", 120, "it ends by itself")
