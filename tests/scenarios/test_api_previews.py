"""Previews and costs over HTTP, of sources that are there, and of those that are not."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.contract.api_rigs import DatabaseRig, database_rig
from tests.support.seaweed import Seaweed

TEST = "/api/v1/ingestions/test"
COST = "/api/v1/ingestions/estimate-cost"
# Less than a preview waits for a store before it gives up.
WAITED_S = 8


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseRig]:
    with database_rig(tmp_path_factory.mktemp("service")) as rig:
        yield rig


def land(folder: Path, files: int = 3, rows: int = 1_000) -> None:
    for i in range(files):
        records = [{"id": i * 1000 + n, "user": f"u{n % 7}", "at": "2026-11-25T10:00:00Z"} for n in range(rows)]
        (folder / f"batch_{i}.json").write_text("".join(json.dumps(r) + "\n" for r in records))


def everything(folder: Path) -> set[Path]:
    """All files, less what SQLite itself comes and goes with."""
    return {path for path in folder.rglob("*") if not path.name.endswith(("-wal", "-shm"))}


def test_a_preview_shows_the_table_that_would_be_and_writes_nothing(api: DatabaseRig, tmp_path: Path) -> None:
    land(tmp_path)
    before = everything(api.home)
    answer = api.client.post(TEST, json={"source": {"path": str(tmp_path), "file_pattern": "*.json"}})
    assert answer.status_code == 200, answer.text
    seen = answer.json()
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert (seen["source_type"], seen["format"], seen["files"], seen["bytes"]) == ("local", "json", 3, size)
    assert (seen["complete"], seen["row_estimate"], seen["warnings"]) == (True, 3_000, [])
    assert [(c["name"], c["type"]) for c in seen["schema"]] == [
        ("id", "long"),
        ("user", "string"),
        ("at", "timestamptz"),
    ]
    assert seen["schema"][1]["samples"] == ["u0", "u1", "u2", "u3", "u4"]
    assert seen["rows"][0]["id"] == 0
    assert len(seen["rows"]) == 20
    assert everything(api.home) == before
    assert api.client.get("/api/v1/ingestions").json()["items"] == []


def test_a_file_that_cannot_be_read_is_a_warning(api: DatabaseRig, tmp_path: Path) -> None:
    land(tmp_path, files=2)
    (tmp_path / "batch_0.json").write_text('{"id": ')
    seen = api.client.post(TEST, json={"source": {"path": str(tmp_path)}}).json()
    assert len(seen["warnings"]) == 1
    assert "batch_0.json" in seen["warnings"][0]
    assert seen["rows"][0]["id"] == 1000


def test_an_empty_folder_has_no_rows_and_a_warning(api: DatabaseRig, tmp_path: Path) -> None:
    seen = api.client.post(TEST, json={"source": {"path": str(tmp_path)}}).json()
    assert (seen["files"], seen["row_estimate"], seen["rows"], seen["schema"]) == (0, 0, [], [])
    assert "No file" in seen["warnings"][0]


def test_a_cost_is_that_of_the_source(api: DatabaseRig, tmp_path: Path) -> None:
    land(tmp_path)
    document = {"source": {"path": str(tmp_path)}, "schedule": {"frequency": "hourly"}}
    cost = api.client.post(COST, json=document).json()
    assert cost["files"] == 3
    assert cost["bytes"] == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert cost["runs_per_month"] == pytest.approx(730.5, rel=0.01)
    assert cost["compute"]["per_month"] == pytest.approx(cost["compute"]["per_run"] * cost["runs_per_month"], rel=0.01)
    assert cost["discovery"] == {"per_run": 0, "per_month": 0}
    assert cost["total_per_month"] > 0
    assert any("schedule" in text for text in cost["assumptions"])


@pytest.mark.parametrize("path", [TEST, COST])
def test_a_source_in_a_store_with_its_own_keys(api: DatabaseRig, path: str, seaweed: Seaweed, bucket: str) -> None:
    environ = seaweed.environ
    seaweed.put(bucket, {"in/a.json": b'{"id": 1}\n'})
    keys = {
        "aws_access_key_id": environ["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": environ["AWS_SECRET_ACCESS_KEY"],
        "aws_region": "us-east-1",
        "endpoint_url": environ["AWS_ENDPOINT_URL"],
    }
    document = {"source": {"type": "s3", "path": f"s3://{bucket}/in/", "credentials": keys}}
    answer = api.client.post(path, json=document)
    assert answer.status_code == 200, answer.text
    assert answer.json()["files"] == 1
    nowhere = {"source": {"path": f"s3://{bucket}-none/in/", "credentials": keys}}
    refused = api.client.post(path, json=nowhere)
    assert (refused.status_code, refused.json()["code"]) == (422, "bucket_not_found")
    wrong = {"source": {"path": f"s3://{bucket}/in/", "credentials": {**keys, "aws_secret_access_key": "not-this-one"}}}
    refused = api.client.post(path, json=wrong)
    assert (refused.status_code, refused.json()["code"]) == (422, "auth")
    assert "not-this-one" not in refused.text


@pytest.mark.parametrize("path", [TEST, COST])
@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"source": {"path": "/nowhere/at/all"}}, 422, "path_not_found"),
        ({"source": {"path": "nowhere"}}, 422, "path_not_found"),
        ({"source": {}}, 422, "invalid_field"),
        ({}, 422, "invalid_field"),
        ({"source": {"path": "/tmp"}, "nonsense": 1}, 422, "invalid_field"),  # noqa: S108 - is not looked into
        ({"source": {"path": "/tmp"}, "schedule": {"frequency": "x"}}, 422, "invalid_field"),  # noqa: S108
        ({"source": {"path": "sftp://h/x"}}, 422, "not_supported"),
    ],
    ids=str,
)
def test_what_cannot_be_looked_into_is_said(
    api: DatabaseRig, path: str, fields: dict[str, Any], status: int, code: str
) -> None:
    answer = api.client.post(path, json=fields)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_while_a_source_is_silent_the_api_is_not(api: DatabaseRig) -> None:
    """A store that accepts and never answers holds up the previews, and nothing else."""
    # On a busy machine the previews may have given up before the others were answered, which says nothing.
    assert any(answered_beside_a_silent_store(api) for _ in range(5))


def answered_beside_a_silent_store(api: DatabaseRig) -> bool:
    """Whether others were answered in a time in which no preview gives up."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        keys = {
            "aws_access_key_id": "a",
            "aws_secret_access_key": "b",
            "endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        document = {"source": {"path": "s3://bucket/in/", "credentials": keys}}
        threads, began_at = ThreadPoolExecutor(5), time.monotonic()
        waiting = [threads.submit(api.client.post, TEST, json=document, timeout=180) for _ in range(5)]
        connection, _ = silent.accept()
        with connection:
            for _ in range(20):
                assert api.client.get("/health/live", timeout=30).status_code == 200
                assert api.client.get("/api/v1/ingestions", timeout=30).status_code == 200
            none_gave_up = not any(one.done() for one in waiting)
            is_in_time = time.monotonic() - began_at < WAITED_S
            assert none_gave_up or not is_in_time
    # The store is gone now, so that what waited for it ends.
    assert {one.result().status_code for one in waiting} == {422}
    assert {one.result().json()["code"] for one in waiting} == {"connectivity"}
    threads.shutdown()
    return is_in_time
