"""What comes of runs, of health and of what nobody expected, as the API tells it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.datastructures import Headers

from app.api.etags import etag, versions_of
from app.api.last_resort import LastResort
from app.api.local_only import is_local
from app.api.methods import Methods
from app.api.paging import cursor_of, keys_of
from app.api.problems import Refusal, problem_of, status_of
from app.domain import errors
from app.domain.errors import Category, FileError
from app.domain.files import FileState, LedgerFile
from app.domain.ingestions import Method
from app.domain.runs import RunStatus
from app.services.health import Part
from tests.support.api_in_memory import Api
from tests.support.told import told_events
from tests.unit.api.test_edges import problem

PATH = "/api/v1/ingestions"
FLOW_RUN = "3f6c1c0e-8a58-4f0e-9d5b-0f6f3a9a2b7d"

# --- runs ----------------------------------------------------------------------------------------------------------


def run(api: Api) -> tuple[int, dict[str, Any]]:
    answer = api.client.post(f"{PATH}/{api.created()['id']}/run")
    assert answer.headers["location"].endswith(answer.json()["run_id"])
    return answer.status_code, answer.json()


def test_a_run_by_prefect_is_told_word_for_word(api: Api) -> None:
    api.ingestions.method, api.ingestions.ends = Method.PREFECT, RunStatus.QUEUED
    status, told = run(api)
    assert status == 202
    assert told == {
        "status": "triggered",
        "method": "prefect",
        "flow_run_id": FLOW_RUN,
        "run_id": told["run_id"],
        "message": "Ingestion run triggered via Prefect",
    }


def test_prefects_side_of_a_run_is_shown(api: Api) -> None:
    api.ingestions.method, api.ingestions.ends = Method.PREFECT, RunStatus.RUNNING
    made = api.created()
    path = api.client.post(f"{PATH}/{made['id']}/run").headers["location"]
    told = api.client.get(f"{path}/prefect-details?limit=1&offset=1").json()
    assert (told["flow_run_id"], told["state"], told["state_name"]) == (FLOW_RUN, "RUNNING", "Running")
    assert told["run_id"] == path.rpartition("/")[2]
    assert [line["message"] for line in told["logs"]] == ["line 1"]
    run_id = told["run_id"]
    api.ingestions.runs[run_id] = replace(api.ingestions.runs[run_id], flow_run_id="another")
    problem(api.client.get(f"{path}/prefect-details"), 404, "no_flow_run")


def test_a_direct_run_has_no_such_side(api: Api) -> None:
    made = api.created()
    path = api.client.post(f"{PATH}/{made['id']}/run").headers["location"]
    problem(api.client.get(f"{path}/prefect-details"), 404, "no_flow_run")


def test_a_direct_run_that_ended_well_is_told_word_for_word(api: Api) -> None:
    status, told = run(api)
    assert status == 200
    assert (told["status"], told["method"]) == ("completed", "direct")
    assert told["message"] == "Ingestion run completed via direct execution"


@pytest.mark.parametrize("ended", ["partial", "failed"])
def test_one_that_did_not_says_why(api: Api, ended: str) -> None:
    api.ingestions.ends = RunStatus(ended)
    status, told = run(api)
    assert (status, told["status"], told["method"]) == (200, ended, "direct")
    assert told["errors"] == [
        {"file": "s3://b/a", "category": "auth", "line": None, "message": "No.", "retryable": False}
    ]


@pytest.mark.parametrize("now", ["queued", "running"])
def test_one_that_takes_long_goes_on(api: Api, now: str) -> None:
    api.ingestions.ends = RunStatus(now)
    status, told = run(api)
    assert (status, told["status"], told["method"]) == (202, "running", "direct")


def test_a_second_run_is_refused_and_says_which_one_is_at_work(api: Api) -> None:
    api.ingestions.ends = RunStatus.RUNNING
    made = api.created()
    first = api.client.post(f"{PATH}/{made['id']}/run").json()
    document = problem(api.client.post(f"{PATH}/{made['id']}/run"), 409, "run_in_progress")
    assert document["run_id"] == first["run_id"]
    # The same request works when that one is over.
    assert document["retryable"] is True
    assert problem(api.client.delete(f"{PATH}/{made['id']}"), 409, "run_in_progress")["retryable"] is True
    clear = api.client.request("DELETE", f"{PATH}/{made['id']}/processed-files", json={"confirm": True})
    problem(clear, 409, "run_in_progress")
    cancelled = api.client.post(f"{PATH}/{made['id']}/runs/{first['run_id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")


def test_a_run_with_failed_files_is_tried_again(api: Api) -> None:
    api.ingestions.ends = RunStatus.PARTIAL
    made = api.created()
    first = api.client.post(f"{PATH}/{made['id']}/run").json()["run_id"]
    answer = api.client.post(f"{PATH}/{made['id']}/runs/{first}/retry")
    assert answer.status_code == 202
    assert (answer.json()["trigger"], answer.json()["retry_of"]) == ("retry", first)


@pytest.mark.parametrize("kind", [errors.ConflictError, *errors.ConflictError.__subclasses__()])
def test_of_conflicts_those_that_pass_by_themselves_may_be_asked_again(kind: type[errors.ConflictError]) -> None:
    passes = kind in {errors.RunAtWorkError, errors.KeyAtWorkError}
    assert problem_of(kind())["retryable"] is passes
    # What a run or the command line does about them is another matter.
    assert not issubclass(kind, errors.RetriableError)


# --- files ---------------------------------------------------------------------------------------------------------


def file(number: int, state: FileState = FileState.SUCCESS) -> LedgerFile:
    failed = state is FileState.FAILED
    return LedgerFile(
        f"s3://b/{number}.json",
        "v",
        state,
        size_bytes=10,
        rows=None if failed else 1,
        category="auth" if failed else None,
        message="No." if failed else None,
    )


def test_files_come_in_pages_and_failures_with_their_reasons(api: Api) -> None:
    made = api.created()
    path = f"{PATH}/{made['id']}/files"
    api.ingestions.files[made["id"]] = [file(i, FileState.FAILED if i == 3 else FileState.SUCCESS) for i in range(5)]
    first = api.client.get(f"{path}?limit=3").json()
    rest = api.client.get(f"{path}?limit=3&cursor={first['next']}").json()
    assert [one["path"] for one in first["items"] + rest["items"]] == [f"s3://b/{i}.json" for i in range(5)]
    assert rest["next"] is None
    assert first["items"][0]["state"] == "success"
    (failed,) = api.client.get(f"{path}/failed").json()["items"]
    assert (failed["path"], failed["category"], failed["message"]) == ("s3://b/3.json", "auth", "No.")
    assert failed["retryable"] is False
    assert api.client.post(f"{path}/retry", json={"paths": ["s3://b/3.json"]}).status_code == 202
    cleared = api.client.request("DELETE", f"{PATH}/{made['id']}/processed-files", json={"confirm": True})
    assert cleared.status_code == 200
    assert cleared.json()["files_cleared"] == 5
    assert cleared.json()["ingestion_id"] == made["id"]
    assert "loads every file" in cleared.json()["message"]


@pytest.mark.parametrize("retryable", [True, False])
def test_only_what_is_tried_by_itself_has_a_next_time(api: Api, *, retryable: bool) -> None:
    made = api.created()
    failed = replace(file(1, FileState.FAILED), retryable=retryable, next_try_at=datetime(2026, 11, 25, 10, tzinfo=UTC))
    api.ingestions.files[made["id"]] = [failed]
    (told,) = api.client.get(f"{PATH}/{made['id']}/files/failed").json()["items"]
    assert told["next_try_at"] == ("2026-11-25T10:00:00Z" if retryable else None)


@pytest.mark.parametrize("limit", range(1, 7))
def test_the_versions_of_a_file_stay_on_one_page_and_none_is_left_out(api: Api, limit: int) -> None:
    made = api.created()
    versions = [replace(file(number), version=f"v{i}") for number in range(3) for i in range(number + 1)]
    api.ingestions.files[made["id"]] = versions
    seen: list[tuple[str, str]] = []
    cursor = ""
    while True:
        page = api.client.get(f"{PATH}/{made['id']}/files?limit={limit}{cursor}").json()
        paths = [one["path"] for one in page["items"]]
        assert not set(paths) & {path for path, _ in seen}
        assert len(paths) <= limit + 2
        seen += [(one["path"], one["version"]) for one in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == [(one.key, one.version) for one in versions]


# --- health --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/api/v1/health"])
def test_healthy(api: Api, path: str) -> None:
    answer = api.client.get(path)
    assert answer.status_code == 200
    assert answer.json() == {"status": "healthy", "database": "connected", "prefect": "connected"}
    assert api.client.get("/health/ready").json() == {"status": "ready"}


def test_without_prefect_it_is_healthy_and_says_why(api: Api) -> None:
    api.board.prefect(Part(detail="Prefect answers, but schedules nothing."))
    answer = api.client.get("/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "healthy"
    assert answer.json()["prefect"] == "disconnected"
    assert answer.json()["prefect_detail"] == "Prefect answers, but schedules nothing."


def test_without_its_database_it_is_not(api: Api) -> None:
    api.board.database(Part(detail="Gone."))
    answer = api.client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["status"] == "unhealthy"
    assert answer.json()["database"] == "disconnected"
    assert answer.json()["database_detail"] == "Gone."
    problem(api.client.get("/health/ready"), 503, "not_ready")
    assert api.client.get("/health/live").json() == {"status": "alive"}


# --- errors --------------------------------------------------------------------------------------------------------


def test_what_nobody_expected_is_a_problem_that_tells_nothing(api: Api) -> None:
    made = api.created()
    del api.ingestions.files
    with told_events() as told:
        answer = api.client.get(f"{PATH}/{made['id']}/files")
    problem(answer, 500, "internal")
    assert "AttributeError" not in answer.text
    assert [event["event"] for event in told] == ["request_failed"]


def test_so_is_a_panic_of_a_library() -> None:
    class Panic(BaseException):
        """As native code raises it."""

    async def panics(*_args: object, **_more: object) -> None:
        raise Panic

    async def asked() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await LastResort(panics)({"type": "http", "method": "GET", "path": "/"}, receive, send)
        return sent

    async def receive() -> Any:
        raise AssertionError

    begin, body = asyncio.run(asked())
    assert begin["status"] == 500
    assert json.loads(body["body"])["code"] == "internal"


def families(kind: type[errors.AutoloaderError]) -> list[type[errors.AutoloaderError]]:
    return [kind, *(inner for child in kind.__subclasses__() for inner in families(child))]


@pytest.mark.parametrize("kind", families(errors.FatalError) + families(errors.RetriableError))
def test_every_error_has_a_status(kind: type[errors.AutoloaderError]) -> None:
    status = status_of(kind.__new__(kind))
    if issubclass(kind, errors.ConflictError):
        assert status in (409, 412)
    elif issubclass(kind, errors.UsageError):
        assert status == 422
    elif issubclass(kind, errors.NotFoundError):
        assert status == 404
    else:
        assert 400 <= status < 600


def test_a_files_error_is_one_of_the_request() -> None:
    assert status_of(FileError(Category.AUTH, "No.")) == 422


# --- small parts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - an address of nobody
        ("", False),
        ("localhost", False),
        (None, False),
    ],
)
def test_who_is_on_this_machine(peer: str | None, *, expected: bool) -> None:
    assert is_local(peer, Headers({"host": "localhost"})) is expected


def test_two_hosts_are_none() -> None:
    assert not is_local("127.0.0.1", Headers(raw=[(b"host", b"localhost"), (b"host", b"example.com")]))
    assert not is_local("127.0.0.1", Headers(raw=[]))


@pytest.mark.parametrize(
    ("lines", "versions"),
    [
        ([], None),
        (["*"], None),
        ([etag(7)], {7}),
        ([f"{etag(3)}, {etag(2)}"], {2, 3}),
        (['"x",  "v4"'], {4}),
        ([etag(99), 'W/"v3"', etag(1)], {1, 99}),
        ([f"{etag(99)} , {etag(1)}", '"x"'], {1, 99}),
        (["", '"v1",, "v2",'], {1, 2}),
    ],
)
def test_which_versions_are_meant(lines: list[str], versions: set[int] | None) -> None:
    assert versions_of(lines) == versions


@pytest.mark.parametrize("header", ["", '"x"', "v1", 'W/"v1"', '"v1" "v2"', '"v-1"', '*, "v1"'])
def test_no_version_of_ours_is_a_mismatch(header: str) -> None:
    assert versions_of([header]) == frozenset()


@pytest.mark.parametrize("keys", [("a", "b"), ("é\n", 1), (None, -5), ("file:///ä?#%", "x" * 2000)])
def test_a_cursor_gives_its_keys_back(keys: tuple[str | int | None, ...]) -> None:
    cursor = cursor_of(keys)
    assert cursor.isascii()
    assert not set(cursor) & set("+/=&?# ")
    assert keys_of(cursor, 2) == keys


@pytest.mark.parametrize(
    "bad",
    ["", "!", "WyJhIl0", cursor_of(["a", "\0"]), cursor_of([1 << 64, "a"]), cursor_of([True, "a"]), "é", "W1tbW1tb"],
)
def test_what_is_no_cursor_is_refused(bad: str) -> None:
    with pytest.raises(Refusal):
        keys_of(bad, 2)


def test_a_cursor_of_another_list_is_none_of_files(api: Api) -> None:
    path = f"{PATH}/{api.created()['id']}/files?cursor="
    for keys in ([None], [7], ["a", "b"]):
        problem(api.client.get(path + cursor_of(keys)), 422, "invalid_field")


def test_a_name_comes_before_an_id() -> None:
    methods = Methods({"/a/{id}": ["get", "put"], "/a/b": ["post"], "/a/{id}/c": ["delete"]})
    assert methods.of("/a/b") == {"POST"}
    assert methods.of("/a/x") == {"GET", "HEAD", "PUT"}
    assert methods.of("/a/x/c") == {"DELETE"}
    assert methods.of("/a/x/y") == frozenset()
    assert methods.of("/a/") == frozenset()


def test_a_problem_goes_out_as_json_whatever_it_quotes(api: Api) -> None:
    body = json.dumps({"name": "x", "é\u2028\ud83d\ude00": 1}).encode()
    answer = api.client.post(PATH, content=body, headers={"Content-Type": "application/json"})
    assert problem(answer, 422, "invalid_field")["errors"][0]["field"].startswith("é")
