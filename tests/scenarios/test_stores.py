"""Files land in Azure and in Google stores: through the command line, on servers that speak as those do."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.azurite import Azurite
from tests.support.command import Home
from tests.support.events import event_files
from tests.support.fake_gcs import FakeGcs

TABLE = "raw.events"


@dataclass(frozen=True)
class Landing:
    """A folder in a store, and the source type that belongs to it."""

    server: Azurite | FakeGcs
    scheme: str
    kind: str
    bucket: str

    @property
    def source(self) -> str:
        return f"{self.scheme}://{self.bucket}/landing/"

    @property
    def credentials(self) -> dict[str, Any]:
        """As a person writes them: a service account's key stands there as the object that it is."""
        given: dict[str, Any] = dict(self.server.credentials)
        if "service_account_key" in given:
            given["service_account_key"] = json.loads(given["service_account_key"])
        return given

    def land(self, files: Mapping[str, bytes]) -> None:
        self.server.put(self.bucket, {f"landing/{name}": data for name, data in files.items()})


@pytest.fixture(params=["azure_blob", "gcs"])
def landing(request: pytest.FixtureRequest) -> Landing:
    name, scheme = {"azure_blob": ("azurite", "az"), "gcs": ("fake_gcs", "gs")}[request.param]
    server = request.getfixturevalue(name)
    return Landing(server, scheme, request.param, server.create_bucket(f"w-{uuid.uuid4().hex[:16]}"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    folder = tmp_path / "home"
    folder.mkdir()
    return Home(folder)


def test_what_lands_is_loaded_once(landing: Landing, home: Home) -> None:
    """The key comes from the environment, then from a file; the same files are known whoever gave it."""
    landing.land({**event_files(0, 1), "data/batch_2.json.gz": gzip.compress(event_files(2)["data/batch_2.json"])})
    first = home.json("load", landing.source, "--to", TABLE, environ=landing.server.environ)
    assert (first["status"], first["files"]["loaded"], first["rows"]["loaded"]) == ("success", 3, 3000)

    landing.land(event_files(3, 4))
    keys = home.folder / "keys.json"
    keys.write_text(json.dumps(landing.credentials))
    given = ("--to", TABLE, "--credentials", str(keys))
    planned = home.json("plan", f"{landing.source}**/*.json*", *given)
    assert planned["files"] == 2
    second = home.json("load", landing.source, *given, "--source-type", landing.kind)
    assert (second["files"]["loaded"], second["files"]["known"], second["rows"]["loaded"]) == (2, 3, 2000)

    third = home.json("load", landing.source, *given)
    assert (third["files"]["loaded"], third["files"]["known"], third["snapshot_id"]) == (0, 5, None)
    assert home.query(TABLE, f"select count(*) n, count(distinct id) ids, sum(id) total from {TABLE}") == [
        {"n": 5000, "ids": 5000, "total": sum(range(5000))}
    ]
    paths = [file["path"] for file in home.json("files", TABLE)]
    assert paths == [f"{landing.source}data/batch_{n}.json{'.gz' if n == 2 else ''}" for n in range(5)]
    assert home.query(TABLE, f"select distinct _file_path p from {TABLE} order by 1") == [{"p": p} for p in paths]


def test_another_type_than_the_path_s_is_refused(landing: Landing, home: Home) -> None:
    refused = home.json(
        "load", landing.source, "--to", TABLE, "--source-type", "s3", status=2, environ=landing.server.environ
    )
    assert refused["code"] == "invalid_field"
    assert landing.kind in refused["detail"]


def test_a_missing_container_and_a_wrong_key(azurite: Azurite, home: Home) -> None:
    home.environ |= azurite.environ
    missing = home.json("load", "az://no-such-container/x/", "--to", TABLE, status=1)
    assert missing["code"] == "bucket_not_found"
    container = azurite.create_bucket(f"w-{uuid.uuid4().hex[:16]}")
    secret = "d3Jvbmctc2VjcmV0LXRoYXQtbm9ib2R5LW1heS1zZWU="
    wrong = {"AZURE_STORAGE_ACCOUNT_KEY": secret}
    done = home.run("load", f"az://{container}/x/", "--to", TABLE, "--verbose", "--output", "json", environ=wrong)
    assert (done.status, done.json["code"]) == (1, "auth")
    assert secret not in done.stdout + done.stderr


def test_a_field_of_another_store_is_refused(azurite: Azurite, home: Home) -> None:
    keys = home.folder / "keys.json"
    keys.write_text(json.dumps({"aws_access_key_id": "x", **azurite.credentials}))
    refused = home.json("load", "az://con/x/", "--to", TABLE, "--credentials", str(keys), status=2)
    assert refused["code"] == "invalid_field"
    assert "aws_access_key_id" in refused["detail"]
    assert azurite.key not in json.dumps(refused)
