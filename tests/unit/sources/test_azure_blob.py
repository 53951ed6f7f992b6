"""Azure: what the service says becomes an error of ours without a secret; folders are known; one key is used alone."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from app.domain.errors import (
    AutoloaderError,
    BucketNotFoundError,
    Category,
    FileError,
    SourceAuthError,
    SourceNotFoundError,
    SourceUnreachableError,
)
from app.domain.files import SourceFile
from app.domain.locations import Location
from app.domain.ports import Source
from app.sources import open_source
from app.sources.azure import AMBIENT, AzureSettings, azure_settings
from app.sources.azure_blob import AzureAccess
from app.sources.object_store import ObjectStoreSource
from tests.support.answers import Answer, Answers, Request, answering, azure_listing, s3_error, token
from tests.support.azurite import Azurite
from tests.support.servers import free_ports

FILE = SourceFile("az://con/a", "0xabc", 3, datetime(2026, 1, 1, tzinfo=UTC))
KEY = "c2VjcmV0LWtleQ=="
RANGE = {"etag": '"0xabc"', "content-range": "bytes 0-2/3"}


def _open(path: str, credentials: Mapping[str, str] | None, environ: Mapping[str, str] | None = None) -> Source:
    return open_source(path, file_pattern=None, credentials=credentials, environ=environ or {})


def _keys(source: Source) -> list[str]:
    return [file.key for file in source.discover()]


def _to(server: Answers, **more: str) -> dict[str, str]:
    return {"account_name": "acc", "endpoint_url": server.endpoint, **more}


# --- what a real server says -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def container(azurite: Azurite) -> str:
    return azurite.create_bucket(f"unit-{os.getpid()}")


def test_a_container_that_is_not_there(azurite: Azurite) -> None:
    for path in ("az://no-such", "az://no-such/a.json", "az://no-such/*.json"):
        with pytest.raises(BucketNotFoundError, match="no container 'no-such'"):
            _keys(_open(path, azurite.credentials))
    with pytest.raises(FileError) as failed:
        _open("az://no-such", azurite.credentials).reader().read(FILE)
    assert failed.value.category is Category.PATH_NOT_FOUND


def test_a_wrong_key(azurite: Azurite, container: str) -> None:
    azurite.put(container, {"wrong/a": b"1"})
    (file,) = _open(f"az://{container}/wrong", azurite.credentials).discover()
    for wrong in ({"account_key": KEY}, {"account_name": "nobody"}):
        source = _open(f"az://{container}/wrong", azurite.credentials | wrong)
        with pytest.raises(SourceAuthError, match="container"):
            _keys(source)
        with pytest.raises(FileError) as failed:
            source.reader().read(file)
        assert failed.value.category is Category.AUTH


def test_a_signature_reads_what_it_permits(azurite: Azurite, container: str) -> None:
    azurite.put(container, {"sas/a": b"123"})
    given = {"account_name": azurite.account, "endpoint_url": azurite.endpoint}
    source = _open(f"az://{container}/sas", {**given, "sas_token": f"?{azurite.sas_token()}"})
    (file,) = source.discover()
    assert source.reader().read(file, 1) == b"23"
    for refused in (azurite.sas_token(permissions="r"), azurite.sas_token().replace("sig=", "sig=AAAA")):
        with pytest.raises(SourceAuthError) as denied:
            _keys(_open(f"az://{container}/sas", {**given, "sas_token": refused}))
        shown = f"{denied.value} {denied.value.__cause__}"
        assert not any(secret in shown for secret in (parse_qs(refused)["sig"][0], refused.rpartition("sig=")[2]))


def test_the_account_may_stand_in_the_path(azurite: Azurite, container: str) -> None:
    azurite.put(container, {"path/a": b"1"})
    environ = {"AZURE_STORAGE_ACCOUNT_KEY": azurite.key, "AZURE_STORAGE_ENDPOINT": azurite.endpoint}
    path = f"abfss://{container}@{azurite.account}.dfs.core.windows.net/path"
    assert _keys(_open(path, None, environ)) == [f"az://{container}/path/a"]


def test_the_version_is_the_etag(azurite: Azurite, container: str) -> None:
    azurite.put(container, {"etag/a": b"1"})
    (file,) = _open(f"az://{container}/etag", azurite.credentials).discover()
    assert file.version == (azurite.store(container).head("etag/a")["e_tag"] or "").strip('"')


def test_a_name_with_a_slash_at_its_end_is_no_file(azurite: Azurite, container: str) -> None:
    headers = {"x-ms-blob-type": "BlockBlob"}
    azurite.request("PUT", f"/{container}/slash/folder/", headers=headers)
    azurite.put(container, {"slash/a": b"1"})
    assert _keys(_open(f"az://{container}/slash", azurite.credentials)) == [f"az://{container}/slash/a"]


def test_a_marked_folder_is_empty_or_holds_what_is_below_it(azurite: Azurite, container: str) -> None:
    azurite.put(container, {"marked/": b"", "marked/empty/": b"", "marked/full/": b"", "marked/full/a": b"1"})
    for path in ("marked/empty", "marked/empty/"):
        assert _keys(_open(f"az://{container}/{path}", azurite.credentials)) == []
    assert _keys(_open(f"az://{container}/marked", azurite.credentials)) == [f"az://{container}/marked/full/a"]
    with pytest.raises(SourceNotFoundError):
        _keys(_open(f"az://{container}/marked/nowhere", azurite.credentials))


# --- what a server could say -------------------------------------------------------------------------------------


def test_a_listing_is_read_page_by_page() -> None:
    def answer(request: Request) -> Answer:
        page = int(request.path.partition("marker=")[2].partition("&")[0] or "0")
        names = (f"{page}-{number:04}" for number in range(1_000))
        return azure_listing(*names, next_marker=str(page + 1) if page < 4 else "")

    with answering(answer) as server:
        files = _open("az://con/", _to(server, account_key=KEY)).discover()
        assert next(files).key == "az://con/0-0000"
        assert len(server.requests) <= 3
        assert sum(1 for _ in files) == 4_999
        assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (s3_error(403, "AuthenticationFailed", "very-secret"), SourceAuthError, "AuthenticationFailed"),
        (s3_error(403, "AuthorizationPermissionMismatch"), SourceAuthError, "AuthorizationPermissionMismatch"),
        (s3_error(409, "PublicAccessNotPermitted"), SourceAuthError, "PublicAccessNotPermitted"),
        (s3_error(401, "NoAuthenticationInformation"), SourceAuthError, "NoAuthenticationInformation"),
        (s3_error(404, "ContainerNotFound"), BucketNotFoundError, "no container 'con'"),
        (s3_error(400, "Odd", "very-secret"), SourceUnreachableError, "400 Odd"),
        (Answer(200, b"<html>very-secret</html>"), SourceUnreachableError, "no listing"),
    ],
)
def test_what_a_store_says_has_a_kind(answer: Answer, error: type[AutoloaderError], says: str) -> None:
    with answering(lambda _: answer) as server, pytest.raises(error) as raised:
        _keys(_open("az://con/", _to(server, account_key=KEY)))
    assert says in str(raised.value)
    assert "very-secret" not in str(raised.value)


def test_every_range_names_the_version() -> None:
    with answering(lambda _: Answer(206, b"23", {"etag": '"0xabc"', "content-range": "bytes 1-2/3"})) as server:
        assert _open("az://con/", _to(server, account_key=KEY)).reader().read(FILE, 1, 3) == b"23"
        asked = server.requests[0].headers
    assert asked["if-match"] == '"0xabc"'
    assert "bytes=1-2" in (asked.get("range"), asked.get("x-ms-range"))


def test_a_server_that_heeds_no_condition_is_found_out() -> None:
    with answering(lambda _: Answer(206, b"123", RANGE | {"etag": '"0xnew"'})) as server:
        with pytest.raises(FileError) as refused:
            _open("az://con/", _to(server, account_key=KEY)).reader().read(FILE)
        assert refused.value.category is Category.PATH_NOT_FOUND


def test_an_endpoint_where_nobody_listens() -> None:
    (port,) = free_ports(1)
    settings = AzureSettings("acc", account_key=KEY, endpoint_url=f"http://127.0.0.1:{port}", patience_s=1)
    source = ObjectStoreSource(Location("az", "con", ""), AzureAccess(settings))
    with pytest.raises(SourceUnreachableError, match=r"refused|timed out"):
        _keys(source)
    with pytest.raises(FileError, match=r"refused|timed out") as failed:
        source.reader().read(FILE)
    assert failed.value.category is Category.CONNECTIVITY


@pytest.mark.parametrize("given", [{"account_key": KEY}, {"sas_token": "sv=1&sig=mine"}])
def test_a_given_key_is_used_alone(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    # The library looks at the process's environment by itself.
    foreign = {
        "AZURE_STORAGE_ACCOUNT_NAME": "foreign",
        "AZURE_STORAGE_ACCOUNT_KEY": "Zm9yZWlnbg==",
        "AZURE_STORAGE_SAS_TOKEN": "sig=foreign",
        "AZURE_STORAGE_TOKEN": "foreign",
        "AZURE_STORAGE_USE_EMULATOR": "true",
        "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:9",
        "AZURE_SKIP_SIGNATURE": "true",
        "AZURE_CLIENT_ID": "foreign",
        "AZURE_TENANT_ID": "foreign",
        "AZURE_CLIENT_SECRET": "foreign",
    }
    for name, value in foreign.items():
        monkeypatch.setenv(name, value)
    with answering(lambda _: azure_listing("a")) as server:
        assert _keys(_open("az://con/", _to(server, **given), foreign)) == ["az://con/a"]
        (asked,) = server.requests
    assert "foreign" not in f"{asked.path} {asked.headers}"
    signed = "sig=mine" in asked.path or asked.headers.get("authorization", "").startswith("SharedKey acc:")
    assert signed


# --- without a key -----------------------------------------------------------------------------------------------


def test_the_machine_s_identity() -> None:
    with answering(lambda _: token("machine")) as machine, answering(lambda _: azure_listing("a")) as server:
        environ = {"AZURE_IDENTITY_ENDPOINT": f"{machine.endpoint}/token", "AZURE_CLIENT_ID": "client"}
        assert _keys(_open("az://con/", _to(server), environ)) == ["az://con/a"]
        assert server.requests[0].headers["authorization"] == "Bearer machine"
        assert "client_id=client" in machine.requests[0].path
        assert machine.requests[0].headers["metadata"] == "true"


def test_a_workload_s_identity(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("assertion")
    with answering(lambda _: token("workload")) as login, answering(lambda _: azure_listing("a")) as server:
        environ = {
            "AZURE_AUTHORITY_HOST": login.endpoint,
            "AZURE_CLIENT_ID": "client",
            "AZURE_TENANT_ID": "tenant",
            "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token"),
        }
        assert _keys(_open("az://con/", _to(server), environ)) == ["az://con/a"]
        assert server.requests[0].headers["authorization"] == "Bearer workload"
        assert login.requests[0].path == "/tenant/oauth2/v2.0/token"


def test_an_application_s_identity_that_is_refused() -> None:
    refusal = Answer(401, b'{"error": "invalid_client", "error_description": "very-secret"}')
    with answering(lambda _: refusal) as login, answering(lambda _: azure_listing("a")) as server:
        environ = {
            "AZURE_AUTHORITY_HOST": login.endpoint,
            "AZURE_CLIENT_ID": "client",
            "AZURE_TENANT_ID": "tenant",
            "AZURE_CLIENT_SECRET": "very-secret",
        }
        source = _open("az://con/", _to(server), environ)
        assert "very-secret" not in f"{source.reader()!r} {vars(source.reader())}"
        with pytest.raises(SourceAuthError) as refused:
            _keys(source)
        assert "very-secret" not in str(refused.value)
        assert server.requests == []


def test_a_token_service_that_is_away_is_no_refusal_of_a_file() -> None:
    with answering(lambda _: Answer(503)) as machine, answering(lambda _: Answer(206, b"123", RANGE)) as server:
        source = _open("az://con/", _to(server), {"AZURE_IDENTITY_ENDPOINT": machine.endpoint})
        with pytest.raises(FileError) as failed:
            source.reader().read(FILE)
        assert failed.value.category is Category.CONNECTIVITY


def test_the_library_knows_every_name_that_it_is_given() -> None:
    settings = azure_settings({"account_name": "acc"}, dict.fromkeys(AMBIENT, "false"))
    assert len(settings.ambient) == len(AMBIENT) - 1
    assert AzureAccess(settings).open("con").config["account_name"] == "acc"


def test_a_public_container_is_asked_without_a_signature() -> None:
    with answering(lambda _: azure_listing("a")) as server:
        assert _keys(_open("az://con/", _to(server), {"AZURE_SKIP_SIGNATURE": "true"})) == ["az://con/a"]
        assert "authorization" not in server.requests[0].headers


def test_a_machine_without_an_identity_says_so() -> None:
    with answering(lambda _: Answer(404)) as machine, answering(lambda _: azure_listing("a")) as server:
        source = _open("az://con/", _to(server), {"AZURE_IDENTITY_ENDPOINT": machine.endpoint})
        with pytest.raises(SourceAuthError, match="No key for the container") as refused:
            _keys(source)
        assert "AZURE_STORAGE_ACCOUNT_KEY" in str(refused.value)
        with pytest.raises(FileError) as failed:
            source.reader().read(FILE)
        assert failed.value.category is Category.AUTH
        assert server.requests == []


def test_a_workload_whose_token_is_missing_says_so(tmp_path: Path) -> None:
    environ = {
        "AZURE_CLIENT_ID": "client",
        "AZURE_TENANT_ID": "tenant",
        "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "nowhere"),
    }
    with answering(lambda _: azure_listing("a")) as server, pytest.raises(SourceAuthError, match="No key"):
        _keys(_open("az://con/", _to(server), environ))


@pytest.mark.parametrize("given", [{"account_key": KEY}, {"sas_token": "sv=1&sig=secret"}])
def test_a_reader_shows_no_secret_and_travels(given: dict[str, str]) -> None:
    with answering(lambda _: Answer(206, b"123", RANGE)) as server:
        reader = _open("az://con/", _to(server, **given)).reader()
        assert reader.read(FILE) == b"123"
        assert not any(secret in f"{reader!r} {reader} {vars(reader)}" for secret in ("secret", KEY))
        assert pickle.loads(pickle.dumps(reader)).read(FILE) == b"123"  # noqa: S301
